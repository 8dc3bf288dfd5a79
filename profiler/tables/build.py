"""Building a table: a few layers of the plans and whole networks are measured, then more layers where predictions are uncertain.

Every event is recorded in the journal before anything else is done with it, and the table is derived from the journal alone. A
build that was killed can be resumed, and an existing table is extended by the layers that it lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.errors import TableError
from profiler.formats.model_file import FORMATS, format_for
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import estimate
from profiler.measure.executed import ExecutedModel, ask, compared, profile, rules_of, stretches, told_model
from profiler.measure.loop import MeasurementRun, Model
from profiler.measure.opening import PATIENCE_S, open_session
from profiler.measure.state import MeasurementState
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.events import ErrorEstimate, NetworkAdded, Spent, StaircaseRule, StaircaseRules
from profiler.protocol.job import USUAL, Loading
from profiler.protocol.journal import Journal, journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import fusion_of
from profiler.tables.derive import staircases_of, table_of
from profiler.tables.limits import limit_models
from profiler.tables.plan import Plan
from profiler.tables.predictor import Predictor
from profiler.tables.sampling import asked_for, corners_of, interpolation_percent, most_telling, staircases_from, sweeps_of
from profiler.tables.table import Table, load_table

PREFIXES = 6
"""Prefixes of a user's model that are measured for the fit, because it has no other widths."""
SWEEP_ROUNDS = 3
USERS_OWN = Loading(finite=False)
"""How a user's file is opened: whether its outputs are finite for random inputs is its own matter."""
MOST_NAMED = 5
"""Layers that a sentence names."""
BATCH = 24
"""Layers measured between two estimates of the error."""
ExecutedFiles = Mapping[Path, tuple[ExecutedModel, bool]]
"""What the runtime executes for users' files, and whether that follows from our rules."""


@dataclass(frozen=True, slots=True)
class StopCriterion:
    """The condition for a build to stop adding layers. `TableError` for limits that cannot be reached."""

    target_error_percent: float = 2.0
    """The estimated error on whole networks, from the fit, at which no more layers are added."""
    max_layers: int = 330
    """The number of layers at which no more are added. The corners of the plans are measured even if they are more."""

    def __post_init__(self) -> None:
        if self.target_error_percent <= 0 or self.max_layers < 1:
            raise TableError(f"a table cannot be built until {self.target_error_percent:g} % with at most {self.max_layers} layers")


def build(
    plans: Sequence[Plan],
    target: Target,
    out: Path,
    *,
    settings: TimingSettings | None = None,
    stop: StopCriterion | None = None,
    resume: bool = False,
    energy: bool = False,
    progress: ProgressReporter | None = None,
    wait_s: float = 0.0,
    again: Sequence[LayerSpec] = (),
) -> Table:
    """Measure what is not in the table yet and write the table to `out`. `again` are further layers to measure.

    `TableError` for an impossible path; `ModelError` for a model that the runtime cannot run; `JournalError` if there is a journal
    but neither a table nor `resume`, or if it was recorded under other conditions; errors of the device if it cannot be reached.
    """
    settings, stop = settings or TimingSettings(), stop or StopCriterion()
    if out.suffix != ".parquet" or not out.parent.is_dir():
        raise TableError(f"{out} cannot become a table: give a name ending in .parquet in a folder that exists")
    if out.exists() and not journal_path(out).exists():
        raise TableError(f"{out} has no journal beside it, so it cannot be extended; choose another --out or remove it")
    for plan in plans:
        if plan.model is not None:
            remark = format_for(plan.model, target.runtime, target.model_format).remark(plan.model)
            if remark:
                (progress or Silent()).say(remark)
    if fusion_of(target.runtime) is None:
        (progress or Silent()).say(f"how {target.runtime} fuses layers is not known: they are measured as the file has them")
    with _measuring(target, out, settings, resume or out.exists(), progress or Silent(), wait_s) as run:
        wholes = {network.key: network for plan in plans for network in networks_of(plan, target)}
        ask(run, (Model(key, network.file) for key, network in wholes.items()))
        models = dict(_executed_files(run, plans))
        rules = rules_of(run.state, target.runtime)
        executed = [_executed_plan(plan, rules, models) for plan in plans]
        _sweep(run, executed)
        layers = [key for plan in executed for key in _corners(run, plan)]
        layers += run.add_layers(again, {name: data for plan in executed for name, data in plan.graph.opaques.items()})
        layers += run.add_layers(_begun(run))
        networks = run.add(model for network in wholes.values() for model in _network_models(run, network, models))
        own = {layer.key: layer for plan in executed for layer in plan.graph.layers}
        limiting = run.add(limit_models(run, own))
        _, unlike = compared(run.state)
        if unlike:
            run.progress.say(f"our rules say something else than {target.runtime} executes for {', '.join(unlike)}")
        run.measure(dict.fromkeys([*layers, *networks, *limiting], settings.rounds), "measuring")
        _say_what_is_not_finite(run, executed)
        profile(run, networks, passes=2)
        for plan in plans:
            layers += _refine(run, plan, rules, networks, stop)
        profile(run, networks, passes=3)
        run.measure(dict.fromkeys(networks, settings.network_rounds), "measuring whole networks again:")
        profile(run, networks, passes=4)
        most = dict.fromkeys(layers, settings.max_rounds) | dict.fromkeys(networks, 2 * settings.network_rounds)
        run.settle(most)
        if energy:
            run.measure_energy([*layers, *networks])
    return load_table(out)


