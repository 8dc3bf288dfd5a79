"""The `netadapt` command, which fits networks into latency budgets. Each of its commands is a module beside this one.

Torch takes seconds to load, and an installation of the profiler alone has neither torch nor the packages that draw. Commands
therefore import what needs them when they run, so that `--help` is immediate and works in every installation.
"""

from __future__ import annotations

from netadapt.cli.baselines import baselines
from netadapt.cli.compressed_size import compressed_size
from netadapt.cli.demo import demo
from netadapt.cli.densities import densities
from netadapt.cli.examples import EXAMPLES
from netadapt.cli.export import export
from netadapt.cli.finetune import finetune
from netadapt.cli.history import history
from netadapt.cli.measure import measure
from netadapt.cli.networks import networks
from netadapt.cli.plan import plan
from netadapt.cli.prune_weights import prune_weights
from netadapt.cli.report import report
from netadapt.cli.resume import resume
from netadapt.cli.run import run
from netadapt.cli.supernet import supernet, supernet_check
from profiler.console import Command, Version, command_group, examples

app = command_group("Fit a network into a latency budget on your device (NetAdapt, Yang et al., ECCV 2018).")


@app.callback()
def main(version: Version = False) -> None:
    pass


COMMANDS = (
    networks, plan, supernet, supernet_check, run, resume, history, finetune, measure, baselines, export, densities, prune_weights,
    compressed_size, report, demo,
)  # fmt: skip
for command in COMMANDS:
    name = command.__name__.replace("_", "-")
    app.command(name, cls=Command, epilog=examples(EXAMPLES.get(name, ())))(command)
