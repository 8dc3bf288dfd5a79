"""The held-out error of a table: predicted against measured latency of whole networks that took no part in fitting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from device_agents.support.dataclass_json import read_as, read_value
from profiler.interval import Interval

LIMIT_PERCENT = 5.0
"""A table with a larger mean error on held-out networks is unverified."""


LEAST_SHARE = 0.02
"""Layers with a smaller share of the latency of their network are not compared one by one."""
NEAR_PERCENT = 10.0
"""A layer that is predicted to within so much of its latency inside the network is near."""


@dataclass(frozen=True, slots=True)
class HeldOutLayer:
    """A layer of a held-out network: its calibrated latency, and its latency inside the running network."""

    node: str
    kind: str
    """The operator, such as conv2d."""
    key: str
    predicted_ms: float
    inside_ms: float

    @property
    def error_percent(self) -> float:
        return (self.predicted_ms / self.inside_ms - 1) * 100


@dataclass(frozen=True, slots=True)
class HeldOutNetwork:
    """A held-out network, predicted and measured."""

    name: str
    predicted_ms: Interval
    measured_ms: float
    naive_ms: float
    """The sum of its layers without calibration."""
    layers: tuple[HeldOutLayer, ...] = ()
    """Its layers of some share, where the runtime tells their latencies inside the network."""

    @property
    def error_percent(self) -> float:
        return (self.predicted_ms.value / self.measured_ms - 1) * 100

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.predicted_ms.to_dict("predicted_ms"),
            "measured_ms": self.measured_ms,
            "naive_ms": self.naive_ms,
            "layers": [asdict(layer) for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HeldOutNetwork:
        """The inverse of `to_dict`. `KeyError`, `TypeError` or `ValueError` for anything else."""
        name, predicted_ms = read_value(str, plain["name"]), Interval.from_dict(plain, "predicted_ms")
        measured_ms, naive_ms = (read_value(float, plain[figure]) for figure in ("measured_ms", "naive_ms"))
        layers = tuple(read_as(HeldOutLayer, layer) for layer in plain["layers"])
        return cls(name, predicted_ms, measured_ms, naive_ms, layers)


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """Errors on all held-out networks, in per cent of the measured latency. They are None without any network."""

    networks: int
    mean_error_percent: float | None
    worst_error_percent: float | None
    bias_percent: float | None
    spearman: float | None
    """Rank correlation of predicted and measured latency; None with fewer than three networks."""
    coverage_percent: float | None
    """The share of networks whose measured latency lies within the predicted 95 % interval."""
    naive_mean_error_percent: float | None
    layers: int = 0
    """The number of layers that were compared with their latency inside a held-out network."""
    near_percent: float | None = None
    """The share of them that is predicted to within 10 %; None without any."""
    checked: tuple[HeldOutNetwork, ...] = ()

    @property
    def verified(self) -> bool:
        """True if there are held-out networks and their mean error is within the limit."""
        return self.mean_error_percent is not None and self.mean_error_percent <= LIMIT_PERCENT

    def sentence(self) -> str:
        """The errors for people; it begins with `unverified` if they exceed the limit or are not known."""
        if self.mean_error_percent is None:
            return "unverified: no whole network was measured that took no part in fitting"
        said = (
            f"{self.networks} held-out network{'s' if self.networks > 1 else ''}: mean error {self.mean_error_percent:.1f} %, "
            f"worst {self.worst_error_percent:.1f} % (plain sum of layers: mean {self.naive_mean_error_percent:.1f} %)"
        )
        return said if self.verified else f"unverified: {said}; the limit is {LIMIT_PERCENT:g} %"

    @classmethod
    def of(cls, checked: Sequence[HeldOutNetwork]) -> HeldOutError:
        """The error on these networks; of none, a record that is not verified."""
        if not checked:
            return cls(0, None, None, None, None, None, None)
        errors = [network.error_percent for network in checked]
        inside = [network.predicted_ms.contains(network.measured_ms) for network in checked]
        naive = [abs(network.naive_ms / network.measured_ms - 1) * 100 for network in checked]
        near = [abs(layer.error_percent) <= NEAR_PERCENT for network in checked for layer in network.layers]
        return cls(
            networks=len(checked),
            mean_error_percent=sum(map(abs, errors)) / len(errors),
            worst_error_percent=max(map(abs, errors)),
            bias_percent=sum(errors) / len(errors),
            spearman=_spearman(checked),
            coverage_percent=100 * sum(inside) / len(inside),
            naive_mean_error_percent=sum(naive) / len(naive),
            layers=len(near),
            near_percent=100 * sum(near) / len(near) if near else None,
            checked=tuple(checked),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"checked": [network.to_dict() for network in self.checked]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HeldOutError:
        """The inverse of `to_dict`. `KeyError`, `TypeError` or `ValueError` for anything else."""
        checked = tuple(HeldOutNetwork.from_dict(network) for network in plain["checked"])
        return replace(read_as(cls, {**plain, "checked": []}), checked=checked)


def _spearman(checked: Sequence[HeldOutNetwork]) -> float | None:
    if len(checked) < 3:
        return None
    predicted = pd.Series([network.predicted_ms.value for network in checked]).rank()
    measured = pd.Series([network.measured_ms for network in checked]).rank()
    if predicted.nunique() < 2 or measured.nunique() < 2:
        return None  # ranks that never differ correlate with nothing
    return float(predicted.corr(measured))
