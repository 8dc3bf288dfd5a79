"""Executors: the same results whoever computes them, and what becomes of a candidate whose worker is lost or fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from executor_runs import Setting, Then, kill, needs_proc, prepared, processes_saying

from netadapt.errors import NetAdaptError, SettingsError
from netadapt.executors import ExecutorOptions, Observers, open_executor
from netadapt.executors.evaluation import Evaluator
from netadapt.executors.messages import Failed, WorkerFailed, read_event
from netadapt.executors.processes import usable_cores
from netadapt.search.candidates import Rung
from netadapt.search.choosing import RUNGS, first_rung, next_rung
from netadapt.search.types import Result
from netadapt.training.datasets import DataError
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import TrainingError
from profiler.progress import Silent


def workers() -> list[int]:
    return processes_saying("netadapt.executors.worker", os.getpid())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share cores with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with prepared(tmp_path / "run") as made:
        yield made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Setting]:
    """Another such run, which is the same."""
    with prepared(tmp_path / "other") as made:
        yield made


def test_candidates_differ_or_the_comparison_of_engines_would_mean_nothing(setting: Setting) -> None:
    weights = setting.bytes_of(setting.evaluate(ExecutorOptions()))
    assert len(set(weights.values())) == len(setting.candidates)


@pytest.mark.slow
@needs_proc
def test_a_candidate_whose_worker_was_killed_is_evaluated_again(setting: Setting, other: Setting) -> None:
    told = Observers(Then(lambda: kill(workers())))
    found = other.evaluate(ExecutorOptions("processes", workers=2), told)
    assert other.bytes_of(found) == setting.bytes_of(setting.evaluate(ExecutorOptions()))


@needs_proc
def test_a_candidate_that_loses_every_worker_is_named(setting: Setting) -> None:
    over = threading.Event()

    def kill_all() -> None:
        while not over.wait(0.05):
            kill(workers())

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(NetAdaptError, match=r"conv → \d+ was lost 4 times, .* because it was ended by SIGKILL.*--resume"):
            setting.evaluate(ExecutorOptions("processes", workers=1))
    finally:
        over.set()
        killer.join()


@pytest.mark.parametrize("options", [ExecutorOptions(), ExecutorOptions("processes", workers=1)], ids=lambda options: options.name)
def test_a_loss_that_is_no_number_is_told_as_what_it_is(setting: Setting, options: ExecutorOptions) -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        setting.evaluate(options, short_term=TrainSettings(1e30, steps=4, schedule="constant"))


def test_what_is_no_error_of_ours_comes_with_the_workers_traceback(setting: Setting) -> None:
    with pytest.raises(WorkerFailed, match="Traceback"):
        setting.evaluate(ExecutorOptions("processes", workers=1), threads=0)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@needs_proc
def test_an_interrupt_ends_workers_and_hands_on_what_is_finished(setting: Setting) -> None:
    found = []
    with open_executor(ExecutorOptions("processes", workers=2), setting.jobs, Observers(Then(interrupt))) as executor:
        with pytest.raises(KeyboardInterrupt):
            found.extend(executor(setting.original, setting.candidates))  # extend keeps what came before the error
        assert not workers()
    assert 1 <= len(found) <= 2


def test_a_worker_ends_when_nobody_listens_any_more(setting: Setting) -> None:
    (job, *_) = setting.jobs.of(setting.original, setting.candidates)
    endless = replace(job, training=TrainSettings(0.01, steps=10**6))
    command = [sys.executable, "-m", "netadapt.executors.worker"]
    asked = json.dumps({"job": asdict(endless), "cores": []}) + "\n"
    ended = subprocess.run(command, input=asked, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


@dataclass
class TwoWorkers:
    """What two workers found, what was seen of them, and what was left after they were done."""

    results: list[Result]
    """Of the original and its candidates."""
    weights: dict[str | None, bytes]
    notes: list[str]
    cores: list[set[int]]
    left_over: list[int]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> TwoWorkers:
    work = Then(lambda: None)
    with prepared(tmp_path_factory.mktemp("two") / "run") as setting:
        with open_executor(ExecutorOptions("processes", workers=2), setting.jobs, Observers(work)) as executor:
            original = list(executor(None, [setting.original.results[0].candidate]))
            work.notes.clear()
            results = original + list(executor(setting.original, setting.candidates))
            cores = [os.sched_getaffinity(pid) for pid in workers()]
        return TwoWorkers(results, setting.bytes_of(results), work.notes, cores, workers())


def test_worker_processes_give_the_same_results_bit_for_bit(two_workers: TwoWorkers, setting: Setting) -> None:
    expected = [setting.original.results[0], *setting.evaluate(ExecutorOptions())]
    assert sorted(two_workers.results, key=str) == sorted(expected, key=str)
    assert two_workers.weights == setting.bytes_of(expected)


@needs_proc
@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores that can be told apart")
def test_workers_keep_to_cores_of_their_own(two_workers: TwoWorkers) -> None:
    one, another = two_workers.cores
    assert len(one) == len(another) == 1
    assert not one & another


@needs_proc
def test_no_worker_outlives_its_executor(two_workers: TwoWorkers) -> None:
    assert not two_workers.left_over


@needs_proc
def test_the_progress_tells_what_was_found_and_what_is_at_work(two_workers: TwoWorkers) -> None:
    assert "at work: " in two_workers.notes[0]
    assert " %" in two_workers.notes[-1]


@pytest.mark.parametrize("name", ["in-process", "processes"])
def test_losses_of_the_original_are_told_step_by_step(setting: Setting, name: str) -> None:
    losses: dict[int, float] = {}
    with open_executor(ExecutorOptions(name), setting.jobs, Observers(Silent(), losses.__setitem__)) as executor:
        list(executor(None, [setting.original.results[0].candidate]))
    assert list(losses) == list(range(1, 31))
    assert sum(losses[step] for step in range(21, 31)) < sum(losses[step] for step in range(1, 11))  # a batch's own loss is noisy


def test_a_candidate_can_be_trained_on_from_its_own_weights(setting: Setting) -> None:
    (job, *_) = setting.jobs.of(setting.original, setting.candidates)
    own = str(setting.run.weights_path(job.weights))
    onwards = replace(job, start_weights=own, start_widths=job.candidate.widths)
    evaluator, contents = Evaluator(setting.jobs.models), []
    for next_job in (job, onwards, onwards):
        evaluator(next_job)
        contents.append(Path(own).read_bytes())
    assert len(set(contents)) == 3
    Path(own).write_bytes(contents[1])
    Evaluator(setting.jobs.models)(onwards)
    assert Path(own).read_bytes() == contents[2]


def test_given_weights_are_scored_as_they_are(setting: Setting) -> None:
    given = setting.run.weights_path(setting.original.weights)
    copy = given.rename(given.with_name("given.pt"))
    with open_executor(ExecutorOptions(), replace(setting.jobs, given_weights=copy), Observers(Silent())) as executor:
        (result,) = executor(None, [setting.original.results[0].candidate])
    assert result.accuracy == setting.original.accuracy
    kept, same = (torch.load(path, weights_only=True) for path in (given, copy))
    assert all(torch.equal(weight, same[name]) for name, weight in kept.items())


def test_weights_without_a_head_are_a_beginning_that_is_trained(setting: Setting) -> None:
    given = setting.run.weights_path(setting.original.weights)
    state = torch.load(given, weights_only=True)
    *rest, _weight, _bias = state
    part = given.with_name("part.pt")
    torch.save({name: state[name] for name in rest}, part)
    candidate = setting.original.results[0].candidate
    results = []
    for jobs in (replace(setting.jobs, given_weights=part, given_part=True), setting.jobs):
        with open_executor(ExecutorOptions(), jobs, Observers(Silent())) as executor:
            results += executor(None, [candidate])
            results.append(torch.load(given, weights_only=True))
    assert not torch.equal(results[1][rest[0]], results[3][rest[0]])


WRONG_OPTIONS = {
    "an unknown executor": ({"name": "proceses"}, "did you mean 'processes'"),
    "no workers": ({"name": "processes", "workers": 0}, "at least 1"),
    "no cores": ({"name": "ray", "cores_per_worker": 0}, "at least 1"),
    "workers in one process": ({"workers": 2}, "--executor processes"),
}


@pytest.mark.parametrize(("options", "said"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_options_that_clash_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ExecutorOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ['{"losses": 3}', '{"done": 1}', '{"fine": true}', "[]"])
def test_what_no_worker_says_is_not_taken(line: str) -> None:
    with pytest.raises(ValueError, match="a worker sent an unknown message"):
        read_event(line)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("netadapt.training.datasets:DataError", DataError),
        ("device_agents.errors:LinkLost", None),
        ("somebody.else:TheirError", NetAdaptError),
        ("netadapt.runs.records:RunInfo", NetAdaptError),
    ],
)
def test_an_error_comes_back_as_the_class_it_was(kind: str, expected: type[Exception] | None) -> None:
    event = read_event(json.dumps({"failed": kind, "message": "so it is"}))
    assert isinstance(event, Failed)
    assert str(event.error) == "so it is"
    assert type(event.error).__name__ == (expected.__name__ if expected else "LinkLost")


def rungs(setting: Setting) -> list[Result]:
    """A candidate through all its rungs, in this process."""
    (candidate, *_) = setting.candidates
    with open_executor(ExecutorOptions(), setting.jobs, Observers(Silent())) as executor:
        found = list(executor(setting.original, [first_rung(candidate)]))
        for _ in RUNGS[1:]:
            found += executor(setting.original, [next_rung(found[-1])])
    return found


def test_each_rung_goes_on_from_the_weights_of_the_one_before(setting: Setting) -> None:
    first, second, third = rungs(setting)
    assert [first.candidate.rung, second.candidate.rung and second.candidate.rung.weights] == [Rung(0, 0.0, 0.25), first.weights]
    assert len({setting.run.weights_path(result.weights).read_bytes() for result in (first, second, third)}) == 3


def test_the_steps_of_all_rungs_are_those_of_one_fine_tune(setting: Setting) -> None:
    jobs = [job for result in rungs(setting) for job in setting.jobs.of(setting.original, [result.candidate])]
    assert sum(job.training.steps or 0 for job in jobs if job.training) == setting.jobs.short_term.steps


def test_no_two_rungs_see_the_same_batches(setting: Setting) -> None:
    jobs = [job for result in rungs(setting) for job in setting.jobs.of(setting.original, [result.candidate])]
    assert len({job.seed for job in jobs}) == len(jobs)
