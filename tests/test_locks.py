"""Locks on files. That they end with the process that holds them is shown in test_device_lock.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_agents.support.cache import cache_folder
from device_agents.support.locks import hold, holder, locked, process_lives


def test_a_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    file = locked(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        locked(tmp_path / "lock")
    os.close(file)
    os.close(locked(tmp_path / "lock"))


def test_a_file_that_was_replaced_while_it_was_opened_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old, opened = tmp_path / "lock", tmp_path / "old", os.open

    def replace_behind(name: Path, flags: int, mode: int) -> int:
        monkeypatch.setattr(os, "open", opened)
        file = opened(name, flags, mode)
        path.rename(old)
        path.write_text("new")
        return file

    monkeypatch.setattr(os, "open", replace_behind)
    file = locked(path)
    assert os.path.samestat(os.fstat(file), path.stat())
    os.close(locked(old))  # nobody holds the one that was replaced
    os.close(file)


def test_a_file_is_not_made_unless_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locked(tmp_path / "none", flags=0)


def test_while_a_lock_is_held_its_file_says_by_whom(tmp_path: Path) -> None:
    with hold(tmp_path / "lock"):
        found = holder(tmp_path / "lock")
    assert found is not None and found.pid == os.getpid()
    assert holder(tmp_path / "lock") is None


def test_a_process_that_has_ended_lives_no_more() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert process_lives(os.getpid())
    assert not process_lives(child)
    assert not process_lives(1 << 80)


@pytest.mark.parametrize(("value", "folder"), [("", ".cache"), ("relative", ".cache")])
def test_without_a_cache_folder_of_its_own_it_is_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, folder: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == tmp_path / folder / "netadapt-profiler"


def test_the_cache_folder_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "netadapt-profiler"
