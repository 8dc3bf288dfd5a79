"""A folder to show with `profile serve`: a table and its journal, made on a simulated device, and a run with a report."""

from __future__ import annotations

import json
from pathlib import Path

from graphs import mobilenet_v1

from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import StopCriterion, build
from profiler.tables.plan import make_plan

SCRIPT = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n[latency]\nbase_us = 20\nus_per_kilobyte = 20\nnoise_percent = 1\n'
NETWORK = mobilenet_v1(0.25, 32, classes=10, pairs=2)
REPORT = '<!DOCTYPE html><html lang="en"><title>report</title><style>h1 { color: #222 }</style><h1>What the run brought</h1></html>'


SETTINGS = TimingSettings(rounds=4, max_rounds=4, network_rounds=8, min_round_s=0.0)


def make_dashboard_folder(folder: Path) -> Path:
    """Fill `folder` with table.parquet, table.journal.jsonl and run/, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.toml").write_text(SCRIPT)
    target = Target(f"fake:{folder}/script.toml", "litert")
    build([make_plan(NETWORK)], target, folder / "table.parquet", settings=SETTINGS, stop=StopCriterion(max_layers=1))
    make_run(folder / "run")
    return folder


def make_run(folder: Path, report: str | None = REPORT) -> None:
    folder.mkdir()
    plain = {"format": 7, "network": "mobilenet_v1", "budgets": ["latency=60%"], "created_utc": "2026-01-03T10:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(plain))
    (folder / "steps.jsonl").write_text("{}\n{}\n{}\n")
    if report is not None:
        (folder / "report.html").write_text(report)


def journal_lines(folder: Path) -> list[str]:
    """Return the lines of the journal of the table, with their line ends."""
    return journal_path(folder / "table.parquet").read_text().splitlines(keepends=True)


def round_ends(lines: list[str]) -> list[int]:
    """Return, for each round, the number of lines once the next round has begun."""
    return [number + 1 for number, line in enumerate(lines) if json.loads(line)["event"] == "round"][1:]
