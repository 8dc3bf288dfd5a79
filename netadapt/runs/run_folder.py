"""A run on disk: its results are written as they come, so that a killed run goes on where it stopped.

  run.json           what the run was started with (RunInfo)
  graph.json         the original network and its blocks
  candidates.jsonl   a line for each candidate once it is fine-tuned; steps.jsonl: one for each winner
  weights/           a state_dict for each step; those of a losing candidate go once the step is recorded
  finished.jsonl     a line for each step after its long-term fine-tune; weights/*.unfinished: one that goes on when it is asked for
  verify.json        measured latencies; layers.json: layer by layer
  baselines.json     other networks to compare with; choices.json: how they were found; baselines/macs: a run of its own
  exports/           model files; exports.json: the record of each that was made to be shipped

One process at a time may write: the lock is the kernel's and ends with the process. Reading needs none. Single files are replaced
whole, lines are on the disk before anything is done that depends on them, and a torn last line is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from device_agents.support.atomic import write_whole, writing
from device_agents.support.dataclass_json import Record, read_as
from device_agents.support.jsonl import append_line, drop_torn_line, read_lines
from device_agents.support.locks import locked
from device_agents.support.strict_json import read_json
from netadapt.errors import RunError
from netadapt.runs.records import Baseline, Choice, ExportedFile, Finished, LayerLatency, RunInfo, TargetName, Verified
from netadapt.search.candidates import Candidate
from netadapt.search.types import Evaluate, Result, Step
from netadapt.settings import OPTIONS, value_text, values_of
from profiler.errors import LayerError, PlanError
from profiler.layers.graph import Graph

FORMAT = 9
LOCK = ".lock"
LINES = ("candidates.jsonl", "steps.jsonl", "finished.jsonl")


class LockedFolder:
    """An open folder, whose lock, if it has one, is held until it is closed; use it in a with statement, to let others write."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class RunFolder(LockedFolder):
    """An open run folder. Make one with `create` or `open`."""

    def __init__(self, path: Path, lock: int | None) -> None:
        super().__init__(path, lock)
        self.info = _read_info(path)
        self.graph = read_graph(path / "graph.json")

    @classmethod
    def create(
        cls, path: Path, info: RunInfo, graph: Graph, *, resume: bool = False, free: Collection[str] = ("search.max_iterations",)
    ) -> Self:
        """Start a run, or with `resume` go on with the one that is there; settings in `free`, by their fields' paths, may then
        differ.

        A run that failed before it had a result is begun anew. `RunError` if the folder holds something else, is in use, or was
        begun with other settings.
        """
        if resume and is_run(path):
            run = cls.open(path, write=True)
            try:
                run._go_on(info, graph, free)
            except BaseException:
                run.close()
                raise
            return run
        refuse_unless_empty(path)
        with writing(path, RunError):
            path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path)
        try:
            refuse_unless_empty(path)  # another process may have begun a run here a moment ago
            _drop_failed_start(path)
            for name in ("weights", "exports"):
                (path / name).mkdir(exist_ok=True)
            write_json(path / "graph.json", graph.to_dict())
            _write_info(path, info)  # last: with it the folder is a run
            return cls(path, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open a run that exists. `RunError` if the folder is no run, it is damaged, or another process writes to it."""
        if not is_run(path):
            raise RunError(f"{path} is not a run: it has no run.json; `netadapt run` makes one")
        lock = lock_folder(path) if write else None
        try:
            run = cls(path, lock)
            if write:
                for name in LINES:
                    drop_torn_line(path / name)
                _drop_half_written(path)
            return run
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise

    # what is there

    @property
    def steps(self) -> tuple[Step, ...]:
        """The family so far, the original first."""
        steps = tuple(self._lines("steps.jsonl", Step))
        if [step.iteration for step in steps] != list(range(len(steps))):
            raise RunError(f"{self.path / 'steps.jsonl'} is damaged: its steps are not numbered 0, 1, 2, …")
        return steps

    @property
    def unfinished(self) -> tuple[Result, ...]:
        """Results of the iteration that has no step yet, as far as their weights are there."""
        done = len(self.steps)
        results = self._lines("candidates.jsonl", Result)
        return tuple(item for item in results if item.candidate.iteration >= done and self.weights_path(item.weights).exists())

    @property
    def finished(self) -> dict[int, Finished]:
        """The fine-tuned steps by number, in the order they were finished; of a step finished twice, the last."""
        latest: dict[int, Finished] = {}
        for item in self._lines("finished.jsonl", Finished):
            latest.pop(item.step, None)
            latest[item.step] = item
        return latest

    @property
    def measured(self) -> tuple[Verified, ...]:
        """The measurements of whole networks on every target."""
        return self._list("verify.json", Verified)

    @property
    def home(self) -> TargetName | None:
        """The device and runtime that the run is about: its first table's if steps were measured there, else where they were
        measured last; None before any was."""
        targets = [item.target for item in self.measured]
        wanted = next((TargetName(facts.device, facts.runtime) for facts in self.info.tables.values()), None)
        return wanted if wanted in targets else next(reversed(targets), None)

    @property
    def verified(self) -> dict[int, Verified]:
        """The measurements on the run's home target, by step."""
        return {item.step: item for item in self.measured if item.target == self.home}

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        return self._list("baselines.json", Baseline)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Networks that were found to be as fast as a step."""
        return self._list("choices.json", Choice)

    @property
    def layers(self) -> tuple[LayerLatency, ...]:
        return self._list("layers.json", LayerLatency)

    @property
    def exported(self) -> tuple[ExportedFile, ...]:
        """The exported files in the order they were made; of a file made twice, the last."""
        return self._list("exports.json", ExportedFile)

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    def table_path(self, name: str = "") -> Path:
        """The run's own copy of the table of this name, which it is guided by."""
        return self.path / (f"table-{quote(name, safe='')}.parquet" if name else "table.parquet")

    def weights_path(self, name: str) -> Path:
        """The path of the weights of this name, which may not exist yet. `RunError` if the name would lead elsewhere."""
        if name in ("", "..") or Path(name).name != name:
            raise RunError(f"{self.path} is damaged: {name!r} is not the name of a file of weights")
        return self.path / "weights" / name

    # what comes

    def recorded(self, evaluate: Evaluate) -> Evaluate:
        """The same evaluation, with each result on the disk before it is handed on."""

        def record(parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
            for result in evaluate(parent, candidates):
                self.add_result(result)
                yield result

        return record

    def add_result(self, result: Result) -> None:
        self._append("candidates.jsonl", asdict(result))

    def add_step(self, step: Step) -> None:
        """Record a winner, then let the losers' weights go."""
        self._append("steps.jsonl", asdict(step))
        self._drop_losers(step)

    def add_finished(self, finished: Finished) -> None:
        self._append("finished.jsonl", asdict(finished))

    def write_verified(self, items: Iterable[Verified]) -> None:
        self._write_list("verify.json", [asdict(item) for item in items])

    def write_baselines(self, items: Iterable[Baseline]) -> None:
        self._write_list("baselines.json", [asdict(item) for item in items])

    def add_baseline(self, item: Baseline) -> None:
        """Record a baseline in place of an earlier one of its kind for the same step."""
        others = [other for other in self.baselines if (other.kind, other.step) != (item.kind, item.step)]
        self.write_baselines([*others, item])

    def add_choice(self, item: Choice) -> None:
        """Record a choice in place of an earlier one of its shape for the same step."""
        others = [asdict(other) for other in self.choices if (other.shape, other.step) != (item.shape, item.step)]
        self._write_list("choices.json", [*others, asdict(item)])

    def add_exported(self, item: ExportedFile) -> None:
        others = [asdict(other) for other in self.exported if other.path != item.path]
        self._write_list("exports.json", [*others, asdict(item)])

    def write_layers(self, items: Iterable[LayerLatency]) -> None:
        self._write_list("layers.json", [asdict(item) for item in items])

    def _go_on(self, info: RunInfo, graph: Graph, free: Collection[str]) -> None:
        one, two = (without(_values(each), free) for each in (self.info, info))
        refuse_other(f"{self.path} was begun", one, two, "another --out")
        if graph.to_dict() != self.graph.to_dict():
            raise RunError(f"{self.path} was begun with another {self.graph.name} than this {graph.name}; use another --out")
        if self.info.settings != info.settings:
            self.info = replace(self.info, settings=info.settings)
            _write_info(self.path, self.info)
        for step in self.steps[-1:]:
            self._drop_losers(step)  # the process may have been killed between recording it and this

    def _drop_losers(self, step: Step) -> None:
        """Delete the weights of losing candidates, and those of the winner from before its last rung."""
        recorded = (item for item in self._lines("candidates.jsonl", Result) if item.candidate.iteration == step.iteration)
        for result in (*step.results, *recorded):
            if result.weights != step.weights:
                self.weights_path(result.weights).unlink(missing_ok=True)

    def _append(self, name: str, plain: Mapping[str, Any]) -> None:
        self._check_lock()
        with writing(self.path / name, RunError), (self.path / name).open("ab") as file:
            append_line(file.fileno(), plain)
            os.fsync(file.fileno())

    def _write_list(self, name: str, items: list[dict[str, Any]]) -> None:
        self._check_lock()
        write_json(self.path / name, items)

    def _check_lock(self) -> None:
        if self._lock is None:
            raise RuntimeError(f"{self.path} was opened for reading only")

    def _lines(self, name: str, kind: type[Record]) -> Iterator[Record]:
        path = self.path / name
        for place, plain in read_lines(path, RunError) if path.exists() else ():
            yield _read_as(place, kind, plain)

    def _list(self, name: str, kind: type[Record]) -> tuple[Record, ...]:
        path = self.path / name
        items: tuple[Record, ...] = parse(str(path), tuple[kind, ...], read_text(path)) if path.exists() else ()  # type: ignore[valid-type]
        return items


def is_run(path: Path) -> bool:
    """True if the folder holds a run."""
    return (path / "run.json").is_file()


def weights_name(iteration: int, block: str | None, what: str = "") -> str:
    """The file name of a candidate's weights; `what` distinguishes further ones of the same network."""
    name = "original" if block is None else quote(block, safe="")  # block names come from the user's network
    return "-".join(part for part in (f"{iteration:03d}", name, what) if part) + ".pt"


def write_json(path: Path, plain: Any) -> None:
    write_whole(path, json.dumps(plain, indent=1) + "\n", RunError)


def lock_folder(path: Path) -> int:
    """The descriptor of the lock file, whose lock is held until it is closed. `RunError` if another process holds it."""
    with writing(path / LOCK, RunError):
        try:
            return locked(path / LOCK)
        except BlockingIOError as exc:
            raise RunError(f"another process is at work in {path}; wait for it or end it") from exc


def refuse_unless_empty(path: Path) -> None:
    """`RunError` if no run can begin in this folder: it holds one that has results, or something else."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; choose a folder for the run")
    if is_run(path):
        if any((path / name).exists() and (path / name).stat().st_size for name in LINES):
            raise RunError(f"{path} holds a run already; go on with it with `netadapt resume {path}`, or choose another --out")
        return  # it failed before it had a result
    if path.exists() and not all(_unborn(item) for item in path.iterdir()):
        raise RunError(f"{path} is not empty and not a run; choose another --out")


def _drop_failed_start(path: Path) -> None:
    """Delete what a run that failed before its first result has left: its settings, its copies of tables and its weights."""
    if not is_run(path):
        return
    (path / "run.json").unlink()  # first: without it the folder is no run
    for item in (*path.glob("table*.parquet*"), *path.glob("weights/*"), *(path / name for name in LINES)):
        item.unlink(missing_ok=True)


def _unborn(item: Path) -> bool:
    """True if a process that is killed before it has made a run of the folder leaves such an item behind."""
    is_empty = item.is_dir() and not any(item.iterdir())
    return item.name in (LOCK, "graph.json") or (item.name in ("weights", "exports") and is_empty) or _half_written(item)


def _half_written(item: Path) -> bool:
    """True for a file that `write_whole` leaves behind when its process is killed."""
    return item.name.startswith(".") and item.name.endswith(".tmp")


def _drop_half_written(path: Path) -> None:
    for folder in (path, path / "weights"):
        for item in folder.glob(".*.tmp"):
            item.unlink(missing_ok=True)


def refuse_other(begun: str, before: Mapping[str, Any], now: Mapping[str, Any], instead: str) -> None:
    """`RunError` naming the first value that differs, by the option that sets it.

    `begun` is the beginning of the sentence, such as `FOLDER was begun`, and `instead` what to use for another value.
    """
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            option = OPTIONS.get(name, name)
            raise RunError(
                f"{begun} with {option} {value_text(before.get(name))}, not {value_text(now.get(name))}; "
                f"use the same {option}, or {instead}"
            )


def without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The other values."""
    return {name: value for name, value in values.items() if name not in names}


def _values(info: RunInfo) -> dict[str, Any]:
    tables = {f"table {name}".rstrip(): facts.sha256[:12] for name, facts in info.tables.items()}
    weights = info.supernet.sha256[:12] if info.supernet else None
    return {"budget": ", ".join(info.budgets), **tables, "--supernet": weights, **values_of(info.settings)}


def _write_info(path: Path, info: RunInfo) -> None:
    """The network's name stands on its own too, for readers such as `profile serve` that do not know our settings."""
    write_json(path / "run.json", {"format": FORMAT, "network": info.network, **asdict(info)})


def _read_info(path: Path) -> RunInfo:
    text = read_text(path / "run.json")
    plain = parse(str(path / "run.json"), dict, text)
    if plain.get("format") != FORMAT:
        raise RunError(f"{path} has run format {plain.get('format')}, this version reads {FORMAT}; use the version that made it")
    return parse(str(path / "run.json"), RunInfo, text)


def read_graph(path: Path) -> Graph:
    """The graph in this file. `RunError` if it is damaged."""
    plain = parse(str(path), dict, read_text(path))
    try:
        return Graph.from_dict(plain)
    except (LayerError, PlanError) as exc:
        raise RunError(f"{path} is damaged: {exc}") from exc


def read_text(path: Path) -> str:
    """The text of a file of a run. `RunError` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RunError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'it is not text'}") from exc


def parse(where: str, kind: type[Record], text: str) -> Record:
    """The record that is written as this JSON in the file `where`. `RunError` if it is damaged."""
    try:
        return _read_as(where, kind, read_json(text))
    except ValueError as exc:
        raise RunError(f"{where} is damaged: {exc}") from exc


def _read_as(where: str, kind: type[Record], plain: Any) -> Record:
    try:
        return read_as(kind, plain)
    except ValueError as exc:
        raise RunError(f"{where} is damaged: {exc}") from exc
