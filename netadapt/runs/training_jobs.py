"""Long trainings as jobs: in this process, several side by side in processes of their own, or each by several processes together.

A job is all that its training depends on, in a form that JSON can carry. A process of its own runs this module: it opens the run's
folder for reading, trains, and writes the weights. Processes that train one network together are started by torch's own launcher
(`torch.distributed.run`); each trains its share of every batch, and the first one writes the weights. A process tells the one that
started it all, a line of JSON each: {"done": 40, "losses": [...]} with the number of steps done and the losses since the last such
line, or {"error": "..."} for one that would occur again.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import IO

import torch
from torch import distributed as dist
from torch import nn

from device_agents.support.dataclass_json import read_as
from device_agents.support.errors import ToolError
from device_agents.support.strict_json import read_json
from netadapt.child_process import python_command
from netadapt.errors import RunError
from netadapt.runs.event_log import EventLog
from netadapt.runs.models import RunModels
from netadapt.runs.records import Trained
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.training_schedule import Stage, advancing
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.interrupted import Interrupted
from netadapt.training.this_machine import usable_cores, visible_gpus
from netadapt.training.together import ALONE, Share
from netadapt.training.trainer import score, train
from profiler.progress import ProgressReporter

Tell = Callable[[int, float], None]
"""What gets the number of steps done, all stages together, and the loss of every step."""

_BEGIN = ".begin"
"""The ending of files of weights that are only needed until a training has ended."""
_LOSSES_EVERY_S = 0.5
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The training of one network of a run."""

    run: str
    """The path of the run's folder."""
    name: str
    """The training for people, such as `long-term fine-tune of step 5, seed 1`."""
    widths: Mapping[str, int]
    begin: str
    """The path of the weights to begin with."""
    stages: tuple[Stage, ...]
    seed: int
    weights: str
    """The name in the run's folder of weights that the result is saved under."""
    what: str
    """Everything that shapes the training, as text: one that was interrupted goes on if it is the same."""

    @property
    def unfinished(self) -> Path:
        """The file that an interrupted training goes on from."""
        return Path(self.run, "weights", f"{self.weights.removesuffix('.pt')}.unfinished")

    def steps(self, models: RunModels) -> int:
        """The number of steps of all stages."""
        return sum(stage.settings.steps_for(len(stage.part(models.dataset))) for stage in self.stages)


def train_job(
    job: TrainingJob, models: RunModels, tell: Tell | None, *, device: str | None = None, share: Share = ALONE
) -> nn.Module:
    """Train the network in this process, from where it was if it was interrupted. The weights are saved by the caller."""
    model = models.shaped(job.widths)
    load_weights(model, Path(job.begin))
    saved = [Interrupted(job.unfinished, f"{job.what}; stage {number}") for number in range(len(job.stages))]
    first = next((number for number, stage in reversed(list(enumerate(saved))) if stage.load() is not None), 0)
    before = 0
    for number, (stage, interrupted) in enumerate(zip(job.stages, saved, strict=True)):
        part = stage.part(models.dataset)
        if number >= first:
            teacher = models.teacher() if stage.settings.distill else None
            progress = None if tell is None else _after(before, tell)
            train(
                model, part, stage.settings, seed=job.seed, progress=progress, device=device, share=share, teacher=teacher,
                interrupted=interrupted,
            )  # fmt: skip
        before += stage.settings.steps_for(len(part))
    return model


def _after(before: int, tell: Tell) -> Callable[[int, int, float], None]:
    return lambda done, _all, loss: tell(before + done, loss)


@dataclass(frozen=True, slots=True)
class Training:
    """A long training that is wanted."""

    job: TrainingJob
    log_name: str
    """What its losses are logged under."""
    record: Callable[[Trained], None]
    """What is called with the result in this process."""


def begin_with(models: RunModels, model: nn.Module, weights: str) -> Path:
    """Save the weights that a training of `weights` begins with, until it has ended."""
    path = models.run.weights_path(weights).with_suffix(_BEGIN)
    save_weights(model, path)
    return path


def train_all(
    models: RunModels,
    trainings: Sequence[Training],
    *,
    processes: int = 1,
    workers: int = 1,
    progress: ProgressReporter,
    log: EventLog | None = None,
) -> None:
    """Train all of these, score each on the test images and record it as soon as it is trained.

    With one process and one worker they are trained in this process, one after the other; the result is the same but for rounding,
    which differs with the number of torch's threads.
    """
    of = {training.job.weights: training for training in trainings}
    advance: defaultdict[str, Tell] = defaultdict(lambda: advancing(progress))

    def tell(job: TrainingJob, done: int, loss: float) -> None:
        advance[job.weights](done, loss)
        if log is not None:
            log.loss(of[job.weights].log_name, done, loss)

    def take(training: Training) -> None:
        job = training.job
        model = models.shaped(job.widths)
        load_weights(model, models.run.weights_path(job.weights))
        scores = score(model, models.dataset.test)
        training.record(Trained(job.seed, job.weights, scores.accuracy, scores.metrics))
        job.unfinished.unlink(missing_ok=True)
        if job.begin.endswith(_BEGIN):
            Path(job.begin).unlink(missing_ok=True)

    if workers > 1 and len(trainings) > 1:
        steps = {weights: training.job.steps(models) for weights, training in of.items()}
        progress.begin(f"{len(trainings)} trainings, {min(workers, len(trainings))} at the same time", sum(steps.values()))
        jobs = [training.job for training in trainings]
        jobs.sort(
            key=lambda job: -steps[job.weights] * models.graph(job.widths).macs
        )  # the longest first, so that none is left over
        for job in train_jobs(jobs, tell, workers=workers):
            take(of[job.weights])
        return
    for training in trainings:
        job = training.job
        progress.begin(job.name, job.steps(models))
        if processes > 1:
            for _ in train_jobs([job], tell, processes=processes):
                pass
        else:
            model = train_job(job, models, partial(tell, job))
            save_weights(model, models.run.weights_path(job.weights))
        take(training)


