"""The file that names devices: what it may say, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agents.errors import UnknownDevice
from device_agents.support.errors import ConfigError, ToolError
from profiler.devices.conditioning import Cooling
from profiler.devices.config import Device, configured_devices, find_device


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may see a file of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PROFILE_CONFIG", raising=False)


def write(text: str, path: str = "profile.toml") -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return Path(path)


def test_an_address_needs_no_file() -> None:
    assert find_device("ssh:jetson") == Device("ssh:jetson", "ssh:jetson")


def test_a_name_stands_for_what_the_file_says() -> None:
    write(
        '[devices.pixel]\naddress = "adb:1A2B"\nrunner = "native"\ncpus = [5, 4]\nfixed_performance = false\n'
        'libraries.litert = ["libc++_shared.so", "/lib/libLiteRt.so"]\ncool = { below_c = 40, wait_s = 60 }\n'
    )
    device = find_device("pixel")
    assert (device.address, device.runner, device.cpus, device.fixed_performance) == ("adb:1A2B", "native", (4, 5), False)
    assert device.cool == Cooling(below_c=40, wait_s=60)
    assert [path.name for path in device.libraries["litert"]] == ["libc++_shared.so", "libLiteRt.so"]


def test_an_address_that_the_file_names_gets_its_settings() -> None:
    write('[devices.pixel]\naddress = "adb:1A2B"\ncpus = "all"\n')
    assert find_device("adb:1A2B").name == "pixel"


def test_paths_are_relative_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[devices.x]\naddress = "ssh:x"\nnative = "bin/measure"\n', "lab/profile.toml")
    monkeypatch.setenv("PROFILE_CONFIG", "lab/profile.toml")
    assert find_device("x").native == Path("lab/bin/measure")


def test_the_users_own_file_serves_where_the_folder_has_none(tmp_path: Path) -> None:
    write('[devices.mine]\naddress = "local"\n', str(tmp_path / "config/netadapt-profiler/profile.toml"))
    assert list(configured_devices()) == ["mine"]
    write('[devices.here]\naddress = "local"\n')
    assert list(configured_devices()) == ["here"]


@pytest.mark.parametrize(("name", "meant"), [("pixle", "pixel"), ("locl", "local"), ("shh:host", "ssh:host")])
def test_an_unknown_name_says_what_may_have_been_meant(name: str, meant: str) -> None:
    write('[devices.pixel]\naddress = "adb:1A2B"\n')
    with pytest.raises(UnknownDevice, match=f"did you mean '{meant}'"):
        find_device(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cpu", "did you mean 'local'"), ("localhost", "did you mean 'local'"), ("127.0.0.1", "did you mean 'local'"),
        ("cuda", "onnxruntime-cuda on --device local"), ("cuda:0", "onnxruntime-cuda on --device local"),
        ("GPU", "onnxruntime-cuda on --device local"), ("root@host", "did you mean 'ssh:root@host'"),
        ("pi@192.168.1.5:2222", "did you mean 'ssh:pi@192.168.1.5:2222'"), ("192.168.1.5", "did you mean 'ssh:192.168.1.5'"),
        ("jetson.local", "did you mean 'ssh:jetson.local'"), ("192.168.1.5:5555", "did you mean 'adb:192.168.1.5:5555'"),
        ("emulator-5554", "did you mean 'adb:emulator-5554'"), ("phone", "did you mean 'adb:SERIAL'"),
    ],
)  # fmt: skip
def test_what_other_tools_call_a_device_says_how_it_is_called_here(name: str, said: str) -> None:
    with pytest.raises(UnknownDevice, match=said):
        find_device(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[devices.pixel]\n\nadress = "adb:1"\n', r"line 3: .*'adress'; did you mean 'address'"),
        ('[devices.pixel]\ncpus = "big"\n', r"line 1: .*needs an address"),
        ('[devices.pixel]\naddress = "usb:1"\n', r"line 2: .*begins with local, ssh"),
        ('[devices.pixel]\naddress = "adb:1"\ncpus = "fast"\n', r'line 3: .*"big", "all" or a list'),
        ('[devices.pixel]\naddress = "adb:1"\ncpus = [-1]\n', r"line 3: .*list of cores"),
        ('[devices.pixel]\naddress = "adb:1"\ncool = { below = 3 }\n', r"line 3: .*'below'; did you mean 'below_c'"),
        ('[devices.pixel]\naddress = "adb:1"\ncool = { below_c = "x" }\n', r"line 3: .*must be a number"),
        ('[devices.pixel]\naddress = "adb:1"\nlibraries.litert = 3\n', r"line 3: .*must be a path"),
        ('[devices.pixel]\naddress = "adb:1"\nfixed_performance = "yes"\n', r"line 3: .*true or false"),
        ('[devices.pixel]\naddress = "adb:1"\nrunner = "perl"\n', r"line 3: .*no runner 'perl'"),
        ('[devices.pixel]\naddress = "adb:1"\nlibraries.onxruntime = "a.so"\n', r"line 3: .*did you mean 'onnxruntime'"),
        ('[devices.pixel]\naddress = "adb:1"\ntools.benchmark-model = "a"\n', r"line 3: .*did you mean 'benchmark_model'"),
        ("[devices.pixel]\naddress = 'adb:1'\nnative = 'C:\\bin\\measure'\n", r"line 3: .*native is a path of Windows"),
        ("[devices.pixel]\naddress = 'adb:1'\nnative = '\\\\server\\measure'\n", r"line 3: .*native is a path of Windows"),
        ('[devices.pixel]\naddress = "adb:1"\nnative = "bin\\temp"\n', r"line 3: .*native is a path of Windows"),
        ('[device.pixel]\naddress = "adb:1"\n', r"line 1: the file has no setting 'device'; did you mean 'devices'"),
        ('[Devices.pixel]\naddress = "adb:1"\n', r"line 1: the file has no setting 'Devices'; did you mean 'devices'"),
        ('[pixel]\naddress = "adb:1"\n', r"line 1: the file has no setting 'pixel'; known are devices, tables, schedule"),
        ("devices = 3\n", r"line 1: .*must be a table"),
        ("[devices.pixel\n", r"is not TOML: .*line 1"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_was_meant(text: str, said: str) -> None:
    write(text)
    with pytest.raises(ConfigError, match=said):
        configured_devices()


def test_a_file_that_was_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigError, match=r"no file nowhere\.toml"):
        configured_devices()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_devices_or_an_error_of_ours(data: bytes) -> None:
    Path("profile.toml").write_bytes(data)
    try:
        configured_devices()
    except ToolError:
        pass


VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(alphabet="abc./", max_size=5).map(lambda text: f'"{text}"'),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(map(str, items))}]"),
    max_leaves=4,
).map(lambda value: str(value).lower() if isinstance(value, bool) else str(value))
WORDS = st.sampled_from(
    ["runner", "python", "native", "libraries", "libraries.litert", "tools", "tools.x", "cpus", "cool", "folder"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_any_value_is_understood_or_refused(values: dict[str, str]) -> None:
    Path("profile.toml").write_text(
        "\n".join(['[devices.x]\naddress = "local"', *(f"{word} = {value}" for word, value in values.items())])
    )
    try:
        configured_devices()
    except ToolError:
        pass
