"""read_tflite on files that write_tflite made, and on the same files changed as other converters, or accidents, would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import ModelError
from profiler.formats.tflite.reader import read_tflite
from profiler.formats.tflite.schema import OPERATOR_NUMBERS, operator_code
from profiler.formats.tflite.writer import write_tflite
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, Shape, conv2d, depthwise_conv2d, fully_connected

IMAGE = (1, 9, 11, 6)
ROUND_TRIPS = [
    conv2d(IMAGE, 8, 3),
    conv2d(IMAGE, 8, 1, activation="relu6"),
    conv2d(IMAGE, 1, 3, activation="relu"),
    conv2d((1, 12, 12, 6), 8, 3, stride=2),
    conv2d(IMAGE, 8, 3, groups=2),
    conv2d(IMAGE, 6, 3, groups=6),
    conv2d(IMAGE, 8, 3, dilation=2),
    LayerSpec("conv2d", (IMAGE,), (1, 5, 4, 8), kernel=(3, 5), stride=(2, 3), padding=(2, 1, 1, 4)),
    LayerSpec("conv2d", ((1, 8, 8, 2),), (1, 4, 4, 3), kernel=(3, 3), stride=(2, 2), padding=(0, 0, 1, 1)),
    depthwise_conv2d(IMAGE, 3, activation="relu6"),
    depthwise_conv2d((1, 12, 12, 6), 5, stride=2),
    depthwise_conv2d((1, 12, 12, 1), 3),
    LayerSpec("depthwise_conv2d", (IMAGE,), (1, 9, 11, 12), kernel=(3, 3), padding=(1,) * 4, groups=6),
    LayerSpec("conv_transpose2d", (IMAGE,), (1, 18, 22, 4), kernel=(2, 2), stride=(2, 2), activation="relu"),
    LayerSpec("conv_transpose2d", (IMAGE,), (1, 18, 22, 4), kernel=(4, 4), stride=(2, 2), padding=(1,) * 4, bias=False),
    LayerSpec("conv_transpose2d", (IMAGE,), (1, 20, 24, 4), kernel=(3, 3), stride=(2, 2)),
    fully_connected((1, 12), 5, activation="relu"),
    fully_connected((1, 7, 12), 5, bias=False),
    LayerSpec("avg_pool2d", (IMAGE,), (1, 4, 5, 6), kernel=(2, 2), stride=(2, 2)),
    LayerSpec("avg_pool2d", (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1)),
    LayerSpec("max_pool2d", (IMAGE,), (1, 9, 11, 6), kernel=(3, 3), padding=(1,) * 4, activation="relu"),
    LayerSpec("max_pool2d", (IMAGE,), (1, 5, 6, 6), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 1)),
    LayerSpec("global_avg_pool", (IMAGE,), (1, 6)),
    LayerSpec("global_avg_pool", (IMAGE,), (1, 1, 1, 6)),
    LayerSpec("global_max_pool", (IMAGE,), (1, 6)),
    LayerSpec("add", (IMAGE, IMAGE), IMAGE, activation="relu"),
    LayerSpec("mul", (IMAGE, (1, 1, 1, 6)), IMAGE),
    LayerSpec("concat", (IMAGE, (1, 9, 11, 2)), (1, 9, 11, 8)),
    LayerSpec("flatten", (IMAGE,), (1, 9 * 11 * 6)),
    LayerSpec("flatten", ((1, 6),), (1, 1, 1, 6)),
    LayerSpec("upsample_nearest", (IMAGE,), (1, 18, 22, 6)),
    LayerSpec("upsample_bilinear", (IMAGE,), (1, 18, 22, 6)),
    LayerSpec("softmax", ((1, 10),), (1, 10)),
    *(LayerSpec(op, (IMAGE,), IMAGE) for op in ("relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid")),
]
CONVOLUTION = conv2d((1, 5, 5, 2), 3, 3)
FLOAT, HALF, INT8, INT32 = (getattr(schema.TensorType, name) for name in ("FLOAT32", "FLOAT16", "INT8", "INT32"))


def chain(*layers: LayerSpec) -> Graph:
    names = [f"layer_{number}" for number in range(len(layers))]
    nodes = [Node(name, layer, (source,)) for name, layer, source in zip(names, layers, ["x", *names], strict=False)]
    return Graph("chain", (("x", layers[0].inputs[0]),), tuple(nodes), (names[-1],))


def bytes_of(*layers: LayerSpec) -> bytes:
    return write_tflite(chain(*layers)) if len(layers) > 1 else write_tflite(Graph.of_layer(layers[0]))


def read(folder: Path, data: bytes) -> Graph:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return read_tflite(path)


class Changed:
    """A file taken apart; `data` puts it together again."""

    def __init__(self, data: bytes) -> None:
        self.model = schema.ModelT.InitFromPackedBuf(data)
        self.main = self.model.subgraphs[0]
        self.operators = self.main.operators

    def tensor(self, name: str) -> Any:
        (tensor,) = [tensor for tensor in self.main.tensors if tensor.name == name.encode()]
        return tensor

    def options(self, number: int = 0) -> Any:
        return self.operators[number].builtinOptions

    def rename_operator(self, name: str, custom: str | None = None, number: int = 0) -> None:
        self.model.operatorCodes.append(operator_code(OPERATOR_NUMBERS[name], custom=custom))
        self.operators[number].opcodeIndex = len(self.model.operatorCodes) - 1

    def add_tensor(self, name: str, kind: int, shape: Shape, buffer: int = 0) -> int:
        self.main.tensors.append(schema.TensorT(name=name, shape=np.array(shape, np.int32), type=kind, buffer=buffer))
        return len(self.main.tensors) - 1

    @property
    def data(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def quantised(layer: LayerSpec) -> bytes:
    """The same convolution in int8, as a converter leaves it."""
    changed = Changed(bytes_of(layer))
    for tensor in changed.main.tensors:
        channels = layer.out_channels if tensor.buffer else 1
        tensor.type = INT32 if b"bias" in tensor.name else INT8
        tensor.quantization = schema.QuantizationParametersT(
            scale=np.full(channels, 0.01, np.float32), zeroPoint=np.zeros(channels, np.int64)
        )
        if tensor.buffer and tensor.type == INT8:
            values = changed.model.buffers[tensor.buffer].data.view(np.float32)
            changed.model.buffers[tensor.buffer].data = (values * 50).astype(np.int8).view(np.uint8)
    return changed.data


def half_precision(layer: LayerSpec) -> bytes:
    """The same layer with its weights stored as float16 behind a DEQUANTIZE."""
    changed = Changed(bytes_of(layer))
    weights = changed.tensor("layer/weights")
    buffer = changed.model.buffers[weights.buffer]
    buffer.data = buffer.data.view(np.float32).astype(np.float16).view(np.uint8)
    stored = changed.add_tensor("stored", HALF, tuple(weights.shape), weights.buffer)
    weights.buffer = 0
    changed.model.operatorCodes.append(operator_code(OPERATOR_NUMBERS["DEQUANTIZE"]))
    code = len(changed.model.operatorCodes) - 1
    widened = changed.main.tensors.index(weights)
    changed.operators.insert(0, schema.OperatorT(opcodeIndex=code, inputs=[stored], outputs=[widened]))
    return changed.data


def run(data: bytes) -> list[tuple[Shape, np.dtype[Any]]]:
    """LiteRT's opinion of a cut-out: the shapes and types it makes of ones."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    feed = {name: np.ones(detail["shape"], detail["dtype"]) for name, detail in runner.get_input_details().items()}
    return [(values.shape, values.dtype) for values in runner(**feed).values()]


