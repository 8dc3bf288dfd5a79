"""The judging is pure; what it judges is read through an agent, on devices without Python too."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devices import Device, program, recorded
from typer.testing import CliRunner

from device_agents.agent import CommandResult
from device_agents.errors import DeviceError, LinkLost
from profiler.cli.app import app
from profiler.devices.boards import Board, Energy, Phone
from profiler.devices.doctor import PROGRAM, examine, judge
from profiler.devices.facts import Facts, Process, facts
from profiler.devices.snapshot import Snapshot
from profiler.devices.thermal import Battery, Zone
from profiler.errors import RunnerError

QUIET = Facts(
    cores=4, affinity=(0, 1, 2, 3), siblings=((0,), (1,), (2,), (3,)), big_cores=None, governors=("performance",),
    turbo=False, turbo_file="/sys/devices/system/cpu/cpufreq/boost", load_1min=0.1, busy_percent=0.5, processes=(),
    steal_percent=0.0, hypervisor=False, container=None, quota_known=True, quota_cores=None,
    zones=(Zone("x86_pkg_temp", 45.0, 100.0),), throttles=0, batteries=(), thermal_status=None, phone=None, board=None,
    energy=None, build=None, speed_ns=(2_000_000,) * 500,
)  # fmt: skip
PHONE = Phone("Google Pixel 6 Pro", "Tensor", "13", 33, screen_on=True, low_power=False, fixed_performance=True)
QUIET_PHONE = replace(QUIET, phone=PHONE, thermal_status=0, batteries=(Battery("battery", "Full", 100.0, 27.0),))
BOARD = Board("L4T R36.4.3", "MAXN", "MAXN", 0, clocks_pinned=True)
QUIET_BOARD = replace(QUIET, board=BOARD, governors=("schedutil",))


# --------------------------------------------------------------------------------------------------------------- judging


@pytest.mark.parametrize("quiet", [QUIET, QUIET_PHONE, QUIET_BOARD], ids=["desktop", "phone", "board"])
def test_nothing_is_found_on_a_quiet_machine(quiet: Facts) -> None:
    assert judge(quiet) == []


@pytest.mark.parametrize(
    ("facts", "severity", "what", "next_step"),
    [
        ({"governors": ("powersave",)}, "warning", "powersave", "cpupower frequency-set -g performance"),
        ({"turbo": True}, "warning", "turbo is on", "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"),
        (
            {"turbo": True, "turbo_file": "/sys/devices/system/cpu/intel_pstate/no_turbo"},
            "warning",
            "turbo is on",
            "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo",
        ),
        ({"processes": (Process(7, "make", 20.0),)}, "warning", "make (pid 7) 20 %", "top -p 7"),
        ({"processes": (Process(7, "make", 98.0),)}, "problem", "make (pid 7) 98 %", "top -p 7"),
        ({"busy_percent": 60.0}, "warning", "60 % of one core", "outside the container"),
        ({"load_1min": 2.5}, "note", "2.50", "wait"),
        ({"steal_percent": 4.0}, "warning", "4.0 % of a core", "--rounds"),
        ({"steal_percent": 40.0}, "problem", "40.0 % of a core", "--rounds"),
        ({"hypervisor": True}, "note", "virtual machine", "--rounds"),
        ({"container": "docker"}, "note", "docker", "outside"),
        ({"quota_cores": 0.5}, "problem", "0.5 of 4 cores", "--cpus"),
        ({"quota_cores": 2.0}, "warning", "2 of 4 cores", "--cpus"),
        ({"affinity": (1, 2)}, "note", "2 of 4 cores", "taskset -c 0-3"),
        ({"siblings": ((0, 2), (1, 3))}, "note", "0, 2; 1, 3", "taskset -c 0,1 "),
        ({"throttles": 3}, "problem", "3 times", "cool"),
        ({"zones": (Zone("soc", 85.0, None),)}, "warning", "soc is at 85", "cool"),
        ({"zones": (Zone("soc", 92.0, 100.0),)}, "warning", "its limit is 100", "cool"),
        ({"zones": (Zone("soc", 101.0, 100.0),)}, "problem", "101", "cool"),
        ({"batteries": (Battery("BAT0", "Discharging", 54.0),)}, "warning", "54 %", "plug"),
        ({"speed_ns": (2_000_000,) * 250 + (2_560_000,) * 250}, "warning", "changes by 28 %", "--rounds"),
        ({"speed_ns": (2_000_000,) * 250 + (2_160_000,) * 250}, "note", "changes by 8 %", "--rounds"),
        ({"batteries": (Battery("BAT0", "Charging", 29.0),)}, "warning", "29 %", "charge it to 30 %"),
        ({"energy": Energy("rapl", False)}, "note", "only root may read", "chmod a+r /sys/class/powercap"),
        ({"energy": Energy("ina3221", False)}, "note", "only root may read", "root"),
        ({"speed_ns": None}, "note", "not readable: steadiness of its speed", "nothing is assumed"),
        ({"zones": None}, "note", "not readable: temperature", "nothing is assumed"),
    ],
)
def test_what_would_disturb_is_named_with_the_next_step(facts: dict[str, Any], severity: str, what: str, next_step: str) -> None:
    (finding,) = judge(replace(QUIET, **facts))
    assert finding.severity == severity
    assert what in finding.what
    assert next_step in finding.next_step


@pytest.mark.parametrize(
    ("changed", "severity", "what", "next_step"),
    [
        ({"thermal_status": 1}, "warning", "thermal status is 1 (light)", "let it cool"),
        ({"thermal_status": 3}, "problem", "thermal status is 3 (severe)", "let it cool"),
        ({"thermal_status": None}, "note", "not readable: thermal status", "nothing is assumed"),
        ({"phone": replace(PHONE, low_power=True)}, "problem", "battery saver is on", "low_power 0"),
        ({"phone": replace(PHONE, screen_on=False)}, "warning", "screen is off", "keyevent 224"),
        ({"governors": ("schedutil",)}, "warning", "schedutil", "set-fixed-performance-mode-enabled true"),
        ({"governors": ("schedutil",), "phone": replace(PHONE, sdk=29)}, "warning", "schedutil", "--rounds"),
    ],
)
def test_what_would_disturb_a_phone_is_named(changed: dict[str, Any], severity: str, what: str, next_step: str) -> None:
    (finding,) = judge(replace(QUIET_PHONE, **changed))
    assert finding.severity == severity
    assert what in finding.what
    assert next_step in finding.next_step


@pytest.mark.parametrize(
    ("changed", "severity", "what", "next_step"),
    [
        ({"power_mode": "15W"}, "warning", "15W, not MAXN", "sudo nvpmodel -m 0"),
        ({"clocks_pinned": False}, "warning", "not pinned", "sudo jetson_clocks"),
        ({"power_mode": None}, "note", "not readable: power mode", "nothing is assumed"),
    ],
)
def test_what_would_disturb_a_jetson_is_named(changed: dict[str, Any], severity: str, what: str, next_step: str) -> None:
    (finding,) = judge(replace(QUIET_BOARD, board=replace(BOARD, **changed)))
    assert finding.severity == severity
    assert what in finding.what
    assert next_step in finding.next_step


def test_a_hot_zone_far_below_its_own_limit_is_no_finding() -> None:
    assert judge(replace(QUIET, zones=(Zone("soc", 85.0, 110.0),))) == []


def test_more_threads_than_cores_are_a_problem() -> None:
    (finding,) = judge(QUIET, threads=6)
    assert finding.severity == "problem"
    assert "--threads 4" in finding.next_step


def test_the_worst_is_said_first() -> None:
    bad = replace(QUIET, hypervisor=True, governors=("powersave",), throttles=1)
    assert [finding.severity for finding in judge(bad)] == ["problem", "warning", "note"]


def test_cores_outside_the_affinity_are_not_shared() -> None:
    facts = replace(QUIET, siblings=((0, 2), (1, 3)), affinity=(0, 1))
    assert [finding.what for finding in judge(facts) if "share" in finding.what] == []


def test_one_long_interruption_is_no_change_of_speed() -> None:
    assert replace(QUIET, speed_ns=(*QUIET.speed_ns, 50_000_000)).speed_change_percent == 0


def test_nothing_unreadable_is_guessed() -> None:
    (finding,) = judge(facts(Snapshot()), threads=64)
    assert finding.what.startswith("not readable: number of cores, clock governor, turbo, temperature")


def test_a_process_cannot_write_to_the_terminal_by_its_name() -> None:
    stat = "3 (\x1b[2Jevil) R" + " 0" * 10 + " {} 0 0 0 20"
    files = {"processes": stat.format(0), "/proc/uptime": "1.00 1"}
    seen = facts(Snapshot(files, {"processes": stat.format(80), "/proc/uptime": "2.00 1"}))
    assert "evil (pid 3) 80 %" in judge(seen)[0].what
    assert "\x1b" not in judge(seen)[0].what


# ---------------------------------------------------------------------------------------------------------------- reading


class Saying(Device):
    """A device on which every program but the shell says the same."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self._said = said

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        return super().run(argv if argv[0] == "sh" else ["echo", self._said], timeout_s=timeout_s)


