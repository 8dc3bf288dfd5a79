"""A layer as a runtime executes it: one fused group, described without the values of its weights.

Shapes have the batch first and the channels last, (n, h, w, c) or (n, c), whatever layout the file or the runtime uses. Layers with
equal specifications are the same layer and are measured once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from device_agents.support.dataclass_json import read_as
from device_agents.support.numbers import is_whole
from profiler.errors import LayerError

Shape = tuple[int, ...]
Pair = tuple[int, int]

ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1}
MOST_MACS = 10**15
"""The limit for the operations, and for the bytes, of a layer in data from outside."""
ACTIVATIONS = (
    "none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "leaky_relu", "silu", "gelu", "elu", "softplus", "tanh",
)  # fmt: skip

WEIGHTED_OPS = ("conv2d", "depthwise_conv2d", "conv_transpose2d", "fully_connected")
POOL_OPS = ("avg_pool2d", "max_pool2d")
GLOBAL_POOL_OPS = ("global_avg_pool", "global_max_pool")
UPSAMPLE_OPS = ("upsample_nearest", "upsample_bilinear")
BINARY_OPS = ("add", "mul")
USUAL_SLOPE = 0.01
"""PyTorch's and ONNX's slope of a leaky_relu; layers without a leaky_relu have it, too."""
UNARY_OPS = ("softmax", *ACTIVATIONS[1:])
REORDER_OPS = ("reorder_input", "reorder_output")
"""Copies of an activation from the plain layout of the file into another one, such as blocks of channels, and back."""
CONVERSION_OPS = ("quantise", "dequantise")
"""Conversions of an activation from floats to integers, and back."""
FILE_OPS = (*WEIGHTED_OPS, *POOL_OPS, *GLOBAL_POOL_OPS, *UPSAMPLE_OPS, *BINARY_OPS, *UNARY_OPS, "concat", "flatten")
"""The operations of layers in a file; runtimes execute others too."""
KNOWN_OPS = (*FILE_OPS, *REORDER_OPS, *CONVERSION_OPS)
BLOCKED = "nchwc"
"""The name of the blocked layout, before the number of channels in a block."""
CHANNELS_LAST = "nhwc"
"""The name of the layout with the channels last, where the plain layout has them first."""
BLOCK_OPS = ("inverted_residual", "pooled_classifier")
"""Blocks of layers in published tables (profiler.layers.composite); we neither measure them nor write them to model files."""
FREE_OUTPUT = ("conv2d", "conv_transpose2d", "fully_connected")
"""Operations whose number of output channels does not follow from their inputs."""


@dataclass(frozen=True, slots=True)
class OpaqueSubgraph:
    """A part of a user's model file that is extracted and measured unchanged, with its real weights."""

    digest: str
    """The SHA-256 of the extracted model file in hexadecimal, without values that its inputs are given."""
    weight_bytes: int
    file_format: str
    """`onnx` or `tflite`."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A fused group. The functions below build common layers. Raises `LayerError` if the fields contradict each other."""

    op: str
    """One of `KNOWN_OPS` or `BLOCK_OPS`; the operator's name in the file if the layer is opaque."""
    inputs: tuple[Shape, ...]
    """The shapes of the activations that it reads, without weights.

    A second input of a conv2d is a shortcut, which is added before the activation is applied.
    """
    output: Shape
    kernel: Pair = (1, 1)
    """Height and width, as in stride and dilation."""
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom and right padding in pixels."""
    groups: int = 1
    activation: str = "none"
    bias: bool = True
    slope: float = USUAL_SLOPE
    """What a leaky_relu, be it the layer or its activation, multiplies negative numbers by, with six digits."""
    dtype: str = "float32"
    layout: str = ""
    """The layout in which the runtime executes the layer, if it is not that of the file: `nchwc8` for blocks of 8 channels, `nhwc`
    for channels last.

    The channels of blocked activations are whole blocks, because the runtime computes and stores whole blocks. A convolution with
    fewer input channels than a block reads the plain layout.
    """
    opaque: OpaqueSubgraph | None = None
    hidden: int = 0
    """The channels of the depthwise convolution in an inverted residual; 0 for all other layers."""

    def __post_init__(self) -> None:
        for shape in (*self.inputs, self.output):
            least = 1 if self.opaque is None else 0  # what is cut out of a file may find nothing, and say so by an empty output
            if any(size < least for size in shape):
                raise LayerError(f"{self.op}: every size of a shape must be at least {least}, got {shape}")
        if self.opaque is None:
            self._check_parametric()

    def _check_parametric(self) -> None:
        if self.op not in KNOWN_OPS + BLOCK_OPS:
            raise LayerError(f"unknown layer kind {self.op!r}; known are {', '.join(KNOWN_OPS)}")
        if self.activation not in ACTIVATIONS:
            raise LayerError(f"{self.op}: unknown activation {self.activation!r}; known are {', '.join(ACTIVATIONS)}")
        if self.dtype not in ITEM_BYTES:
            raise LayerError(f"{self.op}: unknown data type {self.dtype!r}; known are {', '.join(ITEM_BYTES)}")
        if min(*self.kernel, *self.stride, *self.dilation, self.groups) < 1 or min(self.padding) < 0:
            raise LayerError(f"{self.op}: kernel, stride, dilation and groups must be positive and padding not negative")
        if not self.inputs or any(len(shape) < 2 for shape in (*self.inputs, self.output)):
            raise LayerError(f"{self.op}: needs inputs and an output of at least two dimensions, got {self.inputs}")
        if self.output != self._expected_output():
            raise LayerError(f"{self.op}: input {self.inputs} cannot give output {self.output}, expected {self._expected_output()}")
        channels_in, channels_out = self.inputs[0][-1], self.output[-1]
        if self.op in ("conv2d", "depthwise_conv2d", "conv_transpose2d") and (
            channels_in % self.groups or channels_out % self.groups
        ):
            raise LayerError(f"{self.op}: {channels_in} to {channels_out} channels cannot be split into {self.groups} groups")
        if self.adds_shortcut and (len(self.inputs) > 2 or self.inputs[1] != self.output):
            raise LayerError(f"conv2d: a shortcut of {self.inputs[1]} cannot be added to {self.output}")
        if self.op == "depthwise_conv2d" and self.groups != channels_in:
            raise LayerError(f"depthwise_conv2d: groups must equal the {channels_in} input channels, got {self.groups}")
        if self.layout == CHANNELS_LAST:
            if any(len(shape) != 4 for shape in (*self.inputs, self.output)):
                raise LayerError(f"{self.op}: {self.inputs} to {self.output} are not images, which {self.layout} is for")
        elif self.layout and not _blocks_are_whole(self):
            raise LayerError(f"{self.op}: {self.inputs} to {self.output} are not whole blocks of {self.layout}")
        if self.slope != USUAL_SLOPE and "leaky_relu" not in (self.op, self.activation):
            raise LayerError(f"{self.op}: only a leaky_relu has a slope, got {self.slope}")
        if (self.hidden > 0) != (self.op == "inverted_residual"):
            raise LayerError(f"{self.op}: only an inverted residual has hidden channels, and at least 1; got {self.hidden}")
        if self.op == "inverted_residual" and self.inputs[1:] not in ((), (self.output,)):
            raise LayerError(f"inverted_residual: a shortcut of {self.inputs[1:]} cannot be added to {self.output}")

    def _expected_output(self) -> Shape:
        """The output shape that follows from the other fields; sizes that are free are taken from the output itself."""
        first = self.inputs[0]
        match self.op:
            case "conv2d" | "depthwise_conv2d" | "avg_pool2d" | "max_pool2d":
                channels = first[-1] if self.op in POOL_OPS else self.output[-1]
                return (first[0], *_window_output(first, self), channels)
            case "conv_transpose2d":
                base = _transposed_output(first, self)
                # output padding, which is below one stride, is not a field: it is what the output has beyond the base size
                extra = [self.output[i + 1] - base[i] for i in (0, 1)] if len(self.output) == 4 else [-1, -1]
                if all(0 <= pixels < stride for pixels, stride in zip(extra, self.stride, strict=True)):
                    return self.output
                return (first[0], *base, self.output[-1])
            case "inverted_residual":
                height, width = (-(-size // stride) for size, stride in zip(_image_size(first, self), self.stride, strict=True))
                return (first[0], height, width, self.output[-1])
            case "pooled_classifier":
                _image_size(first, self)
                return (first[0], self.output[-1])
            case "fully_connected":
                return (*first[:-1], self.output[-1])
            case "global_avg_pool" | "global_max_pool":
                return (first[0], first[-1]) if len(self.output) == 2 else (first[0], 1, 1, first[-1])
            case "upsample_nearest" | "upsample_bilinear":
                return (first[0], *self.output[1:-1], first[-1]) if len(self.output) == len(first) == 4 else ()
            case "add" | "mul":
                return _broadcast(self.inputs)
            case "concat":
                return (*first[:-1], sum(shape[-1] for shape in self.inputs))
            case "reorder_input" | "reorder_output":
                return (*first[:-1], self.output[-1])
            case "flatten":
                values = math.prod(first[1:])
                return (first[0], values) if len(self.output) == 2 else (first[0], 1, 1, values)
            case _:
                return first

    @property
    def key(self) -> str:
        """A readable and unique text: layers with equal keys are equal."""
        parts = [self.op, "+".join("x".join(map(str, shape)) for shape in self.inputs), "to", "x".join(map(str, self.output))]
        if self.kernel != (1, 1):
            parts.append("k{}x{}".format(*self.kernel))
        if self.stride != (1, 1):
            parts.append("s{}x{}".format(*self.stride))
        if self.dilation != (1, 1):
            parts.append("d{}x{}".format(*self.dilation))
        if self.padding != (0, 0, 0, 0):
            parts.append("p{}.{}.{}.{}".format(*self.padding))
        if self.groups != 1 and self.op != "depthwise_conv2d":
            parts.append(f"g{self.groups}")
        if self.activation != "none":
            parts.append(self.activation)
        if self.slope != USUAL_SLOPE:
            parts.append(f"a{self.slope:g}")
        if not self.bias:
            parts.append("nobias")
        if self.dtype != "float32":
            parts.append(self.dtype)
        if self.hidden:
            parts.append(f"h{self.hidden}")
        if self.layout:
            parts.append(self.layout)
        if self.opaque is not None:
            parts.append(f"cut.{self.opaque.digest}")
        return "_".join(parts)

    @property
    def block(self) -> int:
        """The number of channels in a block of the layout; 1 for a plain layout."""
        return int(self.layout.removeprefix(BLOCKED)) if self.layout.startswith(BLOCKED) else 1

    @property
    def reads_plain(self) -> bool:
        """True if the first input is in the plain layout, as for a convolution of less than a block of channels."""
        return self.block == 1 or self.op == "reorder_input" or (self.op == "conv2d" and self.in_channels < self.block)

    @property
    def adds_shortcut(self) -> bool:
        """True if the layer is a convolution with a shortcut as its second input."""
        return self.op == "conv2d" and len(self.inputs) > 1

    @property
    def in_channels(self) -> int:
        """The number of channels of the first input; 1 if it is a scalar or missing."""
        return self.inputs[0][-1] if self.inputs and self.inputs[0] else 1

    @property
    def out_channels(self) -> int:
        """The number of channels of the output; 1 if it is a scalar."""
        return self.output[-1] if self.output else 1

    @property
    def least_channels(self) -> int:
        """The fewest channels that the layer can have; with one channel per group, a grouped convolution would be depthwise."""
        return 2 * self.groups if self.groups > 1 and self.op in ("conv2d", "conv_transpose2d") else 1

    @property
    def weight_shape(self) -> Shape:
        """The shape of the weights: (out, in / groups, kernel height, kernel width), (out, in) if fully connected; () if none."""
        if self.op == "fully_connected":
            return (self.out_channels, self.in_channels)
        if self.op in WEIGHTED_OPS:
            return (self.out_channels, self.in_channels // self.groups, *self.kernel)
        return ()

    @property
    def parameters(self) -> int:
        """The number of weights and biases, with batch normalisation folded in; 0 for layers without weights."""
        if self.op in BLOCK_OPS:
            return sum(weights + biases for weights, biases, _ in _block_parts(self))
        if not self.weight_shape:
            return 0
        return math.prod(self.weight_shape) + (self.out_channels if self.bias else 0)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulate operations of convolutions and matrix products, for the whole batch; None if unknown."""
        if self.op in BLOCK_OPS:
            return sum(weights * pixels for weights, _, pixels in _block_parts(self))
        if self.op not in KNOWN_OPS:
            return None
        if not self.weight_shape:
            return 0
        # a transposed convolution applies its kernel to every input pixel, all others to every output pixel
        pixels = math.prod(self.inputs[0][:-1]) if self.op == "conv_transpose2d" else math.prod(self.output[:-1])
        return pixels * math.prod(self.weight_shape)

    @property
    def weight_bytes(self) -> int:
        """The stored size of weights and biases; the bias of an int8 layer is int32, because it is added to a sum of products."""
        if self.opaque is not None:
            return self.opaque.weight_bytes
        biases = self.out_channels if self.weight_shape and self.bias else 0
        bias_bytes = 4 if self.dtype == "int8" else ITEM_BYTES[self.dtype]
        return (self.parameters - biases) * ITEM_BYTES[self.dtype] + biases * bias_bytes

    @property
    def activation_bytes(self) -> int:
        """The size of all inputs and of the output, each counted once."""
        if self.op in CONVERSION_OPS:  # floats on one side
            return math.prod(self.output) * (ITEM_BYTES["float32"] + ITEM_BYTES[self.dtype])
        return sum(math.prod(shape) for shape in (*self.inputs, self.output)) * ITEM_BYTES.get(self.dtype, 4)

    def with_dtype(self, dtype: str) -> LayerSpec:
        """The same layer in another data type. Raises `LayerError` for an opaque layer, whose file determines the type.

        An opaque layer of whole numbers, such as one that looks rows up, is that of a network of floats already.
        """
        if dtype == self.dtype or (dtype == "float32" and self.opaque is not None and self.dtype in ("int64", "int32", "bool")):
            return self
        if self.opaque is not None:
            raise LayerError(
                f"{self.op} is an extracted part of a {self.dtype} file and cannot become {dtype}; convert the file instead"
            )
        return replace(self, dtype=dtype)

    def resized(self, inputs: Sequence[Shape], out_channels: int | None = None) -> LayerSpec:
        """The same layer with other channel counts. Heights and widths stay.

        `out_channels` applies to the operations in `FREE_OUTPUT`, and None keeps it; the output of all others follows from the
        inputs. Raises `LayerError` for an opaque layer, whose real weights determine its shapes, and if a grouped convolution
        cannot divide its channels or would have one channel in each group.
        """
        shapes = tuple(tuple(shape) for shape in inputs)
        if shapes == self.inputs and out_channels in (None, self.out_channels):
            return self
        if self.opaque is not None:
            raise LayerError(f"{self.op} is extracted from a file with its weights, so its input cannot become {list(shapes)}")
        if self.block > 1:
            if self.op == "conv2d" and self.reads_plain != (shapes[0][-1] < self.block):
                raise LayerError(
                    f"conv2d: an input of {shapes[0][-1]} channels is not read in the same layout as {self.in_channels}"
                )
            blocked = shapes[1:] if self.reads_plain else shapes
            shapes = (*shapes[: len(shapes) - len(blocked)], *(whole_blocks(shape, self.block) for shape in blocked))
            if self.op in FREE_OUTPUT and out_channels:
                out_channels = whole_blocks((out_channels,), self.block)[0]
        first = shapes[0][-1]
        groups = self.groups
        match self.op:
            case "depthwise_conv2d":
                channels = first * (self.out_channels // self.in_channels)
                groups = first
            case "conv2d" | "conv_transpose2d" | "fully_connected":
                channels = out_channels or self.out_channels
            case "reorder_input":
                channels = whole_blocks((first,), self.block)[0]
            case "reorder_output":
                # filled-up channels are left out, but how many these are is only known if there are none
                channels = out_channels or (first if self.in_channels == self.out_channels else self.out_channels)
            case "concat":
                channels = sum(shape[-1] for shape in shapes)
            case "flatten":
                channels = math.prod(shapes[0][1:])
            case _:
                channels = max(shape[-1] for shape in shapes)  # an input of one channel is broadcast
        if min(first, channels) < self.least_channels:
            raise LayerError(f"{self.op}: {self.groups} groups need {self.least_channels} channels, got {first} to {channels}")
        return replace(self, inputs=shapes, output=(*self.output[:-1], channels), groups=groups)

    def extracted_at(self, inputs: Sequence[Shape], output: Shape) -> LayerSpec:
        """The same opaque layer with other shapes, for which its file has to be written."""
        assert self.opaque is not None
        groups = inputs[0][-1] if self.op == "depthwise_conv2d" else self.groups
        wanted = replace(self, inputs=tuple(inputs), output=output, groups=groups)
        if not self.parameters:
            return wanted
        weight_bytes = self.opaque.weight_bytes * wanted.parameters // self.parameters
        return replace(wanted, opaque=replace(self.opaque, weight_bytes=weight_bytes))

    def to_dict(self) -> dict[str, Any]:
        """The layer as JSON-ready values; fields with their default values are left out."""
        plain = asdict(self)
        return {name: value for name, value in plain.items() if name in ("op", "inputs", "output") or value != _DEFAULTS[name]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LayerSpec:
        """The inverse of `to_dict`, for untrusted data.

        Raises `LayerError` if a field is invalid or the layer is impossibly large.
        """
        try:
            fields = dict(plain)
            fields["inputs"] = tuple(_sizes(shape) for shape in fields["inputs"])
            for name in ("output", "kernel", "stride", "dilation", "padding"):
                if name in fields:
                    fields[name] = _sizes(fields[name])
            if fields.get("opaque") is not None:
                fields["opaque"] = read_as(OpaqueSubgraph, fields["opaque"])
            if type(fields.get("slope")) is int:
                fields["slope"] = float(fields["slope"])
            wrong = [name for name, kind in _KINDS.items() if name in fields and type(fields[name]) is not kind]
            wrong += [name for name, count in _LENGTHS.items() if name in fields and len(fields[name]) != count]
            if wrong:
                raise ValueError(f"{wrong[0]} cannot be {str(fields[wrong[0]])[:60]!r}")
            if fields.get("groups", 1) < 1:
                raise ValueError("groups must be at least 1")
            layer = cls(**fields)
            # beyond this, no model and no column of a table could hold the figures of the layer
            if max(layer.macs or 0, layer.activation_bytes, layer.weight_bytes) > MOST_MACS:
                raise ValueError("it is larger than any layer can be")
            return layer
        except (TypeError, KeyError, AttributeError) as exc:
            raise LayerError(f"not a layer: {str(plain)[:120]} ({exc})") from exc
        except ValueError as exc:
            raise exc if isinstance(exc, LayerError) else LayerError(f"not a layer: {str(plain)[:120]} ({exc})") from exc


_KINDS: dict[str, type] = {
    "op": str, "activation": str, "dtype": str, "layout": str, "groups": int, "hidden": int, "bias": bool, "slope": float,
}  # fmt: skip
_LENGTHS = {"kernel": 2, "stride": 2, "dilation": 2, "padding": 4}
_DEFAULTS: dict[str, Any] = {name: field.default for name, field in LayerSpec.__dataclass_fields__.items()}


def _sizes(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values as a tuple. Raises `ValueError` unless all are whole numbers."""
    if not all(is_whole(value) for value in values):
        raise ValueError(f"sizes must be whole numbers, got {values}")
    return tuple(values)


def whole_blocks(shape: Shape, block: int) -> Shape:
    """The shape with its channels rounded up to whole blocks."""
    return (*shape[:-1], -(-shape[-1] // block) * block)


def _blocks_are_whole(layer: LayerSpec) -> bool:
    """True if the layout is one of blocks, and every blocked activation of the layer consists of whole blocks."""
    size = layer.layout.removeprefix(BLOCKED)
    if not layer.layout.startswith(BLOCKED) or not size.isdecimal() or int(size) < 2:
        return False
    blocked = list(layer.inputs[1:] if layer.reads_plain else layer.inputs)
    if layer.op != "reorder_output":
        blocked.append(layer.output)
    return all(len(shape) == 4 and shape[-1] % layer.block == 0 for shape in blocked)


def _image_size(shape: Shape, layer: LayerSpec) -> Pair:
    """The height and width of the input shape. Raises `LayerError` if it has none."""
    if len(shape) != 4:
        raise LayerError(f"{layer.op}: needs a (n, h, w, c) input, got {shape}")
    return shape[1], shape[2]


def _block_parts(layer: LayerSpec) -> list[tuple[int, int, int]]:
    """The numbers of weights, biases and output pixels of each weighted layer in a block."""
    first, last, hidden = layer.in_channels, layer.out_channels, layer.hidden
    if layer.op == "pooled_classifier":
        return [(first * last, last, layer.inputs[0][0])]
    before = math.prod(layer.inputs[0][:-1])
    after = math.prod(layer.output[:-1])
    expansion = [(first * hidden, hidden, before)] if hidden != first else []
    return [*expansion, (math.prod(layer.kernel) * hidden, hidden, after), (hidden * last, last, after)]


def _window_output(shape: Shape, layer: LayerSpec) -> Pair:
    """The height and width after a sliding window. Raises `LayerError` if the window is larger than the padded input."""
    _image_size(shape, layer)
    top, left, bottom, right = layer.padding
    sizes = []
    for size, pad, k, s, d in zip(
        shape[1:3], (top + bottom, left + right), layer.kernel, layer.stride, layer.dilation, strict=True
    ):
        room = size + pad - ((k - 1) * d + 1)
        if room < 0:
            raise LayerError(f"{layer.op}: a kernel of {layer.kernel} is larger than the padded input of {shape[1:3]}")
        sizes.append(room // s + 1)
    return sizes[0], sizes[1]


def _transposed_output(shape: Shape, layer: LayerSpec) -> Pair:
    """The height and width after a transposed convolution, without output padding."""
    _image_size(shape, layer)
    top, left, bottom, right = layer.padding
    height, width = (
        (size - 1) * s - pad + (k - 1) * d + 1
        for size, pad, k, s, d in zip(
            shape[1:3], (top + bottom, left + right), layer.kernel, layer.stride, layer.dilation, strict=True
        )
    )
    return height, width


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """The common shape of the operands by the rules of numpy. Raises `LayerError` if there is none."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    for sizes in zip(*padded, strict=True):
        if len(set(sizes) - {1}) > 1:
            raise LayerError(f"shapes {list(shapes)} cannot be broadcast together")
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def conv2d(
    input: Shape,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    dilation: int = 1,
    activation: str = "none",
    bias: bool = True,
) -> LayerSpec:
    """A square convolution of an (n, h, w, c) input. The default padding keeps the height and width at stride 1."""
    pad = dilation * (kernel - 1) // 2 if padding is None else padding
    sizes = [(size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for size in input[1:3]]
    return LayerSpec(
        "conv2d", (input,), (input[0], *sizes, out_channels), kernel=(kernel, kernel), stride=(stride, stride),
        dilation=(dilation, dilation), padding=(pad,) * 4, groups=groups, activation=activation, bias=bias,
    )  # fmt: skip


def depthwise_conv2d(
    input: Shape, kernel: int, *, stride: int = 1, padding: int | None = None, activation: str = "none"
) -> LayerSpec:
    """A square depthwise convolution, with multiplier 1, of an (n, h, w, c) input."""
    pad = (kernel - 1) // 2 if padding is None else padding
    sizes = [(size + 2 * pad - kernel) // stride + 1 for size in input[1:3]]
    return LayerSpec(
        "depthwise_conv2d", (input,), (input[0], *sizes, input[-1]), kernel=(kernel, kernel), stride=(stride, stride),
        padding=(pad,) * 4, groups=input[-1], activation=activation,
    )  # fmt: skip


def fully_connected(input: Shape, out_channels: int, *, activation: str = "none", bias: bool = True) -> LayerSpec:
    """A matrix product over the last axis of an (n, c) or (n, ..., c) input."""
    return LayerSpec("fully_connected", (input,), (*input[:-1], out_channels), activation=activation, bias=bias)
