from __future__ import annotations

from typing import Any

from profiler.measure.disturbance import Watch, tag_counts
from profiler.measure.estimate import Measurement


def measurement(key: str = "a", milliseconds: float = 1.0, **more: Any) -> dict[str, Any]:
    line = {"event": "measurement", "key": key, "round": 0, "loops": 1, "samples_ns": [int(milliseconds * 1e6)] * 4, "switched": []}
    return line | more


def look(milliseconds: float, key: str = "r") -> dict[str, Any]:
    return measurement(key, milliseconds) | {"event": "reference"}


def tags(*lines: dict[str, Any]) -> list[tuple[str, ...]]:
    watch = Watch()
    for line in ({"event": "hello"}, *lines):
        watch.see(line)
    return [seen.tags for _, seen in watch.measurements()]


def test_a_quiet_build_has_no_tags() -> None:
    assert tags(look(1.0), measurement(), look(1.01), measurement(), look(1.02), measurement(), look(1.0)) == [(), (), ()]


def test_measurements_beside_a_slow_look_at_the_reference_are_tagged() -> None:
    found = tags(look(1.0), measurement(), look(1.0), measurement(), look(1.3), measurement(), look(1.0), measurement(), look(1.0))
    assert found == [(), ("drift",), ("drift",), ()]


def test_looks_at_another_layer_say_nothing_about_the_reference() -> None:
    assert tags(look(1.0), measurement(), look(1.0), look(9.0, "s"), measurement(), look(1.0), look(1.0)) == [(), ()]


def test_a_look_of_an_earlier_runner_says_nothing_about_a_later_measurement() -> None:
    found = tags(look(1.0), look(1.0), look(1.0), look(1.5), {"event": "hello"}, measurement(), look(1.0))
    assert found == [()]


def test_a_measurement_during_which_the_core_was_mostly_taken_away_is_tagged() -> None:
    assert tags(measurement(switched=[0, 1, 2]), measurement(switched=[0])) == [("switched",), ()]


def test_a_measurement_with_a_lower_clock_is_tagged() -> None:
    usual = measurement(clock_khz=[2_000_000, 2_000_000])
    assert tags(usual, usual, measurement(clock_khz=[2_000_000, 1_500_000]), usual) == [(), (), ("clock",), ()]


def test_a_round_in_which_cores_were_throttled_is_tagged() -> None:
    cool, hot = {"event": "round", "throttled": 7}, {"event": "round", "throttled": 9}
    assert tags(cool, measurement(), hot, measurement(), hot, measurement()) == [(), ("heat",), ()]


def test_what_cannot_be_read_disturbs_nothing() -> None:
    assert tags({"event": "round", "throttled": None}, measurement(clock_khz=None), {"event": "round"}, measurement()) == [(), ()]


def test_tags_are_counted() -> None:
    found = tag_counts(
        [Measurement(0, 1, (5,)), Measurement(1, 1, (5,), tags=("drift", "heat")), Measurement(2, 1, (5,), tags=("drift",))]
    )
    assert found == {"measurements": 3, "drift": 2, "heat": 1}


def test_after_a_refresh_earlier_measurements_of_its_keys_do_not_count() -> None:
    watch = Watch()
    for line in (measurement("a", 1.0), measurement("b", 1.0), {"event": "refresh", "keys": ["a"]}, measurement("a", 2.0, round=1)):
        watch.see(line)
    assert [(key, seen.quiet_ms) for key, seen in watch.measurements()] == [("b", 1.0), ("a", 2.0)]


def test_a_refresh_is_not_held_against_the_speed_the_device_had_weeks_before() -> None:
    before = [look(1.0)] * 5
    found = tags(*before, {"event": "refresh", "keys": []}, {"event": "hello"}, *[look(1.2)] * 5, measurement(), look(1.2))
    assert found == [()]


def test_a_key_is_as_old_as_its_oldest_measurement_that_counts() -> None:
    watch = Watch()
    monday, tuesday = {"event": "hello", "utc": "2026-01-05"}, {"event": "hello", "utc": "2026-01-06"}
    for line in (
        monday,
        measurement("a"),
        measurement("b"),
        tuesday,
        measurement("b"),
        {"event": "refresh", "keys": ["a"]},
        measurement("a"),
    ):
        watch.see(line)
    assert watch.measured_utc() == {"a": "2026-01-06", "b": "2026-01-05"}
