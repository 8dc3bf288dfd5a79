"""Findings about a table that limit how far it can be trusted, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from profiler.console import age_text
from profiler.finding import Finding
from profiler.latency.validation import LIMIT_PERCENT, NEAR_PERCENT
from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.tables.table import Table
from profiler.tables.trust import trust_sentence

WIDE_PERCENT = 5.0
"""A layer with a wider interval than this to either side is uncertain, unless it is narrower than `WIDE_MS`."""
WIDE_MS = 0.001
OLD_DAYS = 30.0
DRIFT_PERCENT = 15.0
COVERAGE_PERCENT = 80.0
"""With fewer held-out networks inside their 95 % intervals, the intervals are too narrow."""
NEAR_LAYERS_PERCENT = 90.0
"""With fewer layers that are near their latency inside a network, single layers are not to be trusted."""
MOST_NAMED = 3
ENOUGH_NETWORKS = 5
"""With fewer held-out networks, nothing is said about the intervals."""


def check_table(table: Table) -> list[Finding]:
    """All findings, the most severe first; an empty list means that nothing to doubt was found."""
    order = {"problem": 0, "warning": 1, "note": 2}
    found = [finding for check in CHECKS for finding in check(table)]
    return sorted(found, key=lambda finding: order[finding.severity])


def _imported(table: Table) -> Iterator[Finding]:
    imported = table.info.imported
    if not imported:
        return
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
    vague = sum(not estimate.latency_ms.known for estimate in table.rows.values())
    if vague:
        yield Finding("warning", f"{vague} of {len(table.rows)} layers came without an interval", "predictions with them have none")
    for assumption in imported.get("assumptions", ()):
        yield Finding("note", f"taken for granted: {assumption}", "import it again if that is wrong")
    for reason, many in imported.get("skipped", {}).items():
        yield Finding("note", f"left out: {many} {reason}", "networks with such layers cannot be predicted")


def _modelled(table: Table) -> Iterator[Finding]:
    model = table.info.model
    if model is None:
        return
    if model.vouched:
        yield Finding("note", f"it is {trust_sentence(table)}", "`profile hardware` prints the figures")
    else:
        yield Finding(
            "problem",
            f"it is modelled, not measured, and no published energy vouches for the model: {model.sentence()}",
            "compare networks with each other by it, and do not rely on its digits",
        )
    for note in model.hardware.notes:
        yield Finding(
            "note", f"taken for granted: {note}", "`profile hardware` prints the description; one of your own may say otherwise"
        )


def _held_out_error(table: Table) -> Iterator[Finding]:
    held_out = table.info.held_out
    if table.info.imported or table.info.modelled:  # then `_imported` or `_modelled` says that no network checks it
        return
    if held_out.networks == 0:
        yield Finding(
            "problem", "no whole network was measured to check the sum of layers", "build it from a plan or from a whole model"
        )
    elif not held_out.verified:
        yield Finding(
            "problem",
            f"it misses whole networks by {held_out.mean_error_percent:.1f} % on average, the limit is {LIMIT_PERCENT:g} %",
            "build it again on a quieter machine, or from a plan with more widths",
        )


def _disturbed_layers(table: Table) -> Iterator[Finding]:
    if table.disturbed_percent > 0:
        counts = dict(table.info.disturbances)
        measurements = max(1, counts.pop("measurements", 0))
        seen = ", ".join(f"{name} {100 * count / measurements:.0f} %" for name, count in counts.items())
        yield Finding(
            "problem" if table.disturbed_percent > DISTURBED_PERCENT else "warning",
            f"{table.disturbed_percent:.0f} % of the layers had hardly an undisturbed round (measurements disturbed by: {seen})",
            f"`profile doctor {table.info.target.device}` says what disturbs it; then build again",
        )


def _coverage(table: Table) -> Iterator[Finding]:
    networks, percent = table.info.held_out.networks, table.info.held_out.coverage_percent
    if percent is not None and networks >= ENOUGH_NETWORKS and percent < COVERAGE_PERCENT:
        yield Finding(
            "warning",
            f"only {percent:.0f} % of held-out networks fall into their stated 95 % interval",
            "take its intervals as too narrow",
        )


def _layers_inside(table: Table) -> Iterator[Finding]:
    """Layers are first blamed where they are most wrong in milliseconds: that is what a network notices."""
    held_out = table.info.held_out
    far = [layer for network in held_out.checked for layer in network.layers if abs(layer.error_percent) > NEAR_PERCENT]
    if held_out.near_percent is None or not far:
        return
    far.sort(key=lambda layer: -abs(layer.predicted_ms - layer.inside_ms))
    worst = {layer.key: f"{layer.key} ({layer.error_percent:+.0f} % of {layer.inside_ms:.3g} ms)" for layer in reversed(far)}
    named = list(worst.values())[::-1][:MOST_NAMED]
    yield Finding(
        "warning" if held_out.near_percent < NEAR_LAYERS_PERCENT else "note",
        f"{len(far)} of {held_out.layers} layers are predicted more than {NEAR_PERCENT:g} % off their latency inside a held-out "
        f"network; most: {', '.join(named)}",
        "trust the sum of a network more than the shares of these layers; `profile plot` draws them all",
    )


def _missing_networks(table: Table) -> Iterator[Finding]:
    networks = len(table.info.networks)
    missing = networks - table.info.held_out.networks
    if missing > 0:
        yield Finding(
            "warning",
            f"{missing} of {networks} held-out networks have layers that are not in the table, or could not be run",
            "plan more widths, or see which layers failed",
        )


def _wrong_rules(table: Table) -> Iterator[Finding]:
    unlike, asked = table.info.unlike, table.info.asked
    if unlike:
        yield Finding(
            "problem" if len(unlike) > asked / 2 else "warning",
            f"our rules for {table.info.target.runtime} are wrong for {len(unlike)} of {asked} measured networks "
            f"(first: {unlike[0]}): the runtime executes other layers",
            "mind the held-out error, which is that of the rules; `profile layers` with --device prints what is executed",
        )


def _failed_layers(table: Table) -> Iterator[Finding]:
    for key, reason in table.info.failed.items():
        yield Finding("warning", f"{key} could not be measured: {reason}", "networks with this layer cannot be predicted")


def _uncertain_layers(table: Table) -> Iterator[Finding]:
    intervals = {layer: estimate.latency_ms for layer, estimate in table.rows.items()}
    wide = [layer for layer, ms in intervals.items() if ms.half_width > max(WIDE_MS, WIDE_PERCENT / 100 * ms.value)]
    if wide:
        yield Finding(
            "warning",
            f"{len(wide)} of {len(table.rows)} layers are uncertain by more than {WIDE_PERCENT:g} % (first: {wide[0].key})",
            "mind the intervals" if table.info.imported else "stop what else runs on the device and build again",
        )


def _speed(table: Table) -> Iterator[Finding]:
    drift_percent = table.info.reference_drift_percent
    if drift_percent is not None and drift_percent > DRIFT_PERCENT:
        yield Finding(
            "note",
            f"the device changed its speed by up to {drift_percent:.0f} % during the build",
            "rounds that were slow are not used, but a quiet device measures faster and better",
        )
    if table.info.device.get("device", {}).get("governor") == "not readable":
        yield Finding("note", "the clock governor could not be read", "fix the clock on the device if you can")


def _age(table: Table) -> Iterator[Finding]:
    age_days = table.info.age_days
    if age_days > OLD_DAYS and not table.info.imported and not table.info.modelled:
        yield Finding("warning", f"it is {age_text(age_days)} old", "build it again")


CHECKS: Sequence[Callable[[Table], Iterator[Finding]]] = (
    _imported, _modelled, _held_out_error, _disturbed_layers, _coverage, _layers_inside, _missing_networks, _wrong_rules,
    _failed_layers, _uncertain_layers, _speed, _age,
)  # fmt: skip
"""All checks of a table, in the order of their findings."""
