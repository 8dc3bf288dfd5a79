"""Files that a download, a checkout or a copy has left in the place of the one that was meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_BEGINNINGS: Mapping[bytes, str] = {
    b"version https://git-lfs": "a pointer of Git LFS to the file; fetch the file itself with `git lfs pull`",
    b"<": "a page of a website; download the file itself",
    b"\x1f\x8b": "compressed by gzip; unpack it with gunzip",
}
_LONGEST = 64
_MARK = b"\xef\xbb\xbf"  # a byte-order mark of UTF-8


def stand_in(path: Path) -> str | None:
    """What the file is instead of data, with the next step, to follow "it is"; None if it may be data. `OSError` if it cannot be
    read."""
    with path.open("rb") as file:
        beginning = file.read(_LONGEST).removeprefix(_MARK).lstrip()
    if not beginning:
        return "empty, as after a download or copy that was cut short; get it again"
    return next((sentence for known, sentence in _BEGINNINGS.items() if beginning.startswith(known)), None)
