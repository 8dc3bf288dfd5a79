"""Runs that are killed, run out of disk or go astray, and what `--resume` makes of them: the history of one left alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from executor_runs import needs_proc, processes_saying

from netadapt.runs.run_folder import RunFolder

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from netadapt.cli.app import app; app()", "run", "mobilenet_v1", "--data", "digits"]
TINY = ["--width-multiplier", "0.125", "--resolution", "16", "--epochs", "2", "--short-term-steps", "2"]
BUDGET = ["--step", "0.06", "--budget", "macs=70%"]
EXECUTORS = (
    ["--executor", "in-process"],
    ["--executor", "processes", "--workers", "1"],
    ["--executor", "processes", "--workers", "2"],
)
LONGEST_S = 200


class Started(subprocess.Popen[bytes]):
    """A run in a process of its own, whose words go into a file: nobody has to read them for it to go on."""

    def __init__(self, out: Path, *options: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        command = [*COMMAND, *TINY, *BUDGET, "--out", str(out), *options]
        super().__init__(command, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True)

    def ended(self) -> int:
        """The exit code; a process that does not end is killed, and that is a failure."""
        try:
            return self.wait(LONGEST_S)
        finally:
            self.kill()

    @property
    def said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode()


def wait_for(process: Started, out: Path, results: int) -> None:
    """Until there are so many results, or the process has ended."""
    until = time.monotonic() + LONGEST_S
    while process.poll() is None and len(recorded(out)) < results and time.monotonic() < until:
        time.sleep(0.01)


def finished(process: Started) -> tuple[int, str]:
    """Exit code and the last line that it said."""
    code = process.ended()
    assert "Traceback" not in process.said
    return code, (process.said.strip().splitlines() or [""])[-1]


def history(out: Path) -> list[object]:
    """All that a run found out: steps with their candidates, and every bit of the weights kept."""
    with RunFolder.open(out) as run:
        weights = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "weights").iterdir()}
        return [*run.steps, sorted(weights.items())]


def recorded(out: Path) -> list[str]:
    """The candidates of which there are results, in the order they came."""
    path = out / "candidates.jsonl"
    whole = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return [json.loads(line)["weights"] for line in whole]


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("left_alone") / "run"
    assert finished(Started(out))[0] == 0
    return out


def kill_at_random(out: Path, chance: random.Random, *options: str) -> bool:
    """Whether it was killed: some moment after some more candidates, or before the first. False if it was done before that."""
    wanted, delay_s = len(recorded(out)) + chance.randrange(4), chance.uniform(0, 0.6)
    kill = signal.SIGINT if chance.random() < 0.2 else signal.SIGKILL
    process = Started(out, "--resume", *options)
    wait_for(process, out, wanted)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay_s)
    process.send_signal(kill)
    return process.ended() != 0


def killed_and_resumed(out: Path, kills: int) -> None:
    chance = random.Random(kills)
    for number in range(kills):
        if not kill_at_random(out, chance, *EXECUTORS[number % len(EXECUTORS)]):
            break
    assert finished(Started(out, "--resume"))[0] == 0


@pytest.mark.timeout(600)
def test_a_run_killed_at_random_points_has_the_history_of_one_left_alone(left_alone: Path, tmp_path: Path) -> None:
    """Six times, twice with each executor; `benchmarks/kills.py` kills as often as one likes."""
    out = tmp_path / "run"
    killed_and_resumed(out, kills=6)
    assert history(out) == history(left_alone)
    assert sorted(recorded(out)) == sorted(recorded(left_alone))  # nothing recorded was done again


def back_at_step_0(left_alone: Path, out: Path) -> Path:
    """The run as it was when its original network was recorded and nothing else."""
    shutil.copytree(left_alone, out)
    for name in ("steps.jsonl", "candidates.jsonl"):
        (out / name).write_text((out / name).read_text().splitlines(keepends=True)[0])
    for path in (out / "weights").iterdir():
        if path.name != "000-original.pt":
            path.unlink()
    return out


def leave_no_room(process: Started) -> None:
    """No file of it or of its workers may grow beyond what weights need."""
    for pid in (process.pid, *processes_saying("netadapt.executors.worker", process.pid)):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (30_000, 30_000))


@needs_proc
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux to limit a process that runs")
@pytest.mark.parametrize("executor", EXECUTORS[::2], ids=" ".join)
def test_a_full_disk_is_told_in_one_sentence_and_the_run_goes_on_when_there_is_room(
    left_alone: Path, tmp_path: Path, executor: list[str]
) -> None:
    out = back_at_step_0(left_alone, tmp_path / "run")
    process = Started(out, "--resume", *executor)
    wait_for(process, out, 3)
    leave_no_room(process)
    code, said = finished(process)
    assert code == 1
    assert said.startswith("error: ")
    assert said.endswith("cannot be written: File too large")
    assert finished(Started(out, "--resume", *executor))[0] == 0
    assert history(out) == history(left_alone)


def test_a_loss_that_is_no_number_is_told_in_one_sentence_and_the_run_can_be_gone_on_with(left_alone: Path, tmp_path: Path) -> None:
    out = back_at_step_0(left_alone, tmp_path / "run")
    weights = out / "weights" / "000-original.pt"
    good = weights.read_bytes()
    state = torch.load(weights, weights_only=True)
    state["classifier.bias"][0] = float("nan")
    torch.save(state, weights)
    code, said = finished(Started(out, "--resume", "--workers", "1"))
    assert code == 1
    assert said.startswith("error: the loss became nan")
    weights.write_bytes(good)
    assert finished(Started(out, "--resume"))[0] == 0
    assert history(out) == history(left_alone)


LEFT: dict[str, Callable[[Path], object]] = {
    "nothing but the lock": lambda out: (out / ".lock").touch(),
    "folders": lambda out: [(out / name).mkdir() for name in ("weights", "exports")],
    "half a graph": lambda out: (out / ".graph.json.123.tmp").write_text("{"),
    "all but run.json": lambda out: (out / "graph.json").write_text("{}"),
}


@pytest.mark.parametrize("leave", LEFT.values(), ids=LEFT)
def test_a_run_killed_before_it_was_one_can_be_begun_again(
    left_alone: Path, tmp_path: Path, leave: Callable[[Path], object]
) -> None:
    leave(tmp_path)
    with RunFolder.open(left_alone) as before, RunFolder.create(tmp_path, before.info, before.graph, resume=True) as run:
        assert run.steps == ()


def test_half_written_weights_are_removed_when_a_run_is_gone_on_with(left_alone: Path, tmp_path: Path) -> None:
    out = back_at_step_0(left_alone, tmp_path / "run")
    half = out / "weights" / ".001-stem.conv.pt.123.tmp"
    half.write_bytes(b"half")
    with RunFolder.open(out, write=True):
        assert not half.exists()
