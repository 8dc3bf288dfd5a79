"""Errors of NetAdapt, all of them sentences for the user; see device_agents.errors."""

from __future__ import annotations

from device_agents.support.errors import ToolError


class NetAdaptError(ToolError):
    """Something about an adaptation that the user can put right."""


class BudgetError(NetAdaptError):
    """A budget makes no sense, is met already, or cannot be reached with these settings."""


class SettingsError(NetAdaptError):
    """A setting of the loop is outside what it can be."""


class NetworkError(NetAdaptError):
    """A network that we do not have, or that cannot be built as asked."""


class RunError(NetAdaptError):
    """A run folder is missing, damaged, in use, or was begun with other settings."""