def only_opaque(graph: Graph) -> tuple[LayerSpec, bytes]:
    (layer,) = [layer for layer in graph.layers if layer.opaque is not None]
    assert layer.opaque is not None
    return layer, graph.opaques[layer.opaque.digest]


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(ModelError, match=words) as caught:
        yield
    assert "\n" not in str(caught.value)


# what comes back


@pytest.mark.parametrize("layer", ROUND_TRIPS, ids=lambda layer: layer.key)
def test_a_written_layer_is_read_as_the_same_layer(tmp_path: Path, layer: LayerSpec) -> None:
    assert read(tmp_path, bytes_of(layer)).layers == (layer,)


def test_a_network_keeps_its_names_and_wires(tmp_path: Path) -> None:
    stem, body = conv2d((1, 8, 8, 3), 4, 3, activation="relu"), conv2d((1, 8, 8, 4), 4, 3, stride=1)
    add = LayerSpec("add", ((1, 8, 8, 4),) * 2, (1, 8, 8, 4))
    nodes = (Node("stem", stem, ("x",)), Node("body", body, ("stem",)), Node("sum", add, ("stem", "body")))
    graph = Graph("model", (("x", (1, 8, 8, 3)),), nodes, ("sum", "stem"))
    assert read(tmp_path, write_tflite(graph)) == graph


