"""A spot_check at a table's device: is it still the same, and do a few layers and one network still take what the table says?

Some ten seconds of the device's time, where building anew takes minutes: one layer of each kind and the network the table is for,
in shuffled rounds of one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from profiler.devices.identity import differences
from profiler.errors import TableError
from profiler.latency.staircase import kind_of
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate, Measurement, estimate
from profiler.measure.loop import layer_job
from profiler.measure.opening import open_session
from profiler.measure.session import Session
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.settings import Target, TimingSettings
from profiler.schedule.staleness import SpotCheckItem
from profiler.tables.build import network_jobs
from profiler.tables.plan import Plan
from profiler.tables.table import LatencyTable

ROUNDS = 10
LONGER = 2.5
"""Rounds are so much longer than a build's: few models, and yet their rounds are to lie seconds apart."""
LOOKS = 2
"""A drift is only believed if it is still there after as many rounds again: a busy machine is slow for seconds on end."""
MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """What was seen. Of a device that has changed nothing was measured."""

    differences: tuple[str, ...]
    items: tuple[SpotCheckItem, ...]


def spot_check(
    table: LatencyTable, plan: Plan, target: Target, *, progress: ProgressReporter | None = None, wait_s: float = 0.0
) -> SpotCheck:
    """Errors of the device's if it cannot be reached or is busy. The plan's graph is as the runtime executes it."""
    layers, progress = spot_check_layers(table), progress or Silent()
    models = {layer.key: layer_job(layer, target.model_format, plan.graph.opaques).model for layer in layers}
    network = next(iter(network_jobs(plan, target)))  # the network itself comes first
    models[network.key] = network.model
    measurements: dict[str, list[Measurement]] = {name: [] for name in models}
    with open_session(target, _settings(table.info.settings), progress=progress, wait_s=wait_s) as session:
        for look in range(LOOKS):
            progress.begin("looking at a few layers of", ROUNDS * len(models))
            if changed := _measured(session, models, look, table, measurements, progress):
                return SpotCheck(tuple(changed), ())
            seen = {name: estimate(found) for name, found in measurements.items() if found}
            items = [_of_layer(layer, table.rows[layer], seen[layer.key]) for layer in layers if layer.key in seen]
            if network.key in seen:
                items.append(_of_network(table, plan, seen[network.key]))
            if not any(item.drifted for item in items):
                break
    if not items:
        raise TableError(f"no layer of the table runs on {target.device} any more; `profile doctor {target.device}` may say why")
    return SpotCheck((), tuple(items))


def _measured(
    session: Session,
    models: Mapping[str, bytes],
    look: int,
    table: LatencyTable,
    measurements: Mapping[str, list[Measurement]],
    progress: ProgressReporter,
) -> list[str]:
    """Measurements are added to what there is; or nothing, if the device is another one: what of it has changed."""
    schedule = [(look * ROUNDS + number, list(models)) for number in range(ROUNDS)]
    for message in session.measure(models, schedule):
        match message["event"]:
            case "hello":
                state = session.conditioning.state if session.conditioning is not None else {}
                if changed := differences(table.info.device, {**message, "conditioning": state}):
                    return changed
            case "measurement":
                seen = Measurement(message["round"], message["loops"], tuple(message["samples_ns"]), tuple(message["switched"]))
                measurements[message["model"]].append(seen)
                progress.advance(message["model"][:60])
            case "paused":
                progress.say(f"{message['reason']}; going on as soon as it is possible")
    return []


def spot_check_layers(table: LatencyTable) -> tuple[LayerSpec, ...]:
    """A layer of each kind, the kinds that take most time first: of the slower half of a kind, the one that is known best."""
    kinds: dict[str, list[LayerSpec]] = {}
    for layer in sorted(table.rows, key=lambda layer: -table.rows[layer].latency_ms):
        if layer.opaque is None and not table.rows[layer].disturbed:
            kinds.setdefault(kind_of(layer), []).append(layer)
    certainty = {layer: row.half_width_ms / max(row.latency_ms, 1e-9) for layer, row in table.rows.items()}
    found = [min(layers[: len(layers) // 2 + 1], key=certainty.__getitem__) for layers in kinds.values()]
    return tuple(found[:MOST_LAYERS])


def _settings(settings: TimingSettings) -> TimingSettings:
    return replace(settings, min_round_s=LONGER * settings.min_round_s)


def _of_layer(layer: LayerSpec, row: Estimate, now: Estimate) -> SpotCheckItem:
    return SpotCheckItem(layer.key, kind_of(layer), row.latency_ms, row.half_width_ms, now.latency_ms, now.half_width_ms)


def _of_network(table: LatencyTable, plan: Plan, now: Estimate) -> SpotCheckItem:
    """Against what it took when the table was checked, within the interval the table predicts it with."""
    said = table.explain(plan.graph)
    measured = {checked.name: checked.measured_ms for checked in table.info.held_out.checked}
    before_ms = measured.get(plan.graph.name, said.latency_ms)
    half_ms = (said.latency_ms_high - said.latency_ms) * before_ms / said.latency_ms
    return SpotCheckItem(plan.graph.name, None, before_ms, half_ms, now.latency_ms, now.half_width_ms)


def lacking(table: LatencyTable, plans: Sequence[Plan]) -> tuple[LayerSpec, ...]:
    """Layers of the plans' networks that it cannot tell, but for those that it has tried in vain."""
    graphs = [plan.graph.at_widths(widths) for plan in plans for widths in ({}, *plan.fit, *plan.check)]
    missing = dict.fromkeys(part.layer for graph in graphs for part in table.explain(graph).missing)
    return tuple(layer for layer in missing if layer.key not in table.info.failed)
