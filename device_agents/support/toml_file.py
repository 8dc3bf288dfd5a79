"""A TOML file of the user's, whose mistakes are told with their line: the parser tells none for what is TOML and yet wrong."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.support.errors import ConfigError

Place = tuple[str, ...]
"""Names from the outermost section to a key: ("devices", "pixel", "cpus")."""
NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
MOST_BYTES = 1_000_000
MOST_DOTS = 200


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What was parsed, and the text, which tells where it stands."""

    path: Path
    text: str
    plain: Mapping[str, Any]

    def fail(self, place: Place, why: str) -> ConfigError:
        line = line_of(self.text, place)
        return ConfigError(f"{self.path}{f', line {line}' if line else ''}: {why}")

    def table(self, value: Any, place: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(place, f"{'.'.join(place)} must be a table, such as [{'.'.join(place)}] begins")  # it may be a secret
        return value

    def known(self, table: Mapping[str, Any], names: Sequence[str], place: Place, where: str) -> None:
        """Every key is one of these, or it is told which was meant."""
        for word in table:
            if word not in names:
                near = difflib.get_close_matches(word, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
                raise self.fail((*place, word), f"{where} has no setting {word!r}; {hint}")

    def typed(self, value: Any, kind: type, place: Place, where: str) -> Any:
        """The value, which is of just this type: true is no number."""
        if type(value) is not kind:
            raise self.fail(place, f"{where}: {place[-1]} must be {NAMES[kind]}, not {value!r}")
        return value

    def path_of(self, text: str) -> Path:
        """Relative to the file."""
        try:
            return Path(self.path.parent, Path(text).expanduser())
        except RuntimeError:  # there is no such user
            return Path(self.path.parent, text)


def read_toml(path: Path) -> TomlFile:
    """`ConfigError` in one sentence for what is no TOML."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} is larger than {MOST_BYTES / 1e6:g} MB; is it the right file?")
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if line.count(".") > MOST_DOTS:  # the parser takes the square of a name's levels
                raise ConfigError(f"{path}, line {number}: more than {MOST_DOTS} dots; break the line, if it is a list")
        return TomlFile(path, text, tomllib.loads(text))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path} is nested too deeply") from exc
    except ValueError as exc:  # no TOML, no text, or a number of thousands of digits
        raise ConfigError(f"{path} is not TOML: {exc}") from exc


def line_of(text: str, place: Place) -> int | None:
    """The line, counted from 1, that a key or section most likely stands in; None if there is no trace of it."""
    lines = text.splitlines()
    for depth in range(len(place), -1, -1):
        start = _header(lines, place[:depth]) if depth else 0
        if start is None:
            continue
        if depth == len(place):
            return start + 1
        end = next((number for number in range(start + 1, len(lines)) if lines[number].lstrip().startswith("[")), len(lines))
        for word in reversed(place[depth:]):  # the key itself, or the inline table it is in
            for pattern in (rf"""^[^#=]*(?<![\w-])["']?{re.escape(word)}["']?\s*[=.]""", rf"(?<![\w-]){re.escape(word)}(?![\w-])"):
                for number in range(start, end):
                    if re.search(pattern, lines[number]):
                        return number + 1
        return start + 1 if depth else _anywhere(lines, place)
    return None


def _header(lines: Sequence[str], place: Place) -> int | None:
    names = r"\s*\.\s*".join(rf"""["']?{re.escape(name)}["']?""" for name in place)
    return next((number for number, line in enumerate(lines) if re.match(rf"\s*\[\s*{names}\s*\]", line)), None)


def _anywhere(lines: Sequence[str], place: Place) -> int | None:
    return next((number for word in reversed(place) for number, line in enumerate(lines, 1) if word in line), None)
