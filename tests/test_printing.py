"""What netadapt's commands say of steps."""

from __future__ import annotations

from netadapt.cli.printing import choice_warning
from netadapt.search.candidates import Candidate
from netadapt.search.types import Result, Step


def step(*blocks: str, candidates: int, widths: int = 3) -> Step:
    result = Result(Candidate(1, {}, {"macs": 1.0}, blocks), 0.5, "w.pt")
    return Step(1, {f"b{number}": 8 for number in range(widths)}, {"macs": 1.0}, 0.5, "w.pt", (result,) * candidates, blocks)


def test_a_step_that_only_one_block_could_bring_is_warned_of_with_what_helps() -> None:
    said = choice_warning(step("b1", candidates=1))
    assert said is not None and "only b1 can bring its reduction alone; use a smaller --step, or --if-no-candidate join" in said


def test_a_step_with_a_choice_or_without_need_of_one_is_not_warned_of() -> None:
    assert choice_warning(step("b1", candidates=2)) is None
    assert choice_warning(step("b1", "b2", candidates=1)) is None, "joined"
    assert choice_warning(step("b0", candidates=1, widths=1)) is None, "the only block there is"
    assert choice_warning(step(candidates=1)) is None, "the original"