def test_an_activation_that_is_an_operator_is_a_group_of_its_own(tmp_path: Path) -> None:
    graph = read(tmp_path, bytes_of(conv2d(IMAGE, 8, 3, activation="hard_swish")))
    assert [layer.op for layer in graph.layers] == ["conv2d", "hard_swish"]


def test_a_convolution_without_bias_is_read_with_the_zeros_that_litert_adds(tmp_path: Path) -> None:
    (layer,) = read(tmp_path, bytes_of(conv2d(IMAGE, 8, 3, bias=False))).layers
    assert layer == conv2d(IMAGE, 8, 3)


def test_a_cropped_transposed_convolution_is_two_groups(tmp_path: Path) -> None:
    layer = LayerSpec("conv_transpose2d", (IMAGE,), (1, 18, 22, 4), kernel=(3, 3), stride=(2, 2), padding=(1,) * 4)
    assert [layer.op for layer in read(tmp_path, bytes_of(layer)).layers] == ["conv_transpose2d", "SLICE"]


def test_a_pad_that_something_else_reads_stays_a_group(tmp_path: Path) -> None:
    changed = Changed(bytes_of(conv2d((1, 12, 12, 6), 8, 3, stride=2)))
    changed.main.outputs = np.array([*changed.main.outputs, changed.operators[0].outputs[0]], np.int32)
    pad, convolution = read(tmp_path, changed.data).layers
    assert pad.op == "PAD"
    assert (convolution.padding, convolution.inputs) == ((0, 0, 0, 0), ((1, 14, 14, 6),))


def test_half_precision_weights_are_the_convolution_s_own(tmp_path: Path) -> None:
    assert read(tmp_path, half_precision(CONVOLUTION)).layers == (CONVOLUTION,)


def test_repeated_tensor_names_become_different_node_names(tmp_path: Path) -> None:
    changed = Changed(bytes_of(conv2d((1, 5, 5, 2), 2, 3), conv2d((1, 5, 5, 2), 2, 1)))
    changed.tensor("layer_0").name = changed.tensor("layer_1").name = b"same"
    assert [node.name for node in read(tmp_path, changed.data).nodes] == ["same", "same#2"]


