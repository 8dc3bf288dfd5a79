from __future__ import annotations

from typing import Any

import pytest

from profiler.measure.energy import energies_mj


def idle(watts: float, seconds: float = 1.0) -> dict[str, Any]:
    return {"event": "idle", "round": 0, "duration_ns": int(seconds * 1e9), "energy_uj": int(watts * seconds * 1e6)}


def measurement(key: str, watts: float, inferences: int, seconds: float = 1.0) -> dict[str, Any]:
    return idle(watts, seconds) | {"event": "energy", "key": key, "inferences": inferences}


def test_what_the_idle_device_takes_is_subtracted() -> None:
    assert energies_mj([idle(2.0), measurement("a", 5.0, 100)]) == {"a": pytest.approx(30.0)}


def test_an_inference_costs_the_same_however_long_the_measurement() -> None:
    found = energies_mj([idle(2.0), measurement("a", 5.0, 100), measurement("b", 5.0, 200, seconds=2.0)])
    assert found["a"] == pytest.approx(found["b"])


def test_the_median_of_the_rounds_counts() -> None:
    assert energies_mj([idle(0.0), *(measurement("a", watts, 1000) for watts in (1.0, 9.0, 2.0))]) == {"a": pytest.approx(2.0)}


def test_what_is_measured_again_replaces_what_was() -> None:
    before, again = measurement("a", 3.0, 1000), {"event": "refresh", "keys": ["a"]}
    lines = [idle(1.0), before, measurement("b", 3.0, 1000), again, measurement("a", 5.0, 1000)]
    assert energies_mj(lines) == pytest.approx({"a": 4.0, "b": 2.0})


def test_without_a_watch_of_the_idle_device_nothing_is_said() -> None:
    assert energies_mj([measurement("a", 5.0, 100)]) == {}


def test_a_layer_lost_in_the_idle_power_is_not_guessed() -> None:
    assert energies_mj([idle(2.0), measurement("a", 1.9, 100)]) == {}
