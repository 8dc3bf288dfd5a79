"""Run folders: what is recorded survives a kill, and nothing of another run gets into it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st
from sample_run import FACTS, GOALS, GRAPH, HERE, INFO, LONG_TERM, SETTINGS, adapted_run, complete_run, made_up_training

from device_agents.support.dataclass_json import read_as
from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from netadapt.runs.records import Finished, RunInfo, TableFacts, Trained, Verified
from netadapt.runs.run_folder import RunFolder, is_run, weights_name
from netadapt.search.bias import Checked
from netadapt.search.candidates import Candidate
from netadapt.search.loop import adapt
from netadapt.search.types import Result, Step
from netadapt.settings import OPTIONS, values_of
from profiler.interval import Interval


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", INFO, GRAPH)


def finished(step: int, weights: str = "a.pt", accuracy: float = 0.5) -> Finished:
    return Finished(step, LONG_TERM, (), (Trained(1, weights, accuracy),))


def with_settings(**changes: Any) -> RunInfo:
    return replace(INFO, settings=replace(INFO.settings, **changes))


@pytest.mark.parametrize("path", values_of(INFO.settings))
def test_every_setting_that_an_option_sets_is_named_by_it(path: str) -> None:
    """What has no option is a number of the task's recipe, or ours."""
    assert path in OPTIONS or path.startswith("training.recipe.") or path == "pruning.images"


def one_step(run: RunFolder) -> Step:
    """The original, recorded."""
    step = next(adapt(GRAPH, GOALS, run.recorded(made_up_training(run)), SETTINGS))
    run.add_step(step)
    return step


def two_steps(run: RunFolder) -> Step:
    """The original and one winner, both recorded."""
    for step in adapt(GRAPH, GOALS, run.recorded(made_up_training(run)), SETTINGS):
        run.add_step(step)
        if step.iteration == 1:
            return step
    raise AssertionError


def test_a_run_is_read_back_as_it_was_started(run: RunFolder) -> None:
    again = RunFolder.open(run.path)
    assert (again.info, again.graph) == (INFO, GRAPH)


def test_steps_are_read_back_equal(run: RunFolder) -> None:
    steps = (one_step(run),)
    assert RunFolder.open(run.path).steps == steps


def test_everything_else_is_read_back_equal(tmp_path: Path) -> None:
    run = complete_run(tmp_path / "run")
    again = RunFolder.open(run.path)
    assert (again.finished, again.verified, again.baselines, again.layers) == (
        run.finished, run.verified, run.baselines, run.layers,
    )  # fmt: skip
    assert list(again.finished) == [0, len(run.steps) - 1]
    assert len(again.verified) == len(run.steps)


def test_each_result_is_on_the_disk_before_the_next_candidate_is_trained(run: RunFolder) -> None:
    two_steps(run)
    candidates = [result.candidate for result in run.steps[1].results]
    seen: list[int] = []
    evaluation = run.recorded(made_up_training(run))(run.steps[0], [replace(item, iteration=2) for item in candidates])
    for _ in evaluation:
        seen.append(len(RunFolder.open(run.path).unfinished))
    assert seen == list(range(1, len(candidates) + 1))


def test_losing_weights_go_once_the_step_is_recorded(run: RunFolder) -> None:
    step = two_steps(run)
    assert sorted(path.name for path in (run.path / "weights").iterdir()) == sorted(["000-original.pt", step.weights])


