"""Energy-aware pruning of a network, round by round, beside pruning by magnitude (Yang, Chen and Sze, CVPR 2017).

In a round, layers come in the order of their modelled energy, the most expensive first, while the network is least damaged. Weights
of each become zero until its outputs would change by more than the round allows (netadapt.weight_pruning.elimination). Then the
whole network is fine-tuned, with zeros kept. The next round allows more. Rounds end when the network has lost too much accuracy on
the holdout, or when its energy is as low as wanted. Afterwards a second copy of the network is pruned by magnitude to as many
weights in each round, with the same fine-tune. Test images judge the networks that are reported, and choose none.

  settings.json      what was asked
  original.pt        the weights before pruning; energy-aware-01.pt and so on: those after each round
  rounds.jsonl       a line for each round, once its weights are there; an interrupted command goes on behind the last of them
  result.json        the networks that are reported
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from device_agents.support.atomic import write_whole, writing
from device_agents.support.dataclass_json import read_as
from device_agents.support.jsonl import append_line, drop_torn_line, read_lines
from device_agents.support.strict_json import read_json
from netadapt.errors import NetworkError, RunError, SettingsError
from netadapt.pruning.couplings import WEIGHTED
from netadapt.pruning.pruner import sample
from netadapt.runs.measure import EXPORTERS
from netadapt.training.checkpoint import load_weights, save_weights
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import score, train
from netadapt.training.trees import Inputs
from netadapt.training.types import Part
from netadapt.weight_pruning.compressed_size import compressed
from netadapt.weight_pruning.densities import measured_densities
from netadapt.weight_pruning.elimination import eliminate, observed
from netadapt.weight_pruning.magnitude import prune_by_magnitude
from netadapt.weight_pruning.source import Source
from profiler.modelled.densities import Densities, write_densities
from profiler.modelled.model import Model, open_model
from profiler.progress import ProgressReporter

FORMAT = 1
ENERGY_AWARE, MAGNITUDE = "energy-aware", "magnitude"


@dataclass(frozen=True, slots=True)
class WeightPruning:
    """How weights are pruned. `SettingsError` if a number is out of its range."""

    device: str
    """The address of the modelled accelerator whose energy orders the layers, such as model:eyeriss_v2."""
    fine_tune: TrainSettings
    """Of each round."""
    accuracy_loss: float = 0.01
    """What the network may lose on the holdout, in the unit of the task's accuracy."""
    energy: float | None = None
    """The share of the original's energy that is low enough; None to prune as long as the accuracy allows."""
    rounds: int = 8
    first_error: float = 0.01
    """By how much a layer's outputs may change in the first round, as a share of their variance, ..."""
    growth: float = 1.6
    """... and the factor to the next round."""
    images: int = 256
    """Training images that layers are observed on."""
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.first_error < 1 or self.growth < 1 or self.rounds < 1 or self.images < 1:
            raise SettingsError(
                "the error of a round is a share below 1 that does not shrink, and there is at least one round and image"
            )
        if self.accuracy_loss < 0 or (self.energy is not None and not 0 < self.energy < 1):
            raise SettingsError("the accuracy that may be lost is at least 0, and the energy a share below 100 %")


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one method; round 0 is the original."""

    method: str
    number: int
    error: float
    """By how much a layer's outputs were allowed to change."""
    accuracy: float
    """On the holdout, after the fine-tune."""
    nonzero: int
    """Weights of convolutions and linear layers that are not zero."""
    energy_mj: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class PrunedNetwork:
    """A network that is reported."""

    name: str
    """For people."""
    round: Round
    weights: str
    """The name of the file."""
    accuracy: float
    """On the test images."""
    size_bytes: int
    """As Deep Compression stores it, with Huffman codes."""
    bytes_without_huffman: int
    shared_accuracy: float
    """On the test images, with the shared values that are stored in place of the weights."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The networks side by side: the original, the one that was pruned by energy, and those by magnitude."""

    hardware: str
    """The sentence of the model."""
    weights: int
    """Of convolutions and linear layers, zeros included."""
    original_bytes: int
    networks: tuple[PrunedNetwork, ...]
    rounds: tuple[Round, ...]
    files: tuple[str, ...] = field(default=())
    """Model files that were exported."""


