"""Maintenance of one table: check it, measure beside it what is stale, and replace it only by a table that passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

from profiler.errors import JournalError, JournalNotWritable, TableError
from profiler.layers.layer import LayerSpec
from profiler.measure.disturbance import LIMIT_PERCENT as DISTURBED_PERCENT
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.schedule import replacement
from profiler.schedule.config import ScheduledTable
from profiler.schedule.spot_check import lacking, spot_check
from profiler.schedule.staleness import FreshnessFacts, RefreshScope, audit_failed, choose_scope, staleness_reasons
from profiler.tables.build import build
from profiler.tables.compare import compare_files
from profiler.tables.plan import Plan, read_plan
from profiler.tables.table import load_table
from profiler.tables.trust import trust_sentence


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of maintaining a table once."""

    did: str
    """fresh, refreshed, rebuilt or failed."""
    sentence: str
    """The outcome as a sentence for the user."""
    stale: tuple[str, ...] = ()
    """The reasons why the table was stale or, after a failure, still is."""
    changed: int | None = None
    """The number of layers that changed beyond noise; None if there was no earlier table to compare with."""


def read_plans(table: ScheduledTable) -> list[Plan]:
    """Read the plans of a table. Raises `PlanError` or `ModelError` if a file cannot be used."""
    return [read_plan(path) for path in table.plans]


def gather_facts(
    table: ScheduledTable, plans: Sequence[Plan], now: datetime, progress: ProgressReporter | None = None
) -> FreshnessFacts:
    """Gather the facts that decide whether a table is fresh.

    The device is only measured if `progress` is given, and only if the table is not already stale as a whole. Raises `DeviceError`
    if it cannot be reached or is busy.
    """
    try:
        loaded = load_table(table.out)
    except TableError as exc:
        return FreshnessFacts(unusable=str(exc) if table.out.exists() else "no table yet")

    before = loaded.info.target
    changed = [name for name in ("device", "runtime", "threads") if getattr(before, name) != getattr(table.target, name)]
    # A device without an energy counter cannot give what is asked for, and measuring again would not change that.
    if table.energy and not loaded.energy_mj and loaded.info.device.get("energy_source"):
        changed.append("energy")
    if loaded.info.settings != table.settings:
        changed.append("rounds")
    facts = FreshnessFacts(
        age_days=loaded.info.age_at(now),
        max_age_days=table.max_age_days,
        changed_settings=tuple(changed),
        missing_layers=lacking(loaded, plans),
    )
    if progress is None or any(reason.whole for reason in staleness_reasons(facts)):
        return facts
    # The spot check comes last, because it takes ten seconds of the device's time.
    seen = spot_check(loaded, plans[0], table.target, progress=progress, wait_s=PATIENCE_S)
    return replace(facts, device_changes=seen.differences, spot_check=seen.items)


def maintain(table: ScheduledTable, now: datetime, progress: ProgressReporter, draws: Random) -> Outcome:
    """Make a table fresh if it is stale. An interrupted build is resumed by the next call.

    Raises `DeviceError`, `PlanError` or `TableError` if the device, a plan or the disk fails; the table in force is then unchanged.
    """
    # Until a promotion that was cut short is finished, the journal in place belongs to the new table and not to the old one.
    replacement.finish_promotion(table.out)
    plans = read_plans(table)
    table.out.parent.mkdir(parents=True, exist_ok=True)
    if replacement.unfinished_journal(table.out) is not None:
        outcome = _resume(table, plans, now, progress)
        if outcome is not None:
            return outcome

    facts = gather_facts(table, plans, now, progress)
    found = staleness_reasons(facts)
    if not found:
        return Outcome("fresh", f"{table.name} is fresh: {trust_sentence(load_table(table.out))}")
    for reason in found:
        progress.say(f"{table.name}: {reason.text}")
    reasons = tuple(reason.text for reason in found)

    # A refresh measures only what is needed; a rebuild is the fallback for whatever prevents a refresh.
    scope = RefreshScope(whole=True)
    if facts.unusable is None:
        scope = choose_scope(load_table(table.out), facts, found, draws)
    if not scope.whole:
        try:
            replacement.begin_refresh(table.out, scope.layers)
        except JournalNotWritable:
            raise  # the journal itself is fine, and the next call may be able to write it
        except JournalError as exc:
            progress.say(f"{table.name} cannot be refreshed in part, so all layers are measured again: {exc}")
            scope = RefreshScope(whole=True)
    if not scope.whole:
        _build(table, plans, scope.layers, progress)
        changed = [change.layer for change in compare_files(table.out, replacement.new_path(table.out)).changed]
        if not audit_failed(scope, changed):
            return _accept(table, "refreshed", reasons, now)
        progress.say(f"{table.name}: layers drawn at random have changed too, so all layers are measured again")
        replacement.set_aside(table.out, table.keep, now)
    _build(table, plans, (), progress)
    return _accept(table, "rebuilt", reasons, now)


def _resume(table: ScheduledTable, plans: Sequence[Plan], now: datetime, progress: ProgressReporter) -> Outcome | None:
    """Finish an interrupted build; None if that is impossible because the device or the settings have changed since."""
    progress.say(f"{table.name}: resuming the interrupted build")
    try:
        layers = replacement.layers_being_refreshed(table.out)
        _build(table, plans, layers or (), progress)
    except JournalNotWritable:
        raise  # the journal itself is fine, and the next call may be able to write it
    except JournalError as exc:
        progress.say(f"{table.name}: the interrupted build cannot be resumed: {exc}")
        replacement.set_aside(table.out, table.keep, now)
        return None
    return _accept(table, "rebuilt" if layers is None else "refreshed", ("its last build was interrupted",), now)


def _build(table: ScheduledTable, plans: Sequence[Plan], again: Sequence[LayerSpec], progress: ProgressReporter) -> None:
    """Build beside the table in force. What an interrupted build has recorded there is not measured again."""
    build(
        plans,
        table.target,
        replacement.new_path(table.out),
        settings=table.settings,
        stop=table.stop,
        resume=True,
        progress=progress,
        wait_s=PATIENCE_S,
        again=again,
        energy=table.energy,
    )


def _accept(table: ScheduledTable, did: str, reasons: tuple[str, ...], now: datetime) -> Outcome:
    """Put the new table in force if it passes; otherwise keep the old one, and the new one as failed in the history."""
    new = load_table(replacement.new_path(table.out))
    error_percent = new.info.held_out.mean_error_percent
    limit_percent = table.max_held_out_error_percent
    fault = None
    if error_percent is None:
        fault = "no whole network could be measured to check it"
    elif error_percent > limit_percent:
        fault = f"its mean error on held-out networks is {error_percent:.1f} %, above the limit of {limit_percent:g} %"
    elif new.disturbed_percent > DISTURBED_PERCENT:
        fault = f"the device was disturbed while {new.disturbed_percent:.0f} % of its layers were measured"
    if fault is not None:
        replacement.set_aside(table.out, table.keep, now)
        kept = "the last good table stays in force" if table.out.exists() else "no table is in force"
        return Outcome("failed", f"{table.name} was {did}, but {fault}; {kept}", reasons)

    # compared now, because the promotion moves both files
    try:
        comparison = compare_files(table.out, replacement.new_path(table.out))
    except (TableError, JournalError):
        changed, compared = None, "there is no earlier table to compare it with"
    else:
        changed, compared = len(comparison.changed), comparison.sentence()
    replacement.promote(table.out, table.keep, now)
    return Outcome(did, f"{table.name} was {did} ({'; '.join(reasons)}): {trust_sentence(new)}; {compared}", reasons, changed)
