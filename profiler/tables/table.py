"""The latency table of one device with one runtime: latencies of layers, and all that is known of how they were measured.

A table is one Parquet file with a row for each layer. Everything else is JSON in the metadata of the file, under one key: format
version, device and runtime fingerprint, timing settings, calibration and held-out error. Raw samples are in the journal beside the
table, from which it can be derived again (profiler.tables.derive).
"""

from __future__ import annotations

import hashlib
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
from device_agents.support.stand_ins import stand_in
from device_agents.support.strict_json import read_json
from profiler.errors import LayerError, TableError
from profiler.interval import Interval
from profiler.latency.calibration import Calibration
from profiler.latency.staircase import Staircases, read_staircases, staircases_data
from profiler.latency.validation import HeldOutError
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.measure.estimate import Estimate
from profiler.modelled.model import Model, model_of
from profiler.protocol.settings import Target, TimingSettings

FORMAT = 6
LARGEST_BLOCK = 256
METADATA_KEY = b"latency_table"
MOST_ROWS = 200_000
ROWS_AT_ONCE = 100
MOST_BYTES = 200_000_000
"""The limit of the unpacked rows. Twenty thousand layers take twelve million bytes."""


@dataclass(frozen=True, slots=True)
class TableInfo:
    """Everything in a table but its rows."""

    target: Target
    device: Mapping[str, Any]
    """The fingerprint: device facts, version and hash of the runtime and hash of the runner, as the runner reported them."""
    settings: TimingSettings
    created_utc: str
    calibration: Calibration = field(default_factory=Calibration)
    held_out: HeldOutError = field(default_factory=lambda: HeldOutError.of(()))
    failed: Mapping[str, str] = field(default_factory=dict)
    """Reasons why layers could not be measured, by layer key."""
    networks: tuple[str, ...] = ()
    """Names of the held-out networks that were planned, including those that could not be predicted or measured."""
    staircases: Staircases = field(default_factory=dict)
    """The device's steps in channels, as detected from sweeps."""
    block: int = 1
    """Channels in a block of the runtime's layout on the device; 1 if it has none there, or if it could not be asked."""
    unlike: tuple[str, ...] = ()
    """Names of measured networks for which our rules say something else than the runtime executes (profiler.layers.execution)."""
    asked: int = 0
    """The number of networks for which the rules were compared with what the runtime executes."""
    files: Mapping[str, Graph] = field(default_factory=dict)
    """What the runtime executes for model files of users, by the SHA-256 of the file in hexadecimal."""
    disturbances: Mapping[str, int] = field(default_factory=dict)
    """The number of all measurements, under `measurements`, and of the disturbed ones by cause."""
    progress: Sequence[Mapping[str, Any]] = ()
    """The estimated error after each batch of layers: wall_s, layers, error_percent, between_percent."""
    reference_drift_percent: float | None = None
    """Variation of the reference layer's latency during the build, 95th over 5th percentile; None with too few measurements."""
    measuring_s: float = 0.0
    """Total duration of all samples."""
    wall_s: float = 0.0
    """Duration of the build on the device and the host."""
    measured_utc: Mapping[str, str] = field(default_factory=dict)
    """The time of the oldest measurement of each row, by layer key; empty in tables of earlier versions."""
    validated_utc: str | None = None
    """The time of the oldest measurement of the whole networks for fit and check, which vouch for older rows, too."""

    @property
    def rules(self) -> ExecutionRules:
        """The rules by which the runtime's operators follow from a network."""
        return ExecutionRules(self.target.runtime, self.block)

    @property
    def imported(self) -> Mapping[str, Any] | None:
        """The source and the assumptions of an imported table (profiler.exchange); None for a table that was measured here."""
        imported = self.device.get("imported")
        return imported if isinstance(imported, Mapping) else None

    @property
    def modelled(self) -> Mapping[str, Any] | None:
        """The hardware, the engine and the assumptions of a table that was computed (profiler.modelled); None for any other."""
        modelled = self.device.get("modelled")
        return modelled if isinstance(modelled, Mapping) else None

    @property
    def model(self) -> Model | None:
        """What computes the layers of a modelled table; None for any other. `TableError` if it does so in another way by now."""
        return None if self.modelled is None else model_of(self.modelled)

    @property
    def age_days(self) -> float:
        """Days since the table was validated, or since it was made if that is not known."""
        return self.age_at(datetime.now(UTC))

    def age_at(self, now: datetime) -> float:
        """The age in days at the time `now`, which needs a time zone."""
        return (now - datetime.fromisoformat(self.validated_utc or self.created_utc)).total_seconds() / 86400


