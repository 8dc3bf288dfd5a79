"""The `netadapt` command: fit a network into a latency budget on a device. Each command is a module beside this one.

Torch takes seconds to load, and an install of the profiler alone does without what draws and trains: commands import what they need
when they run. `--help` answers at once, everywhere.
"""

from __future__ import annotations

import typer

from netadapt.cli.baselines import baselines
from netadapt.cli.demo import demo
from netadapt.cli.export import export
from netadapt.cli.finetune import finetune
from netadapt.cli.history import history
from netadapt.cli.measure import measure
from netadapt.cli.networks import networks
from netadapt.cli.plan import plan
from netadapt.cli.report import report
from netadapt.cli.run import run

app = typer.Typer(
    help="Fit a network into a latency budget on your device (NetAdapt, Yang et al., ECCV 2018).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (networks, plan, run, history, finetune, measure, baselines, export, report, demo):
    app.command()(command)
