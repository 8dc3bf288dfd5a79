"""Findings about a device that would disturb measurements, each with its remedy. The device reports facts; the host judges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from device_agents.agent import Agent, CommandResult, store_file
from device_agents.discovery import open_agent
from device_agents.errors import DeviceError, LinkLost
from device_agents.python_runner import ON_DEVICE
from device_agents.support.errors import ToolError
from device_agents.support.numbers import is_whole
from device_agents.support.strict_json import read_json
from profiler.devices.boards import FIXED_PERFORMANCE_SDK
from profiler.devices.config import find_device
from profiler.devices.facts import Facts, facts
from profiler.devices.interpreter import too_old
from profiler.devices.snapshot import WORK, take_snapshot
from profiler.errors import RunnerError
from profiler.finding import Finding

PROGRAM = ON_DEVICE / "conditions.py"
PROTOCOL = 2
TIMEOUT_S = 60.0
BUSY_PERCENT = 10.0
VERY_BUSY_PERCENT = 50.0
"""Processor time of other processes, in per cent of one core."""
LOAD = 0.5
STEAL_PERCENT = 1.0
MUCH_STEAL_PERCENT = 10.0
UNSTEADY_PERCENT = 5.0
VERY_UNSTEADY_PERCENT = 15.0
"""Below the first change of speed, tables reach their held-out error; above the second, `profile check` remarks on it."""
HOT_C = 80.0
"""The temperature from which a zone without a limit of its own is hot."""
NEAR_LIMIT_C = 10.0
"""The distance from its limit at which a zone is hot."""
LOW_BATTERY_PERCENT = 30.0
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

MORE_ROUNDS = "build with more rounds, so that some fall into quiet spells: `profile build ... --rounds 12`"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was read on a device and what is to be thought of it."""

    device: str
    """By the name that it was asked for."""
    facts: Facts
    findings: tuple[Finding, ...]


def diagnose(device: str, threads: int = 1, python: str | None = None) -> Diagnosis:
    """Examine a device by its name or address and judge it for measurements with so many threads."""
    if threads < 1:
        raise ToolError(f"--threads must be at least 1, got {threads}")
    known = find_device(device)
    with open_agent(known.address, known.options) as agent:
        found = examine(agent, python or known.python)
    return Diagnosis(device, found, tuple(judge(found, threads)))


def examine(agent: Agent, python: str | None = None) -> Facts:
    """Read the facts of the device, which takes about four seconds.

    The speed is timed with the interpreter `python` or with one that is found on the device; without one that can do it the speed
    stays unknown, and everything else is told all the same. Raises `RunnerError` if the answer of the device is incomplete or
    invalid, and `DeviceError` if it cannot be reached.
    """
    quiet = take_snapshot(agent)
    interpreter = python
    if interpreter is None:
        try:
            interpreter = agent.interpreter()
        except LinkLost:
            raise
        except DeviceError:  # the device has no Python
            return facts(quiet)
    try:
        result = agent.run([interpreter, store_file(agent, PROGRAM)], timeout_s=TIMEOUT_S)
        obstacle = too_old(agent, interpreter) if result.returncode != 0 else None
        if obstacle is None:
            result.check()
    except LinkLost:
        raise
    except DeviceError as exc:  # among others: no room for the program, no permission to run the interpreter
        obstacle = str(exc)
    if obstacle is not None:
        return facts(quiet, speed_obstacle=obstacle)
    return facts(quiet, take_snapshot(agent, WORK), _times_ns(agent, interpreter, result))


def _times_ns(agent: Agent, interpreter: str, result: CommandResult) -> tuple[int, ...]:
    """The times, in nanoseconds, that the program printed which repeats a piece of work. `RunnerError` if it printed others."""
    for line in result.stdout.splitlines():
        try:
            message = read_json(line)
        except ValueError:  # a line of another program on the device
            continue
        if not isinstance(message, dict) or message.get("event") != "speed":
            continue
        if message.get("protocol") != PROTOCOL:
            raise RunnerError(
                f"the device speaks protocol {message.get('protocol')!r}, this host {PROTOCOL}; install the same version on both"
            )
        times_ns = message.get("speed_ns")
        if not isinstance(times_ns, list) or not times_ns or not all(is_whole(time_ns, 1, 10**13) for time_ns in times_ns):
            raise RunnerError(
                f"the device sent invalid times of work: {str(times_ns)[:40]!r}; check that its {PROGRAM.name} is of this version"
            )
        return tuple(times_ns)
    raise RunnerError(f"{agent.address} did not time any work; check that {interpreter} is a Python interpreter")


# --------------------------------------------------------------------------------------------------------------- judging


