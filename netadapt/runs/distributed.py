"""The long-term fine-tune by several processes of this machine, started by torch's own launcher (`torch.distributed.run`).

Each process runs this module: it opens the run's folder for reading, trains its share of every batch, and the first one writes the
weights. It tells the process that started it all, a line of JSON each: {"done": 40, "losses": [...]} with the number of steps done
and the losses since the last such line, or {"error": "..."} for one that would occur again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import distributed as dist

from device_agents.support.dataclass_json import read_as
from device_agents.support.errors import ToolError
from device_agents.support.strict_json import read_json
from netadapt.errors import RunError
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.training_schedule import Stage
from netadapt.training.checkpoint import save_weights
from netadapt.training.interrupted import Interrupted
from netadapt.training.recipe import TrainSettings
from netadapt.training.together import Share
from netadapt.training.trainer import train

_LOSSES_EVERY_S = 0.5
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class TogetherJob:
    """One training, as JSON carries it to the processes."""

    run: str
    """The path of the run's folder."""
    step: int
    settings: TrainSettings
    with_holdout: bool
    seed: int
    weights: str
    """The name in the run's folder of weights that the result is saved under."""
    unfinished: str
    """The path of the file that an interrupted training goes on from."""
    what: str
    """Everything that shapes the training, as text."""


def train_together(job: TogetherJob, processes: int, tell: Callable[[int, float], None]) -> None:
    """Train with this number of processes; `tell` gets the number and the loss of every step. `RunError` if one of them fails.

    They end with this process, as the first one that writes to it afterwards fails.
    """
    torchrun = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--max-restarts=0")
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    threads = str(max(1, _cores() // processes))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", *torchrun, "-m", __name__, json.dumps(asdict(job))]
    with tempfile.TemporaryFile() as errors:
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment,
            start_new_session=True,  # Ctrl-C goes to this process only, which then ends them
        )  # fmt: skip
        assert running.stdout is not None
        problem = ""
        try:
            for line in running.stdout:
                match read_json(line):
                    case {"done": int(done), "losses": list(losses)}:
                        for step, loss in enumerate(losses, start=done - len(losses) + 1):
                            tell(step, float(loss))
                    case {"error": str(problem)}:
                        pass  # the launcher ends the others
            running.wait()
        finally:
            if running.poll() is None:
                running.terminate()  # the launcher ends the others, which have sessions of their own
                try:
                    running.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    running.kill()
                    running.wait()
            running.stdout.close()
        if problem:
            raise RunError(problem)
        if running.returncode:
            errors.seek(0)
            said = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if "Error" in line]
            raise RunError(f"the training in {processes} processes ended ({said[-1][:300] if said else 'without a message'}); "
                           "remove the cause and give the command again, which goes on where it was")  # fmt: skip


def main() -> None:
    """One of the processes."""
    job = read_as(TogetherJob, json.loads(sys.argv[1]))
    messages = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries and the user's code print must not mix with the messages
    on_gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = f"cuda:{os.environ['LOCAL_RANK']}" if on_gpus else "cpu"
    if on_gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpus else "gloo")
    share = Share(dist.get_rank(), dist.get_world_size())
    waiting, sent_s = list[float](), time.monotonic()

    def tell(done: int, steps: int, loss: float) -> None:
        nonlocal sent_s
        waiting.append(loss)
        if done == steps or time.monotonic() - sent_s > _LOSSES_EVERY_S:
            print(json.dumps({"done": done, "losses": waiting}), file=messages)
            waiting.clear()
            sent_s = time.monotonic()

    try:
        models = RunModels(RunFolder.open(Path(job.run)))
        model = models.model(models.step(job.step), finished=False)
        part = Stage("", job.settings, job.with_holdout).part(models.dataset)
        train(
            model, part, job.settings, seed=job.seed, progress=None if share.rank else tell, device=device, share=share,
            teacher=models.teacher() if job.settings.distill else None, interrupted=Interrupted(Path(job.unfinished), job.what),
        )  # fmt: skip
        if not share.rank:
            save_weights(model, models.run.weights_path(job.weights))
    except ToolError as exc:
        print(json.dumps({"error": str(exc)}), file=messages)
        sys.exit(1)
    dist.destroy_process_group()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
