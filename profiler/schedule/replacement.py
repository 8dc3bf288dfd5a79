"""The files of a table and of its replacement, moved such that one whole table is in force at any moment.

  NAME.parquet, NAME.journal.jsonl          the table in force
  NAME.new.parquet, NAME.new.journal.jsonl  the replacement under construction, which is resumed after an interruption
  history/NAME-UTC.parquet, ...             earlier tables, and (…failed.parquet) replacements that did not pass; pruned
The new journal is moved into place first and the table last: a new table without its journal has passed, and only has to be moved.
"""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from device_agents.support.atomic import whole
from profiler.errors import TableError
from profiler.layers.layer import LayerSpec
from profiler.measure.state import MeasurementState
from profiler.protocol.events import Refresh
from profiler.protocol.journal import Journal, journal_path, read_journal, unwritten

UNCHANGED = "; the table in force is unchanged"


def new_path(out: Path) -> Path:
    """Return the path of the replacement under construction."""
    return out.with_name(f"{out.stem}.new.parquet")


def begin_refresh(out: Path, layers: Iterable[LayerSpec]) -> None:
    """Copy the journal of a table for its replacement, and mark these layers and all networks to be measured again.

    The copy is atomic. Raises `JournalError` if the journal is missing or damaged, and `TableError` if the disk is full.
    """
    state = MeasurementState.of(read_journal(journal_path(out)))
    assert state.header is not None  # no journal is read without one
    # The networks are measured again too: the held-out error has to be that of the device as it is now.
    models = (*(layer.key for layer in layers), *state.networks)
    with whole(journal_path(new_path(out)), TableError, UNCHANGED) as temporary:
        shutil.copyfile(journal_path(out), temporary)
        with Journal(temporary, state.header.target, state.header.settings, resume=True) as journal:
            journal.append(Refresh(models, datetime.now(UTC).isoformat(timespec="seconds")))


def unfinished_journal(out: Path) -> Path | None:
    """Return the journal of an interrupted build; None if there is none."""
    path = journal_path(new_path(out))
    return path if path.exists() else None


def layers_being_refreshed(out: Path) -> tuple[LayerSpec, ...] | None:
    """Return the layers that an interrupted refresh measures again; None if the interrupted build measures all layers.

    Raises `JournalError` if its journal is damaged.
    """
    events = list(read_journal(journal_path(new_path(out))))
    begun = [event for event in events if isinstance(event, Refresh)]
    # The new journal begins as a copy of the old one: only an event that the old one lacks is of this refresh.
    before: list[Refresh] = []
    if journal_path(out).exists():
        before = [event for event in read_journal(journal_path(out)) if isinstance(event, Refresh)]
    if not begun or begun[-1] in before:
        return None
    layers = MeasurementState.of(events).layers
    return tuple(layers[key] for key in begun[-1].models if key in layers)


def promote(out: Path, keep: int, now: datetime) -> None:
    """Put the replacement in force, and copy the table that it replaces into the history.

    Raises `JournalNotWritable` if another process is adding layers to the old table, because it would overwrite the new one when it
    ends; and `TableError` if the disk does not allow it.
    """
    with _no_other_writer(out), _disk_errors(out):
        if out.exists():
            kept = _history_path(out, now, "")
            # copied, not moved: the old table stays in force until the new one takes its place
            for source, target in ((out, kept), (journal_path(out), journal_path(kept))):
                if source.exists():
                    with whole(target, TableError, UNCHANGED) as temporary:
                        shutil.copyfile(source, temporary)
        # the journal first: finish_promotion recognises a new table without a journal as one that has passed
        new = new_path(out)
        if journal_path(new).exists():
            journal_path(new).replace(journal_path(out))
        new.replace(out)
        _prune(out, keep)


def finish_promotion(out: Path) -> None:
    """Finish a promotion that was cut short between moving the journal and moving the table, if there is one."""
    new = new_path(out)
    if new.exists() and not journal_path(new).exists():
        with _no_other_writer(out), _disk_errors(out):
            new.replace(out)


def set_aside(out: Path, keep: int, now: datetime) -> None:
    """Move a replacement that did not pass into the history, marked as failed, so that its measurements are kept."""
    with _disk_errors(out):
        new = new_path(out)
        kept = _history_path(out, now, ".failed")
        for source, target in ((new, kept), (journal_path(new), journal_path(kept))):
            if source.exists():
                source.replace(target)
        _prune(out, keep)


def history_of(out: Path, suffix: str = "") -> list[Path]:
    """Return earlier tables, oldest first; with the suffix `.failed`, the replacements that did not pass."""
    name = re.compile(rf"{re.escape(out.stem)}-[0-9]{{8}}T[0-9]{{6}}Z{re.escape(suffix)}\.parquet")
    return sorted(path for path in (out.parent / "history").glob("*.parquet") if name.fullmatch(path.name))


def _history_path(out: Path, now: datetime, suffix: str) -> Path:
    """Return a path in the history that is named by the time; the folder is made if necessary."""
    folder = out.parent / "history"
    folder.mkdir(exist_ok=True)
    return folder / f"{out.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}{suffix}.parquet"


def _prune(out: Path, keep: int) -> None:
    """Delete all but the newest `keep` earlier tables and the newest `keep` failed replacements."""
    for leftover in (out.parent / "history").glob(f".{glob.escape(out.stem)}-*.tmp"):
        leftover.unlink(missing_ok=True)  # half a copy by a process that was killed
    for suffix in ("", ".failed"):
        found = history_of(out, suffix)
        for path in found[: max(0, len(found) - keep)]:
            path.unlink(missing_ok=True)
            journal_path(path).unlink(missing_ok=True)


def _no_other_writer(out: Path) -> AbstractContextManager[None]:
    """Lock the journal of the table in force. Raises `JournalNotWritable` if another process writes it."""
    journal = journal_path(out)
    return unwritten(journal) if journal.exists() else nullcontext()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Raise `TableError`, with the file's name, for an error of the disk."""
    try:
        yield
    except OSError as exc:
        raise TableError(f"{exc.filename or path} cannot be written: {exc.strerror or exc}{UNCHANGED}") from exc
