"""The script is run by every shell that a device may have; what it tells is read as what a stranger says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from devices import Device, program, tree
from hypothesis import given
from hypothesis import strategies as st

from profiler.devices.conditioning import recorded as recorded_state
from profiler.devices.facts import facts
from profiler.devices.snapshot import EVERYTHING, MOST_BYTES, MOST_LINES, Command, Request, Snapshot, parse_snapshot, take_snapshot
from profiler.devices.thermal import heat
from profiler.errors import RunnerError

SHELLS: list[Sequence[str]] = [("dash",), ("bash", "--posix"), ("busybox", "sh"), ("mksh",)]


@pytest.fixture(params=SHELLS, ids=" ".join)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    shell: Sequence[str] = request.param
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed: apt-get install {shell[0]}")
    (tmp_path / "bin").mkdir()
    return Device(tmp_path / "bin", shell)


def test_a_file_is_read_whole_without_the_blanks_at_its_ends(device: Device, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"etc/a": " one \\n\\t%s `x` $HOME\n\n  two\n", "etc/b": "no newline", "etc/c": ""})
    found = take_snapshot(device, Request(("/etc/a", "/etc/b", "/etc/c", "/etc/d")), root=root)
    assert [found.text(f"/etc/{name}") for name in "abcd"] == ["one \\n\\t%s `x` $HOME\n\n  two", "no newline", "", None]


def test_patterns_find_paths_without_the_root(device: Device, tmp_path: Path) -> None:
    files = {f"sys/cpu{number}/intel-rapl:{number}/name": str(number) for number in (0, 1, 10)} | {"sys/cpufreq/x/name": "no"}
    found = take_snapshot(device, Request(("/sys/cpu[0-9]*/intel-rapl:*/name",)), root=tree(tmp_path / "a root's", files))
    assert found.glob("/sys/cpu[0-9]*/*/name") == tuple(f"/sys/cpu{n}/intel-rapl:{n}/name" for n in (0, 1, 10))
    assert found.number("/sys/cpu10/intel-rapl:10/name") == 10


def test_folders_are_seen(device: Device, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"sys/power/x": "1"})
    found = take_snapshot(device, Request(("/sys/power", "/sys/none")), root=root)
    assert found.exists("/sys/power")
    assert not found.exists("/sys/none")


def test_a_file_that_may_not_be_read_is_there_without_a_text(device: Device, tmp_path: Path) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and setpriv is not there to be somebody else: apt-get install util-linux")
    path = Path(tree(tmp_path / "root", {"sys/secret": "1"})) / "sys" / "secret"
    path.chmod(0)
    if os.geteuid() == 0:
        for folder in (tmp_path, *(parent for parent in tmp_path.parents if "pytest" in str(parent))):
            folder.chmod(0o755)
        device._shell = ("setpriv", "--reuid=65534", "--clear-groups", *device._shell)
    found = take_snapshot(device, Request(("/sys/secret",)), root=str(tmp_path / "root"))
    assert (found.text("/sys/secret"), found.exists("/sys/secret")) == (None, True)


def test_programs_are_asked_where_they_exist(device: Device, tmp_path: Path) -> None:
    program(tmp_path / "bin", "getprop", "echo '[a]: [1]'; echo '[b]: [it'\"'\"'s]'")
    program(tmp_path / "bin", "nvpmodel", "echo you must be root >&2; exit 1")
    request = Request(commands=(Command("getprop", r"^\[b"), Command("nvpmodel -q"), Command("no-such-program --x")))
    found = take_snapshot(device, request)
    assert found.outputs == {"getprop": "[b]: [it's]"}


def test_a_long_file_is_cut(device: Device, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"proc/cpuinfo": "line\n" * 10_000})
    text = take_snapshot(device, Request(("/proc/cpuinfo",)), root=root).text("/proc/cpuinfo")
    assert text is not None
    assert len(text.splitlines()) == MOST_LINES


def test_a_device_that_tells_too_much_is_cut_off(device: Device, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"etc/long": "x" * (MOST_BYTES // 40)})
    with pytest.raises(RunnerError, match="broke off"):
        take_snapshot(device, Request(("/etc/long",) * 50), root=root)


def test_everything_is_asked_in_one_round_trip(device: Device) -> None:
    found = take_snapshot(device)
    assert len(device.asked) == 1
    assert facts(found).cores == os.cpu_count()
    assert facts(found).processes is not None
    assert facts(found).affinity == tuple(sorted(os.sched_getaffinity(0)))


def test_the_limits_of_all_control_groups_above_are_read(device: Device, tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/x\n0::/a/b\n",
        "sys/fs/cgroup/a/cpu.max": "1 2",
        "sys/fs/cgroup/cpu/x/cpu.max": "3",
    }
    found = take_snapshot(device, Request(groups=True), root=tree(tmp_path / "root", files))
    assert (found.text("/sys/fs/cgroup/./a/cpu.max"), found.text("/sys/fs/cgroup/cpu/x/cpu.max")) == ("1 2", "3")


# ------------------------------------------------------------------------------------------------- what a device may send


def test_a_device_without_a_shell_is_an_error_in_one_sentence() -> None:
    with pytest.raises(RunnerError, match="'sh' is not recognised"):
        parse_snapshot("'sh' is not recognised\x1b[2J\n", "m")


def test_the_marker_inside_a_line_is_no_header() -> None:
    found = parse_snapshot("m f /a\nx m f /b\nmm f /c\nm end\n", "m")
    assert found.files == {"/a": "x m f /b\nmm f /c"}


@given(st.text() | st.lists(st.sampled_from(["m", " ", "\n", "f", "F", "o", "d", "x", "end", "/proc/stat", "cpu 1"])).map("".join))
def test_whatever_is_told_is_a_snapshot_or_our_error(told: str) -> None:
    try:
        found = parse_snapshot(f"{told}\nm end\n", "m")
        parse_snapshot(told, "m")
    except RunnerError as exc:
        assert "\n" not in str(exc)
    else:
        assert isinstance(found, Snapshot)


PATHS = [*EVERYTHING.files, "/proc/stat", "/proc/uptime", "processes"]
NAMES = st.sampled_from(PATHS).map(lambda pattern: pattern.replace("[0-9]*", "0").replace("[0-9]", "1").replace("*", "x"))
NUMBERS = st.integers().map(str) | st.floats().map(str)
TEXTS = (
    st.text()
    | NUMBERS
    | st.lists(NUMBERS).map(" ".join)
    | st.sampled_from(["performance", "0-9999999999", "0-3", "4095", "Battery", "max 0", "0::/a/../b", "cpu  1 2 3 4 5 6 7 8 9"])
    | st.builds("Temperature{{mValue={}, mType={}, mName=x, mStatus=0}}".format, NUMBERS, NUMBERS)
    | st.builds("level: {}\nscale: {}\ntemperature: {}".format, NUMBERS, NUMBERS, NUMBERS)
)
COMMANDS = st.sampled_from([command.line for command in EVERYTHING.commands])


@given(
    st.builds(
        Snapshot,
        st.dictionaries(NAMES, TEXTS),
        st.dictionaries(NAMES, TEXTS),
        st.dictionaries(COMMANDS, TEXTS),
        st.frozensets(NAMES),
    )
)
def test_no_snapshot_breaks_what_reads_it(snapshot: Snapshot) -> None:
    told = facts(snapshot, snapshot, (1, 2))
    assert told.sentence()
    assert told.to_dict()["cores"] is None or told.cores in range(1, 10_000)
    heat(snapshot)
    recorded_state(snapshot)
