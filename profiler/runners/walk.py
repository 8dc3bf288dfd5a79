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
    """The events of every round: those of `begin_round`, and for each measurement `Begin` and what `measure` makes of it.

    `measure` is given the model, the round, and whether this is a look at the reference. A model for which it answers `Failed` is
    left out from then on: it counts for no measurement, and is not looked at as the reference either. None is no event.
    """
    every = job.settings.reference_every
    if every < 1:
        raise RunnerError(f"the reference must be looked at every so many measurements, not every {every}")
    failed: set[str] = set()

    def visit(model: str, number: int, as_reference: bool) -> Iterator[RunEvent]:
        yield Begin(model, number)
        event = measure(model, number, as_reference)
        if isinstance(event, Failed):
            failed.add(model)
        if event is not None:
            yield event

    reference = None if job.outputs or job.energy_ms else job.reference
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
    """The conditions that an event tells, by name, for another event to tell them too."""
    return {item.name: getattr(event, item.name) for item in fields(Conditions)}
