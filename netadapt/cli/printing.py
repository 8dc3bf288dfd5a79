"""What `netadapt`'s commands print: tables and sentences about runs and the networks in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from netadapt.baselines import title_of
from netadapt.resources import Budget, amount_text
from netadapt.runs.multi_seed import Spread, of_each
from netadapt.runs.records import Baseline, Delivered, Finished, Verified
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step
from netadapt.training.tasks import scores_text
from netadapt.training.types import Task
from profiler.console import count, print_table


def step_text(step: Step, goals: Sequence[Budget], task: Task) -> str:
    """One line about a step as it is recorded."""
    what = " + ".join(f"{block} → {step.widths[block]}" for block in step.blocks) or "original"
    scores = scores_text(task, step.accuracy, step.metrics)
    return f"step {step.iteration:2d}: {what}, {prices_text(step.prices, goals)}, {scores} on the holdout"


def choice_warning(step: Step) -> str | None:
    """Of a step for which a single block was large enough, though there are several; None where there was a choice."""
    if len(step.results) > 1 or len(step.blocks) != 1 or len(step.widths) == 1:
        return None
    return (
        f"step {step.iteration} had no choice: only {step.blocks[0]} could bring it alone; "
        "a smaller --step, or --if-no-candidate join, leaves more"
    )


def prices_text(prices: Mapping[str, float], goals: Sequence[Budget]) -> str:
    """5.91 ms; of several budgets each with its name: pixel 5.91 ms, macs 41.2 M MACs."""
    if len(goals) == 1:
        return amount_text(prices[goals[0].name], goals[0].unit)
    return ", ".join(f"{goal.name} {amount_text(prices[goal.name], goal.unit)}" for goal in goals)


def history_data(folder: RunFolder, unit: str) -> Iterator[dict[str, Any]]:
    """Every step, JSON-ready."""
    finished, verified = folder.finished, folder.verified
    for step in folder.steps:
        graph, done, checked = folder.graph.at_widths(step.widths), finished.get(step.iteration), verified.get(step.iteration)
        yield {
            "step": step.iteration,
            "blocks": list(step.blocks),
            "price": step.price,
            "unit": unit,
            "prices": dict(step.prices),
            "bias": dict(step.bias),
            "measured_ms": checked.measured_ms if checked else _measured_in_the_loop(step, folder.info.goals),
            "holdout_accuracy": step.accuracy,
            "holdout_metrics": dict(step.metrics),
            "test_accuracy": done.test_accuracy if done else None,
            "test_metrics": dict(done.metrics) if done else {},
            "test_accuracies": list(done.accuracies) if done else [],
            "macs": graph.macs,
            "parameters": graph.parameters,
            "widths": dict(step.widths),
        }


def print_history(rows: Sequence[Mapping[str, Any]], goals: Sequence[Budget], task: Task) -> None:
    """The family of networks, from `history_data`."""
    cells = [
        (
            row["step"],
            _pruned_text(row["blocks"]),
            prices_text(row["prices"], goals),
            _ms_text(row["measured_ms"]),
            *_figure_texts(task, row["holdout_accuracy"], row["holdout_metrics"]),
            *_figure_texts(task, row["test_accuracy"], row["test_metrics"]),
            count(row["macs"]),
            count(row["parameters"]),
        )
        for row in rows
    ]
    figures = [f" {figure.label}" for figure in (task.accuracy, *task.metrics)] if task.metrics else [""]
    judged = [f"{part}{figure}" for part in ("holdout", "test") for figure in figures]
    columns = ("step", "pruned", "predicted", "measured ms", *judged, "MACs", "parameters")
    print_table(columns, cells, right=tuple(name for name in columns if name != "pruned"))


def print_verified(found: Sequence[Verified]) -> None:
    """Predicted against measured."""
    cells = [
        (
            item.step,
            _ms_text(item.predicted_ms),
            _ms_text(item.measured_ms),
            f"{item.measured_ms_low:.3f} … {item.measured_ms_high:.3f}",
            None if item.error_percent is None else f"{item.error_percent:+.1f} %",
        )
        for item in found
    ]
    columns = ("step", "predicted ms", "measured ms", "95 % interval", "error")
    print_table(columns, cells, right=("step", "predicted ms", "measured ms", "error"))


def baseline_data(item: Baseline) -> dict[str, Any]:
    """JSON-ready, with mean and spread over its seeds."""
    accuracy, others = Spread.of(item.accuracies), of_each(item.all_metrics)
    return asdict(item) | {"accuracy": asdict(accuracy), "figures": {name: asdict(value) for name, value in others.items()}}


def print_baselines(
    found: Sequence[Baseline], finished: Mapping[str, Finished], measured_ms: Mapping[str, float], task: Task
) -> None:
    """The networks of the run, by what they are called, and those that they have to beat."""
    rows = [(name, _ms_text(measured_ms[name]), over_seeds_text(task, item)) for name, item in finished.items()]
    rows += [(title_of(item.kind), _ms_text(item.measured_ms), over_seeds_text(task, item)) for item in found]
    print_table(("network", "measured ms", f"on the test images, {_seeds_text(found[0])}"), rows, right=("measured ms",))


def over_seeds_text(task: Task, item: Baseline | Finished) -> str:
    """What a network reaches: `96.5 ± 0.3 %`; of a task with several figures each with its name."""
    accuracy, others = Spread.of(item.accuracies), of_each(item.all_metrics)
    if not task.metrics:
        return accuracy.text(task.accuracy)
    known = [(figure, others[figure.name]) for figure in task.metrics if figure.name in others]
    return ", ".join(f"{figure.label} {value.text(figure)}" for figure, value in ((task.accuracy, accuracy), *known))


def delivered_lines(item: Delivered, task: Task) -> Iterator[str]:
    """What is known of a file that was made to be shipped."""
    yield f"{item.path}: step {item.step}, {item.precision}, {count(item.size_bytes)}B"
    if item.precision == "float32":
        yield f"  outputs within {item.max_abs_difference:.1e} of PyTorch's on {item.images} test images"
    else:
        same = "" if item.top1_agreement is None else f", the same class for {100 * item.top1_agreement:.1f} %"
        yield f"  outputs beside PyTorch's on {item.images} test images: cosine similarity {item.cosine_similarity:.4f}{same}"
    if item.accuracy is not None and item.torch_accuracy is not None:
        yield f"  {scores_text(task, item.accuracy, item.metrics)} on the test images, run by its own runtime"
        yield f"  {scores_text(task, item.torch_accuracy, item.torch_metrics)} in PyTorch"
    if item.latency_ms is not None:
        interval = f"95 % interval {item.latency_ms_low:.3f} … {item.latency_ms_high:.3f}"
        yield f"  {item.latency_ms:.3f} ms on {item.device} with {item.runtime}, {interval}"


def _pruned_text(blocks: Sequence[str]) -> str:
    if not blocks:
        return "original"
    return blocks[0] + (f" and {len(blocks) - 1} more" if len(blocks) > 1 else "")


def _measured_in_the_loop(step: Step, goals: Sequence[Budget]) -> float | None:
    """For the first latency budget, where winners were measured."""
    found = (step.checks.get(goal.name) for goal in goals if goal.resource == "latency")
    return next((check.measured for check in found if check is not None), None)


def _figure_texts(task: Task, accuracy: float | None, metrics: Mapping[str, float]) -> Iterator[str | None]:
    """A cell for each figure of the task."""
    yield None if accuracy is None else task.accuracy.text(accuracy)
    for figure in task.metrics:
        yield figure.text(metrics[figure.name]) if figure.name in metrics else None


def _ms_text(latency_ms: float | None) -> str | None:
    return None if latency_ms is None else f"{latency_ms:.3f}"


def _seeds_text(item: Baseline | Finished) -> str:
    count = len(item.accuracies)
    return "1 seed" if count == 1 else f"mean ± standard deviation of {count} seeds"
