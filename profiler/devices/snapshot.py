"""The state of a device at one moment: files and the outputs of programs, fetched in one round trip by a POSIX shell script.

The script needs only `sh` (dash, bash, busybox or Android's mksh), `cat`, `sleep` and `head`, so it runs on phones. The shell
itself reads small files, because a process for each of several hundred files would take a phone seconds. The script only reports;
profiler.devices.doctor judges, on the host.
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
"""The number of lines read of one file. What we need of /proc/cpuinfo stands in the lines of the first core."""
TIMEOUT_S = 90.0
COMMAND_S = 10
"""The time limit of each program; it applies only on devices that have `timeout`."""

CPUS = "/sys/devices/system/cpu"
ZONES = "/sys/class/thermal"
SUPPLIES = "/sys/class/power_supply"
RAPL = "/sys/class/powercap"
INA = "/sys/bus/i2c/drivers/ina3221*/*"
THROTTLES = f"{CPUS}/cpu[0-9]*/thermal_throttle/core_throttle_count"


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is run on devices that have it. Its line is the key of its output: `snapshot.output("nvpmodel -q")`."""

    line: str
    keep: str | None = None
    """An extended regular expression; only the lines that match it are sent. None for all lines."""

    @property
    def shell(self) -> str:
        """The shell line that runs the program and filters its output."""
        kept = "" if self.keep is None else f" | grep -E {shlex.quote(self.keep)}"
        return f"{self.line}{kept} | head -n 400"


@dataclass(frozen=True, slots=True)
class Request:
    """The files and programs of one snapshot.

    Files are shell patterns. They are not quoted, so they may contain only letters, `*`, `[0-9]` and `./:,-_`.
    """

    files: Sequence[str] = ()
    commands: Sequence[Command] = ()
    watch_s: int = 0
    """Whole seconds between two readings of the processor time that every process has used; 0 for one reading and no processes."""
    groups: bool = False
    """True to read the limits of the control groups that the shell is in."""


GETPROP, THERMAL, BATTERY = "getprop", "dumpsys thermalservice", "dumpsys battery"
POWER, LOW_POWER, POWER_HELP = "dumpsys power", "settings get global low_power", "cmd power help"
NVPMODEL, CLOCKS, CORES = "nvpmodel -q", "jetson_clocks --show", "getconf _NPROCESSORS_ONLN"

HEAT_FILES = (
    f"{ZONES}/thermal_zone*/type", f"{ZONES}/thermal_zone*/temp",
    f"{SUPPLIES}/*/type", f"{SUPPLIES}/*/scope", f"{SUPPLIES}/*/temp",
)  # fmt: skip
HEAT = Request(HEAT_FILES, (Command(THERMAL), Command(BATTERY)))
WORK = Request((THROTTLES,))
EVERYTHING = Request(
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
    """The files and outputs that were read, without blanks at their ends.

    The accessors return None for a file or program that is missing or could not be read.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, str] = field(default_factory=dict)
    """The files that were read a second time, after the wait."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    """Folders, and files that exist but cannot be read."""

    def text(self, path: str, *, again: bool = False) -> str | None:
        """The content of the file, from the second reading if `again`."""
        return (self.again if again else self.files).get(path)

    def number(self, path: str) -> int | None:
        """The whole number in the file; None also if the file contains anything else."""
        text = self.files.get(path)
        return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text) else None

    def exists(self, path: str) -> bool:
        """True if the path was requested and exists, readable or not."""
        return path in self.files or path in self.seen

    def glob(self, pattern: str) -> tuple[str, ...]:
        """The requested paths that exist and match the pattern, readable or not, in order; `*` matches no slash."""
        return tuple(sorted(path for path in {*self.files, *self.seen} if PurePosixPath(path).match(pattern)))

    def output(self, command: str) -> str | None:
        """The output of the program; None also if it wrote nothing."""
        return self.outputs.get(command)


def take_snapshot(agent: Agent, request: Request = EVERYTHING, *, root: str = "") -> Snapshot:
    """Read the state of a device. `root` is a folder on the device that stands for `/`.

    Raises `RunnerError` if the answer is incomplete or too long, and `DeviceError` if the device cannot be reached.
    """
    marker = secrets.token_hex(8)
    result = agent.run(["sh", "-c", _script(request, marker, root)], timeout_s=TIMEOUT_S + request.watch_s)
    return parse_snapshot(result.stdout, marker, agent.address)


def parse_snapshot(output: str, marker: str, address: str = "the device") -> Snapshot:
    """The snapshot in the output of the script; `marker` begins each header line. Raises `RunnerError` if the end is missing."""
    if len(output) > MOST_BYTES:
        raise RunnerError(f"{address} sent more than {MOST_BYTES / 1e6:g} MB of state; check that its `head -c` limits its output")
    head, *parts = f"\n{output}".split(f"\n{marker} ")
    if not parts or parts[-1].strip() != "end":
        reason = "the answer broke off" if parts else printable(head.strip()[-80:]) or "no output"
        raise RunnerError(f"{address} did not report its state ({reason}); check that it has a POSIX shell")
    # f: a file, F: the same file read again, o: the output of a program, d: a folder, x: an unreadable file
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
"""The functions of the script. In mksh `print` is built in and `printf` would start a process; elsewhere it is the reverse."""

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
"""The part that reads the limits of the shell's control groups and of all groups above them, since any of them may set a limit."""


def _script(request: Request, marker: str, root: str) -> str:
    uptime = 'show {} "$R/proc/uptime"'
    stat = 'show {} "$R/proc/stat"'
    watch = [uptime.format("f"), stat.format("f")]
    if request.watch_s:
        # only the clock is read between the two readings of the processors, so that our own work is not counted
        again = [f"sleep {request.watch_s}", stat.format("F"), uptime.format("F"), "processes F"]
        watch = ['show f "$R/proc/loadavg"', "processes f", *watch, *again]
    files = [f'for file in "$R"{pattern}; do show f "$file"; done' for pattern in request.files]
    groups = [GROUPS] if request.groups else []
    # programs come last, because some of them wake up others
    commands = [
        f"output {command.line.split()[0]} {shlex.quote(command.line)} {shlex.quote(command.shell)}" for command in request.commands
    ]
    # the pipe into `head` bounds the answer, however much a device sends
    lines = [f"M={marker} R={shlex.quote(root)}", FUNCTIONS, "{", *watch, *files, *groups, *commands, 'say "$M end"']
    return "\n".join([*lines, f"}} 2>/dev/null | head -c {MOST_BYTES}"])
