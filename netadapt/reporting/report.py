"""The report of a run, RUN/report.html: one page with its images inside, which opens offline.

The page has nothing but what is in the run folder, and how far the run's super-network is known to order networks as trainings
do. Where something is missing, it names the command that adds it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jinja2

from device_agents.support.atomic import write_whole
from netadapt.baselines import title_of
from netadapt.baselines.compare import applicable_kinds
from netadapt.errors import RunError
from netadapt.reporting.charts import Point, accuracy_chart, bars_chart, history_chart, prediction_chart
from netadapt.reporting.report_tables import Contents, Row, checks, guided, summary
from netadapt.resources import Budget, prefixed_text
from netadapt.runs.multi_seed import Spread
from netadapt.runs.records import TableFacts
from netadapt.runs.run_folder import RunFolder
from netadapt.settings import OPTIONS, value_text, values_of
from netadapt.supernet.ranking import trust_in
from netadapt.training.types import Metric, Task
from netadapt.users_code import short_name
from profiler.runtimes import MODELLED_RUNTIME

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page with a chart or, where there is no data for it, a sentence in its place."""

    title: str
    file: str
    """The name of the image's file in the run folder."""
    caption: str
    image: bytes | None
    """The chart as a PNG image."""
    missing: str
    """The sentence if there is no image: what is missing, and the command that adds it."""

    @property
    def width_px(self) -> int:
        """The width on the page: half of that in the PNG's header, as images are drawn for screens of twice the usual density."""
        return int.from_bytes((self.image or bytes(20))[16:20], "big") // 2

    @property
    def data_uri(self) -> str:
        """The image as the source of an HTML element."""
        return "data:image/png;base64," + base64.b64encode(self.image or b"").decode()


def write_report(run: RunFolder) -> Path:
    """Write the page and its images into the run folder and return the page's path. `RunError` if there is no step yet."""
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
    """The page as HTML."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "count": lambda number: prefixed_text(float(number), "").strip(),  # 41.2 M
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
        missing_kinds=[
            title_of(kind) for kind in applicable_kinds(contents.info) if kind not in {item.kind for item in contents.baselines}
        ],
        sections=sections,
        headline=headline(rows, contents.task),
        conditions=conditions(contents),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _others(task: Task, metrics: Mapping[str, float | Spread]) -> list[str]:
    """The task's other figures as texts, which stand below the accuracy."""
    return [f"{item.label} {_figure(item, metrics[item.name])}" for item in task.metrics if item.name in metrics]


def _further_amounts(contents: Contents, amounts: Mapping[str, float]) -> list[str]:
    """The amounts of all budgets but the first as texts, each with the budget's name."""
    return [f"{goal.name} {goal.amount_text(amounts[goal.name])}" for goal in contents.info.goals[1:] if goal.name in amounts]


def _figure(figure: Metric, found: float | Spread) -> str:
    return found.text(figure) if isinstance(found, Spread) else figure.text(found)


def title(contents: Contents) -> str:
    """The heading of the page: mobilenet_v1 within 60 % of its latency on pixel and 2 MB."""

    def budget_text(budget: Budget) -> str:
        of = f" on {budget.table}" if budget.table else ""
        if budget.fraction is not None:
            return f"{100 * budget.fraction:g} % of its {budget.resource}{of}"
        return budget.amount_text(budget.amount(0)) + of

    return f"{short_name(contents.info.network)} within {' and '.join(map(budget_text, contents.info.goals))}"


def headline(rows: Sequence[Row], task: Task) -> str:
    """The result in one sentence, which says whether latencies are measured and which images accuracies are of."""
    if len(rows) < 2 or rows[1].name != "adapted":
        return "Only the original network so far."
    original, adapted = rows[0], rows[1]
    faster = adapted.speedup_over(original)
    how = "measured" if original.measured and adapted.measured else "predicted, not measured yet"
    speed = "" if faster is None else f"{faster:.2f}× as fast ({how}), "
    figures = [(task.accuracy, original.accuracy, adapted.accuracy)]
    for figure in task.metrics:
        if figure.name in original.metrics and figure.name in adapted.metrics:
            figures.append((figure, original.metrics[figure.name], adapted.metrics[figure.name]))
    changes = ", ".join(f"{figure.label} {before.text(figure)} → {after.text(figure)}" for figure, before, after in figures)
    same = "" if original.accuracy_on == adapted.accuracy_on else ", which is not the same set"
    return (
        f"{speed}{changes} ({adapted.accuracy_on} set{same}), "
        f"{100 * adapted.macs / original.macs:.0f} % of the multiply-accumulates."
    )


def all_sections(contents: Contents) -> list[Section]:
    """The sections with charts, in their order on the page."""
    return [
        _accuracy_section(contents), _prediction_section(contents), _history_section(contents), _widths_section(contents),
        _layers_section(contents),
    ]  # fmt: skip


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
    label = contents.task.accuracy.label
    return Section(
        f"{label.capitalize() if label[0].isascii() else label} against latency",  # δ1 has no capital letter: Δ1 is another symbol
        "accuracy.png",
        "Rings: every measured step after its short-term fine-tune, on the holdout set. Filled circles: after the long-term "
        "fine-tune, on the test set. Squares: baselines, on the test set. Horizontal bars: 95 % intervals of the latency. Vertical "
        "bars: standard deviations over seeds.",
        accuracy_chart(steps, finished, baselines, contents.task.accuracy) if steps else None,
        f"No step has been measured on the device yet: `netadapt measure {contents.path}` measures them all.",
    )


def _step_name(contents: Contents, number: int) -> str:
    if number == 0:
        return "original"
    return f"adapted, step {number}" if number == contents.chosen.iteration else f"step {number}"


