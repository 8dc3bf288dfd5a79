"""TVM's tuning logs, FastDepth's for the Jetson TX2 among them: a JSON record on each line, costs in seconds.

A record holds the target, the task's name and arguments, and the result: costs of its repeats, an error number, the time the
trial took and when. Version 0.1 calls them `i` and `r`, later ones `input` and `result`. A log may hold every trial of a search
or only the best: here the fastest stands for its layer, as it is what TVM would deploy. Tasks are lone operators in NCHW, without
bias or activation.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from device_agents.support.strict_json import read_json
from profiler.errors import ExchangeError
from profiler.exchange.reader import (
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
from profiler.layers.layer import ITEM_BYTES, LayerSpec, Pair, Shape
from profiler.measure.estimate import Estimate

CONV = re.compile(r"(topi_nn_)?conv2d(_nchw\w*)?(\.\w+)?")
DEPTHWISE = re.compile(r"(topi_nn_)?depthwise_conv2d_nchw\w*(\.\w+)?")
DENSE = re.compile(r"(topi_nn_)?dense(_\w+)?(\.\w+)?")
ENOUGH_COSTS = 3
MOST_COSTS = 100_000
FAILED = "trials that failed"
SLOWER = "slower trials of the same layer"
LONE = "as lone operators, without bias and activation, as they were tuned"


def read(sources: Sequence[Source], asked: Asked) -> Reading:
    found, targets = Collected(), set[str]()
    for source in sources:
        for what, record in _records(source):
            found.count()
            target, name, arguments, costs, error = _parts(record, what)
            targets.add(target)
            if len(targets) > 1:
                raise ExchangeError(
                    f"{what} is for {shown(target)}, others before it are not; a table is of one device: import each by itself"
                )
            if error:
                found.skip(FAILED)
                continue
            layer = _layer(name, arguments, what)
            if layer is None:
                found.skip(f"tasks of a kind or layout we do not know ({shown(name)})")
            else:
                found.add(_dressed(layer, asked), _estimate(costs, what), SLOWER)
    dressed = f"weighted layers have a bias and {' or '.join(asked.activations)}, as you said; they were tuned without"
    return found.reading(
        (
            dressed if asked.activations else LONE,
            "batch and layout as in the log, which is NCHW inside TVM",
        ),
        f"TVM for {''.join(map(shown, targets))}; mean of the repeats of the fastest trial, which was chosen for being fast",
    )


def _records(source: Source) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(io.StringIO(source.text), 1):
        if line.strip():
            what = f"{source.name}, line {number}"
            try:
                yield what, read_json(line)
            except ValueError as exc:
                raise ExchangeError(f"{what} is not JSON; a tuning log has a record on each line") from exc


def _parts(record: Any, what: str) -> tuple[str, str, list[Any], list[Any], bool]:
    """Target, task, its arguments, costs in seconds and whether the trial failed."""
    plain = record if isinstance(record, dict) else {}
    task, result = plain.get("i", plain.get("input")), plain.get("r", plain.get("result"))
    if not (isinstance(task, list) and len(task) >= 3 and isinstance(result, list) and len(result) >= 2):
        raise ExchangeError(f"{what} is not a record of a tuning log, which has an input and a result")
    (target, name, arguments), (costs, error) = task[:3], result[:2]
    if not (isinstance(target, str) and isinstance(name, str) and isinstance(arguments, list) and isinstance(costs, list)):
        raise ExchangeError(f"{what} is not a record of a tuning log: target, task, arguments or costs are missing")
    return target, name, arguments, costs, error != 0


def _layer(name: str, arguments: list[Any], what: str) -> LayerSpec | None:
    """None for a task that is no layer of ours."""
    layouts = [item for item in arguments if isinstance(item, str) and item not in ITEM_BYTES]
    if any(layout != "NCHW" for layout in layouts) or len(arguments) < 2:
        return None
    if DENSE.fullmatch(name):
        return _dense(arguments, what)
    depthwise = DEPTHWISE.fullmatch(name) is not None
    return _conv(arguments, depthwise, what) if depthwise or CONV.fullmatch(name) else None


def _conv(arguments: list[Any], depthwise: bool, what: str) -> LayerSpec | None:
    (n, c, h, w), dtype = _tensor(arguments[0], 4, what)
    (first, second, *kernel), _ = _tensor(arguments[1], 4, what)
    if len(arguments) < 4 or dtype not in ITEM_BYTES:
        return None
    stride, padding = _sizes(arguments[2], what), _padding(arguments[3], what)
    dilation = _sizes(arguments[4], what) if len(arguments) > 4 and isinstance(arguments[4], list) else (1, 1)
    if (first != c) if depthwise else (second != c):
        raise ExchangeError(f"{what} contradicts itself: its weights are not for {c} channels")
    channels = c * second if depthwise else first
    top, left, bottom, right = padding
    lengths = zip((h + top + bottom, w + left + right), kernel, stride, dilation, strict=True)
    output = (n, *(max(0, length - (k - 1) * d - 1) // s + 1 for length, k, s, d in lengths), channels)
    return checked(
        what, LayerSpec, "depthwise_conv2d" if depthwise else "conv2d", ((n, h, w, c),), output, tuple(kernel), stride,
        dilation, padding, c if depthwise else 1, bias=False, dtype=dtype,
    )  # fmt: skip


def _dense(arguments: list[Any], what: str) -> LayerSpec | None:
    given, dtype = _tensor(arguments[0], 2, what)
    weights, _ = _tensor(arguments[1], 2, what)
    if weights[1] != given[1] or dtype not in ITEM_BYTES:
        return None
    biased = len(arguments) > 2 and isinstance(arguments[2], list)
    return checked(what, LayerSpec, "fully_connected", (given,), (given[0], weights[0]), bias=biased, dtype=dtype)


def _tensor(value: Any, rank: int, what: str) -> tuple[Shape, str]:
    if not (isinstance(value, list) and len(value) == 3 and value[0] == "TENSOR" and isinstance(value[1], list)):
        raise ExchangeError(f"{what}: an argument is not a tensor with shape and data type")
    if len(value[1]) != rank or not isinstance(value[2], str):
        raise ExchangeError(f"{what}: a tensor of {rank} dimensions was expected, not {shown(value[1:])}")
    return tuple(size(item, f"{what}: a size") for item in value[1]), value[2]


def _sizes(value: Any, what: str) -> Pair:
    if not isinstance(value, list) or len(value) != 2:
        raise ExchangeError(f"{what}: strides and dilations are pairs of numbers, not {shown(value)}")
    return size(value[0], f"{what}: a stride or dilation"), size(value[1], f"{what}: a stride or dilation")


def _padding(value: Any, what: str) -> tuple[int, int, int, int]:
    """Top, left, bottom, right; older logs give the first two."""
    if not isinstance(value, list) or len(value) not in (2, 4):
        raise ExchangeError(f"{what}: a padding has two or four numbers, not {shown(value)}")
    numbers = [size(item + 1, f"{what}: a padding plus 1") - 1 if isinstance(item, int) else size(item, what) for item in value]
    top, left, bottom, right = numbers if len(numbers) == 4 else numbers * 2
    return top, left, bottom, right


def _dressed(layer: LayerSpec, asked: Asked) -> list[LayerSpec]:
    return [replace(layer, bias=True, activation=activation) for activation in asked.activations] or [layer]


def _estimate(costs: list[Any], what: str) -> Estimate:
    """With a few repeats their whole spread is the interval; with one or two nothing can be said."""
    if not 1 <= len(costs) <= MOST_COSTS:
        raise ExchangeError(f"{what} has {len(costs)} costs")
    each_ms = [milliseconds(number_of(cost, f"{what}: a cost") * 1e3, f"{what}: a cost") for cost in costs]
    mean_ms = math.fsum(each_ms) / len(each_ms)
    if len(each_ms) < ENOUGH_COSTS:
        return estimate_of(mean_ms, samples=len(each_ms))
    return Estimate(mean_ms, min(mean_ms, *each_ms), max(mean_ms, *each_ms), rounds=0, samples=len(each_ms), quiet_rounds=0)
