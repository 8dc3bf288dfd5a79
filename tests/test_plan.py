from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mobilenet_v1

from profiler.errors import PlanError
from profiler.tables.plan import Plan, make_plan, possible_layers, read_plan, write_plan

NETWORK = mobilenet_v1(0.5, 64, classes=10, pairs=4)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = make_plan(NETWORK)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_a_plan_says_how_many_layers_a_dense_table_would_hold() -> None:
    plan = make_plan(mobilenet_v1(0.25, 32, pairs=1))  # conv0 can only have 8 channels, pw1 8 or 16
    assert possible_layers(plan) == len({"conv0", "dw1"}) + 2 * len({"pw1", "pool", "classifier"})


def test_a_dense_table_of_mobilenet_would_be_large() -> None:
    assert possible_layers(make_plan(mobilenet_v1())) > 20_000


def test_networks_for_fitting_and_checking_differ() -> None:
    plan = make_plan(NETWORK)
    drawn = [tuple(widths.values()) for widths in (*plan.fit, *plan.check)]
    assert len(drawn) == len(set(drawn)) == 28


def test_a_network_with_few_widths_to_choose_gives_few_networks() -> None:
    plan = make_plan(mobilenet_v1(0.25, 32, pairs=1))
    assert len(plan.fit) + len(plan.check) == 1  # its one other width


def test_the_same_seed_draws_the_same_networks() -> None:
    assert make_plan(NETWORK, seed=3) == make_plan(NETWORK, seed=3) != make_plan(NETWORK, seed=4)


@pytest.mark.parametrize("widths", [{"pw1": 0}, {"pw1": 1000}, {"nowhere": 8}])
def test_impossible_widths_are_refused(widths: dict[str, int]) -> None:
    with pytest.raises(PlanError):
        Plan(NETWORK, fit=(widths,))


def test_an_impossible_step_is_refused() -> None:
    with pytest.raises(PlanError, match="step"):
        Plan(NETWORK, step=0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 3}', '{"format": 3, "network": {}, "fit": []}'])
def test_a_damaged_plan_is_told_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)


def test_a_plan_with_impossible_shapes_is_told(tmp_path: Path) -> None:
    plain = make_plan(NETWORK).to_dict()
    plain["network"]["nodes"][0]["layer"]["output"] = [1, 999, 999, 16]
    (tmp_path / "plan.json").write_text(json.dumps(plain))
    with pytest.raises(PlanError, match="cannot give output"):
        read_plan(tmp_path / "plan.json")
