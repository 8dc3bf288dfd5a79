"""Building a table: measure every layer of the plans and whole networks beside them, then fit, check and write.

What happens is in the journal before anything else is done with it; the table is made from the journal alone. A build that is
killed goes on where it stopped, and a table that exists is extended by what is not in it yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_agents import open_agent
from profiler.errors import JournalError, ModelError, TableError
from profiler.estimate import estimate
from profiler.graph import Graph
from profiler.journal import Journal, journal_path
from profiler.layers import LayerSpec
from profiler.model_file import FORMATS
from profiler.plan import Plan
from profiler.progress import Silent, Work
from profiler.results import Results, table_from_journal
from profiler.session import Session
from profiler.settings import Target, TimingSettings
from profiler.table import LatencyTable

PREFIXES = 6
"""A user's file has no other widths to fit on: so many beginnings of it are measured instead."""


@dataclass(frozen=True, slots=True)
class Job:
    """A model to measure and the journal line that says what it is."""

    line: Mapping[str, Any]
    model: bytes

    @property
    def key(self) -> str:
        return str(self.line["key"])


def build(
    plans: Sequence[Plan],
    target: Target,
    out: Path,
    *,
    settings: TimingSettings | None = None,
    resume: bool = False,
    progress: Work | None = None,
) -> LatencyTable:
    """Measure what is not in the table yet and write it, whole, to `out`.

    `JournalError` if a journal is there and neither a table nor `resume`, or was recorded under other conditions.
    """
    started = time.monotonic()
    settings, progress = settings or TimingSettings(), progress or Silent()
    if out.suffix != ".parquet" or not out.parent.is_dir():
        raise TableError(f"{out} cannot become a table: give a name ending in .parquet in a folder that exists")
    if out.exists() and not journal_path(out).exists():
        raise TableError(f"{out} has no journal beside it, so it cannot be extended; choose another --out or remove it")
    jobs = [job for plan in plans for job in plan_jobs(plan, target)]
    header = {
        "target": {"runtime": target.runtime, "threads": target.threads, "device": target.device},
        "settings": settings.to_dict(),
    }
    with open_agent(target.device) as agent, Journal(journal_path(out), header, resume=resume or out.exists()) as journal:
        try:
            measure(jobs, Session(agent, target, settings), journal, progress)
        finally:
            journal.append({"event": "spent", "wall_s": round(time.monotonic() - started, 3)})
            if not any(line["event"] == "hello" for line in journal.lines):
                journal_path(out).unlink()  # the runner never started: there is nothing to go on with
        table = table_from_journal(journal.lines)
    table.save(out)
    return table


def plan_jobs(plan: Plan, target: Target) -> Iterator[Job]:
    """Every distinct layer of a plan, and its whole networks with the part they play: fit or check."""
    writer = FORMATS[target.model_format]
    if plan.model is not None and plan.model.suffix.lstrip(".").lower() != target.model_format:
        raise ModelError(f"{plan.model} cannot run on {target.runtime}, which reads .{target.model_format} files")
    for layer in plan.layers:
        yield Job(
            {"event": "layer", "key": layer.key, "layer": layer.to_dict()}, writer.write(Graph.of_layer(layer, plan.graph.cutouts))
        )
    for role, graph in _networks(plan):
        whole = plan.model is not None and len(graph.nodes) == len(plan.graph.nodes)
        model = plan.model.read_bytes() if whole and plan.model is not None else writer.write(graph)
        yield Job(
            {"event": "network", "key": f"network {graph.name}", "role": role, "graph": replace(graph, cutouts={}).to_dict()}, model
        )


def _networks(plan: Plan) -> Iterator[tuple[str, Graph]]:
    """The network itself is always checked, never fitted on."""
    yield "check", plan.graph
    for role, drawn in (("fit", plan.fit), ("check", plan.check)):
        for widths in drawn:
            name = "-".join(str(width) for width in (plan.graph.widths | dict(widths)).values())
            yield role, replace(plan.graph.at_widths(widths), name=f"{plan.graph.name} {name}")
    if plan.model is not None and not plan.graph.cutouts:
        lengths = {round(len(plan.graph.nodes) * part / (PREFIXES + 1)) for part in range(1, PREFIXES + 1)}
        yield from (("fit", plan.graph.prefix(length)) for length in sorted(lengths) if length > 0)


def measure(jobs: Sequence[Job], session: Session, journal: Journal, progress: Work) -> None:
    """Visit every job in all rounds, and those whose interval stays wide in more, up to `max_rounds`."""
    wanted = {job.key: job for job in jobs}
    known = {line["key"] for line in journal.lines if line["event"] in ("layer", "network")}
    for key, job in wanted.items():
        if key not in known:
            journal.append(job.line)
    settings = session.settings
    _visit(wanted, range(settings.rounds), "measuring", session, journal, progress)
    for first in range(settings.rounds, settings.max_rounds, settings.rounds // 2 or 1):
        results = Results.of(journal.lines)
        wide = {key: wanted[key] for key in wanted if key in results.visits and not estimate(results.visits[key]).settled(settings)}
        if not wide:
            return
        _visit(
            wide,
            range(first, min(first + (settings.rounds // 2 or 1), settings.max_rounds)),
            "settling",
            session,
            journal,
            progress,
        )


def _visit(jobs: Mapping[str, Job], rounds: range, what: str, session: Session, journal: Journal, progress: Work) -> None:
    """Visit jobs in these rounds, but for the visits that are in the journal already."""
    results = Results.of(journal.lines)
    done = {key: {visit.round for visit in visits} for key, visits in results.visits.items()}
    left = [key for key in jobs if key not in results.failed]
    schedule = [(number, [key for key in left if number not in done.get(key, ())]) for number in rounds]
    total = sum(len(keys) for _, keys in schedule)
    if not total:
        return
    progress.begin(f"{what} {len(left)} models", total)
    models = {key: jobs[key].model for key in left}
    for message in session.measure(models, schedule, reference=_reference(jobs)):
        match message["event"]:
            case "hello":
                _check_same_device(journal, message)
                journal.append(message)
            case "visit" | "failed":
                journal.append({**{name: value for name, value in message.items() if name != "model"}, "key": message["model"]})
                progress.advance(message["model"][:60])
            case "round":
                journal.append(message)
                journal.sync()


def _reference(jobs: Mapping[str, Job]) -> str | None:
    """The layer looked at again and again to notice drift: the one of middling work."""
    layers = {key: LayerSpec.from_dict(job.line["layer"]) for key, job in jobs.items() if job.line["event"] == "layer"}
    ranked = sorted((key for key, layer in layers.items() if layer.macs), key=lambda key: (layers[key].macs or 0, key))
    return ranked[len(ranked) // 2] if len(ranked) >= 10 else None


def _check_same_device(journal: Journal, hello: Mapping[str, Any]) -> None:
    """Samples of two devices, or of one before and after an update, must not end up in one table."""
    before = next((line for line in journal.lines if line["event"] == "hello"), None)
    for name in ("device", "version", "library_sha256", "flags"):
        if before is not None and before.get(name) != hello.get(name):
            raise JournalError(
                f"the device or its runtime has changed since {journal.path} was begun ({name}: {before.get(name)!r}, "
                f"now {hello.get(name)!r}); build a new table"
            )
