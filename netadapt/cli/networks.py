"""The command `netadapt networks`."""

from __future__ import annotations

from dataclasses import asdict

from netadapt.cli import options, printing
from netadapt.cli.errors import needs_torch
from netadapt.networks import describe_all
from profiler.console import Json, print_json


def networks(
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    classes: options.Classes = 1000,
    as_json: Json = False,
) -> None:
    """List the built-in networks."""
    with needs_torch():
        found = describe_all(width_multiplier=width_multiplier, resolution=resolution, classes=classes)
        if as_json:
            print_json([asdict(item) for item in found])
        else:
            printing.print_networks(found)
