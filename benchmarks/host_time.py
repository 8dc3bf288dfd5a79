"""Processor time of the host for each event of a build, early and late in it: it must not grow with the journal.

A run takes up made-up measurements of 300 layers, as they come from a session, and writes them to a journal in a temporary folder:

    python benchmarks/host_time.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from profiler.layers.layer import conv2d
from profiler.measure.loop import MeasurementRun, layer_model
from profiler.progress import Silent
from profiler.protocol.events import DeviceFacts, Hello, Measurement, Reference, Round
from profiler.protocol.journal import Journal
from profiler.protocol.settings import Target, TimingSettings

LAYERS = 300
SAMPLES = 40


class NoSession:
    """What a run asks of its session before anything is measured."""

    def __init__(self) -> None:
        self.target, self.settings, self.conditioning = Target("local", "fake"), TimingSettings(), None


def main(events: Annotated[int, typer.Option(help="Events in all.")] = 20_000) -> None:
    layers = [conv2d((1, 8, 8, 8 * number), 8, 1) for number in range(1, LAYERS + 1)]
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder, "t.journal.jsonl"), Target("local", "fake"), TimingSettings(), resume=False) as journal,
    ):
        run = MeasurementRun(NoSession(), Silent(), journal)  # type: ignore[arg-type]
        keys = run.add(layer_model(layer, "json") for layer in layers)
        run._take_up(Hello(protocol=5, version="1", device=DeviceFacts(), flags={}))
        samples = tuple(range(100_000, 100_000 + SAMPLES))
        started_s, begun = time.process_time(), 0
        for number in range(events):
            place = number % LAYERS
            if place == 0:
                run._take_up(Round(round=number // LAYERS, clock_ns=number + 1))
            elif place % 12 == 0:
                run._take_up(Reference(keys[0], number // LAYERS, 10, samples))
            else:
                run._take_up(Measurement(keys[place], number // LAYERS, 10, samples))
            if number + 1 in (1000, events // 2, events):
                now_s = time.process_time()
                each_us = 1e6 * (now_s - started_s) / (number + 1 - begun)
                print(f"events {begun + 1} to {number + 1}: {each_us:.0f} µs of processor time each")
                started_s, begun = time.process_time(), number + 1
        started_s = time.process_time()
        found = len(run.state.measurements)
        took_ms = 1e3 * (time.process_time() - started_s)
        print(f"the measurements of {found} layers with their tags: {took_ms:.0f} ms, asked for once a batch")


if __name__ == "__main__":
    typer.run(main)
