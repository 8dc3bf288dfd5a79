"""`profile compare`: what changed from one table to another."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profiler.cli.options import TableFile
from profiler.console import Json, plain_errors, print_json, print_table
from profiler.tables.compare import LEAST_MS, LEAST_PERCENT, Change, Comparison, Q, compare_files

MOST_CHANGES = 10
LEAST = f"changes from {LEAST_PERCENT:g} % and {1e3 * LEAST_MS:g} µs on"
TESTED = f"permutation test on the rounds, false discoveries below {100 * Q:g} %, {LEAST}"
UNTESTED = f"intervals that do not touch, {LEAST}; the journals with the rounds are not there"


def compare(before: TableFile, after: TableFile, as_json: Json = False) -> None:
    """List the layers that changed beyond noise from one table to another, and say by how much predictions changed."""
    with plain_errors():
        found = compare_files(before, after)
        if as_json:
            print_json(comparison_data(found))
        else:
            print_comparison(found)


def comparison_data(found: Comparison) -> dict[str, Any]:
    return {
        "sentence": found.sentence(),
        "test": TESTED if found.tested else UNTESTED,
        "same_device": not found.differing_conditions,
        "changed": len(found.changed),
        "median_ratio": found.median_ratio,
        "networks_percent": found.networks_percent,
        "networks": [asdict(network) | {"percent": network.percent} for network in found.networks],
        "shared": len(found.changes),
        "median_percent": found.median_percent,
        "beyond_intervals": sum(change.beyond_intervals for change in found.changes),
        "only_before": [layer.key for layer in found.only_before],
        "only_after": [layer.key for layer in found.only_after],
        "differing_conditions": list(found.differing_conditions),
        "changes": [change_data(change) for change in found.changes],
    }


def change_data(change: Change) -> dict[str, Any]:
    return {
        "key": change.layer.key,
        "before_ms": change.before.latency_ms.value,
        "after_ms": change.after.latency_ms.value,
        "percent": change.percent,
        "beyond_intervals": change.beyond_intervals,
        "q": change.q,
        "changed": change.changed,
    }


def print_comparison(found: Comparison) -> None:
    for line in found.differing_conditions:
        print(f"measured differently: {line}")
    if found.differing_conditions:
        print("so these are two devices, not one that has changed")
    changed = found.changed
    cells = [
        (
            change.layer.key,
            f"{change.before.latency_ms.value:.4f}",
            f"{change.after.latency_ms.value:.4f}",
            f"{change.percent:+.1f} %",
        )
        for change in changed[:MOST_CHANGES]
    ]
    if cells:
        print_table(("layer", "before ms", "after ms", "change"), cells, right=("before ms", "after ms", "change"))
    if len(changed) > MOST_CHANGES:
        print(f"and {len(changed) - MOST_CHANGES} more; --json has them all")
    print(f"{found.sentence()} ({TESTED if found.tested else UNTESTED})")
    median = "no layer in common" if found.median_percent is None else f"median difference {found.median_percent:.1f} %"
    beyond = sum(change.beyond_intervals for change in found.changes)
    print(f"{len(found.changes)} shared layers, {median}, {beyond} beyond their intervals")
    print(f"{len(found.only_before)} only in the first table, {len(found.only_after)} only in the second")
