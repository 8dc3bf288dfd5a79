"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.support.atomic import whole, write_whole
from profiler.errors import TableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("before")
    return path


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(path: Path) -> None:
    with whole(path, TableError) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "before"
        temporary.write_text("after")
    assert path.read_text() == "after"


def test_what_breaks_off_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole(path, TableError) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_written_in_utf_8(path: Path) -> None:
    write_whole(path, "δ1", TableError)
    assert path.read_bytes() == "δ1".encode()


def test_a_place_that_cannot_be_written_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none/file cannot be written: No such file or directory; choose another --out"):
        write_whole(tmp_path / "none" / "file", b"", TableError, "; choose another --out")
