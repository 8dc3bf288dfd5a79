"""Facts are read out of snapshots: of folders that stand for a device's root, and of what real devices said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from devices import Device, recorded, tree

from profiler.devices import boards, cores
from profiler.devices import thermal as heat
from profiler.devices.boards import Energy, Phone
from profiler.devices.facts import Facts, busiest, container, facts, granted_cores, hypervisor
from profiler.devices.snapshot import (
    BATTERY,
    CLOCKS,
    EVERYTHING,
    GETPROP,
    LOW_POWER,
    NVPMODEL,
    POWER,
    POWER_HELP,
    THERMAL,
    Request,
    Snapshot,
    take_snapshot,
)
from profiler.devices.thermal import Battery, Zone

CPUS = "sys/devices/system/cpu"


def take(folder: Path, files: Mapping[str, str]) -> Snapshot:
    """What there is below a folder."""
    return take_snapshot(Device(), Request(EVERYTHING.files, groups=True), root=tree(folder, files))


def said(**outputs: str) -> Snapshot:
    names = {"thermal": THERMAL, "battery": BATTERY, "power": POWER, "getprop": GETPROP, "mode": NVPMODEL, "clocks": CLOCKS}
    return Snapshot(outputs={names.get(name, name): text for name, text in outputs.items()})


# ------------------------------------------------------------------------------------------------------------ any machine


def test_an_empty_root_makes_nothing_up(tmp_path: Path) -> None:
    nothing = facts(take(tmp_path, {}))
    told = {name: getattr(nothing, name) for name in Facts.__slots__ if getattr(nothing, name) is not None}
    assert told == {"turbo_file": "", "quota_known": False}


def test_governors_are_read_of_every_core(tmp_path: Path) -> None:
    files = {f"{CPUS}/cpu{n}/cpufreq/scaling_governor": f"{name}\n" for n, name in enumerate(("schedutil", "performance"))}
    assert cores.governors(take(tmp_path, files)) == ("performance", "schedutil")


@pytest.mark.parametrize(
    ("name", "text", "enabled"),
    [("intel_pstate/no_turbo", "0", True), ("intel_pstate/no_turbo", "1", False), ("cpufreq/boost", "1", True)],
)
def test_turbo_is_read_with_the_file_that_says_so(tmp_path: Path, name: str, text: str, enabled: bool) -> None:
    assert cores.turbo(take(tmp_path, {f"{CPUS}/{name}": text})) == (enabled, f"/{CPUS}/{name}")


def test_siblings_are_read_once_each(tmp_path: Path) -> None:
    lists = {f"{CPUS}/cpu{n}/topology/thread_siblings_list": text for n, text in enumerate(("0-1", "0-1", "2,3", "2,3"))}
    assert cores.siblings(take(tmp_path, lists)) == ((0, 1), (2, 3))


def test_cores_are_those_that_are_online(tmp_path: Path) -> None:
    assert cores.count(take(tmp_path, {f"{CPUS}/online": "0-2,5\n"})) == 4


def test_a_zone_has_the_lowest_limit_that_does_something(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    points = {"0": ("critical", "105000"), "1": ("passive", "95000"), "2": ("active", "40000")}
    files = {f"{zone}/type": "cpu", f"{zone}/temp": "51500"}
    for number, (kind, limit) in points.items():
        files |= {f"{zone}/trip_point_{number}_type": kind, f"{zone}/trip_point_{number}_temp": limit}
    assert heat.zones(take(tmp_path, files)) == (Zone("cpu", 51.5, 95.0),)


def test_what_cannot_be_a_temperature_is_none(tmp_path: Path) -> None:
    zones = "sys/class/thermal/thermal_zone"
    values = {"cpu": "45000", "unfitted": "-273000", "soc": "87000000", "PMIC-Die": "100000"}
    files = {
        f"{zones}{n}/{name}": text
        for n, pair in enumerate(values.items())
        for name, text in zip(("type", "temp"), pair, strict=True)
    }
    assert heat.zones(take(tmp_path, files)) == (Zone("cpu", 45.0, None),)


def test_the_battery_of_a_mouse_is_not_the_devices_own(tmp_path: Path) -> None:
    supply = "sys/class/power_supply"
    own = {f"{supply}/BAT0/type": "Battery", f"{supply}/BAT0/status": "Discharging", f"{supply}/BAT0/capacity": "54"}
    others = {f"{supply}/mouse/type": "Battery", f"{supply}/mouse/scope": "Device", f"{supply}/AC/type": "Mains"}
    assert heat.batteries(take(tmp_path, own | others | {f"{supply}/BAT0/temp": "312"})) == (
        Battery("BAT0", "Discharging", 54.0, 31.2),
    )


def test_no_battery_is_told_from_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a/sys/class/power_supply").mkdir(parents=True)
    assert heat.batteries(take(tmp_path / "a", {})) == ()
    assert heat.batteries(Snapshot()) is None


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        (
            {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "50000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
            [0.5],
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, [2.0]),
        ({"proc/self/cgroup": "0::/"}, []),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            [1.5],
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, []),
    ],
)
def test_limits_of_processor_time_are_read_of_every_group(tmp_path: Path, files: dict[str, str], granted: list[float]) -> None:
    assert granted_cores(take(tmp_path, files | {"sys/fs/cgroup/cgroup.controllers": "cpu"})) == granted


def test_a_virtual_machine_is_known_by_its_processor(tmp_path: Path) -> None:
    assert hypervisor(take(tmp_path / "a", {"proc/cpuinfo": "flags\t\t: fpu hypervisor sse2\n"})) is True
    assert hypervisor(take(tmp_path / "b", {"proc/cpuinfo": "flags\t\t: fpu sse2\n"})) is False


def test_a_container_is_known_by_its_marks(tmp_path: Path) -> None:
    assert container(take(tmp_path / "a", {"run/.containerenv": ""})) == "podman"
    assert container(take(tmp_path / "b", {"proc/1/cgroup": "0::/lxc/web"})) == "lxc"
    assert container(take(tmp_path / "c", {"proc/1/cgroup": "0::/init.scope"})) is None


def stat(pid: int, name: str, ticks: int) -> str:
    return f"{pid} ({name}) R {' '.join('0' * 10)} {ticks} 5 0 0 20\n"


def test_the_busiest_processes_are_named_whatever_they_call_themselves() -> None:
    before = stat(10, "make", 100) + stat(11, ") R 0 ((", 7) + stat(12, "me", 0)
    after = stat(10, "make", 125) + stat(11, ") R 0 ((", 97) + stat(12, "me", 50)
    files = {"processes": before, "/proc/uptime": "100.00 9.9", "/proc/self/stat": stat(12, "me", 0)}
    found = busiest(Snapshot(files, {"processes": after, "/proc/uptime": "101.00 9.9"}))
    assert found is not None
    assert [(item.pid, item.name, item.percent) for item in found] == [(11, ") R 0 ((", 90.0), (10, "make", 25.0)]


def test_busy_and_stolen_time_are_told_in_per_cent_of_one_core() -> None:
    quiet = Snapshot(
        {"/proc/stat": "cpu  100 0 0 1000 5 0 0 3 0 0", "/proc/uptime": "10.00 1"},
        {"/proc/stat": "cpu  130 0 0 1000 5 0 0 3 0 0", "/proc/uptime": "11.00 1"},
    )
    worked = Snapshot({"/proc/stat": "cpu  330 0 0 1000 5 0 0 23 0 0", "/proc/uptime": "13.00 1"})
    told = facts(quiet, worked, (1, 1))
    assert (told.busy_percent, told.steal_percent) == (30.0, 10.0)
    assert facts(quiet).steal_percent is None


def test_energy_that_only_root_may_read_is_told() -> None:
    rapl = "/sys/class/powercap/intel-rapl:0"
    names = {f"{rapl}/name": "package-0"}
    assert boards.energy(Snapshot(names, seen=frozenset({f"{rapl}/energy_uj"}))) == Energy("rapl", False)
    assert boards.energy(Snapshot(names | {f"{rapl}/energy_uj": "123"})) == Energy("rapl", True)


# ----------------------------------------------------------------------------------------------------------------- phones


def test_a_phones_sensors_are_what_its_hardware_tells_now() -> None:
    snapshot = said(thermal=recorded("thermalservice_galaxy_a52.txt").replace("mValue=25.6", "mValue=90", 1))
    assert heat.zones(snapshot) == (Zone("AP", 25.6, None), Zone("LRB", 24.7, None))
    assert heat.thermal_status(snapshot) == 0


def test_a_phones_battery_is_told_in_percent_and_degrees() -> None:
    assert heat.batteries(said(battery=recorded("battery_galaxy.txt"))) == (Battery("battery", "Full", 100.0, 30.9),)
    assert heat.batteries(said(battery=recorded("battery_pixel_c.txt"))) == (Battery("battery", "Charging", 19.0, 27.5),)


def test_a_phone_is_known_by_its_properties() -> None:
    outputs = {GETPROP: recorded("getprop_pixel_6_pro.txt"), POWER: recorded("power_dozing.txt"), LOW_POWER: "1"}
    outputs[POWER_HELP] = "  set-fixed-performance-mode-enabled [true|false]"
    snapshot = Snapshot(outputs=outputs)
    assert boards.phone(snapshot) == Phone("Google Pixel 6 Pro", "Tensor", "13", 33, False, True, True)
    assert boards.build(snapshot) == "google/raven/raven:13/EXAMPLE/1:user/release-keys"


def test_the_display_itself_counts_before_wakefulness() -> None:
    snapshot = said(getprop=recorded("getprop_pixel_6_pro.txt"), power="mWakefulness=Awake\nDisplay Power: state=OFF")
    phone = boards.phone(snapshot)
    assert phone is not None
    assert phone.screen_on is False


# ---------------------------------------------------------------------------------------------------------------- Jetsons


@pytest.mark.parametrize("name", ["nvpmodel_xavier.txt", "nvpmodel_thor.txt"])
def test_the_power_mode_is_read(name: str) -> None:
    assert boards.power_mode(said(mode=recorded(name))) == "MAXN"


MODES = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >"


def test_the_power_mode_is_read_without_root_from_where_it_is_kept() -> None:
    kept = Snapshot({"/var/lib/nvpmodel/status": "pmode:0001"}, outputs={"cat /etc/nvpmodel.conf": MODES})
    assert boards.power_mode(kept) == "25W"


@pytest.mark.parametrize(
    ("modes", "top", "number"),
    [
        (MODES, "MAXN_SUPER", 2),
        ("< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_50W >", "MAXN", 0),
        ("< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >", "15W", 0),
        ("", None, None),
    ],
)
def test_the_mode_of_most_power_is_known_by_its_name(modes: str, top: str | None, number: int | None) -> None:
    board = boards.board(Snapshot(outputs={NVPMODEL: "NV Power Mode: 15W\n0", "cat /etc/nvpmodel.conf": modes}))
    assert board is not None
    assert (board.top_mode, board.top_mode_id) == (top, number)


@pytest.mark.parametrize(
    ("name", "pinned"),
    [("jetson_clocks_nano_5w.txt", False), ("jetson_clocks_nano_5w_pinned.txt", True), ("jetson_clocks_orin_nano.txt", False)],
)
def test_pinned_clocks_are_told_from_a_mode_in_which_cores_have_but_one(name: str, pinned: bool) -> None:
    assert boards.clocks_pinned(said(clocks=recorded(name))) is pinned


def test_pinned_clocks_are_read_without_root_from_the_kernels_files(tmp_path: Path) -> None:
    gpu, cpu = "sys/class/devfreq/17000000.gpu", f"{CPUS}/cpu0/cpufreq"
    files = {f"{gpu}/min_freq": "9", f"{gpu}/max_freq": "9", f"{cpu}/scaling_min_freq": "5", f"{cpu}/scaling_max_freq": "5"}
    assert boards.clocks_pinned(take(tmp_path / "a", files)) is True
    assert boards.clocks_pinned(take(tmp_path / "b", files | {f"{gpu}/min_freq": "3"})) is False
    assert boards.clocks_pinned(take(tmp_path / "c", {f"{cpu}/scaling_min_freq": "5", f"{cpu}/scaling_max_freq": "5"})) is None


CLOCK_FILES = {f"/{CPUS}/cpu{core}/cpufreq/scaling_{end}_freq": "1728000" for core in range(6) for end in ("min", "max")}
CLOCK_FILES |= {f"/sys/class/devfreq/17000000.gpu/{end}_freq": "1020000000" for end in ("min", "max")}
FREE = {"/sys/class/devfreq/17000000.gpu/min_freq": "306000000"}
ABOUT_CORES = "SOC family:tegra234\ncpu0: Online=1 Governor=schedutil MinFreq=1728000 MaxFreq=1728000 CurrentFreq=1728000\n"


@pytest.mark.parametrize(
    "refusal",
    [
        "Error: Run this script(/usr/bin/jetson_clocks) as a root user",
        "Error: Please run as root",
        "/usr/bin/jetson_clocks: line 20: /etc/jetson_clocks.conf: Permission denied",
        "sudo: a password is required",
        f"{ABOUT_CORES}Error! Unable to access /sys/kernel/debug/bpmp/debug/clk/emc",
        f"{ABOUT_CORES}GPU MinFreq= MaxFreq= CurrentFreq=",
    ],
)
def test_the_kernels_files_tell_pinned_clocks_where_jetson_clocks_refuses(refusal: str) -> None:
    assert boards.clocks_pinned(Snapshot(CLOCK_FILES, outputs={CLOCKS: refusal})) is True
    assert boards.clocks_pinned(Snapshot(CLOCK_FILES | FREE, outputs={CLOCKS: refusal})) is False
    assert boards.clocks_pinned(Snapshot(outputs={CLOCKS: refusal})) is None


def test_a_clock_of_which_one_end_cannot_be_read_is_not_taken_for_free() -> None:
    files = dict(CLOCK_FILES)
    del files[f"/{CPUS}/cpu3/cpufreq/scaling_max_freq"]
    assert boards.clocks_pinned(Snapshot(files)) is None
    assert boards.clocks_pinned(Snapshot(files | FREE)) is False


def test_a_core_that_is_off_does_not_hide_that_clocks_are_pinned() -> None:
    off = frozenset(path for path in CLOCK_FILES if "/cpu5/" in path)
    files = {path: text for path, text in CLOCK_FILES.items() if path not in off}
    assert boards.clocks_pinned(Snapshot(files, seen=off)) is True


def test_a_board_is_known_by_its_release() -> None:
    assert boards.build(Snapshot({"/etc/nv_tegra_release": recorded("nv_tegra_release_orin_nano.txt")})) == "L4T R36.4.3"