@dataclass(frozen=True, slots=True)
class Table:
    """Measured layers with all that is known of how they were measured. It predicts through a `Predictor`."""

    rows: Mapping[LayerSpec, Estimate]
    info: TableInfo
    energy_mj: Mapping[LayerSpec, float] = field(default_factory=dict)
    """Energy of one inference in millijoules, for the layers of which the device reports it."""

    @property
    def disturbed_percent(self) -> float:
        """The share of rows with too few undisturbed rounds."""
        return 100 * sum(row.disturbed for row in self.rows.values()) / len(self.rows) if self.rows else 0.0

    @property
    def verified(self) -> bool:
        """True if the table predicts networks that took no part in fitting, and was measured on a quiet device.

        A modelled one is verified if its hardware is one of this package that is checked against published figures.
        """
        if model := self.info.model:
            return model.vouched
        return self.info.held_out.verified and self.disturbed_percent <= DISTURBED_PERCENT

    def with_calibration(self, calibration: Calibration) -> Table:
        return replace(self, info=replace(self.info, calibration=calibration))

    def with_held_out(self, held_out: HeldOutError) -> Table:
        return replace(self, info=replace(self.info, held_out=held_out))

    def save(self, path: Path) -> None:
        """Write the file atomically: a reader sees the old table or the new one. `TableError` if it cannot be written."""
        rows = [_columns(layer, estimate, self.energy_mj.get(layer)) for layer, estimate in self.rows.items()]
        columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
        plain = _info_to_dict(self.info) | {"rows": len(rows), "rows_sha256": rows_sha256(rows)}
        table = pa.table(columns, schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps(plain).encode()}))
        with whole(path, TableError) as temporary:
            pq.write_table(table, temporary)


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
"""All columns in their order. `layer` is the whole LayerSpec as JSON; the columns that repeat parts of it are for people."""
ROW_COLUMNS = ("latency_ms", "latency_ms_low", "latency_ms_high", "rounds", "quiet_rounds", "samples", "energy_mj", "layer")
"""The columns that are read."""


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


