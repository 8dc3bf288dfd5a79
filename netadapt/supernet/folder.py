"""A super-network on disk.

  supernet.json     what it is made of and was trained on (SuperNetwork)
  graph.json        the network and its blocks
  checkpoint.pt     the state of a training that is not finished
  weights.pt        the trained weights, with batch normalisation's statistics at full width
  trained.json      what came of the training (TrainedNetwork); with it the super-network can be used
  shapes.jsonl      a line for each random shape that was trained by itself, to compare its score with the super-network's

One process at a time may write, as in a run folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from device_agents.support.atomic import writing
from device_agents.support.dataclass_json import read_as
from device_agents.support.jsonl import append_line, drop_torn_line, read_lines
from device_agents.support.reading import read_bytes
from netadapt.errors import RunError
from netadapt.runs.records import SuperNetworkFacts
from netadapt.runs.run_folder import (
    LOCK,
    LockedFolder,
    lock_folder,
    parse,
    read_graph,
    read_text,
    refuse_other,
    without,
    write_json,
)  # fmt: skip
from netadapt.search.descent import possible_choices
from netadapt.settings import RunSettings, values_of
from netadapt.training.types import Scores
from profiler.layers.graph import Graph

FORMAT = 4
RECALIBRATION_BATCHES = 4
"""Batches of 64 images that a sliced network's batch normalisation is estimated from, by default."""
FREE_TO_CHANGE = ("data.workers", "training.threads_original")
"""Settings that may differ when a training goes on."""
_SHARED = ("network", "data.source", "data.holdout_fraction", "data.mean", "data.std", "training.task", "training.scores", "seed")
"""The settings that a run shares with its super-network; with others, its holdout would not be new to it."""


@dataclass(frozen=True, slots=True)
class SuperNetwork:
    """What a super-network is made of and was trained on."""

    settings: RunSettings
    """Of the search only the step and the least of the widths."""
    created_utc: str
    widths: Mapping[str, tuple[int, ...]]
    """The widths that each block is trained at, in ascending order; a block that is not named keeps its full width. 0 is the width
    of a branch that is removed."""
    order: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The positions of blocks, the most important first; a block that is not named has them in their own order."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of this project and of the packages that it computes with."""
    bypass: bool = False
    """True if branches of the network can be removed, as `--bypass` asks for."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A super-network after its training. Scores are on the holdout."""

    steps: int
    seconds: float
    """The time of all its training steps."""
    widest: Scores
    narrowest: Scores
    """With every block at its least width."""


@dataclass(frozen=True, slots=True)
class TrainedShape:
    """A network of random widths, judged in the super-network and after a training of its own. Accuracies are on the holdout."""

    number: int
    widths: Mapping[str, int]
    macs: int
    seconds: float
    """The time of its score in the super-network."""
    supernet_accuracy: float
    trained_accuracy: float
    steps: int
    """The steps of its own training."""
    training: str
    """The stage of that training, with all its settings."""


