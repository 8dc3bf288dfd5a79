"""The latency table: what each layer costs on one device with one runtime, and how far the sum can be trusted.

One Parquet file: a row for each layer (its spec as columns, its estimate as columns), and in the file's metadata, under one key,
everything else as JSON: format version, device and runtime fingerprint, timing settings, calibration and held_out. The raw
samples are in the journal beside it, from which the table can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from device_agents.support.atomic import whole
from device_agents.support.dataclass_json import read_as, read_value
from device_agents.support.strict_json import read_json
from profiler.errors import LayerError, LayerNotMeasured, TableError
from profiler.interval import Interval
from profiler.latency.calibration import NOTHING, Calibration, Sums, sums_of
from profiler.latency.interpolation import Grid
from profiler.latency.pricing import Pricer
from profiler.latency.staircase import Staircases, read_staircases, staircases_data
from profiler.latency.validation import HeldOutError, close
from profiler.layers.composite import as_blocks
from profiler.layers.fusion import fuse_for
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import BLOCK_OPS, LayerSpec
from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings

FORMAT = 3
METADATA_KEY = b"latency_table"
MOST_ROWS = 200_000
ROWS_AT_ONCE = 100
MOST_BYTES = 200_000_000
"""Of the rows, unpacked; a table of twenty thousand layers has twelve million."""


@dataclass(frozen=True, slots=True)
class Part:
    """One layer of a prediction."""

    node: str
    layer: LayerSpec
    latency_ms: Interval | None
    """Its calibrated share of the network's latency; None if missing."""
    source: str
    """measured, interpolated or missing."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A network's latency by the table. Where layers are missing, the latency is that of the others."""

    latency_ms: Interval
    """Its ends are not known where those of one of the layers are not."""
    naive_ms: float
    parts: tuple[Part, ...]

    @property
    def missing(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.source == "missing")


@dataclass(frozen=True, slots=True)
class TableInfo:
    """All that a table says beside its rows."""

    target: Target
    device: Mapping[str, Any]
    """The fingerprint: device facts, runtime version and hash, runner hash, as the runner told them."""
    settings: TimingSettings
    created_utc: str
    calibration: Calibration = field(default_factory=Calibration)
    held_out: HeldOutError = field(default_factory=lambda: close(()))
    failed: Mapping[str, str] = field(default_factory=dict)
    """Layers that could not be measured, by key, and why."""
    networks: tuple[str, ...] = ()
    """What it was built for."""
    staircases: Staircases = field(default_factory=dict)
    """What the sweeps have shown of the device's steps in channels."""
    disturbances: Mapping[str, int] = field(default_factory=dict)
    """How many measurements there were, and how many of them were disturbed by what."""
    progress: Sequence[Mapping[str, Any]] = ()
    """How the table's own estimate of its error fell as layers were added: wall_s, layers, error_percent, between_percent."""
    reference_drift_percent: float | None = None
    """How far the looks at the reference layer spread during the build: 95th against 5th percentile."""
    measuring_s: float = 0.0
    """Time spent in samples, of ..."""
    wall_s: float = 0.0
    """... the time the build took on the device and the host."""
    measured_utc: Mapping[str, str] = field(default_factory=dict)
    """When each row was measured, by its layer's key; tables of earlier versions do not tell."""
    validated_utc: str | None = None
    """When the whole networks were measured that it was fitted to and checked against: they vouch for the rows, older ones too."""

    @property
    def imported(self) -> Mapping[str, Any] | None:
        """Where the table was imported from and what was made of it (profiler.exchange); None for one that was measured by us."""
        told = self.device.get("imported")
        return told if isinstance(told, Mapping) else None

    @property
    def age_days(self) -> float:
        """Since it was last held against whole networks, or since it was made, where that is not known."""
        return self.age_at(datetime.now(UTC))

    def age_at(self, now: datetime) -> float:
        """Days."""
        return (now - datetime.fromisoformat(self.validated_utc or self.created_utc)).total_seconds() / 86400


