"""Bringing a device into a state in which it can be measured, and out of it again: cool, and at a speed that does not change.

Only Android's mode of fixed performance can be set without root; what else there is (governors, a Jetson's power mode, whether its
clocks are pinned) is recorded, to go into the table, and `profile doctor` says how to set it.
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
from device_agents.discovery import RUNNER
from device_agents.errors import DeviceError
from profiler.devices import boards, cores
from profiler.devices.cores import big_cores
from profiler.devices.snapshot import EVERYTHING, HEAT, Snapshot, take
from profiler.devices.thermal import Heat, heat
from profiler.errors import TooHot

__all__ = ["Conditioned", "Cooling", "big_cores", "conditioned", "wait_until_cool"]

PROGRAM = RUNNER.with_name("fixed_performance.sh")
POLL_S, SAY_EVERY_S = 10.0, 60.0
COMMAND_S = 30.0
EXPIRY_S = 900
"""The device ends the mode of fixed performance by itself when nobody has renewed it for so long."""
RENEW_S = 60.0
WATCH_POLL_S = 20


# ---------------------------------------------------------------------------------------------------------------- cooling


@dataclass(frozen=True, slots=True)
class Cooling:
    """How cool a device must be to be measured."""

    status: int = 0
    """Android's thermal status at most."""
    below_c: float | None = None
    """The hottest sensor; None for any."""
    battery_below_c: float | None = None
    wait_s: float = 600.0
    """How long to wait for it."""


def wait_until_cool(
    agent: Agent,
    rules: Cooling,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Seconds waited. What cannot be read is not waited for. `TooHot` if it did not cool down in time."""
    started_s = clock()
    said_s: float | None = None
    while reasons := _too_warm(heat(take(agent, HEAT)), rules):
        now_s = clock()
        left_s = rules.wait_s - (now_s - started_s)
        if left_s <= 0:
            raise TooHot(
                f"{agent.address} is still too warm after {rules.wait_s:.0f} s: {', '.join(reasons)}; let it lie off "
                "the charger and out of its case, stop what else runs, then start again, or allow more heat or a longer wait"
            )
        if said_s is None or now_s - said_s >= SAY_EVERY_S:
            say(f"waiting for {agent.address} to cool down: {', '.join(reasons)}")
            said_s = now_s
        sleep(min(POLL_S, left_s))
    return 0.0 if said_s is None else clock() - started_s


def _too_warm(now: Heat, rules: Cooling) -> list[str]:
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


# --------------------------------------------------------------------------------------------------------------- conditioned


class Conditioned:
    """A device while it is held conditioning."""

    def __init__(self, state: dict[str, Any], mode: _FixedPerformance | None, clock: Callable[[], float]) -> None:
        self.state = state
        """What was set and what was found, JSON-ready; `fixed_performance` is `on`, `unsupported` or `not wanted`."""
        self._mode, self._clock, self._renewed_s = mode, clock, clock()

    def renew(self) -> None:
        """To be called every few minutes at least, or the device ends the mode by itself; it does nothing more than once a minute.

        Call it too after reconnecting to a device that was gone for long. `DeviceError` if it cannot be reached.
        """
        if self._mode is not None and self._clock() - self._renewed_s >= RENEW_S:
            self._mode.switch("renew")
            self._renewed_s = self._clock()


@contextmanager
def conditioned(
    agent: Agent, *, fixed_performance: bool, clock: Callable[[], float] = time.monotonic, expiry_s: int = EXPIRY_S
) -> Iterator[Conditioned]:
    """Switch Android's mode of fixed performance on, if wanted and supported, and off again at the end, whatever happens.

    Whether it was on before cannot be read: it is off afterwards. `state["restored"]` is false if the device was out of reach at
    the end; it then ends the mode by itself, `expiry_s` after the last renewal.
    """
    snapshot = take(agent, replace(EVERYTHING, watch_s=0))
    state = recorded(snapshot)
    if not fixed_performance or not _offers(snapshot):
        yield Conditioned(state | {"fixed_performance": "unsupported" if fixed_performance else "not wanted"}, None, clock)
        return
    mode = _FixedPerformance(agent, expiry_s)
    try:
        works = mode.switch("on")
        state |= {"fixed_performance": "on" if works else "unsupported"}
        yield Conditioned(state, mode if works else None, clock)
    finally:
        state["restored"] = _restore(agent, mode)


def recorded(snapshot: Snapshot) -> dict[str, Any]:
    """What matters for the speed of a device and is not ours to set, JSON-ready; None is not readable or not there."""
    phone, board, governors = boards.phone(snapshot), boards.board(snapshot), cores.governors(snapshot)
    turbo, big = cores.turbo(snapshot), big_cores(snapshot)
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


def _offers(snapshot: Snapshot) -> bool:
    phone = boards.phone(snapshot)
    return phone is not None and (phone.sdk or 0) >= boards.FIXED_PERFORMANCE_SDK


def _restore(agent: Agent, mode: _FixedPerformance) -> bool:
    """Never fails: at the end there may be another error on its way, and the device helps itself."""
    with contextlib.suppress(DeviceError):
        return mode.switch("off")
    with contextlib.suppress(DeviceError):
        agent.reconnect()
        return mode.switch("off")
    return False


class _FixedPerformance:
    """The program on the device that switches the mode, and the file there that holds the time of the last renewal."""

    def __init__(self, agent: Agent, expiry_s: int) -> None:
        self._agent, self._program = agent, store_file(agent, PROGRAM)
        renewed = self._program.rpartition("/")[0] + f"/renewed-{secrets.token_hex(4)}"
        self._details = [renewed, str(expiry_s), str(min(WATCH_POLL_S, expiry_s))]

    def switch(self, action: str) -> bool:
        """`on`, `renew` or `off`; whether the device did it."""
        return self._agent.run(["sh", self._program, action, *self._details], timeout_s=COMMAND_S).returncode == 0