def judge(facts: Facts, threads: int = 1) -> list[Finding]:
    """The findings that would disturb a measurement with this number of threads, the most severe first."""
    order = {"problem": 0, "warning": 1, "note": 2}
    found = [finding for check in CHECKS for finding in check(facts, threads)]
    return sorted(found, key=lambda finding: order[finding.severity])


def _cores(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.allowed_cores is not None and threads > facts.allowed_cores:
        yield Finding(
            "problem",
            f"{threads} threads would share {facts.allowed_cores} core{'s' if facts.allowed_cores != 1 else ''}",
            f"measure with `--threads {max(1, facts.allowed_cores)}`",
        )
    if facts.cores is None:
        return
    if facts.quota_cores is not None and facts.quota_cores < facts.cores:
        yield Finding(
            "problem" if facts.quota_cores < threads else "warning",
            f"its control group grants {facts.quota_cores:g} of {facts.cores} cores and stops the process once they are used up",
            "start the container without a limit (`docker run` without --cpus), or set CPUQuota= of its systemd unit to nothing",
        )
    if facts.affinity is not None and len(facts.affinity) < facts.cores:
        yield Finding(
            "note",
            f"only {len(facts.affinity)} of {facts.cores} cores may be used: {_numbers(facts.affinity)}",
            f"nothing, if that is meant; else `taskset -c 0-{facts.cores - 1} profile ...`",
        )


def _shared_cores(facts: Facts, threads: int) -> Iterator[Finding]:
    allowed = set(facts.affinity) if facts.affinity is not None else None
    groups = [[cpu for cpu in group if allowed is None or cpu in allowed] for group in facts.siblings or ()]
    shared = [group for group in groups if len(group) > 1]
    if shared:
        yield Finding(
            "note",
            f"logical cores share physical ones ({'; '.join(map(_numbers, shared[:3]))}{' ...' if len(shared) > 3 else ''})",
            f"keep to one of each: `taskset -c {','.join(str(group[0]) for group in groups if group)} profile ...`, "
            "or `echo off | sudo tee /sys/devices/system/cpu/smt/control`",
        )


def _clocks(facts: Facts, threads: int) -> Iterator[Finding]:
    pinned = facts.board is not None and facts.board.clocks_pinned is not None  # then `_board` judges the clocks
    if facts.governors is not None and facts.governors != ("performance",) and not pinned:
        yield Finding(
            "warning",
            f"the clock governor is {'+'.join(facts.governors)}: the clock follows the load",
            _phone_clock_remedy(facts)
            or "`sudo cpupower frequency-set -g performance`, or "
            "`echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
        )
    if facts.turbo:
        value = 1 if facts.turbo_file.endswith("no_turbo") else 0
        yield Finding(
            "warning",
            "turbo is on: the clock depends on how warm it is and on how many cores are busy",
            f"`echo {value} | sudo tee {facts.turbo_file}`",
        )


def _phone_clock_remedy(facts: Facts) -> str | None:
    """The remedy for a changing clock on a phone, where root is not available; None for other devices."""
    if facts.phone is None:
        return None
    if facts.phone.fixed_performance and (facts.phone.sdk or 0) >= FIXED_PERFORMANCE_SDK:
        return "measure in the mode of fixed performance: `adb shell cmd power set-fixed-performance-mode-enabled true`"
    return f"nothing without root before Android 11; {MORE_ROUNDS}"


def _phone(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.thermal_status:
        yield Finding(
            "warning" if facts.thermal_status == 1 else "problem",
            f"its thermal status is {facts.thermal_status} ({THERMAL_STATUS[facts.thermal_status]}): it slows down for heat",
            "let it cool: out of its case, off the charger, away from the sun; then run this again",
        )
    if facts.phone is None:
        return
    if facts.phone.low_power:
        yield Finding("problem", "the battery saver is on and holds the clocks down", "`adb shell settings put global low_power 0`")
    if facts.phone.screen_on is False:
        yield Finding(
            "warning",
            "its screen is off: behind a dark screen phones keep processes on slow cores and doze",
            "`adb shell input keyevent 224; adb shell svc power stayon usb`, and turn the brightness down, for a screen warms it",
        )


def _board(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.board is None:
        return
    mode, top = facts.board.power_mode, facts.board.top_mode
    if mode is not None and top is not None and mode != top:
        yield Finding(
            "warning",
            f"its power mode is {mode}, not {top}: cores and clocks are held down",
            f"`sudo nvpmodel -m {facts.board.top_mode_id}`, unless you mean to measure in this mode",
        )
    if facts.board.clocks_pinned is False:
        yield Finding("warning", "its clocks are not pinned: they follow the load", "`sudo jetson_clocks`")


def _energy(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.energy is not None and not facts.energy.readable:
        files = "/sys/class/powercap/intel-rapl:*/energy_uj"
        yield Finding(
            "note",
            f"its energy is counted ({facts.energy.source}), but only root may read it",
            f"for tables of energy: `sudo chmod a+r {files}`"
            if facts.energy.source == "rapl"
            else "for tables of energy: log in as root",
        )


def _other_processes(facts: Facts, threads: int) -> Iterator[Finding]:
    busy = [process for process in facts.processes or () if process.percent >= BUSY_PERCENT]
    seen_percent = sum(process.percent for process in facts.processes or ())
    if busy:
        named = ", ".join(f"{process.name} (pid {process.pid}) {process.percent:.0f} %" for process in busy)
        yield Finding(
            "problem" if sum(process.percent for process in busy) >= VERY_BUSY_PERCENT else "warning",
            f"other processes are busy, in per cent of one core: {named}",
            f"stop {'it' if len(busy) == 1 else 'them'} or wait for the end: `top -p {','.join(str(p.pid) for p in busy)}`",
        )
    if facts.busy_percent is not None and facts.busy_percent - seen_percent >= 2 * BUSY_PERCENT:
        yield Finding(
            "warning",
            f"{facts.busy_percent - seen_percent:.0f} % of one core went to work that is not visible from here, "
            "such as short-lived processes or other containers",
            "look outside the container, with `top` as root",
        )
    elif not busy and facts.load_1min is not None and facts.load_1min >= LOAD:
        yield Finding("note", f"nothing is busy now, but the load over the last minute was {facts.load_1min:.2f}", "wait a minute")


def _virtualisation(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.steal_percent is not None and facts.steal_percent >= STEAL_PERCENT:
        yield Finding(
            "problem" if facts.steal_percent >= MUCH_STEAL_PERCENT else "warning",
            f"the host of this virtual machine took {facts.steal_percent:.1f} % of a core away while it worked",
            f"use a machine with processors of its own, or {MORE_ROUNDS}",
        )
    if facts.hypervisor:
        yield Finding(
            "note",
            "it is a virtual machine: its host and its neighbours may slow it without being seen from here",
            f"measure on a machine of your own, or {MORE_ROUNDS}",
        )
    if facts.container is not None:
        yield Finding(
            "note", f"it is a container ({facts.container}): processes outside are not seen", "run `profile doctor` outside it too"
        )


def _heat(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.throttles:
        yield Finding(
            "problem",
            f"the processor slowed itself down for heat {facts.throttles} times within two seconds",
            "let it cool, or cool it better; then run this again",
        )
    for zone in facts.zones or ():
        hot_c = HOT_C if zone.limit_c is None else zone.limit_c - NEAR_LIMIT_C
        if zone.temperature_c >= hot_c:
            limit = "" if zone.limit_c is None else f", its limit is {zone.limit_c:.0f} °C"
            yield Finding(
                "problem" if zone.limit_c is not None and zone.temperature_c >= zone.limit_c else "warning",
                f"{zone.name} is at {zone.temperature_c:.0f} °C{limit}",
                "let it cool, or cool it better; a hot processor slows down",
            )
    for battery in facts.batteries or ():
        if battery.status == "Discharging":
            charge = "charge not readable" if battery.charge_percent is None else f"{battery.charge_percent:.0f} %"
            yield Finding("warning", f"it runs on its battery {battery.name} ({charge})", "plug it in")
        if battery.charge_percent is not None and battery.charge_percent < LOW_BATTERY_PERCENT:
            yield Finding(
                "warning",
                f"its battery {battery.name} is down to {battery.charge_percent:.0f} %: many devices slow down then",
                f"charge it to {LOW_BATTERY_PERCENT:.0f} % or more first, for charging warms it",
            )


def _speed(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.speed_obstacle is not None:
        what, _, next_step = facts.speed_obstacle.partition("; ")
        yield Finding("warning", what, next_step or f"see why {PROGRAM.name} does not run there")
    change = facts.speed_change_percent
    if change is not None and change >= UNSTEADY_PERCENT:
        yield Finding(
            "warning" if change >= VERY_UNSTEADY_PERCENT else "note",
            f"its speed changes by {change:.0f} % from one moment to the next",
            f"fix the clock and stop what else runs; where you cannot, {MORE_ROUNDS}",
        )


def _unreadable(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.unreadable:
        yield Finding(
            "note", f"not readable: {', '.join(facts.unreadable)}", "check these yourself if you can; nothing is assumed about them"
        )


CHECKS: Sequence[Callable[[Facts, int], Iterator[Finding]]] = (
    _cores, _other_processes, _virtualisation, _phone, _heat, _board, _clocks, _speed, _shared_cores, _energy, _unreadable,
)  # fmt: skip
"""All checks of the facts, in the order of their findings."""


def _numbers(cpus: Sequence[int]) -> str:
    return ", ".join(map(str, cpus[:8])) + (" ..." if len(cpus) > 8 else "")
