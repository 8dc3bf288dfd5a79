"""What the runtime on the device executes for the networks of a build: asked once, recorded, and compared with our rules."""

from __future__ import annotations

import base64
import binascii
import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_agents.support.loading import load
from profiler.errors import ModelError
from profiler.formats.model_file import FORMATS, Format, format_of
from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, conv2d
from profiler.measure.loop import MeasurementRun
from profiler.measure.opening import open_session
from profiler.measure.state import MeasurementState
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.events import Executed
from profiler.protocol.settings import Target
from profiler.runtimes import fusion_of

PROBE = "probe of the blocked layout"
"""The key of a convolution to fewer channels than any block has: its output shows the size of a block."""
PROBE_CHANNELS = 4
INFERENCES = 10
STRETCHES = 11
FEWEST_NODES = 8
"""A model of fewer operators is not cut into stretches."""
MOST_STRETCH_BYTES = 400_000_000
"""All stretches of a model together are not larger: each is pushed to the device with weights of its own."""


class ExecutedModel(Protocol):
    """What a runtime executes for one model."""

    @property
    def graph(self) -> Graph: ...

    def stretch(self, first: int, last: int) -> tuple[Graph, bytes]:
        """Some of its operators in a row, as a graph and as a model file."""
        ...


@dataclass(frozen=True, slots=True)
class AskedFile:
    """What a runtime executes for a model file."""

    path: Path
    target: Target
    graph: Graph
    """Its layers, by the runtime's own answer or, if it gives none, by our rules."""
    operators: tuple[ExecutedOperator, ...]
    """The operators that the runtime's profiler reported, in the order of execution."""
    inferences_us: tuple[int, ...]
    from_runtime: bool
    """True if the graph is the runtime's own answer, False if it follows from our rules."""
    version: str
    """Of the runtime that was asked."""

    @property
    def sentence(self) -> str:
        """What was asked and what it answered, for people."""
        runtime, device = self.target.runtime, self.target.device
        where = "this machine" if device == "local" else device
        partitions = Counter(operator.partition for operator in self.operators)
        listed = ", ".join(f"by {partition}: {many}" for partition, many in partitions.items())
        if self.from_runtime:
            return f"{runtime} {self.version} on {where} was asked; it runs operators {listed}"
        rules = f"by our rules for {runtime}, which saves no graph of what it executes"
        return f"{rules}; its profiler on {where} reports {len(self.operators)} operators: {listed}" if listed else rules


def ask_file(
    path: Path, target: Target, *, inferences: int = INFERENCES, progress: ProgressReporter | None = None, wait_s: float = 0.0
) -> AskedFile:
    """Ask a device's runtime what it executes for a model file. `ModelError` if it cannot run the file, or the answer is damaged.

    `RunnerError` if the device's runner cannot ask.
    """
    file_format, key = format_of(path), str(path)
    if file_format.name != target.model_format:
        raise ModelError(f"{path} cannot run on {target.runtime}, which reads .{target.model_format} files")
    plain = file_format.read(path)  # a damaged file is an error before a device is asked
    with open_session(target, progress=progress, wait_s=wait_s) as session:
        run = MeasurementRun(session, progress or Silent())
        ask(run, {key: path.read_bytes()}, inferences)
    state = run.state
    if key in state.failed:
        raise ModelError(f"{path} cannot run on {target.runtime}: {state.failed[key]}")
    model = executed_model(state, key, path.stem, file_format)
    graph = model.graph if model is not None else rules_of(state, target.runtime).executed(plain)
    answer = state.executed[key][0] if key in state.executed else None
    operators, inferences_us = (answer.operators, answer.inferences_us) if answer else ((), ())
    version = state.hello.version if state.hello else "of unknown version"
    return AskedFile(path, target, graph, operators, inferences_us, model is not None, version)


def ask(run: MeasurementRun, networks: Mapping[str, bytes], inferences: int = INFERENCES) -> None:
    """Ask for what has not been asked in this build: these models by key, and the probe of the blocked layout."""
    if not run.session.tells_executed:
        return
    wanted = dict(networks)
    if fusion_of(run.session.target.runtime) == "onnxruntime":
        wanted[PROBE] = FORMATS["onnx"].write(Graph.of_layer(conv2d((1, 8, 8, 3), PROBE_CHANNELS, 3)))
    wanted = {key: file for key, file in wanted.items() if key not in run.state.executed and key not in run.state.failed}
    if wanted:
        run.ask_executed(wanted, inferences)


