"""Reads and writes nn-Meter's kernel data: JSON with kernels by kind and id (https://github.com/microsoft/nn-Meter).

Each kernel has a configuration and a latency in milliseconds: `{"conv-bn-relu": {"YB2F4N": {"config": {"HW": 13, "CIN": 212, ...},
"latency": "37.53 +- 0.314"}}}`. nn-Meter writes the configurations and the latencies into one file, or into two files with the same
ids. Inputs are square, the batch is 1, and windows have TensorFlow's SAME padding. The `model` entries are paths on the machine
where nn-Meter ran and are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from device_agents.support.strict_json import read_json
from profiler.errors import ExchangeError
from profiler.exchange.kernels import is_same, same_output, same_window
from profiler.exchange.reader import (
    NORMAL_95,
    UNKNOWN,
    ImportedRows,
    RowCollector,
    Source,
    make_layer,
    milliseconds,
    number_of,
    published_estimate,
    shown,
    size,
    variance_of,
)
from profiler.exchange.writer import ExportedTable
from profiler.layers.layer import LayerSpec, Shape, fully_connected
from profiler.measure.estimate import Estimate
from profiler.tables.table import Table

ACTIVATIONS = {"": "none", "-relu": "relu", "-relu6": "relu6", "-hswish": "hard_swish"}
SUFFIXES = {activation: suffix for suffix, activation in ACTIVATIONS.items()}
CONV = re.compile(r"(?P<dw>dw)?conv(?:-block|(?:-bn)?(?P<activation>-relu6?|-hswish)?)")
LATENCY = re.compile(r"\s*(?P<mean>[^\s+]+(?:[eE]\+[0-9]+)?)\s*(?:\+-\s*(?P<spread>\S+)\s*)?")
POOLS = {"maxpool": "max_pool2d", "avgpool": "avg_pool2d"}
UNARY = {"relu": "relu", "hswish": "hard_swish"}
MOST_LETTERS = 100
"""The longest text of a latency."""
NO_LAYER = "kernels that we have no layer for ({})"
"""The reason for skipped kernels of a kind that no LayerSpec describes."""
Config = Mapping[str, Any]


def read(sources: Sequence[Source], activations: Sequence[str]) -> ImportedRows:
    """The kernels in the files. Raises `ExchangeError` if a file is not kernel data, or if activations are given."""
    if activations:
        raise ExchangeError("nn-Meter's kernels contain their activations; leave --activation out")
    found = RowCollector()
    for kind, kernels in _merged(sources).items():
        for name, kernel in kernels.items():
            found.count()
            label = f"{shown(kind)} {shown(name)}"
            config = kernel.get("config")
            latency = kernel.get("latency")
            if config is None or latency is None:
                # nn-Meter may have written configurations and latencies into different files
                missing = "a configuration: give nn-Meter's other file too" if config is None else "a latency"
                found.skip(f"kernels without {missing}")
                continue
            if not isinstance(config, dict):
                raise ExchangeError(f"{label}: its config is not a mapping; check that the file is nn-Meter's kernel data")
            layer = _layer(kind, config, label)
            if layer is None:
                found.skip(NO_LAYER.format(shown(kind)))
            else:
                found.add([layer], _estimate(latency, kernel, label))
    return found.finish(
        ("batch 1, float32, padding as TensorFlow's SAME", "a batch normalisation is folded into its convolution"),
        "mean; its interval is 1.96 standard deviations of single runs, because their number is unknown: wider than necessary",
    )


def _merged(sources: Sequence[Source]) -> dict[str, dict[str, dict[str, Any]]]:
    """The entries of all files for each kernel, by kind and id."""
    merged: dict[str, dict[str, dict[str, Any]]] = {}
    for source in sources:
        try:
            plain = read_json(source.text)
        except ValueError as exc:
            raise ExchangeError(f"{source.name} is not JSON; nn-Meter's kernel data is one JSON object") from exc
        if not isinstance(plain, dict):
            raise ExchangeError(f"{source.name} is not nn-Meter's kernel data, which is kernels by kind and id")
        for kind, kernels in plain.items():
            if not isinstance(kernels, dict) or not all(isinstance(kernel, dict) for kernel in kernels.values()):
                raise ExchangeError(f"{source.name} is not nn-Meter's kernel data, which is kernels by kind and id")
            for name, kernel in kernels.items():
                merged.setdefault(kind, {}).setdefault(name, {}).update(kernel)
    return merged


def _layer(kind: str, config: Config, label: str) -> LayerSpec | None:
    """The kernel as a layer; None if no LayerSpec describes it (a batch normalisation alone, a split, several layers in one)."""
    if kind == "fc":
        return make_layer(label, fully_connected, (1, _number(config, ("CIN",), label)), _number(config, ("COUT",), label))
    if kind == "concat":
        side = _number(config, ("HW",), label)
        # a kernel with fewer than four inputs has 0 for the others, or leaves them out
        counts = [config.get(f"CIN{place}", 0) for place in range(1, 5)]
        channels = [size(value, f"{label}: a CIN") for value in counts if value != 0]
        inputs = tuple((1, side, side, count) for count in channels)
        return make_layer(label, LayerSpec, "concat", inputs, (1, side, side, sum(channels)))
    conv = CONV.fullmatch(kind)
    if conv is None and kind not in (*POOLS, *UNARY, "add", "addrelu", "global-avgpool"):
        return None
    side = _number(config, ("HW",), label)
    given: Shape = (1, side, side, _number(config, ("CIN",), label))
    if conv is not None:
        kernel = _number(config, ("KERNEL_SIZE",), label)
        stride = _number(config, ("STRIDES",), label)
        activation = ACTIVATIONS[conv["activation"] or ""]
        window = same_window(given, kernel, stride)
        if conv["dw"] is not None:
            output = same_output(given, given[-1], stride)
            return make_layer(
                label, LayerSpec, "depthwise_conv2d", (given,), output, groups=given[-1], activation=activation, **window
            )
        output = same_output(given, _number(config, ("COUT",), label), stride)
        return make_layer(label, LayerSpec, "conv2d", (given,), output, activation=activation, **window)
    if kind in POOLS:
        kernel = _number(config, ("KERNEL_SIZE",), label)
        stride = _number(config, ("POOL_STRIDES", "STRIDES"), label)
        output = same_output(given, given[-1], stride)
        return make_layer(label, LayerSpec, POOLS[kind], (given,), output, **same_window(given, kernel, stride))
    if kind in UNARY:
        return make_layer(label, LayerSpec, UNARY[kind], (given,), given)
    if kind == "global-avgpool":
        return make_layer(label, LayerSpec, "global_avg_pool", (given,), (1, given[-1]))
    return make_layer(label, LayerSpec, "add", (given, given), given, activation="relu" if kind == "addrelu" else "none")


def _number(config: Config, names: Sequence[str], label: str) -> int:
    """The number under the first of these names. Raises `ExchangeError` if there is none."""
    for name in names:
        if name in config:
            return size(config[name], f"{label}: {name}")
    raise ExchangeError(f"{label}: its config has no {names[0]}; add it or remove the kernel")


def _estimate(latency: Any, kernel: Mapping[str, Any], label: str) -> Estimate:
    """The estimate from a number, or from a text with mean and standard deviation; nn-Meter writes 0 for no deviation.

    Others keep the deviation, or its square, beside a latency that is a number.
    """
    match = LATENCY.fullmatch(latency) if isinstance(latency, str) and len(latency) <= MOST_LETTERS else None
    if isinstance(latency, str) and match is None:
        raise ExchangeError(f"{label}: a latency must be a text such as 37.53 +- 0.314, not {shown(latency)}")
    mean_ms = milliseconds(match["mean"] if match else latency, f"{label}: latency")
    # nn-Meter does not write the number of runs, so the deviation cannot be made a standard error
    beside_ms = math.sqrt(variance_of(kernel, label))
    spread_ms = number_of(match["spread"], f"{label}: its deviation") if match and match["spread"] else beside_ms
    if spread_ms < 0:
        raise ExchangeError(f"{label}: a deviation must not be negative, but is {spread_ms:g}")
    return published_estimate(mean_ms, NORMAL_95 * spread_ms if spread_ms > 0 else UNKNOWN)


# ---------------------------------------------------------------------------------------------------------------- writing


def write(table: Table) -> ExportedTable:
    """The table as one file with configurations and latencies."""
    exported = ExportedTable()
    plain: dict[str, dict[str, Any]] = {}
    for layer, estimate in table.rows.items():
        kernel = _kernel(layer)
        if kernel is None:
            exported.leave_out(f"{layer.op}: nn-Meter has no kernel of this shape, padding, data type or activation")
            continue
        kind, config = kernel
        shapes = [list(shape[1:]) for shape in layer.inputs]
        entry = {"shapes": shapes, "config": config, "latency": _latency(estimate)}
        plain.setdefault(kind, {})[_kernel_id(exported.written)] = entry
        exported.written += 1
    exported.text = json.dumps(plain, indent=1) + "\n"
    exported.notes.append("the number after +- is the standard error of our latency, not the deviation of single runs")
    return exported


def _kernel_id(number: int) -> str:
    """An id of six capital letters, as nn-Meter's ids are."""
    letters = []
    for _ in range(6):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("A") + letter))
    return "".join(reversed(letters))


