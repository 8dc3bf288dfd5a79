"""What lies under the folders that are shown: tables, journals and NetAdapt runs.

Nothing is ever opened by a path out of a request. Each thing found has a name of its own instead, made from where it lies, and a
link that leads out of its folder is not followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[int, int, int, int]

JOURNAL = ".journal.jsonl"
RUN = "run.json"
UNSEARCHED = frozenset({"history", "node_modules", "__pycache__", "site-packages"})
MOST_FILES, MOST_DEPTH = 50_000, 8
"""A page that is looked at every few seconds must not search a whole disk."""


@dataclass(frozen=True, slots=True)
class Things:
    """Files, by where they really are, and what to call each."""

    tables: dict[Path, str] = field(default_factory=dict)
    journals: dict[Path, str] = field(default_factory=dict)
    runs: dict[Path, str] = field(default_factory=dict)
    """The folders themselves."""
    notes: tuple[str, ...] = ()
    """What could not be searched."""


def find(folders: Sequence[Path]) -> Things:
    found, notes = Things(), []
    left = MOST_FILES
    for folder in folders:
        root = folder.resolve()
        if not root.is_dir():
            notes.append(f"there is no folder {folder}")
            continue
        for path, files in _walk(root):
            left -= len(files)
            _sort(found, root, path, files, f"{root.name}/" if len(folders) > 1 else "")
            if left < 0:
                notes.append(f"{folder} holds too many files to search; name the folders that tables are in")
                break
    return Things(found.tables, found.journals, found.runs, tuple(notes))


def inside(path: Path, root: Path) -> Path | None:
    """Where the path really leads, if that is a file or folder within the root (which is resolved already)."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return real if real.is_relative_to(root) and (real.is_file() or real.is_dir()) else None


def id_of(path: Path) -> str:
    """A name for a URL that tells a reader what it is and no program where it lies."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", path.name.split(".")[0])[:40].strip("-").lower()
    return f"{plain or 'unnamed'}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:10]}"


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of their files; runs are not searched: the tables in them are copies."""
    for folder, folders, files in os.walk(root):
        path = Path(folder)
        deep = len(path.relative_to(root).parts) >= MOST_DEPTH
        closed = deep or RUN in files
        folders[:] = [] if closed else sorted(name for name in folders if name not in UNSEARCHED and not name.startswith("."))
        yield path, sorted(files)


def _sort(found: Things, root: Path, folder: Path, files: Sequence[str], prefix: str) -> None:
    if RUN in files:
        if inside(folder / RUN, root) is not None:
            found.runs.setdefault(folder, _shown(prefix, folder, root))
        return
    for name in files:
        kind = found.journals if name.endswith(JOURNAL) else found.tables if name.endswith(".parquet") else None
        being_made = name.endswith(".new.parquet")
        if kind is None or name.startswith(".") or being_made:
            continue
        if (real := inside(folder / name, root)) is not None:
            kind.setdefault(real, _shown(prefix, folder / name, root))


def _shown(prefix: str, path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    name = prefix + (root.name if relative == "." else relative)
    return name.encode("utf-8", "replace").decode()  # a name on the disk need not be text


def stamp(path: Path) -> Stamp | None:
    """Differs whenever the file does; None if there is none."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


class Remembered(Generic[T]):
    """What was made of a file, until that changes."""

    def __init__(self, most: int = 2000) -> None:
        self._made: dict[Path, tuple[Stamp | None, T]] = {}
        self._most = most
        self._lock = threading.Lock()

    def get(self, path: Path, make: Callable[[Path], T]) -> T:
        with self._lock:  # two that ask at once need not make it twice
            before = stamp(path)
            if path in self._made and self._made[path][0] == before:
                return self._made[path][1]
            made = make(path)
            self._made.pop(path, None)
            self._made[path] = (before, made)
            while len(self._made) > self._most:
                del self._made[next(iter(self._made))]
            return made
