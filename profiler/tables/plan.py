"""Build plans: a network whose widths can be chosen, and whole networks for the fit and for the held-out error.

A plan is a JSON file, which `netadapt plan` writes for a network that it can prune. A model file given to `profile build` becomes a
plan without widths to choose.
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
from profiler.formats.given import NOTHING, Given
from profiler.formats.model_file import format_of
from profiler.layers.channels import dependent_layers, nearest, possible_widths
from profiler.layers.graph import Graph

FORMAT = 4
CHECK_NETWORKS = 12
FIT_NETWORKS = 16
WIDTH_STEP = 8
"""The unit of widths in channels: the networks of a plan have multiples of it."""

Networks = tuple[Mapping[str, int], ...]
"""Several networks, each given by the width of every block."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A network whose widths may be chosen, and the widths of whole networks for the fit and for the held-out error.

    The layers to measure are chosen during the build (profiler.tables.sampling), because they depend on the device. `PlanError` for
    widths that the network cannot have.
    """

    graph: Graph
    fit: Networks = ()
    check: Networks = ()
    step: int = WIDTH_STEP
    model: Path | None = None
    """The model file that the plan was made from; None for a plan from a JSON file."""
    file: bytes = b""
    """What is measured of the model file: the same with all its weights and with fixed shapes."""

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
    """A plan with random networks for the fit and for the held-out error, whose widths are multiples of `step`."""
    networks = random_networks(graph, step, random.Random(seed), FIT_NETWORKS + CHECK_NETWORKS)
    fit = len(networks) * FIT_NETWORKS // (FIT_NETWORKS + CHECK_NETWORKS)
    return Plan(graph, tuple(networks[:fit]), tuple(networks[fit:]), step)


def possible_layers(plan: Plan) -> int:
    """The number of layers that a table of all widths would hold."""
    widths = possible_widths(plan.graph, plan.step)
    found = {
        (dependent.node.layer, form_choices)
        for dependent in dependent_layers(plan.graph)
        if (form_choices := tuple(form.choices(widths, plan.step) for form in dependent.axes))
    }
    return sum(math.prod(map(len, choices)) for _, choices in found)


def random_networks(graph: Graph, step: int, draws: random.Random, count: int) -> list[dict[str, int]]:
    """Random networks given by the width of every block, all different from each other and from the network itself.

    They are fewer than `count` if the network has few widths to choose from. Each network has a level between a quarter and all of
    the full widths, and its blocks lie around this level. Networks therefore cover all latencies that NetAdapt passes
    through; blocks of independent widths would not.
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
    """Write a plan atomically. `PlanError` if the file cannot be written."""
    write_whole(path, json.dumps(plan.to_dict(), indent=1), PlanError)


def read_plan(path: Path, given: Given = NOTHING) -> Plan:
    """Read a plan file, or make a plan of a model file. `PlanError` or `ModelError` in one sentence for any other file."""
    if path.suffix.lower() != ".json":
        file_format = format_of(path)
        return Plan(file_format.read(path, given), model=path, file=file_format.complete(path, given))
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
