"""The tables that are kept in the repository: whole, verified, described, and without anything private."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netadapt.networks import network_graph
from profiler.layers.graph import Graph
from profiler.tables.predictor import Predictor
from profiler.tables.table import METADATA_KEY, Table, load_table

FOLDER = Path(__file__).parent.parent / "tables"
TABLES = sorted(FOLDER.glob("*.parquet"))
README = (FOLDER / "README.md").read_text()


@pytest.fixture(params=TABLES, ids=[path.stem for path in TABLES])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def table(path: Path) -> Table:
    return load_table(path)


def test_there_are_some() -> None:
    assert TABLES


def test_it_has_been_checked_against_whole_networks(table: Table) -> None:
    held_out = table.info.held_out
    assert table.verified and held_out.networks >= 10
    assert held_out.mean_error_percent is not None and held_out.mean_error_percent <= 3


def test_its_held_out_follows_from_the_networks_it_was_checked_on(table: Table) -> None:
    held_out = table.info.held_out
    errors = [100 * abs(item.predicted_ms.value / item.measured_ms - 1) for item in held_out.checked]
    assert held_out.mean_error_percent == pytest.approx(sum(errors) / len(errors))
    assert held_out.worst_error_percent == pytest.approx(max(errors))


def test_the_readme_says_how_it_was_made_and_how_well_it_predicts(path: Path, table: Table) -> None:
    held_out = table.info.held_out
    assert held_out.mean_error_percent is not None and held_out.worst_error_percent is not None
    (row,) = [line for line in README.splitlines() if f"`{path.name}`" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == [
        table.info.target.runtime,
        str(table.info.target.threads),
        " and ".join(sorted({layer.dtype for layer in table.rows})),
        str(len(table.rows)),
        f"{held_out.mean_error_percent:.1f} / {held_out.worst_error_percent:.1f} %",
        f"{held_out.naive_mean_error_percent:.0f} %",
    ]


def test_it_is_small_and_names_no_place_of_the_machine_it_was_made_on(path: Path) -> None:
    data = path.read_bytes()
    assert len(data) < 200_000
    assert not re.search(rb"/(home|tmp|root|work|Users)/", data)
    assert METADATA_KEY in data


@pytest.fixture(scope="module")
def networks() -> dict[str, Graph]:
    return {name: network_graph(name, resolution=224) for name in ("mobilenet_v1", "fastdepth")}


@pytest.mark.slow
def test_networks_are_still_priced_as_they_were_when_it_was_made(table: Table, networks: dict[str, Graph]) -> None:
    """Those it was checked on; their widths are in their names."""
    predictor, precisions = Predictor(table), {layer.dtype for layer in table.rows}
    for item in table.info.held_out.checked:
        name, _, widths = item.name.partition(" ")
        whole = networks[name]
        graph = whole.at_widths(dict(zip(whole.widths, map(int, widths.split("-")), strict=True))) if widths else whole
        if "int8" in precisions:
            graph = graph.with_precision("int8")
        assert predictor.predict(graph).latency_ms.value == pytest.approx(item.predicted_ms.value, rel=1e-6)
