"""The files of a table and of the one that is to replace it, so that whatever happens, one whole table is in force.

  NAME.parquet, NAME.journal.jsonl          the table in force
  NAME.new.parquet, NAME.new.journal.jsonl  the one being made, which is gone on with after an interruption
  history/NAME-UTC.parquet, ...             earlier ones, and (…failed.parquet) those that did not pass; pruned
The new journal goes first into its place and the table last: a new table without its journal has passed, and only has to be moved.
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

STAYS = "; the table in force stays as it is"


def new_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.new.parquet")


def begin_refresh(out: Path, layers: Iterable[LayerSpec]) -> None:
    """A new journal that has all of the old one, in which these layers and all networks are to be measured again.

    It is there whole or not at all. `JournalError` if the old one is gone or damaged.
    """
    state = MeasurementState.of(read_journal(journal_path(out)))
    assert state.header is not None  # no journal is read without one
    models = (*(layer.key for layer in layers), *state.networks)
    with whole(journal_path(new_path(out)), TableError, STAYS) as temporary:
        shutil.copyfile(journal_path(out), temporary)
        with Journal(temporary, state.header.target, state.header.settings, resume=True) as journal:
            journal.append(Refresh(models, datetime.now(UTC).isoformat(timespec="seconds")))


def unfinished(out: Path) -> Path | None:
    """The journal of a table that was being made when something ended it."""
    path = journal_path(new_path(out))
    return path if path.exists() else None


def refreshing(out: Path) -> tuple[LayerSpec, ...] | None:
    """The layers an unfinished refresh is about; None if all are measured. `JournalError` if its journal is damaged."""
    events = list(read_journal(journal_path(new_path(out))))
    begun = [event for event in events if isinstance(event, Refresh)]
    if not begun or begun[-1] in _refreshes(journal_path(out)):
        return None
    layers = MeasurementState.of(events).layers
    return tuple(layers[key] for key in begun[-1].models if key in layers)


def _refreshes(path: Path) -> list[Refresh]:
    return [event for event in read_journal(path) if isinstance(event, Refresh)] if path.exists() else []


def promote(out: Path, keep: int, now: datetime) -> None:
    """Put the new table in force and the old one into the history.

    `JournalNotWritable` if somebody measures more for the old one now, who would write it over the new one at the end.
    """
    with _nobody_extends(out), _moving(out):
        if out.exists():
            _copy_to_history(out, now)
        if (new := journal_path(new_path(out))).exists():
            new.replace(journal_path(out))
        new_path(out).replace(out)
        _prune(out, keep)


def finish_promotion(out: Path) -> bool:
    """Of a new table that had passed when something ended the process; whether there was one."""
    new = new_path(out)
    if not new.exists() or journal_path(new).exists():
        return False
    with _nobody_extends(out), _moving(out):
        new.replace(out)
    return True


def set_aside(out: Path, keep: int, now: datetime) -> None:
    """A new table that is not to be: what was measured for it stays in the history, as failed."""
    with _moving(out):
        _into_history(out, new_path(out), now, ".failed")
        _prune(out, keep)


def history_of(out: Path, suffix: str = "") -> list[Path]:
    """Earlier tables, oldest first, or with `.failed` those that were not to be."""
    name = re.compile(rf"{re.escape(out.stem)}-[0-9]{{8}}T[0-9]{{6}}Z{re.escape(suffix)}\.parquet")
    return sorted(path for path in (out.parent / "history").glob("*.parquet") if name.fullmatch(path.name))


def _copy_to_history(out: Path, now: datetime) -> None:
    """The one in force stays where it is meanwhile."""
    kept = _kept_path(out, now, "")
    for source, target in ((out, kept), (journal_path(out), journal_path(kept))):
        if source.exists():
            with whole(target, TableError, STAYS) as temporary:
                shutil.copyfile(source, temporary)


def _into_history(out: Path, table: Path, now: datetime, suffix: str) -> None:
    kept = _kept_path(out, now, suffix)
    for source, target in ((table, kept), (journal_path(table), journal_path(kept))):
        if source.exists():
            source.replace(target)


def _kept_path(out: Path, now: datetime, suffix: str) -> Path:
    folder = out.parent / "history"
    folder.mkdir(exist_ok=True)
    return folder / f"{out.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}{suffix}.parquet"


def _prune(out: Path, keep: int) -> None:
    """Of earlier tables and of failed ones so many each."""
    for left in (out.parent / "history").glob(f".{glob.escape(out.stem)}-*.tmp"):
        left.unlink(missing_ok=True)  # of a process that was killed
    for suffix in ("", ".failed"):
        found = history_of(out, suffix)
        for path in found[: max(0, len(found) - keep)]:
            path.unlink(missing_ok=True)
            journal_path(path).unlink(missing_ok=True)


def _nobody_extends(out: Path) -> AbstractContextManager[None]:
    journal = journal_path(out)
    return unwritten(journal) if journal.exists() else nullcontext()


@contextmanager
def _moving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise TableError(f"{exc.filename or path} cannot be written: {exc.strerror or exc}{STAYS}") from exc
