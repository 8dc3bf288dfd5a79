"""What the runtime on the device executes for the networks of a build: asked once, recorded, and compared with our rules."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from device_agents.support.loading import load
from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.formats.model_file import FORMATS, Format, format_for
from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import BINARY_OPS, UNARY_OPS, LayerSpec, conv2d
from profiler.measure.loop import MeasurementRun, Model
from profiler.measure.opening import open_session
from profiler.measure.state import MeasurementState
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.events import Executed
from profiler.protocol.job import Loading
from profiler.protocol.settings import Target
from profiler.runtimes import fusion_of

PROBE = "probe of the blocked layout"
"""The key of a convolution to fewer channels than any block has: its output shows the size of a block."""
PROBE_CHANNELS = 4
EMPTY_CALL = "empty call"
"""The key of a model that computes next to nothing: the ReLU of one number."""
INFERENCES = 10
PASS_MS = 100.0
"""A pass of profiled inferences of one network lasts about so long, ..."""
FEWEST_INFERENCES, MOST_INFERENCES = 5, 50
"""... with so many of them."""
STRETCHES = 11
FEWEST_NODES = 8
"""A model of fewer operators is not cut into stretches."""
NEW_SHAPES = ("reshape", "squeeze", "unsqueeze", "flatten")
"""Operators that give a tensor another shape and copy nothing, of which a runtime adds and removes some."""
MOST_STRETCH_BYTES = 400_000_000
"""All stretches of a model together are not larger: each is pushed to the device with weights of its own."""


class ExecutedModel(Protocol):
    """What a runtime executes for one model."""

    @property
    def graph(self) -> Graph: ...

    @property
    def remark(self) -> str | None:
        """A sentence on what its layers are fed with, if they are fed with anything particular."""
        ...

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
    answers: tuple[Executed, ...]
    """What the runtime's profiler reported; none if it reports nothing."""
    empty_call: tuple[Executed, ...]
    """The same for a model that computes next to nothing, which tells what the profiler itself costs."""
    nodes: tuple[Node, ...]
    """The node of `graph` that each operator belongs to; empty if that is not known."""
    reason: str | None
    """Why the graph follows from our rules; None if it is the runtime's own answer."""
    version: str
    """Of the runtime that was asked."""
    remainder: str | None = None
    """A sentence on the operators that are not among the layers, because the runtime cannot run them; None if there are none."""

    @property
    def from_runtime(self) -> bool:
        """True if the graph is the runtime's own answer."""
        return self.reason is None

    @property
    def operators(self) -> tuple[ExecutedOperator, ...]:
        """The operators that the runtime's profiler reported, in the order of execution."""
        return self.answers[0].operators if self.answers else ()

    @property
    def sentence(self) -> str:
        """What was asked and what it answered, for people."""
        runtime, device = self.target.runtime, self.target.device
        where = "this machine" if device == "local" else device
        by = Counter(operator.partition.split()[0] for operator in self.operators)
        delegates = len({operator.partition for operator in self.operators if operator.partition.startswith("delegate")})
        listed = ", ".join(f"by {name}: {many}" for name, many in by.items())
        listed += f" (in {delegates} partitions)" if delegates > 1 else ""
        if self.from_runtime:
            return f"{runtime} {self.version} on {where} was asked; it runs operators {listed}"
        rules = f"by our rules for {runtime}: {self.reason}"
        return f"{rules}; its profiler on {where} reports {len(self.operators)} operators {listed}" if listed else rules


