"""Installation of `profile schedule once` in systemd or cron: the files to write, and writing them.

The command is started every quarter of an hour and does what is due by then, so that profile.toml alone decides when that is.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
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
MARK = "# netadapt-profiler: keeps the tables in this profile.toml fresh"
"""The comment above the line in the crontab, by which a later installation finds that line."""
COMMAND_S = 30.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit file for systemd."""

    path: Path
    text: str


def command_for(config: Path) -> list[str]:
    """Return the command to start. Raises `ConfigError` if `profile` is not installed, or if no unit can hold the path."""
    program = Path(sys.executable).with_name("profile")
    if not program.is_file():
        raise ConfigError(f"{program} does not exist; install the package into the environment that runs this command")
    words = [str(program), "--config", str(config.resolve()), "schedule", "once"]
    # A line break in a path would begin a new line, and with it a new command, in the crontab.
    if any(not letter.isprintable() for word in words for letter in word):
        raise ConfigError(
            f"{str(config.resolve())!r} cannot be written into a unit file or a crontab; rename the file or its folder"
        )
    return words


# ---------------------------------------------------------------------------------------------------------------- systemd


def systemd_units(config: Path) -> tuple[Unit, ...]:
    """Return the service and its timer, for the user's own systemd."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "systemd", "user")
    quoted = []
    for word in command_for(config):
        # systemd expands $ and % in a command line
        escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("%", "%%")
        quoted.append(f'"{escaped}"')
    working_directory = str(config.resolve().parent).replace("%", "%%")
    service = (
        "[Unit]\nDescription=Keep latency tables fresh\n\n"
        f"[Service]\nType=oneshot\nWorkingDirectory={working_directory}\nExecStart={' '.join(quoted)}\nNice=5\n"
    )
    timer = (
        "[Unit]\nDescription=Check which latency tables are due\n\n"
        "[Timer]\nOnCalendar=*:0/15\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )
    return Unit(folder / f"{NAME}.service", service), Unit(folder / f"{NAME}.timer", timer)


def install_units(units: Sequence[Unit]) -> str:
    """Write unit files and have systemd start the timer; what else the user has to do, if anything.

    Raises `ConfigError` if systemd does not run for this user or takes no timer.
    """
    # before anything is written
    _run(
        ["systemctl", "--user", "show-environment"],
        step="; log in as this user directly, because su and sudo start no systemd for it, or use --cron",
    )
    for unit in units:
        with contextlib.suppress(OSError):  # writing the file fails next, with a better message
            unit.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(unit.path, unit.text, ConfigError)
    _run(["systemctl", "--user", "daemon-reload"])
    _run(["systemctl", "--user", "enable", "--now", f"{NAME}.timer"])
    user = getpass.getuser()
    try:
        lingers = _run(["loginctl", "show-user", user, "--property=Linger"]).strip()
    except ConfigError:
        lingers = "not told"  # also of a user who is not logged in
    if lingers == "Linger=yes":
        return ""
    return f"the timer runs only while {user} is logged in; to let it run always: `sudo loginctl enable-linger {user}`"


# ------------------------------------------------------------------------------------------------------------------- cron


def cron_line(config: Path) -> str:
    """Return the line for the crontab."""
    quoted = []
    for word in (str(config.resolve().parent), *command_for(config)):
        text = shlex.quote(word)
        # in a crontab, % ends the command, except in BusyBox, which leaves the backslash to the shell: so it stands outside quotes
        quoted.append(text.replace("%", "'\\%'" if text.startswith("'") else "\\%"))
    return f"*/15 * * * * cd {quoted[0]} && {' '.join(quoted[1:])}"


def install_line(line: str) -> None:
    """Add a line to the user's crontab, or replace the one that an earlier installation added; other lines stay.

    Raises `ConfigError` if `crontab` cannot be run.
    """
    try:
        lines = _run(["crontab", "-l"]).splitlines()
    except ConfigError as exc:
        # what Debian's cron and cronie, fcron, and BusyBox and dcron say where there is none yet; after any other failure a crontab
        # may be there, which must not be lost
        if not re.search(r"no f?crontab|can't open (.*No such file|your crontab)", str(exc)):
            raise
        lines = []
    if MARK in lines:
        place = lines.index(MARK)
        del lines[place : place + 2]
    _run(["crontab", "-"], "\n".join([*lines, MARK, line]) + "\n")


def _run(argv: Sequence[str], text: str = "", step: str = "") -> str:
    """Run a command and return its output. `ConfigError`, which ends with `step`, if it fails."""
    try:
        ended = subprocess.run(argv, input=text, capture_output=True, text=True, errors="replace", timeout=COMMAND_S, check=False)
    except FileNotFoundError as exc:
        other = "--cron" if argv[0] == "systemctl" else "--systemd"
        raise ConfigError(f"there is no `{argv[0]}` on this machine; install it, or use {other}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigError(f"`{shlex.join(argv)}` cannot be run: {getattr(exc, 'strerror', None) or exc}") from exc
    if ended.returncode == 0:
        return ended.stdout
    raise ConfigError(
        f"`{shlex.join(argv)}` ended with exit code {ended.returncode}: {last_line(ended.stderr or ended.stdout)}{step}"
    )


# --------------------------------------------------------------------------------------------------------------------- either


@dataclass(frozen=True, slots=True)
class Installation:
    """What would be written to have the scheduler started: units of systemd, or a line in the crontab."""

    units: tuple[Unit, ...] = ()
    line: str = ""

    @classmethod
    def of(cls, config: Path, *, cron: bool) -> Installation:
        return cls(line=cron_line(config)) if cron else cls(systemd_units(config))

    def text(self) -> str:
        """All of it, with the files' names, for people to look at before it is written."""
        if self.line:
            return f"crontab:\n{MARK}\n{self.line}\n"
        return "\n".join(f"{unit.path}:\n{unit.text}" for unit in self.units)

    def write(self) -> str:
        """Write it; what else the user has to do, if anything. `ConfigError` if systemd or cron do not take it."""
        if self.line:
            install_line(self.line)
            return ""
        return install_units(self.units)