def extend(
    out: Path, layers: Sequence[LayerSpec], opaques: Mapping[str, bytes] | None = None, *, progress: ProgressReporter | None = None
) -> Table:
    """Measure further layers on the device of a table, under the same conditions, and write the table again.

    Layers that it has already are not measured. `opaques` are the files of subgraphs that were extracted from a model, by digest.
    `TableError` or `JournalError` if the journal is missing or the device has changed.
    """
    info = load_table(out).info
    if not journal_path(out).exists():
        raise TableError(f"{out} has no journal beside it, so it cannot be extended")
    with _measuring(info.target, out, info.settings, True, progress or Silent(), PATIENCE_S) as run:
        keys = run.add_layers(map(info.rules.entry, layers), opaques)
        run.measure(dict.fromkeys(keys, info.settings.rounds), "measuring")
        run.settle(dict.fromkeys(keys, info.settings.max_rounds))
    return load_table(out)


@contextmanager
def _measuring(
    target: Target, out: Path, settings: TimingSettings, resume: bool, progress: ProgressReporter, wait_s: float
) -> Iterator[MeasurementRun]:
    """A run with device and journal open and locked. At the end the table is written.

    The time spent is recorded even if the run fails. A journal without any measurement is removed.
    """
    with (
        open_session(target, settings, progress=progress, wait_s=wait_s) as session,
        Journal(journal_path(out), target, settings, resume=resume) as journal,
    ):
        run = MeasurementRun(session, progress, journal, MeasurementState.of(journal.recorded))
        try:
            yield run
        finally:
            run.record(Spent(round(run.wall_s, 3)))
            if run.state.hello is None:
                journal_path(out).unlink()  # the runner never started, so there is nothing to resume
        table_of(run.state).save(out)


def _sweep(run: MeasurementRun, plans: Sequence[Plan]) -> None:
    """Measure sweeps for the kinds of layers whose staircases are not known yet, and record what they show."""
    known = staircases_of(run.state)
    for plan in plans:
        sweeps = {kind: sweep for kind, sweep in sweeps_of(plan).items() if kind not in known}
        if not sweeps:
            continue
        keys = run.add_layers([layer for sets in sweeps.values() for layers in sets for layer in layers])
        run.measure(dict.fromkeys(keys, SWEEP_ROUNDS), "sweeping")
        measured = {run.state.layers[key]: value.latency_ms.value for key, value in run.state.estimates(keys).items()}
        known = {**known, **(found := staircases_from(sweeps, measured, plan.step))}
        rules = (StaircaseRule(kind, axis, rule.step, rule.flat, rule.granularity) for (kind, axis), rule in found.items())
        run.record(StaircaseRules(tuple(rules)))
        steps = ", ".join(f"{kind} {axis} {rule.step}" for (kind, axis), rule in found.items() if rule.step > rule.granularity)
        run.progress.say(f"steps in channels: {steps or f'none above {plan.step}'}")


