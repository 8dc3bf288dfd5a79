"""The base of every error that a user can act on.

A command prints such an error as one sentence and exits with code 1; any other exception is a bug.
"""

from __future__ import annotations

from device_agents.support.text import printable

LONGEST = 1000
"""Characters of a message; what a file or a device says may be of any length."""


class ToolError(Exception):
    """Base of all our errors. The message is a sentence that says what is wrong and what to do next.

    It may quote text of a file or a device. Whatever that is, the message is one line without control characters.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), LONGEST)


class ConfigError(ToolError):
    """profile.toml, or another file of settings, has an invalid value."""
