"""NetAdapt runs and super-networks as they are shown: plain facts from the files in their folders, and the report as written.

The profiler does not import `netadapt`, which is built on it, so only simple fields of the files are read here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.serve.finding import RUN, SUPERNET, id_of, inside

REPORT, STEPS, TRAINED = "report.html", "steps.jsonl", "trained.json"
MAX_RUN_BYTES, MAX_REPORT_BYTES = 10_000_000, 100_000_000


@dataclass(frozen=True, slots=True)
class RunView:
    """A NetAdapt run as it is shown."""

    id: str
    name: str
    folder: str
    network: str | None
    budget: str | None
    begun_utc: str | None
    """ISO 8601 as the run recorded it."""
    steps: int
    """The number of recorded steps, the original network included."""
    report: bool
    """True if there is a report."""
    report_is_old: bool
    """True if the report was written before the last step."""
    broken: str | None = None
    """The reason why run.json cannot be read."""


@dataclass(frozen=True, slots=True)
class SupernetView:
    """A super-network as it is shown: not a result, but what candidates of a run are judged in."""

    name: str
    folder: str
    network: str | None
    begun_utc: str | None
    """ISO 8601 as it was recorded."""
    blocks: int
    """The number of blocks whose widths can be chosen."""
    trained: bool
    """True if its training has ended."""


def supernet_view(folder: Path, name: str) -> SupernetView:
    """Read the folder of a super-network. What is damaged in its description is left out."""
    path = _file(folder, SUPERNET, MAX_RUN_BYTES)
    try:
        plain = json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError, RecursionError):
        plain = None
    plain = plain if isinstance(plain, dict) else {}
    settings, widths = plain.get("settings"), plain.get("widths")
    network = settings.get("network") if isinstance(settings, dict) else None
    return SupernetView(
        name=name,
        folder=str(folder),
        network=_text(network.get("name")) if isinstance(network, dict) else None,
        begun_utc=_text(plain.get("created_utc")),
        blocks=len(widths) if isinstance(widths, dict) else 0,
        trained=_file(folder, TRAINED, MAX_RUN_BYTES) is not None,
    )


def run_view(folder: Path, name: str) -> RunView:
    """Read a run folder. A damaged run.json is not an error; the view has the reason."""
    plain: dict[str, Any] = {}
    broken = None
    path = _file(folder, RUN, MAX_RUN_BYTES)
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError, RecursionError) as exc:
        broken = f"{folder / RUN} cannot be read: {exc}"
    else:
        if isinstance(read, dict) and "network" in read:
            plain = read
        else:
            broken = f"{folder / RUN} is not the run.json of a NetAdapt run"
    budgets = plain.get("budgets")
    steps = _file(folder, STEPS)
    report = report_of(folder)
    return RunView(
        id=id_of(folder),
        name=name,
        folder=str(folder),
        network=_text(plain.get("network")),
        budget=_text(", ".join(map(str, budgets))) if isinstance(budgets, list) else None,
        begun_utc=_text(plain.get("created_utc")),
        steps=_count_lines(steps),
        report=report is not None,
        report_is_old=report is not None and steps is not None and report.stat().st_mtime < steps.stat().st_mtime,
        broken=broken,
    )


def report_of(folder: Path) -> Path | None:
    """Return the report in a run folder; None if there is none, it is too large, or it is a link out of the folder."""
    return _file(folder, REPORT, MAX_REPORT_BYTES)


def _file(folder: Path, name: str, max_bytes: int = 1 << 40) -> Path | None:
    """Return the resolved path of a file in a folder; None if it is missing, too large, or no regular file of this folder."""
    real = inside(folder / name, folder)
    return real if real is not None and real.is_file() and real.stat().st_size <= max_bytes else None


def _text(value: Any) -> str | None:
    """Return a value of run.json as text of limited length: it may be anything that JSON can hold."""
    return None if value is None else str(value)[:200]


def _count_lines(path: Path | None) -> int:
    if path is None:
        return 0
    # Only the number of steps is shown, so the lines are not parsed.
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
