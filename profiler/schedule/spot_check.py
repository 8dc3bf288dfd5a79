"""A spot check of a table's device: is it still the same, and do a few layers and one network still take what the table says?

Some ten seconds of the device's time, where building anew takes minutes: one layer of each kind and the network the table is for,
in shuffled rounds of one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.devices.identity import Identity
from profiler.errors import DeviceChanged, TableError
from profiler.latency.staircase import kind_of
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.measure.loop import MeasurementRun, Model, few_models, layer_model, middling_layer
from profiler.measure.opening import open_session
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.settings import Target
from profiler.schedule.staleness import SpotCheckItem
from profiler.tables.build import as_executed, networks_of
from profiler.tables.plan import Plan
from profiler.tables.predictor import Predictor
from profiler.tables.table import Table

ROUNDS = 10
ATTEMPTS = 2
"""A drift is only believed if it is still there after as many rounds again: a busy machine is slow for seconds on end."""
MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """What was seen. Of a device that has changed nothing was measured."""

    differences: tuple[str, ...]
    items: tuple[SpotCheckItem, ...]


def spot_check(
    table: Table, plan: Plan, target: Target, *, progress: ProgressReporter | None = None, wait_s: float = 0.0
) -> SpotCheck:
    """Measure on the device. Its errors are raised if it cannot be reached or is busy."""
    layers, progress = spot_check_layers(table), progress or Silent()
    network = next(iter(networks_of(plan, target)))  # the network itself comes first
    with open_session(target, few_models(table.info.settings), progress=progress, wait_s=wait_s) as session:
        made_on = Identity.of_fingerprint(table.info.device)
        run = MeasurementRun(session, progress, reference=middling_layer(table.rows), made_on=made_on)
        keys = run.add([*(layer_model(session, layer) for layer in layers), Model(network.key, network.file)])
        for number in range(1, 1 + ATTEMPTS):
            try:
                run.measure(dict.fromkeys(keys, number * ROUNDS), "spot check of")
            except DeviceChanged as exc:
                return SpotCheck(exc.differences, ())
            found = run.state.estimates(keys)
            items = [_of_layer(layer, table.rows[layer], found[layer.key]) for layer in layers if layer.key in found]
            if network.key in found:
                items.append(_of_network(table, plan, found[network.key]))
            if not any(item.drifted for item in items):
                break
    if not items:
        raise TableError(f"no layer of the table runs on {target.device} any more; `profile doctor {target.device}` may say why")
    return SpotCheck((), tuple(items))


def spot_check_layers(table: Table) -> tuple[LayerSpec, ...]:
    """A layer of each kind, the kinds that take most time first: of the slower half of a kind, the one that is known best."""
    kinds: dict[str, list[LayerSpec]] = {}
    for layer in sorted(table.rows, key=lambda layer: -table.rows[layer].latency_ms.value):
        if layer.opaque is None and not table.rows[layer].disturbed:
            kinds.setdefault(kind_of(layer), []).append(layer)
    certainty = {layer: row.latency_ms.half_width / max(row.latency_ms.value, 1e-9) for layer, row in table.rows.items()}
    found = [min(layers[: len(layers) // 2 + 1], key=certainty.__getitem__) for layers in kinds.values()]
    return tuple(found[:MOST_LAYERS])


def _of_layer(layer: LayerSpec, row: Estimate, now: Estimate) -> SpotCheckItem:
    before_ms, now_ms = row.latency_ms, now.latency_ms
    return SpotCheckItem(layer.key, kind_of(layer), before_ms.value, before_ms.half_width, now_ms.value, now_ms.half_width)


def _of_network(table: Table, plan: Plan, now: Estimate) -> SpotCheckItem:
    """Against what it took when the table was checked, within the interval the table predicts it with."""
    said = Predictor(table).explain(as_executed(plan, table).graph)
    measured = {checked.name: checked.measured_ms for checked in table.info.held_out.checked}
    before_ms = measured.get(plan.graph.name, said.latency_ms.value)
    half_ms = (said.latency_ms.high - said.latency_ms.value) * before_ms / said.latency_ms.value
    return SpotCheckItem(plan.graph.name, None, before_ms, half_ms, now.latency_ms.value, now.latency_ms.half_width)


def lacking(table: Table, plans: Sequence[Plan]) -> tuple[LayerSpec, ...]:
    """Layers of the plans' networks that it cannot tell, but for those that it has tried in vain."""
    graphs = [as_executed(plan, table).graph for plan in plans]
    graphs += [plan.graph.at_widths(widths) for plan in plans for widths in (*plan.fit, *plan.check)]
    predictor = Predictor(table)
    missing = dict.fromkeys(layer.layer for graph in graphs for layer in predictor.explain(graph).missing)
    return tuple(layer for layer in missing if layer.key not in table.info.failed)
