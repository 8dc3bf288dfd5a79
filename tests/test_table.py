from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graphs import mobilenet_v1

from profiler.errors import TableError
from profiler.interval import Interval
from profiler.latency.validation import HeldOutError, HeldOutNetwork
from profiler.layers.graph import Graph
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.table import FORMAT, METADATA_KEY, Table, TableInfo, load_table

NETWORK = mobilenet_v1(0.25, 64, classes=10, pairs=3)


def table(graph: Graph = NETWORK, latency_ms: float = 0.5) -> Table:
    rows = {layer: Estimate(Interval(latency_ms, 0.99 * latency_ms, 1.01 * latency_ms), 6, 120, 6) for layer in graph.layers}
    info = TableInfo(
        Target(runtime="litert"), {"version": "2.3.0", "device": {"cpu": "test"}}, TimingSettings(), "2026-01-01T00:00:00+00:00"
    )
    return Table(rows, info)


def test_a_table_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    before = table().with_held_out(HeldOutError.of([HeldOutNetwork("n", Interval(1.0, 0.9, 1.1), 1.05, 1.3)]))
    before.save(tmp_path / "t.parquet")
    after = load_table(tmp_path / "t.parquet")
    assert after.rows == before.rows
    assert after.info == before.info


def test_a_missing_table_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="profile build"):
        load_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("keep", [0, 4, 100, 1000])
def test_a_truncated_table_is_told_in_one_sentence(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TableError, match="damaged" if keep else "empty") as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"), [(b"<html></html>", "a page of a website"), (b"version https://git-lfs", "Git LFS"), (b"", "is empty")]
)
def test_a_file_in_the_place_of_a_table_is_told_with_what_it_is(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(TableError, match=said):
        load_table(tmp_path / "t.parquet")


def test_a_parquet_file_that_is_no_table_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t.parquet")
    with pytest.raises(TableError, match="not a latency table"):
        load_table(tmp_path / "t.parquet")


def test_a_table_of_another_format_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    arrow = pq.read_table(path)
    raw = arrow.schema.metadata[METADATA_KEY].replace(b'"format": %d' % FORMAT, b'"format": 99')
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


def resaved(path: Path, arrow: pa.Table) -> Path:
    """The table's file as another program writes it, with the metadata or without them, as `arrow` has them."""
    pq.write_table(arrow, path)
    return path


def test_a_table_that_lost_rows_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    arrow = pq.read_table(path)
    with pytest.raises(TableError, match=f"it has 3 rows in place of {arrow.num_rows}, so another program has changed it"):
        load_table(resaved(path, arrow.slice(0, 3)))


def test_a_table_with_rows_twice_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    arrow = pq.read_table(path)
    with pytest.raises(TableError, match=f"it has {arrow.num_rows + 1} rows in place of {arrow.num_rows}"):
        load_table(resaved(path, pa.concat_tables([arrow, arrow.slice(0, 1)])))


def test_a_table_with_a_latency_of_somebody_else_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    arrow = pq.read_table(path)
    column = arrow.schema.get_field_index("latency_ms")
    values = [0.501, *arrow.column("latency_ms").to_pylist()[1:]]
    with pytest.raises(TableError, match="it has other values in its rows"):
        load_table(resaved(path, arrow.set_column(column, arrow.schema.field(column), pa.array(values))))


def test_rows_in_another_order_are_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    before = load_table(path)
    arrow = pq.read_table(path)
    assert load_table(resaved(path, arrow.take(list(reversed(range(arrow.num_rows)))))).rows == before.rows


def test_a_table_that_pandas_saved_again_is_told_apart_from_other_files(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table().save(path)
    pq.read_table(path).to_pandas().to_parquet(path)
    with pytest.raises(TableError, match="how far they can be trusted is gone: another program has saved it again"):
        load_table(path)
