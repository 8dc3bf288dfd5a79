"""The command `netadapt report`."""

from __future__ import annotations

from netadapt.cli import options
from netadapt.cli.errors import needs_torch
from netadapt.runs.run_folder import RunFolder


def report(run: options.Run) -> None:
    """Write the run's report, one HTML page that opens offline."""
    with needs_torch():
        from netadapt.reporting.report import write_report

        with RunFolder.open(run) as folder:
            print(write_report(folder))
