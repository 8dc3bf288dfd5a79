"""The search for tables, journals, NetAdapt runs and super-networks in the folders that are shown.

No file is ever opened by a path from a request: each file that is found has an id made from its path, and requests name ids. Links
that lead out of a folder are not followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes and time of the last change in ns."""

JOURNAL = ".journal.jsonl"
RUN = "run.json"
SUPERNET = "supernet.json"
UNSEARCHED = frozenset({"history", "node_modules", "__pycache__", "site-packages"})
MAX_FILES, MAX_DEPTH = 50_000, 8
"""The page is refreshed every few seconds, so it must not search a whole disk."""


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files found, as dictionaries from resolved paths to the names to show."""

    tables: dict[Path, str] = field(default_factory=dict)
    journals: dict[Path, str] = field(default_factory=dict)
    runs: dict[Path, str] = field(default_factory=dict)
    """The run folders."""
    supernets: dict[Path, str] = field(default_factory=dict)
    """The folders of super-networks."""
    notes: tuple[str, ...] = ()
    """Sentences about what could not be searched."""


def find(folders: Sequence[Path]) -> FoundFiles:
    """Search the folders. Runs are not searched for tables, because the tables in them are copies."""
    found = FoundFiles()
    notes = []
    files_left = MAX_FILES
    for folder in folders:
        root = folder.resolve()
        if not root.is_dir():
            notes.append(f"the folder {folder} does not exist")
            continue
        prefix = f"{root.name}/" if len(folders) > 1 else ""
        for place, subfolders, files in os.walk(root):
            path = Path(place)
            _sort(found, root, path, sorted(files), prefix)
            if RUN in files or SUPERNET in files or len(path.relative_to(root).parts) >= MAX_DEPTH:
                subfolders.clear()  # os.walk goes into what is left in this list, in its order
            else:
                subfolders[:] = sorted(name for name in subfolders if name not in UNSEARCHED and not name.startswith("."))
            files_left -= len(files)
            if files_left < 0:
                notes.append(f"{folder} holds too many files to search; name the folders that contain tables and runs")
                break
    return FoundFiles(found.tables, found.journals, found.runs, found.supernets, tuple(notes))


def _sort(found: FoundFiles, root: Path, folder: Path, files: Sequence[str], prefix: str) -> None:
    """Add the run or super-network, or the tables and journals, that lie directly in a folder."""

    def shown(path: Path) -> str:
        relative = path.relative_to(root).as_posix()
        name = prefix + (root.name if relative == "." else relative)
        return name.encode("utf-8", "replace").decode()  # a file's name on Linux need not be valid UTF-8

    for mark, kind in ((RUN, found.runs), (SUPERNET, found.supernets)):
        if mark in files:
            if inside(folder / mark, root) is not None:
                kind.setdefault(folder, shown(folder))
            return
    for name in files:
        if name.endswith(JOURNAL):
            kind = found.journals
        elif name.endswith(".parquet") and not name.endswith(".new.parquet"):  # one under construction is shown as a build
            kind = found.tables
        else:
            continue
        # The resolved path is the key, so that a table and a link to it are listed once.
        real = None if name.startswith(".") else inside(folder / name, root)
        if real is not None:
            kind.setdefault(real, shown(folder / name))


def inside(path: Path, root: Path) -> Path | None:
    """Return the resolved path if it is a file or folder within the resolved `root`, else None."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return real if real.is_relative_to(root) and (real.is_file() or real.is_dir()) else None


def id_of(path: Path) -> str:
    """Return an id for URLs that shows a reader the file's name but not its folder."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", path.name.split(".")[0])[:40].strip("-").lower()
    return f"{plain or 'unnamed'}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:10]}"


def stamp(path: Path) -> Stamp | None:
    """Return a value that changes whenever the file does; None if there is no file."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


class FileCache(Generic[T]):
    """A cache of what was made from files; an entry is valid while its file is unchanged. Threads may share it."""

    def __init__(self, max_entries: int = 2000) -> None:
        self._entries: dict[Path, tuple[Stamp | None, T]] = {}
        self._max_entries = max_entries
        self._lock = threading.Lock()

    def get(self, path: Path, make: Callable[[Path], T]) -> T:
        """Return what `make` returned for the file as it is now."""
        with self._lock:  # also held while making, so that two requests at once do not make the same entry twice
            # The stamp is taken first: if the file changes while it is read, the next call reads it again.
            before = stamp(path)
            if path in self._entries and self._entries[path][0] == before:
                return self._entries[path][1]
            made = make(path)
            self._entries.pop(path, None)
            self._entries[path] = (before, made)
            while len(self._entries) > self._max_entries:
                del self._entries[next(iter(self._entries))]  # dictionaries keep their order: the oldest entry
            return made