def _prediction_section(contents: Contents) -> Section:
    items = [item for _, item in sorted(contents.verified.items()) if item.error_percent is not None]
    errors = [abs(item.error_percent or 0.0) for item in items]
    error = f"mean error {sum(errors) / len(errors):.1f} %, worst {max(errors):.1f} %" if items else ""
    return Section(
        "Predicted against measured",
        "prediction.png",
        f"The latency of each step's network as the table predicts it and as it was measured; on the line both are equal: {error}.",
        prediction_chart(items) if items else None,
        _until_measured(
            contents, f"No prediction has been checked on the device yet: `netadapt measure {contents.path}` checks them."
        ),
    )


def _until_measured(contents: Contents, missing: str) -> str:
    """The sentence, or another for a run none of whose tables is of a device that can be measured."""
    if any(table.runtime != MODELLED_RUNTIME for table in contents.info.tables.values()):
        return missing
    return "This run has no latency table of a device that can be measured."


def _history_section(contents: Contents) -> Section:
    return Section(
        "Which block was narrowed when",
        "history.png",
        "A row for each block, with its width in the original network; a column for each step. The paler, the fewer channels are "
        "left; a number is the width to which the step has narrowed the block.",
        history_chart([step.widths for step in contents.steps]) if len(contents.steps) > 1 else None,
        f"Nothing has been pruned yet: `netadapt resume {contents.path}` goes on.",
    )


def _widths_section(contents: Contents) -> Section:
    before, after = contents.steps[0].widths, contents.chosen.widths
    rows = [(block, float(width), float(after[block])) for block, width in before.items()]
    texts = [change_text(str(width), str(after[block])) for block, width in before.items()]
    return Section(
        "Widths before and after",
        "widths.png",
        f"Channels of every block: of the original in pale, of step {contents.chosen.iteration} in blue.",
        bars_chart(rows, "channels", texts) if rows and contents.chosen.iteration > 0 else None,
        f"Nothing has been pruned yet: `netadapt resume {contents.path}` goes on.",
    )


def _layers_section(contents: Contents) -> Section:
    rows = [(item.name, item.ms_before, item.ms_after) for item in contents.layers]
    texts = [change_text(ms_text(before), ms_text(after)) for _, before, after in rows]
    return Section(
        "Latency layer by layer",
        "layers.png",
        "As the table predicts it: of the original in pale, of the last step in blue.",
        bars_chart(rows, "latency (ms)", texts) if rows else None,
        _until_measured(
            contents, f"The latencies of layers are not in this run yet: `netadapt measure {contents.path}` adds them."
        ),
    )


def conditions(contents: Contents) -> list[tuple[str, str]]:
    """The conditions of the run as pairs of name and value: network, budgets, tables, settings and versions."""
    info = contents.info
    pairs = [("network", info.network), ("budget", ", ".join(info.budgets)), ("begun", _date(info.created_utc))]
    if not info.tables:
        pairs.append(("table", "none: the budget does not depend on a device"))
    for name, table in info.tables.items():
        pairs += [(f"{name} {what}".lstrip(), value) for what, value in _table_conditions(table, info.created_utc)]
    if info.supernet is not None:
        pairs += [
            ("super-network", f"{info.supernet.path}, sha256 {info.supernet.sha256[:16]}"),
            ("its order", trust_in(info.supernet)),
        ]
    measured = sorted({f"{item.target.device}, {item.target.runtime}" for item in contents.verified.values()})
    if (known := info.settings.data.known) is not None:
        pairs.append(("inputs", known.normalisation))
    pairs.append(("measured on", "; ".join(measured) or "nothing measured yet"))
    values = values_of(info.settings)
    settings = [(option.lstrip("-").replace("-", " "), value_text(values[path])) for path, option in OPTIONS.items()]
    return pairs + [pair for pair in settings if pair[0] != "network"] + list(info.versions.items())


def _table_conditions(table: TableFacts, begun: str) -> list[tuple[str, str]]:
    """The conditions of one table, for a run that began at that date."""
    doubted = not table.verified and "unverified" not in table.held_out
    return [
        ("device", f"{table.device}: {table.cpu}"),
        ("runtime", f"{table.runtime} {table.runtime_version}, threads {table.threads}"),
        ("table", f"{table.path}, built {_date(table.created_utc)}{_age(table.created_utc, begun)}"),
        ("error of the table", f"unverified: {table.held_out}" if doubted else table.held_out),
    ]


def _date(moment: str) -> str:
    """A recorded date, such as 2026-01-31T08:00:00+00:00, as text for the page; unchanged if it is no such date."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return moment


def _age(built: str, begun: str) -> str:
    """The table's age at the beginning of the run, with a comma in front; empty if a date cannot be read."""
    try:
        days = (datetime.fromisoformat(begun) - datetime.fromisoformat(built)).total_seconds() / 86400
    except (TypeError, ValueError):
        return ""
    return f", {days:.1f} days before this run" if days >= 0.1 else ", just before this run"


def ms_text(latency_ms: float, digits: int = 3) -> str:
    """A latency as text with so many significant digits, and always with all digits before the decimal point.

    Trailing zeros are kept, so that columns line up. Negative latencies, as a calibration may give a tiny layer, become 0.
    """
    whole = math.floor(math.log10(latency_ms)) + 1 if latency_ms > 0 else 1
    return f"{max(0.0, latency_ms):.{max(0, digits - whole)}f}"


def change_text(before: str, after: str) -> str:
    """Both texts with an arrow, or one if they are equal."""
    return before if before == after else f"{before} → {after}"
