"""Files of JSON lines whose writer may be killed, or run out of room, at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_agents.support.jsonl import append_line, drop_torn_line, read_lines
from profiler.errors import TableError

FULL = """
import os, resource, signal, sys
from device_agents.support.jsonl import append_line
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.fstat(file).st_size + 5, resource.RLIM_INFINITY))
try:
    append_line(file, {"text": "x" * 100})
except OSError as exc:
    print(type(exc).__name__)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a":1}\n{"a":2}\n')
    return path


def values(path: Path) -> list[object]:
    return [value for _, value in read_lines(path, TableError)]


def test_a_line_is_added_behind_the_others(path: Path) -> None:
    with path.open("ab") as file:
        append_line(file.fileno(), {"a": "ä\n\u2028"})
    assert values(path) == [{"a": 1}, {"a": 2}, {"a": "ä\n\u2028"}]


def test_a_line_for_which_there_is_no_room_leaves_nothing_behind(path: Path) -> None:
    before = path.read_bytes()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "OSError\n"
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", ['{"a":3', '{"a":3}', "{", "\xff"])
def test_a_torn_last_line_is_not_read(path: Path, torn: str) -> None:
    with path.open("a") as file:
        file.write(torn)
    assert values(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(("data", "left"), [(b'{"a":1}\n{"a"', b'{"a":1}\n'), (b'{"a"', b""), (b"", b""), (b"{}\n", b"{}\n")])
def test_a_torn_last_line_is_dropped_so_that_more_can_follow(path: Path, data: bytes, left: bytes) -> None:
    path.write_bytes(data)
    drop_torn_line(path)
    assert path.read_bytes() == left


def test_a_file_that_is_not_there_has_no_torn_line(tmp_path: Path) -> None:
    drop_torn_line(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_damaged_line_is_told_with_its_number(path: Path) -> None:
    path.write_text('{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.raises(TableError, match=r"lines\.jsonl, line 2 is damaged: .*; use a copy"):
        list(read_lines(path, TableError, "; use a copy"))


def test_places_are_fit_for_messages(path: Path) -> None:
    assert [place for place, _ in read_lines(path, TableError)] == [f"{path}, line 1", f"{path}, line 2"]


def test_a_file_that_is_not_text_or_not_there_is_told(path: Path) -> None:
    path.write_bytes(b"\xff\n")
    with pytest.raises(TableError, match="it is not text"):
        values(path)
    with pytest.raises(TableError, match="none cannot be read: No such file"):
        values(path.with_name("none"))
