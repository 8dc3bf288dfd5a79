"""Text that goes to a terminal or into an error."""

from __future__ import annotations


def printable(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)
