"""ProxylessNAS' and once-for-all's latency tables: YAML, a mapping from a layer's key to count, mean and variance in milliseconds.

A key says what was measured: `Conv-input:224x224x3-output:112x112x32`, height x width x channels. The kinds of keys are those
that once-for-all's lookup asks for: Conv (the first one, 3x3 with stride 2), Conv_1 and Conv_2 (1x1), AvgPool2D (global), Logits
(all that comes after: the classifier, and the pooling if its input is a figure) and expanded_conv (a whole inverted residual).
Keys of MobileNetV3 tables add `se` and `hs`, and their `expand` counts channels where it is a ratio otherwise.
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
    Asked,
    Collected,
    Reading,
    Source,
    checked,
    estimate_of,
    milliseconds,
    number_of,
    shown,
    size,
)
from profiler.exchange.writer import Writing
from profiler.layers.composite import inverted_residual, pooled_classifier
from profiler.layers.layer import LayerSpec, Shape, conv2d, fully_connected
from profiler.measure.estimate import Estimate
from profiler.tables.table import LatencyTable

KEY = re.compile(
    r"(?P<kind>\w+)-input:(?P<input>[0-9x]{1,40})-output:(?P<output>[0-9x]{1,40})(?P<rest>(-[a-z]+:[0-9]{1,9})*)", re.ASCII
)
SQUEEZED = "blocks with squeeze-and-excitation, which we have no layer for"
UNKNOWN_KIND = "entries of a kind we do not know ({})"
Fields = Mapping[str, str]


def read(sources: Sequence[Source], asked: Asked) -> Reading:
    tables = [(source, flat_mapping(source)) for source in sources]
    keys = [key for _, table in tables for key in table]
    newer = any("-hs:" in key or key.startswith(("AvgPool2D-", "Conv_2-")) for key in keys)
    activations = asked.activations or (("hard_swish",) if newer else ("relu6",))
    found = Collected()
    for source, table in tables:
        for key, fields in table.items():
            found.count()
            _add(found, f"{source.name}: {shown(key)}", key, fields, activations)
    told = "as you said" if asked.activations else "as in the networks these tables were made for"
    return found.reading(
        (
            f"convolutions outside of blocks have {' or '.join(activations)}, {told}; a key does not tell",
            "the first convolution is padded either way that halves the figure; a key does not tell",
            "float32 and batch 1",
        ),
        "mean; its interval is 1.96 standard errors, from count and var",
    )


def _add(found: Collected, what: str, key: str, fields: Fields, activations: Sequence[str]) -> None:
    match = KEY.fullmatch(key)
    if match is None:
        raise ExchangeError(f"{what} is not a key of such a table, as Conv-input:224x224x3-output:112x112x32 is")
    options = {name: int(value) for name, value in re.findall(r"-([a-z]+):([0-9]+)", match["rest"])}
    given, made = _shape(match["input"], what), _shape(match["output"], what)
    if options.get("se"):
        found.skip(SQUEEZED)
        return
    layers = _layers(match["kind"], given, made, options, activations, what)
    if not layers:
        found.skip(UNKNOWN_KIND.format(shown(match["kind"])))
    elif layers[0].output not in (made, (1, *made[-1:])):
        raise ExchangeError(f"{what} contradicts itself: its output would be {'x'.join(map(str, layers[0].output[1:]))}")
    else:
        found.add(layers, _estimate(fields, what))


def _shape(text: str, what: str) -> Shape:
    """Batch 1 first."""
    parts = text.split("x")
    if not all(part.isdigit() for part in parts):
        raise ExchangeError(f"{what}: {text} is not a shape")
    return (1, *(size(int(part), f"{what}: a size") for part in parts))


def _layers(
    kind: str, given: Shape, made: Shape, options: Mapping[str, int], activations: Sequence[str], what: str
) -> list[LayerSpec]:
    """The layers that an entry stands for; empty for a kind we do not know."""
    if len(given) != 4 or len(made) != (2 if kind == "Logits" else 4):
        raise ExchangeError(f"{what}: shapes of {len(given) - 1} and {len(made) - 1} sizes are not those of a {shown(kind)}")
    if kind == "Conv":
        windows = (same_window(given, 3, 2), symmetric_window(3, 2))
        return [
            checked(what, LayerSpec, "conv2d", (given,), made, activation=activation, **window)
            for activation in activations
            for window in windows
        ]
    if kind in ("Conv_1", "Conv_2"):
        return [checked(what, conv2d, given, made[-1], 1, activation=activation) for activation in activations]
    if kind == "AvgPool2D":
        return [checked(what, LayerSpec, "global_avg_pool", (given,), (1, 1, 1, given[-1]))]
    if kind == "Logits" and given[1:3] == (1, 1):
        return [checked(what, fully_connected, (1, given[-1]), made[-1])]
    if kind == "Logits":
        return [checked(what, pooled_classifier, given, made[-1])]
    return [_block(given, made, options, what)] if kind == "expanded_conv" else []


def _block(given: Shape, made: Shape, options: Mapping[str, int], what: str) -> LayerSpec:
    missing = [name for name in ("expand", "kernel", "stride", "idskip") if name not in options]
    if missing:
        raise ExchangeError(f"{what} is a block without {missing[0]}")
    expand, kernel, stride = (size(options[name], f"{what}: {name}") for name in ("expand", "kernel", "stride"))
    newer = "hs" in options
    activation = ("hard_swish" if options["hs"] else "relu") if newer else "relu6"
    hidden = size(expand if newer else given[-1] * expand, f"{what}: its hidden channels")
    shortcut = bool(options["idskip"])
    return checked(
        what, inverted_residual, given, made[-1], hidden, kernel, stride=stride, shortcut=shortcut, activation=activation
    )


def _estimate(fields: Fields, what: str) -> Estimate:
    if "mean" not in fields:
        raise ExchangeError(f"{what} has no mean")
    mean_ms = milliseconds(fields["mean"], f"{what}: mean")
    count = int(number_of(fields.get("count", "0"), f"{what}: count"))
    variance = number_of(fields["var"], f"{what}: var") if "var" in fields else UNKNOWN
    if not 0 <= count <= MOST_SAMPLES or variance < 0:
        raise ExchangeError(f"{what}: a count of {count} and a variance of {variance:g} cannot be")
    half_ms = NORMAL_95 * math.sqrt(variance / count) if count > 1 and not math.isnan(variance) else UNKNOWN
    return estimate_of(mean_ms, half_ms, count)


# ---------------------------------------------------------------------------------------------------------------- writing


def write(table: LatencyTable) -> Writing:
    """What its keys can say. Its lookup reads the mean only; count and var are written where they are known."""
    writing = Writing()
    plain: dict[str, dict[str, float]] = {}
    activation = _style(table)
    for layer, estimate in table.rows.items():
        key = _key(layer, activation)
        if key is None:
            writing.leave_out(f"{layer.op}: no key of this form stands for such a layer")
        elif key in plain:
            writing.leave_out("its key, which tells no padding and no activation, is taken by another layer")
        else:
            plain[key] = _fields(estimate)
            writing.written += 1
    writing.text = yaml.safe_dump(plain, sort_keys=True)
    writing.notes.append(f"convolutions are those with {activation}; the form cannot say so")
    return writing


def _style(table: LatencyTable) -> str:
    """The activation of the table's convolutions, of which a key can stand for one only."""
    seen = {layer.activation for layer in table.rows if layer.op == "conv2d"}
    return "hard_swish" if "hard_swish" in seen and "relu6" not in seen else "relu6"


