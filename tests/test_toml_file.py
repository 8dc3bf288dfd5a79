"""Settings in TOML: every mistake is reported with its line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from device_agents.errors import DeviceError
from device_agents.support.errors import ConfigError
from device_agents.support.toml_file import Place, TomlFile, line_of, read_toml

TEXT = """\
seed = 1
[device]
cores = 4
names = { a = 1, b = 2 }

[[fault]]
kind = "crash"
[[fault]]
push = 2
kind = "hang"
[devices.pixel]
address = "adb:1"
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("seed",), 1), (("device",), 2), (("device", "cores"), 3), (("device", "names", "b"), 4), (("device", "none"), 2),
        (("fault", 0), 6), (("fault", 0, "kind"), 7), (("fault", 1), 8), (("fault", 1, "kind"), 10), (("fault", 1, "none"), 8),
        (("devices", "pixel", "address"), 12), (("none",), None),
    ],
)  # fmt: skip
def test_a_value_is_found_in_the_text(place: Place, line: int | None) -> None:
    assert line_of(TEXT, place) == line


def test_the_places_of_inline_lists_are_their_line() -> None:
    assert line_of('a = 1\nfault = [{kind = "x"}, {kind = "y"}]\n', ("fault", 1, "kind")) == 2


@pytest.fixture
def file(tmp_path: Path) -> TomlFile:
    path = tmp_path / "file.toml"
    path.write_text(TEXT)
    return read_toml(path)


def test_an_unknown_key_says_which_was_meant(file: TomlFile) -> None:
    with pytest.raises(ConfigError, match=r"line 3: the device has no setting 'cores'; did you mean 'core'"):
        file.known(file.plain["device"], ("core", "names"), ("device",), "the device")


@pytest.mark.parametrize(("value", "kind"), [(True, int), (1, bool), ("1", int), (1, str), (1, float)])
def test_a_value_of_another_type_is_refused(file: TomlFile, value: object, kind: type) -> None:
    with pytest.raises(ConfigError, match="line 3: the device: cores must be"):
        file.typed(value, kind, ("device", "cores"), "the device")


@pytest.mark.parametrize("value", [0, 9, 1.5, True, "4", 10**400])
def test_a_whole_number_outside_its_limits_is_refused(file: TomlFile, value: object) -> None:
    with pytest.raises(ConfigError, match="line 3: the device: cores must be a whole number from 1 to 8, not"):
        file.number(value, int, ("device", "cores"), "the device", 1, 8)


@pytest.mark.parametrize("value", [0, math.nan, math.inf, True, "4"])
def test_a_number_below_its_limit_is_refused(file: TomlFile, value: object) -> None:
    with pytest.raises(ConfigError, match=r"line 3: the device: cores must be a number of at least 0\.5, not"):
        file.number(value, float, ("device", "cores"), "the device", 0.5)


def test_a_whole_number_serves_as_a_number(file: TomlFile) -> None:
    assert file.number(4, float, ("device", "cores"), "the device") == 4


def test_a_name_that_is_none_of_a_list_says_which_was_meant(file: TomlFile) -> None:
    assert file.one_of("hang", ("hang", "crash"), ("fault", 1, "kind"), "a fault") == "hang"
    with pytest.raises(ConfigError, match="line 7: a fault: there is no kind 'crsh'; did you mean 'crash'"):
        file.one_of("crsh", ("hang", "crash"), ("fault", 0, "kind"), "a fault")


def test_a_table_that_is_none_is_refused_without_repeating_it(file: TomlFile) -> None:
    with pytest.raises(ConfigError, match=r"line 2: device must be a table, such as \[device\] begins") as caught:
        file.table("secret", ("device",))
    assert "secret" not in str(caught.value)


def test_paths_are_relative_to_the_file(file: TomlFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert file.path_of("plans/a.json") == file.path.parent / "plans/a.json"
    assert file.path_of("~/a.json") == Path("/home/somebody/a.json")
    assert file.path_of("/a.json") == Path("/a.json")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[device\n", "is not TOML: .*line 1"),
        (b"\xff", "is not text"),
        (b"a = " + b"[" * 5000, "is nested too deeply"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b".".join([b"a"] * 300) + b" = 1", "line 1: more than 200 dots"),
        (b"#" * 1_000_001, "larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_toml_is_told_in_the_callers_error(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(data)
    with pytest.raises(DeviceError, match=said):
        read_toml(path, DeviceError)


def test_the_callers_advice_ends_the_sentence(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"none\.toml cannot be read: No such file or directory; write one$"):
        read_toml(tmp_path / "none.toml", DeviceError, "; write one")


def test_mistakes_found_later_are_the_callers_error_too(tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text("a = 1\n")
    file = read_toml(tmp_path / "file.toml", DeviceError)
    with pytest.raises(DeviceError, match=r"file\.toml, line 1: a: a must be a text, not 1"):
        file.typed(1, str, ("a",), "a")


FORMS = {"utf-8-sig": "utf-8-sig", "utf-16": "utf-16", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be", "utf-32": "utf-32"}


@pytest.mark.parametrize("encoding", FORMS)
def test_a_file_saved_by_an_editor_of_windows_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes('[device]\r\nname = "Büro"\r\n'.encode(encoding))
    assert read_toml(path).plain == {"device": {"name": "Büro"}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (r'library = "C:\Users\me\lib.so"', r"a path with backslashes stands in single quotes, such as 'C:\\models'"),
        (r'library = "D:\models\x"', "a path with backslashes stands in single quotes"),
        ("name = “pixel”", 'must be the plain " and blank'),
        ("name = «pixel»", 'must be the plain " and blank'),
        ('name\u00a0= "pixel"', 'must be the plain " and blank'),
    ],
)
def test_what_another_program_put_into_a_line_is_told(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(f"[device]\n{line}\n")
    with pytest.raises(ConfigError, match=r"is not TOML: .*line 2") as error:
        read_toml(path)
    assert said.replace("\\\\", "\\") in str(error.value)


def test_a_file_in_the_encoding_of_old_windows_is_told(tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_bytes('name = "Büro"\n'.encode("cp1252"))
    with pytest.raises(ConfigError, match=r"is not text in UTF-8 or UTF-16; save it as UTF-8"):
        read_toml(tmp_path / "file.toml")
