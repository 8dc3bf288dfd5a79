"""What a resource is: anything that puts a price on a network. Each is a file of this package and a line in its registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from profiler.layers.graph import Graph


class Resource(Protocol):
    """Puts a price on a network; the lower the better."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def price(self, graph: Graph) -> float: ...


class WidthPricer(Protocol):
    """One network made ready to be priced with any of its blocks narrower."""

    def prices(self, block: str, widths: Sequence[int]) -> Sequence[float]:
        """One for each width; NaN where only the resource's `price` can tell."""
        ...


@runtime_checkable
class PricesMany(Protocol):
    """A resource that prices every width of a block at once."""

    def pricer(self, graph: Graph) -> WidthPricer:
        """What prices one network, to be kept while blocks of this network are priced."""
        ...


class ResourceKind(Protocol):
    """The class of a resource, as the registry lists it."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def amount_text(self, amount: float) -> str:
        """An amount in `unit` as it is printed, such as 5.913 ms, 41.2 M MACs or 2.1 MB."""
        ...

    @property
    def scales(self) -> Mapping[str, float]:
        """What one of each unit that may be typed is, in `unit`; in lower case."""
        ...

    @property
    def example(self) -> str:
        """An amount, as it may be typed."""
        ...

    @property
    def needs_table(self) -> bool:
        """Its price depends on a device's table."""
        ...

    @property
    def measurable(self) -> bool:
        """A network's whole price can be measured on a device, as a latency is; baselines are matched by it."""
        ...

    @property
    def named_by_table(self) -> bool:
        """The bare name of a table means this resource on the table's device: pixel=40ms. One resource at most."""
        ...

    def of(self, table: Any) -> Resource:
        """The resource, priced by a device's table if it needs one. `BudgetError` if it is missing or cannot tell."""
        ...


def prefixed_text(amount: float, unit: str) -> str:
    """The amount with four digits and a prefix k, M or G before the unit where it is large: `2.1 MB` for 2.1e6 and `B`."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= scale:
            return f"{amount / scale:.4g} {prefix}{unit}"
    return f"{amount:.4g} {unit.strip()}"


COUNTS: Mapping[str, float] = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
