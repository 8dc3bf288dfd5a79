"""An accelerator with what is assumed of networks on it: batch, bits and zeros. It computes the energy and latency of any layer.

`model:eyeriss` is the address of one; `model:eyeriss@batch=1,bits=8,input_density=0.6` says more, `model:eyeriss@engine=zigzag`
takes another engine than the one that the description names, and `model:./mine.toml` names a description of a user.

Layers are those of the network itself, with their activations fused. Layers without multiply-accumulates, and operators whose work
is not known, cost the movement of their data, and flattening costs nothing. All values are for one inference: those of a batch are
divided by it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from device_agents.support.text import did_you_mean
from profiler.errors import HardwareError, TableError
from profiler.layers.layer import ITEM_BYTES, WEIGHTED_OPS, LayerSpec
from profiler.modelled.densities import Densities, read_densities
from profiler.modelled.engines import engine_of, version_of
from profiler.modelled.hardware import DATA_TYPES, Hardware, HardwareFile, open_hardware, parse_hardware, shipped_hardware
from profiler.modelled.work import Array, Assumptions, Costs, Geometry, Work, moved, stored_bits, total_of

SCHEME = "model:"
FREE_OPS = ("flatten",)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer, for one inference."""

    latency_ms: float
    energy_mj: float
    compute_mj: float
    overhead_mj: float
    """Of clock and control."""
    data_mj: Mapping[str, Mapping[str, float]]
    """By memory level, from the outside in, and data type."""
    dram_bytes: float
    active_units: float
    macs_per_cycle: Mapping[str, float]
    """What is left of the peak after each limit in turn; empty for a layer without multiply-accumulates."""
    bound: str
    """The limit that costs most."""
    mapping: str