def test_the_weights_of_every_rung_go_but_the_last_ones(run: RunFolder) -> None:
    training = made_up_training(run)

    def in_rungs(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        for result in training(parent, candidates):
            rung = result.candidate.rung
            name = result.weights if rung is None else weights_name(1, result.candidate.block, rung.name)
            run.weights_path(name).write_bytes(b"weights")
            yield replace(result, weights=name)

    steps = adapt(GRAPH, GOALS, run.recorded(in_rungs), replace(SETTINGS, successive_halving=True))
    run.add_step(next(steps))
    step = next(steps)
    for path in (run.path / "weights").iterdir():
        if "rung" not in path.name and path.name != "000-original.pt":
            path.unlink()  # the made-up training's own
    run.add_step(step)
    assert step.weights.endswith("-rung2.pt")
    assert sorted(path.name for path in (run.path / "weights").iterdir()) == sorted(["000-original.pt", step.weights])
    assert RunFolder.open(run.path).steps[1] == step


def test_steps_with_measurements_are_read_back_equal(run: RunFolder) -> None:
    checked = Checked(Interval(2.0, 1.9, 2.1), Interval(1.8, 1.7, 1.9))
    step = replace(one_step(run), checks={"latency": checked}, bias={"latency": checked.ratio}, blocks=("a", "b"))
    (run.path / "steps.jsonl").unlink()
    run.add_step(step)
    assert RunFolder.open(run.path).steps == (step,)


def test_tables_of_several_devices_are_kept_apart(tmp_path: Path) -> None:
    info = replace(INFO, budgets=("pixel=60%", "jetson=40ms"), tables={"pixel": FACTS, "jetson": FACTS})
    with RunFolder.create(tmp_path / "run", info, GRAPH) as run:
        assert run.table_path("pixel").name == "table-pixel.parquet"
        assert run.table_path().name == "table.parquet"
        assert [goal.name for goal in run.info.goals] == ["pixel", "jetson"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budgets": ("pixel=60%", "jetson=50ms")}, "was begun with budget pixel=60%, jetson=40ms, not pixel=60%, jetson=50ms"),
        (
            {"tables": {"pixel": FACTS, "jetson": replace(FACTS, sha256="f" * 64)}},
            "was begun with table jetson 000000000000, not ff",
        ),
    ],
)
def test_resuming_with_another_device_or_budget_names_it(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    info = replace(INFO, budgets=("pixel=60%", "jetson=40ms"), tables={"pixel": FACTS, "jetson": FACTS})
    RunFolder.create(tmp_path / "run", info, GRAPH).close()
    with pytest.raises(RunError) as error:
        RunFolder.create(tmp_path / "run", replace(info, **change), GRAPH, resume=True)
    assert said in str(error.value)


def test_losing_weights_left_by_a_kill_go_on_resuming(run: RunFolder) -> None:
    step = two_steps(run)
    loser = next(result.weights for result in step.results if result.weights != step.weights)
    run.weights_path(loser).write_bytes(b"weights")
    run.close()
    again = RunFolder.create(run.path, INFO, GRAPH, resume=True)
    assert not again.weights_path(loser).exists()


def test_a_killed_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = adapted_run(tmp_path / "whole")
    steps = (whole.path / "steps.jsonl").read_bytes().splitlines(keepends=True)
    killed = RunFolder.create(tmp_path / "killed", INFO, GRAPH)
    (killed.path / "steps.jsonl").write_bytes(b"".join(steps[:3]) + steps[3][:100])
    (killed.path / "candidates.jsonl").write_bytes((whole.path / "candidates.jsonl").read_bytes())
    killed.close()
    again = RunFolder.create(killed.path, INFO, GRAPH, resume=True)
    for result in whole.steps[3].results:
        again.weights_path(result.weights).write_bytes(b"weights")  # trained before the kill
    known = [result for result in again.unfinished if result.candidate.iteration == 3]
    for step in adapt(GRAPH, GOALS, lambda _parent, _some: (), SETTINGS, again.steps, known):
        again.add_step(step)
        break
    assert again.steps == whole.steps[:4]


def test_a_torn_last_line_is_dropped(run: RunFolder) -> None:
    one_step(run)
    with (run.path / "steps.jsonl").open("a") as file:
        file.write('{"iteration":1,"blo')
    assert [step.iteration for step in RunFolder.open(run.path).steps] == [0]


def test_a_line_appended_after_a_torn_one_is_whole(run: RunFolder) -> None:
    run.add_finished(finished(0, "a.pt", 0.9))
    with (run.path / "finished.jsonl").open("a") as file:
        file.write('{"step":1,"wei')
    run.close()
    with RunFolder.open(run.path, write=True) as again:
        again.add_finished(finished(2, "b.pt", 0.8))
        assert list(again.finished) == [0, 2]


@given(st.integers(0, 400))
def test_a_file_of_lines_cut_anywhere_loses_its_last_line_only(cut: int) -> None:
    lines = [json.dumps(asdict(finished(number))) + "\n" for number in range(5)]
    kept = "".join(lines)[:cut]
    whole = kept.count("\n")

    with tempfile.TemporaryDirectory() as folder, RunFolder.create(Path(folder) / "run", INFO, GRAPH) as run:
        (run.path / "finished.jsonl").write_text(kept)
        assert list(run.finished) == list(range(whole))


def test_results_whose_weights_are_gone_are_evaluated_again(run: RunFolder) -> None:
    two_steps(run)
    (result,) = made_up_training(run)(run.steps[1], [replace(run.steps[1].results[0].candidate, iteration=2)])
    run.add_result(result)
    assert len(run.unfinished) == 1
    run.weights_path(result.weights).unlink()
    assert not run.unfinished


def test_of_a_step_finished_twice_the_last_counts(run: RunFolder) -> None:
    run.add_finished(finished(1, "a.pt", 0.8))
    run.add_finished(finished(1, "b.pt", 0.9))
    assert run.finished == {1: finished(1, "b.pt", 0.9)}


def test_a_folder_with_a_run_is_refused_without_resume(run: RunFolder) -> None:
    run.add_finished(finished(1, "a.pt", 0.8))
    with pytest.raises(RunError, match="holds a run already; go on with it with `netadapt resume "):
        RunFolder.create(run.path, INFO, GRAPH)


def test_a_run_that_failed_before_it_had_a_result_is_begun_anew(run: RunFolder) -> None:
    (run.path / "table.parquet").write_bytes(b"a table")
    run.weights_path("000-original.pt").write_bytes(b"weights")
    run.close()
    again = replace(INFO, budgets=("macs=50%",))
    with RunFolder.create(run.path, again, GRAPH) as begun:
        assert begun.info == again and not begun.table_path().exists() and not list((run.path / "weights").iterdir())


def test_a_run_in_use_that_has_no_result_yet_is_left_alone(run: RunFolder) -> None:
    with pytest.raises(RunError, match="another process is at work"):
        RunFolder.create(run.path, INFO, GRAPH)
    assert is_run(run.path)


def test_a_folder_with_other_things_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(RunError, match="is not empty and not a run"):
            RunFolder.create(tmp_path, INFO, GRAPH, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        RunFolder.create(tmp_path / "file", INFO, GRAPH)
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", INFO, GRAPH)


def test_resuming_what_was_never_begun_begins_it(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", INFO, GRAPH, resume=True) as run:
        assert run.steps == ()


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (replace(INFO, budgets=("latency=50%",)), "was begun with budget latency=60%, not latency=50%"),
        (with_settings(network=NetworkOptions("fastdepth")), "was begun with network mobilenet_v1, not fastdepth"),
        (with_settings(seed=2), "was begun with --seed 1, not 2; use the same --seed"),
        (with_settings(search=replace(SETTINGS, decay=0.9)), "was begun with --decay 0.96, not 0.9"),
        (with_settings(search=replace(SETTINGS, successive_halving=True)), "was begun with --successive-halving off, not on"),
        (with_settings(training=replace(INFO.settings.training, weights="w.pt")), "was begun with --weights none, not w.pt"),
        (replace(INFO, tables={"": replace(FACTS, sha256="f" * 64)}), "was begun with table 000000000000, not ffffffffffff"),
        (replace(INFO, tables={}), "was begun with table 000000000000, not none"),
    ],
)
def test_resuming_with_another_setting_names_it(run: RunFolder, info: RunInfo, said: str) -> None:
    run.close()
    with pytest.raises(RunError) as error:
        RunFolder.create(run.path, info, GRAPH, resume=True)
    assert said in str(error.value)
    RunFolder.create(run.path, INFO, GRAPH, resume=True).close()  # the refusal has let go of the folder


def test_resuming_with_another_network_is_refused(run: RunFolder) -> None:
    run.close()
    with pytest.raises(RunError, match="was begun with another"):
        RunFolder.create(run.path, INFO, mobilenet_v1(0.25, 128, classes=10), resume=True)


def test_more_iterations_may_be_asked_for_and_are_recorded(run: RunFolder) -> None:
    run.close()
    more = with_settings(search=replace(SETTINGS, max_iterations=40))
    RunFolder.create(run.path, more, GRAPH, resume=True).close()
    assert RunFolder.open(run.path).info.settings.search.max_iterations == 40


def test_a_run_with_an_input_shape_is_continued_under_the_same(tmp_path: Path) -> None:
    info = with_settings(network=replace(INFO.settings.network, inputs="1x1x28x28"))
    RunFolder.create(tmp_path / "run", info, GRAPH).close()
    RunFolder.create(tmp_path / "run", info, GRAPH, resume=True).close()


def test_what_is_not_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run: it has no run.json"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.json", "{", "is damaged"),
        ("run.json", "[]", "is damaged"),
        ("run.json", '{"format": 99}', "has run format 99, this version reads 9"),
        ("run.json", '{"format": 9, "budgets": ["x"]}', "lacks fields"),
        ("graph.json", '{"name": "x"}', "is damaged"),
        ("graph.json", "\udcff", "cannot be read"),
    ],
)
def test_a_damaged_run_is_told_in_one_sentence(run: RunFolder, name: str, text: str, said: str) -> None:
    run.close()
    (run.path / name).write_text(text, errors="surrogateescape")
    with pytest.raises(RunError) as error:
        RunFolder.open(run.path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_line_is_told_by_its_number(run: RunFolder) -> None:
    run.add_finished(finished(0, "a.pt", 0.9))
    with (run.path / "finished.jsonl").open("a") as file:
        file.write(json.dumps(asdict(finished(1)) | {"step": "one"}) + "\n")
    with pytest.raises(RunError, match=r"finished.jsonl, line 2 is damaged: 'one' is not what belongs here"):
        assert run.finished


def test_steps_out_of_order_are_told(run: RunFolder) -> None:
    one_step(run)
    line = (run.path / "steps.jsonl").read_text()
    (run.path / "steps.jsonl").write_text(line + line)
    with pytest.raises(RunError, match="not numbered 0, 1, 2"):
        assert run.steps


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "a/b.pt", "", "..", "."])
def test_a_name_of_weights_never_leads_out_of_its_folder(run: RunFolder, name: str) -> None:
    with pytest.raises(RunError, match="is not the name of a file of weights"):
        run.weights_path(name)


