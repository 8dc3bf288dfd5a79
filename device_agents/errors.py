"""Every error a user can act on. A command prints one as a single sentence and exits with code 1; anything else is a bug."""

from __future__ import annotations

LONGEST = 1000
"""Letters of a message; what a file or a device says may be of any length."""


def printable(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


class ToolError(Exception):
    """Base of all our errors: the message is a sentence that says what is wrong and what to do next.

    It may quote what a file or a device says; whatever that is, it comes out as one line that does nothing to a terminal.
    """

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


class DeviceError(ToolError):
    """A device cannot be reached, or a command on it did not do what was asked."""


class UnknownDevice(DeviceError):
    """The address names no kind of device that we know."""


class DeviceUnreachable(DeviceError):
    """There is no way to the device now: not attached, offline, switched off, no route. Trying again later may help."""


class DeviceUnauthorised(DeviceError):
    """The device is there and does not let us in. A person has to do something about it."""


class DeviceBusy(DeviceError):
    """Another run is measuring on the device."""


class LinkLost(DeviceError):
    """The device was reached and then the connection broke off. Reconnecting may help."""


class CommandFailed(DeviceError):
    """A command on the device ended with another exit code than zero."""


class CommandTimedOut(DeviceError):
    """A command on the device said nothing for too long and was killed."""


class LineTooLong(DeviceError):
    """A command wrote on and on without ending its line."""


class StoreFailed(DeviceError):
    """Files could not be put on the device whole: no room, no right to write, or damaged on the way again and again."""
