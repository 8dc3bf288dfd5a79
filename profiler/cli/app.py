"""The `profile` command: what can be reached, what is in a model, what it costs, and tables of all that."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from device_agents import native
from device_agents.device_lock import device_lock
from device_agents.discovery import address_forms, open_agent
from device_agents.support.errors import ToolError
from profiler.cli import printing
from profiler.cli.schedule import app as schedule_app
from profiler.cli.serve import serve
from profiler.console import Json, percent, plain_errors, print_json, terminable
from profiler.devices.config import CONFIG_VARIABLE, find_device
from profiler.devices.doctor import examine, judge
from profiler.devices.fleet import on_each
from profiler.errors import TableError
from profiler.exchange.exporting import export_table
from profiler.exchange.formats import READABLE, WRITABLE
from profiler.exchange.importing import ImportOptions, import_table, save_imported
from profiler.formats.model_file import default_runtime, format_of, read_model
from profiler.layers.fusion import fuse_for
from profiler.measure.benchmark import measure_files
from profiler.measure.discovery import roster
from profiler.progress import ProgressReporter, bar, bars
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.schedule.state import stale_reason
from profiler.tables.build import StopCriterion
from profiler.tables.build import build as build_table
from profiler.tables.check import check_table
from profiler.tables.compare import compare_files
from profiler.tables.plan import read_plan
from profiler.tables.table import LatencyTable, load_table

app = typer.Typer(
    help="Measure layers and networks on real devices and build latency tables from them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Runtime(StrEnum):
    onnxruntime = "onnxruntime"
    onnxruntime_cuda = "onnxruntime-cuda"
    onnxruntime_tensorrt = "onnxruntime-tensorrt"
    litert = "litert"
    tflite_runtime = "tflite-runtime"


class RunnerName(StrEnum):
    python = "python"
    native = "native"
    benchmark_model = "benchmark_model"
    onnxruntime_perf_test = "onnxruntime_perf_test"


class BuildTarget(StrEnum):
    host = "host"
    aarch64_linux = "aarch64-linux"
    android_arm64 = "android-arm64"


Form = Annotated[str | None, typer.Option("--format", help=f"{', '.join(READABLE)}; by default what the files' ending says.")]
OutForm = Annotated[str, typer.Option("--format", help=f"The form to write it in: {', '.join(WRITABLE)}.")]


class TableFormat(StrEnum):
    text = "text"
    csv = "csv"
    markdown = "markdown"
    json = "json"


Device = Annotated[str, typer.Option(help=f"Where to measure: a name from profile.toml, or {', '.join(address_forms())}.")]
Threads = Annotated[int, typer.Option(help="Threads the runtime may use.")]
Python = Annotated[str | None, typer.Option(help="The Python on the device that has the runtime; by default what is found there.")]
Runner = Annotated[RunnerName | None, typer.Option(help="What measures there; by default ours, in Python or else native.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a device that another run is measuring.")]
FOREVER_S = 1e9
TableFile = Annotated[Path, typer.Argument(help="A table made by `profile build`.")]
ModelFile = Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")]


def slug(device: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", device)


@app.callback()
def main(
    config: Annotated[
        Path | None, typer.Option(help="A file that names devices, instead of ./profile.toml or the user's own.")
    ] = None,
) -> None:
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)


@app.command()
def devices(python: Python = None, as_json: Json = False) -> None:
    """List the devices that are named or attached, what stands in the way of each, and the runtimes that work there."""
    with plain_errors():
        found = [printing.found_data(item) for item in roster(python)]
        if as_json:
            print_json(found)
        else:
            for item in found:
                printing.print_found(item)


@app.command()
def layers(model: ModelFile, as_json: Json = False) -> None:
    """List the fused groups of a model as its runtime executes them, and how often each occurs."""
    with plain_errors():
        executed = fuse_for(read_model(model), default_runtime(model))
        plain = {"model": str(model)} | printing.graph_data(executed)
        if as_json:
            print_json(plain)
        else:
            printing.print_graph(plain)


@app.command()
def benchmark(
    model: ModelFile,
    runtime: Annotated[Runtime | None, typer.Option(help="By default the one that reads this kind of file.")] = None,
    device: Device = "local",
    threads: Threads = 1,
    python: Python = None,
    runner: Runner = None,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Measure a whole model's latency on a device."""
    with plain_errors(), terminable():
        target = Target(device, runtime.value if runtime else default_runtime(model), threads, python, runner and runner.value)
        with bar() as progress:
            measured = measure_files([model], target, progress=progress, wait_s=FOREVER_S if wait else 0)[model]
        plain = printing.measured_data(measured, target)
        if as_json:
            print_json(plain)
        else:
            printing.print_measured(plain)


