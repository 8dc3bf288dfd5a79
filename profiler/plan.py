"""What to measure: a network with widths to choose, the layers it can turn into, and whole networks to check the sum on.

A plan is a JSON file. `netadapt plan` writes one for a network it can narrow; a model file given to `profile build` becomes one
with nothing to choose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from profiler.errors import PlanError
from profiler.graph import Graph, unique_layers
from profiler.layers import LayerSpec
from profiler.model_file import read_model

FORMAT = 1
FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Widths measured for each block, as parts of its full width; latency is piecewise linear between whole tiles."""
CHECK_NETWORKS = 10
FIT_NETWORKS = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """A network, the widths to measure each block at, and the widths of whole networks for fitting and for checking."""

    graph: Graph
    widths: Mapping[str, tuple[int, ...]]
    fit: tuple[Mapping[str, int], ...] = ()
    check: tuple[Mapping[str, int], ...] = ()
    model: Path | None = None
    """The user's file this plan was made of; it is measured whole, as it is."""

    def __post_init__(self) -> None:
        for block, widths in self.widths.items():
            full = self.graph.widths.get(block)
            if full is None:
                raise PlanError(f"the plan of {self.graph.name} has widths for a block {block!r} that the network does not have")
            if not widths or min(widths) < 1 or max(widths) > full:
                raise PlanError(
                    f"the plan of {self.graph.name} wants impossible widths {list(widths)} for {block}, which has {full} channels"
                )

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Every distinct layer at every combination of the widths around it, the full network's first."""
        return tuple(unique_layers(_every_layer(self.graph, self.widths)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "network": self.graph.to_dict(),
            "widths": {block: list(widths) for block, widths in self.widths.items()},
            "fit": [dict(widths) for widths in self.fit],
            "check": [dict(widths) for widths in self.check],
        }


def _every_layer(graph: Graph, widths: Mapping[str, Sequence[int]]) -> Iterator[LayerSpec]:
    """A layer depends on the few blocks that feed it and its own: only those are combined, one layer at a time."""
    yield from graph.layers
    feeders = _feeding_blocks(graph)
    for node in graph.nodes:
        blocks = sorted(feeders[node.name] & set(widths))
        for combination in product(*(widths[block] for block in blocks)):
            yield graph.layer_at(node.name, dict(zip(blocks, combination, strict=True)))


def _feeding_blocks(graph: Graph) -> dict[str, set[str]]:
    """For each node, the blocks its channel counts depend on: its own and those of its inputs' outputs."""
    outputs: dict[str, set[str]] = {name: set() for name, _ in graph.inputs}
    feeders: dict[str, set[str]] = {}
    for node in graph.nodes:
        incoming = set().union(*(outputs[name] for name in node.inputs)) if node.inputs else set()
        own = {node.block} if node.block is not None else set()
        feeders[node.name] = incoming | own
        fixed = node.layer.op in ("conv2d", "conv_transpose2d", "fully_connected")
        outputs[node.name] = own if fixed else incoming
    return feeders


def make_plan(graph: Graph, *, step: int = 8, fractions: Sequence[float] = FRACTIONS, seed: int = 1) -> Plan:
    """A sparse plan: a few widths for each block, multiples of `step` down to `step` itself, and networks of random widths."""
    widths = {block: _grid(full, step, fractions) for block, full in graph.widths.items()}
    draws = random.Random(seed)
    networks = _random_networks(graph, step, draws, FIT_NETWORKS + CHECK_NETWORKS)
    fit = len(networks) * FIT_NETWORKS // (FIT_NETWORKS + CHECK_NETWORKS)
    return Plan(graph, widths, tuple(networks[:fit]), tuple(networks[fit:]))


def _grid(full: int, step: int, fractions: Sequence[float]) -> tuple[int, ...]:
    return tuple(sorted({_at_level(full, fraction, step) for fraction in (*fractions, 0.0, 1.0)} | {full}))


def _random_networks(graph: Graph, step: int, draws: random.Random, count: int) -> list[dict[str, int]]:
    """Distinct ones, none of them the network itself; fewer than `count` where the network has hardly any widths to choose.

    Each has a level between a quarter and all of the full widths, and its blocks lie around that level: so that they spread over
    all latencies as NetAdapt goes through them, which blocks drawn one by one would not.
    """
    found: list[dict[str, int]] = []
    for _ in range(100 * count):
        level = draws.uniform(0.25, 1.0)
        widths = {
            block: _at_level(full, min(1.0, max(0.25, level + draws.uniform(-0.25, 0.25))), step)
            for block, full in graph.widths.items()
        }
        if widths not in found and widths != graph.widths:
            found.append(widths)
        if len(found) == count:
            break
    return found


def _at_level(full: int, level: float, step: int) -> int:
    """A part of the full width, as a multiple of `step`; a width below one step stays as it is."""
    return full if full <= step else min(full, max(step, round(full * level / step) * step))


def write_plan(plan: Plan, path: Path) -> None:
    text = json.dumps(plan.to_dict(), indent=1)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise PlanError(f"{path} cannot be written: {exc.strerror}") from exc


def read_plan(path: Path) -> Plan:
    """A plan file, or a model file as a plan of its own. `PlanError` or `ModelError` in one sentence if it is neither."""
    if path.suffix.lower() != ".json":
        graph = read_model(path)
        return Plan(graph, {}, model=path)
    try:
        plain = json.loads(path.read_text())
    except OSError as exc:
        raise PlanError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise PlanError(f"{path} is not a plan: it is not JSON ({exc})") from exc
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise PlanError(f"{path} is not a plan of format {FORMAT}; make one with `netadapt plan`")
    try:
        return Plan(
            Graph.from_dict(plain["network"]),
            {str(block): tuple(int(width) for width in widths) for block, widths in plain["widths"].items()},
            tuple(_widths(item) for item in plain.get("fit", ())),
            tuple(_widths(item) for item in plain.get("check", ())),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        if isinstance(exc, PlanError) or "LayerError" in type(exc).__name__:
            raise PlanError(f"{path}: {exc}") from exc
        raise PlanError(f"{path} is damaged: {exc!r}") from exc


def _widths(plain: Mapping[str, Any]) -> dict[str, int]:
    return {str(block): int(width) for block, width in plain.items()}