def rows_sha256(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SHA-256, in hexadecimal, of the columns that are read, whatever the order of the rows."""
    each = sorted(json.dumps([row.get(name) for name in ROW_COLUMNS]) for row in rows)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def _estimate(row: Mapping[str, Any]) -> Estimate:
    counts = (read_value(int, row[name]) for name in ("rounds", "samples", "quiet_rounds"))
    return Estimate(Interval.from_dict(row, "latency_ms"), *counts)


def load_table(path: Path) -> Table:
    """Read a table. `TableError` in one sentence for anything that is not an undamaged table of this format version."""
    if not path.is_file():
        raise TableError(f"there is no table {path}; `profile build` makes one")
    try:
        raw, rows = _read_parquet(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
        first_line = (str(exc).splitlines() or [type(exc).__name__])[0]
        known = None if isinstance(exc, OSError) else stand_in(path)
        raise TableError(f"{path} is {known or f'not a latency table or is damaged: {first_line}'}") from exc
    if raw is None and rows and set(ROW_COLUMNS) <= rows[0].keys():
        raise TableError(
            f"{path} has the rows of a latency table, but what they were measured with and how far they can be trusted is gone: "
            "another program has saved it again; use the original, or build it again from its journal"
        )
    if raw is None:
        raise TableError(f"{path} is a Parquet file, but not a latency table")
    try:
        plain = read_json(raw)
        if plain["format"] != FORMAT:
            raise TableError(
                f"{path} has table format {plain['format']}, this version reads {FORMAT}; build it again from its journal"
            )
        # the held-out error and all else that is said of the whole table holds for exactly these rows
        if len(rows) != plain["rows"] or rows_sha256(rows) != plain["rows_sha256"]:
            changed = f"{len(rows)} rows in place of {plain['rows']}" if len(rows) != plain["rows"] else "other values in its rows"
            raise TableError(
                f"{path} is damaged: it has {changed}, so another program has changed it; use the original, or build it again from "
                "its journal"
            )
        layers = [LayerSpec.from_dict(read_json(row["layer"])) for row in rows]
        energy_mj = {layer: row["energy_mj"] for layer, row in zip(layers, rows, strict=True) if row.get("energy_mj")}
        estimates = {layer: _estimate(row) for layer, row in zip(layers, rows, strict=True)}
        info = _info_from_dict(plain)
        _ = info.model  # a table of another version of the engine is refused before its rows are used
        return Table(estimates, info, energy_mj)
    except (KeyError, TypeError, AttributeError, ValueError, LayerError) as exc:
        raise TableError(f"{path} is damaged: {exc}") from exc


def _read_parquet(path: Path) -> tuple[bytes | None, list[dict[str, Any]]]:
    """The JSON of the metadata, None if there is none, and the rows. `TableError` for larger tables than exist.

    A small file can hold the same long text millions of times, so the rows are unpacked in batches.
    """
    with pq.ParquetFile(path) as file:
        raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
        columns = [
            name for name in ROW_COLUMNS if name in file.schema_arrow.names
        ]  # tables of earlier versions have no column for energy
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
        "block": info.block,
        "unlike": list(info.unlike),
        "asked": info.asked,
        "files": {digest: replace(graph, opaques={}).to_dict() for digest, graph in info.files.items()},
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
FINGERPRINT: Mapping[str, Any] = {
    "device": FACTS, "flags": FACTS | None, "conditioning": FACTS | None, "imported": FACTS | None, "modelled": FACTS | None,
}  # fmt: skip
IMPORTED: Mapping[str, Any] = {"assumptions": Sequence[str], "skipped": Mapping[str, int]}
MODELLED: Mapping[str, Any] = {
    "hardware": str, "sha256": str, "engine": str, "engine_version": int, "text": str, "batch": int, "bits": int,
    "input_density": float, "weight_density": float, "output_density": float, "densities": FACTS,
}  # fmt: skip
"""Types of the entries that are read by name. Other entries are only shown and compared."""


def _info_from_dict(plain: Mapping[str, Any]) -> TableInfo:
    """The inverse of `_info_to_dict`. `KeyError`, `TypeError` or `ValueError` for a wrong type. Fields may be missing."""
    staircases = read_staircases(plain["staircases"])
    info = replace(
        read_as(TableInfo, {**plain, "staircases": {}, "files": {}, "held_out": HeldOutError.of(()).to_dict()}),
        files={digest: Graph.from_dict(graph) for digest, graph in plain["files"].items()},
        staircases=staircases,
        held_out=HeldOutError.from_dict(plain["held_out"]),
    )
    if not 1 <= info.block <= LARGEST_BLOCK:
        raise ValueError(f"a block of {info.block} channels is none that a runtime has")
    for utc in (info.created_utc, info.validated_utc):
        if utc is not None and datetime.fromisoformat(utc).tzinfo is None:
            raise ValueError(f"{utc!r} is no time with a zone")
    for facts, kinds in ((info.device, FINGERPRINT), (info.imported or {}, IMPORTED), (info.modelled or {}, MODELLED)):
        for name in kinds.keys() & facts.keys():
            read_value(kinds[name], facts[name])
    return info
