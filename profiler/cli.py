"""The `profile` command: what can be reached, what is in a model, what it costs, and tables of all that."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from device_agents import AGENTS, open_agent
from device_agents.errors import ToolError
from profiler import printing
from profiler.build import Effort
from profiler.build import build as build_table
from profiler.check import check_table
from profiler.compare import compare as compare_tables
from profiler.console import Json, percent, plain_errors, print_json
from profiler.doctor import examine, judge
from profiler.errors import TableError
from profiler.executed import as_executed
from profiler.journal import journal_path
from profiler.measure import measure_files
from profiler.model_file import default_runtime, format_of, read_model
from profiler.plan import read_plan
from profiler.progress import bar
from profiler.session import Session
from profiler.settings import Target, TimingSettings
from profiler.table import load_table

app = typer.Typer(
    help="Measure layers and networks on real devices and build latency tables from them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Runtime(StrEnum):
    onnxruntime = "onnxruntime"
    litert = "litert"
    tflite_runtime = "tflite-runtime"


class TableFormat(StrEnum):
    text = "text"
    csv = "csv"
    markdown = "markdown"
    json = "json"


Device = Annotated[str, typer.Option(help="Where to measure, for example local.")]
Threads = Annotated[int, typer.Option(help="Threads the runtime may use.")]
Python = Annotated[str | None, typer.Option(help="The Python on the device that has the runtime; by default this one.")]
TableFile = Annotated[Path, typer.Argument(help="A table made by `profile build`.")]
ModelFile = Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")]


@app.command()
def devices(python: Python = None, as_json: Json = False) -> None:
    """List the devices that can be reached, their state, and the runtimes on each."""
    with plain_errors():
        found = []
        for address in AGENTS:
            with open_agent(address) as agent:
                session = Session(agent, Target(address, python=python), TimingSettings())
                found.append(printing.device_data(address, session.probe()))
        if as_json:
            print_json(found)
        else:
            for item in found:
                printing.print_device(item)


@app.command()
def layers(model: ModelFile, as_json: Json = False) -> None:
    """List the fused groups of a model as its runtime executes them, and how often each occurs."""
    with plain_errors():
        executed = as_executed(read_model(model), default_runtime(model))
        plain = {"model": str(model)} | printing.graph_data(executed)
        if as_json:
            print_json(plain)
        else:
            printing.print_graph(plain)


@app.command()
def model(
    model: ModelFile,
    runtime: Annotated[Runtime | None, typer.Option(help="By default the one that reads this kind of file.")] = None,
    device: Device = "local",
    threads: Threads = 1,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Measure a whole model's latency on a device."""
    with plain_errors():
        target = Target(device, runtime.value if runtime else default_runtime(model), threads, python)
        with bar() as progress:
            measured = measure_files([model], target, progress=progress)[model]
        plain = printing.measured_data(measured, target)
        if as_json:
            print_json(plain)
        else:
            printing.print_measured(plain)


