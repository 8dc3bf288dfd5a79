from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from graphs import mobilenet_v1
from typer.testing import CliRunner

from profiler.cli.app import app
from profiler.errors import TableError
from profiler.interval import Interval
from profiler.latency.validation import HeldOutError, HeldOutLayer, HeldOutNetwork
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected
from profiler.measure.estimate import Estimate
from profiler.plotting.plot import page, write_plot
from profiler.plotting.waterfall import MOST_BARS, waterfall_figure
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build_modelled import build_modelled
from profiler.tables.families import panels, undrawn
from profiler.tables.plan import make_plan
from profiler.tables.predictor import LayerPrediction, Prediction, Predictor
from profiler.tables.table import Table, TableInfo, load_table

WIDTHS = (8, 16, 32)
HELD_OUT = HeldOutError.of(
    [HeldOutNetwork(f"network {n}", Interval(n * 1.01, n * 0.97, n * 1.05), float(n), n * 1.2) for n in (1, 2, 3, 4)]
)


def estimate(latency_ms: float) -> Estimate:
    return Estimate(Interval(latency_ms, 0.98 * latency_ms, 1.02 * latency_ms), 6, 100, 6)


def pointwise(channels_in: int, channels_out: int) -> LayerSpec:
    return conv2d((1, 14, 14, channels_in), channels_out, 1)


ROWS = (
    {pointwise(i, o): estimate(0.001 * i * o) for i, o in product(WIDTHS, WIDTHS)}
    | {depthwise_conv2d((1, 14, 14, width), 3): estimate(0.01 * width) for width in WIDTHS}
    | {fully_connected((1, width), 10): estimate(0.001 * width) for width in WIDTHS}
)
ALONE = conv2d((1, 28, 28, 3), 8, 3, stride=2)


def table(rows: dict[LayerSpec, Estimate] | None = None, held_out: HeldOutError = HELD_OUT, cpu: str = "a processor") -> Table:
    device = {"version": "2.3.0", "device": {"cpu": cpu}}
    info = TableInfo(Target(runtime="litert"), device, TimingSettings(), "2026-01-01T00:00:00+00:00", held_out=held_out)
    return Table(ROWS if rows is None else rows, info)


def test_the_family_with_the_highest_latency_comes_first() -> None:
    assert [panel.title for panel in panels(table())] == ["conv2d 1×1", "depthwise_conv2d 3×3", "fully_connected"]


def test_a_curve_holds_the_predictions_at_every_multiple_of_eight() -> None:
    made = table()
    curve = next(curve for curve in panels(made)[0].curves if curve.label == "16 in")
    assert [width for width, _ in curve.answers] == [8, 16, 24, 32]
    for width, answer in curve.answers:
        hit = Predictor(made).lookup(pointwise(16, width))
        assert hit is not None
        assert answer == hit.estimate


def test_of_the_inputs_measured_most_often_three_are_held_fixed() -> None:
    rows = {pointwise(i, o): estimate(0.001 * i * o) for i, o in product((8, 16, 24, 32, 40), WIDTHS)}
    only_once = {pointwise(48, 8): estimate(0.4)}
    assert [curve.label for curve in panels(table(rows | only_once))[0].curves] == ["8 in", "24 in", "40 in"]


def test_inputs_are_swept_where_outputs_never_change() -> None:
    panel = panels(table())[-1]
    assert (panel.axis, [curve.label for curve in panel.curves]) == ("input channels", ["10 out"])


def test_a_waterfall_ends_at_the_sum_of_its_layers() -> None:
    layers = tuple(
        LayerPrediction(f"node {n}", pointwise(8, 8), Interval(ms, 0.9 * ms, 1.1 * ms), "measured")
        for n, ms in enumerate((1.0, 0.5, 2.0))
    )
    *bars, whole = waterfall_figure(Prediction(Interval(3.5, 3.0, 4.0), 3.6, layers), "a network").axes[0].patches
    ends = [bar.get_x() + bar.get_width() for bar in bars]  # type: ignore[attr-defined]
    assert ends == pytest.approx([1.0, 1.5, 3.5])
    assert whole.get_width() == pytest.approx(3.5)  # type: ignore[attr-defined]


