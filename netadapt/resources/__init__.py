"""Resources that a network uses, such as latency or memory, and budgets for them."""

from netadapt.resources.base import PricesMany, Resource, ResourceKind, WidthPricer, prefixed_text
from netadapt.resources.budgets import Budget, Goal, named_tables, open_goals, parse_budget, parse_budgets
from netadapt.resources.energy import Energy
from netadapt.resources.latency import Latency, LatencyModel, Predicted
from netadapt.resources.macs import Macs
from netadapt.resources.memory import Memory, peak_bytes
from netadapt.resources.parameters import Parameters
from netadapt.resources.registry import RESOURCES, known_resource, open_resource

__all__ = [
    "RESOURCES",
    "Budget",
    "Energy",
    "Goal",
    "Latency",
    "LatencyModel",
    "Macs",
    "Memory",
    "Parameters",
    "Predicted",
    "PricesMany",
    "Resource",
    "ResourceKind",
    "WidthPricer",
    "known_resource",
    "named_tables",
    "open_goals",
    "open_resource",
    "parse_budget",
    "parse_budgets",
    "peak_bytes",
    "prefixed_text",
]
