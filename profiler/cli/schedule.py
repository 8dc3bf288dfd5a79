"""`profile schedule`: the tables that profile.toml wants, kept fresh."""

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
from profiler.schedule import replacement as refresh
from profiler.schedule.config import Wanted, WantedTable, read_wanted
from profiler.schedule.maintain import look, plans_of
from profiler.schedule.running import Keeper, next_look, only_one
from profiler.schedule.staleness import reasons
from profiler.schedule.state import read_state, write_state
from profiler.tables.table import load_table

app = typer.Typer(help="Keep the tables fresh that profile.toml wants.", no_args_is_help=True)

KEPT = "what was measured is kept and gone on with the next time"


@app.command()
def run() -> None:
    """Stay in the foreground and do what is due when it is due. Ctrl-C or SIGTERM end it; nothing measured is lost."""
    with plain_errors(KEPT):
        wanted = read_wanted()
        with only_one(wanted.path), terminable():
            print(f"{wanted.path}: {len(wanted.tables)} tables; next {_next(wanted)}", flush=True)
            try:
                Keeper(say=lambda text: print(text, flush=True)).forever(read_wanted, _progress)
            except KeyboardInterrupt:
                print(f"ended; {KEPT}")


@app.command()
def once(
    now: Annotated[bool, typer.Option("--now", help="Look at every table, whether its time has come or not.")] = False,
    as_json: Json = False,
) -> None:
    """Do what is due and exit: for cron and systemd. The exit code is 1 if a table could not be made fresh."""
    with plain_errors(KEPT):
        wanted = read_wanted()
        with only_one(wanted.path), terminable():
            keeper = Keeper(say=(lambda text: None) if as_json else print)
            due = keeper.due(wanted, at_once=now)
            with _progress(list(dict.fromkeys(table.target.device for table in due))) as progress:
                found = keeper.once(wanted, progress, at_once=now)
        plain = [{"table": name, "did": outcome.did, "sentence": outcome.sentence} for name, outcome in found.items()]
        if as_json:
            print_json(plain)
        elif not found:
            print(f"nothing is due; next {_next(wanted)}")
            if failed := [table.name for table in wanted.tables if read_state(table.out).did == "failed"]:
                print(f"{', '.join(failed)} failed the last time; if that is mended, --now looks again at once")
        if any(outcome.did == "failed" for outcome in found.values()):
            raise typer.Exit(1)


@app.command()
def status(
    check: Annotated[bool, typer.Option("--check", help="Ask the devices too: some ten seconds for each table.")] = False,
    as_json: Json = False,
) -> None:
    """Say of each table how old it is, how well it closes, whether and why it is stale, and when it is looked at next."""
    with plain_errors():
        wanted = read_wanted()
        with _progress([table.name for table in wanted.tables] if check else []) as progress:
            found = [_status(table, progress.get(table.name)) for table in wanted.tables]
        if as_json:
            print_json(found)
        else:
            _print_status(found)


@app.command()
def install(
    systemd: Annotated[bool, typer.Option("--systemd", help="A unit and a timer of the user's systemd; the default.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="A line in the user's crontab.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Have `profile schedule once` started every quarter of an hour; shows what is written before it is."""
    with plain_errors():
        if systemd and cron:
            raise ToolError("--systemd and --cron would do everything twice; choose one")
        path = read_wanted().path
        units, line = ((), installing.cron_line(path)) if cron else (installing.units(path), "")
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
        print("installed; `profile schedule status` says what comes of it")


def _status(table: WantedTable, progress: ProgressReporter | None) -> dict[str, Any]:
    state, now = read_state(table.out), datetime.now(UTC)
    plain: dict[str, Any] = {"table": table.name, "file": str(table.out), "device": table.target.device}
    try:
        why = [reason.text for reason in reasons(look(table, plans_of(table), now, progress))]
    except ToolError as exc:
        why = [str(exc)]
    else:
        if progress is not None and state.looked_utc is not None:  # so that runs are warned, or no longer are
            state = replace(state, stale=tuple(why))
            write_state(table.out, state)
    try:
        loaded = load_table(table.out)
    except ToolError:
        plain |= {"age_days": None, "mean_error_percent": None, "verified": False}
    else:
        held_out = loaded.info.held_out.mean_error_percent
        plain |= {"age_days": loaded.info.age_at(now), "mean_error_percent": held_out, "verified": loaded.verified}
    if progress is None:  # what the device said last still holds
        why += [text for text in state.stale if text not in why]
    return plain | {
        "stale": why,
        "next_utc": max(next_look(table, state, now), now).isoformat(timespec="seconds"),
        "looked_utc": state.looked_utc,
        "did": state.did,
        "last_failure": None if state.failure is None else {"utc": state.failure.utc, "why": state.failure.why},
        "interrupted": refresh.unfinished(table.out) is not None,
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
    print_table(("table", "days old", "mean error", "verified", "state", "next look"), cells, right=("days old", "mean error"))
    for plain in found:
        if plain["interrupted"]:
            print(f"{plain['table']}: a build was interrupted and is gone on with at the next look")
        if plain["last_failure"] is not None:
            print(f"{plain['table']}: last failure {_local(plain['last_failure']['utc'])}: {plain['last_failure']['why']}")


def _local(utc: str) -> str:
    return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M")


def _next(wanted: Wanted) -> str:
    now = datetime.now(UTC)
    first, name = min((next_look(table, read_state(table.out), now), table.name) for table in wanted.tables)
    return f"{name} now" if first <= now else f"{name} at {_local(first.isoformat())}"


@contextmanager
def _progress(names: Sequence[str]) -> Iterator[dict[str, ProgressReporter]]:
    if len(names) == 1:
        with bar() as lone:
            yield {names[0]: lone}
    else:
        with bars(names) as several:
            yield dict(several)