def prune_weights(
    source: Source,
    asked: WeightPruning,
    out: Path,
    progress: ProgressReporter,
    *,
    resume: bool = False,
    formats: Sequence[str] = (),
) -> Pruned:
    """Prune a copy of the network and write all rounds into the folder; `formats` are those that the last network is exported to.

    `HardwareError` for an unknown accelerator, `NetworkError` if nothing can be pruned, and `RunError` for a folder that holds
    something else or, with `resume`, was begun with other settings.
    """
    work = _Work(
        source,
        asked,
        out,
        progress,
        open_model(asked.device),
        sample(source.dataset.train, asked.images, asked.seed),
    )
    if not work.layers(source.model):
        raise NetworkError(f"{source.name} has no convolution or linear layer whose weights can be pruned")
    known = _begun(out, source, asked, resume)
    _make_original(source, asked.seed, out / "original.pt", progress)
    if not known:
        known = [work.judged(source.model, ENERGY_AWARE, 0, 0.0)]
        _record(out, known[0])
    first = known[0]
    limit = first.accuracy - asked.accuracy_loss
    by_energy = [item for item in known if item.method == ENERGY_AWARE]
    while not _ended(by_energy, asked, limit):
        by_energy.append(work.round(by_energy[-1], ENERGY_AWARE, None))
    by_magnitude = [first, *(item for item in known if item.method == MAGNITUDE)]
    for item in by_energy[len(by_magnitude) :]:
        by_magnitude.append(work.round(by_magnitude[-1], MAGNITUDE, item.nonzero))
    return _written(work, by_energy, by_magnitude, limit, formats)


def _make_original(source: Source, seed: int, path: Path, progress: ProgressReporter) -> None:
    """Give the network the weights in this file, or train it, unless it is trained, and write them there."""
    if path.exists():
        load_weights(source.model, path)
        return
    if not source.trained:
        training, part = source.recipe.from_scratch, source.dataset.train
        progress.begin(f"training of {source.name}", training.steps_for(len(part)))
        train(
            source.model, part, training, seed=seed, progress=lambda _done, _all, loss: progress.advance(f"loss {loss:.3f}")
        )  # fmt: skip
    save_weights(source.model, path)


def _written(
    work: _Work, by_energy: Sequence[Round], by_magnitude: Sequence[Round], limit: float, formats: Sequence[str]
) -> Pruned:
    """Choose the networks that are reported among those of at least this accuracy, score them, and write what is kept of them."""
    source, out, first = work.source, work.out, by_energy[0]
    best = max((item for item in by_energy if item.accuracy >= limit), key=lambda item: item.number)
    equal = by_magnitude[best.number]
    good = max((item for item in by_magnitude if item.accuracy >= limit), key=lambda item: item.number)
    reported = {"original": first}
    if best.number:
        reported |= {"by energy": best, "by magnitude, as many weights": equal}
    if good.number not in (0, equal.number):
        reported["by magnitude, within the accuracy"] = good
    work.progress.begin("scoring and compressing networks", len(reported))
    networks = tuple(work.reported(name, item) for name, item in reported.items())
    model = work.model(best)
    write_densities(work.densities(model), out / "densities.json")
    files = [out / f"pruned.{each}" for each in formats]
    for path in files:
        EXPORTERS[path.suffix.lstrip(".")](model, source.options.input_shapes, path)
    pruned = Pruned(
        work.hardware.sentence(), sum(layer.get_parameter("weight").numel() for layer in work.layers(model).values()),
        compressed(source.model).original_bytes, networks, (*by_energy, *by_magnitude[1:]), tuple(map(str, files)),
    )  # fmt: skip
    write_whole(out / "result.json", json.dumps(asdict(pruned), indent=1) + "\n", RunError)
    return pruned


@dataclass(frozen=True, slots=True)
class _Work:
    source: Source
    asked: WeightPruning
    out: Path
    progress: ProgressReporter
    hardware: Model
    inputs: Inputs

    def layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers whose weights are pruned, by name; those that share a weight are left alone."""
        found = {name: module for name, module in model.named_modules() if isinstance(module, WEIGHTED)}
        owners = [id(module.get_parameter("weight")) for module in found.values()]
        named = {node.name for node in self.source.graph.nodes}
        return {
            name: module
            for name, module in found.items()
            if name in named
            and owners.count(id(module.get_parameter("weight"))) == 1
            and not (isinstance(module, _ConvTransposeNd) and module.groups > 1)
        }

    def model(self, item: Round) -> nn.Module:
        """The network after this round."""
        model = deepcopy(self.source.model)
        load_weights(model, self.out / _weights(item.method, item.number))
        return model.eval()

    def densities(self, model: nn.Module) -> Densities:
        return measured_densities(model, self.source.graph, self.inputs, self.source.name, self.source.dataset.name)

    def judged(self, model: nn.Module, method: str, number: int, error: float) -> Round:
        """The network's scores on the holdout and its energy with its own zeros."""
        priced = self.hardware.with_densities(self.densities(model))
        costs = [priced.cost(node.layer, node.name) for node in self.source.graph.nodes]
        nonzero = sum(int(torch.count_nonzero(layer.get_parameter("weight"))) for layer in self.layers(model).values())
        accuracy = score(model, self.source.dataset.holdout).accuracy
        energy_mj, latency_ms = sum(cost.energy_mj for cost in costs), sum(cost.latency_ms for cost in costs)
        return Round(method, number, error, accuracy, nonzero, energy_mj, latency_ms)

    def round(self, before: Round, method: str, count: int | None) -> Round:
        """Prune, fine-tune and record the next round; `count` weights stay where they go by magnitude."""
        number, asked = before.number + 1, self.asked
        error = min(0.99, asked.first_error * asked.growth ** (number - 1))
        model = self.model(before)
        layers = self.layers(model)
        if count is None:
            reference, priced = deepcopy(model), self.hardware.with_densities(self.densities(model))
            energy_mj = {node.name: priced.cost(node.layer, node.name).energy_mj for node in self.source.graph.nodes}
            self.progress.begin(f"round {number} by energy", len(layers))
            for name in sorted(layers, key=lambda name: -energy_mj[name]):
                moments = observed(reference, model, name, self.inputs)
                if moments is not None:
                    eliminate(layers[name], reference.get_submodule(name), moments, error)
                self.progress.advance(name)
        else:
            prune_by_magnitude(list(layers.values()), count)
        name = f"fine-tune of round {number}, {method}"
        fine_tune(
            model, list(layers.values()), self.source.dataset.train, asked.fine_tune, asked.seed + number, name, self.progress
        )
        done = self.judged(model, method, number, error)
        save_weights(model, self.out / _weights(method, number))
        _record(self.out, done)
        return done

    def reported(self, name: str, item: Round) -> PrunedNetwork:
        """The network's figures on the test images, as it is and compressed."""
        model, test = self.model(item), self.source.dataset.test
        accuracy, small = score(model, test).accuracy, compressed(model)
        small.load_into(model)
        shared = score(model, test).accuracy
        self.progress.advance(name)
        return PrunedNetwork(
            name, item, _weights(item.method, item.number), accuracy, small.size_bytes, small.bytes_without_huffman, shared
        )  # fmt: skip


