"""The interfaces of a resource: anything that gives a network a price.

A new resource is a module of this package, with a class that is a `ResourceKind`, and a line in `netadapt.resources.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from profiler.layers.graph import Graph


class Resource(Protocol):
    """A resource that is ready to price networks; lower prices are better."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def price(self, graph: Graph) -> float:
        """The network's price in `unit`. `LayerNotMeasured` or `BudgetError` if a layer's price is not known."""
        ...


class WidthPricer(Protocol):
    """The prices of one network with one of its blocks at other widths."""

    def prices(self, block: str, widths: Sequence[int]) -> Sequence[float]:
        """The network's price with the block at each of these widths; NaN where it has to be asked from `Resource.price`."""
        ...


@runtime_checkable
class PricesMany(Protocol):
    """A resource that prices many widths of a block at once, which saves most of the search's time with latency tables."""

    def pricer(self, graph: Graph) -> WidthPricer:
        """A pricer of this network, to be used for all its blocks, as much of its work is shared by them."""
        ...


class ResourceKind(Protocol):
    """The class of a resource, as the registry lists it."""

    @property
    def name(self) -> str:
        """The resource's name in the registry and in budgets."""
        ...

    @property
    def unit(self) -> str:
        """The unit of all prices and amounts."""
        ...

    def amount_text(self, amount: float) -> str:
        """An amount in `unit` as it is printed, such as 5.913 ms, 41.2 M MACs or 2.1 MB."""
        ...

    @property
    def scales(self) -> Mapping[str, float]:
        """The units that a budget may be typed in, in lower case, each with its size in `unit`, such as us: 0.001 for ms."""
        ...

    @property
    def example(self) -> str:
        """An amount as it may be typed, for error messages: 12ms."""
        ...

    @property
    def needs_table(self) -> bool:
        """True if prices depend on a device's latency table."""
        ...

    @property
    def measurable(self) -> bool:
        """True if whole networks can be measured on a device in `unit`: winners are checked and baselines matched by it."""
        ...

    @property
    def named_by_table(self) -> bool:
        """True if a budget with only a table's name means this resource, as in pixel=40ms; one resource at most."""
        ...

    def of(self, table: Any) -> Resource:
        """The resource for a device's table, a `Table` or a `GrowingTable`, or None where there is none.

        `BudgetError` if the resource needs a table and has none, or one without the figures it needs.
        """
        ...


def prefixed_text(amount: float, unit: str) -> str:
    """The amount with four digits, and from 1000 on with a prefix k, M or G: `2.1 MB` for 2.1e6 and the unit `B`."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= scale:
            return f"{amount / scale:.4g} {prefix}{unit}"
    return f"{amount:.4g} {unit.strip()}"


COUNTS: Mapping[str, float] = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
"""The `scales` of resources that are counted."""