@pytest.mark.parametrize(
    "said",
    ["", "chatter", "[]", '{"event":"speed","protocol":99}', '{"event":"speed","protocol":2}', "[" * 100_000]
    + [f'{{"event":"speed","protocol":2,"speed_ns":{times}}}' for times in ("[]", "[0]", "[1.5]", "[true]", "7")],
    ids=lambda said: said[-20:],
)
def test_a_device_that_times_nothing_is_an_error_in_one_sentence(said: str) -> None:
    with Saying(said) as agent, pytest.raises(RunnerError) as caught:
        examine(agent)
    assert "\n" not in str(caught.value)


class WithoutPython(Device):
    def interpreter(self) -> str:
        raise DeviceError("there is no Python on it")


def test_a_phone_is_examined_without_python(tmp_path: Path) -> None:
    program(tmp_path, "getprop", f"cat <<EOF\n{recorded('getprop_pixel_6_pro.txt')}EOF")
    program(tmp_path, "dumpsys", f"[ $1 = battery ] && cat <<EOF\n{recorded('battery_pixel_c.txt')}EOF")
    seen = examine(WithoutPython(tmp_path))
    assert seen.phone is not None
    assert (seen.phone.model, seen.speed_change_percent, seen.speed_ns) == ("Google Pixel 6 Pro", None, None)
    assert "steadiness of its speed" in seen.unreadable
    assert "whether its speed changes is not readable" in seen.sentence()
    assert "19 %" in "".join(finding.what for finding in judge(seen))
    assert json.loads(json.dumps(seen.to_dict()))["phone"]["sdk"] == 33


class Gone(Device):
    def interpreter(self) -> str:
        raise LinkLost("the connection broke off")


def test_a_lost_link_is_not_taken_for_a_lack_of_python() -> None:
    with pytest.raises(LinkLost):
        examine(Gone())


def test_the_program_is_python_3_8_and_needs_the_standard_library_only() -> None:
    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_this_machine_is_looked_at_whatever_is_found() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["device"] == "local"
    assert told["facts"]["cores"] >= 1
    assert all(finding["next_step"] for finding in told["findings"])


def test_an_unknown_device_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["doctor", "nowhere"])
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