def _say_what_is_not_finite(run: MeasurementRun, plans: Sequence[Plan]) -> None:
    """Say which outputs of users' files and of their layers are not finite: latency may be another for usual numbers."""
    for plan in plans:
        if plan.model is None:
            continue
        layers = [f"{node.layer.op} {node.name}" for node in plan.graph.nodes if node.layer.key in run.not_finite]
        named = f"{', '.join(layers[:MOST_NAMED])}{f' and {len(layers) - MOST_NAMED} more' if len(layers) > MOST_NAMED else ''}"
        if network_key(plan.graph.name) in run.not_finite:
            also = f", nor are those of its layers {named} alone" if layers else ""
            run.progress.say(f"{plan.model}: its outputs are not finite for these inputs{also}; --input gives others")
        elif layers:
            run.progress.say(f"{plan.model}: the outputs of {named} alone are not finite, although those of the network are")


def _corners(run: MeasurementRun, plan: Plan) -> list[str]:
    """Add the layers that every build measures, and return their keys."""
    layers = [*corners_of(plan, staircases_of(run.state))]
    # layers of the sweeps had few rounds yet; they are measured on with the others, so that all are measured alike
    layers += [layer for sets in sweeps_of(plan).values() for sweep in sets for layer in sweep]
    return run.add_layers(layers, plan.graph.opaques)


def _begun(run: MeasurementRun) -> list[LayerSpec]:
    """Layers that an earlier run began to measure and did not settle. No plan asks for them again, because the table has them."""
    settings, found = run.settings, []
    for key, measurements in run.state.measurements.items():
        layer = run.state.layers.get(key)
        if layer is None or layer.opaque is not None or key in run.state.failed or len(measurements) >= settings.max_rounds:
            continue
        if len(measurements) < settings.rounds or not estimate(measurements).settled(settings):
            found.append(layer)
    return found


def _refine(run: MeasurementRun, plan: Plan, rules: ExecutionRules, networks: Sequence[str], stop: StopCriterion) -> list[str]:
    """Measure batches of the most uncertain layers until the estimated error is low enough, and return their keys."""
    added: list[str] = []
    if not plan.graph.widths:
        return added
    settings = run.settings
    asked = [rules.entries(graph) for graph in (*asked_for(plan), *(plan.graph.at_widths(widths) for widths in plan.fit))]
    while True:
        table = table_of(run.state)
        predictor = Predictor(table)
        error, between = table.info.calibration.mean_error_percent, interpolation_percent(predictor, asked)
        run.record(ErrorEstimate(round(run.wall_s, 3), len(table.rows), error, between))
        said = "not known yet" if error is None else f"{error:.1f} %"
        run.progress.say(f"{run.wall_s:.0f} s, {len(table.rows)} layers: error {said}, {between:.1f} % of it between widths")
        batch = most_telling(predictor, asked, min(BATCH, stop.max_layers - len(table.rows)))
        if not batch or _enough(error, between, stop.target_error_percent):
            return added
        keys = run.add_layers(batch, plan.graph.opaques)
        added += keys
        rounds = dict.fromkeys(keys, settings.rounds)
        # whole networks are measured on beside the layers, so that both see the same slow periods of the machine
        rounds |= {key: min(settings.network_rounds, run.state.count(key) + settings.rounds) for key in networks}
        run.measure(rounds, "refining with")


def _enough(error: float | None, between: float, until: float) -> bool:
    """True if further layers are not needed, given the estimated error, the part due to interpolation, and the target, all in %.

    The target has to be met with a fifth to spare, because the error is estimated from about sixteen networks. If interpolation
    causes less than a quarter of the error, more layers would not reduce it.
    """
    if error is None or between > until / 2:
        return False
    return 1.2 * error <= until or between < error / 4


@dataclass(frozen=True, slots=True)
class Network:
    """A whole network of a plan, as it is measured."""

    role: str
    """`fit` or `check`."""
    graph: Graph
    """Its layers, before a runtime has fused them."""
    file: bytes
    model: Path | None = None
    """The user's file that it is; None if the file was written by us."""

    @property
    def key(self) -> str:
        return network_key(self.graph.name)


