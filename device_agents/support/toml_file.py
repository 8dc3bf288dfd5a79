"""Settings in TOML files. Mistakes are reported with their line, also those that Python's parser passes, such as a wrong type."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from device_agents.support.errors import ConfigError, ToolError
from device_agents.support.numbers import is_number, is_whole
from device_agents.support.text import decoded, did_you_mean

Place = tuple[str | int, ...]
"""Names from the outermost section to a key, ("devices", "pixel", "cpus"), with places in lists, counted from 0: ("fault", 2)."""
T = TypeVar("T")
NAMES: Mapping[type, str] = {
    str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table",
}  # fmt: skip
MOST_BYTES = 1_000_000
MOST_DOTS = 200
_TYPOGRAPHIC = "“”„‘’«»\u00a0"


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What was parsed, and the text in which a value's line can be found."""

    path: Path
    text: str
    plain: Mapping[str, Any]
    error: type[ToolError] = ConfigError
    """What all methods raise for a mistake."""

    def fail(self, place: Place, why: str) -> ToolError:
        """The error for what stands at this place."""
        line = line_of(self.text, place)
        return self.error(f"{self.path}{f', line {line}' if line else ''}: {why}")

    def table(self, value: Any, place: Place) -> dict[str, Any]:
        """The value, which has to be a table. It is not repeated in the error, for it may be a secret."""
        if not isinstance(value, dict):
            name = ".".join(str(part) for part in place)
            raise self.fail(place, f"{name} must be a table, such as [{name}] begins")
        return value

    def known(self, table: Mapping[str, Any], names: Iterable[str], place: Place, where: str) -> None:
        """Check that every key of the table is one of these names."""
        settings = list(names)
        for word in table:
            if word not in settings:
                raise self.fail((*place, word), f"{where} has no setting {word!r}; {did_you_mean(word, settings)}")

    def typed(self, value: Any, kind: type[T], place: Place, where: str) -> T:
        """The value, which has to be of exactly this type: true is no number."""
        if type(value) is not kind:
            raise self.fail(place, f"{where}: {place[-1]} must be {NAMES[kind]}, not {value!r:.60}")
        return value

    def number(
        self, value: Any, kind: type[int | float], place: Place, where: str, least: float = -math.inf, most: float = math.inf
    ) -> Any:
        """The value, which has to be finite and from `least` to `most`. A whole number will do where `kind` is float."""
        if not (is_whole if kind is int else is_number)(value, least, most):
            limits = f" of at least {least:g}" if least > -math.inf else ""
            limits = f" from {least:g} to {most:g}" if most < math.inf else limits
            raise self.fail(place, f"{where}: {place[-1]} must be {NAMES[kind]}{limits}, not {value!r:.60}")
        return value

    def one_of(self, value: Any, names: Sequence[str], place: Place, where: str) -> str:
        """The value, which has to be one of these texts."""
        word = self.typed(value, str, place, where)
        if word not in names:
            raise self.fail(place, f"{where}: there is no {place[-1]} {word!r}; {did_you_mean(word, names)}")
        return word

    def path_of(self, text: str) -> Path:
        """A path, relative to the file's folder."""
        try:
            return Path(self.path.parent, Path(text).expanduser())
        except RuntimeError:  # there is no such user
            return Path(self.path.parent, text)


def read_toml(path: Path, error: type[ToolError] = ConfigError, advice: str = "") -> TomlFile:
    """The parsed file. `error`, in a sentence that `advice` ends, if it cannot be read or is not TOML."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise error(f"{path} is larger than {MOST_BYTES / 1e6:g} MB; is it the right file?")
        text = decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
        for number, line in enumerate(text.splitlines(), 1):
            if line.count(".") > MOST_DOTS:  # the parser takes the square of a name's levels
                raise error(f"{path}, line {number}: more than {MOST_DOTS} dots; break the line, if it is a list")
        return TomlFile(path, text, tomllib.loads(text), error)
    except OSError as exc:
        raise error(f"{path} cannot be read: {exc.strerror or exc}{advice}") from exc
    except RecursionError as exc:
        raise error(f"{path} is nested too deeply{advice}") from exc
    except UnicodeDecodeError as exc:
        raise error(f"{path} is not text in UTF-8 or UTF-16; save it as UTF-8{advice}") from exc
    except ValueError as exc:  # not TOML, or a number of thousands of digits
        raise error(f"{path} is not TOML: {str(exc)[:200]}{_slip(text, exc)}{advice}") from exc


def _slip(text: str, exc: ValueError) -> str:
    """What was most likely meant where other programs have left their marks in the text, as the end of a sentence."""
    where = re.search(r"at line (\d+)", str(exc))
    line = text.splitlines()[int(where[1]) - 1] if where and int(where[1]) <= len(text.splitlines()) else ""
    if "\\" in line:
        return "; a path with backslashes stands in single quotes, such as 'C:\\models'"
    if any(sign in line for sign in _TYPOGRAPHIC):
        return '; quotes and blanks must be the plain " and blank, not those of a word processor'
    return ""


def line_of(text: str, place: Place) -> int | None:
    """The line, counted from 1, in which a key or section most likely stands; None if there is no trace of it."""
    lines = text.splitlines()
    for depth in range(len(place), -1, -1):
        start = _header(lines, place[:depth]) if depth else 0
        if start is None:
            continue
        if depth == len(place):
            return start + 1
        end = next((number for number in range(start + 1, len(lines)) if lines[number].lstrip().startswith("[")), len(lines))
        for word in reversed(_names(place[depth:])):  # the key itself, or the inline table it is in
            for pattern in (rf"""^[^#=]*(?<![\w-])["']?{re.escape(word)}["']?\s*[=.]""", rf"(?<![\w-]){re.escape(word)}(?![\w-])"):
                for number in range(start, end):
                    if re.search(pattern, lines[number]):
                        return number + 1
        if depth:
            return start + 1
    return next((number for word in reversed(_names(place)) for number, line in enumerate(lines, 1) if word in line), None)


def _header(lines: Sequence[str], place: Place) -> int | None:
    """The line, counted from 0, of a section's header: of ("fault", 2), the third [[fault]]."""
    ordinal = place[-1] if isinstance(place[-1], int) else 0
    names = r"\s*\.\s*".join(rf"""["']?{re.escape(name)}["']?""" for name in _names(place))
    found = [number for number, line in enumerate(lines) if re.match(rf"\s*\[{{1,2}}\s*{names}\s*\]", line)]
    return found[ordinal] if ordinal < len(found) else None


def _names(place: Place) -> list[str]:
    return [part for part in place if isinstance(part, str)]
