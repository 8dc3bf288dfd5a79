"""YAML that is a mapping of mappings, read event by event: no tags, no aliases, no nesting, nothing built that was not asked for.

A general loader would build whatever such a file asks for; a table is two levels of text, so that much is built and no more.
"""

from __future__ import annotations

import yaml

from profiler.errors import ExchangeError
from profiler.exchange.reader import MOST_ENTRIES, Source, shown

MOST_BYTES = 4_000_000
MOST_FIGURES = 20
"""Of one entry."""
OTHER = "is this another file?"


def flat_mapping(source: Source) -> dict[str, dict[str, str]]:
    """Keys, and for each its figures by name, as they are written. `ExchangeError` for anything else."""
    if len(source.data) > MOST_BYTES:
        raise ExchangeError(f"{source.name} is larger than {MOST_BYTES / 1e6:g} MB, which no such table is; import a part of it")
    builder = _Builder()
    place = source.name
    try:
        for event in yaml.parse(source.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            place = f"{source.name}, line {event.start_mark.line + 1}"
            builder.take(event)
    except yaml.YAMLError as exc:
        raise ExchangeError(f"{source.name} is not YAML: {shown(str(exc).splitlines()[0])}") from exc
    except _NoTable as exc:
        raise ExchangeError(f"{place}: {exc}") from exc
    return builder.table


class _NoTable(Exception):
    """What is wrong, without the place."""


class _Builder:
    """The table so far, and what the next event belongs to."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, str]] = {}
        self._documents = 0
        self._depth = 0
        self._inner: dict[str, str] | None = None
        """The figures of the entry that is being read, ..."""
        self._waiting: str | None = None
        """... and the key or name that waits for its value."""

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, (yaml.AliasEvent, yaml.SequenceStartEvent)) or getattr(event, "anchor", None):
            raise _NoTable(f"a latency table has neither lists nor aliases; {OTHER}")
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _NoTable("a second document begins; a latency table is one")
        elif isinstance(event, yaml.MappingStartEvent):
            self._open()
        elif isinstance(event, yaml.MappingEndEvent):
            self._depth, self._inner = self._depth - 1, None
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event.value)

    def _open(self) -> None:
        self._depth += 1
        if self._depth == 1:
            return
        if self._depth > 2 or self._waiting is None:
            raise _NoTable(f"a latency table has a key and its figures, nothing deeper; {OTHER}")
        if self._waiting in self.table:
            raise _NoTable(f"{shown(self._waiting)} is there twice; remove one of them")
        if len(self.table) >= MOST_ENTRIES:
            raise _NoTable(f"more than {MOST_ENTRIES} entries; import a part of them")
        self._inner = self.table[self._waiting] = {}
        self._waiting = None

    def _scalar(self, value: str) -> None:
        if self._depth == 0 or (self._inner is None and self._waiting is not None):
            raise _NoTable(f"{shown(value)} where a mapping was expected; {OTHER}")
        if self._waiting is None:
            self._waiting = value
        elif self._inner is not None:
            self._inner[self._waiting] = value
            self._waiting = None
            if len(self._inner) > MOST_FIGURES:
                raise _NoTable(f"more figures than any entry has; {OTHER}")
