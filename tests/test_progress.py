from __future__ import annotations

import io
import itertools
import re
import threading
from collections.abc import Mapping

import pytest
from rich.console import Console

from profiler.progress import ProgressReporter, bar, bars


def terminal(width: int = 100) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=True, width=width, legacy_windows=False), screen


def lines(screen: io.StringIO) -> list[str]:
    """All that was ever shown, without colours and movements of the cursor."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    return re.split(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n", plain)


def shown(screen: io.StringIO, *parts: str) -> bool:
    text = " ".join(" ".join(lines(screen)).split())
    return all(part in text for part in parts)


def do(work: ProgressReporter, what: str, total: int, done: int) -> None:
    work.begin(what, total)
    for place in range(done):
        work.advance(f"layer {place}")


def slow(monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    """Between any two looks at the clock so much time goes by."""
    ticks = itertools.count()
    monkeypatch.setattr("profiler.progress.time.monotonic", lambda: step_s * next(ticks))


def test_a_log_gets_a_line_at_every_tenth_of_long_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    slow(monkeypatch, step_s=10)
    with bar() as work:
        do(work, "measuring 40 models", 40, 13)
    assert capsys.readouterr().err.splitlines() == [f"measuring 40 models: {tenth}0 %" for tenth in (1, 2, 3)]


def test_a_log_gets_one_line_of_work_that_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow(monkeypatch, step_s=0.001)
    with bar() as work:
        do(work, "asking what is executed for 30 models", 30, 30)
    assert capsys.readouterr().err.splitlines() == ["asking what is executed for 30 models: 100 %"]


def test_lines_of_several_devices_in_a_log_say_whose_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow(monkeypatch, step_s=10)
    with bars(["pixel", "jetson"]) as works:
        do(works["pixel"], "measuring 10 models", 10, 2)
        do(works["jetson"], "settling 2 models", 2, 1)
        works["pixel"].say("it is hot")
    assert capsys.readouterr().err.splitlines() == [
        "pixel: measuring 10 models: 10 %",
        "pixel: measuring 10 models: 20 %",
        "jetson: settling 2 models: 50 %",
        "pixel: it is hot",
    ]


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with bars(["pixel"]) as works:
        do(works["pixel"], "measuring", 3, 3)
        works["pixel"].say("note")
    assert capsys.readouterr().out == ""


def test_a_new_piece_of_work_begins_at_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    slow(monkeypatch, step_s=10)
    with bar() as work:
        do(work, "first", 2, 2)
        do(work, "second", 2, 1)
    assert capsys.readouterr().err.splitlines() == ["first: 50 %", "first: 100 %", "second: 50 %"]


def test_lines_of_threads_are_never_mixed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    slow(monkeypatch, step_s=10)
    names = [f"device{place}" for place in range(8)]
    with bars(names) as works:
        run_each(works, lambda work: do(work, "measuring", 500, 500))
    found = capsys.readouterr().err.splitlines()
    assert sorted(found) == sorted(f"{name}: measuring: {tenth}0 %" for name in names for tenth in range(1, 11))


def run_each(works: Mapping[str, ProgressReporter], what: object) -> None:
    assert callable(what)
    threads = [threading.Thread(target=what, args=(work,)) for work in works.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_terminal_shows_counts_and_the_note() -> None:
    console, screen = terminal()
    with bar(console) as work:
        do(work, "measuring 40 models", 40, 13)
    assert shown(screen, "measuring 40 models", "13/40", "layer 12")


def test_a_terminal_shows_a_line_for_each_device_in_their_order() -> None:
    console, screen = terminal()
    with bars(["pixel", "jetson", "board"], console) as works:
        do(works["jetson"], "measuring 40 models", 40, 3)
        do(works["pixel"], "settling 7 models", 7, 2)
    last = [line for line in lines(screen) if line.strip()][-3:]
    assert [line.split(":")[0] for line in last] == ["pixel", "jetson", "board"]
    assert "settling 7 models" in last[0] and "2/7" in last[0]
    assert "measuring 40 models" in last[1] and "3/40" in last[1]
    assert "waiting" in last[2]


def test_a_device_keeps_its_line_for_its_next_piece_of_work() -> None:
    console, screen = terminal()
    with bars(["pixel"], console) as works:
        do(works["pixel"], "measuring", 3, 3)
        do(works["pixel"], "settling", 2, 1)
    last = [line for line in lines(screen) if line.strip()][-1]
    assert "pixel: settling" in last and "1/2" in last


def test_what_is_said_on_a_terminal_says_whose_it_is() -> None:
    console, screen = terminal()
    with bars(["pixel"], console) as works:
        works["pixel"].say("[it] is hot")
    assert shown(screen, "pixel: [it] is hot")


def test_the_note_comes_last_and_a_narrow_terminal_loses_it_first() -> None:
    console, screen = terminal(width=70)
    with bars(["pixel"], console) as works:
        works["pixel"].begin("measuring", 10)
        works["pixel"].advance("conv2d-32-64-k3-s2-112 " * 3)
    last = [line for line in lines(screen) if line.strip()][-1]
    assert last.startswith("pixel: measuring") and "1/10" in last and last.rstrip().endswith("…")


def test_names_and_notes_with_brackets_are_shown_as_they_are() -> None:
    console, screen = terminal()
    with bars(["ssh:[::1]"], console) as works:
        works["ssh:[::1]"].begin("measuring", 2)
        works["ssh:[::1]"].advance("add [bold]")
    assert shown(screen, "ssh:[::1]: measuring", "add [bold]")


def test_a_terminal_may_be_written_to_from_threads() -> None:
    console, screen = terminal()
    names = [f"device{place}" for place in range(4)]
    with bars(names, console) as works:
        run_each(works, lambda work: do(work, "measuring", 200, 200))
    assert [line.count("200/200") for line in lines(screen) if line.strip()][-4:] == [1] * 4
