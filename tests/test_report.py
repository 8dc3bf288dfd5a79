"""The report: one page that needs nothing else, says what is in the run and what is not, and never a number that is not there."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from sample_run import FACTS, GRAPH, INFO, LONG_TERM, adapted_run, complete_run

from netadapt.errors import RunError
from netadapt.reporting.charts import DPI, Point, accuracy_chart, bars_chart, history_chart, prediction_chart
from netadapt.reporting.report import all_sections, conditions, headline, ms_text, render, write_report
from netadapt.reporting.report_tables import Contents, Row, checks, guided, summary
from netadapt.runs.multi_seed import Spread
from netadapt.runs.records import Finished, TableFacts, TargetName, Trained, Verified
from netadapt.runs.run_folder import RunFolder
from netadapt.training.tasks import open_task
from profiler.interval import Interval
from profiler.runtimes import MODELLED_RUNTIME

FIVE = Interval(5.0, 4.9, 5.1)
CHARTS = ["accuracy.png", "history.png", "layers.png", "prediction.png", "widths.png"]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = complete_run(tmp_path_factory.mktemp("report") / "run")
    write_report(run)
    return run


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = adapted_run(tmp_path_factory.mktemp("report") / "run")
    write_report(run)
    return run


def page(run: RunFolder) -> str:
    return (run.path / "report.html").read_text()


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_the_page_needs_no_other_file_and_no_script(complete: RunFolder) -> None:
    links = Links()
    links.feed(page(complete))
    assert links.found and all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not {"script", "link", "iframe"} & set(links.tags)
    assert "url(" not in page(complete) and "@import" not in page(complete)


def test_the_images_stand_beside_the_page_too(complete: RunFolder) -> None:
    assert sorted(path.name for path in complete.path.glob("*.png")) == CHARTS


def test_the_summary_compares_original_adapted_and_each_kind_of_baseline(complete: RunFolder) -> None:
    rows = summary(Contents.of(complete))
    assert [row.kind or row.name for row in rows] == [
        "original",
        "adapted",
        "multiplier",
        "uniform",
        "torch-pruning",
        "macs",
        "scratch",
    ]
    assert rows[1].measured is not None and rows[1].measured == complete.verified[len(complete.steps) - 1].measured_ms


def test_the_baseline_shown_is_the_one_found_for_the_step(complete: RunFolder) -> None:
    rows = summary(Contents.of(complete))
    assert rows[2].note == f"multiplier-as-step{complete.steps[-1].iteration:03d}"


def test_of_baselines_found_for_another_step_the_nearest_in_measured_latency_is_shown(complete: RunFolder) -> None:
    older = tuple(item for item in complete.baselines if item.step == 1)
    rows = summary(replace(Contents.of(complete), baselines=older))
    adapted = complete.verified[len(complete.steps) - 1].measured_ms.value
    nearest = min(older, key=lambda item: abs(item.measured_ms.value - adapted if item.measured_ms else 1e9))
    assert [row.note for row in rows[2:]] == [nearest.name]


def test_accuracies_over_seeds_are_told_with_their_spread_and_count(complete: RunFolder) -> None:
    assert "97.1 ± 0.2 %" in page(complete)
    assert "test, 3 seeds" in page(complete)


def test_a_single_seed_has_no_spread(complete: RunFolder, bare: RunFolder) -> None:
    single = replace(complete.baselines[-1], runs=complete.baselines[-1].runs[:1])
    (row,) = summary(replace(Contents.of(bare), baselines=(single,)))[2:]
    assert row.accuracy == Spread(0.9564, None, 1)
    assert "±" not in page(bare)


def test_what_guided_the_search_is_compared_in_macs_and_measured_latency(complete: RunFolder) -> None:
    original, macs, latency = guided(summary(Contents.of(complete)))
    assert (macs.macs_share, macs.latency_share) == (1.0, 1.0)
    assert (original.macs_of_original, original.latency_of_original) == (1.0, 1.0)
    assert latency.latency_share == latency.measured.value / macs.measured.value
    assert "What guided the search" in page(complete)


def test_without_a_mac_guided_baseline_nothing_is_said_of_it(complete: RunFolder, bare: RunFolder) -> None:
    others = tuple(item for item in complete.baselines if item.kind != "macs")
    assert guided(summary(replace(Contents.of(complete), baselines=others))) == []
    assert "What guided the search" not in page(bare)


def test_steps_measured_during_the_search_are_listed_with_their_misses(complete: RunFolder, bare: RunFolder) -> None:
    rows = list(checks(Contents.of(complete)))
    assert [row.step for row in rows] == [step.iteration for step in complete.steps]
    assert [row.step for row in rows if row.checked.missed] == [5]
    assert page(complete).count("outside the interval") == 1
    assert "Measured during the search" not in page(bare)


def test_an_original_with_given_weights_makes_training_from_scratch_no_equal(complete: RunFolder) -> None:
    given = replace(INFO, settings=replace(INFO.settings, training=replace(INFO.settings.training, weights="imagenet.pt")))
    assert "may not compare with it" in render(replace(Contents.of(complete), info=given), [])
    assert "may not compare with it" not in page(complete)


@pytest.mark.parametrize("tables", [{}, {"eyeriss": replace(FACTS, runtime=MODELLED_RUNTIME)}])
def test_a_run_without_a_table_of_a_device_is_not_told_to_check_predictions(bare: RunFolder, tables: dict[str, TableFacts]) -> None:
    contents = replace(Contents.of(bare), info=replace(INFO, tables=tables), verified={})
    found = {section.title: section.missing for section in all_sections(contents)}
    assert all(
        "has no latency table of a device" in found[title] for title in ("Predicted against measured", "Latency layer by layer")
    )


def test_a_run_without_a_latency_budget_is_not_told_to_train_what_is_chosen_by_latency(complete: RunFolder) -> None:
    scratch = tuple(item for item in complete.baselines if item.kind == "scratch")
    by_size = replace(INFO, budgets=("macs=90%",), tables={})
    assert "Not compared with yet" not in render(replace(Contents.of(complete), info=by_size, baselines=scratch), [])


def test_a_setting_that_is_empty_is_none_among_the_conditions(bare: RunFolder) -> None:
    assert all(value for _, value in conditions(Contents.of(bare)))


def test_kinds_of_baselines_not_there_yet_are_named(complete: RunFolder) -> None:
    some = tuple(item for item in complete.baselines if item.kind in ("multiplier", "macs"))
    assert "Not compared with yet: uniform pruning, Torch-Pruning, adapted shape from scratch" in render(
        replace(Contents.of(complete), baselines=some), []
    )
    assert "Not compared with yet" not in page(complete)


def test_counts_in_the_summary_are_those_of_the_pruned_graph(complete: RunFolder) -> None:
    pruned = GRAPH.at_widths(complete.steps[-1].widths)
    adapted = summary(Contents.of(complete))[1]
    assert (adapted.macs, adapted.parameters) == (pruned.macs, pruned.parameters)


def test_test_accuracy_takes_the_place_of_holdout_accuracy_once_it_is_known(complete: RunFolder, bare: RunFolder) -> None:
    assert [row.accuracy_on for row in summary(Contents.of(complete))] == ["test"] * 7
    assert [row.accuracy_on for row in summary(Contents.of(bare))] == ["holdout", "holdout"]


def test_conditions_name_device_runtime_threads_table_age_and_held_out(complete: RunFolder) -> None:
    for said in ("Made-up CPU at 1 GHz", "onnxruntime 1.31.0, threads 1", "2.0 days before this run", FACTS.held_out, "0.96"):
        assert said in page(complete)


def test_a_run_says_which_commands_bring_what_is_missing(bare: RunFolder) -> None:
    for command in ("measure", "finetune", "baselines"):
        assert f"<code>netadapt {command} {bare.path}</code>" in page(bare)


def test_a_run_not_measured_yet_claims_no_measured_speed(bare: RunFolder) -> None:
    assert "predicted, not measured yet" in page(bare)
    assert "(measured)" not in page(bare)


def test_only_the_charts_there_is_data_for_are_drawn(bare: RunFolder) -> None:
    assert sorted(path.name for path in bare.path.glob("*.png")) == ["history.png", "widths.png"]


def test_a_image_of_an_earlier_state_is_taken_away(tmp_path: Path) -> None:
    run = adapted_run(tmp_path / "run")
    (run.path / "prediction.png").write_bytes(b"of when it was measured")
    write_report(run)
    assert not (run.path / "prediction.png").exists()


def test_an_unverified_table_is_warned_about(bare: RunFolder) -> None:
    table = replace(FACTS, verified=False, held_out="unverified: no whole network was measured")
    text = render(replace(Contents.of(bare), info=replace(INFO, tables={"": table})), [])
    assert "The latency table is unverified" in text


def test_a_verified_table_is_not_warned_about(complete: RunFolder) -> None:
    assert "The latency table is unverified" not in page(complete)


@pytest.mark.parametrize("field", ["network", "setting", "baseline"])
def test_markup_in_names_is_shown_and_not_run(complete: RunFolder, field: str) -> None:
    evil = "<script>alert(1)</script>"
    contents = Contents.of(complete)
    match field:
        case "network":
            network = replace(INFO.settings.network, name=evil)
            contents = replace(contents, info=replace(INFO, settings=replace(INFO.settings, network=network)))
        case "setting":
            settings = replace(INFO.settings, data=replace(INFO.settings.data, source=evil))
            contents = replace(contents, info=replace(INFO, settings=settings))
        case "baseline":
            contents = replace(contents, baselines=(replace(contents.baselines[0], name=evil),))
    text = render(contents, [])
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_a_path_with_markup_is_shown_and_not_run(bare: RunFolder) -> None:
    contents = replace(Contents.of(bare), path=Path("/a/<img src=x>"))
    assert "<img src=x>" not in render(contents, all_sections(contents))


def test_a_run_guided_by_macs_shows_macs_and_needs_no_table(bare: RunFolder) -> None:
    text = render(replace(Contents.of(bare), info=replace(INFO, budgets=("macs=60%",), tables={})), [])
    assert "within 60 % of its macs" in text
    assert "none: the budget does not depend on a device" in text


def test_a_run_measured_without_a_table_has_no_prediction_chart(tmp_path: Path) -> None:
    run = adapted_run(tmp_path / "run")
    run.write_verified([Verified(0, TargetName("local", "litert"), FIVE)])
    write_report(run)
    assert (run.path / "accuracy.png").exists() and not (run.path / "prediction.png").exists()


def test_what_was_measured_elsewhere_has_a_table_of_its_own(tmp_path: Path) -> None:
    run = complete_run(tmp_path / "run")
    before = run.verified
    run.write_verified([*run.measured, Verified(0, TargetName("pixel", "litert"), Interval(77.125, 77.0, 77.25))])
    page = write_report(run).read_text()
    assert run.verified == before
    assert "Measured elsewhere" in page and "pixel" in page and "77.1" in page


def test_baselines_for_another_device_are_not_put_beside_the_run(tmp_path: Path) -> None:
    run = complete_run(tmp_path / "run")
    run.write_baselines(replace(item, target=TargetName("pixel", "litert")) for item in run.baselines)
    assert Contents.of(run).baselines == ()


def test_a_step_of_several_budgets_and_blocks_shows_them_all(bare: RunFolder) -> None:
    contents = Contents.of(bare)
    first, second, *rest = contents.steps
    joined = replace(second, blocks=("pw1", "pw2"), prices=second.prices | {"macs": 4.5e6}, targets=second.targets | {"macs": 5e6})
    info = replace(INFO, budgets=("latency=60%", "macs=90%"))
    page = render(replace(contents, steps=(first, joined, *rest), info=info), [])
    assert "pw1<br>pw2" in page and "macs 4.5 M" in page and "macs 5 M" in page


def test_a_run_with_the_original_only_says_so(tmp_path: Path) -> None:
    run = adapted_run(tmp_path / "run")
    first = (run.path / "steps.jsonl").read_text().partition("\n")[0]
    (run.path / "steps.jsonl").write_text(first + "\n")
    assert "Only the original network so far." in write_report(run).read_text()


def test_a_run_without_a_step_has_no_report(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", INFO, GRAPH)
    with pytest.raises(RunError, match="no step to report yet"):
        write_report(run)
    assert not (run.path / "report.html").exists()


def test_a_finished_step_is_the_one_reported(tmp_path: Path) -> None:
    run = adapted_run(tmp_path / "run")
    run.add_finished(Finished(3, LONG_TERM, (), (Trained(1, "a.pt", 0.5),)))
    assert Contents.of(run).chosen.iteration == 3


def row(name: str, ms: float | None, accuracy_on: str = "test") -> Row:
    return Row(
        name, "", Interval.unknown(10.0), None if ms is None else Interval.unknown(ms), Spread.of([0.9]), accuracy_on, 100, 10
    )


def test_a_speed_up_is_measured_only_if_both_latencies_are() -> None:
    assert row("adapted", 2.0).speedup_over(row("original", 5.0)) == 2.5
    assert row("adapted", 2.0).speedup_over(row("original", None)) == 1.0  # both are predicted at 10 ms


def test_accuracies_on_different_sets_are_not_passed_off_as_comparable() -> None:
    assert "not the same set" in headline([row("original", 5.0), row("adapted", 2.0, "holdout")], open_task("classification"))


@pytest.mark.parametrize(
    ("ms", "text"), [(5.0, "5.00"), (0.01234, "0.0123"), (31.249, "31.2"), (1234.5, "1234"), (0.0, "0.00"), (-1e-4, "0.00")]
)
def test_milliseconds_keep_three_significant_digits(ms: float, text: str) -> None:
    assert ms_text(ms) == text


POINT = Point(FIVE, Spread.of([0.9]), "one")
LONE = Verified(0, TargetName("local", "litert"), FIVE, FIVE)


CHARTS_OF: dict[str, Callable[[], bytes]] = {
    "one point": lambda: accuracy_chart([POINT], [], []),
    "everything at one spot": lambda: accuracy_chart([POINT] * 3, [POINT], [POINT] * 5),
    "one prediction": lambda: prediction_chart([LONE]),
    "two steps": lambda: history_chart([{"a": 16}, {"a": 8}]),
    "many steps": lambda: history_chart([{f"block {n}": 512 - step for n in range(40)} for step in range(60)]),
    "one bar": lambda: bars_chart([("a", 1.0, 1.0)], "channels", ["1"]),
    "many bars": lambda: bars_chart([(f"layer {n}", 1.0, 2.0) for n in range(80)], "ms", ["1"] * 80),
}


@pytest.mark.parametrize("of", CHARTS_OF)
def test_a_chart_of_very_little_or_very_much_is_a_image(of: str) -> None:
    image = Image.open(io.BytesIO(CHARTS_OF[of]()))
    assert image.format == "PNG"
    assert image.width in (6 * DPI, 8 * DPI)


def test_the_same_data_gives_the_same_image() -> None:
    assert prediction_chart([LONE]) == prediction_chart([LONE])


def test_a_dollar_sign_in_a_name_is_a_dollar_sign() -> None:
    assert accuracy_chart([replace(POINT, label=r"$\no such formula$")], [], [])


def test_images_are_shown_at_half_their_size(complete: RunFolder) -> None:
    widths = {int(width) for width in re.findall(r'<img width="(\d+)"', page(complete))}
    assert widths == {600, 800}


def test_a_baseline_without_a_measurement_is_compared_by_its_prediction(tmp_path: Path) -> None:
    run = complete_run(tmp_path / "run")
    run.write_baselines([replace(run.baselines[0], measured_ms=None, predicted_ms=Interval.unknown(2.0))])
    thinner = summary(Contents.of(run))[2]
    assert (
        thinner.measured is None
        and thinner.predicted is not None
        and (thinner.predicted.value, thinner.predicted.known) == (2.0, False)
    )