class LatencyTable:
    """Rows by layer; layers of other widths are interpolated where their neighbours were measured."""

    def __init__(
        self, rows: Mapping[LayerSpec, Estimate], info: TableInfo, energy_mj: Mapping[LayerSpec, float] | None = None
    ) -> None:
        self.rows = dict(rows)
        self.energy_mj = dict(energy_mj or {})
        """Millijoules of one inference of those layers whose energy the device could tell."""
        self.info = info
        self.grid = Grid(self.rows if self.interpolates else {}, info.staircases)
        self._blocks = frozenset(layer for layer in self.rows if layer.op in BLOCK_OPS)
        self._pricer: Pricer | None = None
        self._lookups: dict[LayerSpec, tuple[Estimate, str] | None] = {}

    @property
    def runtime(self) -> str:
        return self.info.target.runtime

    @property
    def calibration(self) -> Calibration:
        return self.info.calibration

    @property
    def interpolates(self) -> bool:
        """False for an imported table: nothing is known of the steps of a device that others have measured."""
        return self.info.imported is None

    def lookup(self, layer: LayerSpec) -> tuple[Estimate, str] | None:
        """The layer's estimate and its source, measured or interpolated; None if the table cannot tell."""
        if layer not in self._lookups:
            row = self.rows.get(layer)
            between = None if row else self.grid.interpolate(layer)
            self._lookups[layer] = (row, "measured") if row else (between, "interpolated") if between else None
        return self._lookups[layer]

    def cell(self, layer: LayerSpec) -> object:
        """What the layer shares with others between the same measured points."""
        return self.grid.cell(layer)

    def predict(self, graph: Graph) -> Prediction:
        """The network's calibrated latency. `LayerNotMeasured` if the table cannot tell for one of its layers."""
        prediction = self.explain(graph)
        if prediction.missing:
            first, count = prediction.missing[0], len(prediction.missing)
            raise LayerNotMeasured(
                f"{first.layer.key} ({first.node} of {graph.name}) is not in the {self.info.target.runtime} table"
                f"{f', nor are {count - 1} more' if count > 1 else ''}; add the network to it with `profile build`"
            )
        return prediction

    def explain(self, graph: Graph) -> Prediction:
        """Like `predict`, but tells what is missing instead of raising."""
        nodes = self._nodes(graph)
        calibration, found = self.info.calibration, [self.lookup(node.layer) for node in nodes]
        sums = [
            sums_of(node.layer, hit[0].latency_ms.value, self.tile) if hit else NOTHING
            for node, hit in zip(nodes, found, strict=True)
        ]
        total = sum(sums, NOTHING)
        parts = []
        uncertain_ms = 0.0
        for node, hit, part in zip(nodes, found, sums, strict=True):
            if hit is None:
                parts.append(Part(node.name, node.layer, None, "missing"))
                continue
            share, spread = calibration.share_ms(part, total), abs(calibration.scale) * hit[0].latency_ms.half_width
            parts.append(Part(node.name, node.layer, Interval(share, share - spread, share + spread), hit[1]))
            uncertain_ms += spread**2
        latency_ms = calibration.latency_ms(total)
        # layers err independently; what the calibration leaves unexplained on whole networks comes on top (two standard deviations)
        half_ms = (uncertain_ms + (2 * calibration.uncertainty_percent / 100 * latency_ms) ** 2) ** 0.5
        # the interval ends at zero, unless the correction subtracts so much that the value itself lies below
        low_ms = min(max(latency_ms - half_ms, 0.0), latency_ms)
        return Prediction(Interval(latency_ms, low_ms, latency_ms + half_ms), total.latency_ms, tuple(parts))

    def sums(self, graph: Graph) -> Sums:
        """What the calibration works on: sums over the layers the table knows."""
        known = [(node.layer, hit[0]) for node in self._nodes(graph) if (hit := self.lookup(node.layer)) is not None]
        return sum((sums_of(layer, estimate.latency_ms.value, self.tile) for layer, estimate in known), NOTHING)

    def _nodes(self, graph: Graph) -> tuple[Node, ...]:
        """The network's nodes as the runtime executes them, and as one where the table knows several as one."""
        executed = fuse_for(graph, self.info.target.runtime)
        return as_blocks(executed, self._blocks) if self._blocks else executed.nodes

    def prices(self, graph: Graph, block: str, widths: Sequence[int]) -> list[float]:
        """Milliseconds of the network with this block at each of these widths, as `predict` would say; NaN where it cannot."""
        if self._pricer is None or self._pricer.graph is not graph:
            self._pricer = Pricer(self, graph)
        found: list[float] = self._pricer.prices(block, widths).tolist()
        return found

    @property
    def tile(self) -> int:
        """Channels that are laid out together: the widest step of a convolution that costs the same however far it is filled."""
        steps = [rule.step for (kind, _), rule in self.info.staircases.items() if kind.startswith("conv2d")]
        return max(steps, default=Calibration().tile)

    @property
    def disturbed_percent(self) -> float:
        """Rows that had too few undisturbed rounds."""
        return 100 * sum(row.disturbed for row in self.rows.values()) / len(self.rows) if self.rows else 0.0

    @property
    def verified(self) -> bool:
        """Whether the table may be relied on: it predicts networks it has not seen, and was measured on a quiet device."""
        return self.info.held_out.verified and self.disturbed_percent <= DISTURBED_PERCENT

    def sentence(self) -> str:
        """How far to trust it, for people."""
        said = origin_of(self.info.device) + self.info.held_out.sentence()
        if self.disturbed_percent <= DISTURBED_PERCENT:
            return said
        return f"unverified: the device was disturbed while {self.disturbed_percent:.0f} % of the layers were measured; {said}"

    def with_calibration(self, calibration: Calibration) -> LatencyTable:
        return LatencyTable(self.rows, replace(self.info, calibration=calibration), self.energy_mj)

    def with_held_out(self, held_out: HeldOutError) -> LatencyTable:
        return LatencyTable(self.rows, replace(self.info, held_out=held_out), self.energy_mj)

    def save(self, path: Path) -> None:
        """Atomically: a reader sees the old table or the new one."""
        rows = [_columns(layer, estimate, self.energy_mj.get(layer)) for layer, estimate in self.rows.items()]
        columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
        table = pa.table(columns, schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps(_info_to_dict(self.info)).encode()}))
        with whole(path, TableError) as temporary:
            pq.write_table(table, temporary)


