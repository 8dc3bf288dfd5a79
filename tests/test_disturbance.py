from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from profiler.measure.disturbance import DisturbanceDetector, tag_counts
from profiler.protocol.events import DeviceFacts, Hello, JournalEvent, Measurement, Reference, Refresh, Round

HELLO = Hello(protocol=5, version="1", device=DeviceFacts(), flags={})


def measurement(model: str = "a", milliseconds: float = 1.0, **more: Any) -> Measurement:
    return replace(Measurement(model, 0, 1, (int(milliseconds * 1e6),) * 4), **more)


def look(milliseconds: float, model: str = "r") -> Reference:
    return Reference(model, 0, 1, (int(milliseconds * 1e6),) * 4)


def detected(*events: JournalEvent) -> DisturbanceDetector:
    detector = DisturbanceDetector()
    for event in events:
        detector.see(event)
    return detector


def tags(*events: JournalEvent) -> list[tuple[str, ...]]:
    return [item.tags for found in detected(HELLO, *events).tagged().values() for item in found]


def test_a_quiet_build_has_no_tags() -> None:
    assert tags(look(1.0), measurement(), look(1.01), measurement(), look(1.02), measurement(), look(1.0)) == [(), (), ()]


def test_measurements_beside_a_slow_look_at_the_reference_are_tagged() -> None:
    found = tags(look(1.0), measurement(), look(1.0), measurement(), look(1.3), measurement(), look(1.0), measurement(), look(1.0))
    assert found == [(), ("drift",), ("drift",), ()]


def test_looks_at_another_layer_say_nothing_about_the_reference() -> None:
    assert tags(look(1.0), measurement(), look(1.0), look(9.0, "s"), measurement(), look(1.0), look(1.0)) == [(), ()]


def test_a_look_of_an_earlier_runner_says_nothing_about_a_later_measurement() -> None:
    found = tags(look(1.0), look(1.0), look(1.0), look(1.5), HELLO, measurement(), look(1.0))
    assert found == [()]


def test_a_measurement_during_which_the_core_was_mostly_taken_away_is_tagged() -> None:
    assert tags(measurement(switched=(0, 1, 2)), measurement(switched=(0,))) == [("switched",), ()]


def test_a_measurement_with_a_lower_clock_is_tagged() -> None:
    usual = measurement(clock_khz=(2_000_000, 2_000_000))
    assert tags(usual, usual, measurement(clock_khz=(2_000_000, 1_500_000)), usual) == [(), (), ("clock",), ()]


def test_a_round_in_which_cores_were_throttled_is_tagged() -> None:
    cool, hot = Round(round=0, throttled=7), Round(round=0, throttled=9)
    assert tags(cool, measurement(), hot, measurement(), hot, measurement()) == [(), ("heat",), ()]


def test_what_cannot_be_read_disturbs_nothing() -> None:
    assert tags(Round(round=0), measurement(clock_khz=None), Round(round=0), measurement()) == [(), ()]


def test_tags_are_counted() -> None:
    found = tag_counts(
        [
            Measurement("a", 0, 1, (5,)),
            Measurement("a", 1, 1, (5,), tags=("drift", "heat")),
            Measurement("a", 2, 1, (5,), tags=("drift",)),
        ]
    )
    assert found == {"measurements": 3, "drift": 2, "heat": 1}


def test_after_a_refresh_earlier_measurements_of_its_models_do_not_count() -> None:
    found = detected(measurement("a", 1.0), measurement("b", 1.0), Refresh(("a",)), measurement("a", 2.0, round=1)).tagged()
    assert {model: [item.quiet_ms for item in items] for model, items in found.items()} == {"b": [1.0], "a": [2.0]}


def test_a_refresh_is_not_held_against_the_speed_the_device_had_weeks_before() -> None:
    before = [look(1.0)] * 5
    found = tags(*before, Refresh(()), HELLO, *[look(1.2)] * 5, measurement(), look(1.2))
    assert found == [()]


def test_a_model_is_as_old_as_its_oldest_measurement_that_counts() -> None:
    monday, tuesday = replace(HELLO, utc="2026-01-05"), replace(HELLO, utc="2026-01-06")
    a, b = measurement("a"), measurement("b")
    assert detected(monday, a, b, tuesday, b, Refresh(("a",)), a).measured_utc() == {"a": "2026-01-06", "b": "2026-01-05"}


def test_a_round_at_whose_end_the_device_is_warm_is_tagged_as_a_whole() -> None:
    cool, warm = Round(round=0, thermal_status=0), Round(round=1, thermal_status=2)
    assert tags(cool, measurement(), measurement("b"), warm, measurement(round=1)) == [("heat",), ("heat",), ("heat",)]


def test_of_the_rounds_before_a_warm_moment_only_the_last_is_tagged() -> None:
    later = measurement(round=1)
    found = tags(Round(round=0), measurement(), Round(round=1), later, Round(round=2, thermal_status=2))
    assert found == [(), ("heat",)]


def test_the_work_for_an_event_does_not_grow_with_the_journal() -> None:
    """Counted in calls of Python functions, which no other program on the machine changes."""

    def calls(count: int) -> int:
        detector, seen = detected(HELLO, *[measurement(round=number) for number in range(count)]), [0]

        def trace(frame: object, event: str, arg: object) -> None:
            seen[0] += event in ("call", "c_call")

        sys.setprofile(trace)
        detector.see(Round(round=count, thermal_status=2))
        detector.see(measurement(round=count))
        sys.setprofile(None)
        return seen[0]

    assert calls(10) == calls(1000)
