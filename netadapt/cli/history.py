"""The command `netadapt history`."""

from __future__ import annotations

from netadapt.cli import options, printing
from netadapt.runs.history import history_of
from netadapt.runs.run_folder import RunFolder
from profiler.console import Json, plain_errors, print_json


def history(run: options.Run, as_json: Json = False) -> None:
    """Show the family of networks: every step with its latency and accuracy."""
    with plain_errors():
        with RunFolder.open(run) as folder:
            found = history_of(folder)
        if as_json:
            print_json(printing.history_data(found))
        else:
            printing.print_history(found)
