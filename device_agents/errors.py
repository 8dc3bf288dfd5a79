"""Errors of reaching a device and of running commands there."""

from __future__ import annotations

import shlex

from device_agents.support.errors import ToolError


class DeviceError(ToolError):
    """A device cannot be reached, or a command on it did not succeed."""


class UnknownDevice(DeviceError):
    """An address or a name of no known device."""


class DeviceUnreachable(DeviceError):
    """The device cannot be reached now: not attached, offline, switched off, no route. Trying again later may help."""


class DeviceUnauthorised(DeviceError):
    """The device was reached and refuses access. A person has to do something about it."""


class DeviceBusy(DeviceError):
    """Another run is measuring on the device."""


class DeviceLocked(DeviceBusy):
    """That run is on this host, so that its end can be waited for."""


class LinkLost(DeviceError):
    """The connection to the device was lost. Reconnecting may help."""


class CommandFailed(DeviceError):
    """A command on the device ended with an exit code other than 0."""


class CommandTimedOut(DeviceError):
    """A command on the device printed nothing for too long, or did not end in time, and was killed."""


class LineTooLong(DeviceError):
    """A command printed more than LONGEST_LINE bytes without ending the line."""


class StoreFailed(DeviceError):
    """Files could not be stored on the device: no room, no permission to write, or damaged in transfer at every attempt."""


ANOTHER_FOLDER = 'name a folder of another file system as folder = "PATH" of the device in profile.toml'
"""The way out, for messages, where the folder for our files is full, may not be written, or may not be executed from."""


def make_room(address: str) -> str:
    """The end of a sentence about files for which a device has no room."""
    return f"`profile clean {shlex.quote(address)}` makes room, or {ANOTHER_FOLDER}"
