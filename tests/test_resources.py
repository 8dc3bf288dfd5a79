"""Resources put prices on graphs; budgets are read from what people type."""

from __future__ import annotations

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st
from sample_run import TABLE

from netadapt.errors import BudgetError
from netadapt.resources import RESOURCES, Budget, amount_text, open_resource, parse_budget


def test_latency_is_what_the_table_predicts() -> None:
    graph = mobilenet_v1(0.25, 64)
    assert open_resource("latency", TABLE).price(graph) == TABLE.predict(graph).latency_ms


def test_latency_without_a_table_says_where_one_comes_from() -> None:
    with pytest.raises(BudgetError, match="profile build"):
        open_resource("latency")


@pytest.mark.parametrize("name", ["macs", "parameters"])
def test_counts_need_no_table(name: str) -> None:
    graph = mobilenet_v1(0.25, 64)
    assert open_resource(name).price(graph) == getattr(graph, name)


def test_every_resource_is_listed_under_its_own_name() -> None:
    assert all(name == kind.name for name, kind in RESOURCES.items())


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
    ],
)
def test_a_budget_is_read_as_it_is_typed(text: str, budget: Budget) -> None:
    read = parse_budget(text)
    assert (read.resource, read.fraction) == (budget.resource, budget.fraction)
    assert read.absolute == pytest.approx(budget.absolute)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latancy=60%", "did you mean latency"),
        ("colour=60%", "known are latency, macs, parameters"),
        ("60%", "is not a budget; write latency=60%"),
        ("", "is not a budget"),
        ("latency=", "has no number"),
        ("latency=fast", "has no number"),
        ("latency=nan", "has no number"),
        ("latency=12", "has no unit that latency is counted in; write latency=60% or latency=12ms"),
        ("latency=12M", "has no unit"),
        ("macs=12ms", "has no unit that macs is counted in"),
        ("latency=0%", "0 % of the present latency makes no sense"),
        ("latency=-5%", "makes no sense"),
        ("latency=140%", "140 % of the present latency makes no sense"),
        ("latency=0ms", "must be more than nothing"),
        ("latency=-3ms", "must be more than nothing"),
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


def test_a_fraction_is_taken_of_the_present_price() -> None:
    assert parse_budget("latency=60%").amount(5.0) == pytest.approx(3.0)


def test_an_amount_is_the_same_whatever_the_present_price() -> None:
    assert parse_budget("latency=2ms").amount(5.0) == 2.0


@pytest.mark.parametrize(
    ("amount", "unit", "text"), [(5.9132, "ms", "5.913 ms"), (41.2e6, "MACs", "41.2 M MACs"), (12.0, "x", "12 x")]
)
def test_amounts_are_written_for_people(amount: float, unit: str, text: str) -> None:
    assert amount_text(amount, unit) == text
