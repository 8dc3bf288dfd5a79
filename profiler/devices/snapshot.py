"""The state of a device at one moment: files and the outputs of programs, fetched in one round trip by a POSIX shell script.

It asks for no more than `sh` (dash, bash, busybox, Android's mksh), `cat`, `sleep` and `head`, so a phone will do. Small files are
read by the shell itself: a process for each of several hundred files takes a phone seconds. Nothing is judged on the device.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from device_agents.agent import Agent
from device_agents.support.text import printable
from profiler.errors import RunnerError

MOST_BYTES = 4_000_000
MOST_LINES = 96
"""Of one file; all that is looked for in /proc/cpuinfo is told of the first core."""
TIMEOUT_S = 90.0
COMMAND_S = 10
"""For each program, where the device has `timeout`."""

CPUS = "/sys/devices/system/cpu"
ZONES = "/sys/class/thermal"
SUPPLIES = "/sys/class/power_supply"
RAPL = "/sys/class/powercap"
INA = "/sys/bus/i2c/drivers/ina3221*/*"
THROTTLES = f"{CPUS}/cpu[0-9]*/thermal_throttle/core_throttle_count"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run on devices that have it. Known by its line: `snapshot.output("nvpmodel -q")`."""

    line: str
    keep: str | None = None
    """Only the lines that match this extended regular expression are sent."""

    @property
    def shell(self) -> str:
        kept = "" if self.keep is None else f" | grep -E {shlex.quote(self.keep)}"
        return f"{self.line}{kept} | head -n 400"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look at. Files are named by patterns of the shell, in which only letters, `*`, `[0-9]` and `./:,-_` may occur."""

    files: Sequence[str] = ()
    commands: Sequence[Command] = ()
    watch_s: int = 0
    """Whole seconds between two looks at what the processes do; 0 for a single look at the clock and the processors."""
    groups: bool = False
    """Whether to read the limits of the control groups that the shell is in."""


GETPROP, THERMAL, BATTERY = "getprop", "dumpsys thermalservice", "dumpsys battery"
POWER, LOW_POWER, POWER_HELP = "dumpsys power", "settings get global low_power", "cmd power help"
NVPMODEL, CLOCKS, CORES = "nvpmodel -q", "jetson_clocks --show", "getconf _NPROCESSORS_ONLN"

HEAT_FILES = (
    f"{ZONES}/thermal_zone*/type", f"{ZONES}/thermal_zone*/temp",
    f"{SUPPLIES}/*/type", f"{SUPPLIES}/*/scope", f"{SUPPLIES}/*/temp",
)  # fmt: skip
HEAT = Wanted(HEAT_FILES, (Command(THERMAL), Command(BATTERY)))
WORK = Wanted((THROTTLES,))
EVERYTHING = Wanted(
    (
        "/proc/loadavg", "/proc/self/stat", "/proc/self/status", "/proc/self/cgroup", "/proc/1/cgroup", "/proc/cpuinfo",
        f"{CPUS}/online", f"{CPUS}/intel_pstate/no_turbo", f"{CPUS}/cpufreq/boost",
        f"{CPUS}/cpu[0-9]*/cpufreq/scaling_governor", f"{CPUS}/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
        f"{CPUS}/cpu[0-9]*/cpufreq/scaling_min_freq", f"{CPUS}/cpu[0-9]*/cpufreq/scaling_max_freq",
        f"{CPUS}/cpu[0-9]*/cpu_capacity", f"{CPUS}/cpu[0-9]*/topology/thread_siblings_list", THROTTLES,
        *HEAT_FILES, f"{ZONES}/thermal_zone*/trip_point_*_type", f"{ZONES}/thermal_zone*/trip_point_*_temp",
        SUPPLIES, f"{SUPPLIES}/*/status", f"{SUPPLIES}/*/capacity",
        "/sys/hypervisor/type", "/proc/device-tree/hypervisor/compatible",
        "/.dockerenv", "/run/.containerenv", "/run/systemd/container",
        "/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers",
        f"{RAPL}/intel-rapl:*/name", f"{RAPL}/intel-rapl:*/energy_uj",
        f"{INA}/hwmon/hwmon*/in[0-9]_label", f"{INA}/hwmon/hwmon*/in[0-9]_input", f"{INA}/hwmon/hwmon*/curr[0-9]_input",
        f"{INA}/iio:device*/rail_name_[0-9]", f"{INA}/iio:device*/in_power[0-9]_input",
        "/etc/nv_tegra_release", "/var/lib/nvpmodel/status",
        "/sys/class/devfreq/*.g*/min_freq", "/sys/class/devfreq/*.g*/max_freq",
    ),
    (
        Command(CORES), Command(THERMAL), Command(BATTERY), Command(LOW_POWER), Command(NVPMODEL), Command(CLOCKS),
        Command(GETPROP, r"^\[ro\.(build\.fingerprint|build\.version\.(release|sdk)|product\.(manufacturer|model)|soc\.model)\]"),
        Command(POWER, "mWakefulness=|Display Power: state="), Command(POWER_HELP, "set-fixed-performance-mode-enabled"),
        Command("cat /etc/nvpmodel.conf", "^< *POWER_MODEL "),
    ),
    watch_s=1,
    groups=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read. A file or program that is missing or could not be read is None; text comes without blanks at its ends."""

    files: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, str] = field(default_factory=dict)
    """Those that were read a second time."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    """Folders, and files that are there and cannot be read."""

    def text(self, path: str, *, again: bool = False) -> str | None:
        return (self.again if again else self.files).get(path)

    def number(self, path: str) -> int | None:
        text = self.files.get(path)
        return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text) else None

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.seen

    def glob(self, pattern: str) -> tuple[str, ...]:
        """The paths among those looked at, readable or not, in order; `*` matches no slash."""
        return tuple(sorted(path for path in {*self.files, *self.seen} if PurePosixPath(path).match(pattern)))

    def output(self, command: str) -> str | None:
        """What the program wrote; None too where that was nothing."""
        return self.outputs.get(command)


def take(agent: Agent, wanted: Wanted = EVERYTHING, *, root: str = "") -> Snapshot:
    """Look at a device, or below a folder on it that stands for its root. `RunnerError` if what it says makes no sense."""
    marker = secrets.token_hex(8)
    result = agent.run(["sh", "-c", _script(wanted, marker, root)], timeout_s=TIMEOUT_S + wanted.watch_s)
    return parse(result.stdout, marker, agent.address)


def parse(told: str, marker: str, address: str = "the device") -> Snapshot:
    """`RunnerError` unless it was told to the end."""
    if len(told) > MOST_BYTES:
        raise RunnerError(f"{address} told more than {MOST_BYTES / 1e6:g} MB about itself; is its `head` the usual one?")
    head, *parts = f"\n{told}".split(f"\n{marker} ")
    if not parts or parts[-1].strip() != "end":
        said = head.strip()[-80:] if not parts else "it broke off"
        raise RunnerError(f"{address} did not tell its state ({printable(said) or 'it said nothing'}); does it have a POSIX shell?")
    read: dict[str, dict[str, str]] = {"f": {}, "F": {}, "o": {}}
    seen = set()
    for part in parts[:-1]:
        header, _, content = part.partition("\n")
        kind, _, name = header.partition(" ")
        if kind in read:
            read[kind][name] = content.strip()
        elif kind in ("d", "x"):
            seen.add(name)
    return Snapshot(read["f"], read["F"], read["o"], frozenset(seen))


# ------------------------------------------------------------------------------------------------------------- the script

FUNCTIONS = r"""
if [ -n "$KSH_VERSION" ]; then say() { print -r -- "$1"; }; else say() { printf "%s\n" "$1"; }; fi
limit=; command -v timeout >/dev/null 2>&1 && limit="timeout SECONDS"
PATH=$PATH:/usr/sbin:/sbin
show() {
  [ -e "$2" ] || return 0
  if [ -d "$2" ]; then say "$M d ${2#"$R"}"; return 0; fi
  { say "$M $1 ${2#"$R"}"; line=; n=0
    while [ $n -lt LINES ] && { IFS= read -r line || [ -n "$line" ]; }; do say "$line"; n=$((n+1)); done
  } <"$2" || say "$M x ${2#"$R"}"
}
output() {
  command -v "$1" >/dev/null 2>&1 || return 0
  text=$($limit sh -c "$3" </dev/null) && [ -n "$text" ] || return 0
  say "$M o $2"; say "$text"
}
processes() { text=$(cat "$R"/proc/[0-9]*/stat); say "$M $1 processes"; say "$text"; }
""".replace("SECONDS", str(COMMAND_S)).replace("LINES", str(MOST_LINES))
"""`print` is built into mksh, which has to start a program for `printf`; the other way round elsewhere."""

GROUPS = """
while IFS=: read -r _ names group || [ -n "$group" ]; do
  case ",$names," in ,,|*,cpu,*) ;; *) continue ;; esac
  while :; do
    for base in . unified cpu "$names"; do for file in cpu.max cpu.cfs_quota_us cpu.cfs_period_us; do
      show f "$R/sys/fs/cgroup/$base${group%/}/$file"
    done; done
    case $group in ""|/|[!/]*) break ;; esac
    group=${group%/*}
  done
done <"$R/proc/self/cgroup"
"""
"""Of each control group that the shell is in and those above it: a limit may be set at any of them."""


def _script(wanted: Wanted, marker: str, root: str) -> str:
    """Only the clock is looked at between the two looks at the processors, so that our own work is no part of what is seen.

    Programs come last: some of them wake up others. A pipe into `head` bounds the whole, whatever a device has to tell.
    """
    uptime, stat = 'show {} "$R/proc/uptime"', 'show {} "$R/proc/stat"'
    watch = [uptime.format("f"), stat.format("f")]
    if wanted.watch_s:
        again = [f"sleep {wanted.watch_s}", stat.format("F"), uptime.format("F"), "processes F"]
        watch = ['show f "$R/proc/loadavg"', "processes f", *watch, *again]
    files = [f'for file in "$R"{pattern}; do show f "$file"; done' for pattern in wanted.files]
    groups = [GROUPS] if wanted.groups else []
    commands = [
        f"output {command.line.split()[0]} {shlex.quote(command.line)} {shlex.quote(command.shell)}" for command in wanted.commands
    ]
    lines = [f"M={marker} R={shlex.quote(root)}", FUNCTIONS, "{", *watch, *files, *groups, *commands, 'say "$M end"']
    return "\n".join([*lines, f"}} 2>/dev/null | head -c {MOST_BYTES}"])