def train_jobs(
    jobs: Sequence[TrainingJob], tell: Callable[[TrainingJob, int, float], None], *, processes: int = 1, workers: int = 1
) -> Iterator[TrainingJob]:
    """Train in processes of their own, `workers` networks at the same time and each by `processes` together; yield each when done.

    The cores are shared equally among all processes. `RunError` if one of them fails, which ends the others. They end with this
    process too, as the first one that writes to it afterwards fails.
    """
    threads = max(1, len(usable_cores()) // (processes * workers))
    gpus = cycle(visible_gpus()) if workers > 1 and processes == 1 else iter(())
    lines: queue.SimpleQueue[tuple[_Running, bytes | None]] = queue.SimpleQueue()
    waiting, running = deque(jobs), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_Running(waiting.popleft(), processes, threads, next(gpus, None), lines))
            one, line = lines.get()
            if line is not None:
                one.take(line, tell)
                continue
            running.remove(one)
            one.finish()
            yield one.job
    finally:
        for one in running:
            one.interrupt()
        for one in running:
            one.end()


class _Running:
    """The process of a job, or torch's launcher of several, whose lines are put into a queue with None after the last."""

    def __init__(
        self,
        job: TrainingJob,
        processes: int,
        threads: int,
        gpu: str | None,
        lines: queue.SimpleQueue[tuple[_Running, bytes | None]],
    ) -> None:
        self.job, self._processes, self._problem = job, processes, ""
        command = python_command(__name__, json.dumps(asdict(job)), str(processes))
        if processes > 1:
            launcher = ("--standalone", f"--nproc-per-node={processes}", "--max-restarts=0", "--no-python")
            command = python_command("torch.distributed.run", *launcher, *command)
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, env=os.environ | environment,
            start_new_session=True,  # Ctrl-C goes to this process only, which then ends them
        )  # fmt: skip
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: queue.SimpleQueue[tuple[_Running, bytes | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.put((self, line))
        lines.put((self, None))

    def take(self, line: bytes, tell: Callable[[TrainingJob, int, float], None]) -> None:
        match read_json(line):
            case {"done": int(done), "losses": list(losses)}:
                for step, loss in enumerate(losses, start=done - len(losses) + 1):
                    tell(self.job, step, float(loss))
            case {"error": str(problem)}:
                self._problem = problem  # the launcher ends the others

    def finish(self) -> None:
        """Wait for the end, after the last line. `RunError` if the training failed."""
        self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if "Error" in line]
        self.end()
        if self._problem:
            raise RunError(self._problem)
        if self._process.returncode:
            many = f" in {self._processes} processes" if self._processes > 1 else ""
            raise RunError(f"the {self.job.name}{many} ended ({said[-1][:300] if said else 'without a message'}); "
                           "remove the cause and give the command again, which goes on where it was")  # fmt: skip

    def interrupt(self) -> None:
        """Ask a process to end: one that trains alone saves its training then; the launcher ends those that it has started."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT if self._processes == 1 else signal.SIGTERM)

    def end(self) -> None:
        """Wait until it has ended, for a while."""
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def main() -> None:
    """The process of a job, or one of several."""
    job, together = read_as(TrainingJob, json.loads(sys.argv[1])), int(sys.argv[2])
    messages = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries and the user's code print must not mix with the messages
    share, device = ALONE, None
    if together > 1:
        on_gpus = torch.cuda.device_count() >= together
        device = f"cuda:{os.environ['LOCAL_RANK']}" if on_gpus else "cpu"
        if on_gpus:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if on_gpus else "gloo")
        share = Share(dist.get_rank(), dist.get_world_size())
    waiting, sent_s = list[float](), time.monotonic()

    def tell(done: int, loss: float) -> None:
        nonlocal sent_s
        waiting.append(loss)
        if time.monotonic() - sent_s > _LOSSES_EVERY_S:
            send(done)
            sent_s = time.monotonic()

    def send(done: int) -> None:
        print(json.dumps({"done": done, "losses": waiting}), file=messages)
        waiting.clear()

    try:
        models = RunModels(RunFolder.open(Path(job.run)))
        model = train_job(job, models, None if share.rank else tell, device=device, share=share)
        if not share.rank:
            save_weights(model, models.run.weights_path(job.weights))
            send(job.steps(models))
    except ToolError as exc:
        print(json.dumps({"error": str(exc)}), file=messages)
        sys.exit(1)
    if share.count > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
