"""Resources put prices on graphs; budgets are read from what people type."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st
from sample_run import TABLE

from netadapt.errors import BudgetError
from netadapt.resources import (
    RESOURCES,
    Budget,
    Energy,
    known_resource,
    named_tables,
    open_resource,
    parse_budget,
    parse_budgets,
)  # fmt: skip
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.table import Table, TableInfo


def test_latency_is_what_the_table_predicts() -> None:
    graph = mobilenet_v1(0.25, 64)
    assert open_resource("latency", TABLE).price(graph) == TABLE.predict(graph).latency_ms.value


def test_latency_without_a_table_says_where_one_comes_from() -> None:
    with pytest.raises(BudgetError, match="profile build"):
        open_resource("latency")


def line(*channels: int) -> Graph:
    """Pointwise convolutions on images of 2x2 pixels, four bytes a value: 16 bytes for each channel."""
    nodes: list[Node] = []
    for place, width in enumerate(channels[1:]):
        layer = conv2d((1, 2, 2, channels[place]), width, 1)
        nodes.append(Node(f"n{place}", layer, (nodes[-1].name if nodes else "image",), f"b{place}"))
    return Graph("line", (("image", (1, 2, 2, channels[0])),), tuple(nodes), (nodes[-1].name,))


def test_memory_is_the_largest_layers_input_and_output() -> None:
    assert open_resource("memory").price(line(3, 8, 16, 4)) == 16 * (8 + 16)


def test_a_tensor_that_is_read_later_is_kept_until_then() -> None:
    first, second, third = line(3, 8, 16, 8).nodes
    add = Node("add", LayerSpec("add", (first.layer.output,) * 2, first.layer.output), ("n0", "n2"))
    graph = Graph("shortcut", (("image", (1, 2, 2, 3)),), (first, second, third, add), ("add",))
    assert open_resource("memory").price(graph) == 16 * (8 + 16 + 8)


def test_outputs_are_kept_to_the_end() -> None:
    plain = line(3, 32, 4, 32)
    both = Graph("both", plain.inputs, plain.nodes, ("n0", "n2"))
    assert open_resource("memory").price(plain) == 16 * (32 + 4)
    assert open_resource("memory").price(both) == 16 * (32 + 4 + 32)


def test_memory_of_integers_is_a_quarter() -> None:
    memory, graph = open_resource("memory"), mobilenet_v1(0.25, 64)
    assert memory.price(graph.with_precision("int8")) * 4 == memory.price(graph)


@given(st.lists(st.integers(1, 64), min_size=2, max_size=8))
def test_memory_is_at_least_what_each_layer_needs_and_at_most_all_tensors(channels: list[int]) -> None:
    graph = line(*channels)
    everything = 16 * sum(channels)
    assert max(layer.activation_bytes for layer in graph.layers) <= open_resource("memory").price(graph) <= everything


ENERGY = {conv2d((1, 2, 2, 8), width, 1): float(width) for width in (8, 16, 32)}


def test_energy_is_the_sum_over_the_layers() -> None:
    assert Energy(ENERGY, ExecutionRules("litert")).price(line(8, 8, 16)) == 8.0 + 16.0


def test_energy_of_a_layer_between_measured_ones_is_on_the_line_in_multiply_accumulates() -> None:
    assert Energy(ENERGY, ExecutionRules("litert")).layer_mj(conv2d((1, 2, 2, 8), 24, 1)) == pytest.approx(24.0)


def test_energy_is_never_extrapolated() -> None:
    with pytest.raises(BudgetError, match=r"the energy of conv2d_1x2x2x8_to_1x2x2x40 \(n0 of line\) was not measured"):
        Energy(ENERGY, ExecutionRules("litert")).price(line(8, 40))


def test_energy_of_another_family_is_not_guessed() -> None:
    assert Energy(ENERGY, ExecutionRules("litert")).layer_mj(conv2d((1, 4, 4, 8), 16, 1)) is None


def test_a_table_without_energies_says_how_to_get_them() -> None:
    info = TableInfo(Target(), {}, TimingSettings(), "2026-01-01T00:00:00+00:00")
    with pytest.raises(BudgetError, match="has no energies; build it with `profile build --energy`"):
        open_resource("energy", Table({}, info))
    assert open_resource("energy", Table({}, info, ENERGY)).price(line(8, 16)) == 16.0
    with pytest.raises(BudgetError, match="an energy budget needs a table"):
        open_resource("energy")


@pytest.mark.parametrize("name", ["macs", "parameters"])
def test_counts_need_no_table(name: str) -> None:
    graph = mobilenet_v1(0.25, 64)
    assert open_resource(name).price(graph) == getattr(graph, name)


def test_every_resource_is_listed_under_its_own_name() -> None:
    assert all(name == known_resource(name).name for name in RESOURCES)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("latency=60%", Budget("latency", fraction=0.6)),
        ("latency=12ms", Budget("latency", absolute=12.0)),
        ("latency = 0.5 s", Budget("latency", absolute=500.0)),
        ("Latency=250us", Budget("latency", absolute=0.25)),
        ("macs=300M", Budget("macs", absolute=300e6)),
        ("macs=3e8", Budget("macs", absolute=3e8)),
        ("parameters=1.2M", Budget("parameters", absolute=1.2e6)),
        ("parameters=812000", Budget("parameters", absolute=812000.0)),
        ("macs=100%", Budget("macs", fraction=1.0)),
        ("memory=2MB", Budget("memory", absolute=2e6)),
        ("memory=64KiB", Budget("memory", absolute=65536.0)),
        ("energy=12mJ", Budget("energy", absolute=12.0)),
    ],
)
def test_a_budget_is_read_as_it_is_typed(text: str, budget: Budget) -> None:
    read = parse_budget(text)
    assert (read.resource, read.fraction) == (budget.resource, budget.fraction)
    assert read.absolute == pytest.approx(budget.absolute)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latancy=60%", "did you mean 'latency'"),
        ("colour=60%", "known are latency, macs, parameters"),
        ("60%", "is not a budget; write latency=60%"),
        ("", "is not a budget"),
        ("latency=", "has no number"),
        ("latency=fast", "has no number"),
        ("latency=nan", "has no number"),
        ("latency=12", "has no unit of latency; write latency=60% or latency=12ms"),
        ("latency=5", "has no unit of latency; write latency=60% or latency=5ms"),
        ("latency=0.6", "has no unit of latency; write latency=60% or latency=0.6ms"),
        ("latency<=5", "write latency=60% or latency=5ms"),
        ("latency=2,5ms", "has no number that can be read; write latency=2.5ms"),
        ("flops=600M", "for 600 MFLOPs, macs=300M"),
        ("GFLOPs=0.3", "each of which is two operations: write macs=60%"),
        ("mac=300M", "did you mean 'macs'"),
        ("params=60%", "did you mean 'parameters'"),
        ("RAM=2MB", "did you mean 'memory'"),
        ("time=5ms", "did you mean 'latency'"),
        ("latency=12M", "has no unit"),
        ("macs=12ms", "has no unit of macs"),
        ("latency=0%", "0 % of the present latency is impossible"),
        ("latency=-5%", "is impossible"),
        ("latency=140%", "140 % of the present latency is impossible"),
        ("latency=0ms", "give an amount above 0"),
        ("latency=-3ms", "give an amount above 0"),
    ],
)
def test_a_budget_that_makes_no_sense_is_told_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(BudgetError) as error:
        parse_budget(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text())
def test_whatever_is_typed_is_a_budget_or_a_budget_error(text: str) -> None:
    try:
        assert parse_budget(text).amount(10.0) > 0
    except BudgetError:
        pass


@given(st.sampled_from(sorted(RESOURCES)), st.text(alphabet="0123456789.eE+-%msMGkKµ "))
def test_whatever_number_is_typed_is_a_budget_or_a_budget_error(name: str, amount: str) -> None:
    try:
        assert 0 < parse_budget(f"{name}={amount}").amount(10.0) < float("inf")
    except BudgetError:
        pass


TABLES = ("pixel", "Jetson Nano")


@pytest.mark.parametrize(
    ("text", "budget", "name"),
    [
        ("pixel=40ms", Budget("latency", absolute=40.0, table="pixel"), "pixel"),
        ("Jetson Nano=60%", Budget("latency", fraction=0.6, table="Jetson Nano"), "Jetson Nano"),
        ("pixel.energy=70%", Budget("energy", fraction=0.7, table="pixel"), "pixel.energy"),
        ("macs=50%", Budget("macs", fraction=0.5), "macs"),
    ],
)
def test_budgets_of_named_devices_are_read_as_they_are_typed(text: str, budget: Budget, name: str) -> None:
    assert parse_budget(text, TABLES) == budget
    assert budget.name == name


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["pixle=60%"], "did you mean 'pixel'"),
        (["latency=60%"], "name the one of the latency budget, as in pixel=60%"),
        (["energy=60%"], "as in pixel.energy=60%"),
        (["macs=60%", "macs=1M"], "two budgets for macs"),
        ([], "give one with --budget"),
        (["pixel=40"], "has no unit of pixel; write pixel=60% or pixel=40ms"),
    ],
)
def test_budgets_that_do_not_go_together_are_told(texts: list[str], said: str) -> None:
    with pytest.raises(BudgetError) as error:
        parse_budgets(texts, TABLES)
    assert said in str(error.value)


def test_tables_have_names_where_there_are_several() -> None:
    assert named_tables(["t.parquet"]) == {"": Path("t.parquet")}
    assert named_tables(["pixel=a.parquet", "jetson=b.parquet"]) == {"pixel": Path("a.parquet"), "jetson": Path("b.parquet")}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a.parquet", "b.parquet"], "two tables"),
        (["x=a.parquet", "x=b.parquet"], "two tables called x"),
        (["x=a.parquet", "b.parquet"], "b.parquet has none"),
        (["macs=a.parquet"], "cannot be called 'macs'"),
        (["a.b=a.parquet"], "cannot be called 'a.b'"),
    ],
)
def test_tables_that_budgets_could_not_tell_apart_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(BudgetError) as error:
        named_tables(texts)
    assert said in str(error.value)


def test_a_fraction_is_taken_of_the_present_price() -> None:
    assert parse_budget("latency=60%").amount(5.0) == pytest.approx(3.0)


def test_an_amount_is_the_same_whatever_the_present_price() -> None:
    assert parse_budget("latency=2ms").amount(5.0) == 2.0


@pytest.mark.parametrize(
    ("amount", "resource", "text"),
    [
        (5.9132, "latency", "5.913 ms"),
        (41.2e6, "macs", "41.2 M MACs"),
        (12.0, "parameters", "12 parameters"),
        (2.1e6, "memory", "2.1 MB"),
        (800.0, "memory", "800 B"),
        (12.5, "energy", "12.5 mJ"),
    ],
)
def test_amounts_are_written_for_people(amount: float, resource: str, text: str) -> None:
    assert known_resource(resource).amount_text(amount) == text