def ask_file(
    path: Path,
    target: Target,
    given: Given = NOTHING,
    *,
    inferences: int = INFERENCES,
    progress: ProgressReporter | None = None,
    wait_s: float = 0.0,
) -> AskedFile:
    """Ask a device's runtime what it executes for a model file. If it cannot run the file, our rules say what the layers are.

    Of a file with operators that no runtime here knows, the layers are those of the rest.

    `ModelError` if the file cannot be read or the answer is damaged, `RunnerError` if the device's runner cannot ask.
    """
    file_format, key = format_for(path, target.runtime, target.model_format), str(path)
    # a damaged file is an error before a device is asked
    remainder = None
    try:
        plain, file = file_format.read(path, given), file_format.complete(path, given)
    except ModelError:
        part = file_format.part(path, given)
        if part is None:
            raise
        plain, file, remainder = part
    progress = progress or Silent()
    if remark := file_format.remark(path):
        progress.say(remark)
    with open_session(target, progress=progress, wait_s=wait_s) as session:
        run = MeasurementRun(session, progress)
        ask(run, [Model(key, file)], inferences=inferences)
    state = run.state
    model, reason = told_model(state, key, path.stem, file_format, file)
    if key in state.failed:
        reason = f"it cannot run the file, {state.failed[key]}"
    graph = model.graph if model is not None else rules_of(state, target.runtime).executed(plain)
    version = state.hello.version if state.hello else "of unknown version"
    answers, empty = (tuple(state.executed.get(name, ())) for name in (key, EMPTY_CALL))
    nodes: tuple[Node, ...] = ()
    if reason is None:
        nodes = load(file_format.executed_matcher)(graph, answers[0].operators) if file_format.executed_matcher else graph.nodes
    return AskedFile(path, target, graph, answers, empty, nodes, reason, version, remainder)


def ask(run: MeasurementRun, models: Iterable[Model], passes: int = 1, inferences: int = INFERENCES) -> None:
    """Ask what the runtime executes for these models until there are so many answers for each, those of earlier runs counted.

    The empty call and the probe of the blocked layout are asked with them.
    """
    if not run.session.tells_executed:
        return
    file_format, state = FORMATS[run.session.target.model_format], run.state
    asked = [empty_call(run), *models]
    if fusion_of(run.session.target.runtime) == "onnxruntime" and PROBE not in state.executed:
        asked.append(Model(PROBE, file_format.write(Graph.of_layer(conv2d((1, 8, 8, 3), PROBE_CHANNELS, 3)))))
    for number in range(passes):
        wanted = [model for model in asked if len(state.executed.get(model.key, ())) <= number and model.key not in state.failed]
        if wanted:
            run.ask_executed(wanted, inferences)


def profile(run: MeasurementRun, networks: Sequence[str], passes: int) -> None:
    """Profile these networks, whose latency has been measured, until there are so many answers for each.

    Each call is one pass or a few at another time of the build, because a device changes its speed.
    """
    found = run.state.estimates(networks)
    if found:
        typical_ms = statistics.median(value.latency_ms.value for value in found.values())
        inferences = max(FEWEST_INFERENCES, min(MOST_INFERENCES, round(PASS_MS / typical_ms)))
        ask(run, [run.models[key] for key in found], passes, inferences)


def empty_call(run: MeasurementRun) -> Model:
    """A model whose latency is that of a call, and whose only operator takes as long as the profiler itself."""
    as_it_is = run.session.leaves_as_it_is
    graph = Graph.of_layer(LayerSpec("relu", ((1, 1),), (1, 1)), executed=as_it_is)
    return Model(EMPTY_CALL, FORMATS[run.session.target.model_format].write(graph), None, Loading(as_it_is))


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


def told_model(
    state: MeasurementState, key: str, name: str, file_format: Format, file: bytes
) -> tuple[ExecutedModel | None, str | None]:
    """What the runtime executes for the model file of this key, and why that follows from our rules; None if it is its own answer.

    There is no model where neither the runtime nor our rules tell. `ModelError` for a damaged answer.
    """
    answer = next((answer for answer in state.executed.get(key, ()) if answer.operators), None)
    told = next((answer.reason for answer in state.executed.get(key, ()) if answer.reason), "it does not tell what it executes")
    if answer is not None and file_format.executed_matcher is None and file_format.executed_reader and answer.graph is not None:
        return _read(file_format.executed_reader, name, _saved(name, answer.graph), answer, state, file), None
    if answer is not None and file_format.executed_matcher and file_format.executed_reader:
        try:
            return _read(file_format.executed_reader, name, file, answer, state), None
        except ModelError as exc:
            told = str(exc)
    ruled: ExecutedModel | None = load(file_format.ruled_reader)(name, file) if file_format.ruled_reader else None
    return ruled, told


