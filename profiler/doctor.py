"""What would disturb measurements on a device, and how to mend each: facts are read there, judged here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeVar

from device_agents import RUNNER, Agent
from profiler.check import Finding
from profiler.errors import RunnerError

PROGRAM = RUNNER.with_name("conditions.py")
PROTOCOL = 1
TIMEOUT_S = 60.0
BUSY_PERCENT, VERY_BUSY_PERCENT = 10.0, 50.0
"""Of one core, taken by others."""
LOAD = 0.5
STEAL_PERCENT, MUCH_STEAL_PERCENT = 1.0, 10.0
UNSTEADY_PERCENT, VERY_UNSTEADY_PERCENT = 5.0, 15.0
"""Within the first, tables close; beyond the second, `profile check` remarks on it."""
HOT_C, NEAR_LIMIT_C = 80.0, 10.0
"""Hot where a zone names no limit of its own, and how near to its limit is hot where it does."""
SPELLS = 25
T = TypeVar("T")

MORE_ROUNDS = "build with more rounds, so that some fall into quiet spells: `profile build ... --rounds 12`"


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    name: str
    percent: float
    """Of one core."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A place in the device whose temperature is measured."""

    name: str
    temperature_c: float
    limit_c: float | None
    """At which the device does something about it."""


@dataclass(frozen=True, slots=True)
class Battery:
    name: str
    status: str | None
    charge_percent: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device told about itself. None is not readable, everywhere but in `quota_cores` and `container`."""

    cores: int
    affinity: tuple[int, ...] | None
    siblings: tuple[tuple[int, ...], ...] | None
    """Groups of logical processors that share a core."""
    governors: tuple[str, ...] | None
    turbo: bool | None
    turbo_file: str
    load_1min: float | None
    busy_percent: float | None
    """Of one core, by all processes while the device was only watched."""
    processes: tuple[Process, ...] | None
    """The busiest of the others, busiest first."""
    steal_percent: float | None
    """Of one core, taken by the host of a virtual machine while it worked."""
    hypervisor: bool | None
    container: str | None
    """Its kind; None where nothing shows that it is one."""
    quota_known: bool
    quota_cores: float | None
    """How many cores' worth of time the control group grants; None for no limit."""
    zones: tuple[Zone, ...] | None
    throttles: int | None
    """How often the processors slowed down for heat while they worked for two seconds."""
    batteries: tuple[Battery, ...] | None
    speed_ns: tuple[int, ...]
    """Times of the same piece of work, one after the other."""

    @property
    def speed_change_percent(self) -> float:
        """How much longer the work takes in slow spells than in fast ones: their medians' 95th against 5th percentile."""
        size = max(1, len(self.speed_ns) // SPELLS)
        spells = sorted(median(self.speed_ns[start : start + size]) for start in range(0, len(self.speed_ns) - size + 1, size))
        trim = len(spells) // 20
        return (spells[-1 - trim] / spells[trim] - 1) * 100

    @property
    def allowed_cores(self) -> int:
        return self.cores if self.affinity is None else len(self.affinity)

    @property
    def unreadable(self) -> list[str]:
        named = {
            "clock governor": self.governors,
            "turbo": self.turbo,
            "temperature": self.zones,
            "battery": self.batteries,
            "load": self.load_1min,
            "other processes": self.processes,
            "steal time": self.steal_percent,
            "whether it is a virtual machine": self.hypervisor,
            "limit of processor time": self.quota_known or None,
            "shared cores": self.siblings,
            "affinity": self.affinity,
        }
        return [name for name, value in named.items() if value is None]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Facts:
        """Of what a device sent, which may be anything: `RunnerError` says what cannot be."""
        try:
            turbo, quota = plain["turbo"], plain["quota"]
            return cls(
                cores=_whole(plain["cores"], 1),
                affinity=_maybe(plain["affinity"], _cpus),
                siblings=_maybe(plain["siblings"], lambda groups: tuple(map(_cpus, _list(groups)))),
                governors=_maybe(plain["governors"], lambda names: tuple(map(_text, _list(names)))),
                turbo=None if turbo is None else _flag(turbo["enabled"]),
                turbo_file="" if turbo is None else _text(turbo["file"]),
                load_1min=_maybe(plain["load_1min"], _number),
                busy_percent=_maybe(plain["busy_percent"], _number),
                processes=_maybe(plain["processes"], lambda items: tuple(map(_process, _list(items)))),
                steal_percent=_maybe(plain["steal_percent"], _number),
                hypervisor=_maybe(plain["hypervisor"], _flag),
                container=_maybe(plain["container"], _text),
                quota_known=quota is not None,
                quota_cores=None if quota is None else _maybe(quota["cores"], _number),
                zones=_maybe(plain["zones"], lambda items: tuple(map(_zone, _list(items)))),
                throttles=_maybe(plain["throttles"], _whole),
                batteries=_maybe(plain["batteries"], lambda items: tuple(map(_battery, _list(items)))),
                speed_ns=_times(plain["speed_ns"]),
            )
        except KeyError as exc:
            raise RunnerError(f"the device did not tell its {exc.args[0]}; is {PROGRAM.name} the one of this version?") from exc
        except (TypeError, ValueError) as exc:
            raise RunnerError(f"the device told what cannot be: {exc}; is {PROGRAM.name} the one of this version?") from exc

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: all but the raw times, which are summed up."""
        plain = asdict(self) | {"speed_change_percent": self.speed_change_percent, "not_readable": self.unreadable}
        return {name: value for name, value in plain.items() if name != "speed_ns"}

    def sentence(self) -> str:
        governor = "not readable" if self.governors is None else "+".join(self.governors)
        load = "not readable" if self.load_1min is None else f"{self.load_1min:.2f}"
        return f"{self.cores} cores, governor {governor}, load {load}, speed changes by {self.speed_change_percent:.1f} %"


def examine(agent: Agent, python: str | None = None) -> Facts:
    """Read the facts on the device, which takes some four seconds. `RunnerError` if it does not tell them."""
    data = PROGRAM.read_bytes()
    name = f"{PROGRAM.stem}-{hashlib.sha256(data).hexdigest()[:16]}.py"
    folder, interpreter = agent.store({name: data}), python or agent.interpreter()
    result = agent.run([interpreter, f"{folder}/{name}"], timeout_s=TIMEOUT_S).check()
    for line in result.stdout.splitlines():
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(message, dict) and message.get("event") == "doctor":
            if message.get("protocol") != PROTOCOL:
                raise RunnerError(f"the device speaks protocol {message.get('protocol')!r}, this host {PROTOCOL}")
            return Facts.from_dict(message)
    raise RunnerError(f"{agent.address} told nothing about itself; is {interpreter} a Python interpreter?")


# --------------------------------------------------------------------------------------------------------------- judging


def judge(facts: Facts, threads: int = 1) -> list[Finding]:
    """What would disturb a measurement with so many threads, worst first; an empty list means nothing was found."""
    order = {"problem": 0, "warning": 1, "note": 2}
    found = [finding for look in LOOKS for finding in look(facts, threads)]
    return sorted(found, key=lambda finding: order[finding.severity])


def _cores(facts: Facts, threads: int) -> Iterator[Finding]:
    if threads > facts.allowed_cores:
        yield Finding(
            "problem",
            f"{threads} threads would share {facts.allowed_cores} core{'s' if facts.allowed_cores != 1 else ''}",
            f"measure with `--threads {max(1, facts.allowed_cores)}`",
        )
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
    if facts.governors is not None and facts.governors != ("performance",):
        yield Finding(
            "warning",
            f"the clock governor is {'+'.join(facts.governors)}: the clock follows the load",
            "`sudo cpupower frequency-set -g performance`, or "
            "`echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
        )
    if facts.turbo:
        value = 1 if facts.turbo_file.endswith("no_turbo") else 0
        yield Finding(
            "warning",
            "turbo is on: the clock depends on how warm it is and on how many cores are busy",
            f"`echo {value} | sudo tee {facts.turbo_file}`",
        )


def _others(facts: Facts, threads: int) -> Iterator[Finding]:
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
            f"{facts.busy_percent - seen_percent:.0f} % of one core went to what cannot be seen from here, "
            "such as short-lived processes or other containers",
            "look outside the container, with `top` as root",
        )
    elif not busy and facts.load_1min is not None and facts.load_1min >= LOAD:
        yield Finding("note", f"nothing is busy now, but the load over the last minute was {facts.load_1min:.2f}", "wait a minute")


def _host(facts: Facts, threads: int) -> Iterator[Finding]:
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
            "let it cool, or cool it better; then look again",
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


def _speed(facts: Facts, threads: int) -> Iterator[Finding]:
    change = facts.speed_change_percent
    if change >= UNSTEADY_PERCENT:
        yield Finding(
            "warning" if change >= VERY_UNSTEADY_PERCENT else "note",
            f"its speed changes by {change:.0f} % from one moment to the next",
            f"fix the clock and stop what else runs; where you cannot, {MORE_ROUNDS}",
        )


def _unreadable(facts: Facts, threads: int) -> Iterator[Finding]:
    if facts.unreadable:
        yield Finding(
            "note", f"not readable: {', '.join(facts.unreadable)}", "see to these yourself if you can; nothing is assumed"
        )


LOOKS: Sequence[Callable[[Facts, int], Iterator[Finding]]] = (
    _cores, _others, _host, _heat, _clocks, _speed, _shared_cores, _unreadable,
)  # fmt: skip
"""Every look at the facts, in the order of the findings."""


def _numbers(cpus: Sequence[int]) -> str:
    return ", ".join(map(str, cpus[:8])) + (" ..." if len(cpus) > 8 else "")


# ------------------------------------------------------------------------------------------------- what came back, checked


def _maybe(value: Any, check: Callable[[Any], T]) -> T | None:
    return None if value is None else check(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, got {str(value)[:40]!r}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"yes or no was expected, got {str(value)[:40]!r}")
    return value


def _whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 10**13:
        raise ValueError(f"a whole number from {least} was expected, got {str(value)[:40]!r}")
    return value


def _number(value: Any, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e13:
        raise ValueError(f"a number from {least:g} was expected, got {str(value)[:40]!r}")
    return float(value)


def _text(value: Any) -> str:
    """Processes name themselves: what would confuse a terminal is replaced."""
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, got {str(value)[:40]!r}")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:80])


def _cpus(value: Any) -> tuple[int, ...]:
    return tuple(_whole(cpu) for cpu in _list(value))


def _process(plain: Any) -> Process:
    return Process(_whole(plain["pid"]), _text(plain["name"]), _number(plain["percent"]))


def _zone(plain: Any) -> Zone:
    return Zone(_text(plain["name"]), _number(plain["temperature_c"], -300.0), _maybe(plain["limit_c"], _number))


def _battery(plain: Any) -> Battery:
    return Battery(_text(plain["name"]), _maybe(plain["status"], _text), _maybe(plain["charge_percent"], _number))


def _times(value: Any) -> tuple[int, ...]:
    times = tuple(_whole(time_ns, 1) for time_ns in _list(value))
    if not times:
        raise ValueError("no time of the work was told")
    return times
