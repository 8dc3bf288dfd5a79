from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mobilenet_v1

from profiler.errors import PlanError
from profiler.plan import Plan, make_plan, read_plan, write_plan

NETWORK = mobilenet_v1(0.5, 64, classes=10, pairs=4)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = make_plan(NETWORK)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_the_layers_of_the_network_itself_are_always_measured() -> None:
    assert set(NETWORK.layers) <= set(make_plan(NETWORK).layers)


def test_every_pair_of_measured_widths_of_neighbours_is_in_the_plan() -> None:
    plan = make_plan(NETWORK)
    pairs = {
        (layer.in_channels, layer.out_channels)
        for layer in plan.layers
        if layer.kernel == (1, 1) and layer.output[1] == 16 and layer.op == "conv2d"
    }
    assert {(before, after) for before in plan.widths["pw1"] for after in plan.widths["pw2"]} <= pairs


def test_a_plan_for_mobilenet_is_sparse() -> None:
    assert len(make_plan(mobilenet_v1()).layers) <= 330


def test_networks_for_fitting_and_checking_differ() -> None:
    plan = make_plan(NETWORK)
    drawn = [tuple(widths.values()) for widths in (*plan.fit, *plan.check)]
    assert len(drawn) == len(set(drawn)) == 22


def test_a_network_with_few_widths_to_choose_gives_few_networks() -> None:
    plan = make_plan(mobilenet_v1(0.25, 32, pairs=1))
    assert len(plan.fit) + len(plan.check) == 1  # its one other width


def test_the_same_seed_draws_the_same_networks() -> None:
    assert make_plan(NETWORK, seed=3) == make_plan(NETWORK, seed=3) != make_plan(NETWORK, seed=4)


@pytest.mark.parametrize("widths", [{"pw1": (0,)}, {"pw1": ()}, {"pw1": (1000,)}, {"nowhere": (8,)}])
def test_impossible_widths_are_refused(widths: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(PlanError):
        Plan(NETWORK, widths)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "network": {}, "widths": {}}'])
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
