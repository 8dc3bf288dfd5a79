"""`profile schedule`: the tables that profile.toml wants, kept fresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from device_agents.support.errors import ToolError
from profiler.console import Json, local_time, plain_errors, print_json, print_table, terminable
from profiler.progress import Silent, reporters
from profiler.schedule.config import Wanted, read_wanted
from profiler.schedule.install import Installation
from profiler.schedule.maintain import Outcome
from profiler.schedule.running import Keeper, only_one
from profiler.schedule.status import TableStatus, failed_last, first_due, statuses

app = typer.Typer(help="Keep the tables fresh that profile.toml asks for.", no_args_is_help=True)

KEPT = "what was measured is kept and gone on with the next time"


@app.command()
def run() -> None:
    """Stay in the foreground and make each table fresh when its time comes. Ctrl-C or SIGTERM end it; nothing measured is lost."""
    with plain_errors(KEPT):
        wanted = read_wanted()
        with only_one(wanted.path), terminable():
            print(f"{wanted.path}: {len(wanted.tables)} tables; next {next_text(wanted)}", flush=True)
            try:
                Keeper(say=partial(print, flush=True)).forever(read_wanted, reporters)
            except KeyboardInterrupt:
                print(f"ended; {KEPT}")


@app.command()
def once(
    now: Annotated[
        bool, typer.Option("--now", help="Look at every table now. Without it, only the tables whose time has come are looked at.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the tables fresh whose time has come, then exit. The exit code is 1 if a table could not be made fresh."""
    with plain_errors(KEPT):
        wanted = read_wanted()
        with only_one(wanted.path), terminable():
            keeper = Keeper(say=Silent().say if as_json else print)
            devices = dict.fromkeys(table.target.device for table in keeper.due(wanted, at_once=now))
            with reporters(list(devices)) as progress:
                found = keeper.once(wanted, progress, at_once=now)
        if as_json:
            print_json(outcomes_data(found))
        elif not found:
            print_nothing_due(wanted)
        if any(outcome.did == "failed" for outcome in found.values()):
            raise typer.Exit(1)


@app.command()
def status(
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Ask the devices too, which takes some ten seconds for each table. Without it, what the last look found is told.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the tables with their age, their held-out error, whether and why they are stale, and when they are looked at next."""
    with plain_errors():
        wanted = read_wanted()
        with reporters([table.name for table in wanted.tables] if check else []) as progress:
            found = statuses(wanted, progress)
        if as_json:
            print_json([status_data(item) for item in found])
        else:
            print_statuses(found)


@app.command()
def install(
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Write a unit and a timer of the user's systemd. This is the default.")
    ] = False,
    cron: Annotated[
        bool, typer.Option("--cron", help="Write a line into the user's crontab instead. By default systemd is used.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking. Without it, a question is asked first.")] = False,
) -> None:
    """Have `profile schedule once` started every quarter of an hour. What is to be written is shown first."""
    with plain_errors():
        if systemd and cron:
            raise ToolError("--systemd and --cron would do everything twice; choose one")
        installation = Installation.of(read_wanted().path, cron=cron)
        print(installation.text())
        if yes or typer.confirm("write this?"):
            installation.write()
            print("installed; `profile schedule status` says what comes of it")
        else:
            print("nothing was written")


def outcomes_data(found: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Of what was done; the text of it is printed as it is done."""
    return [{"table": name, "did": outcome.did, "sentence": outcome.sentence} for name, outcome in found.items()]


def print_nothing_due(wanted: Wanted) -> None:
    print(f"nothing is due; next {next_text(wanted)}")
    if failed := failed_last(wanted):
        print(f"{', '.join(failed)} failed the last time; if that is mended, --now looks again at once")


def next_text(wanted: Wanted) -> str:
    """The table that is looked at next, and when."""
    now = datetime.now(UTC)
    first, name = first_due(wanted, now)
    return f"{name} now" if first <= now else f"{name} at {local_time(first)}"


def status_data(status: TableStatus) -> dict[str, Any]:
    return {
        "table": status.name,
        "file": str(status.file),
        "device": status.device,
        "age_days": status.age_days,
        "mean_error_percent": status.mean_error_percent,
        "verified": status.verified,
        "stale": list(status.stale),
        "next_utc": status.next_look.isoformat(timespec="seconds"),
        "looked_utc": status.state.looked_utc,
        "did": status.state.did,
        "last_failure": None if status.failure is None else {"utc": status.failure.utc, "why": status.failure.why},
        "interrupted": status.interrupted,
    }


def print_statuses(found: Sequence[TableStatus]) -> None:
    cells = [
        (
            status.name,
            None if status.age_days is None else f"{status.age_days:.1f}",
            None if status.mean_error_percent is None else f"{status.mean_error_percent:.1f} %",
            "yes" if status.verified else "no",
            "; ".join(status.stale) or "fresh",
            local_time(status.next_look),
        )
        for status in found
    ]
    print_table(("table", "days old", "mean error", "verified", "state", "next look"), cells, right=("days old", "mean error"))
    for status in found:
        if status.interrupted:
            print(f"{status.name}: a build was interrupted and is gone on with at the next look")
        if status.failure is not None:
            print(f"{status.name}: last failure {local_time(datetime.fromisoformat(status.failure.utc))}: {status.failure.why}")