@given(st.integers(0, 999), st.text(min_size=1), st.text(min_size=1))
def test_every_block_has_a_file_name_of_its_own(iteration: int, one: str, other: str) -> None:
    names = [weights_name(iteration, block) for block in (one, other)]
    assert all("/" not in name and name not in (".", "..") for name in names)
    assert (names[0] == names[1]) == (one == other)


OTHER_PROCESS = """
import os, sys
from pathlib import Path
from netadapt.errors import RunError
from netadapt.runs.run_folder import RunFolder

try:
    run = RunFolder.open(Path(sys.argv[1]), write=True)
except RunError as error:
    sys.exit(str(error))
os.kill(os.getpid(), 9)
"""


def in_another_process(path: Path) -> subprocess.CompletedProcess[str]:
    """Opens the run to write and is killed with it open."""
    return subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(path)], capture_output=True, text=True, check=False)


def test_a_second_process_is_kept_out_of_a_run_in_use(run: RunFolder) -> None:
    assert "another process is at work in" in in_another_process(run.path).stderr


def test_a_process_that_is_killed_leaves_no_lock_behind(run: RunFolder) -> None:
    run.close()
    assert in_another_process(run.path).returncode == -9
    RunFolder.open(run.path, write=True).close()


def test_reading_needs_no_lock(run: RunFolder) -> None:
    one_step(run)
    assert len(RunFolder.open(run.path).steps) == 1


def test_a_run_opened_for_reading_cannot_be_written(run: RunFolder) -> None:
    with pytest.raises(RuntimeError, match="reading only"):
        RunFolder.open(run.path).add_finished(finished(0, "a.pt", 0.9))


def test_unknown_fields_of_a_newer_version_are_left_out() -> None:
    assert read_as(Finished, json.loads(json.dumps(asdict(finished(1)) | {"mood": "good"}))) == finished(1)


@pytest.mark.parametrize("plain", [{"step": True}, {"step": 1.5}, {"settings": None}, {"training": "long"}, 3, None, []])
def test_a_value_of_another_kind_is_refused(plain: object) -> None:
    good = json.loads(json.dumps(asdict(finished(1))))
    with pytest.raises(ValueError, match="is not"):
        read_as(Finished, {**good, **plain} if isinstance(plain, dict) else plain)


def test_a_network_trained_with_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        replace(finished(1), runs=())


@pytest.mark.parametrize("record", [INFO, FACTS, Verified(1, HERE, Interval(2.0, 1.9, 2.1))])
def test_records_survive_json(record: RunInfo | TableFacts | Verified) -> None:
    assert read_as(type(record), json.loads(json.dumps(asdict(record)))) == record
