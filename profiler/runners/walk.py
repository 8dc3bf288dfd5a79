"""The order of a job's measurements, for runners that live on this host (device_agents/on_device/PROTOCOL.md, "A measurement")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

from profiler.errors import RunnerError
from profiler.protocol.events import Begin, Conditions, Failed, RunEvent
from profiler.protocol.job import Job


def walk(
    job: Job, begin_round: Callable[[int], Iterable[RunEvent]], measure: Callable[[str, int, bool], RunEvent | None]
) -> Iterator[RunEvent]:
    """The events of every round: those of `begin_round`, and for each measurement `Begin` and what `measure` returns, if anything.

    `measure` is given the model, the round, and whether the model is measured as the reference. A model for which it returns
    `Failed` is left out from then on: it does not count as a measurement, and is not measured as the reference either.
    `RunnerError` if `reference_every` is less than 1.
    """
    every = job.settings.reference_every
    if every < 1:
        raise RunnerError(f"reference_every must be at least 1, not {every}")
    failed: set[str] = set()

    def visit(model: str, number: int, as_reference: bool) -> Iterator[RunEvent]:
        yield Begin(model, number)
        event = measure(model, number, as_reference)
        if isinstance(event, Failed):
            failed.add(model)
        if event is not None:
            yield event

    reference = job.reference if job.measures_latency else None
    for number, models in job.schedule:
        yield from begin_round(number)
        measurements = 0
        for model in models:
            if model in failed:
                continue
            if reference is not None and reference not in failed and measurements % every == 0:
                yield from visit(reference, number, True)
            if model not in failed:  # it may have been the reference
                measurements += 1
                yield from visit(model, number, False)


def conditions_of(event: Conditions) -> dict[str, Any]:
    """The fields of an event that are conditions, as arguments of another event."""
    return {item.name: getattr(event, item.name) for item in fields(Conditions)}
