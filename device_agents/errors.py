"""Every error a user can act on. A command prints one as a single sentence and exits with code 1; anything else is a bug."""

from __future__ import annotations


class ToolError(Exception):
    """Base of all our errors: the message is a sentence that says what is wrong and what to do next."""


class DeviceError(ToolError):
    """A device cannot be reached, or a command on it did not do what was asked."""


class UnknownDevice(DeviceError):
    """The address names no kind of device that we know."""


class CommandFailed(DeviceError):
    """A command on the device ended with another exit code than zero."""


class CommandTimedOut(DeviceError):
    """A command on the device said nothing for too long and was killed."""
