"""Reads YAML that is a mapping of mappings, event by event, without tags, aliases or deeper nesting.

A general loader would build whatever such a file demands, of any size and depth. A latency table has two levels of text, and
nothing else is built.
"""

from __future__ import annotations

import yaml

from profiler.errors import ExchangeError
from profiler.exchange.reader import MOST_ENTRIES, Source, shown

MOST_BYTES = 4_000_000
MOST_VALUES = 20
"""The most values of one entry."""
CHECK_FILE = "check that it is the right file"


def flat_mapping(source: Source) -> dict[str, dict[str, str]]:
    """The values of each key by name, as they are written. Raises `ExchangeError`, with the line, for any other YAML."""
    if len(source.data) > MOST_BYTES:
        raise ExchangeError(f"{source.name} is larger than {MOST_BYTES / 1e6:g} MB, which no such table is; import a part of it")
    builder = _Builder()
    place = source.name
    try:
        for event in yaml.parse(source.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            place = f"{source.name}, line {event.start_mark.line + 1}"
            builder.take(event)
    except yaml.YAMLError as exc:
        raise ExchangeError(f"{source.name} is not YAML: {shown(str(exc).splitlines()[0])}; {CHECK_FILE}") from exc
    except _NotATable as exc:
        raise ExchangeError(f"{place}: {exc}") from exc
    return builder.table


class _NotATable(Exception):
    """The reason, without the place, why the file is no table."""


class _Builder:
    """Builds the table from the events of the parser."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, str]] = {}
        self._documents = 0
        self._depth = 0
        self._entry: dict[str, str] | None = None
        """The values of the current entry; None between entries."""
        self._waiting: str | None = None
        """The key of an entry, or the name of a value, that has been read and has no value yet."""

    def take(self, event: yaml.Event) -> None:
        """Add an event. Raises `_NotATable` if no table continues in this way."""
        if isinstance(event, (yaml.AliasEvent, yaml.SequenceStartEvent)) or getattr(event, "anchor", None):
            raise _NotATable(f"a latency table has neither lists nor aliases; {CHECK_FILE}")
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _NotATable("a second document begins, but a latency table is one document; remove the others")
        elif isinstance(event, yaml.MappingStartEvent):
            self._depth += 1
            if self._depth > 1:
                self._open_entry()
        elif isinstance(event, yaml.MappingEndEvent):
            self._depth -= 1
            self._entry = None
        elif isinstance(event, yaml.ScalarEvent):
            self._add_text(event.value)

    def _open_entry(self) -> None:
        if self._depth > 2 or self._waiting is None:
            raise _NotATable(f"a latency table has keys with values and nothing deeper; {CHECK_FILE}")
        if self._waiting in self.table:
            raise _NotATable(f"{shown(self._waiting)} is there twice; remove one of them")
        if len(self.table) >= MOST_ENTRIES:
            raise _NotATable(f"more than {MOST_ENTRIES} entries; import a part of them")
        self._entry = {}
        self.table[self._waiting] = self._entry
        self._waiting = None

    def _add_text(self, text: str) -> None:
        if self._depth == 0 or (self._entry is None and self._waiting is not None):
            raise _NotATable(f"{shown(text)} stands where a mapping was expected; {CHECK_FILE}")
        if self._waiting is None:
            self._waiting = text
        elif self._entry is not None:
            self._entry[self._waiting] = text
            self._waiting = None
            if len(self._entry) > MOST_VALUES:
                raise _NotATable(f"an entry has more than {MOST_VALUES} values; {CHECK_FILE}")
