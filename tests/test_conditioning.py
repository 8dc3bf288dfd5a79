"""A device is cooled and held conditioning through its shell; its programs are scripts that keep a log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from devices import Device, program, recorded, tree

from device_agents.agent import CommandResult
from device_agents.errors import LinkLost
from profiler.devices.conditioning import Cooling, _doubts, big_cores, conditioned, wait_until_cool
from profiler.devices.snapshot import CPUS, Snapshot
from profiler.errors import TooHot

# -------------------------------------------------------------------------------------------------------------- big cores


def cores(clocks_khz: Sequence[int], capacities: Sequence[int] = (), online: str = "", allowed: str = "") -> Snapshot:
    files = {f"{CPUS}/cpu{n}/cpufreq/cpuinfo_max_freq": str(clock) for n, clock in enumerate(clocks_khz)}
    files |= {f"{CPUS}/cpu{n}/cpu_capacity": str(capacity) for n, capacity in enumerate(capacities)}
    files |= {f"{CPUS}/online": online or f"0-{len(clocks_khz) - 1}"}
    return Snapshot(files | ({"/proc/self/status": f"Name:\tsh\nCpus_allowed_list:\t{allowed}\n"} if allowed else {}))


PIXEL_1 = [1593600, 1593600, 2150400, 2150400]
PIXEL_4 = [1785600] * 4 + [2419200] * 3 + [2841600]


def test_the_fastest_cluster_is_found_by_its_clock() -> None:
    assert big_cores(cores(PIXEL_1)) == (2, 3)
    assert big_cores(cores(PIXEL_4)) == (7,)


def test_what_a_core_can_do_counts_before_its_clock() -> None:
    assert big_cores(cores([2000000] * 4, [1024, 1024, 400, 400])) == (0, 1)
    assert big_cores(cores([2400000, 2400000, 2000000, 2000000], [400, 400, 1024, 1024])) == (2, 3)


def test_a_core_that_is_off_or_not_allowed_is_no_choice() -> None:
    assert big_cores(cores(PIXEL_4, online="0-6")) == (4, 5, 6)
    assert big_cores(cores(PIXEL_4, allowed="0-5")) == (4, 5)


def test_cores_that_are_alike_have_no_fastest() -> None:
    assert big_cores(cores([3000000] * 4)) is None
    assert big_cores(cores([3000000, 3000000, 3050000, 2980000])) is None
    assert big_cores(cores(PIXEL_4, allowed="0-3")) is None


def test_cores_that_cannot_be_read_are_not_guessed() -> None:
    assert big_cores(Snapshot()) is None
    assert big_cores(Snapshot({f"{CPUS}/online": "0-3", f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": "2"})) is None


# ---------------------------------------------------------------------------------------------------------------- cooling


class Clock:
    """Time that passes by sleeping only; each sleep may change the device."""

    def __init__(self, then: Callable[[float], None] = lambda now_s: None) -> None:
        self.now_s, self._then = 0.0, then

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self._then(self.now_s)


def thermal(folder: Path, status: int, cpu_c: float, battery_c: float = 25.0) -> None:
    program(folder, "dumpsys", f'[ "$1" = thermalservice ] && cat {folder}/thermal || cat {folder}/battery')
    (folder / "battery").write_text(recorded("battery_pixel_c.txt").replace("275", str(round(battery_c * 10))))
    text = recorded("thermalservice_galaxy_a52.txt").replace("mValue=25.6", f"mValue={cpu_c}")
    (folder / "thermal").write_text(text.replace("Thermal Status: 0", f"Thermal Status: {status}"))


def test_a_cool_device_is_not_waited_for(tmp_path: Path) -> None:
    thermal(tmp_path, 0, 31.0)
    said: list[str] = []
    assert wait_until_cool(Device(tmp_path), Cooling(0, 40.0, 35.0), said.append, clock=Clock()) == 0
    assert said == []


def test_a_warm_device_is_waited_for_and_the_reason_said_every_minute(tmp_path: Path) -> None:
    thermal(tmp_path, 2, 55.0, 41.0)
    clock = Clock(lambda now_s: thermal(tmp_path, 0, 38.0, 30.0) if now_s >= 90 else None)
    said: list[str] = []
    assert wait_until_cool(Device(tmp_path), Cooling(0, 45.0, 35.0), said.append, sleep=clock.sleep, clock=clock) == 90
    assert len(said) == 2
    assert "thermal status 2, wanted 0" in said[0]
    assert "hottest sensor at 55.0 °C, wanted below 45 °C" in said[0]
    assert "battery at 41.0 °C, wanted below 35 °C" in said[0]


def test_a_device_that_stays_hot_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    thermal(tmp_path, 3, 80.0)
    clock = Clock()
    with pytest.raises(TooHot, match=r"after 25 s: thermal status 3.*off the charger"):
        wait_until_cool(Device(tmp_path), Cooling(wait_s=25), lambda text: None, sleep=clock.sleep, clock=clock)
    assert clock.now_s == 25


def test_a_device_whose_heat_cannot_be_read_waits_for_nothing(tmp_path: Path) -> None:
    program(tmp_path, "dumpsys", 'echo "Can\'t find service: $1"')
    assert wait_until_cool(Device(tmp_path), Cooling(below_c=-10.0), print, clock=Clock()) == 0


def said_of(
    folder: Path, rules: Cooling, thermal_service: str = "", battery: str = "", zones: dict[str, str] | None = None
) -> list[str]:
    """What is said in three waits of one session for a device that tells this."""
    program(folder / "bin", "dumpsys", f'[ "$1" = battery ] && printf "%s" "{battery}" || printf "%s" "{thermal_service}"')
    root = tree(folder / "root", {f"sys/class/thermal/{name}": text for name, text in (zones or {}).items()})
    said: list[str] = []
    told: set[str] = set()
    for _ in range(3):
        wait_until_cool(Rooted(folder / "bin", root), rules, said.append, told=told, clock=Clock())
    return said


class Rooted(Device):
    """Its files are those below a folder of this machine."""

    def __init__(self, programs: Path, root: str) -> None:
        super().__init__(programs)
        self._root = root

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        return super().run([word.replace("R=''", f"R={self._root}", 1) for word in argv], timeout_s=timeout_s)


NOTHING_WANTED = Cooling()
ALL_WANTED = Cooling(below_c=40.0, battery_below_c=35.0)
CACHED = (
    "IsStatusOverride: false\nThermal Status: 0\nCached temperatures:\n\tTemperature{{mValue={}, mType=0, mName=AP, mStatus=0}}"
)
WARM = {"thermal_zone0/temp": "30000"}
BATTERY_FULL = "level: 100\nscale: 100\nstatus: 5\npresent: true\ntemperature: 250\n"


@pytest.mark.parametrize(
    ("told", "phrases"),
    [
        ({}, ["below_c` of `cool` is not waited for", "battery_below_c` of `cool` is not waited for"]),
        (
            {"thermal_service": "Can't find service: thermalservice", "battery": BATTERY_FULL, "zones": WARM},
            ["thermal status cannot be read (Can't find service: thermalservice), so no thermal status is waited for"],
        ),
        (
            {"thermal_service": "Permission Denial: can't dump thermalservice from pid=1", "battery": BATTERY_FULL},
            ["(Permission Denial: can't dump", "temperature is not told by any sensor"],
        ),
        ({"zones": {"thermal_zone0/temp": "-273000"}, "battery": BATTERY_FULL}, ["temperature is not told by any sensor"]),
        ({"thermal_service": CACHED.format(31.0), "battery": BATTERY_FULL}, ["maybe for hours"]),
        ({"zones": WARM, "battery": "Permission Denial"}, ["temperature of its battery cannot be read"]),
    ],
    ids=["nothing", "before Android 10", "refused", "implausible", "stale", "battery refused"],
)  # fmt: skip
def test_a_rule_whose_reading_is_not_to_be_had_is_said_once_and_what_is_done(
    tmp_path: Path, told: dict[str, Any], phrases: list[str]
) -> None:
    said = said_of(tmp_path, ALL_WANTED, **told)
    assert len(said) == len(phrases), said
    for phrase, sentence in zip(phrases, said, strict=True):
        assert phrase in sentence


def test_a_sensor_that_may_not_be_read_is_told_from_one_that_is_not_there() -> None:
    refused = Snapshot(seen=frozenset({"/sys/class/thermal/thermal_zone0/temp"}))
    (sentence,) = _doubts(refused, Cooling(below_c=40.0))
    assert "may not be read by this user" in sentence


def test_nothing_is_said_of_what_no_rule_asks_for(tmp_path: Path) -> None:
    assert said_of(tmp_path, NOTHING_WANTED) == []
    assert said_of(tmp_path, NOTHING_WANTED, CACHED.format(80.0)) == []


def test_nothing_is_said_where_all_can_be_read(tmp_path: Path) -> None:
    current = CACHED.format(31.0) + "\nCurrent temperatures from HAL:\n\tTemperature{mValue=31.0, mType=0, mName=AP, mStatus=0}\n"
    assert said_of(tmp_path, ALL_WANTED, current, BATTERY_FULL) == []


def test_a_temperature_that_does_not_change_while_it_is_waited_for_is_named_as_possibly_stale(tmp_path: Path) -> None:
    thermal(tmp_path, 0, 55.0)
    clock = Clock()
    with pytest.raises(TooHot, match="no temperature has changed at all; leave the limit out"):
        wait_until_cool(Device(tmp_path), Cooling(below_c=40.0, wait_s=25), lambda _: None, sleep=clock.sleep, clock=clock)
    moving = Clock(lambda now_s: thermal(tmp_path, 0, 55.0 - now_s / 10))
    with pytest.raises(TooHot) as told:
        wait_until_cool(Device(tmp_path), Cooling(below_c=40.0, wait_s=25), lambda _: None, sleep=moving.sleep, clock=moving)
    assert "changed at all" not in str(told.value)


# --------------------------------------------------------------------------------------------------------------- conditioned


class Phone(Device):
    """A phone whose link can be cut; its log says what was asked of its mode of fixed performance."""

    def __init__(self, folder: Path, sdk: int = 33, supported: bool = True) -> None:
        super().__init__(folder)
        self.folder, self.cuts, self.reconnects = folder, 0, 0
        (folder / "getprop.txt").write_text(recorded("getprop_pixel_6_pro.txt").replace("[33]", f"[{sdk}]"))
        program(folder, "getprop", f"cat {folder}/getprop.txt")
        answer = "" if supported else "echo 'Failed to set FIXED_PERFORMANCE mode' >&2; exit 255"
        program(folder, "cmd", f'[ "$2" = help ] && exit 0; echo "$3" >>{folder}/log; {answer}')

    def log(self) -> list[str]:
        return (self.folder / "log").read_text().split() if (self.folder / "log").exists() else []

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        if self.cuts > 0:
            self.cuts -= 1
            raise LinkLost("the connection to local broke off")
        return super().run(argv, timeout_s=timeout_s)

    def reconnect(self) -> None:
        self.reconnects += 1

    def renewals(self) -> list[Path]:
        return sorted(path for folder in self.stored() for path in folder.glob("renewed-*"))

    def stored(self) -> list[Path]:
        return [self._folder] if self._folder is not None else []


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Phone]:
    with Phone(tmp_path) as phone:
        yield phone


def until(true: Callable[[], bool]) -> bool:
    for _ in range(300):
        if true():
            return True
        time.sleep(0.05)
    return False


def test_the_mode_is_on_while_it_is_wanted_and_off_afterwards(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=True) as conditioning:
        assert phone.log() == ["true"]
        assert conditioning.state["fixed_performance"] == "on"
    assert phone.log()[-1] == "false"
    assert conditioning.state["restored"] is True
    assert phone.renewals() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, LinkLost])
def test_the_mode_is_off_after_an_error(phone: Phone, error: type[BaseException]) -> None:
    with pytest.raises(error), conditioned(phone, fixed_performance=True):
        raise error
    assert phone.log() == ["true", "false"]


def test_a_lost_link_is_made_anew_once_to_switch_it_off(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=True) as conditioning:
        phone.cuts = 1
    assert (phone.reconnects, phone.log(), conditioning.state["restored"]) == (1, ["true", "false"], True)


def test_a_device_out_of_reach_at_the_end_is_recorded_and_helps_itself(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=True, expiry_s=1) as conditioning:
        phone.cuts = 2
    assert conditioning.state["restored"] is False
    assert until(lambda: phone.log() == ["true", "false"])
    assert phone.renewals() == []


def test_a_device_whose_host_is_gone_switches_it_off_by_itself(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=True, expiry_s=1):
        assert until(lambda: phone.log() == ["true", "false"])


def test_renewing_switches_on_again_what_the_device_had_given_up(phone: Phone) -> None:
    clock = Clock()
    with conditioned(phone, fixed_performance=True, expiry_s=1, clock=clock) as conditioning:
        assert until(lambda: phone.log() == ["true", "false"])
        clock.now_s = 61
        conditioning.renew()
        assert phone.log()[:3] == ["true", "false", "true"]


def test_a_mode_that_is_renewed_goes_on(phone: Phone) -> None:
    clock = Clock()
    with conditioned(phone, fixed_performance=True, clock=clock) as conditioning:
        (renewed,) = phone.renewals()
        renewed.write_text("1")
        clock.now_s = 61
        conditioning.renew()
        assert int(renewed.read_text()) > time.time() - 1000
        conditioning.renew()
        asked = len(phone.asked)
        conditioning.renew()
        assert len(phone.asked) == asked
    assert phone.log()[0] == "true"


def test_a_phone_that_cannot_is_recorded_so(tmp_path: Path) -> None:
    with Phone(tmp_path, supported=False) as phone, conditioned(phone, fixed_performance=True) as conditioning:
        assert conditioning.state["fixed_performance"] == "unsupported"
        assert phone.renewals() == []


def test_before_android_11_nothing_is_tried(tmp_path: Path) -> None:
    with Phone(tmp_path, sdk=29) as phone, conditioned(phone, fixed_performance=True) as conditioning:
        assert conditioning.state["fixed_performance"] == "unsupported"
        assert phone.log() == []


def test_what_is_not_wanted_is_left_alone(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=False) as conditioning:
        assert conditioning.state["fixed_performance"] == "not wanted"
        assert conditioning.state["build"] == "google/raven/raven:13/EXAMPLE/1:user/release-keys"
    assert phone.log() == []


def test_what_was_found_can_be_written_into_a_table(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=True) as conditioning:
        assert json.loads(json.dumps(conditioning.state)) == conditioning.state


def test_the_devices_own_watch_survives_the_kill_of_what_started_it(phone: Phone) -> None:
    with conditioned(phone, fixed_performance=True, expiry_s=3):
        watchers = [
            path for path in Path("/proc").glob("[0-9]*/cmdline") if b"renewed-" in _bytes(path) and b"watch" in _bytes(path)
        ]
        assert len({os.getsid(int(path.parent.name)) for path in watchers} - {os.getsid(0)}) >= 1


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_a_jetson_is_recorded_and_left_alone(tmp_path: Path) -> None:
    program(tmp_path / "bin", "nvpmodel", "echo 'NV Power Mode: 5W'; echo 1")
    tree(tmp_path, {"clocks": recorded("jetson_clocks_nano_5w.txt")})
    program(tmp_path / "bin", "jetson_clocks", f'[ "$1" = --show ] && cat {tmp_path}/clocks')
    with conditioned(Device(tmp_path / "bin"), fixed_performance=True) as conditioning:
        assert (conditioning.state["power_mode"], conditioning.state["clocks_pinned"]) == ("5W", False)
        assert conditioning.state["fixed_performance"] == "unsupported"