def origin_of(device: Mapping[str, Any]) -> str:
    """Of a fingerprint whose measurements are none of ours: a warning to put before everything said of them. Else empty."""
    imported = device.get("imported")
    if isinstance(imported, Mapping):
        return f"imported from {imported.get('from')}, not measured by us: "
    flags = device.get("flags") or {}
    if flags.get("simulated"):
        return "simulated, not measured: "
    return f"played back from {flags['replayed']}: " if flags.get("replayed") else ""


SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("op", pa.string()),
        ("input", pa.string()),
        ("output", pa.string()),
        ("precision", pa.string()),
        ("macs", pa.int64()),
        ("weight_bytes", pa.int64()),
        ("activation_bytes", pa.int64()),
        ("latency_ms", pa.float64()),
        ("latency_ms_low", pa.float64()),
        ("latency_ms_high", pa.float64()),
        ("rounds", pa.int32()),
        ("quiet_rounds", pa.int32()),
        ("samples", pa.int32()),
        ("energy_mj", pa.float64()),
        ("layer", pa.string()),
    ]
)
"""Every column of a table, in order; `layer` is the whole spec as JSON, the others before it are for reading."""
ROW_COLUMNS = ("latency_ms", "latency_ms_low", "latency_ms_high", "rounds", "quiet_rounds", "samples", "energy_mj", "layer")
"""Those a table is read from again."""


def _columns(layer: LayerSpec, estimate: Estimate, energy_mj: float | None) -> dict[str, Any]:
    return {
        "key": layer.key,
        "op": layer.op,
        "input": " + ".join("x".join(map(str, shape)) for shape in layer.inputs),
        "output": "x".join(map(str, layer.output)),
        "precision": layer.dtype,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        "latency_ms": estimate.latency_ms.value,
        "latency_ms_low": estimate.latency_ms.low,
        "latency_ms_high": estimate.latency_ms.high,
        "rounds": estimate.rounds,
        "quiet_rounds": estimate.quiet_rounds,
        "samples": estimate.samples,
        "energy_mj": energy_mj,
        "layer": json.dumps(layer.to_dict()),
    }


def _estimate(row: Mapping[str, Any]) -> Estimate:
    counts = (read_value(int, row[name]) for name in ("rounds", "samples", "quiet_rounds"))
    return Estimate(Interval.from_dict(row, "latency_ms"), *counts)


