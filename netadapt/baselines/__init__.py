"""Networks that the adapted one has to beat: as fast when measured, trained as long, but found or trained in a simpler way.

A kind of baseline is a file here with a class, and a line in KINDS. What all of them get is the same data, the same learning rates
and as many training steps of each stage as the adapted network and the original it came from; each kind says where it differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from device_agents.support.text import did_you_mean
from netadapt.errors import SettingsError
from netadapt.registry import load

if TYPE_CHECKING:
    from torch import nn

    from netadapt.baselines.match import Match
    from netadapt.runs.records import Choice
    from netadapt.runs.training_schedule import Stage

KINDS: dict[str, str] = {
    "multiplier": "netadapt.baselines.multiplier:Multiplier",
    "uniform": "netadapt.baselines.uniform:Uniform",
    "macs": "netadapt.baselines.macs:GuidedByMacs",
    "scratch": "netadapt.baselines.scratch:Scratch",
}
"""Name to module:class."""


class Kind(Protocol):
    """A kind of baseline; without state."""

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


def open_kind(name: str) -> Kind:
    """The kind of this name. `SettingsError` for an unknown one."""
    if name not in KINDS:
        raise SettingsError(f"there is no baseline {name!r}; {did_you_mean(name, KINDS)}")
    kind: Kind = load(KINDS[name])()
    return kind


def title_of(name: str) -> str:
    """For tables; an unknown kind, recorded by another version, is called what it is called there."""
    return open_kind(name).title if name in KINDS else name