@app.command()
def build(
    plans: Annotated[list[Path], typer.Argument(help="Plans made by `netadapt plan`, or model files.")],
    runtime: Annotated[Runtime, typer.Option(help="What runs the models on the device.")],
    out: Annotated[
        Path,
        typer.Option(help="The table to write; what it holds already is not measured again. With several devices: {device} in it."),
    ],
    device: Annotated[list[str], typer.Option(help="Where to measure; several may be given and are measured side by side.")] = [  # noqa: B006
        "local"
    ],
    threads: Threads = 1,
    python: Python = None,
    runner: Runner = None,
    target_error: Annotated[
        str, typer.Option(help="Stop adding layers when the table's own estimate of its error is below this.")
    ] = "2%",
    max_layers: Annotated[int, typer.Option(min=1, help="Layers at most, whatever the error.")] = StopCriterion().max_layers,
    rounds: Annotated[int, typer.Option(min=3, help="Measurements to every layer before extra ones.")] = TimingSettings().rounds,
    seed: Annotated[int, typer.Option(help="Order of measurements and values of weights.")] = 1,
    energy: Annotated[bool, typer.Option("--energy", help="Measure energy too, where the device's hardware tells it.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a build that was interrupted.")] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Measure layers of plans or models, as few as will do, and whole networks beside them, into a latency table."""
    outs = {name: Path(str(out).replace("{device}", slug(name))) for name in device}
    kept = ", ".join(str(journal_path(path)) for path in outs.values())
    with plain_errors(f"everything measured is kept in {kept}; go on with --resume"), terminable():
        if len(set(outs.values())) < len(device):
            raise ToolError(
                f"{len(device)} devices cannot share one table; write {{device}} into --out, as in tables/{{device}}.parquet"
            )
        settings = TimingSettings(rounds=rounds, max_rounds=3 * rounds, network_rounds=3 * rounds, seed=seed)
        stop = StopCriterion(percent(target_error, "--target-error"), max_layers)
        read = [read_plan(path) for path in plans]

        def build_on(name: str, progress: ProgressReporter) -> LatencyTable:
            target = Target(name, runtime.value, threads, python, runner and runner.value)
            return build_table(
                read, target, outs[name], settings=settings, stop=stop, resume=resume, energy=energy, progress=progress,
                wait_s=FOREVER_S if wait else 0,
            )  # fmt: skip

        found: dict[str, LatencyTable | ToolError] = {}
        if len(device) == 1:
            with bar() as progress:
                found[device[0]] = build_on(device[0], progress)
        else:
            with bars(device) as several:
                found = on_each(device, build_on, several, last=["local"])
        built = {name: table for name, table in found.items() if isinstance(table, LatencyTable)}
        plain = [{"table": str(outs[name])} | printing.table_data(table) for name, table in built.items()]
        if as_json:
            print_json(plain[0] if len(device) == 1 and plain else plain)
        else:
            for (name, table), data in zip(built.items(), plain, strict=True):
                printing.print_table_data(str(outs[name]), data, table.sentence())
                print(f"  took {table.info.wall_s:.0f} s, {table.info.measuring_s:.0f} s of it in samples")
                print(f"  `profile check {outs[name]}` says what to distrust")
        lost = [error for error in found.values() if isinstance(error, ToolError)]
        if lost:
            raise ToolError(f"{len(lost)} of {len(device)} devices were given up: {'; '.join(map(str, lost))}")


@app.command()
def show(
    table: TableFile,
    table_format: Annotated[TableFormat, typer.Option("--format", help="How to print it.")] = TableFormat.text,
    as_json: Json = False,
) -> None:
    """Print a table: what it is, and a row for each layer."""
    with plain_errors():
        loaded = load_table(table)
        rows = printing.rows_data(loaded)
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
        if not loaded.info.target.reads(wanted):
            raise TableError(f"{table} is for {runtime}, which does not run .{wanted} files; use a table of a runtime that does")
        stale = stale_reason(table, loaded)
        plain = {"model": str(model)} | printing.prediction_data(loaded.explain(read_model(model)), loaded) | {"stale": stale}
        if stale:
            print(f"warning: {table} is stale: {stale}", file=sys.stderr)
        if as_json:
            print_json(plain)
            return
        adds = None if loaded.info.imported else f"profile build {model} --runtime {runtime} --out {table}"
        printing.print_prediction(plain, model.name, adds)
        print(f"held_out of this table: {loaded.sentence()}")


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
    """Say which layers changed beyond noise from one table to another, and by how much predictions did."""
    with plain_errors():
        plain = printing.comparison_data(compare_files(before, after))
        if as_json:
            print_json(plain)
        else:
            printing.print_comparison(plain)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of one published table.")],
    device_name: Annotated[str, typer.Option(help="What it was measured on.")],
    out: Annotated[Path, typer.Option(help="The table to write.")],
    table_format: Form = None,
    runtime: Annotated[Runtime | None, typer.Option(help="What it was measured with, if it was one of these.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads it was measured with, if that is known.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it was published, as a URL.")] = None,
    licence: Annotated[str | None, typer.Option(help="The licence it is under.")] = None,
    activation: Annotated[
        list[str] | None,
        typer.Option(help="What its convolutions are to be taken with where the format does not tell; may be given several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a latency table that others have published into one of ours, marked as imported and unverified."""
    with plain_errors():
        options = ImportOptions(
            device_name, runtime and runtime.value, threads, source, licence, table_format, tuple(activation or ())
        )
        table = import_table(files, options)
        save_imported(table, out)
        plain = {"table": str(out)} | printing.table_data(table)
        if as_json:
            print_json(plain)
        else:
            printing.print_table_data(str(out), plain, table.sentence())
            printing.print_import(plain)


@app.command()
def export(
    table: TableFile,
    table_format: OutForm,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write a table as CSV, or in the form of nn-Meter or once-for-all, and say what that form cannot hold."""
    with plain_errors():
        loaded = load_table(table)
        writing = export_table(loaded, table_format, out)
        plain = {"table": str(table), "file": str(out), "format": table_format} | printing.export_data(writing, loaded)
        if as_json:
            print_json(plain)
        else:
            printing.print_export(plain)


@app.command()
def plot(table: TableFile, out: Annotated[Path, typer.Option(help="The figure (.png) or the page (.html) to write.")]) -> None:
    """Draw a table: predicted against measured networks, and latency against channels."""
    with plain_errors():
        from profiler.plotting.plot import write_plot  # matplotlib takes a second to start, which other commands need not wait for

        loaded = load_table(table)
        write_plot(loaded, out)
        print(f"{out}: {len(loaded.rows)} layers; {loaded.sentence()}")


@app.command()
def doctor(
    device: Annotated[str, typer.Argument(help="The device to look at: a name from profile.toml, or an address.")] = "local",
    threads: Threads = 1,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Say what would disturb measurements on a device and how to mend it; takes some four seconds."""
    with plain_errors():
        if threads < 1:
            raise ToolError(f"--threads must be at least 1, got {threads}")
        known = find_device(device)
        with open_agent(known.address, known.options) as agent:
            facts = examine(agent, python or known.python)
        findings = judge(facts, threads)
        if as_json:
            print_json({"device": device, "facts": facts.to_dict(), "findings": [asdict(finding) for finding in findings]})
            return
        print(f"{device}: {facts.sentence()}")
        for finding in findings:
            print(f"{finding.severity}: {finding.what}\n  {finding.next_step}")
        if not findings:
            print("nothing that would disturb a measurement was found")


@app.command()
def clean(device: Annotated[str, typer.Argument(help="The device to tidy up.")], as_json: Json = False) -> None:
    """Remove everything that was ever sent to a device: models, runners and libraries."""
    with plain_errors("some of it may be left"):
        known = find_device(device)
        agent = open_agent(known.address, known.options)
        with device_lock(agent), agent:
            freed_bytes = agent.clean()
        if as_json:
            print_json({"device": device, "freed_bytes": freed_bytes})
        else:
            print(f"{device}: {freed_bytes / 1e6:.1f} MB removed")


app.add_typer(schedule_app, name="schedule")
app.command()(serve)
runner_app = typer.Typer(help="The native runner, for devices without Python.", no_args_is_help=True)
app.add_typer(runner_app, name="runner")


@runner_app.command("build")
def runner_build(
    target: Annotated[BuildTarget, typer.Option(help="What it is to run on.")] = BuildTarget.host,
    ndk: Annotated[Path | None, typer.Option(help="The Android NDK; by default ANDROID_NDK_HOME.")] = None,
    out: Annotated[Path, typer.Option(help="The program to write.")] = Path("measure"),
    as_json: Json = False,
) -> None:
    """Compile the native runner; `native = PATH` in profile.toml sends it to a device. Known targets are built when needed."""
    with plain_errors():
        built = native.build(target.value, out, ndk=ndk)
        size_bytes = out.stat().st_size
        if as_json:
            print_json({"program": str(out), "target": target.value, "size_bytes": size_bytes, "build": built.build})
        else:
            print(f"{out}: {size_bytes / 1e3:.0f} kB, {built.build}")
