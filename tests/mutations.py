"""A valid example with its structure changed: values of other types and sizes, parts missing, doubled, moved or nested."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 1e-320, 2**31, 2**63, 2**64, 10**19, 10**30, float("nan"), float("inf"),
    -float("inf"), "", "a", "0", "-1", "nan", "../../x", "/etc/passwd", "\0", "\x1b[2J", "a\nb", "\ud800", "é" * 5, "x" * 5000,
    [], {}, [None], [0], [1, 2, 3, 4], [[]], {"a": 1}, {"": None}, [1e308] * 3, "float32", "2026-01-01", "9" * 400, "🙂",
)  # fmt: skip
ODD_WORDS = (
    "", "0", "-1", "1e999", "nan", "inf", "9" * 30, "9" * 5000, "true", '"', "'", "[", "]", "{", "}", "[]", "{}", '""', "\0",
    "\x1b[2J", "é", "../..", "x" * 3000, "1979-05-27T07:32:00Z", "0x10", "&a", "*a", "!!python/object:os.system", "# ", "=", ":",
    ",", "\n", "\t", "-", "%",
)  # fmt: skip
WORD = re.compile(r'"[^"\n]*"|[A-Za-z_][\w.-]*|-?[0-9][0-9.eE+-]*|\S')
BYTES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x01\0\0\0", b"\0" * 64)
DEEP = 100_000


def changed(form: str, data: bytes, draws: Random) -> bytes:
    """One to three changes; now and then those of raw bytes in any form."""
    change = {"json": _json, "lines": _lines, "toml": _text, "yaml": _text, "text": _text, "bytes": _bytes}[form]
    if draws.random() < 0.1:
        change = _bytes
    for _ in range(draws.randint(1, 3)):
        try:
            data = change(data, draws)
        except (ValueError, RecursionError):  # it is no such text any more
            data = _bytes(data, draws)
    return data


# ---------------------------------------------------------------------------------------------------------------- JSON


def _json(data: bytes, draws: Random) -> bytes:
    plain = json.loads(data)
    text = json.dumps(_elsewhere(plain, draws))
    if draws.random() < 0.05:
        text = re.sub(r'"[^"]*":', lambda key: f"{key[0]} 1, {key[0]}", text, count=1)  # the same key twice
    return text.encode()


def _lines(data: bytes, draws: Random) -> bytes:
    lines = data.split(b"\n")
    place = draws.randrange(len(lines))
    match draws.randrange(8):
        case 0:
            lines.insert(draws.randrange(len(lines)), lines[place])
        case 1:
            del lines[place]
        case 2:
            draws.shuffle(lines)
        case _ if lines[place].strip():
            lines[place] = _json(lines[place], draws)
    return b"\n".join(lines)


def _elsewhere(plain: Any, draws: Random) -> Any:
    """The same with one change at a random place: shallow ones are as likely as deep ones."""
    if not isinstance(plain, (dict, list)) or not plain or draws.random() < 0.15:
        return _instead(plain, draws)
    if isinstance(plain, dict):
        key = draws.choice(list(plain))
        match draws.randrange(12):
            case 0:
                return {name: value for name, value in plain.items() if name != key}
            case 1:
                return {**plain, draws.choice(["", "x", "a b", "\x1b", "../x", key + "x"]): plain[key]}
            case 2:
                return {**plain, key: plain[draws.choice(list(plain))]}
        return {**plain, key: _elsewhere(plain[key], draws)}
    place = draws.randrange(len(plain))
    match draws.randrange(12):
        case 0:
            return plain[:place] + plain[place + 1 :]
        case 1:
            return plain + [plain[place]] * draws.choice([1, 2, 50])
        case 2:
            return draws.sample(plain, len(plain))
    return [*plain[:place], _elsewhere(plain[place], draws), *plain[place + 1 :]]


def _instead(plain: Any, draws: Random) -> Any:
    match draws.randrange(10):
        case 0:
            return [plain]
        case 1:
            return str(plain)[:10_000]
        case 2 if isinstance(plain, (int, float)):
            return draws.choice([-plain, plain + 1, plain * 1000, plain / 3])
        case 3:
            return _nested(draws.choice([20, 70, 500]))
    return draws.choice(ODD)


def _nested(depth: int) -> Any:
    plain: Any = 1
    for _ in range(depth):
        plain = [plain]
    return plain


# -------------------------------------------------------------------------------------------------------- text and bytes


def _text(data: bytes, draws: Random) -> bytes:
    text = data.decode(errors="surrogateescape")
    lines = text.split("\n")
    place = draws.randrange(len(lines))
    match draws.randrange(10):
        case 0:
            lines.insert(draws.randrange(len(lines)), lines[place])
        case 1:
            del lines[place]
        case 2:
            lines.insert(place, lines.pop(draws.randrange(len(lines))))
        case 3:
            lines[place] += draws.choice(["[", "{", "- "]) * draws.choice([1, 100, DEEP])
        case _:
            found = list(WORD.finditer(lines[place]))
            if found:
                word = draws.choice(found)
                other = draws.choice(ODD_WORDS) if draws.random() < 0.7 else draws.choice(WORD.findall(text))
                lines[place] = lines[place][: word.start()] + other + lines[place][word.end() :]
    return "\n".join(lines).encode(errors="surrogateescape")


def _bytes(data: bytes, draws: Random) -> bytes:
    place, width = draws.randrange(len(data) + 1), draws.choice([1, 1, 1, 2, 4, 16])
    match draws.randrange(6):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + data[place + width :]
        case 2:
            return data[:place] + draws.randbytes(width) + data[place:]
        case 3:
            return data[:place] + data[place : place + 40] * draws.choice([2, 20]) + data[place:]
    value = draws.choice(BYTES) if draws.random() < 0.5 else draws.randbytes(width)
    return data[:place] + value + data[place + len(value) :]
