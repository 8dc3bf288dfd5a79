"""RUN/report.html: what an adaptation brought, on one page that opens anywhere, its images inside it.

Only what is in the run folder is said; what has not been measured yet is named, with the command that measures it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jinja2

from device_agents.support.atomic import write_whole
from netadapt.baselines import BASELINES, title_of
from netadapt.errors import RunError
from netadapt.reporting.charts import Point, accuracy_chart, bars_chart, prediction_chart
from netadapt.reporting.report_tables import Contents, Row, checks, guided, summary
from netadapt.resources import Budget, prefixed_text
from netadapt.runs.multi_seed import Spread
from netadapt.runs.records import TableFacts
from netadapt.runs.run_folder import RunFolder
from netadapt.settings import OPTIONS, value_text, values_of
from netadapt.training.types import Metric, Task

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class Section:
    """A chart of the page, or the sentence that stands in its place."""

    title: str
    file: str
    caption: str
    image: bytes | None
    missing: str

    @property
    def width_px(self) -> int:
        """Half of the image's own, which is made for screens of two pixels where one was; from the PNG's header."""
        return int.from_bytes((self.image or bytes(20))[16:20], "big") // 2

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.image or b"").decode()


def write_report(run: RunFolder) -> Path:
    """Write the page and its images into the run's folder; returns the page's path. `RunError` if there is no step yet."""
    contents = Contents.of(run)
    sections = all_sections(contents)
    page = render(contents, sections)
    for section in sections:
        if section.image is not None:
            write_whole(run.path / section.file, section.image, RunError)
        else:
            (run.path / section.file).unlink(missing_ok=True)  # an image of an earlier state would contradict the page
    write_whole(run.path / REPORT, page, RunError)
    return run.path / REPORT


def render(contents: Contents, sections: Sequence[Section]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "count": count_text,
        "score": lambda found: _figure(contents.task.accuracy, found),
        "others": partial(_others, contents.task),
        "percent": lambda fraction: f"{100 * fraction:.1f} %",
        "share": lambda fraction: f"{100 * fraction:.0f} %",
        "file_name": lambda path: Path(path).name,
        "ms": ms_text,
        "amount": lambda price: ms_text(price, 4) if contents.measurable else contents.info.goals[0].amount_text(price),
        "further": partial(_further_amounts, contents),
    }
    rows = summary(contents)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=contents,
        title=title(contents),
        rows=rows,
        guided=guided(rows),
        checks=list(checks(contents)),
        missing_kinds=[title_of(kind) for kind in BASELINES if kind not in {item.kind for item in contents.baselines}],
        sections=sections,
        headline=headline(rows, contents.task),
        conditions=conditions(contents),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _others(task: Task, metrics: Mapping[str, float | Spread]) -> list[str]:
    """What stands below the figure that picks."""
    return [f"{item.label} {_figure(item, metrics[item.name])}" for item in task.metrics if item.name in metrics]


def _further_amounts(contents: Contents, amounts: Mapping[str, float]) -> list[str]:
    """Of the second budget on, each with its name."""
    return [f"{goal.name} {goal.amount_text(amounts[goal.name])}" for goal in contents.info.goals[1:] if goal.name in amounts]


def _figure(figure: Metric, found: float | Spread) -> str:
    return found.text(figure) if isinstance(found, Spread) else figure.text(found)


def title(contents: Contents) -> str:
    return f"{contents.info.network} within {' and '.join(map(_budget_text, contents.info.goals))}"


def _budget_text(budget: Budget) -> str:
    of = f" on {budget.table}" if budget.table else ""
    if budget.fraction is not None:
        return f"{100 * budget.fraction:g} % of its {budget.resource}{of}"
    return budget.amount_text(budget.amount(0)) + of


def headline(rows: Sequence[Row], task: Task) -> str:
    """The result in one sentence, with no more certainty than it has."""
    if len(rows) < 2 or rows[1].name != "adapted":
        return "Only the original network so far."
    original, adapted = rows[0], rows[1]
    faster = adapted.speedup_over(original)
    how = "measured" if original.measured and adapted.measured else "predicted, not measured yet"
    speed = "" if faster is None else f"{faster:.2f}× as fast ({how}), "
    changes = ", ".join(
        f"{figure.label} {before.text(figure)} → {after.text(figure)}"
        for figure, before, after in _changes(task, original, adapted)
    )
    same = "" if original.accuracy_on == adapted.accuracy_on else ", which is not the same set"
    return (
        f"{speed}{changes} ({adapted.accuracy_on} set{same}), "
        f"{100 * adapted.macs / original.macs:.0f} % of the multiply-accumulates."
    )


def _changes(task: Task, original: Row, adapted: Row) -> Iterator[tuple[Metric, Spread, Spread]]:
    """Each figure that both have."""
    yield task.accuracy, original.accuracy, adapted.accuracy
    for figure in task.metrics:
        if figure.name in original.metrics and figure.name in adapted.metrics:
            yield figure, original.metrics[figure.name], adapted.metrics[figure.name]


def all_sections(contents: Contents) -> list[Section]:
    return [_accuracy_section(contents), _prediction_section(contents), _widths_section(contents), _layers_section(contents)]


def _accuracy_section(contents: Contents) -> Section:
    steps = [
        Point(contents.verified[step.iteration].measured_ms, Spread.of([step.accuracy]))
        for step in contents.steps
        if step.iteration in contents.verified
    ]
    finished = [
        Point(contents.verified[number].measured_ms, accuracy, _step_name(contents, number))
        for number, accuracy in contents.accuracy.items()
        if number in contents.verified
    ]
    baselines = [
        Point(item.measured_ms, Spread.of(item.accuracies), title_of(item.kind))
        for item in contents.baselines
        if item.measured_ms is not None
    ]
    return Section(
        f"{_at_the_start(contents.task.accuracy.label)} against latency",
        "accuracy.png",
        "Rings: every step measured, after its short-term fine-tune, on the holdout set. Filled: after the long-term fine-tune, "
        "on the test set. Squares: baselines, on the test set. Bars across: 95 % intervals of the latency; bars upright: the "
        "standard deviation over seeds.",
        accuracy_chart(steps, finished, baselines, contents.task.accuracy) if steps else None,
        f"No step has been measured on the device yet: `netadapt measure {contents.path}` does it.",
    )


def _step_name(contents: Contents, number: int) -> str:
    if number == 0:
        return "original"
    return f"adapted, step {number}" if number == contents.chosen.iteration else f"step {number}"


def _prediction_section(contents: Contents) -> Section:
    items = [item for _, item in sorted(contents.verified.items()) if item.error_percent is not None]
    errors = [abs(item.error_percent or 0.0) for item in items]
    said = f"mean error {sum(errors) / len(errors):.1f} %, worst {max(errors):.1f} %" if items else ""
    return Section(
        "Predicted against measured",
        "prediction.png",
        f"Each step's whole-network latency as predicted by the table and as measured, on the line where both agree: {said}.",
        prediction_chart(items) if items else None,
        f"No prediction has been checked on the device yet: `netadapt measure {contents.path}` does it.",
    )


def _widths_section(contents: Contents) -> Section:
    before, after = contents.steps[0].widths, contents.chosen.widths
    rows = [(block, float(width), float(after[block])) for block, width in before.items()]
    texts = [change_text(str(width), str(after[block])) for block, width in before.items()]
    return Section(
        "Widths before and after",
        "widths.png",
        f"Channels of every block: pale, the original; blue, step {contents.chosen.iteration}.",
        bars_chart(rows, "channels", texts) if rows and contents.chosen.iteration > 0 else None,
        f"Nothing has been pruned yet: `netadapt run --resume` goes on with {contents.path}.",
    )


def _layers_section(contents: Contents) -> Section:
    rows = [(item.name, item.ms_before, item.ms_after) for item in contents.layers]
    texts = [change_text(ms_text(before), ms_text(after)) for _, before, after in rows]
    return Section(
        "Latency layer by layer",
        "layers.png",
        "By the table: pale, the original; blue, the last step.",
        bars_chart(rows, "latency (ms)", texts) if rows else None,
        f"The layers' latencies are not in this run yet: `netadapt measure {contents.path}` adds them.",
    )


def conditions(contents: Contents) -> list[tuple[str, str]]:
    """Under what all this holds, as pairs of a name and what it was."""
    info = contents.info
    pairs = [("network", info.network), ("budget", ", ".join(info.budgets)), ("begun", _date(info.created_utc))]
    if not info.tables:
        pairs.append(("table", "none: the budget is counted on the network alone"))
    for name, table in info.tables.items():
        pairs += [(f"{name} {what}".lstrip(), said) for what, said in _about(table, info.created_utc)]
    measured = sorted({f"{item.target.device}, {item.target.runtime}" for item in contents.verified.values()})
    pairs.append(("measured on", "; ".join(measured) or "nothing measured yet"))
    values = values_of(info.settings)
    settings = [(option.lstrip("-").replace("-", " "), value_text(values[path])) for path, option in OPTIONS.items()]
    return pairs + [pair for pair in settings if pair[0] != "network"] + list(info.versions.items())


def _about(table: TableFacts, begun: str) -> list[tuple[str, str]]:
    doubted = not table.verified and "unverified" not in table.held_out
    return [
        ("device", f"{table.device}: {table.cpu}"),
        ("runtime", f"{table.runtime} {table.runtime_version}, threads {table.threads}"),
        ("table", f"{table.path}, built {_date(table.created_utc)}{_age(table.created_utc, begun)}"),
        ("error of the table", f"unverified: {table.held_out}" if doubted else table.held_out),
    ]


def _date(moment: str) -> str:
    """A date as it is recorded, made readable; as it stands if it cannot be read."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return moment


def _age(built: str, begun: str) -> str:
    """How old the table was when the run began; left out if a date cannot be read."""
    try:
        days = (datetime.fromisoformat(begun) - datetime.fromisoformat(built)).total_seconds() / 86400
    except (TypeError, ValueError):
        return ""
    return f", {days:.1f} days before this run" if days >= 0.1 else ", just before this run"


def _at_the_start(label: str) -> str:
    """With a capital letter, unless it begins with a symbol: a Δ1 is no δ1."""
    return label.capitalize() if label[0].isascii() else label


def ms_text(latency_ms: float, digits: int = 3) -> str:
    """To so many significant digits, trailing zeros kept so that columns line up; all digits before the point.

    The share of a tiny layer that the calibration takes below nothing is 0.
    """
    whole = math.floor(math.log10(latency_ms)) + 1 if latency_ms > 0 else 1
    return f"{max(0.0, latency_ms):.{max(0, digits - whole)}f}"


def change_text(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def count_text(number: int) -> str:
    """41.2 M, 824 k."""
    return prefixed_text(float(number), "").strip()
