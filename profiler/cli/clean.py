"""`profile clean`: a device without anything of ours."""

from __future__ import annotations

from profiler.cli.options import DeviceArgument
from profiler.console import Json, plain_errors, print_json
from profiler.devices.cleaning import clean_device


def clean(device: DeviceArgument, as_json: Json = False) -> None:
    """Remove everything that was ever sent to a device: models, runners and libraries."""
    with plain_errors("some of it may be left"):
        freed_bytes = clean_device(device)
        if as_json:
            print_json({"device": device, "freed_bytes": freed_bytes})
        else:
            print(f"{device}: {freed_bytes / 1e6:.1f} MB removed")
