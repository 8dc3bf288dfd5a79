"""Text for people: what goes to a terminal or into an error."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping


def printable(text: str, longest: int | None = None) -> str:
    """The text on one line, without control characters that a terminal would obey, and with `…` after `longest` characters."""
    kept = text[:longest]
    if not kept.isprintable():
        kept = "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in kept)
    return kept if len(kept) == len(text) else f"{kept}…"


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8 or, as editors and shells of Windows save it, with a byte-order mark or in UTF-16.

    `UnicodeDecodeError` for any other bytes.
    """
    return data.decode(json.detect_encoding(data)).removeprefix("\ufeff")


def last_line(output: str) -> str:
    """The last line that a program printed, which is usually its error message, or that it printed none."""
    return (output.strip().splitlines() or ["it printed nothing"])[-1].strip()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None if none of them is similar."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str], meant: Mapping[str, str] | None = None) -> str:
    """The end of a sentence about an unknown name: the nearest known one or, failing that, all of them.

    `meant` has, in lower case, names of other programs for what is known here under another.
    """
    names = list(known)
    near = (meant or {}).get(name.lower()) or nearest(name, names)
    return f"did you mean {near!r}?" if near else f"known are {', '.join(names)}" if names else "there are none"
