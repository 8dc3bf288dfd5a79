"""`profile schedule`: keeps the tables in profile.toml fresh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from device_agents.support.errors import ToolError
from profiler.console import Json, plain_errors, print_json, print_table, terminable
from profiler.progress import ProgressReporter, bar, bars
from profiler.schedule import install as installing
from profiler.schedule import replacement
from profiler.schedule.config import ScheduleConfig, ScheduledTable, read_schedule
from profiler.schedule.maintain import gather_facts, read_plans
from profiler.schedule.running import Maintainer, exclusive_lock, next_check
from profiler.schedule.staleness import staleness_reasons
from profiler.schedule.state import read_state, write_state
from profiler.tables.table import load_table

app = typer.Typer(help="Keep the tables in profile.toml fresh.", no_args_is_help=True)

KEPT = "all measurements are kept, and the next run resumes from them"


@app.command()
def run() -> None:
    """Stay in the foreground and check each table when it is due. Ctrl-C or SIGTERM end it; no measurement is lost."""
    with plain_errors(KEPT):
        schedule = read_schedule()
        with exclusive_lock(schedule.path), terminable():
            print(f"{schedule.path}: tables: {len(schedule.tables)}; next check: {_next(schedule)}", flush=True)
            try:
                Maintainer(say=lambda text: print(text, flush=True)).forever(read_schedule, _progress)
            except KeyboardInterrupt:
                print(f"ended; {KEPT}")


@app.command()
def once(
    now: Annotated[bool, typer.Option("--now", help="Check every table, whether it is due or not.")] = False,
    as_json: Json = False,
) -> None:
    """Check the tables that are due and exit: for cron and systemd. The exit code is 1 if a table could not be made fresh."""
    with plain_errors(KEPT):
        schedule = read_schedule()
        with exclusive_lock(schedule.path), terminable():
            maintainer = Maintainer(say=(lambda text: None) if as_json else print)
            due = maintainer.due(schedule, at_once=now)
            with _progress(list(dict.fromkeys(table.target.device for table in due))) as progress:
                found = maintainer.once(schedule, progress, at_once=now)
        plain = [{"table": name, "did": outcome.did, "sentence": outcome.sentence} for name, outcome in found.items()]
        if as_json:
            print_json(plain)
        elif not found:
            print(f"no table is due; next check: {_next(schedule)}")
            if failed := [table.name for table in schedule.tables if read_state(table.out).did == "failed"]:
                print(f"{', '.join(failed)} failed at the last check; fix the cause, then run `profile schedule once --now`")
        if any(outcome.did == "failed" for outcome in found.values()):
            raise typer.Exit(1)


@app.command()
def status(
    check: Annotated[bool, typer.Option("--check", help="Spot-check the devices too: about ten seconds for each table.")] = False,
    as_json: Json = False,
) -> None:
    """Show the age, held-out error, reasons for staleness and next check of each table."""
    with plain_errors():
        schedule = read_schedule()
        with _progress([table.name for table in schedule.tables] if check else []) as progress:
            found = [_status(table, progress.get(table.name)) for table in schedule.tables]
        if as_json:
            print_json(found)
        else:
            _print_status(found)


@app.command()
def install(
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Install a unit and a timer for the user's systemd (default).")
    ] = False,
    cron: Annotated[bool, typer.Option("--cron", help="Install a line in the user's crontab.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Install a timer that starts `profile schedule once` every 15 minutes. Shows what it writes and asks first."""
    with plain_errors():
        if systemd and cron:
            raise ToolError("--systemd and --cron together would do everything twice; choose one")
        path = read_schedule().path
        units, line = ((), installing.cron_line(path)) if cron else (installing.systemd_units(path), "")
        for unit in units:
            print(f"{unit.path}:\n{unit.text}")
        if cron:
            print(f"crontab:\n{installing.MARK}\n{line}\n")
        if not yes and not typer.confirm("write this?"):
            print("nothing was written")
            return
        if cron:
            installing.install_line(line)
        else:
            installing.install_units(units)
        print("installed; `profile schedule status` shows the results")


def _status(table: ScheduledTable, progress: ProgressReporter | None) -> dict[str, Any]:
    state, now = read_state(table.out), datetime.now(UTC)
    plain: dict[str, Any] = {"table": table.name, "file": str(table.out), "device": table.target.device}
    try:
        why = [reason.text for reason in staleness_reasons(gather_facts(table, read_plans(table), now, progress))]
    except ToolError as exc:
        why = [str(exc)]
    else:
        if progress is not None and state.looked_utc is not None:  # `profile predict` and `netadapt run` warn by the state
            state = replace(state, stale=tuple(why))
            write_state(table.out, state)
    try:
        loaded = load_table(table.out)
    except ToolError:
        plain |= {"age_days": None, "mean_error_percent": None, "verified": False}
    else:
        held_out = loaded.info.held_out.mean_error_percent
        plain |= {"age_days": loaded.info.age_at(now), "mean_error_percent": held_out, "verified": loaded.verified}
    if progress is None:  # the reasons found at the device's last check still hold
        why += [text for text in state.stale if text not in why]
    return plain | {
        "stale": why,
        "next_utc": max(next_check(table, state, now), now).isoformat(timespec="seconds"),
        "looked_utc": state.looked_utc,
        "did": state.did,
        "last_failure": None if state.failure is None else {"utc": state.failure.utc, "why": state.failure.why},
        "interrupted": replacement.unfinished_journal(table.out) is not None,
    }


def _print_status(found: Sequence[dict[str, Any]]) -> None:
    cells = [
        (
            plain["table"],
            None if plain["age_days"] is None else f"{plain['age_days']:.1f}",
            None if plain["mean_error_percent"] is None else f"{plain['mean_error_percent']:.1f} %",
            "yes" if plain["verified"] else "no",
            "; ".join(plain["stale"]) or "fresh",
            _local(plain["next_utc"]),
        )
        for plain in found
    ]
    print_table(("table", "days old", "mean error", "verified", "state", "next check"), cells, right=("days old", "mean error"))
    for plain in found:
        if plain["interrupted"]:
            print(f"{plain['table']}: an interrupted build will be resumed at the next check")
        if plain["last_failure"] is not None:
            print(f"{plain['table']}: last failure {_local(plain['last_failure']['utc'])}: {plain['last_failure']['why']}")


def _local(utc: str) -> str:
    return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M")


def _next(schedule: ScheduleConfig) -> str:
    now = datetime.now(UTC)
    first, name = min((next_check(table, read_state(table.out), now), table.name) for table in schedule.tables)
    return f"{name} now" if first <= now else f"{name} at {_local(first.isoformat())}"


@contextmanager
def _progress(names: Sequence[str]) -> Iterator[dict[str, ProgressReporter]]:
    if len(names) == 1:
        with bar() as lone:
            yield {names[0]: lone}
    else:
        with bars(names) as several:
            yield dict(several)