def test_a_waterfall_of_many_layers_says_that_some_of_the_last_are_interpolated() -> None:
    sources: list[Literal["measured", "interpolated"]] = ["measured"] * (MOST_BARS + 1) + ["interpolated"]
    layers = tuple(LayerPrediction(f"node {n}", pointwise(8, 8), Interval(1, 1, 1), source) for n, source in enumerate(sources))
    axes = waterfall_figure(Prediction(Interval(62, 61, 63), 62, layers), "a network").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["measured", "measured and interpolated"]  # type: ignore[union-attr]


def test_a_layer_measured_at_one_width_is_named_instead_of_drawn() -> None:
    made = table(ROWS | {ALONE: estimate(1.0)})
    assert undrawn(made) == [ALONE]
    assert len(panels(made)) == 3
    assert "conv2d 1x28x28x3 → 1x14x14x8" in page(made, panels(made))


def test_widths_that_the_table_cannot_predict_are_left_out() -> None:
    curve = panels(table())[0].curves[0]
    assert all(answer is not None for _, answer in curve.answers)
    assert [width for width, _ in curve.measured] == list(WIDTHS)


def test_a_png_is_written(tmp_path: Path) -> None:
    write_plot(table(), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_a_page_stands_alone(tmp_path: Path) -> None:
    write_plot(table(), tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert text.count("data:image/svg+xml;base64,") == 4  # the held_out and three families
    assert "http" not in text
    assert "network 3" in text
    assert "4 held-out networks" in text


def test_a_table_without_held_out_says_so_and_has_its_staircases(tmp_path: Path) -> None:
    bare = table(held_out=HeldOutError.of([]))
    write_plot(bare, tmp_path / "x.png")
    text = page(bare, panels(bare))
    assert "Unverified: no whole network" in text
    assert text.count("<img") == 3


def with_layers(*kinds: str) -> HeldOutError:
    layers = tuple(HeldOutLayer(f"layer {n}", kind, f"{kind}_{n}", 0.1 * n, 0.105 * n) for n, kind in enumerate(kinds, 1))
    return HeldOutError.of([replace(HELD_OUT.checked[0], layers=layers)])


@pytest.mark.parametrize("kinds", [("conv2d",), ("conv2d", "add", "softmax", "concat", "add"), ("conv2d", "add", "softmax")])
def test_layers_inside_networks_are_drawn_on_page_and_sheet(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    made = table(held_out=with_layers(*kinds))
    assert "inside the running network" in page(made, panels(made)) and "inside the running" not in page(table(), panels(table()))
    write_plot(made, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_command_in_the_sentence_of_a_modelled_table_is_set_as_one(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    build_modelled([make_plan(mobilenet_v1(0.25, 32, classes=10, pairs=2))], "model:eyeriss", out)
    assert "(<code>profile hardware</code>)" in page(load_table(out), [])


def test_text_from_a_table_is_escaped() -> None:
    made = table(held_out=HeldOutError.of([HeldOutNetwork("<script>", Interval(1.0, 0.9, 1.1), 1.0, 1.0)]), cpu="<b>&")
    text = page(made, panels(made))
    assert "<script>" not in text
    assert "<b>&" not in text


def test_one_network_or_very_different_ones_can_be_drawn(tmp_path: Path) -> None:
    for latencies in ((1.0,), (0.01, 1.0, 100.0)):
        held_out = HeldOutError.of(
            [HeldOutNetwork(str(ms), Interval(ms, 0.9 * ms, 1.1 * ms), 1.02 * ms, 0.7 * ms) for ms in latencies]
        )
        write_plot(table(held_out=held_out), tmp_path / "x.png")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"\.png or \.html"):
        write_plot(table(), tmp_path / "x.pdf")


def test_a_folder_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="folder that exists"):
        write_plot(table(), tmp_path / "nowhere" / "x.png")


def test_an_empty_table_is_reported() -> None:
    with pytest.raises(TableError, match="no layers"):
        write_plot(table({}), Path("x.png"))


def test_a_figure_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "x.html"
    target.mkdir()
    with pytest.raises(TableError, match="cannot be written"):
        write_plot(table(), target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_command_says_what_it_drew(tmp_path: Path) -> None:
    made = table()
    Table(made.rows, replace(made.info, networks=("n",))).save(tmp_path / "t.parquet")
    result = CliRunner().invoke(app, ["plot", str(tmp_path / "t.parquet"), "--out", str(tmp_path / "x.png")])
    assert result.exit_code == 0, result.output
    assert "15 layers" in result.stdout
