"""Conditioning of a device for measuring: it has cooled down, and its speed does not change.

Only Android's fixed-performance mode can be set without root. Other settings that change the speed (clock governors, the power mode
and the pinned clocks of a Jetson) are recorded for the table, and `profile doctor` explains how to change them.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from device_agents.agent import Agent, store_file
from device_agents.errors import DeviceError
from device_agents.python_runner import ON_DEVICE
from device_agents.support.text import printable
from profiler.devices import boards, cores
from profiler.devices.cores import big_cores
from profiler.devices.snapshot import EVERYTHING, HEAT, THERMAL, ZONES, Snapshot, take_snapshot
from profiler.devices.thermal import Heat, cached, heat
from profiler.errors import TooHot

__all__ = ["Conditioned", "Cooling", "big_cores", "conditioned", "wait_until_cool"]

PROGRAM = ON_DEVICE / "fixed_performance.sh"
POLL_S = 10.0
REPORT_EVERY_S = 60.0
COMMAND_S = 30.0
EXPIRY_S = 900
"""The device ends the mode of fixed performance by itself when nobody has renewed it for so long."""
RENEW_S = 60.0
WATCH_POLL_S = 20


# ---------------------------------------------------------------------------------------------------------------- cooling


@dataclass(frozen=True, slots=True)
class Cooling:
    """The temperatures that a device must reach before it is measured; None is no limit. What cannot be read is not waited for."""

    status: int = 0
    """The highest accepted thermal status of Android."""
    below_c: float | None = None
    """The limit for the hottest sensor, in °C."""
    battery_below_c: float | None = None
    """The limit for the hottest battery, in °C."""
    wait_s: float = 600.0
    """The longest wait, in seconds."""


def wait_until_cool(
    agent: Agent,
    rules: Cooling,
    say: Callable[[str], None],
    *,
    told: set[str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Wait until the device is cool enough, and return the seconds waited.

    `say` receives the reasons once a minute, and what cannot be read unless it is in `told`, to which it is added. Raises `TooHot`
    if the device does not cool down within `rules.wait_s`, and `DeviceError` if it cannot be reached.
    """
    started_s, told = clock(), set() if told is None else told
    reported_s: float | None = None
    first: Heat | None = None
    while True:
        snapshot = take_snapshot(agent, HEAT)
        for doubt in _doubts(snapshot, rules):
            if doubt not in told:
                say(f"{agent.address}: {doubt}")
                told.add(doubt)
        found = heat(snapshot)
        first = first or found
        reasons = _too_warm(found, rules)
        if not reasons:
            break
        now_s = clock()
        left_s = rules.wait_s - (now_s - started_s)
        if left_s <= 0:
            # a sensor that is read moves by a digit within minutes; a thermal status need not
            same = (found.hottest_c, found.battery_c) == (first.hottest_c, first.battery_c)
            stale = "no temperature has changed at all; leave the limit out of `cool` if they are stale, or "
            raise TooHot(
                f"{agent.address} is still too warm after {rules.wait_s:.0f} s: {', '.join(reasons)}; "
                f"{stale if same and reported_s is not None and '°C' in reasons[-1] else ''}take it off the charger and out of its "
                "case and stop other programs, then start again, or raise the limits or the wait in `cool`"
            )
        if reported_s is None or now_s - reported_s >= REPORT_EVERY_S:
            say(f"waiting for {agent.address} to cool down: {', '.join(reasons)}")
            reported_s = now_s
        sleep(min(POLL_S, left_s))
    return 0.0 if reported_s is None else clock() - started_s


def _doubts(snapshot: Snapshot, rules: Cooling) -> Iterator[str]:
    """A sentence for each rule whose reading is missing, refused or old: what is read, and what is done."""
    now, service = heat(snapshot), snapshot.output(THERMAL)
    if now.status is None and (service is not None or rules.status > 0):
        said = f" ({printable(service.splitlines()[0], 80)})" if service else ""
        yield f"its thermal status cannot be read{said}, so no thermal status is waited for"
    if rules.below_c is not None and now.hottest_c is None:
        refused = any(snapshot.text(path) is None for path in snapshot.glob(f"{ZONES}/thermal_zone*/temp"))
        what = "may not be read by this user" if refused else "is not told by any sensor"
        yield f"its temperature {what}, so `below_c` of `cool` is not waited for"
    if rules.below_c is not None and now.hottest_c is not None and cached(snapshot):
        yield "it tells only temperatures that it has kept, maybe for hours; they are held to `below_c` of `cool` all the same"
    if rules.battery_below_c is not None and now.battery_c is None:
        yield "the temperature of its battery cannot be read, so `battery_below_c` of `cool` is not waited for"