def fine_tune(
    model: nn.Module,
    layers: Sequence[nn.Module],
    part: Part,
    settings: TrainSettings,
    seed: int,
    name: str,
    progress: ProgressReporter,
) -> None:
    """Train the model in place; weights of these layers that are zero stay zero."""
    weights = [layer.get_parameter("weight") for layer in layers]
    masks = [weight.detach() != 0 for weight in weights]
    progress.begin(name, settings.steps_for(len(part)))

    def keep_zeros() -> None:
        with torch.no_grad():
            for place, weight in enumerate(weights):
                masks[place] = masks[place].to(weight.device)
                weight.mul_(masks[place])

    def after_a_step(_done: int, _all: int, loss: float) -> None:
        keep_zeros()
        progress.advance(f"loss {loss:.3f}")

    # nothing is distilled here, also where the run's own fine-tune is
    train(model, part, replace(settings, distill=0.0), seed=seed, progress=after_a_step)
    keep_zeros()  # of averaged weights, too


def _ended(rounds: Sequence[Round], asked: WeightPruning, limit: float) -> bool:
    """True if there is no further round after these."""
    last = rounds[-1]
    low = asked.energy is not None and last.energy_mj <= asked.energy * rounds[0].energy_mj
    return low or last.number >= asked.rounds or last.accuracy < limit


def _weights(method: str, number: int) -> str:
    """The name of the file of weights after a round."""
    return f"{method}-{number:02d}.pt" if number else "original.pt"


def check_folder(out: Path, resume: bool) -> None:
    """`RunError` if the folder holds something else, or a pruning that is not to be continued."""
    there = (out / "settings.json").exists()
    if out.exists() and not there and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} holds something else; give another folder with --out")
    if there and not resume:
        raise RunError(f"{out} holds a pruning that was begun already; go on with --resume, or give another folder with --out")


def _begun(out: Path, source: Source, asked: WeightPruning, resume: bool) -> list[Round]:
    """The rounds that are there already, of a folder that is made unless it is there."""
    weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in source.model.state_dict().values())).hexdigest()
    settings = {
        "format": FORMAT, "network": source.name, "data": source.dataset.name, "nodes": len(source.graph.nodes),
        "parameters": source.graph.parameters, "weights": weights[:16], **asdict(asked),
    }  # fmt: skip
    check_folder(out, resume)
    path = out / "settings.json"
    if not path.exists():
        with writing(out, RunError):
            out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(settings, indent=1) + "\n", RunError)
        return []
    try:
        before = read_json(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise RunError(f"{path} cannot be read: {exc}; give another folder with --out") from exc
    wanted = json.loads(json.dumps(settings))
    if differing := [name for name in wanted if before.get(name) != wanted[name]]:
        raise RunError(
            f"{out} was begun with another {differing[0]} ({before.get(differing[0])}, now {wanted[differing[0]]}); give the same "
            "options, or another folder with --out"
        )
    lines = out / "rounds.jsonl"
    drop_torn_line(lines)
    try:
        return [read_as(Round, value) for _, value in read_lines(lines, RunError)] if lines.exists() else []
    except ValueError as exc:
        raise RunError(f"{lines} is damaged: {exc}; give another folder with --out") from exc


def _record(out: Path, done: Round) -> None:
    path = out / "rounds.jsonl"
    with writing(path, RunError):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            append_line(file, asdict(done))
            os.fsync(file)
        finally:
            os.close(file)