def load_table(path: Path) -> LatencyTable:
    """`TableError`, in one sentence, for anything that is not a whole table of this format version."""
    if not path.is_file():
        raise TableError(f"there is no table {path}; `profile build` makes one")
    try:
        raw, rows = _parquet(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
        raise TableError(f"{path} is not a latency table or is damaged: {_first_line(exc)}") from exc
    if raw is None:
        raise TableError(f"{path} is a Parquet file, but not a latency table")
    try:
        plain = read_json(raw)
        if plain["format"] != FORMAT:
            raise TableError(
                f"{path} has table format {plain['format']}, this version reads {FORMAT}; build it again from its journal"
            )
        layers = [LayerSpec.from_dict(read_json(row["layer"])) for row in rows]
        energy_mj = {layer: row["energy_mj"] for layer, row in zip(layers, rows, strict=True) if row.get("energy_mj")}
        estimates = {layer: _estimate(row) for layer, row in zip(layers, rows, strict=True)}
        return LatencyTable(estimates, _info_from_dict(plain), energy_mj)
    except (KeyError, TypeError, ValueError, LayerError) as exc:
        raise TableError(f"{path} is damaged: {exc}") from exc


def _parquet(path: Path) -> tuple[bytes | None, list[dict[str, Any]]]:
    """The metadata under our key, and what is needed of the rows. `TableError` for more of them than any table has.

    A small file can hold the same long text millions of times, so it is unpacked piece by piece.
    """
    with pq.ParquetFile(path) as file:
        raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
        columns = [name for name in ROW_COLUMNS if name in file.schema_arrow.names]  # energy came later than the others
        if raw is not None and any(file.schema_arrow.field(name).type != SCHEMA.field(name).type for name in columns):
            raise TableError(f"{path} is damaged: its columns are not those of a latency table")
        if file.metadata.num_rows > MOST_ROWS:
            raise TableError(f"{path} has {file.metadata.num_rows} rows, which no latency table has; is it damaged?")
        rows: list[dict[str, Any]] = []
        size_bytes = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
            size_bytes += batch.nbytes
            if size_bytes > MOST_BYTES:
                raise TableError(
                    f"{path} unpacks to more than {MOST_BYTES / 1e6:g} MB, which no latency table does; is it damaged?"
                )
            rows += batch.to_pylist()
        return raw, rows


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]


def _info_to_dict(info: TableInfo) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "target": asdict(info.target),
        "device": dict(info.device),
        "settings": info.settings.to_dict(),
        "created_utc": info.created_utc,
        "calibration": info.calibration.to_dict(),
        "held_out": info.held_out.to_dict(),
        "failed": dict(info.failed),
        "networks": list(info.networks),
        "staircases": staircases_data(info.staircases),
        "disturbances": dict(info.disturbances),
        "progress": [dict(step) for step in info.progress],
        "reference_drift_percent": info.reference_drift_percent,
        "measuring_s": info.measuring_s,
        "wall_s": info.wall_s,
        "measured_utc": dict(info.measured_utc),
        "validated_utc": info.validated_utc,
    }


FACTS = Mapping[str, Any]
FINGERPRINT: Mapping[str, Any] = {"device": FACTS, "flags": FACTS | None, "conditioning": FACTS | None, "imported": FACTS | None}
IMPORTED: Mapping[str, Any] = {"assumptions": Sequence[str], "skipped": Mapping[str, int]}
"""Of what kind the parts are that are looked into; the others are only shown and compared."""


def _info_from_dict(plain: Mapping[str, Any]) -> TableInfo:
    """`ValueError` for what is of another type than the field. What earlier versions did not write has its default."""
    staircases = read_staircases(plain["staircases"])
    info = replace(
        read_as(TableInfo, {**plain, "staircases": {}, "held_out": close(()).to_dict()}),
        staircases=staircases,
        held_out=HeldOutError.from_dict(plain["held_out"]),
    )
    for utc in (info.created_utc, info.validated_utc):
        if utc is not None and datetime.fromisoformat(utc).tzinfo is None:
            raise ValueError(f"{utc!r} is no time with a zone")
    for facts, kinds in ((info.device, FINGERPRINT), (info.imported or {}, IMPORTED)):
        for name in kinds.keys() & facts.keys():
            read_value(kinds[name], facts[name])
    return info
