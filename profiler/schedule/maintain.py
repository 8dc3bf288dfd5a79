"""Keeping one table fresh: look at it, measure again what is needed beside it, and put that in force only if it closes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from random import Random

from profiler.errors import JournalError, JournalNotWritable, TableError
from profiler.layers.fusion import fuse_for
from profiler.layers.layer import LayerSpec
from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.schedule import replacement as refresh
from profiler.schedule.config import WantedTable
from profiler.schedule.spot_check import lacking, spot_check
from profiler.schedule.staleness import Facts, Needed, Reason, audit_failed, needed, reasons
from profiler.tables.build import build
from profiler.tables.compare import compare_files
from profiler.tables.plan import Plan, read_plan
from profiler.tables.table import LatencyTable, load_table


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found and done."""

    did: str
    """fresh, refreshed, rebuilt or failed."""
    sentence: str
    stale: tuple[str, ...] = ()
    """Why it was stale, or, if it failed, why it still is."""
    changed: int | None = None
    """Layers that changed beyond noise; None where there was nothing to compare with."""


def plans_of(wanted: WantedTable) -> list[Plan]:
    return [read_plan(path) for path in wanted.plans]


def look(wanted: WantedTable, plans: Sequence[Plan], now: datetime, progress: ProgressReporter | None = None) -> Facts:
    """What is known of a table; with progress, what its device says too. Errors of the device's if it cannot be asked."""
    try:
        table = load_table(wanted.out)
    except TableError as exc:
        return Facts(unusable="there is none" if not wanted.out.exists() else str(exc))
    executed = [replace(plan, graph=fuse_for(plan.graph, wanted.target.runtime)) for plan in plans]
    facts = Facts(None, table.info.age_at(now), wanted.max_age_days, _asked_otherwise(table, wanted), (), lacking(table, executed))
    if progress is None or any(reason.whole for reason in reasons(facts)):
        return facts
    seen = spot_check(table, executed[0], wanted.target, progress=progress, wait_s=PATIENCE_S)
    return replace(facts, fingerprint=seen.differences, items=seen.items)


def _asked_otherwise(table: LatencyTable, wanted: WantedTable) -> tuple[str, ...]:
    before, after = table.info.target, wanted.target
    words = [word for word in ("device", "runtime", "threads") if getattr(before, word) != getattr(after, word)]
    if wanted.energy and not table.energy_mj and table.info.device.get("energy_source"):
        words.append("energy")
    return tuple(words + (["rounds"] if table.info.settings != wanted.settings else []))


def tend(wanted: WantedTable, now: datetime, progress: ProgressReporter, draws: Random) -> Outcome:
    """Make the table fresh if it is not. What is interrupted is gone on with the next time.

    Errors of the device's, the plan's or the disk's; the table in force is then as it was.
    """
    refresh.finish_promotion(wanted.out)
    plans = plans_of(wanted)
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    if refresh.unfinished(wanted.out) is not None:
        progress.say(f"{wanted.name}: going on with what was interrupted")
        if (outcome := _resumed(wanted, plans, now, progress)) is not None:
            return outcome
    facts = look(wanted, plans, now, progress)
    why = reasons(facts)
    if not why:
        return Outcome("fresh", f"{wanted.name} is fresh: {load_table(wanted.out).sentence()}")
    for reason in why:
        progress.say(f"{wanted.name}: {reason.text}")
    return _made_fresh(wanted, plans, facts, why, now, progress, draws)


def _made_fresh(
    wanted: WantedTable,
    plans: Sequence[Plan],
    facts: Facts,
    why: Sequence[Reason],
    now: datetime,
    progress: ProgressReporter,
    draws: Random,
) -> Outcome:
    said = tuple(reason.text for reason in why)
    wants = Needed(True) if facts.unusable is not None else needed(load_table(wanted.out), facts, why, draws)
    if not wants.whole:
        try:
            refresh.begin_refresh(wanted.out, wants.layers)
        except JournalNotWritable:
            raise
        except JournalError as exc:
            progress.say(f"{wanted.name}: it cannot be refreshed in part: {exc}")
            wants = Needed(True)
    if not wants.whole:
        _build(wanted, plans, wants.layers, progress)
        changed = [change.layer for change in compare_files(wanted.out, refresh.new_path(wanted.out)).changed]
        if not audit_failed(wants, changed):
            return _judged(wanted, "refreshed", said, now)
        progress.say(f"{wanted.name}: layers that nothing was known against have changed too; all are measured again")
        refresh.set_aside(wanted.out, wanted.keep, now)
    _build(wanted, plans, (), progress)
    return _judged(wanted, "rebuilt", said, now)


def _resumed(wanted: WantedTable, plans: Sequence[Plan], now: datetime, progress: ProgressReporter) -> Outcome | None:
    """None if what was interrupted cannot be gone on with: the device or what is asked for has changed."""
    try:
        layers = refresh.refreshing(wanted.out)
        _build(wanted, plans, layers or (), progress)
    except JournalNotWritable:
        raise  # there will be room again, and then what is in it is gone on with
    except JournalError as exc:
        progress.say(f"{wanted.name}: it cannot be gone on with: {exc}")
        refresh.set_aside(wanted.out, wanted.keep, now)
        return None
    return _judged(wanted, "rebuilt" if layers is None else "refreshed", ("its building was interrupted",), now)


def _build(wanted: WantedTable, plans: Sequence[Plan], again: Sequence[LayerSpec], progress: ProgressReporter) -> LatencyTable:
    """Beside the table in force; what a journal there holds already is not measured again."""
    out = refresh.new_path(wanted.out)
    return build(
        plans, wanted.target, out, settings=wanted.settings, stop=wanted.stop, resume=True, progress=progress,
        wait_s=PATIENCE_S, again=again, energy=wanted.energy,
    )  # fmt: skip


def _judged(wanted: WantedTable, did: str, why: tuple[str, ...], now: datetime) -> Outcome:
    """In force if it passes; else the old one stays."""
    table = load_table(refresh.new_path(wanted.out))
    if (fault := shortcoming(table, wanted.held_out_percent)) is not None:
        refresh.set_aside(wanted.out, wanted.keep, now)
        stays = "the last good one stays in force" if wanted.out.exists() else "there is none in force"
        return Outcome("failed", f"{wanted.name} was {did}, but {fault}: {stays}", why)
    changed, said = _compared(wanted.out)
    refresh.promote(wanted.out, wanted.keep, now)
    return Outcome(did, f"{wanted.name} was {did} ({'; '.join(why)}): {table.sentence()}; {said}", why, changed)


def _compared(out: Path) -> tuple[int | None, str]:
    """How many layers changed, and what is said of it."""
    try:
        comparison = compare_files(out, refresh.new_path(out))
    except (TableError, JournalError):
        return None, "there was none to compare it with"
    return len(comparison.changed), comparison.sentence()


def shortcoming(table: LatencyTable, limit_percent: float) -> str | None:
    """Why a new table must not be put in force."""
    error = table.info.held_out.mean_error_percent
    if error is None:
        return "no whole network could be measured to check it"
    if error > limit_percent:
        return f"it misses whole networks by {error:.1f} % on average, the limit is {limit_percent:g} %"
    if table.disturbed_percent > DISTURBED_PERCENT:
        return f"the device was disturbed while {table.disturbed_percent:.0f} % of its layers were measured"
    return None
