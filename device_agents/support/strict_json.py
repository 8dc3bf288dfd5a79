"""JSON from outside: from a device, from somebody else, or from a file of ours that may be damaged.

Python's own reader accepts too much: nesting until the interpreter's stack is used up, whole numbers of thousands of digits that no
float holds, and unpaired surrogates, which cannot be encoded. Here all of them are a `ValueError`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from device_agents.support.text import decoded

MOST_DEEP = 64
"""Levels of lists and mappings within each other; a plan has seven."""
MOST_DIGITS = 20
"""Digits of a whole number; 64 bits have nineteen."""

_LONG = re.compile(f"[0-9]{{{MOST_DIGITS + 1}}}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(text: str | bytes) -> Any:
    """The parsed value. `ValueError`, with a message for people, if this is not JSON or exceeds these limits."""
    plain_text = decoded(text) if isinstance(text, bytes) else str.removeprefix(text, "\ufeff")  # TypeError for no text
    try:
        plain = json.loads(plain_text, parse_int=_whole if _LONG.search(plain_text) else None)
    except json.JSONDecodeError as exc:
        if exc.msg.startswith("Invalid \\"):  # most likely in a path of Windows
            raise ValueError(f"{exc}; write each backslash in a text twice") from None
        raise
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_DEEP} deep") from None
    if plain_text.count("[") + plain_text.count("{") > MOST_DEEP:
        _check_depth(plain)
    if _SURROGATE.search(plain_text):
        json.dumps(plain, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return plain


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _check_depth(plain: Any) -> None:
    level = [plain]
    for _ in range(MOST_DEEP):
        inner = (value for item in level for value in (item.values() if isinstance(item, dict) else item))
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_DEEP} deep")
