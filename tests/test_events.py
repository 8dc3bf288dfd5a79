"""What a device says is checked before it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import RunnerError
from profiler.protocol.events import JOURNAL_EVENTS, PROTOCOL, RUNNER_EVENTS, Measurement
from profiler.protocol.lines import event_data, parse_line, read_event

MEASUREMENT = {
    "event": "measurement",
    "model": "a",
    "round": 0,
    "started_ns": 1,
    "loops": 1,
    "samples_ns": [5],
    "switched": [],
    "clock_khz": None,
}


def test_chatter_of_a_runtime_is_passed_over() -> None:
    assert [parse_line(line) for line in ("INFO: delegate", "{not json", '{"a": 1}', "[]", "")] == [None] * 5


def test_a_good_measurement_is_taken() -> None:
    assert parse_line(json.dumps(MEASUREMENT)) == Measurement("a", 0, 1, (5,), started_ns=1)


@pytest.mark.parametrize(
    "change",
    [
        {"samples_ns": [0]}, {"samples_ns": []}, {"samples_ns": [1.5]}, {"samples_ns": [10**14]}, {"samples_ns": [True]},
        {"loops": 0}, {"switched": [1]}, {"switched": None}, {"clock_khz": ["x"]}, {"model": 7}, {"round": -1}, {"round": "0"},
        {"started_ns": None}, {"event": "reference", "samples_ns": [0]},
        {"event": "energy", "inferences": 0, "duration_ns": 5, "energy_uj": 1},
        {"event": "energy", "inferences": 1, "duration_ns": 5, "energy_uj": -1},
        {"event": "outputs", "outputs": [{"shape": [1]}]}, {"event": "failed"},
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(RunnerError):
        parse_line(json.dumps(MEASUREMENT | change))


@pytest.mark.parametrize("value", ["hot", [1], True, float("nan"), 1e300])
def test_conditions_are_numbers_or_nothing(value: Any) -> None:
    with pytest.raises(RunnerError):
        parse_line(json.dumps({"event": "round", "round": 0, "temperature_c": value}))


def test_another_protocol_is_refused() -> None:
    with pytest.raises(RunnerError, match=f"speaks protocol {PROTOCOL - 1}"):
        parse_line(json.dumps({"event": "hello", "protocol": PROTOCOL - 1}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*MEASUREMENT, "protocol", "device", "flags", "version", "runtimes", "outputs", "energy_uj", "inferences", "reason"]
)


@given(st.sampled_from(sorted(RUNNER_EVENTS)), st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_line_is_understood_or_refused(event: str, fields: dict[str, Any]) -> None:
    try:
        found = parse_line(json.dumps(fields | {"event": event}))
    except RunnerError:
        return
    assert found is not None and parse_line(json.dumps(event_data(found))) == found


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        parse_line(text)
    except RunnerError:
        pass


@given(st.sampled_from(sorted(JOURNAL_EVENTS)), st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_line_of_a_journal_is_understood_or_refused(event: str, fields: dict[str, Any]) -> None:
    try:
        found = read_event(fields | {"event": event})
    except ValueError:
        return
    assert read_event(json.loads(json.dumps(event_data(found)))) == found


def test_a_tag_is_no_part_of_a_line() -> None:
    found = parse_line(json.dumps(MEASUREMENT | {"tags": ["drift"]}))
    assert isinstance(found, Measurement) and found.tags == ()
    assert "tags" not in event_data(Measurement("a", 0, 1, (5,), tags=("drift",)))


@pytest.mark.parametrize("name", ["journal", "layer", "refresh", "spent", "crashed"])
def test_a_runner_cannot_write_the_hosts_own_lines(name: str) -> None:
    with pytest.raises(RunnerError, match="only this host"):
        parse_line(json.dumps({"event": name}))
