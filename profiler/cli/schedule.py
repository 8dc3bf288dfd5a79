"""`profile schedule`: keeps the tables in profile.toml fresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from device_agents.support.errors import ToolError
from profiler.cli.examples import EXAMPLES
from profiler.console import Command, Json, examples, local_time, plain_errors, print_json, print_table, terminable
from profiler.progress import Silent, reporters
from profiler.schedule.config import ScheduleConfig, read_schedule
from profiler.schedule.install import Installation
from profiler.schedule.maintain import Outcome
from profiler.schedule.running import Maintainer, exclusive_lock
from profiler.schedule.status import TableStatus, failed_last, first_due, statuses

app = typer.Typer(help="Keep the tables in profile.toml fresh.", no_args_is_help=True)

KEPT = "all measurements are kept, and the next run resumes from them"


@app.command(cls=Command, epilog=examples(EXAMPLES["schedule run"]))
def run() -> None:
    """Stay in the foreground and check each table when it is due. Ctrl-C or SIGTERM end it; no measurement is lost."""
    with plain_errors(KEPT):
        schedule = read_schedule()
        with exclusive_lock(schedule.path), terminable():
            print(f"{schedule.path}: tables: {len(schedule.tables)}; next check: {next_text(schedule)}", flush=True)
            try:
                Maintainer(say=partial(print, flush=True)).forever(read_schedule, reporters)
            except KeyboardInterrupt:
                print(f"ended; {KEPT}")


@app.command(cls=Command, epilog=examples(EXAMPLES["schedule once"]))
def once(
    now: Annotated[
        bool, typer.Option("--now", help="Check every table now. Without it, only the tables that are due are checked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the tables that are due and exit: for cron and systemd. The exit code is 1 if a table could not be made fresh."""
    with plain_errors(KEPT):
        schedule = read_schedule()
        with exclusive_lock(schedule.path), terminable():
            maintainer = Maintainer(say=Silent().say if as_json else print)
            devices = dict.fromkeys(table.target.device for table in maintainer.due(schedule, at_once=now))
            with reporters(list(devices)) as progress:
                found = maintainer.once(schedule, progress, at_once=now)
        if as_json:
            print_json(outcomes_data(found))
        elif not found:
            print_nothing_due(schedule)
        if any(outcome.did == "failed" for outcome in found.values()):
            raise typer.Exit(1)


@app.command(cls=Command, epilog=examples(EXAMPLES["schedule status"]))
def status(
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Spot-check the devices too: about ten seconds for each table. Without it, the last check is reported.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the age, held-out error, reasons for staleness and next check of each table."""
    with plain_errors():
        schedule = read_schedule()
        with reporters([table.name for table in schedule.tables] if check else []) as progress:
            found = statuses(schedule, progress)
        if as_json:
            print_json([status_data(item) for item in found])
        else:
            print_statuses(found)


@app.command(cls=Command, epilog=examples(EXAMPLES["schedule install"]))
def install(
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Install a unit and a timer for the user's systemd. This is the default.")
    ] = False,
    cron: Annotated[
        bool, typer.Option("--cron", help="Install a line in the user's crontab instead. By default systemd is used.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation. By default it is asked for.")] = False,
) -> None:
    """Install a timer that starts `profile schedule once` every 15 minutes. Shows what it writes and asks first."""
    with plain_errors():
        if systemd and cron:
            raise ToolError("--systemd and --cron together would do everything twice; choose one")
        installation = Installation.of(read_schedule().path, cron=cron)
        print(installation.text())
        if yes or typer.confirm("write this?"):
            left = installation.write()
            print("installed; `profile schedule status` shows the results")
            if left:
                print(left)
        else:
            print("nothing was written")


def outcomes_data(found: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Of what was done; the text of it is printed as it is done."""
    return [{"table": name, "did": outcome.did, "sentence": outcome.sentence} for name, outcome in found.items()]


def print_nothing_due(schedule: ScheduleConfig) -> None:
    print(f"no table is due; next check: {next_text(schedule)}")
    if failed := failed_last(schedule):
        print(f"{', '.join(failed)} failed at the last check; fix the cause, then run `profile schedule once --now`")


def next_text(schedule: ScheduleConfig) -> str:
    """The table that is checked next, and when."""
    now = datetime.now(UTC)
    first, name = first_due(schedule, now)
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
        "next_utc": status.next_check.isoformat(timespec="seconds"),
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
            local_time(status.next_check),
        )
        for status in found
    ]
    print_table(("table", "days old", "mean error", "verified", "state", "next check"), cells, right=("days old", "mean error"))
    for status in found:
        if status.interrupted:
            print(f"{status.name}: an interrupted build will be resumed at the next check")
        if status.failure is not None:
            print(f"{status.name}: last failure {local_time(datetime.fromisoformat(status.failure.utc))}: {status.failure.why}")