def block_of(state: MeasurementState) -> int:
    """Channels in a block of the device's layout; 1 without a blocked layout, or if it was not asked."""
    for answer in state.executed.get(PROBE, ()):
        for operator in answer.operators:
            for shape in operator.outputs[0].values() if operator.op == "Conv" and operator.outputs else ():
                if len(shape) == 4 and shape[1] > PROBE_CHANNELS:
                    return shape[1]
    return 1


def rules_of(state: MeasurementState, runtime: str) -> ExecutionRules:
    """Our rules for this runtime on this device."""
    return ExecutionRules(runtime, block_of(state))


def executed_model(state: MeasurementState, key: str, name: str, file_format: Format) -> ExecutedModel | None:
    """What the runtime executes for the model of this key; None if it did not tell. `ModelError` for a damaged answer."""
    answers: Sequence[Executed] = state.executed.get(key, ())
    answer = next((answer for answer in answers if answer.graph is not None), None)
    if answer is None or answer.graph is None or file_format.executed_reader is None:
        return None
    try:
        graph = base64.b64decode(answer.graph, validate=True)
    except binascii.Error as exc:
        raise ModelError(f"{name}: the device sent a damaged graph ({exc})") from exc
    model: ExecutedModel = load(file_format.executed_reader)(name, graph, answer.operators, block_of(state))
    return model


def compared(state: MeasurementState) -> tuple[int, tuple[str, ...]]:
    """For how many networks our rules could be compared with what the runtime executes, and for which they are wrong.

    Integers are left out: we measure a layer of them in a file of its own, which the runtime optimises.
    """
    assert state.header is not None
    file_format = FORMATS[state.header.target.model_format]
    users, asked, wrong = set(map(id, state.files.values())), 0, []
    for key, (_, graph) in state.networks.items():
        if id(graph) in users or any(layer.dtype != "float32" for layer in graph.layers):
            continue
        if key not in state.rules_hold and (model := executed_model(state, key, graph.name, file_format)) is not None:
            state.rules_hold[key] = same_layers(model.graph, graph)
        if key in state.rules_hold:
            asked += 1
            if not state.rules_hold[key]:
                wrong.append(graph.name)
    return asked, tuple(wrong)


def same_layers(first: Graph, second: Graph) -> bool:
    """True if two graphs have equal layers, whatever their order; opaque ones have equal kinds and shapes."""
    return Counter(map(_as_compared, first.layers)) == Counter(map(_as_compared, second.layers))


def _as_compared(layer: LayerSpec) -> LayerSpec | tuple[object, ...]:
    return layer if layer.opaque is None else (layer.op, layer.inputs, layer.output)


def stretches(model: ExecutedModel, model_bytes: int) -> Iterator[tuple[str, Graph, bytes]]:
    """Roles, graphs and files of parts of a model, some to fit the calibration on and some to hold out.

    A model without widths to choose has no other networks. Parts begin at its first operator or at any other, and have between a
    quarter and nine tenths of its operators. Large models have fewer.
    """
    count = len(model.graph.nodes)
    if count < FEWEST_NODES:
        return
    draws = random.Random(hashlib.sha256(repr(model.graph.layers).encode()).hexdigest())
    seen: set[tuple[int, int]] = set()
    left_bytes = MOST_STRETCH_BYTES
    for _ in range(10 * STRETCHES):  # small models have fewer parts than are wanted
        place = len(seen)
        length = round(count * draws.uniform(0.25, 0.9))
        first = 0 if place % 3 == 0 else draws.randrange(0, count - length + 1)
        size_bytes = model_bytes * length // count
        if place == STRETCHES or (first, length) in seen or size_bytes > left_bytes:
            continue
        seen.add((first, length))
        left_bytes -= size_bytes
        graph, file = model.stretch(first, first + length)
        yield ("check" if place % 3 == 2 else "fit"), graph, file
