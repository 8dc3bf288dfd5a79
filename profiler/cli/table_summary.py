"""What a table is, as the commands that make, show and check one print it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiler.latency.staircase import staircases_data
from profiler.latency.validation import NEAR_PERCENT
from profiler.tables.table import Table
from profiler.tables.trust import trust_sentence


def table_data(path: Path, table: Table) -> dict[str, Any]:
    info = table.info
    return {
        "table": str(path),
        "layers_measured": len(table.rows),
        "device": info.target.device,
        "runtime": info.target.runtime,
        "threads": info.target.threads,
        "fingerprint": dict(info.device),
        "created_utc": info.created_utc,
        "age_days": info.age_days,
        "networks": list(info.networks),
        "calibration": info.calibration.to_dict(),
        "held_out": info.held_out.to_dict(),
        "verified": table.verified,
        "staircases": staircases_data(info.staircases),
        "disturbed_percent": table.disturbed_percent,
        "disturbances": dict(info.disturbances),
        "progress": [dict(step) for step in info.progress],
        "failed": dict(info.failed),
        "measuring_s": info.measuring_s,
        "wall_s": info.wall_s,
    }


def print_summary(path: Path, table: Table) -> None:
    info, figures = table.info, table.info.held_out
    if info.model:
        print(f"{path}: {len(table.rows)} layers, modelled {info.created_utc} for {info.target.device}, not measured")
        print(f"  {trust_sentence(table)}")
        return
    if info.imported:
        _print_imported(path, table, info.imported)
    else:
        cpu = info.device.get("device", {}).get("cpu")
        runtime = f"{info.target.runtime} {info.device.get('version')}"
        print(f"{path}: {len(table.rows)} layers, {runtime}, threads {info.target.threads}")
        print(f"  {info.target.device}: {cpu}; measured {info.created_utc}, {info.age_days:.1f} days ago")
    print(f"  held-out error: {trust_sentence(table)}")
    if figures.bias_percent is not None:
        rank = "no rank correlation" if figures.spearman is None else f"Spearman {figures.spearman:.3f}"
        inside = f"{figures.coverage_percent:.0f} % inside their 95 % intervals"
        print(f"  bias {figures.bias_percent:+.1f} %, {rank}, {inside}")
    if figures.near_percent is not None:
        print(f"  layers inside held-out networks: {figures.near_percent:.0f} % of {figures.layers} within {NEAR_PERCENT:g} %")
    steps = [f"{kind} {axis} {rule.step}" for (kind, axis), rule in info.staircases.items() if rule.step > rule.granularity]
    if steps:
        print(f"  steps in channels: {', '.join(steps)}")


def _print_imported(path: Path, table: Table, imported: Mapping[str, Any]) -> None:
    runtime, threads = imported["runtime"] or "not told", imported["threads"] or "not told"
    print(f"{path}: {len(table.rows)} layers, imported {table.info.created_utc}; measured by others, nobody knows when")
    print(f"  {table.info.target.device}; runtime {runtime}, threads {threads}; {imported['statistic']}")
    print(f"  from {imported['source'] or imported['from']}, licence {imported['licence'] or 'not known'}")
    for item in imported["files"]:
        print(f"  {item['name']}: {item['size_bytes']} bytes, sha256 {item['sha256']}")
