from __future__ import annotations

import pytest

from profiler.measure.energy import energies_mj
from profiler.measure.state import MeasurementState
from profiler.protocol.events import Energy, Idle, Refresh


def idle(watts: float, seconds: float = 1.0) -> Idle:
    return Idle(0, int(seconds * 1e9), int(watts * seconds * 1e6))


def measurement(key: str, watts: float, inferences: int, seconds: float = 1.0) -> Energy:
    return Energy(key, 0, inferences, int(seconds * 1e9), int(watts * seconds * 1e6))


def found_mj(*events: Idle | Energy | Refresh) -> dict[str, float]:
    state = MeasurementState.of(events)
    return energies_mj(state.idle, state.energy)


def test_what_the_idle_device_takes_is_subtracted() -> None:
    assert found_mj(idle(2.0), measurement("a", 5.0, 100)) == {"a": pytest.approx(30.0)}


def test_an_inference_costs_the_same_however_long_the_measurement() -> None:
    found = found_mj(idle(2.0), measurement("a", 5.0, 100), measurement("b", 5.0, 200, seconds=2.0))
    assert found["a"] == pytest.approx(found["b"])


def test_the_median_of_the_rounds_counts() -> None:
    assert found_mj(idle(0.0), *(measurement("a", watts, 1000) for watts in (1.0, 9.0, 2.0))) == {"a": pytest.approx(2.0)}


def test_what_is_measured_again_replaces_what_was() -> None:
    before, again = measurement("a", 3.0, 1000), Refresh(("a",))
    events = [idle(1.0), before, measurement("b", 3.0, 1000), again, measurement("a", 5.0, 1000)]
    assert found_mj(*events) == pytest.approx({"a": 4.0, "b": 2.0})


def test_without_a_watch_of_the_idle_device_nothing_is_said() -> None:
    assert found_mj(measurement("a", 5.0, 100)) == {}


def test_a_layer_lost_in_the_idle_power_is_not_guessed() -> None:
    assert found_mj(idle(2.0), measurement("a", 1.9, 100)) == {}
