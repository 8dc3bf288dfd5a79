"""A run killed at random points and resumed, against the same run left alone: does it end up the same?

    python benchmarks/kills.py --kills 20

Both adapt MobileNetV1 to scikit-learn's digits on a budget of multiply-accumulates, so that no device is needed. One is killed with
SIGKILL, its workers with it, at a random time after it has written something, again and again, and then left to end. Compared are
the steps, word for word, and their weights, bit for bit; counted are candidates that were recorded more than once.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer

from netadapt.runs.run_folder import RunFolder

COMMAND = [
    sys.executable, "-c", "from netadapt.cli.app import app; app()", "run", "mobilenet_v1", "--width-multiplier", "0.25",
    "--resolution", "32", "--data", "digits", "--epochs", "2", "--short-term-steps", "8", "--step", "0.05",
]  # fmt: skip


def main(
    kills: Annotated[int, typer.Option(help="How often to kill the run before it is left alone.")] = 20,
    budget: Annotated[str, typer.Option()] = "macs=50%",
    workers: Annotated[int, typer.Option(help="Worker processes; 0 for none.")] = 0,
    longest_s: Annotated[float, typer.Option(help="A process is killed at most so long after it has begun to work.")] = 8.0,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    command = [*COMMAND, "--budget", budget, *(["--workers", str(workers)] if workers else [])]
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        alone, killed = Path(folder, "alone"), Path(folder, "killed")
        begun = time.monotonic()
        subprocess.run([*command, "--out", str(alone)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"left alone: {time.monotonic() - begun:.0f} s, {len(_steps(alone))} steps, {_recorded(alone).total()} candidates")
        done, where = _kill_again_and_again([*command, "--out", str(killed), "--resume"], killed, kills, longest_s, seed)
        subprocess.run(
            [*command, "--out", str(killed), "--resume"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        twice = sum(count - 1 for count in _recorded(killed).values())
        print(f"killed {done} times, with this many steps recorded: {', '.join(map(str, where))}")
        print(f"steps the same, word for word: {(alone / 'steps.jsonl').read_bytes() == (killed / 'steps.jsonl').read_bytes()}")
        print(f"weights of every step the same, bit for bit: {_same_weights(alone, killed)}")
        print(f"candidates recorded twice: {twice}")
        shutil.rmtree(killed)


def _kill_again_and_again(command: list[str], run: Path, kills: int, longest_s: float, seed: int) -> tuple[int, list[int]]:
    """How often it was killed, fewer than asked for if it ended first, and how many steps it had each time."""
    chance, where = random.Random(seed), list[int]()
    while len(where) < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        _wait_for_work(process, run)
        try:
            process.wait(chance.uniform(0, longest_s))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            where.append(len(_steps(run)) if (run / "run.json").exists() else 0)
    return len(where), where


def _wait_for_work(process: subprocess.Popen[bytes], run: Path) -> None:
    """Until the process has written something: what comes before is Python loading torch, mostly."""
    before = _touched(run)
    while process.poll() is None and _touched(run) == before:
        time.sleep(0.05)


def _touched(run: Path) -> float:
    """When anything in the run's folder was last written, its weights included."""
    return max((path.stat().st_mtime for path in run.rglob("*") if path.exists()), default=0.0)


def _steps(run: Path) -> list[int]:
    with RunFolder.open(run) as folder:
        return [step.iteration for step in folder.steps]


def _recorded(run: Path) -> Counter[str]:
    return Counter((run / "candidates.jsonl").read_text(encoding="utf-8").splitlines())


def _same_weights(one: Path, two: Path) -> bool:
    files = [{path.name for path in (run / "weights").glob("*.pt")} for run in (one, two)]
    return files[0] == files[1] and all(_equal(one / "weights" / name, two / "weights" / name) for name in files[0])


def _equal(one: Path, two: Path) -> bool:
    a, b = (torch.load(path, weights_only=True) for path in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


if __name__ == "__main__":
    typer.run(main)
