"""Baselines: networks of the same measured latency as an adapted one, found or trained in a simpler way.

A new baseline is a module here with a class, and a line in BASELINES. All of them are trained on the same data, with the same
learning rates and as many steps of each stage as the adapted network and the original; the docstring of each module lists what is
different.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from device_agents.support.text import did_you_mean
from netadapt.errors import SettingsError
from netadapt.registry import load

if TYPE_CHECKING:
    from torch import nn

    from netadapt.baselines.match import Match
    from netadapt.runs.records import Choice
    from netadapt.runs.training_schedule import Stage


@dataclass(frozen=True, slots=True)
class Registered:
    """An entry of the registry, which does not load the baseline's module, as that needs torch."""

    address: str
    """The `module:class` of a `BaselineMethod`."""
    summary: str
    """Its description in the help of `netadapt baselines`."""
    guided_by: str | None = None
    """The resource that guides the search, as it is printed, if the baseline is the same search without latency."""


BASELINES: Mapping[str, Registered] = {
    "multiplier": Registered("netadapt.baselines.multiplier:Multiplier", "evenly thinner, from random weights"),
    "uniform": Registered("netadapt.baselines.uniform:Uniform", "the trained original pruned evenly"),
    "torch-pruning": Registered(
        "netadapt.baselines.torch_pruning:TorchPruning",
        "the trained original pruned by Torch-Pruning's own pruner, by Taylor importance",
    ),
    "macs": Registered("netadapt.baselines.macs:GuidedByMacs", "the same search guided by MACs", "MACs"),
    "scratch": Registered("netadapt.baselines.scratch:Scratch", "the adapted shape from random weights"),
}


class BaselineMethod(Protocol):
    """The way in which networks of one kind are found and trained. It has no state."""

    title: ClassVar[str]
    """The baseline's name in tables, such as width multiplier."""
    shape: ClassVar[str]
    """The networks that it is chosen among; kinds of the same shape share the choice."""
    needs_latency: ClassVar[bool]
    """True if its network is chosen by latency."""
    from_random_weights: ClassVar[bool]
    """True if its training starts from random weights."""

    def choose(self, match: Match) -> Choice:
        """The network whose measured latency is nearest to the step's. `ToolError` of devices, tables and training."""
        ...

    def origin(self, match: Match, choice: Choice) -> str:
        """The origin of its weights before training, as it is recorded; training is repeated if it changes."""
        ...

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        """The network before its first stage of training."""
        ...

    def stages(self, match: Match) -> tuple[Stage, ...]:
        """The stages of its training, in order."""
        ...


def open_baseline(name: str) -> BaselineMethod:
    """The baseline of this name. `SettingsError` for an unknown name."""
    if name not in BASELINES:
        raise SettingsError(f"there is no baseline {name!r}; {did_you_mean(name, BASELINES)}")
    method: BaselineMethod = load(BASELINES[name].address)()
    return method


def title_of(name: str) -> str:
    """The name in tables of the baseline with this name in the registry."""
    return open_baseline(name).title