def _fields(estimate: Estimate) -> dict[str, float]:
    fields: dict[str, float] = {"mean": estimate.latency_ms}
    if estimate.samples > 0:
        fields["count"] = estimate.samples
        if not math.isnan(estimate.half_width_ms):
            fields["var"] = (estimate.half_width_ms / NORMAL_95) ** 2 * estimate.samples
    return fields


def _key(layer: LayerSpec, activation: str) -> str | None:
    """None for a layer that no key stands for."""
    if layer.dtype != "float32" or layer.opaque is not None or layer.inputs[0][0] != 1 or not layer.bias:
        return None
    given, made = layer.inputs[0], layer.output
    if layer.op == "inverted_residual":
        return _block_key(layer)
    if layer.op == "conv2d" and layer.groups == 1 and layer.activation == activation and not layer.adds_shortcut:
        halved = layer.kernel == (3, 3) and layer.stride == (2, 2) and given[-1] == 3 and layer.dilation == (1, 1)
        if halved and made[1:3] == (-(-given[1] // 2), -(-given[2] // 2)):
            return _text("Conv", given, made)
        pointwise = layer.kernel == (1, 1) and layer.stride == (1, 1) and given[:-1] == made[:-1]
        return _text("Conv_2" if given[1:3] == (1, 1) else "Conv_1", given, made) if pointwise else None
    if layer.op == "global_avg_pool" and len(given) == 4:
        return _text("AvgPool2D", given, (1, 1, 1, given[-1]))
    if layer.op == "pooled_classifier":
        return _text("Logits", given, made)
    if layer.op == "fully_connected" and len(given) == 2 and layer.activation == "none":
        return _text("Logits", (1, 1, 1, given[-1]), made)
    return None


def _block_key(layer: LayerSpec) -> str | None:
    given, newer = layer.in_channels, layer.activation in ("relu", "hard_swish")
    if (layer.activation != "relu6" and not newer) or (not newer and layer.hidden % given):
        return None
    expand = layer.hidden if newer else layer.hidden // given
    options = {"expand": expand, "kernel": layer.kernel[0], "stride": layer.stride[0], "idskip": len(layer.inputs) - 1}
    options |= {"se": 0, "hs": int(layer.activation == "hard_swish")} if newer else {}
    return "-".join(
        [_text("expanded_conv", layer.inputs[0], layer.output), *(f"{name}:{value}" for name, value in options.items())]
    )


def _text(kind: str, given: Shape, made: Shape) -> str:
    return f"{kind}-input:{'x'.join(map(str, given[1:]))}-output:{'x'.join(map(str, made[1:]))}"
