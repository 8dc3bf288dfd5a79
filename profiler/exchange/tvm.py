"""Reads the tuning logs of TVM's AutoTVM (python/tvm/autotvm/record.py), such as FastDepth's for the Jetson TX2.

Each line is a JSON record with the target, the name and the arguments of the task, and the result: the costs of its repeats in
seconds, an error number, the duration of the trial and its time. Version 0.1 calls input and result `i` and `r`, later versions
`input` and `result`. A log contains all trials of a search or only the best ones. The fastest trial stands for its layer, because
TVM would deploy it. Tasks are single operators in NCHW layout, without bias or activation.
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
    ImportedRows,
    RowCollector,
    Source,
    make_layer,
    milliseconds,
    number_of,
    published_estimate,
    shown,
    size,
)
from profiler.interval import Interval
from profiler.layers.layer import ITEM_BYTES, LayerSpec, Pair, Shape
from profiler.measure.estimate import Estimate

CONV = re.compile(r"(topi_nn_)?conv2d(_nchw\w*)?(\.\w+)?")
DEPTHWISE = re.compile(r"(topi_nn_)?depthwise_conv2d_nchw\w*(\.\w+)?")
DENSE = re.compile(r"(topi_nn_)?dense(_\w+)?(\.\w+)?")
ENOUGH_COSTS = 3
"""The fewest repeats whose range is taken as an interval."""
MOST_COSTS = 100_000
FAILED = "trials that failed"
SLOWER = "slower trials of the same layer"
SINGLE = "as single operators, without bias and activation, as they were tuned"


def read(sources: Sequence[Source], activations: Sequence[str]) -> ImportedRows:
    """The layers in the logs. With activations, each layer stands for layers with a bias and these activations.

    Raises `ExchangeError` if a file is not a tuning log, or if the logs are of several targets.
    """
    found = RowCollector()
    targets: set[str] = set()
    for source in sources:
        for label, record in _records(source):
            found.count()
            target, name, arguments, costs, error = _record_parts(record, label)
            targets.add(target)
            if len(targets) > 1:
                raise ExchangeError(
                    f"{label} is for {shown(target)}, unlike those before it; a table is of one device: import each by itself"
                )
            if error:
                found.skip(FAILED)
                continue
            layer = _layer(name, arguments, label)
            if layer is None:
                found.skip(f"tasks of an unknown kind or layout ({shown(name)})")
            else:
                layers = [replace(layer, bias=True, activation=activation) for activation in activations] or [layer]
                found.add(layers, _estimate(costs, label), SLOWER)
    form = SINGLE
    if activations:
        form = f"weighted layers have a bias and {' or '.join(activations)}, as you said; they were tuned without"
    return found.finish(
        (
            form,
            "batch and layout as in the log, which is NCHW inside TVM",
        ),
        f"TVM for {''.join(map(shown, targets))}; mean of the repeats of the fastest trial, which was chosen for being fast",
    )


def _records(source: Source) -> Iterator[tuple[str, Any]]:
    """The JSON value of each line, with the place of the line for messages."""
    for number, line in enumerate(io.StringIO(source.text), 1):
        if line.strip():
            label = f"{source.name}, line {number}"
            try:
                yield label, read_json(line)
            except ValueError as exc:
                raise ExchangeError(f"{label} is not JSON; a tuning log has a record on each line") from exc


def _record_parts(record: Any, label: str) -> tuple[str, str, list[Any], list[Any], bool]:
    """The target, the task, its arguments, the costs in seconds, and True if the trial failed."""
    plain = record if isinstance(record, dict) else {}
    task = plain.get("i", plain.get("input"))
    result = plain.get("r", plain.get("result"))
    if not (isinstance(task, list) and len(task) >= 3 and isinstance(result, list) and len(result) >= 2):
        raise ExchangeError(f"{label} is not a record of a tuning log, which has an input and a result")
    target, name, arguments = task[:3]
    costs, error = result[:2]
    if not (isinstance(target, str) and isinstance(name, str) and isinstance(arguments, list) and isinstance(costs, list)):
        raise ExchangeError(f"{label} is not a record of a tuning log: target, task, arguments or costs are missing")
    return target, name, arguments, costs, error != 0


def _layer(name: str, arguments: list[Any], label: str) -> LayerSpec | None:
    """The task as a layer; None if no LayerSpec describes it."""
    # texts among the arguments are layouts, or the data type of the output
    layouts = [item for item in arguments if isinstance(item, str) and item not in ITEM_BYTES]
    if any(layout != "NCHW" for layout in layouts) or len(arguments) < 2:
        return None
    if DENSE.fullmatch(name):
        return _dense(arguments, label)
    depthwise = DEPTHWISE.fullmatch(name) is not None
    return _conv(arguments, depthwise, label) if depthwise or CONV.fullmatch(name) else None


def _conv(arguments: list[Any], depthwise: bool, label: str) -> LayerSpec | None:
    (n, c, h, w), dtype = _tensor(arguments[0], 4, label)
    (first, second, *kernel), _ = _tensor(arguments[1], 4, label)
    if len(arguments) < 4 or dtype not in ITEM_BYTES:
        return None
    stride = _sizes(arguments[2], label)
    padding = _padding(arguments[3], label)
    dilation = _sizes(arguments[4], label) if len(arguments) > 4 and isinstance(arguments[4], list) else (1, 1)
    # weights are (out, in, kh, kw), or (channels, multiplier, kh, kw) for a depthwise convolution
    if (first != c) if depthwise else (second != c):
        raise ExchangeError(f"{label} contradicts itself: its weights are not for {c} channels")
    channels = c * second if depthwise else first
    top, left, bottom, right = padding
    lengths = zip((h + top + bottom, w + left + right), kernel, stride, dilation, strict=True)
    output = (n, *(max(0, length - (k - 1) * d - 1) // s + 1 for length, k, s, d in lengths), channels)
    return make_layer(
        label, LayerSpec, "depthwise_conv2d" if depthwise else "conv2d", ((n, h, w, c),), output, tuple(kernel), stride,
        dilation, padding, c if depthwise else 1, bias=False, dtype=dtype,
    )  # fmt: skip


def _dense(arguments: list[Any], label: str) -> LayerSpec | None:
    given, dtype = _tensor(arguments[0], 2, label)
    weights, _ = _tensor(arguments[1], 2, label)
    if weights[1] != given[1] or dtype not in ITEM_BYTES:
        return None
    # the third argument of a dense task is its bias, or None
    biased = len(arguments) > 2 and isinstance(arguments[2], list)
    return make_layer(label, LayerSpec, "fully_connected", (given,), (given[0], weights[0]), bias=biased, dtype=dtype)


def _tensor(value: Any, rank: int, label: str) -> tuple[Shape, str]:
    """The shape, in the order of the log, and the data type of a tensor argument."""
    if not (isinstance(value, list) and len(value) == 3 and value[0] == "TENSOR" and isinstance(value[1], list)):
        raise ExchangeError(f"{label}: an argument is not a tensor with shape and data type")
    if len(value[1]) != rank or not isinstance(value[2], str):
        raise ExchangeError(f"{label}: a tensor of {rank} dimensions was expected, not {shown(value[1:])}")
    return tuple(size(item, f"{label}: a size") for item in value[1]), value[2]


def _sizes(value: Any, label: str) -> Pair:
    if not isinstance(value, list) or len(value) != 2:
        raise ExchangeError(f"{label}: strides and dilations are pairs of numbers, not {shown(value)}")
    return size(value[0], f"{label}: a stride or dilation"), size(value[1], f"{label}: a stride or dilation")


def _padding(value: Any, label: str) -> tuple[int, int, int, int]:
    """The padding as (top, left, bottom, right); older logs contain only the first two numbers."""
    if not isinstance(value, list) or len(value) not in (2, 4):
        raise ExchangeError(f"{label}: a padding has two or four numbers, not {shown(value)}")
    # `size` accepts no zero, which a padding may be
    numbers = [size(item + 1, f"{label}: a padding plus 1") - 1 if isinstance(item, int) else size(item, label) for item in value]
    top, left, bottom, right = numbers if len(numbers) == 4 else numbers * 2
    return top, left, bottom, right


def _estimate(costs: list[Any], label: str) -> Estimate:
    """The mean of the repeats. Their range is the interval; one or two repeats give none."""
    if not 1 <= len(costs) <= MOST_COSTS:
        raise ExchangeError(f"{label} has {len(costs)} costs; a record has from 1 to {MOST_COSTS}")
    each_ms = [milliseconds(number_of(cost, f"{label}: a cost") * 1e3, f"{label}: a cost") for cost in costs]
    mean_ms = math.fsum(each_ms) / len(each_ms)
    if len(each_ms) < ENOUGH_COSTS:
        return published_estimate(mean_ms, samples=len(each_ms))
    range_ms = Interval(mean_ms, min(mean_ms, *each_ms), max(mean_ms, *each_ms))
    return Estimate(range_ms, rounds=0, samples=len(each_ms), quiet_rounds=0)
