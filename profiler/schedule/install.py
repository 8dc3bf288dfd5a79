"""Having `profile schedule once` started by systemd or cron: what would be written, and writing it.

It is started every quarter of an hour and does what is due by then, so that profile.toml alone says when that is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agents.support.atomic import write_whole
from device_agents.support.errors import ConfigError
from device_agents.support.text import last_line

NAME = "netadapt-profiler"
MARK = "# netadapt-profiler: keeps the tables fresh that this file wants"
COMMAND_S = 30.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A file for systemd."""

    path: Path
    text: str


def command_for(config: Path) -> list[str]:
    """`ConfigError` if the program that was started cannot be found again."""
    program = Path(sys.executable).with_name("profile")
    if not program.is_file():
        raise ConfigError(f"there is no {program} that could be started; install the package into the environment it is run from")
    words = [str(program), "--config", str(config.resolve()), "schedule", "once"]
    if any(not letter.isprintable() for word in words for letter in word):
        raise ConfigError(f"{config.resolve()!r} cannot be written into a unit or a crontab; give it a plainer name")
    return words


# ---------------------------------------------------------------------------------------------------------------- systemd


def units(config: Path) -> tuple[Unit, ...]:
    """The service and its timer, of the user's own systemd."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = home / "systemd" / "user"
    started = " ".join(map(_quoted, command_for(config)))
    return (
        Unit(
            folder / f"{NAME}.service",
            "[Unit]\nDescription=Keep latency tables fresh\n\n"
            f"[Service]\nType=oneshot\nWorkingDirectory={_percent_free(str(config.resolve().parent))}\nExecStart={started}\nNice=5\n",
        ),
        Unit(
            folder / f"{NAME}.timer",
            "[Unit]\nDescription=Look which latency tables are due\n\n"
            "[Timer]\nOnCalendar=*:0/15\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n",
        ),
    )


def install_units(wanted: Sequence[Unit]) -> None:
    """Write them and have systemd start the timer. `ConfigError` if either does not work."""
    for unit in wanted:
        with contextlib.suppress(OSError):  # told when the file cannot be written
            unit.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(unit.path, unit.text, ConfigError)
    _run(["systemctl", "--user", "daemon-reload"])
    _run(["systemctl", "--user", "enable", "--now", f"{NAME}.timer"])


def _quoted(word: str) -> str:
    """As systemd reads a command line: `%` and `$` stand for something else."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_percent_free(plain)}"'


def _percent_free(word: str) -> str:
    return word.replace("%", "%%")


# ------------------------------------------------------------------------------------------------------------------- cron


def cron_line(config: Path) -> str:
    """`%` would end the command."""
    folder, command = shlex.quote(str(config.resolve().parent)), shlex.join(command_for(config))
    return f"*/15 * * * * cd {folder} && {command}".replace("%", "\\%")


def with_line(crontab: str, line: str) -> str:
    """The crontab with this line in place of the one an earlier installation has put there."""
    lines = crontab.splitlines()
    if MARK in lines:
        place = lines.index(MARK)
        del lines[place : place + 2]
    return "\n".join([*lines, MARK, line]) + "\n"


def install_line(line: str) -> None:
    """`ConfigError` if crontab cannot be run; a user's other lines stay as they are."""
    before = _run(["crontab", "-l"], empty="no crontab for")
    _run(["crontab", "-"], with_line(before, line))


def _run(argv: Sequence[str], text: str = "", empty: str | None = None) -> str:
    """What it printed; nothing, where it fails with the words in `empty`."""
    try:
        ended = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigError(f"`{shlex.join(argv)}` cannot be run: {getattr(exc, 'strerror', None) or exc}") from exc
    if ended.returncode and not (empty is not None and empty in ended.stderr):
        raise ConfigError(f"`{shlex.join(argv)}` ended with code {ended.returncode}: {last_line(ended.stderr)}")
    return ended.stdout if not ended.returncode else ""


# --------------------------------------------------------------------------------------------------------------------- either


@dataclass(frozen=True, slots=True)
class Installation:
    """What would be written to have the scheduler started: units of systemd, or a line in the crontab."""

    units: tuple[Unit, ...] = ()
    line: str = ""

    @classmethod
    def of(cls, config: Path, *, cron: bool) -> Installation:
        return cls(line=cron_line(config)) if cron else cls(units(config))

    def text(self) -> str:
        """All of it, with the files' names, for people to look at before it is written."""
        if self.line:
            return f"crontab:\n{MARK}\n{self.line}\n"
        return "\n".join(f"{unit.path}:\n{unit.text}" for unit in self.units)

    def write(self) -> None:
        """`ConfigError` if systemd or cron do not take it."""
        if self.line:
            install_line(self.line)
        else:
            install_units(self.units)
