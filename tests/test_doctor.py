"""The facts are read by the program that runs on the device, below a folder that stands for its root; the judging is pure."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from device_agents.local import LocalAgent
from profiler.cli import app
from profiler.doctor import PROGRAM, Battery, Facts, Process, Zone, examine, judge
from profiler.errors import RunnerError

PLAIN: dict[str, Any] = {
    "cores": 4, "affinity": [0, 1, 2, 3], "siblings": [[0], [1], [2], [3]], "governors": ["performance"],
    "turbo": {"enabled": False, "file": "/sys/devices/system/cpu/cpufreq/boost"}, "load_1min": 0.1, "busy_percent": 0.5,
    "processes": [], "steal_percent": 0.0, "hypervisor": False, "container": None, "quota": {"cores": None},
    "zones": [{"name": "x86_pkg_temp", "temperature_c": 45.0, "limit_c": 100.0}], "throttles": 0, "batteries": [],
    "speed_ns": [2_000_000] * 500,
}  # fmt: skip
QUIET = Facts.from_dict(PLAIN)


def conditions() -> Any:
    """The program, as a module of its own."""
    spec = importlib.util.spec_from_file_location("conditions_on_device", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEVICE = conditions()


def root(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


# --------------------------------------------------------------------------------------------------------------- judging


def test_nothing_is_found_on_a_quiet_machine() -> None:
    assert judge(QUIET) == []


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
        ({"zones": None}, "note", "not readable: temperature", "nothing is assumed"),
    ],
)
def test_what_would_disturb_is_named_with_the_next_step(facts: dict[str, Any], severity: str, what: str, next_step: str) -> None:
    (finding,) = judge(replace(QUIET, **facts))
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
    nothing = Facts.from_dict(dict.fromkeys(PLAIN) | {"cores": 2, "speed_ns": [1, 1]})
    (finding,) = judge(nothing)
    assert finding.what.startswith("not readable: clock governor, turbo, temperature")


# ------------------------------------------------------------------------------------------------- what a device may send


@pytest.mark.parametrize(
    "lie",
    [
        {"cores": 0},
        {"cores": True},
        {"load_1min": float("nan")},
        {"steal_percent": -1},
        {"governors": "performance"},
        {"turbo": {"enabled": 1, "file": ""}},
        {"turbo": []},
        {"affinity": ["0"]},
        {"quota": {}},
        {"processes": [{"pid": 1, "name": 5, "percent": 1.0}]},
        {"zones": [7]},
        {"speed_ns": []},
        {"speed_ns": [0]},
        {"batteries": [{"name": "B"}]},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_sentence(lie: dict[str, Any]) -> None:
    with pytest.raises(RunnerError) as caught:
        Facts.from_dict(PLAIN | lie)
    assert "\n" not in str(caught.value)


def test_a_process_cannot_write_to_the_terminal_by_its_name() -> None:
    told = PLAIN | {"processes": [{"pid": 3, "name": "\x1b[2Jevil", "percent": 60.0}]}
    assert "\x1b" not in judge(Facts.from_dict(told))[0].what


@pytest.mark.parametrize("said", ["", "chatter", "[]", '{"event":"doctor","protocol":99}', '{"event":"doctor","protocol":1}'])
def test_a_device_that_tells_nothing_is_an_error(said: str) -> None:
    with _Saying(said) as agent, pytest.raises(RunnerError):
        examine(agent)


class _Saying(LocalAgent):
    """A device that answers every command alike."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self._said = said

    def run(self, argv: Any, *, timeout_s: float) -> Any:
        return super().run([argv[0], "-c", f"print({self._said!r})"], timeout_s=timeout_s)


# --------------------------------------------------------------------------------------------------- reading on the device


def test_an_empty_root_makes_nothing_up(tmp_path: Path) -> None:
    for look in ("governors", "turbo", "siblings", "zones", "throttles", "batteries", "quota", "hypervisor", "load_1min", "ticks"):
        assert getattr(DEVICE, look)(tmp_path) is None, look


def test_governors_are_read_of_every_core(tmp_path: Path) -> None:
    cpus = {
        f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor": f"{name}\n"
        for n, name in enumerate(("schedutil", "performance"))
    }
    assert DEVICE.governors(root(tmp_path, cpus)) == ["performance", "schedutil"]


