"""Errors of reaching a device and of running commands there; each is a sentence that says what to do next."""

from __future__ import annotations

from device_agents.support.errors import ToolError


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