def test_an_open_batch_size_is_taken_as_the_shape_says(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    changed.tensor("input_0").shapeSignature = np.array([-1, 5, 5, 2], np.int32)
    assert read(tmp_path, changed.data).layers == (CONVOLUTION,)


# extracted operators


def tanh(changed: Changed) -> None:
    changed.options().fusedActivationFunction = schema.ActivationFunctionType.TANH


def test_a_quantised_convolution_is_cut_out_under_its_own_kind(tmp_path: Path) -> None:
    layer, _ = only_opaque(read(tmp_path, quantised(conv2d(IMAGE, 8, 3, activation="relu6"))))
    assert (layer.op, layer.kernel, layer.padding, layer.activation) == ("conv2d", (3, 3), (1, 1, 1, 1), "relu6")
    assert (layer.dtype, layer.macs, layer.weight_bytes) == ("int8", 9 * 11 * 8 * 54, 8 * 54 + 4 * 8)


def test_a_quantised_cut_out_runs_with_quantised_input_and_output(tmp_path: Path) -> None:
    _, data = only_opaque(read(tmp_path, quantised(conv2d(IMAGE, 8, 3))))
    assert run(data) == [((1, 9, 11, 8), np.dtype(np.int8))]


def test_an_activation_without_a_word_for_it_makes_a_cut_out_that_runs(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    tanh(changed)
    layer, data = only_opaque(read(tmp_path, changed.data))
    assert (layer.op, layer.activation) == ("conv2d", "tanh")
    assert run(data) == [((1, 5, 5, 3), np.dtype(np.float32))]


def test_an_operator_we_have_no_word_for_keeps_its_tflite_name(tmp_path: Path) -> None:
    changed = Changed(bytes_of(LayerSpec("relu", (IMAGE,), IMAGE)))
    changed.rename_operator("ABS")
    layer, data = only_opaque(read(tmp_path, changed.data))
    assert (layer.op, layer.macs, layer.inputs) == ("ABS", None, (IMAGE,))
    assert run(data) == [(IMAGE, np.dtype(np.float32))]


def test_a_product_with_a_constant_is_cut_out_with_the_constant(tmp_path: Path) -> None:
    changed = Changed(bytes_of(LayerSpec("mul", (IMAGE, IMAGE), IMAGE)))
    changed.model.buffers.append(schema.BufferT(data=np.ones(6, np.float32).view(np.uint8)))
    changed.main.tensors[changed.operators[0].inputs[1]].shape = np.array([6], np.int32)
    changed.main.tensors[changed.operators[0].inputs[1]].buffer = len(changed.model.buffers) - 1
    changed.main.inputs = changed.main.inputs[:1]
    layer, data = only_opaque(read(tmp_path, changed.data))
    assert (layer.op, layer.inputs, layer.weight_bytes) == ("mul", (IMAGE,), 24)
    assert run(data) == [(IMAGE, np.dtype(np.float32))]


def test_weights_that_are_computed_are_an_input_of_the_cut_out(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    weights = changed.tensor("layer/weights")
    weights.buffer = 0
    changed.main.inputs = np.array([*changed.main.inputs, changed.main.tensors.index(weights)], np.int32)
    graph = read(tmp_path, changed.data)
    assert graph.nodes[0].inputs == ("input_0", "layer/weights")
    assert graph.layers[0].opaque is not None


def test_equal_operators_with_equal_weights_have_one_digest_whatever_they_are_called(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    tanh(changed)
    before = only_opaque(read(tmp_path, changed.data))
    changed.tensor("layer").name = b"another"
    assert only_opaque(read(tmp_path, changed.data)) == before


def test_other_weights_give_another_digest(tmp_path: Path) -> None:
    def digest(seed: int) -> LayerSpec:
        changed = Changed(write_tflite(Graph.of_layer(CONVOLUTION), seed))
        tanh(changed)
        return only_opaque(read(tmp_path, changed.data))[0]

    assert digest(0) != digest(1)


def test_a_network_around_a_cut_out_stays_wired(tmp_path: Path) -> None:
    changed = Changed(
        bytes_of(conv2d((1, 5, 5, 2), 3, 3), LayerSpec("relu", ((1, 5, 5, 3),), (1, 5, 5, 3)), conv2d((1, 5, 5, 3), 4, 1))
    )
    changed.rename_operator("ABS", number=1)
    graph = read(tmp_path, changed.data)
    assert [(node.layer.op, node.inputs) for node in graph.nodes] == [
        ("conv2d", ("x",)), ("ABS", ("layer_0",)), ("conv2d", ("layer_1",)),
    ]  # fmt: skip


# what is refused


def version_2(changed: Changed) -> None:
    changed.model.version = 2


def no_subgraph(changed: Changed) -> None:
    changed.model.subgraphs = []


def no_operator(changed: Changed) -> None:
    changed.main.operators = []


def open_height(changed: Changed) -> None:
    changed.tensor("input_0").shapeSignature = np.array([1, -1, 5, 2], np.int32)


def empty_shape(changed: Changed) -> None:
    changed.tensor("layer").shape = np.array([1, 0, 5, 3], np.int32)


def test_a_tensor_that_is_empty_in_the_file_has_the_shape_that_litert_gives_it(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    empty_shape(changed)
    assert read(tmp_path, changed.data).layers == (CONVOLUTION,)


def tensor_out_of_range(changed: Changed) -> None:
    changed.operators[0].inputs = np.array([999, 1, 2], np.int32)


def buffer_out_of_range(changed: Changed) -> None:
    changed.tensor("layer/weights").buffer = 77


def short_weights(changed: Changed) -> None:
    changed.model.buffers[changed.tensor("layer/weights").buffer].data = np.zeros(8, np.uint8)


def wrong_stride(changed: Changed) -> None:
    changed.options().strideH = 0


def wrong_output(changed: Changed) -> None:
    changed.tensor("layer").shape = np.array([1, 4, 5, 3], np.int32)


def weights_for_other_channels(changed: Changed) -> None:
    changed.tensor("layer/weights").shape = np.array([3, 3, 6, 1], np.int32)


def input_from_nowhere(changed: Changed) -> None:
    changed.main.inputs = np.array([], np.int32)


def custom_operator(changed: Changed) -> None:
    changed.rename_operator("CUSTOM", custom="MyOwnOperator")


def control_flow(changed: Changed) -> None:
    changed.rename_operator("WHILE")


def weights_behind_the_file(changed: Changed) -> None:
    changed.model.buffers[1].offset = 4096


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (version_2, "schema version 2"),
        (no_subgraph, "no subgraph"),
        (no_operator, "no operators"),
        (open_height, "--shape input_0=1xNx5x2"),
        (tensor_out_of_range, "does not have"),
        (buffer_out_of_range, "does not have"),
        (short_weights, "layer/weights holds 8 bytes"),
        (wrong_stride, "must be at least 1"),
        (wrong_output, "contradicts itself"),
        (weights_for_other_channels, "contradicts itself"),
        (input_from_nowhere, "out of order"),
        (weights_behind_the_file, "behind its end are missing"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_sentence(tmp_path: Path, damage: Callable[[Changed], None], words: str) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    damage(changed)
    with refused(words):
        read(tmp_path, changed.data)


@pytest.mark.parametrize(("change", "name"), [(custom_operator, "MyOwnOperator"), (control_flow, "WHILE")])
def test_what_only_the_device_can_say_more_of_is_a_layer_that_is_cut_out(
    tmp_path: Path, change: Callable[[Changed], None], name: str
) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    change(changed)
    (layer,) = read(tmp_path, changed.data).layers
    assert (layer.op, layer.opaque is not None) == (name, True)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x08\x07\x06\x05onnx" * 9], ids=["empty", "short", "another format"])
def test_another_kind_of_file_is_told_apart(tmp_path: Path, data: bytes) -> None:
    with refused("not a TFLite file"):
        read(tmp_path, data)


def test_a_missing_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    with refused("cannot be read"):
        read_tflite(tmp_path / "nowhere.tflite")


def test_a_claim_of_more_parts_than_fit_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    data = bytearray(bytes_of(CONVOLUTION))
    main = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    length_at = main._tab.Vector(main._tab.Offset(4)) - 4  # how many tensors there are
    data[length_at : length_at + 4] = (2**31).to_bytes(4, "little")
    with refused("more than fit"):
        read(tmp_path, bytes(data))


_SMALL = bytes_of(conv2d((1, 6, 6, 2), 3, 3, stride=2), LayerSpec("hard_sigmoid", ((1, 3, 3, 3),), (1, 3, 3, 3)))


def assert_read_or_refused(folder: Path, data: bytes) -> None:
    try:
        assert read(folder, data).nodes
    except ModelError as error:
        assert "\n" not in str(error)


@given(length=st.integers(0, len(_SMALL) - 1))
@settings(deadline=None)
def test_a_truncated_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    assert_read_or_refused(tmp_path_factory.getbasetemp(), _SMALL[:length])


@given(flips=st.lists(st.tuples(st.integers(0, len(_SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=400)
def test_a_file_with_flipped_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(_SMALL)
    for place, value in flips:
        data[place] = value
    assert_read_or_refused(tmp_path_factory.getbasetemp(), bytes(data))