@pytest.mark.parametrize(
    ("name", "text", "enabled"),
    [("intel_pstate/no_turbo", "0", True), ("intel_pstate/no_turbo", "1", False), ("cpufreq/boost", "1", True)],
)
def test_turbo_is_read_with_the_file_that_says_so(tmp_path: Path, name: str, text: str, enabled: bool) -> None:
    found = DEVICE.turbo(root(tmp_path, {f"sys/devices/system/cpu/{name}": text}))
    assert found == {"enabled": enabled, "file": f"/sys/devices/system/cpu/{name}"}


def test_siblings_are_read_once_each(tmp_path: Path) -> None:
    lists = {
        f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": text for n, text in enumerate(("0-1", "0-1", "2,3", "2,3"))
    }
    assert DEVICE.siblings(root(tmp_path, lists)) == [[0, 1], [2, 3]]


def test_a_zone_has_the_lowest_limit_that_does_something(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    points = {"0": ("critical", "105000"), "1": ("passive", "95000"), "2": ("active", "40000")}
    files = {f"{zone}/type": "cpu", f"{zone}/temp": "51500"}
    for number, (kind, limit) in points.items():
        files |= {f"{zone}/trip_point_{number}_type": kind, f"{zone}/trip_point_{number}_temp": limit}
    assert DEVICE.zones(root(tmp_path, files)) == [{"name": "cpu", "temperature_c": 51.5, "limit_c": 95.0}]


def test_the_battery_of_a_mouse_is_not_the_devices_own(tmp_path: Path) -> None:
    supply = "sys/class/power_supply"
    own = {f"{supply}/BAT0/type": "Battery", f"{supply}/BAT0/status": "Discharging", f"{supply}/BAT0/capacity": "54"}
    others = {f"{supply}/mouse/type": "Battery", f"{supply}/mouse/scope": "Device", f"{supply}/AC/type": "Mains"}
    found = DEVICE.batteries(root(tmp_path, own | others))
    assert found == [{"name": "BAT0", "status": "Discharging", "charge_percent": 54}]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        (
            {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "50000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
            0.5,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        ({"proc/self/cgroup": "0::/"}, None),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            1.5,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
    ],
)
def test_the_strictest_limit_of_processor_time_counts(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    marked = files | {"sys/fs/cgroup/cgroup.controllers": "cpu"}
    assert DEVICE.quota(root(tmp_path, marked)) == {"cores": cores}


def test_a_virtual_machine_is_known_by_its_processor(tmp_path: Path) -> None:
    assert DEVICE.hypervisor(root(tmp_path / "a", {"proc/cpuinfo": "flags\t\t: fpu hypervisor sse2\n"})) is True
    assert DEVICE.hypervisor(root(tmp_path / "b", {"proc/cpuinfo": "flags\t\t: fpu sse2\n"})) is False


def test_a_container_is_known_by_its_marks(tmp_path: Path) -> None:
    assert DEVICE.container(root(tmp_path / "a", {"run/.containerenv": ""})) == "podman"
    assert DEVICE.container(root(tmp_path / "b", {"proc/1/cgroup": "0::/lxc/web"})) == "lxc"
    assert DEVICE.container(root(tmp_path / "c", {"proc/1/cgroup": "0::/init.scope"})) is None


def test_the_busiest_processes_are_named_whatever_they_call_themselves(tmp_path: Path) -> None:
    def stat(pid: int, name: str, ticks: int) -> dict[str, str]:
        return {f"proc/{pid}/stat": f"{pid} ({name}) R {' '.join('0' * 10)} {ticks} 5 0 0 20\n"}

    before = DEVICE.processes(root(tmp_path, stat(10, "make", 100) | stat(11, ") R 0 ((", 7) | stat(12, "me", 0)))
    after = DEVICE.processes(root(tmp_path, stat(10, "make", 125) | stat(11, ") R 0 ((", 97) | stat(12, "me", 50)))
    found = DEVICE.busiest(before, after, 100.0, 12)
    assert [(item["pid"], item["name"], item["percent"]) for item in found] == [(11, ") R 0 ((", 90.0), (10, "make", 25.0)]


def test_steal_time_is_read_beside_the_busy_time(tmp_path: Path) -> None:
    assert DEVICE.ticks(root(tmp_path, {"proc/stat": "cpu  100 10 20 1000 5 1 2 33 0 0\ncpu0 1 1 1\n"})) == {
        "busy": 133,
        "steal": 33,
    }


def test_everything_a_device_reads_is_accepted_by_the_host(tmp_path: Path) -> None:
    told = DEVICE.conditions(root(tmp_path, {"proc/loadavg": "0.42 0.1 0.1 1/100 5"}), 0.01, 0.02)
    assert Facts.from_dict(json.loads(json.dumps(told))).load_1min == 0.42


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
