"""The output of `netadapt`'s commands: typed results as JSON-ready data, and as tables and sentences for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netadapt.baselines import title_of
from netadapt.networks import Description
from netadapt.networks.planning import PlanSummary
from netadapt.resources import Budget
from netadapt.runs.history import History
from netadapt.runs.intervals import interval_text, ms_text
from netadapt.runs.multi_seed import Spread, of_each
from netadapt.runs.records import Baseline, ExportedFile, Finished, RunInfo, Verified
from netadapt.search.types import Step
from netadapt.supernet.folder import SuperNetworkFolder
from netadapt.training.tasks import scores_text
from netadapt.training.types import Task
from profiler.console import count, print_json, print_table
from profiler.interval import Interval
from profiler.runtimes import MODELLED_RUNTIME


def print_networks(found: Sequence[Description]) -> None:
    """A table of networks and their sizes."""
    rows = [(item.name, count(item.parameters), count(item.macs), "x".join(map(str, item.input)), item.blocks) for item in found]
    print_table(("network", "parameters", "MACs", "input", "blocks"), rows, right=("parameters", "MACs", "blocks"))


def plan_lines(done: PlanSummary) -> Iterator[str]:
    """A summary of a plan that was written."""
    yield f"{done.plan}: {done.blocks} blocks, which can have {done.possible_layers} different layers"
    yield "  `profile build` measures a few hundred of these layers, those that reduce the table's error most;"
    yield f"  {done.fit} networks of random widths to fit the calibration on, and {done.check} to compute the held-out error from"
    if done.onnx_only:
        yield f"  it can be built for ONNX files only: there is no form of ours in TFLite of {', '.join(done.onnx_only)}"
    for layer, reason in done.kept.items():
        yield f"  {layer} keeps its width: {reason}"
    for remark in done.remarks:
        yield f"  {remark}"
    yield f"tried in {sum(part.seconds for part in done.tried):.1f} s, as a run would:"
    for part in done.tried:
        yield f"  {part.line()}"


@dataclass(frozen=True, slots=True)
class StepPrinter:
    """Prints each step of a run when it is recorded, and its warnings to standard error."""

    as_json: bool
    """True to print everything to standard error, as standard output is for JSON."""

    def __call__(self, step: Step, info: RunInfo) -> None:
        """Print a line about the step, and warnings about its tables, its candidates and its predictions."""
        for table in info.tables.values() if step.iteration == 0 else ():
            if not table.verified:
                print(f"warning: the table is {table.held_out}; see `profile check {table.path}`", file=sys.stderr)
        print(step_text(step, info.goals, info.settings.task), file=sys.stderr if self.as_json else sys.stdout, flush=True)
        if warning := choice_warning(step):
            print(f"warning: {warning}", file=sys.stderr)
        for goal in info.goals:
            if goal.name in step.misses:
                print(f"warning: {step.misses[goal.name].sentence(goal)}", file=sys.stderr)


def print_run(history: History, run: Path, *, as_json: bool) -> None:
    """The steps of a run that is within its budgets as JSON, or the commands that come next."""
    if as_json:
        print_json({"run": str(run), "steps": history_data(history)})
    else:
        print(f"the budget is met; next, `netadapt finetune {run}` trains the last step to convergence")
        tables = history.info.tables.values()
        if not tables or any(table.runtime != MODELLED_RUNTIME for table in tables):  # nothing can be measured on what is modelled
            print(f"and `netadapt measure {run}` measures every step on the device")


def print_supernet(supernet: SuperNetworkFolder, *, as_json: bool) -> None:
    """What came of a super-network's training, as JSON or as lines with the command that comes next."""
    trained, task = supernet.require_trained(), supernet.about.settings.task
    if as_json:
        print_json({"supernet": str(supernet.path), **asdict(trained)})
        return
    for what, scores in (("at full width", trained.widest), ("at its narrowest", trained.narrowest)):
        print(f"{what}: {scores_text(task, scores.accuracy, scores.metrics)} on the holdout")
    print(f"next, `netadapt run … --search descent --supernet {supernet.path}` searches in it")


def step_text(step: Step, goals: Sequence[Budget], task: Task) -> str:
    """One line about a step: its pruned blocks, prices and scores."""
    what = " + ".join(f"{block} → {step.widths[block] or 'removed'}" for block in step.blocks) or "original"
    scores = scores_text(task, step.accuracy, step.metrics)
    return f"step {step.iteration:2d}: {what}, {prices_text(step.prices, goals)}, {scores} on the holdout"


