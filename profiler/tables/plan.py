"""What a table is wanted for: a network with widths to choose, and whole networks to fit and check it on.

A plan is a JSON file. `netadapt plan` writes one for a network it can narrow; a model file given to `profile build` becomes one
with nothing to choose.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.support.atomic import write_whole
from device_agents.support.dataclass_json import read_as, read_value
from device_agents.support.strict_json import read_json
from profiler.errors import PlanError
from profiler.formats.model_file import read_model
from profiler.layers.channels import dependent_layers, nearest, possible_widths
from profiler.layers.graph import Graph

FORMAT = 3
CHECK_NETWORKS = 12
FIT_NETWORKS = 16
WIDTH_STEP = 8
"""Channels between one width and the next: the networks planned for have widths of multiples of it."""

Networks = tuple[Mapping[str, int], ...]
"""The width of each block, of several networks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A network whose widths may be chosen, and the widths of whole networks for fitting and for checking.

    Which of its layers are measured is decided while measuring (profiler.tables.sampling): it depends on the device.
    """

    graph: Graph
    fit: Networks = ()
    check: Networks = ()
    step: int = WIDTH_STEP
    model: Path | None = None
    """The user's file this plan was made of; it is measured whole, as it is."""

    def __post_init__(self) -> None:
        if self.step < 1:
            raise PlanError(f"the plan of {self.graph.name} has a width step of {self.step}; it must be at least 1")
        for widths in (*self.fit, *self.check):
            for block, width in widths.items():
                full = self.graph.widths.get(block)
                if full is None:
                    raise PlanError(
                        f"the plan of {self.graph.name} has a width for a block {block!r} that the network does not have"
                    )
                if not 1 <= width <= full:
                    raise PlanError(f"the plan of {self.graph.name} wants {width} channels for {block}, which has {full}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "network": self.graph.to_dict(),
            "step": self.step,
            "fit": [dict(widths) for widths in self.fit],
            "check": [dict(widths) for widths in self.check],
        }


def make_plan(graph: Graph, *, step: int = WIDTH_STEP, seed: int = 1) -> Plan:
    """A plan with networks of random widths, multiples of `step`, to fit and to check on. `PlanError` without a choice."""
    networks = random_networks(graph, step, random.Random(seed), FIT_NETWORKS + CHECK_NETWORKS)
    fit = len(networks) * FIT_NETWORKS // (FIT_NETWORKS + CHECK_NETWORKS)
    return Plan(graph, tuple(networks[:fit]), tuple(networks[fit:]), step)


def possible_layers(plan: Plan) -> int:
    """How many layers a table of every width would hold."""
    widths = possible_widths(plan.graph, plan.step)
    found = {
        (follower.node.layer, form_choices)
        for follower in dependent_layers(plan.graph)
        if (form_choices := tuple(form.choices(widths, plan.step) for form in follower.axes))
    }
    return sum(math.prod(map(len, choices)) for _, choices in found)


def random_networks(graph: Graph, step: int, draws: random.Random, count: int) -> list[dict[str, int]]:
    """Distinct ones, none of them the network itself; fewer than `count` where the network has hardly any widths to choose.

    Each has a level between a quarter and all of the full widths, and its blocks lie around that level: so that they spread over
    all latencies as NetAdapt goes through them, which blocks drawn one by one would not.
    """
    choices = possible_widths(graph, step)
    found: list[dict[str, int]] = []
    for _ in range(100 * count):
        level = draws.uniform(0.25, 1.0)
        widths = {
            block: nearest(choices[block], full * min(1.0, max(0.25, level + draws.uniform(-0.25, 0.25))))
            for block, full in graph.widths.items()
        }
        if widths not in found and widths != graph.widths:
            found.append(widths)
        if len(found) == count:
            break
    return found


def write_plan(plan: Plan, path: Path) -> None:
    write_whole(path, json.dumps(plan.to_dict(), indent=1), PlanError)


def read_plan(path: Path) -> Plan:
    """A plan file, or a model file as a plan of its own. `PlanError` or `ModelError` in one sentence if it is neither."""
    if path.suffix.lower() != ".json":
        graph = read_model(path)
        return Plan(graph, model=path)
    try:
        plain = read_json(path.read_bytes())
    except OSError as exc:
        raise PlanError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise PlanError(f"{path} is not a plan: it is not JSON ({exc})") from exc
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise PlanError(f"{path} is not a plan of format {FORMAT}; make one with `netadapt plan`")
    try:
        return Plan(
            Graph.from_dict(plain["network"]),
            read_value(Networks, plain["fit"]),
            read_value(Networks, plain["check"]),
            read_as(int, plain["step"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        if isinstance(exc, PlanError) or "LayerError" in type(exc).__name__:
            raise PlanError(f"{path}: {exc}") from exc
        raise PlanError(f"{path} is damaged: {exc!r}") from exc