class SuperNetworkFolder(LockedFolder):
    """An open super-network. Make one with `create` or `open`."""

    def __init__(self, path: Path, lock: int | None) -> None:
        """`RunError` if the folder is damaged, or of another version."""
        super().__init__(path, lock)
        text = read_text(path / "supernet.json")
        if (found := parse(str(path / "supernet.json"), dict, text).get("format")) != FORMAT:
            raise RunError(f"{path} has super-network format {found}, this version reads {FORMAT}; train the super-network again")
        self.about = parse(str(path / "supernet.json"), SuperNetwork, text)
        self.graph = read_graph(path / "graph.json")

    @classmethod
    def create(cls, path: Path, about: SuperNetwork, graph: Graph, *, resume: bool) -> Self:
        """Begin a super-network or, with `resume`, go on with the one that is there, whose settings must be the same.

        `RunError` if the folder holds something else, is in use, or was begun with other settings or another network.
        """
        refuse_unless_free(path, resume=resume)
        if is_supernet(path):
            folder = cls.open(path, write=True)
            try:
                one, two = (
                    {"--bypass": each.bypass} | without(values_of(each.settings), FREE_TO_CHANGE) for each in (folder.about, about)
                )
                refuse_other(f"{path} was begun", one, two, "another --out")
                if graph.to_dict() != folder.graph.to_dict():
                    raise RunError(f"{path} was begun with another {folder.graph.name} than this {graph.name}; use another --out")
            except BaseException:
                folder.close()
                raise
            return folder
        with writing(path, RunError):
            path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path)
        try:
            write_json(path / "graph.json", graph.to_dict())
            write_json(path / "supernet.json", {"format": FORMAT, **asdict(about)})  # last: with it the folder is a super-network
            return cls(path, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open a super-network that exists. `RunError` if the folder is none, is damaged, or another process writes to it."""
        if not is_supernet(path):
            raise RunError(f"{path} is no super-network: it has no supernet.json; `netadapt supernet` makes one")
        lock = lock_folder(path) if write else None
        try:
            if write:
                drop_torn_line(path / "shapes.jsonl")
            return cls(path, lock)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise

    @property
    def weights(self) -> Path:
        return self.path / "weights.pt"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def trained(self) -> TrainedNetwork | None:
        """What came of the training; None before its end."""
        path = self.path / "trained.json"
        return parse(str(path), TrainedNetwork, read_text(path)) if path.exists() else None

    def require_trained(self) -> TrainedNetwork:
        """The same; `RunError` before its end."""
        if (trained := self.trained) is None:
            raise RunError(f"the training of {self.path} is not finished; go on with it by `netadapt supernet` with --resume")
        return trained

    def write_trained(self, trained: TrainedNetwork) -> None:
        write_json(self.path / "trained.json", asdict(trained))

    @property
    def shapes(self) -> tuple[TrainedShape, ...]:
        """The random shapes that were trained by themselves."""
        path = self.path / "shapes.jsonl"
        return tuple(read_as(TrainedShape, plain) for _, plain in read_lines(path, RunError)) if path.exists() else ()

    def add_shape(self, shape: TrainedShape) -> None:
        path = self.path / "shapes.jsonl"
        with writing(path, RunError), path.open("ab") as file:
            append_line(file.fileno(), asdict(shape))
            os.fsync(file.fileno())

    @property
    def sha256(self) -> str:
        """Of the trained weights."""
        return hashlib.sha256(read_bytes(self.weights, RunError)).hexdigest()


def is_supernet(path: Path) -> bool:
    """True if the folder holds a super-network, trained or not."""
    return (path / "supernet.json").is_file()


def refuse_unless_free(path: Path, *, resume: bool) -> None:
    """`RunError` if no super-network can begin in this folder or, with `resume`, go on."""
    if is_supernet(path):
        if not resume:
            raise RunError(f"{path} holds a super-network already; go on with it with --resume, or choose another --out")
    elif path.exists() and not (path.is_dir() and all(item.name in (LOCK, "graph.json") for item in path.iterdir())):
        raise RunError(f"{path} is not empty and no super-network; choose another --out")


def supernet_facts(path: Path, settings: RunSettings) -> SuperNetworkFacts:
    """What a run with these settings records of the super-network that its candidates are judged in.

    `RunError` if the super-network is another network's, has learnt from other images, or was not trained at the run's widths.
    """
    with SuperNetworkFolder.open(path) as folder:
        folder.require_trained()
        about, trained = folder.about, folder.about.settings
        one, two = (_shared(each) for each in (trained, settings))
        refuse_other(f"{path} was trained", one, two, "another super-network")
        digests = [known.digest for known in (trained.data.known, settings.data.known) if known is not None]
        if len(set(digests)) > 1:
            raise RunError(f"{path} was trained on other images than those of {settings.data.source} are now; train it again")
        search, widths_of = settings.search, trained.search
        if search.width_step % widths_of.width_step or search.min_width < widths_of.min_width:
            raise RunError(
                f"{path} was trained with --width-step {widths_of.width_step} and --min-width {widths_of.min_width}; the run can "
                f"have a multiple of that step and no smaller width, not {search.width_step} and {search.min_width}"
            )
        possible = possible_choices(folder.graph, search.width_step, search.min_width)
        widths = {block: tuple(width for width in possible[block] if width in choices) for block, choices in about.widths.items()}
        return SuperNetworkFacts(str(path.resolve()), folder.sha256, widths, about.order)


def _shared(settings: RunSettings) -> dict[str, Any]:
    values = values_of(settings)
    return {name: value for name, value in values.items() if any(name == part or name.startswith(f"{part}.") for part in _SHARED)}