def choice_warning(step: Step) -> str | None:
    """A warning for a step with a single candidate, though the network has several blocks; None for other steps."""
    if len(step.results) > 1 or len(step.blocks) != 1 or len(step.widths) == 1:
        return None
    return (
        f"step {step.iteration} had a single candidate, as only {step.blocks[0]} can bring its reduction alone; "
        "use a smaller --step, or --if-no-candidate join"
    )


def prices_text(prices: Mapping[str, float], goals: Sequence[Budget]) -> str:
    """The prices as text: 5.91 ms, or for several budgets pixel 5.91 ms, macs 41.2 M MACs."""
    if len(goals) == 1:
        return goals[0].amount_text(prices[goals[0].name])
    return ", ".join(f"{goal.name} {goal.amount_text(prices[goal.name])}" for goal in goals)


def history_data(history: History) -> list[dict[str, Any]]:
    """The steps of a run, JSON-ready."""
    unit = history.info.goals[0].unit
    return [
        {
            "step": row.step.iteration,
            "blocks": list(row.step.blocks),
            "price": row.step.price,
            "unit": unit,
            "prices": dict(row.step.prices),
            "bias": dict(row.step.bias),
            "measured_ms": row.measured_ms,
            "holdout_accuracy": row.step.accuracy,
            "holdout_metrics": dict(row.step.metrics),
            "test_accuracy": row.finished.test_accuracy if row.finished else None,
            "test_metrics": dict(row.finished.metrics) if row.finished else {},
            "test_accuracies": list(row.finished.accuracies) if row.finished else [],
            "macs": row.size.macs,
            "parameters": row.size.parameters,
            "widths": dict(row.size.widths),
        }
        for row in history.steps
    ]


def print_history(history: History) -> None:
    """A table with the steps of a run."""
    goals, task = history.info.goals, history.info.settings.task
    cells = [
        (
            row.step.iteration,
            _pruned_text(row.step.blocks),
            prices_text(row.step.prices, goals),
            None if row.measured_ms is None else f"{row.measured_ms:.3f}",
            *_figure_texts(task, row.step.accuracy, row.step.metrics),
            *_figure_texts(
                task, row.finished.test_accuracy if row.finished else None, row.finished.metrics if row.finished else {}
            ),
            count(row.size.macs),
            count(row.size.parameters),
        )
        for row in history.steps
    ]
    figures = [f" {figure.label}" for figure in (task.accuracy, *task.metrics)] if task.metrics else [""]
    judged = [f"{part}{figure}" for part in ("holdout", "test") for figure in figures]
    columns = ("step", "pruned", "predicted", "measured ms", *judged, "MACs", "parameters")
    print_table(columns, cells, right=tuple(name for name in columns if name != "pruned"))


def finished_data(item: Finished) -> dict[str, Any]:
    """A fine-tuned step, JSON-ready."""
    settings = item.settings
    return {
        "step": item.step,
        "weights": item.weights,
        "test_accuracy": item.test_accuracy,
        "epochs": settings.epochs or 0.0,
        "metrics": dict(item.metrics),
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "augment": settings.augment,
        "training": list(item.training),
        "runs": [asdict(run) for run in item.runs],
    }


def finished_lines(items: Sequence[Finished], task: Task) -> Iterator[str]:
    """A line for each fine-tuned step."""
    return (f"step {item.step}: {over_seeds_text(task, item)} on the test images" for item in items)


def verified_data(item: Verified) -> dict[str, Any]:
    """A measured step, JSON-ready."""
    target = {"runtime": item.target.runtime, "device": item.target.device}
    latencies = item.measured_ms.to_dict("measured_ms") | _interval_data("predicted_ms", item.predicted_ms)
    return {"step": item.step, **target, **latencies, "error_percent": item.error_percent}


def print_verified(found: Sequence[Verified]) -> None:
    """A table of predicted and measured latencies."""
    cells = [
        (
            item.step,
            ms_text(item.predicted_ms),
            ms_text(item.measured_ms),
            interval_text(item.measured_ms),
            None if item.error_percent is None else f"{item.error_percent:+.1f} %",
        )
        for item in found
    ]
    columns = ("step", "predicted ms", "measured ms", "95 % interval", "error")
    print_table(columns, cells, right=("step", "predicted ms", "measured ms", "error"))


