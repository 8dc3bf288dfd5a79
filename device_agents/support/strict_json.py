"""JSON from elsewhere: a device, a file that somebody gave us, one of ours that may be damaged.

Python's own reader takes more than it should: nesting until the interpreter's stack is used up, whole numbers of thousands of
digits that no float holds, and text with halves of characters that cannot be written anywhere. Here they are one kind of error.
"""

from __future__ import annotations

import json
import re
from typing import Any

MOST_DEEP = 64
"""Lists and mappings within each other; a plan has seven."""
MOST_DIGITS = 20
"""Of a whole number; 64 bits have nineteen."""

_LONG = re.compile(f"[0-9]{{{MOST_DIGITS + 1}}}")
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(text: str | bytes) -> Any:
    """`ValueError`, in words, for whatever is no JSON or goes beyond these limits."""
    plain_text = text.decode() if isinstance(text, bytes) else text
    try:
        plain = json.loads(plain_text, parse_int=_whole if _LONG.search(plain_text) else None)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_DEEP} deep") from None
    if plain_text.count("[") + plain_text.count("{") > MOST_DEEP:
        _check_depth(plain)
    if _HALF_CHARACTER.search(plain_text):
        json.dumps(plain, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return plain


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _check_depth(plain: Any) -> None:
    level = [plain]
    for _ in range(MOST_DEEP):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_DEEP} deep")


def _inside(item: Any) -> list[Any]:
    inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return [value for value in inner if isinstance(value, (dict, list))]
