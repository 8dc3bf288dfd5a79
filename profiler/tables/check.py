"""What to distrust in a table, and what to do about each: findings are data first, sentences second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from profiler.console import age_text
from profiler.finding import Finding
from profiler.latency.validation import LIMIT_PERCENT
from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.tables.table import Table

WIDE_PERCENT = 5.0
OLD_DAYS = 30.0
DRIFT_PERCENT = 15.0


def check_table(table: Table) -> list[Finding]:
    """All findings, worst first; an empty list means nothing to distrust was found."""
    order = {"problem": 0, "warning": 1, "note": 2}
    return sorted(_findings(table), key=lambda finding: order[finding.severity])


def _findings(table: Table) -> Iterator[Finding]:
    info = table.info
    if info.imported:
        yield from _about_import(table, info.imported)
    elif info.held_out.networks == 0:
        yield Finding(
            "problem", "no whole network was measured to check the sum of layers", "build it from a plan or from a whole model"
        )
    elif not info.held_out.verified:
        yield Finding(
            "problem",
            f"it misses whole networks by {info.held_out.mean_error_percent:.1f} % on average, the limit is {LIMIT_PERCENT:g} %",
            "build it again on a quieter machine, or from a plan with more widths",
        )
    if table.disturbed_percent > 0:
        measurements = max(1, info.disturbances.get("measurements", 0))
        seen = ", ".join(
            f"{name} {100 * count / measurements:.0f} %" for name, count in info.disturbances.items() if name != "measurements"
        )
        yield Finding(
            "problem" if table.disturbed_percent > DISTURBED_PERCENT else "warning",
            f"{table.disturbed_percent:.0f} % of the layers had hardly an undisturbed round (measurements disturbed by: {seen})",
            f"`profile doctor {info.target.device}` says what disturbs it; then build again",
        )
    if info.held_out.coverage_percent is not None and info.held_out.networks >= 5 and info.held_out.coverage_percent < 80:
        yield Finding(
            "warning",
            f"only {info.held_out.coverage_percent:.0f} % of held-out networks fall into their stated 95 % interval",
            "take its intervals as too narrow",
        )
    unpredicted = len(info.networks) - info.held_out.networks
    if unpredicted > 0:
        yield Finding(
            "warning",
            f"{unpredicted} of {len(info.networks)} held-out networks have layers that are not in the table, or could not be run",
            "plan more widths, or see which layers failed",
        )
    for key, reason in info.failed.items():
        yield Finding("warning", f"{key} could not be measured: {reason}", "networks with this layer cannot be predicted")
    wide = [
        layer
        for layer, value in table.rows.items()
        if value.latency_ms.half_width > max(0.001, WIDE_PERCENT / 100 * value.latency_ms.value)
    ]
    if wide:
        yield Finding(
            "warning",
            f"{len(wide)} of {len(table.rows)} layers are uncertain by more than {WIDE_PERCENT:g} % (first: {wide[0].key})",
            "mind the intervals" if info.imported else "stop what else runs on the device and build again",
        )
    if info.reference_drift_percent is not None and info.reference_drift_percent > DRIFT_PERCENT:
        yield Finding(
            "note",
            f"the device changed its speed by up to {info.reference_drift_percent:.0f} % during the build",
            "rounds that were slow are not used, but a quiet device measures faster and better",
        )
    if info.device.get("device", {}).get("governor") == "not readable":
        yield Finding("note", "the clock governor could not be read", "fix the clock on the device if you can")
    if info.age_days > OLD_DAYS and not info.imported:
        yield Finding("warning", f"it is {age_text(info.age_days)} old", "build it again")


def _about_import(table: Table, imported: Mapping[str, Any]) -> Iterator[Finding]:
    """Of a table that others have measured."""
    yield Finding(
        "problem",
        f"it was imported from {imported.get('from')}: nobody here measured it, and no whole network checks it",
        "build a table on a device of yours, or compare its predictions with networks whose latency there is known",
    )
    if not imported.get("licence"):
        yield Finding(
            "warning", "its licence is not known", "ask whoever published it before you pass it on, and import it with --licence"
        )
    untold = [name for name in ("runtime", "threads") if not imported.get(name)]
    if untold:
        yield Finding(
            "warning", f"it does not say its {' and '.join(untold)}", f"import it with --{' and --'.join(untold)} if you know"
        )
    vague = sum(not value.latency_ms.known for value in table.rows.values())
    if vague:
        yield Finding("warning", f"{vague} of {len(table.rows)} layers came without an interval", "predictions with them have none")
    for assumption in imported.get("assumptions", ()):
        yield Finding("note", f"taken for granted: {assumption}", "import it again if that is wrong")
    for reason, many in imported.get("skipped", {}).items():
        yield Finding("note", f"left out: {many} {reason}", "networks with such layers cannot be predicted")