@dataclass(frozen=True, slots=True)
class Model:
    """Computes costs of layers; what was computed is kept."""

    file: HardwareFile
    assumptions: Assumptions
    _known: dict[tuple[Geometry, Assumptions], dict[tuple[float, float, float], tuple[float, float]]]
    """Latency in ms and energy in mJ by geometry and assumptions, then by groups, inputs and outputs of a group."""
    densities: Densities | None = None
    """Of the layers of one network, which take the place of those in `assumptions`."""

    @property
    def hardware(self) -> Hardware:
        return self.file.hardware

    @property
    def vouched(self) -> bool:
        """True if the description is of this package and is checked against published energies, not only against rates."""
        return self.file.shipped and any(figure.what.endswith("_energy") for figure in self.hardware.published)

    def sentence(self) -> str:
        """What was modelled, for people."""
        said = self.assumptions
        zeros = ", ".join(
            f"{100 * density:g} % of {name}s not zero"
            for name, density in zip(DATA_TYPES, said.densities, strict=True)
            if density < 1
        )
        images = f"{said.batch} image{'s' if said.batch > 1 else ''} at a time"
        engine = f"{self.hardware.engine} {version_of(self.hardware)}"
        return (
            f"{self.hardware.name} (sha256 {self.file.sha256[:12]}), engine {engine}, {images}, at most {said.bits} bits"
            f"{f', {zeros}' if zeros else ''}{f', {self.densities.sentence()}' if self.densities else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """What a table keeps: the whole description, and the version of the engine."""
        return {
            "hardware": self.hardware.name,
            "sha256": self.file.sha256,
            "engine": self.hardware.engine,
            "engine_version": version_of(self.hardware),
            **asdict(self.assumptions),
            "text": self.file.text,
            **({} if self.densities is None else {"densities": self.densities.to_dict()}),
        }

    def assuming(self, assumptions: Assumptions) -> Model:
        """The same hardware with other batch, bits and zeros. `HardwareError` if it cannot process these."""
        return _checked(self.file, assumptions)

    def with_densities(self, densities: Densities | None) -> Model:
        """The same hardware with these zeros of the layers that they name."""
        return replace(self, densities=densities, _known={})

    def cost(self, layer: LayerSpec, node: str = "") -> LayerCost:
        """The costs of a layer; `node` is its name in the network, by which its zeros are known. `HardwareError` if it cannot run
        there."""
        given = [np.array([float(shape[-1])]) for shape in layer.inputs]
        costs = self._costs(layer, given, np.array([float(layer.out_channels)]), node)
        hardware, batch, whole = self.hardware, self.assumptions.batch, total_of(self.hardware, costs)
        to_mj = 1e-9 / batch
        time_ns, macs = float(whole.time_ns[0]), float(costs.macs[0])
        steps: dict[str, float] = {}
        bound = "data movement"
        if macs and costs.cycles[0]:  # where zeros are skipped, nothing may be left to do
            peak = hardware.array.macs_per_cycle * (1 if hardware.crossbar else hardware.units)
            share = float(costs.active_units[0]) / hardware.units
            computing = macs / float(costs.cycles[0])
            steps = {"units": float(peak), "array shape": peak * share, "whole passes": computing}
            if hardware.crossbar is not None:  # arrays of cells have no peak but what they do
                steps = {"conversion": computing}
            steps["DRAM bandwidth"] = macs / (time_ns * hardware.clock_mhz / 1e3)
            names = list(steps)
            lost = {after: steps[after] / steps[before] for before, after in pairwise(names) if steps[before]}
            worst = min(lost, key=lambda name: lost[name])
            bound = worst if lost[worst] < 0.999 else names[0]
        return LayerCost(
            time_ns / 1e6 / batch,
            float(whole.energy_pj[0]) * to_mj,
            float(costs.compute_pj[0]) * to_mj,
            float(whole.overhead_pj[0]) * to_mj,
            {
                level: {name: float(costs.data_pj[place, kind, 0]) * to_mj for kind, name in enumerate(DATA_TYPES)}
                for place, level in enumerate(costs.levels)
            },
            float(costs.dram_bytes.sum()) / batch,
            float(costs.active_units[0]),
            steps,
            bound,
            costs.mapping,
        )

    def many(self, layer: LayerSpec, given: Sequence[Array], outputs: Array, node: str = "") -> tuple[Array, Array]:
        """Latencies in ms and energies in mJ of the layer with other channels of its inputs and of its output, as arrays."""
        if layer.op not in WEIGHTED_OPS or layer.opaque is not None or len(layer.inputs) > 1:
            return self._priced(self._costs(layer, given, outputs, node))
        work = self._work(layer, given[0], outputs, node)
        known = self._known.setdefault((work.geometry, work.assumptions), {})
        wanted = list(zip(work.groups.tolist(), work.inputs.tolist(), work.outputs.tolist(), strict=True))
        if missing := sorted({counts for counts in wanted if counts not in known}):
            groups, inputs, filters = np.array(missing).T
            priced = self._priced(
                engine_of(self.hardware)(replace(work, groups=groups, inputs=inputs, outputs=filters), self.hardware)
            )
            known |= zip(missing, zip(*(values.tolist() for values in priced), strict=True), strict=True)
        latency_ms, energy_mj = np.array([known[counts] for counts in wanted]).T
        return latency_ms, energy_mj

    def _priced(self, costs: Costs) -> tuple[Array, Array]:
        whole = total_of(self.hardware, costs)
        return whole.time_ns / 1e6 / self.assumptions.batch, whole.energy_pj / 1e9 / self.assumptions.batch

    def _costs(self, layer: LayerSpec, given: Sequence[Array], outputs: Array, node: str) -> Costs:
        if layer.op not in WEIGHTED_OPS or layer.opaque is not None:
            return self._movement(layer, given, outputs, node, layer.inputs)
        costs = engine_of(self.hardware)(self._work(layer, given[0], outputs, node), self.hardware)
        if len(given) > 1:  # a shortcut is read and added to the output
            moves = self._movement(layer, given[1:], np.zeros_like(outputs), node, layer.inputs[1:])
            data_pj = costs.data_pj.copy()
            data_pj[:2] += moves.data_pj
            costs = replace(costs, data_pj=data_pj, dram_bytes=costs.dram_bytes + moves.dram_bytes)
        return costs

    def assumed(self, layer: LayerSpec, node: str = "") -> Assumptions:
        """What is assumed of a layer: no more bits than it has, and its own zeros where they are known."""
        bits = min(self.assumptions.bits, 8 * ITEM_BYTES.get(layer.dtype, 4))
        found = self.densities.layers.get(node) if self.densities is not None else None
        if found is None:
            return replace(self.assumptions, bits=bits)
        return Assumptions(self.assumptions.batch, bits, found.input, found.weight, found.output)

    def work(self, layer: LayerSpec, node: str = "") -> Work | None:
        """A layer as engines are asked for it; None for one without multiply-accumulates that are known."""
        if layer.op not in WEIGHTED_OPS or layer.opaque is not None:
            return None
        return self._work(layer, np.array([float(layer.in_channels)]), np.array([float(layer.out_channels)]), node)

    def _work(self, layer: LayerSpec, inputs: Array, outputs: Array, node: str) -> Work:
        groups = np.full_like(inputs, layer.groups)
        if layer.op == "depthwise_conv2d":
            groups = inputs
        batch = self.assumptions.batch * layer.inputs[0][0]
        if layer.op == "fully_connected":
            positions = math.prod(layer.inputs[0][1:-1])
            geometry = Geometry(batch, 1, positions, 1, positions, 1, 1)
        else:
            _, in_height, in_width, _ = layer.inputs[0]
            _, out_height, out_width, _ = layer.output
            if layer.op == "conv_transpose2d":  # each input pixel is multiplied with the whole kernel
                geometry = Geometry(batch, in_height, in_width, in_height, in_width, *layer.kernel)
            else:
                geometry = Geometry(
                    batch, in_height, in_width, out_height, out_width, *layer.kernel, *layer.stride, *layer.dilation
                )  # fmt: skip
        return Work(geometry, groups, inputs / groups, outputs / groups, self.assumed(layer, node))

    def _movement(
        self, layer: LayerSpec, given: Sequence[Array], outputs: Array, node: str, shapes: Sequence[tuple[int, ...]]
    ) -> Costs:
        """Inputs are read and the output is written once, from and to the memory outside unless the hardware keeps activations.

        A value passes along the longer side of the array in each cycle.
        """
        hardware, batch, assumptions = self.hardware, self.assumptions.batch, self.assumed(layer, node)
        nothing = np.zeros_like(outputs)
        moving = 0 if layer.op in FREE_OPS else batch
        pairs = zip(shapes, given, strict=True)
        inputs = sum((moving * math.prod(shape[:-1]) * channels for shape, channels in pairs), nothing)
        written = moving * math.prod(layer.output[:-1]) * outputs
        weights = nothing + (layer.weight_bytes / ITEM_BYTES.get(layer.dtype, 4) if layer.opaque is not None else 0)
        values = [inputs, weights, written]
        kept = hardware.memory.keeps_activations & ((inputs + written) * assumptions.bits / 8 <= hardware.memory.buffer_bytes)
        outside = [np.where(kept, 0, inputs), weights, np.where(kept, 0, written)]
        work = Work(Geometry(1, 1, 1, 1, 1, 1, 1), nothing, nothing, nothing, assumptions)
        prices = [[hardware.energy.dram] * 3, [hardware.energy.buffer] * 3]
        data_pj = moved(work, hardware, ("dram", "buffer"), [outside, values], prices)
        bits = [stored_bits(hardware, assumptions, kind, "dram") for kind in range(3)]
        dram_bytes = np.stack([count * each / 8 for count, each in zip(outside, bits, strict=True)])
        at_once = max(hardware.array.rows, hardware.array.cols) if hardware.crossbar is None else hardware.crossbar.cols
        return Costs(("dram", "buffer"), data_pj, nothing, (inputs + written) / at_once, dram_bytes, nothing, nothing)


SETTINGS = {field.name: field.type for field in fields(Assumptions)}


def is_model(address: str) -> bool:
    """True for the address of a modelled accelerator among those of devices."""
    return address.startswith(SCHEME)


def open_model(address: str, densities: Path | None = None) -> Model:
    """The model at an address such as `model:eyeriss@batch=1`, with the zeros in a file of densities if one is given.

    `HardwareError` in one sentence if there is no such model or no such file.
    """
    name, at, rest = address.removeprefix(SCHEME).partition("@")
    file = open_hardware(name)
    given: dict[str, Any] = {"batch": file.hardware.batch, "bits": file.hardware.word_bits}
    for item in rest.split(",") if at else ():
        key, _, text = item.partition("=")
        if key == "engine":
            file = _with_engine(file, text)
            continue
        if key not in SETTINGS:
            raise HardwareError(f"{address}: there is no setting {key!r}; {did_you_mean(key, (*SETTINGS, 'engine'))}")
        try:
            given[key] = float(text) if key.endswith("density") else int(text)
        except ValueError as exc:
            raise HardwareError(f"{address}: {key} takes a number, such as {key}=1, not {text!r}") from exc
    return _checked(file, Assumptions(**given)).with_densities(None if densities is None else read_densities(densities))


def _with_engine(file: HardwareFile, engine: str) -> HardwareFile:
    """The description as another engine takes it."""
    return replace(file, hardware=replace(file.hardware, engine=engine))


def _checked(file: HardwareFile, assumptions: Assumptions) -> Model:
    if not 1 <= assumptions.batch <= 4096:
        raise HardwareError(f"{file.hardware.name} can process 1 to 4096 images at a time, not {assumptions.batch}")
    if not 1 <= assumptions.bits <= file.hardware.word_bits:
        raise HardwareError(
            f"{file.hardware.name} has words of {file.hardware.word_bits} bits; bits={assumptions.bits} is impossible"
        )
    if not all(0 <= density <= 1 for density in assumptions.densities):
        raise HardwareError("a density is the share of values that are not zero, from 0 to 1")
    engine_of(file.hardware)
    return Model(file, assumptions, {})


def model_of(kept: Mapping[str, Any]) -> Model:
    """The inverse of `Model.to_dict`. `TableError` if this version's engine is another, or for what is no model."""
    try:
        assumptions = tuple((name, kept[name]) for name in SETTINGS)
        densities = json.dumps(kept["densities"]) if kept.get("densities") else ""
        return _model_of(kept["text"], kept["engine"], kept["engine_version"], assumptions, densities)
    except (HardwareError, KeyError, TypeError, ValueError) as exc:
        raise TableError(f"the table's description of its hardware is damaged: {exc}; build it again") from exc


@lru_cache(maxsize=16)
def _model_of(text: str, engine: str, version: int, assumptions: tuple[tuple[str, Any], ...], densities: str) -> Model:
    """Cached, so that all who price by one table share what was computed."""
    file = next((shipped for shipped in shipped_hardware().values() if shipped.text == text), None) or parse_hardware(
        text, "the table's description of its hardware"
    )
    if file.hardware.engine != engine:
        file = _with_engine(file, engine)
    model = _checked(file, Assumptions(**dict(assumptions)))
    if densities:
        model = model.with_densities(Densities.from_dict(json.loads(densities)))
    if version_of(file.hardware) != version:
        raise TableError(
            f"the table was computed by version {version} of the engine {file.hardware.engine}, this is version "
            f"{version_of(file.hardware)}; build it again with `profile build`"
        )
    return model
