"""The demo: a whole adaptation on this machine, from plan to report, by the functions that the commands call.

MobileNetV1 at half width is trained on scikit-learn's handwritten digits, drawn among clutter. The table, the adaptation, the
fine-tunes and the comparison with a width multiplier of equal measured latency are all real, but small: trainings end before they
converge, and measurements are fewer than those of `profile build`.
"""

from __future__ import annotations

from pathlib import Path

from netadapt.adaptation import RunRequest, run
from netadapt.baselines.compare import compare
from netadapt.baselines.match import Match
from netadapt.errors import RunError
from netadapt.executors import ExecutorOptions
from netadapt.networks import network_graph
from netadapt.networks.options import NetworkOptions
from netadapt.reporting.report import write_report
from netadapt.runs.intervals import interval_text, ms_text
from netadapt.runs.measure import exported, verify
from netadapt.runs.models import RunModels
from netadapt.runs.records import Baseline, Finished, Verified
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.training_schedule import stages_of
from netadapt.search.types import AdaptSettings
from netadapt.settings import DataSettings
from netadapt.training.recipe import RecipeOverrides
from profiler.console import print_table
from profiler.progress import ProgressReporter, bar
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import StopCriterion, build
from profiler.tables.growing import GrowingTable
from profiler.tables.plan import make_plan, write_plan
from profiler.tables.table import load_table
from profiler.tables.trust import trust_sentence

NETWORK = NetworkOptions("mobilenet_v1", width_multiplier=0.5, resolution=32, classes=10)
DATA = DataSettings("clutter:8000")
BUDGET = "latency=60%"
SEED = 1
TIMING = TimingSettings(seed=SEED, min_round_s=0.15, network_rounds=12, max_rounds=12)
"""Each winner is measured too, which takes as long as a quarter of an iteration so."""
STOP = StopCriterion(target_error_percent=3.0)
ORIGINAL = RecipeOverrides(epochs=15)
SHORT = RecipeOverrides(steps=15)
ADAPTING = AdaptSettings(step=0.1)
"""Larger steps than the default: five or six iterations instead of twelve."""
EXECUTOR = ExecutorOptions("processes")
"""A network on each core."""
LONG = RecipeOverrides(epochs=8)


def demo(out: Path, runtime: str, *, resume: bool) -> None:
    """Measure, build a table, adapt, compare and report. Everything is written to the folder `out`.

    `RunError` if the folder is not empty and `resume` is false; `ToolError` of the steps.
    """
    target = Target(runtime=runtime)
    table_path, run_path = out / "table.parquet", out / "run"
    if out.is_dir() and any(out.iterdir()) and not resume:
        raise RunError(f"{out} is not empty; continue it with --resume, or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RunError(f"{out} cannot be made: {exc.strerror}") from exc
    with bar() as progress:
        print("1/4 measuring the layers of MobileNetV1 on this machine")
        plan = make_plan(network_graph(NETWORK.name, **NETWORK.keywords), seed=SEED)
        write_plan(plan, out / "plan.json")
        if not table_path.exists():
            build([plan], target, table_path, settings=TIMING, stop=STOP, resume=resume, progress=progress)
        print(f"    {trust_sentence(load_table(table_path))}")
        print(f"2/4 adapting the network to the budget {BUDGET}")
        request = RunRequest(
            NETWORK,
            DATA,
            [BUDGET],
            run_path,
            {"": table_path},
            ADAPTING,
            ORIGINAL,
            SHORT,
            seed=SEED,
            allow_unverified=True,
            executor=EXECUTOR,
        )
        run(
            request,
            resume=resume,
            progress=progress,
            on_step=lambda step, _: print(
                f"    step {step.iteration:2d}: {step.price:.3f} ms predicted, {100 * step.accuracy:.1f} % on the holdout",
                flush=True,
            ),
        )
        with RunFolder.open(run_path, write=True) as folder:
            _finish_and_compare(folder, target, progress)
            page = write_report(folder)
            _print_summary(folder)
    print(f"report: {page}")


def _finish_and_compare(folder: RunFolder, target: Target, progress: ProgressReporter) -> None:
    models, table = RunModels(folder), load_table(folder.table_path())
    last = models.step(None)
    print("3/4 long-term fine-tune of the original and the adapted network, and training of a narrower one as fast")
    stages = stages_of(folder.info.settings, LONG)
    match = Match(models, last, target, GrowingTable(folder.table_path(), progress), stages, EXECUTOR, progress)
    compare(match, ["multiplier"], seed=SEED)
    print("4/4 exporting, and measuring all networks whole")
    verify(models, None, target, table, progress)
    for file_format in ("onnx", "tflite"):
        print(f"    {exported(models, last, file_format)}")


def _print_summary(folder: RunFolder) -> None:
    """Print the original, the adapted network and the baseline side by side."""
    verified, finished = folder.verified, folder.finished
    last = max(verified)
    rows = [_row("original", verified[0], finished[0]), _row("adapted", verified[last], finished[last])]
    rows += [_row(item.name, item, item) for item in folder.baselines]
    print_table(
        ("network", "predicted ms", "measured ms", "95 % interval", "test accuracy"),
        rows,
        right=("predicted ms", "measured ms", "test accuracy"),
    )
    before, after = verified[0].measured_ms.value, verified[last].measured_ms.value
    print(
        f"measured, the adapted network takes {after / before:.0%} of the original's latency and is {before / after:.2f} times as "
        f"fast; the budget was {BUDGET}"
    )


def _row(name: str, latency: Verified | Baseline, quality: Finished | Baseline) -> tuple[str | None, ...]:
    measured, accuracy = latency.measured_ms, f"{100 * quality.test_accuracy:.1f} %"
    return (name, ms_text(latency.predicted_ms), ms_text(measured), interval_text(measured), accuracy)
