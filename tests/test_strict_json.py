"""JSON that went through another program."""

from __future__ import annotations

import json

import pytest

from device_agents.support.strict_json import read_json

PLAIN = {"name": "Büro", "values": [1, 2.5, None]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_saved_by_an_editor_of_windows_is_read(encoding: str) -> None:
    assert read_json(json.dumps(PLAIN, ensure_ascii=False).encode(encoding)) == PLAIN


def test_a_byte_order_mark_in_text_is_no_part_of_it() -> None:
    assert read_json("\ufeff[1]") == [1]


@pytest.mark.parametrize("text", [r'{"a": "C:\models"}', r'{"a": "C:\users\x"}', r'["\\server\share"]'])
def test_a_path_with_single_backslashes_says_how_they_are_written(text: str) -> None:
    with pytest.raises(ValueError, match="write each backslash in a text twice"):
        read_json(text)


@pytest.mark.parametrize("data", ['{"a": "Büro"}'.encode("cp1252"), b"\xff", b"\xff\xfe\x00"])
def test_bytes_that_are_no_text_are_an_error_of_value(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(data)
