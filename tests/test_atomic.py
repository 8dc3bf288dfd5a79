"""A file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_agents.support.atomic import whole, write_whole
from device_agents.support.errors import ToolError
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


@pytest.mark.parametrize("place", ["", "folder", "pipe"])
def test_what_is_no_file_is_not_replaced(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ToolError, match=r"cannot be written: it is (a folder|no file)"):
        write_whole(tmp_path / place, b"x", ToolError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"] and (tmp_path / "pipe").is_fifo()


def test_a_link_in_a_circle_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    write_whole(tmp_path / "one", b"x", ToolError)
    assert (tmp_path / "one").read_bytes() == b"x"


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    write_whole(tmp_path / "link", b"x", ToolError)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_bytes() == b"x"
