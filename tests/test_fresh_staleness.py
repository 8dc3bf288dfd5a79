"""Decisions about freshness from facts alone: whether a table is stale, why, and what is measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from graphs import mobilenet_v1
from test_table import table

from profiler.devices.identity import Identity
from profiler.interval import Interval
from profiler.latency.staircase import kind_of
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.schedule.spot_check import spot_check_layers
from profiler.schedule.staleness import FreshnessFacts, RefreshScope, SpotCheckItem, audit_failed, choose_scope, staleness_reasons
from profiler.tables.table import Table

TABLE = table(mobilenet_v1(0.5, 64, classes=10))
LAYERS = list(TABLE.rows)
DEPTHWISE = [layer for layer in LAYERS if layer.op == "depthwise_conv2d"]
ELSEWHERE = next(layer for layer in table(mobilenet_v1(0.25, 32)).rows if layer not in TABLE.rows)


def item(kind: str | None, now_ms: float = 1.0) -> SpotCheckItem:
    return SpotCheckItem(kind or "network", kind, 1.0, 0.01, now_ms, 0.01)


def kinds(facts: FreshnessFacts) -> list[str]:
    return [reason.kind for reason in staleness_reasons(facts)]


def decide(facts: FreshnessFacts, of: Table = TABLE) -> RefreshScope:
    return choose_scope(of, facts, staleness_reasons(facts), Random(1))


def with_width(layer: LayerSpec, half_ms: float) -> Table:
    rows = TABLE.rows | {layer: Estimate(Interval(0.5, 0.5 - half_ms, 0.5 + half_ms), 6, 120, 6)}
    return Table(rows, TABLE.info)


def test_nothing_known_against_a_table_means_it_is_fresh() -> None:
    assert staleness_reasons(FreshnessFacts(age_days=29.9, spot_check=(item("a", 1.02), item(None)))) == ()


@pytest.mark.parametrize(
    ("facts", "kind", "said"),
    [
        (FreshnessFacts(unusable="no table yet"), "unusable", "no table yet"),
        (FreshnessFacts(age_days=31), "age", "31 days old, more than the 30 days allowed"),
        (FreshnessFacts(device_changes=("governor: a and b",)), "device", "the device has changed: governor: a and b"),
        (FreshnessFacts(changed_settings=("threads",)), "settings", "its threads setting differs from profile.toml"),
        (FreshnessFacts(missing_layers=(ELSEWHERE,)), "missing layers", "1 layer of its networks"),
        (FreshnessFacts(spot_check=(item("a", 1.1), item("b"))), "drift", r"a +10.0 %"),
        (FreshnessFacts(spot_check=(item(None, 0.9),)), "drift", r"network -10.0 %"),
    ],
)
def test_each_reason_says_what_is_wrong(facts: FreshnessFacts, kind: str, said: str) -> None:
    (reason,) = staleness_reasons(facts)
    assert reason.kind == kind
    assert said in reason.text


def test_a_drift_within_the_intervals_is_none() -> None:
    wide = SpotCheckItem("a", "a", 1.0, 0.2, 1.15, 0.01)
    assert not wide.drifted
    assert replace(wide, before_half_ms=0.01).drifted


def test_a_drift_too_small_to_matter_is_none() -> None:
    assert not SpotCheckItem("a", "a", 1.0, 0.001, 1.025, 0.001).drifted


@pytest.mark.parametrize(
    "facts",
    [
        FreshnessFacts(device_changes=("kernel: a and b",)),
        FreshnessFacts(changed_settings=("runtime",)),
        FreshnessFacts(spot_check=(item("a", 1.1), item("b", 1.1), item("c"))),
    ],
)
def test_another_device_or_a_general_drift_takes_the_whole_table(facts: FreshnessFacts) -> None:
    assert decide(facts).whole


def test_one_kind_that_drifted_is_measured_again_and_no_other_but_the_audit() -> None:
    found = decide(FreshnessFacts(spot_check=(item(kind_of(DEPTHWISE[0]), 1.1), item("b"), item("c"))))
    assert not found.whole
    assert set(found.layers) == {*DEPTHWISE, *found.audit}


def test_a_kind_that_most_of_the_table_consists_of_takes_the_whole_table() -> None:
    pointwise = next(kind_of(layer) for layer in LAYERS if kind_of(layer) == "conv2d 1x1")
    wide = Table({**TABLE.rows, **table(mobilenet_v1(1.0, 128)).rows, **table(mobilenet_v1(0.75, 96)).rows}, TABLE.info)
    assert decide(FreshnessFacts(spot_check=(item(pointwise, 1.1), item("b"), item("c"))), wide).whole


def test_the_order_is_missing_drifted_widest_and_a_few_by_chance() -> None:
    wide = next(layer for layer in LAYERS if layer.op == "fully_connected")
    drifted = FreshnessFacts(missing_layers=(ELSEWHERE,), spot_check=(item(kind_of(DEPTHWISE[0]), 1.1), item("b"), item("c")))
    found = decide(drifted, with_width(wide, 0.1))
    assert found.layers == (ELSEWHERE, *DEPTHWISE, wide, *found.audit)
    assert len(found.audit) == 3


def test_an_old_table_gets_its_audit_and_no_more() -> None:
    found = decide(FreshnessFacts(age_days=40))
    assert found.layers == found.audit


def test_the_audit_is_drawn_anew_each_time() -> None:
    facts = FreshnessFacts(age_days=40)
    drawn = {choose_scope(TABLE, facts, staleness_reasons(facts), Random(seed)).audit for seed in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize(("changed", "failed"), [(0, False), (1, False), (2, True), (3, True)])
def test_an_audit_that_finds_two_changes_fails(changed: int, failed: bool) -> None:
    audit: Sequence[LayerSpec] = LAYERS[:3]
    assert audit_failed(RefreshScope(False, tuple(audit), tuple(audit)), LAYERS[:changed]) == failed


def test_the_spot_check_has_a_layer_of_every_kind() -> None:
    found = spot_check_layers(TABLE)
    assert {kind_of(layer) for layer in found} == {kind_of(layer) for layer in LAYERS}
    assert len(found) <= 8


def test_devices_are_compared_by_the_facts_that_both_have() -> None:
    one = {"version": "1", "device": {"kernel": "a"}, "conditioning": {"build": "x", "governors": None}}
    two = {"version": "2", "device": {"kernel": "a", "cpu": "new"}, "conditioning": {"build": "x", "governors": ["powersave"]}}
    assert Identity.of_fingerprint(one).differences(Identity.of_fingerprint(two)) == ["runtime version: 1 and 2"]


@pytest.mark.parametrize("odd", [{}, {"device": 3, "conditioning": []}, {"device": {"cpu": ["a\x1b[2J"] * 99}}])
def test_a_device_with_odd_facts_is_compared_all_the_same(odd: dict[str, object]) -> None:
    found = Identity.of_fingerprint({"device": {"cpu": "b"}}).differences(Identity.of_fingerprint(odd))
    assert all("\x1b" not in said and len(said) < 200 for said in found)
