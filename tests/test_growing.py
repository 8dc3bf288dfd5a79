from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from test_build import FAKE, FEW, NETWORK, PLAN

from netadapt.resources import Latency
from profiler.errors import LayerNotMeasured
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, OpaqueSubgraph, conv2d
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import TimingSettings
from profiler.tables.build import build
from profiler.tables.growing import GrowingTable, copy_table
from profiler.tables.table import load_table

UNKNOWN = Graph.of_layer(conv2d((1, 5, 5, 7), 9, 3))


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory, quick: TimingSettings) -> Path:
    out = tmp_path_factory.mktemp("built") / "t.parquet"
    build([PLAN], FAKE, out, settings=quick, stop=FEW)
    return out


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Path:
    """A table of one's own, with its journal."""
    return Path(shutil.copytree(built_once.parent, tmp_path / "built")) / built_once.name


def test_what_is_missing_is_measured_when_it_is_asked_for(built: Path) -> None:
    table = GrowingTable(built)
    assert table.predict(UNKNOWN).layers[0].source == "measured"
    assert UNKNOWN.layers[0] in load_table(built).rows


def test_a_layer_cut_out_of_a_file_is_measured_as_it_was_cut(built: Path) -> None:
    layer = LayerSpec("custom", ((1, 4),), (1, 4), opaque=OpaqueSubgraph("a" * 64, 0, "json"))
    graph = Graph.of_layer(layer, {"a" * 64: b'{"latency_ns": 30000}'})
    assert GrowingTable(built).predict(graph).layers[0].source == "measured"


def test_what_the_table_can_tell_is_not_measured(built: Path) -> None:
    before = journal_path(built).read_bytes()
    GrowingTable(built).predict(NETWORK.at_widths(PLAN.check[0]))
    assert journal_path(built).read_bytes() == before


def test_pricing_many_widths_measures_nothing(built: Path) -> None:
    prices = GrowingTable(built).pricer(NETWORK).prices("pw1", [8, 12, 16])
    assert [math.isnan(price) for price in prices] == [False, True, False]


def test_a_table_without_its_journal_says_what_is_missing(built: Path) -> None:
    journal_path(built).unlink()
    with pytest.raises(LayerNotMeasured, match="profile build"):
        GrowingTable(built).predict(UNKNOWN)


def test_a_copy_grows_and_the_table_it_came_from_does_not(built: Path, tmp_path: Path) -> None:
    copy_table(built, tmp_path / "copy.parquet")
    before = built.read_bytes()
    GrowingTable(tmp_path / "copy.parquet").predict(UNKNOWN)
    assert built.read_bytes() == before
    assert UNKNOWN.layers[0] in load_table(tmp_path / "copy.parquet").rows


def test_a_latency_by_a_loaded_table_says_what_is_missing_and_measures_nothing(built: Path) -> None:
    before = built.read_bytes()
    with pytest.raises(LayerNotMeasured):
        Latency.of(load_table(built)).price(UNKNOWN)
    assert built.read_bytes() == before