def _latency(estimate: Estimate) -> str:
    """The latency and, if it is known, its standard error, as text."""
    half_ms = estimate.latency_ms.half_width
    spread = "" if math.isnan(half_ms) or half_ms == 0 else f" +- {half_ms / NORMAL_95!r}"
    return f"{estimate.latency_ms.value!r}{spread}"


def _kernel(layer: LayerSpec) -> tuple[str, dict[str, int]] | None:
    """The kind and the configuration of a kernel; None if nn-Meter has none that is exactly this layer."""
    # nn-Meter's kernels are float32 with a batch of 1; the bias of a convolution is that of its folded normalisation
    first = layer.inputs[0] if layer.inputs else ()
    if layer.opaque is not None or layer.dtype != "float32" or not layer.bias or first[:1] != (1,):
        return None
    if layer.op == "fully_connected":
        plain = len(first) == 2 and layer.activation == "none"
        return ("fc", {"CIN": first[-1], "COUT": layer.out_channels}) if plain else None
    if len(first) != 4 or first[1] != first[2]:
        return None
    return _image_kernel(layer, {"HW": first[1], "CIN": first[-1]})


def _image_kernel(layer: LayerSpec, config: dict[str, int]) -> tuple[str, dict[str, int]] | None:
    """The kernel of a layer with a square (1, h, w, c) input, of which `config` has the size and the channels."""
    window = {"COUT": layer.out_channels, "KERNEL_SIZE": layer.kernel[0]}
    match layer.op:
        case "conv2d" | "depthwise_conv2d":
            depthwise = layer.op == "depthwise_conv2d"
            fits = is_same(layer) and not layer.adds_shortcut and (layer.groups == 1 or depthwise)
            if not fits or layer.activation not in SUFFIXES or (depthwise and layer.out_channels != layer.in_channels):
                return None
            kind = f"{'dw' if depthwise else ''}conv-bn{SUFFIXES[layer.activation]}"
            return kind, config | window | {"STRIDES": layer.stride[0]}
        case "max_pool2d" | "avg_pool2d":
            kind = "maxpool" if layer.op == "max_pool2d" else "avgpool"
            return (kind, config | window | {"POOL_STRIDES": layer.stride[0]}) if is_same(layer) else None
        case "global_avg_pool":
            return ("global-avgpool", config) if len(layer.output) == 2 else None
        case "relu" | "hard_swish":
            return ("relu" if layer.op == "relu" else "hswish"), config
        case "add":
            kind_of = {"none": "add", "relu": "addrelu"}.get(layer.activation)
            return (kind_of, config) if kind_of and layer.inputs == (layer.output,) * 2 else None
        case "concat":
            counts = [shape[-1] for shape in layer.inputs] + [0] * (4 - len(layer.inputs))
            named = {f"CIN{place}": count for place, count in enumerate(counts, 1)}
            return ("concat", {"HW": config["HW"]} | named) if len(counts) == 4 else None
    return None
