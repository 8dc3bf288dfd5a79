"""The table that follows from the measurements of a journal."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime

import numpy as np

from profiler.devices.identity import fingerprint
from profiler.errors import JournalError
from profiler.latency.calibration import Calibration, FitNetwork, LayerInside, fit
from profiler.latency.staircase import Staircase, Staircases, tile_of
from profiler.latency.validation import LEAST_SHARE, HeldOutError, HeldOutLayer, HeldOutNetwork
from profiler.measure.disturbance import tag_counts
from profiler.measure.energy import energies_mj
from profiler.measure.executed import block_of, compared
from profiler.measure.per_layer import layers_inside
from profiler.measure.state import MeasurementState
from profiler.protocol.events import Header, Hello
from profiler.tables.limits import limits_of
from profiler.tables.predictor import Predictor
from profiler.tables.table import Table, TableInfo

FEWEST_REFERENCES = 10
"""Percentiles of fewer measurements of the reference layer would say nothing."""


def table_of(state: MeasurementState) -> Table:
    """Estimate every layer, fit the calibration on the networks for it, and compute the error on the held-out ones.

    `JournalError` if nothing was measured yet.
    """
    if state.header is None or state.hello is None:
        raise JournalError("the journal holds no measurement yet")
    rows = {state.layers[key]: value for key, value in state.estimates(state.layers).items()}
    energies = energies_mj(state.idle, state.energy)
    energy_mj = {state.layers[key]: value for key, value in energies.items() if key in state.layers}
    info = _info(state, state.header, state.hello)
    tile = tile_of(info.staircases)
    limits = limits_of(state)
    naive = Predictor(Table(rows, replace(info, calibration=Calibration(tile=tile, call_ms=limits.call_ms)), energy_mj))
    fitted, checked = [], []
    for key, value in state.estimates(state.networks).items():
        role, graph = state.networks[key]
        if naive.explain(graph).missing:
            continue  # a network with a layer that could not be measured can be neither fitted nor checked
        latency_ms = value.latency_ms.value
        known = [(node, naive.sums_of(node.layer), inside_ms) for node, inside_ms in layers_inside(state, key, latency_ms)]
        inside = [(node, LayerInside(node.layer.op, sums, inside_ms)) for node, sums, inside_ms in known if sums is not None]
        if role == "fit":
            fitted.append(FitNetwork(naive.sums(graph), latency_ms, [layer for _, layer in inside]))
        else:
            checked.append((graph, latency_ms, inside))
    calibration = fit(fitted, tile, limits)
    calibrated = naive.with_calibration(calibration)
    held_out = []
    for graph, latency_ms, inside in checked:
        prediction, whole = calibrated.predict(graph), calibrated.sums(graph)
        layers = tuple(
            HeldOutLayer(node.name, node.layer.op, node.layer.key, calibration.share_ms(sums, whole), layer.inside_ms)
            for node, layer in inside
            if layer.inside_ms >= LEAST_SHARE * latency_ms and (sums := calibrated.sums_of(node.layer)) is not None
        )
        held_out.append(HeldOutNetwork(graph.name, prediction.latency_ms, latency_ms, prediction.naive_ms, layers))
    return calibrated.table.with_held_out(HeldOutError.of(held_out))


def _info(state: MeasurementState, header: Header, hello: Hello) -> TableInfo:
    dates = state.measured_utc
    drift_percent = None
    if len(state.references_ms) >= FEWEST_REFERENCES:
        low, high = np.percentile(state.references_ms, [5, 95])
        drift_percent = float(high / low - 1) * 100
    asked, unlike = compared(state)
    return TableInfo(
        target=header.target,
        device=fingerprint(hello, state.conditioning),
        settings=header.settings,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        measured_utc={key: utc for key, utc in dates.items() if key in state.layers},
        validated_utc=min((utc for key, utc in dates.items() if key in state.networks), default=None),
        staircases=staircases_of(state),
        block=block_of(state),
        asked=asked,
        unlike=unlike,
        files=dict(state.files),
        failed=dict(state.failed),
        networks=tuple(graph.name for role, graph in state.networks.values() if role == "check"),
        disturbances=tag_counts(measurement for found in state.measurements.values() for measurement in found),
        progress=tuple(asdict(item) for item in state.errors),
        reference_drift_percent=drift_percent,
        measuring_s=state.measuring_ns / 1e9,
        wall_s=state.wall_s,
    )


def staircases_of(state: MeasurementState) -> Staircases:
    """The staircases detected from sweeps; the latest one for each kind and axis."""
    return {(rule.kind, rule.axis): Staircase(rule.step, rule.flat, rule.granularity) for rule in state.rules}
