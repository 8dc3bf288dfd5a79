"""Reads and writes the latency tables of ProxylessNAS and once-for-all (https://github.com/mit-han-lab/once-for-all).

They are YAML or JSON: a mapping from the key of a layer to the count, mean and variance of its latency in milliseconds, or to its
mean and standard deviation. A key is the layer:
`Conv-input:224x224x3-output:112x112x32`, height x width x channels. once-for-all looks up these kinds of keys: Conv (the first one,
3x3 with stride 2), Conv_1 and Conv_2 (1x1), AvgPool2D (global), Logits (the classifier, with the pooling if its input is an image)
and expanded_conv (a whole inverted residual). Keys of MobileNetV3 tables add `se` and `hs`, and their `expand` is a number of
channels, which is a ratio otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import yaml

from profiler.errors import ExchangeError
from profiler.exchange.flat_yaml import flat_mapping
from profiler.exchange.kernels import same_window, symmetric_window
from profiler.exchange.reader import (
    MOST_SAMPLES,
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
from profiler.layers.composite import inverted_residual, pooled_classifier
from profiler.layers.layer import LayerSpec, Shape, conv2d, fully_connected
from profiler.measure.estimate import Estimate
from profiler.tables.table import Table

KEY = re.compile(
    r"(?P<kind>\w+)-input:(?P<input>[0-9x]{1,40})-output:(?P<output>[0-9x]{1,40})(?P<rest>(-[a-z]+:[0-9]{1,9})*)", re.ASCII
)
SQUEEZED = "blocks with squeeze-and-excitation, which we have no layer for"
UNKNOWN_KIND = "entries of an unknown kind ({})"
Fields = Mapping[str, str]


def read(sources: Sequence[Source], activations: Sequence[str]) -> ImportedRows:
    """The entries in the files. Without activations the convolutions get those of the networks for which such tables were made.

    Raises `ExchangeError` if a file is not such a table or an entry contradicts itself.
    """
    tables = [(source, flat_mapping(source)) for source in sources]
    keys = [key for _, table in tables for key in table]
    # tables for MobileNetV3 have `hs` in their keys, and keys that those for MobileNetV2 do not have
    newer = any("-hs:" in key or key.startswith(("AvgPool2D-", "Conv_2-")) for key in keys)
    reason = "as you said" if activations else "as in the networks these tables were made for"
    if not activations:
        activations = ("hard_swish",) if newer else ("relu6",)
    found = RowCollector()
    for source, table in tables:
        for key, fields in table.items():
            found.count()
            _add_entry(found, f"{source.name}: {shown(key)}", key, fields, activations)
    return found.finish(
        (
            f"convolutions outside of blocks have {' or '.join(activations)}, {reason}; keys do not contain it",
            "the first convolution has any padding that halves the image; keys do not contain it",
            "float32 and batch 1",
        ),
        "mean; its interval is 1.96 standard errors, from count and var",
    )


def _add_entry(found: RowCollector, label: str, key: str, fields: Fields, activations: Sequence[str]) -> None:
    match = KEY.fullmatch(key)
    if match is None:
        raise ExchangeError(f"{label} is not a key of such a table, such as Conv-input:224x224x3-output:112x112x32")
    options = {name: int(value) for name, value in re.findall(r"-([a-z]+):([0-9]+)", match["rest"])}
    given = _shape(match["input"], label)
    made = _shape(match["output"], label)
    if options.get("se"):
        found.skip(SQUEEZED)
        return
    layers = _layers(match["kind"], given, made, options, activations, label)
    if not layers:
        found.skip(UNKNOWN_KIND.format(shown(match["kind"])))
    elif layers[0].output not in (made, (1, *made[-1:])):
        raise ExchangeError(f"{label} contradicts itself: its output would be {'x'.join(map(str, layers[0].output[1:]))}")
    else:
        found.add(layers, _estimate(fields, label))


def _shape(text: str, label: str) -> Shape:
    """The shape with a batch of 1."""
    parts = text.split("x")
    if not all(part.isdigit() for part in parts):
        raise ExchangeError(f"{label}: {text} is not a shape such as 224x224x3")
    return (1, *(size(int(part), f"{label}: a size") for part in parts))


def _layers(
    kind: str, given: Shape, made: Shape, options: Mapping[str, int], activations: Sequence[str], label: str
) -> list[LayerSpec]:
    """The layers that an entry stands for; empty for an unknown kind."""
    if len(given) != 4 or len(made) != (2 if kind == "Logits" else 4):
        raise ExchangeError(f"{label}: shapes of {len(given) - 1} and {len(made) - 1} sizes are not those of a {shown(kind)}")
    if kind == "Conv":
        # the key does not show if the network pads as TensorFlow or as PyTorch does, so the entry stands for both
        windows = (same_window(given, 3, 2), symmetric_window(3, 2))
        return [
            make_layer(label, LayerSpec, "conv2d", (given,), made, activation=activation, **window)
            for activation in activations
            for window in windows
        ]
    if kind in ("Conv_1", "Conv_2"):
        return [make_layer(label, conv2d, given, made[-1], 1, activation=activation) for activation in activations]
    if kind == "AvgPool2D":
        return [make_layer(label, LayerSpec, "global_avg_pool", (given,), (1, 1, 1, given[-1]))]
    if kind == "Logits":
        if given[1:3] == (1, 1):
            return [make_layer(label, fully_connected, (1, given[-1]), made[-1])]
        return [make_layer(label, pooled_classifier, given, made[-1])]
    if kind == "expanded_conv":
        return [_inverted_residual(given, made, options, label)]
    return []


def _inverted_residual(given: Shape, made: Shape, options: Mapping[str, int], label: str) -> LayerSpec:
    missing = [name for name in ("expand", "kernel", "stride", "idskip") if name not in options]
    if missing:
        raise ExchangeError(f"{label} is a block without {missing[0]}; add it or remove the entry")
    expand, kernel, stride = (size(options[name], f"{label}: {name}") for name in ("expand", "kernel", "stride"))
    activation = "relu6"
    hidden = given[-1] * expand
    if "hs" in options:  # the keys of MobileNetV3 tables
        activation = "hard_swish" if options["hs"] else "relu"
        hidden = expand
    hidden = size(hidden, f"{label}: its hidden channels")
    shortcut = bool(options["idskip"])
    return make_layer(
        label, inverted_residual, given, made[-1], hidden, kernel, stride=stride, shortcut=shortcut, activation=activation
    )


def _estimate(fields: Fields, label: str) -> Estimate:
    if "mean" not in fields:
        raise ExchangeError(f"{label} has no mean; add it or remove the entry")
    mean_ms = milliseconds(fields["mean"], f"{label}: mean")
    count = int(number_of(fields.get("count", "0"), f"{label}: count"))
    variance = variance_of(fields, label)
    if not 0 <= count <= MOST_SAMPLES or variance < 0:
        raise ExchangeError(f"{label}: a count of {count} with a variance of {variance:g} is impossible")
    # count and var are optional in published tables; without them, or with a single run, there is no interval
    half_ms = NORMAL_95 * math.sqrt(variance / count) if count > 1 and not math.isnan(variance) else UNKNOWN
    return published_estimate(mean_ms, half_ms, count)


# ---------------------------------------------------------------------------------------------------------------- writing


def write(table: Table) -> ExportedTable:
    """The layers that have a key. once-for-all reads only the mean; count and var are written if they are known."""
    exported = ExportedTable()
    plain: dict[str, dict[str, float]] = {}
    # a key does not contain the activation, so all convolutions in the file must have the same one
    seen = {layer.activation for layer in table.rows if layer.op == "conv2d"}
    activation = "hard_swish" if "hard_swish" in seen and "relu6" not in seen else "relu6"
    for layer, estimate in table.rows.items():
        key = _key(layer, activation)
        if key is None:
            exported.leave_out(f"{layer.op}: the format has no key for such a layer")
        elif key in plain:
            exported.leave_out("its key, without padding and activation, is that of another layer")
        else:
            plain[key] = {"mean": estimate.latency_ms.value}
            if estimate.samples > 0:
                plain[key]["count"] = estimate.samples
                if estimate.latency_ms.known:
                    plain[key]["var"] = (estimate.latency_ms.half_width / NORMAL_95) ** 2 * estimate.samples
            exported.written += 1
    exported.text = yaml.safe_dump(plain, sort_keys=True)
    exported.notes.append(f"convolutions are those with {activation}; the format does not contain it")
    return exported


def _key(layer: LayerSpec, activation: str) -> str | None:
    """The key of a layer; None if there is none. `activation` is that of all convolutions in the file."""
    if layer.dtype != "float32" or layer.opaque is not None or layer.inputs[0][0] != 1 or not layer.bias:
        return None
    given = layer.inputs[0]
    made = layer.output
    if layer.op == "inverted_residual":
        return _block_key(layer)
    if layer.op == "conv2d" and layer.groups == 1 and layer.activation == activation and not layer.adds_shortcut:
        # the first convolution of a network: 3x3 with stride 2 on an RGB image
        halved = layer.kernel == (3, 3) and layer.stride == (2, 2) and given[-1] == 3 and layer.dilation == (1, 1)
        if halved and made[1:3] == (-(-given[1] // 2), -(-given[2] // 2)):
            return _text("Conv", given, made)
        pointwise = layer.kernel == (1, 1) and layer.stride == (1, 1) and given[:-1] == made[:-1]
        if not pointwise:
            return None
        return _text("Conv_2" if given[1:3] == (1, 1) else "Conv_1", given, made)
    if layer.op == "global_avg_pool" and len(given) == 4:
        return _text("AvgPool2D", given, (1, 1, 1, given[-1]))
    if layer.op == "pooled_classifier":
        return _text("Logits", given, made)
    if layer.op == "fully_connected" and len(given) == 2 and layer.activation == "none":
        return _text("Logits", (1, 1, 1, given[-1]), made)
    return None


def _block_key(layer: LayerSpec) -> str | None:
    """The key of an inverted residual."""
    window = {"kernel": layer.kernel[0], "stride": layer.stride[0], "idskip": len(layer.inputs) - 1}
    if layer.activation in ("relu", "hard_swish"):  # the keys of MobileNetV3 tables
        options = {"expand": layer.hidden} | window | {"se": 0, "hs": int(layer.activation == "hard_swish")}
    elif layer.activation == "relu6" and layer.hidden % layer.in_channels == 0:
        options = {"expand": layer.hidden // layer.in_channels} | window
    else:
        return None
    texts = [f"{name}:{value}" for name, value in options.items()]
    return "-".join([_text("expanded_conv", layer.inputs[0], layer.output), *texts])


def _text(kind: str, given: Shape, made: Shape) -> str:
    return f"{kind}-input:{'x'.join(map(str, given[1:]))}-output:{'x'.join(map(str, made[1:]))}"