def baseline_data(item: Baseline) -> dict[str, Any]:
    """A baseline, JSON-ready, with mean and spread over its seeds."""
    accuracy, others = Spread.of(item.accuracies), of_each(item.all_metrics)
    return {
        "name": item.name,
        **asdict(item.size),
        "test_accuracy": item.test_accuracy,
        **_interval_data("measured_ms", item.measured_ms),
        **_interval_data("predicted_ms", item.predicted_ms),
        "metrics": dict(item.metrics),
        "kind": item.kind,
        "step": item.step,
        "training": list(item.training),
        "runs": [asdict(run) for run in item.runs],
        **asdict(item.target),
        "accuracy": asdict(accuracy),
        "figures": {name: asdict(value) for name, value in others.items()},
    }


def print_baselines(
    found: Sequence[Baseline], finished: Mapping[str, Finished], measured: Mapping[str, Verified], task: Task
) -> None:
    """A table of the run's networks and the baselines; `finished` and `measured` have the run's networks by their names."""
    rows = [(name, ms_text(measured[name].measured_ms), over_seeds_text(task, item)) for name, item in finished.items()]
    rows += [(title_of(item.kind), ms_text(item.measured_ms), over_seeds_text(task, item)) for item in found]
    count = len(found[0].accuracies)
    seeds = "1 seed" if count == 1 else f"mean ± standard deviation of {count} seeds"
    print_table(("network", "measured ms", f"on the test images, {seeds}"), rows, right=("measured ms",))


def over_seeds_text(task: Task, item: Baseline | Finished) -> str:
    """A network's scores as text: `96.5 ± 0.3 %`, or each figure with its name for a task that has several."""
    accuracy, others = Spread.of(item.accuracies), of_each(item.all_metrics)
    if not task.metrics:
        return accuracy.text(task.accuracy)
    known = [(figure, others[figure.name]) for figure in task.metrics if figure.name in others]
    return ", ".join(f"{figure.label} {value.text(figure)}" for figure, value in ((task.accuracy, accuracy), *known))


def exported_data(item: ExportedFile) -> dict[str, Any]:
    """An exported file, JSON-ready."""
    return {
        "step": item.step,
        "path": item.path,
        "sha256": item.sha256,
        "format": item.format,
        "precision": item.precision,
        "size_bytes": item.size_bytes,
        "created_utc": item.created_utc,
        **asdict(item.agreement),
        "calibration": item.calibration,
        "accuracy": item.scores.accuracy,
        "torch_accuracy": item.torch_scores.accuracy,
        "metrics": dict(item.scores.metrics),
        "torch_metrics": dict(item.torch_scores.metrics),
        "device": item.target.device if item.target else None,
        "runtime": item.target.runtime if item.target else None,
        **_interval_data("latency_ms", item.latency_ms),
    }


def exported_lines(item: ExportedFile, task: Task) -> Iterator[str]:
    """A summary of an exported file: its agreement with PyTorch, its scores and, if it was measured, its latency."""
    near = item.agreement
    yield f"{item.path}: step {item.step}, {item.precision}, {count(item.size_bytes)}B"
    if item.precision == "float32":
        yield f"  outputs within {near.max_abs_difference:.1e} of PyTorch's on {near.images} test images"
    else:
        same = "" if near.top1_agreement is None else f", the same class for {100 * near.top1_agreement:.1f} %"
        yield f"  outputs and PyTorch's on {near.images} test images: cosine similarity {near.cosine_similarity:.4f}{same}"
    yield f"  {scores_text(task, item.scores.accuracy, item.scores.metrics)} on the test images, run by the file's own runtime"
    yield f"  {scores_text(task, item.torch_scores.accuracy, item.torch_scores.metrics)} in PyTorch"
    if item.latency_ms is not None and item.target is not None:
        interval = f"95 % interval {interval_text(item.latency_ms)}"
        yield f"  {ms_text(item.latency_ms)} ms on {item.target.device} with {item.target.runtime}, {interval}"


def _interval_data(name: str, interval: Interval | None) -> dict[str, float | None]:
    return {name: None, f"{name}_low": None, f"{name}_high": None} if interval is None else interval.to_dict(name)


def _pruned_text(blocks: Sequence[str]) -> str:
    if not blocks:
        return "original"
    return blocks[0] + (f" and {len(blocks) - 1} more" if len(blocks) > 1 else "")


def _figure_texts(task: Task, accuracy: float | None, metrics: Mapping[str, float]) -> Iterator[str | None]:
    """A cell for each figure of the task; None, which is printed as a dash, where it is not known."""
    yield None if accuracy is None else task.accuracy.text(accuracy)
    for figure in task.metrics:
        yield figure.text(metrics[figure.name]) if figure.name in metrics else None
