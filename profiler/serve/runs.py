"""NetAdapt runs as they are shown: by what their files plainly say. The report is theirs, and is only passed on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.serve.finding import RUN, id_of, inside

REPORT, STEPS = "report.html", "steps.jsonl"
MOST_RUN_BYTES, MOST_REPORT_BYTES = 10_000_000, 100_000_000


@dataclass(frozen=True, slots=True)
class RunView:
    """A NetAdapt run, as its files say without being understood."""

    id: str
    name: str
    folder: str
    network: str | None
    budget: str | None
    begun_utc: str | None
    steps: int
    """The original among them."""
    report: bool
    report_is_old: bool
    """Written before the last step."""
    broken: str | None = None


def run_view(folder: Path, name: str) -> RunView:
    plain, broken = _about(folder)
    steps, report = _file(folder, STEPS), report_of(folder)
    return RunView(
        id_of(folder), name, str(folder), _text(plain.get("network")), _budgets(plain.get("budgets")),
        _text(plain.get("created_utc")), _lines(steps), report is not None, _written_s(report) < _written_s(steps), broken,
    )  # fmt: skip


def report_of(folder: Path) -> Path | None:
    """The report in a run's folder; None if there is none, or it is a link to somewhere else."""
    return _file(folder, REPORT, MOST_REPORT_BYTES)


def _about(folder: Path) -> tuple[dict[str, Any], str | None]:
    """What run.json says, or else what is wrong with it."""
    path = _file(folder, RUN, MOST_RUN_BYTES)
    try:
        plain = json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError, RecursionError) as exc:
        return {}, f"{folder / RUN} cannot be read: {exc}"
    if not isinstance(plain, dict) or "network" not in plain:
        return {}, f"{folder / RUN} is not that of a NetAdapt run"
    return plain, None


def _file(folder: Path, name: str, most_bytes: int = 1 << 40) -> Path | None:
    real = inside(folder / name, folder)
    return real if real is not None and real.is_file() and real.stat().st_size <= most_bytes else None


def _written_s(path: Path | None) -> float:
    """Seconds since 1970."""
    return path.stat().st_mtime if path is not None else 0.0


def _budgets(value: Any) -> str | None:
    return _text(", ".join(map(str, value))) if isinstance(value, list) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:200]


def _lines(path: Path | None) -> int:
    if path is None:
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