def _saved(name: str, graph: str) -> bytes:
    try:
        return base64.b64decode(graph, validate=True)
    except binascii.Error as exc:
        raise ModelError(f"{name}: the device sent a damaged graph ({exc})") from exc


def _read(
    reader: str, name: str, data: bytes, answer: Executed, state: MeasurementState, file: bytes | None = None
) -> ExecutedModel:
    """`file` is the user's, where `data` is the graph that the runtime saved of it."""
    files = [] if file is None else [file]
    model: ExecutedModel = load(reader)(name, data, answer.operators, block_of(state), *files)
    return model


def executed_nodes(state: MeasurementState, key: str) -> tuple[Node, ...] | None:
    """The node of each operator that the runtime executes for a network of the build.

    Of a linear layer over sequences or images, that is the product of their rows, which takes the time; two reshapes, which copy
    nothing, are nodes of their own. None if the runtime did not tell, or told what contradicts our rules.
    """
    assert state.header is not None
    file_format, (_, graph) = FORMATS[state.header.target.model_format], state.networks[key]
    answer = next((answer for answer in state.executed.get(key, ()) if answer.operators), None)
    if key not in state.executed_nodes and answer is not None:
        found: tuple[Node, ...] | None = None
        if file_format.executed_matcher:
            with suppress(ModelError):
                found = load(file_format.executed_matcher)(graph, answer.operators)
        elif file_format.executed_reader and answer.graph is not None:
            saved = _saved(graph.name, answer.graph)
            over_rows = {_over_rows(layer): layer for layer in graph.layers if layer.op == "fully_connected"}
            nodes = _read(file_format.executed_reader, graph.name, saved, answer, state).graph.nodes
            over_rows |= {layer: layer for layer in graph.layers}
            found = tuple(replace(node, layer=over_rows.get(node.layer, node.layer)) for node in nodes)
        state.executed_nodes[key] = found
    return state.executed_nodes.get(key)


def compared(state: MeasurementState) -> tuple[int, tuple[str, ...]]:
    """For how many networks our rules could be compared with what the runtime executes, and for which they are wrong."""
    assert state.header is not None
    matches = FORMATS[state.header.target.model_format].executed_matcher is not None
    asked, wrong = 0, []
    for key, (_, graph) in state.networks.items():
        if key not in state.by_rules or not any(answer.operators for answer in state.executed.get(key, ())):
            continue
        if matches and any(layer.opaque is not None for layer in graph.layers):
            continue  # an operator of an ONNX file is several there, and nothing tells which
        nodes = executed_nodes(state, key)
        if matches:
            holds = nodes is not None
        elif nodes is None:
            continue
        else:
            holds = _as_compared(node.layer for node in nodes) == _as_compared(graph.layers)
        asked += 1
        if not holds:
            wrong.append(graph.name)
    return asked, tuple(wrong)


def _over_rows(layer: LayerSpec) -> LayerSpec:
    """The linear layer over as many rows as there are places that it is applied to."""
    rows = math.prod(layer.output[:-1])
    return replace(layer, inputs=((rows, layer.in_channels),), output=(rows, layer.out_channels))


def _as_compared(layers: Iterable[LayerSpec]) -> Counter[object]:
    """The layers, counted, without that in which an answer and our rules may differ although they mean the same work.

    An answer does not tell which axis has the channels, so that the sizes of layers without weights are compared in any order; nor
    do the weights of opaque layers matter. New shapes copy nothing.
    """
    found: Counter[object] = Counter()
    for layer in layers:
        kind = layer.op.lower().replace("_", "")
        if kind in NEW_SHAPES:
            continue
        if layer.opaque is None and layer.op == "fully_connected":
            found[_over_rows(layer)] += 1
        elif layer.opaque is not None or layer.op in (*UNARY_OPS, *BINARY_OPS, "concat"):
            found[kind, layer.dtype, tuple(tuple(sorted(shape)) for shape in (*layer.inputs, layer.output))] += 1
        else:
            found[layer] += 1
    return found


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