@app.command()
def build(
    plans: Annotated[list[Path], typer.Argument(help="Plans made by `netadapt plan`, or model files.")],
    runtime: Annotated[Runtime, typer.Option(help="What runs the models on the device.")],
    out: Annotated[Path, typer.Option(help="The table to write; what it holds already is not measured again.")],
    device: Device = "local",
    threads: Threads = 1,
    python: Python = None,
    until: Annotated[str, typer.Option(help="Stop adding layers when the table's own estimate of its error is below this.")] = "2%",
    max_layers: Annotated[int, typer.Option(min=1, help="Layers at most, whatever the error.")] = Effort().max_layers,
    rounds: Annotated[int, typer.Option(min=3, help="Visits to every layer before extra ones.")] = TimingSettings().rounds,
    seed: Annotated[int, typer.Option(help="Order of visits and values of weights.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a build that was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Measure layers of plans or models, as few as will do, and whole networks beside them, into a latency table."""
    with plain_errors(f"everything measured is kept in {journal_path(out)}; go on with --resume"):
        target = Target(device, runtime.value, threads, python)
        settings = TimingSettings(rounds=rounds, max_rounds=3 * rounds, network_rounds=3 * rounds, seed=seed)
        effort = Effort(percent(until, "--until"), max_layers)
        read = [read_plan(path) for path in plans]
        with bar() as progress:
            table = build_table(read, target, out, settings=settings, effort=effort, resume=resume, progress=progress)
        plain = {"table": str(out)} | printing.table_data(table)
        if as_json:
            print_json(plain)
            return
        printing.print_table_data(str(out), plain, table.sentence())
        print(f"  took {table.info.wall_s:.0f} s, {table.info.measuring_s:.0f} s of it in samples")
        print(f"  `profile check {out}` says what to distrust")


@app.command()
def show(
    table: TableFile,
    table_format: Annotated[TableFormat, typer.Option("--format", help="How to print it.")] = TableFormat.text,
    as_json: Json = False,
) -> None:
    """Print a table: what it is, and a row for each layer."""
    with plain_errors():
        loaded = load_table(table)
        rows = [printing.row_data(layer, value) for layer, value in loaded.rows.items()]
        plain = {"table": str(table)} | printing.table_data(loaded)
        if as_json or table_format is TableFormat.json:
            print_json(plain | {"layers": rows})
        elif table_format is TableFormat.csv:
            print(printing.rows_csv(rows), end="")
        elif table_format is TableFormat.markdown:
            print(printing.rows_markdown(rows), end="")
        else:
            printing.print_table_data(str(table), plain, loaded.sentence())
            printing.print_rows(rows)


@app.command()
def predict(table: TableFile, model: ModelFile, as_json: Json = False) -> None:
    """Predict a model's latency from a table, and say for each layer where its share comes from."""
    with plain_errors():
        loaded, wanted = load_table(table), format_of(model).name
        runtime = loaded.info.target.runtime
        if loaded.info.target.model_format != wanted:
            raise TableError(f"{table} is for {runtime}, which does not run .{wanted} files; use a table of a runtime that does")
        plain = {"model": str(model)} | printing.prediction_data(loaded.explain(read_model(model)), loaded)
        if as_json:
            print_json(plain)
            return
        printing.print_prediction(plain, model.name, add=f"profile build {model} --runtime {runtime} --out {table}")
        print(f"closure of this table: {loaded.sentence()}")


@app.command()
def check(table: TableFile, as_json: Json = False) -> None:
    """Say what to distrust in a table and what to do about it."""
    with plain_errors():
        loaded = load_table(table)
        findings = check_table(loaded)
        plain = {"table": str(table)} | printing.table_data(loaded)
        if as_json:
            print_json(plain | {"findings": [asdict(finding) for finding in findings]})
            return
        printing.print_table_data(str(table), plain, loaded.sentence())
        for finding in findings:
            print(f"{finding.severity}: {finding.what}\n  {finding.next_step}")
        if not findings:
            print("nothing to distrust was found")


@app.command()
def compare(before: TableFile, after: TableFile, as_json: Json = False) -> None:
    """Compare two tables layer by layer."""
    with plain_errors():
        plain = printing.comparison_data(compare_tables(load_table(before), load_table(after)))
        if as_json:
            print_json(plain)
        else:
            printing.print_comparison(plain)


@app.command()
def plot(table: TableFile, out: Annotated[Path, typer.Option(help="The picture (.png) or the page (.html) to write.")]) -> None:
    """Draw a table: predicted against measured networks, and latency against channels."""
    with plain_errors():
        from profiler.plot import write_plot  # matplotlib takes a second to start, which other commands need not wait for

        loaded = load_table(table)
        write_plot(loaded, out)
        print(f"{out}: {len(loaded.rows)} layers; {loaded.sentence()}")


@app.command()
def doctor(
    device: Annotated[str, typer.Argument(help="The device to look at, for example local.")] = "local",
    threads: Threads = 1,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Say what would disturb measurements on a device and how to mend it; takes some four seconds."""
    with plain_errors():
        if threads < 1:
            raise ToolError(f"--threads must be at least 1, got {threads}")
        with open_agent(device) as agent:
            facts = examine(agent, python)
        findings = judge(facts, threads)
        if as_json:
            print_json({"device": device, "facts": facts.to_dict(), "findings": [asdict(finding) for finding in findings]})
            return
        print(f"{device}: {facts.sentence()}")
        for finding in findings:
            print(f"{finding.severity}: {finding.what}\n  {finding.next_step}")
        if not findings:
            print("nothing that would disturb a measurement was found")
