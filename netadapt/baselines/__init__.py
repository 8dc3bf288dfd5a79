"""Networks that the adapted one has to beat: as fast when measured, trained as long, but found or trained in a simpler way.

A baseline is a file here with a class, and a line in BASELINES. What all of them get is the same data, the same learning rates
and as many training steps of each stage as the adapted network and the original it came from; each kind says where it differs.
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
    """A baseline by its name, before its module, which needs torch, is loaded."""

    address: str
    """module:class"""
    summary: str
    """For the help of the command."""
    guided_by: str | None = None
    """For the same search by another resource than latency: the resource, as tables call it."""


BASELINES: Mapping[str, Registered] = {
    "multiplier": Registered("netadapt.baselines.multiplier:Multiplier", "evenly thinner, from random weights"),
    "uniform": Registered("netadapt.baselines.uniform:Uniform", "the trained original pruned evenly"),
    "macs": Registered("netadapt.baselines.macs:GuidedByMacs", "the same search guided by MACs", "MACs"),
    "scratch": Registered("netadapt.baselines.scratch:Scratch", "the adapted shape from random weights"),
}


class BaselineMethod(Protocol):
    """How networks of one kind are found and trained; without state."""

    title: ClassVar[str]
    """For tables: width multiplier."""
    shape: ClassVar[str]
    """What its network is chosen among; kinds of the same shape share the choice."""
    needs_latency: ClassVar[bool]
    """There is something to choose, by latency."""
    starts_anew: ClassVar[bool]
    """From random weights."""

    def choose(self, match: Match) -> Choice:
        """The network that is measured as fast as the step. Any `ToolError` of devices, tables and training."""
        ...

    def origin(self, match: Match, choice: Choice) -> str:
        """Where its weights start, as it is recorded."""
        ...

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        """The network before its stages of training."""
        ...

    def stages(self, match: Match) -> tuple[Stage, ...]: ...


def open_baseline(name: str) -> BaselineMethod:
    """The kind of this name. `SettingsError` for an unknown one."""
    if name not in BASELINES:
        raise SettingsError(f"there is no baseline {name!r}; {did_you_mean(name, BASELINES)}")
    method: BaselineMethod = load(BASELINES[name].address)()
    return method


def title_of(name: str) -> str:
    """The name of a baseline in tables."""
    return open_baseline(name).title
