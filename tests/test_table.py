from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graphs import mobilenet_v1

from profiler.errors import LayerNotMeasured, TableError
from profiler.interval import Interval
from profiler.latency.calibration import Calibration
from profiler.latency.validation import Checked, close
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.table import METADATA_KEY, LatencyTable, TableInfo, load_table

NETWORK = mobilenet_v1(0.25, 64, classes=10, pairs=3)


def table(graph: Graph = NETWORK, latency_ms: float = 0.5) -> LatencyTable:
    rows = {layer: Estimate(Interval(latency_ms, 0.99 * latency_ms, 1.01 * latency_ms), 6, 120, 6) for layer in graph.layers}
    info = TableInfo(
        Target(runtime="litert"), {"version": "2.3.0", "device": {"cpu": "test"}}, TimingSettings(), "2026-01-01T00:00:00+00:00"
    )
    return LatencyTable(rows, info)


def test_a_table_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    before = table().with_held_out(close([Checked("n", Interval(1.0, 0.9, 1.1), 1.05, 1.3)]))
    before.save(tmp_path / "t.parquet")
    after = load_table(tmp_path / "t.parquet")
    assert after.rows == before.rows
    assert after.info == before.info


def test_a_network_costs_the_sum_of_its_layers() -> None:
    said = table().predict(NETWORK)
    assert said.latency_ms.value == pytest.approx(0.5 * len(NETWORK.nodes))
    assert said.latency_ms.low < said.latency_ms.value < said.latency_ms.high


def test_the_calibration_bends_the_sum() -> None:
    calibrated = table().with_calibration(Calibration(scale=0.8))
    assert calibrated.predict(NETWORK).latency_ms.value == pytest.approx(0.8 * calibrated.predict(NETWORK).naive_ms)


def test_the_shares_of_the_layers_add_up_to_the_network() -> None:
    said = table().with_calibration(Calibration(0.8, 1e-8, 2e-9, -1e-3, 2e-8)).predict(NETWORK)
    assert sum(part.latency_ms.value for part in said.parts if part.latency_ms) == pytest.approx(said.latency_ms.value)


def test_an_unexplained_residual_widens_the_interval() -> None:
    calm, rough = (table().with_calibration(Calibration(networks=8, residual_percent=percent)) for percent in (0.5, 3.0))
    assert rough.predict(NETWORK).latency_ms.high > calm.predict(NETWORK).latency_ms.high


def test_a_plain_sum_that_was_fitted_on_nothing_claims_little() -> None:
    said = table().predict(NETWORK)
    assert said.latency_ms.high > 1.15 * said.latency_ms.value


def test_a_layer_that_was_not_measured_is_named() -> None:
    with pytest.raises(LayerNotMeasured, match="conv2d_1x8x8x4"):
        table().predict(Graph.of_layer(conv2d((1, 8, 8, 4), 4, 3)))


def test_explaining_says_what_is_missing_instead_of_raising() -> None:
    said = table().explain(Graph.of_layer(conv2d((1, 8, 8, 4), 4, 3)))
    assert [part.source for part in said.parts] == ["missing"]


def test_a_missing_table_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="profile build"):
        load_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("keep", [0, 4, 100, 1000])
def test_a_truncated_table_is_told_in_one_sentence(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TableError, match="damaged") as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_is_no_table_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t.parquet")
    with pytest.raises(TableError, match="not a latency table"):
        load_table(tmp_path / "t.parquet")


def test_a_table_of_another_format_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    arrow = pq.read_table(path)
    raw = arrow.schema.metadata[METADATA_KEY].replace(b'"format": 3', b'"format": 99')
    pq.write_table(arrow.replace_schema_metadata({METADATA_KEY: raw}), path)
    with pytest.raises(TableError, match="format 99"):
        load_table(path)


def test_a_row_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    arrow = pq.read_table(path)
    column = arrow.schema.get_field_index("latency_ms")
    broken = arrow.set_column(column, "latency_ms", pa.array([-1.0] * arrow.num_rows))
    pq.write_table(broken.replace_schema_metadata(arrow.schema.metadata), path)
    with pytest.raises(TableError, match="damaged"):
        load_table(path)


def test_a_table_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "t.parquet"
    target.mkdir()
    with pytest.raises(TableError, match="cannot be written"):
        table().save(target)
    assert list(tmp_path.iterdir()) == [target]
