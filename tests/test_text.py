"""Text for people: names that were probably meant, and text that does nothing to a terminal."""

from __future__ import annotations

import pytest

from device_agents.support.text import did_you_mean, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä and 漢", "plain, ä and 漢"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[2J\x07", "?[2J?"),
        ("\ud800", "?"),
        ("", ""),
    ],
)
def test_text_is_shown_on_one_line_without_what_a_terminal_obeys(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_text_that_is_cut_says_so() -> None:
    assert printable("abcdef", 3) == "abc…"
    assert printable("abc", 3) == "abc"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert did_you_mean("pixle", ["board", "pixel"]) == "did you mean 'pixel'?"


def test_an_unknown_name_like_no_other_is_answered_with_all_in_their_order() -> None:
    assert did_you_mean("xyz", iter(["pixel", "board"])) == "known are pixel, board"


def test_where_no_name_is_known_that_is_said() -> None:
    assert did_you_mean("xyz", []) == "there are none"
