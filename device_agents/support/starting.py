"""The start of a program, which takes a second or two until its modules are imported."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit code of a program ended by Ctrl-C, as shells know it."""


def run_program(address: str) -> None:
    """Run the program at `module:attribute`. Ctrl-C while it is imported ends it as Ctrl-C does later, without a traceback."""
    try:
        from device_agents.support.loading import load

        program = load(address)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        sys.exit(INTERRUPTED)
    program()


def profile() -> None:
    """The `profile` command."""
    run_program("profiler.cli.app:app")


def netadapt() -> None:
    """The `netadapt` command."""
    run_program("netadapt.cli.app:app")
