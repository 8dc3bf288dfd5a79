"""`profile plot`: a table as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.options import TableFile
from profiler.console import plain_errors
from profiler.tables.table import load_table
from profiler.tables.trust import trust_sentence


def plot(
    table: TableFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure (.png) or the page with all figures (.html) to write.")],
) -> None:
    """Draw a table: the predicted against the measured latency of networks, and latency against channels."""
    with plain_errors():
        from profiler.plotting.plot import write_plot  # matplotlib takes a second to start, which other commands need not wait for

        loaded = load_table(table)
        write_plot(loaded, out)
        print(f"{out}: {len(loaded.rows)} layers; {trust_sentence(loaded)}")