def network_key(name: str) -> str:
    """The key of a whole network among the models of a build."""
    return f"network {name}"


def networks_of(plan: Plan, target: Target) -> Iterator[Network]:
    """The whole networks of a plan. The network of the plan itself comes first and is always held out."""
    if plan.model is not None:
        yield Network("check", plan.graph, plan.file, plan.model)
        return
    writer = FORMATS[target.model_format]
    yield Network("check", plan.graph, writer.write(plan.graph))
    for role, drawn in (("fit", plan.fit), ("check", plan.check)):
        for widths in drawn:
            name = "-".join(str(width) for width in (plan.graph.widths | dict(widths)).values())
            graph = replace(plan.graph.at_widths(widths), name=f"{plan.graph.name} {name}")
            yield Network(role, graph, writer.write(graph))


def as_executed(plan: Plan, table: Table) -> Plan:
    """The plan with the graph that the runtime executes, by its own answer for a user's file and by our rules for others."""
    own_graph = table.info.files.get(hashlib.sha256(plan.file).hexdigest()) if plan.model is not None else None
    return replace(plan, graph=own_graph or table.info.rules.executed(plan.graph))


def _executed_plan(plan: Plan, rules: ExecutionRules, models: ExecutedFiles) -> Plan:
    graph = models[plan.model][0].graph if plan.model is not None and plan.model in models else plan.graph
    return replace(plan, graph=rules.entries(graph))


def _executed_files(run: MeasurementRun, plans: Sequence[Plan]) -> Iterator[tuple[Path, tuple[ExecutedModel, bool]]]:
    """What the runtime executes for users' files, and whether that follows from our rules."""
    file_format = FORMATS[run.session.target.model_format]
    for plan in plans:
        if plan.model is not None:
            name, file = plan.graph.name, plan.file
            model, reason = told_model(run.state, network_key(name), name, file_format, file)
            if model is not None:
                if model.remark:
                    run.progress.say(f"{plan.model}: {model.remark}")
                yield plan.model, (model, reason is not None)


def _network_models(run: MeasurementRun, network: Network, files: ExecutedFiles) -> Iterator[Model]:
    """A network as a model to measure and, if it is a user's file, parts of it to fit the calibration on and to hold out."""
    rules = rules_of(run.state, run.session.target.runtime)
    if network.model is None:
        yield _network_model(network.key, network.role, rules.executed(network.graph), network.file)
        return
    if network.model not in files:
        yield _network_model(network.key, network.role, rules.executed(network.graph), network.file, USERS_OWN)
        yield from _prefixes(run, network, rules)
        return
    model, by_rules = files[network.model]
    digest = None if by_rules else hashlib.sha256(network.file).hexdigest()
    yield _network_model(network.key, network.role, model.graph, network.file, USERS_OWN, file_sha256=digest, by_rules=by_rules)
    # a file whose weights are made up is smaller than these
    model_bytes = max(len(network.file), sum(layer.weight_bytes for layer in model.graph.layers))
    for role, graph, file in stretches(model, model_bytes):
        yield _network_model(network_key(graph.name), role, graph, file, Loading(as_it_is=True, finite=False), by_rules=False)


def _prefixes(run: MeasurementRun, network: Network, rules: ExecutionRules) -> Iterator[Model]:
    """Beginnings of a model whose runtime does not tell what it executes, if all its layers can be written."""
    if network.graph.opaques or len({layer.dtype for layer in network.graph.layers}) > 1:
        return
    nodes, writer = len(network.graph.nodes), FORMATS[run.session.target.model_format]
    for length in sorted({round(nodes * part / (PREFIXES + 1)) for part in range(1, PREFIXES + 1)} - {0}):
        graph = network.graph.prefix(length)
        yield _network_model(network_key(graph.name), "fit", rules.executed(graph), writer.write(graph))


def _network_model(
    key: str,
    role: str,
    graph: Graph,
    file: bytes,
    loading: Loading = USUAL,
    *,
    file_sha256: str | None = None,
    by_rules: bool = True,
) -> Model:
    return Model(key, file, NetworkAdded(key, role, replace(graph, opaques={}), file_sha256, by_rules), loading)
