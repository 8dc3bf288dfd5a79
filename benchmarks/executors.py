"""What an iteration takes with each executor, and what the executor costs over a bare PyTorch loop.

    python benchmarks/executors.py

Fine-tunes the candidates of MobileNetV1's first iteration: all of them by this process, by one and by two worker processes, and by
Ray with two. Workers are started and have loaded everything before the clock is, as they have from the second iteration on. Then
the same steps in a bare loop: the same network, batches of the same shape from memory, forward, backward, step, and no more.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn import functional

from netadapt.executors import ExecutorOptions, Observers, open_executor
from netadapt.executors.jobs import CandidateJobs
from netadapt.networks import network_graph
from netadapt.networks.options import NetworkOptions
from netadapt.resources import open_resource
from netadapt.runs.models import RunModels
from netadapt.runs.records import RunInfo
from netadapt.runs.run_folder import RunFolder
from netadapt.search.candidates import Candidate, propose_all
from netadapt.search.types import Evaluate, Step
from netadapt.settings import DataSettings, RunSettings, TrainingSettings
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.recipe import Recipe, TrainSettings
from profiler.progress import Silent

EXECUTORS = (
    ExecutorOptions(),
    ExecutorOptions("processes", workers=1),
    ExecutorOptions("processes", workers=2),
    ExecutorOptions("ray", workers=2, ray_address="local"),
)


def main(
    width_multiplier: Annotated[float, typer.Option()] = 0.25,
    resolution: Annotated[int, typer.Option()] = 32,
    steps: Annotated[int, typer.Option(help="Short-term steps of each candidate.")] = 20,
    batch_size: Annotated[int, typer.Option()] = 64,
    threads: Annotated[int, typer.Option(help="Of PyTorch, for each candidate.")] = 1,
    rounds: Annotated[int, typer.Option(help="Iterations that are timed; the median counts.")] = 3,
) -> None:
    torch.set_num_threads(threads)
    options = NetworkOptions("mobilenet_v1", width_multiplier, resolution, classes=10)
    graph, macs = network_graph(options.name, **options.keywords), open_resource("macs", None)
    dataset = open_dataset("digits", resolution=resolution, seed=1, holdout_fraction=0.15)
    recipe = Recipe(
        TrainSettings(0.05, steps=1), TrainSettings(0.01, steps=steps, batch_size=batch_size), TrainSettings(0.01, steps=1)
    )
    training = TrainingSettings("classification", recipe, None, threads, threads)
    info = RunInfo(RunSettings(options, DataSettings("digits"), training), ("macs=60%",), "")
    price = macs.price(graph)
    candidates = propose_all(graph, {"macs": macs}, {"macs": 0.96 * price}, iteration=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder.create(Path(folder, "run"), info, graph) as run,
    ):
        jobs = CandidateJobs.for_run(RunModels(run, dataset))
        with open_executor(ExecutorOptions(), jobs, Observers(Silent())) as executor:
            (first,) = executor(None, [Candidate(0, graph.widths, {"macs": price})])
        original = Step(0, graph.widths, {"macs": price}, first.accuracy, first.weights, (first,))
        bare = bare_steps_per_s(options, threads, steps, batch_size, rounds)
        print(f"{len(candidates)} candidates of {steps} steps of {batch_size}, {threads} thread(s) each")
        print(f"bare PyTorch: {bare:.1f} steps/s")
        for executor_options in EXECUTORS:
            name = f"{executor_options.name}, {executor_options.workers or 1} at a time"
            if executor_options.name == "ray" and importlib.util.find_spec("ray") is None:
                print(f"{name}: Ray is not installed")
                continue
            with open_executor(executor_options, jobs, Observers(Silent())) as executor:
                taken_s = iteration_s(executor, original, candidates, rounds)
            rate = len(candidates) * steps / taken_s
            print(f"{name}: {taken_s:.2f} s an iteration, {rate:.1f} steps/s, {rate / bare:.2f} of the bare loop")


def iteration_s(executor: Evaluate, original: Step, candidates: Sequence[Candidate], rounds: int) -> float:
    """The median of several, after one that is not counted."""
    taken: list[float] = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        list(executor(original, candidates))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def bare_steps_per_s(options: NetworkOptions, threads: int, steps: int, batch_size: int, rounds: int) -> float:
    torch.set_num_threads(threads)
    model = options.build().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    images = torch.randn(batch_size, 3, options.resolution, options.resolution).to(memory_format=torch.channels_last)
    labels = torch.randint(0, options.classes, (batch_size,))
    rates = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for _ in range(5 * steps):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(functional.cross_entropy(model(images), labels))
            optimizer.step()
        rates.append(5 * steps / (time.perf_counter() - started))
    return statistics.median(rates[1:])


if __name__ == "__main__":
    typer.run(main)
