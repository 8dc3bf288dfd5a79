"""Errors of NetAdapt. Each is one sentence for the user: what is wrong, and what to do; see device_agents.support.errors."""

from __future__ import annotations

from device_agents.support.errors import ToolError


class NetAdaptError(ToolError):
    """An error of an adaptation that the user can correct."""


class BudgetError(NetAdaptError):
    """A budget is impossible, is met already, or cannot be reached with these settings."""


class SettingsError(NetAdaptError):
    """A setting is unknown or out of its range."""


class NetworkError(NetAdaptError):
    """A network is unknown, or cannot be built or traced with these options."""


class RunError(NetAdaptError):
    """A run folder, or another file of a run, is missing, damaged, in use, or was begun with other settings."""