def _too_warm(now: Heat, rules: Cooling) -> list[str]:
    """A phrase for each limit that is exceeded."""
    reasons = []
    if now.status is not None and now.status > rules.status:
        reasons.append(f"thermal status {now.status}, wanted {rules.status}")
    for name, value_c, limit_c in (
        ("hottest sensor", now.hottest_c, rules.below_c),
        ("battery", now.battery_c, rules.battery_below_c),
    ):
        if value_c is not None and limit_c is not None and value_c >= limit_c:
            reasons.append(f"{name} at {value_c:.1f} °C, wanted below {limit_c:g} °C")
    return reasons


# --------------------------------------------------------------------------------------------------------- fixed performance


class Conditioned:
    """A device while its conditioning is maintained."""

    def __init__(
        self, state: dict[str, Any], cores: int | None, mode: _FixedPerformance | None, clock: Callable[[], float]
    ) -> None:
        self.state = state
        """The settings that were made or found, JSON-ready; `fixed_performance` is `on`, `unsupported` or `not wanted`."""
        self.cores = cores
        """The number of cores on which our processes may run; None if it cannot be read."""
        self._mode = mode
        self._clock = clock
        self._renewed_s = clock()

    def renew(self) -> None:
        """Keep the fixed-performance mode on. Call it at least every few minutes, or the device ends the mode by itself.

        It acts at most once a minute. Call it also after a reconnection. Raises `DeviceError` if the device cannot be reached.
        """
        if self._mode is not None and self._clock() - self._renewed_s >= RENEW_S:
            self._mode.switch("renew")
            self._renewed_s = self._clock()


@contextmanager
def conditioned(
    agent: Agent, *, fixed_performance: bool, clock: Callable[[], float] = time.monotonic, expiry_s: int = EXPIRY_S
) -> Iterator[Conditioned]:
    """Switch Android's fixed-performance mode on, if requested and supported, and off again at the end in any case.

    Android does not report the earlier setting, so the mode is off afterwards. `state["restored"]` is False if the device could not
    be reached at the end; the device then ends the mode itself, `expiry_s` seconds after the last renewal.
    """
    snapshot = take_snapshot(agent, replace(EVERYTHING, watch_s=0))
    state = recorded(snapshot)
    phone, usable = boards.phone(snapshot), cores.usable(snapshot)
    if not fixed_performance:
        yield Conditioned(state | {"fixed_performance": "not wanted"}, usable, None, clock)
        return
    if phone is None or (phone.sdk or 0) < boards.FIXED_PERFORMANCE_SDK:
        yield Conditioned(state | {"fixed_performance": "unsupported"}, usable, None, clock)
        return
    mode = _FixedPerformance(agent, expiry_s)
    try:
        works = mode.switch("on")
        state |= {"fixed_performance": "on" if works else "unsupported"}
        yield Conditioned(state, usable, mode if works else None, clock)
    finally:
        state["restored"] = _restore(agent, mode)


def recorded(snapshot: Snapshot) -> dict[str, Any]:
    """The settings that change the speed of a device and that we do not set, JSON-ready; None if unreadable or absent."""
    phone = boards.phone(snapshot)
    board = boards.board(snapshot)
    governors = cores.governors(snapshot)
    turbo = cores.turbo(snapshot)
    big = big_cores(snapshot)
    return {
        "build": boards.build(snapshot),
        "governors": None if governors is None else list(governors),
        "turbo": None if turbo is None else turbo[0],
        "big_cores": None if big is None else list(big),
        "screen_on": None if phone is None else phone.screen_on,
        "low_power": None if phone is None else phone.low_power,
        "power_mode": None if board is None else board.power_mode,
        "clocks_pinned": None if board is None else board.clocks_pinned,
    }


def _restore(agent: Agent, mode: _FixedPerformance) -> bool:
    """True if the mode was switched off."""
    # no error may leave this function: another one may be on its way, and the device ends the mode by itself
    with contextlib.suppress(DeviceError):
        return mode.switch("off")
    with contextlib.suppress(DeviceError):
        agent.reconnect()
        return mode.switch("off")
    return False


class _FixedPerformance:
    """The program on the device that switches the mode, with the file on the device that limits its duration."""

    def __init__(self, agent: Agent, expiry_s: int) -> None:
        self._agent, self._program = agent, store_file(agent, PROGRAM)
        renewed = self._program.rpartition("/")[0] + f"/renewed-{secrets.token_hex(4)}"
        self._details = [renewed, str(expiry_s), str(min(WATCH_POLL_S, expiry_s))]

    def switch(self, action: str) -> bool:
        """True if the device carried out the action: `on`, `renew` or `off`."""
        return self._agent.run(["sh", self._program, action, *self._details], timeout_s=COMMAND_S).returncode == 0
