"""Maintenance of tables on simulated devices whose latencies the tests choose: what is measured again, and what stays in force."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from graphs import mobilenet_v1

from device_agents.support.errors import ToolError
from profiler.errors import JournalNotWritable
from profiler.formats.fake import CALL_NS, layer_ns
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.progress import Silent
from profiler.protocol.events import Energy, Measurement, Refresh
from profiler.protocol.journal import journal_path, read_journal, unwritten
from profiler.schedule import replacement
from profiler.schedule.config import ScheduledTable, read_schedule
from profiler.schedule.maintain import Outcome, maintain
from profiler.schedule.running import Clock, Maintainer
from profiler.schedule.state import read_state, stale_reason, state_path
from profiler.tables.compare import compare_files
from profiler.tables.plan import make_plan, write_plan
from profiler.tables.table import Table, load_table

NETWORK = mobilenet_v1(0.5, 16, classes=10, pairs=3)
NOISY = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n[latency]\nnoise_percent = 1.0\n'
SLOW = 100
"""Times what the fake runtime takes, so that layers weigh more than calls."""


class Device:
    """What the simulated device makes of each kind of layer."""

    def __init__(self) -> None:
        self.slower: Callable[[LayerSpec, bool], float] = lambda layer, alone: 1.0

    def write(self, graph: Graph, seed: int = 0) -> bytes:
        alone = len(graph.nodes) == 1
        total_ns = sum(SLOW * layer_ns(layer) * self.slower(layer, alone) for layer in graph.layers)
        return json.dumps({"latency_ns": CALL_NS + total_ns}).encode()


DEVICE = Device()


def write(graph: Graph, seed: int = 0) -> bytes:
    return DEVICE.write(graph, seed)


def depthwise(layer: LayerSpec) -> bool:
    return layer.op == "depthwise_conv2d"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setitem(FORMATS, "json", replace(FORMATS["json"], writer="test_fresh_tables:write"))
    yield DEVICE
    DEVICE.__init__()  # type: ignore[misc]


@pytest.fixture
def scheduled(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> ScheduledTable:
    monkeypatch.chdir(tmp_path)
    return asked_for_here()


@pytest.fixture(scope="module")
def first_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table that was just built; nothing in it says where it lies."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(FORMATS, "json", replace(FORMATS["json"], writer="test_fresh_tables:write"))
        assert maintained(asked_for_here()).did == "rebuilt"
    return folder


@pytest.fixture
def built(scheduled: ScheduledTable, first_table: Path) -> None:
    """The table that is wanted has just been built."""
    shutil.copytree(first_table, scheduled.out.parent, dirs_exist_ok=True)


def asked_for_here() -> ScheduledTable:
    """What a file in the current folder asks for: one table of a simulated device."""
    write_plan(make_plan(NETWORK), Path("plan.json"))
    Path("script.toml").write_text(NOISY)
    Path("profile.toml").write_text(
        '[devices.phone]\naddress = "fake:script.toml"\n'
        '[tables.small]\ndevice = "phone"\nplan = "plan.json"\nruntime = "fake"\nrounds = 6\nmax_layers = 1\nkeep = 2\n'
    )
    (table,) = read_schedule().tables
    return table


NOW = datetime.now(UTC)


def maintained(scheduled: ScheduledTable, now: datetime | None = None) -> Outcome:
    return maintain(scheduled, now or datetime.now(UTC), Silent(), Random(1))


def measurements(path: Path) -> list[str]:
    return [event.model for event in read_journal(journal_path(path)) if isinstance(event, Measurement)]


def rows(table: Table, which: Callable[[LayerSpec], bool]) -> dict[LayerSpec, float]:
    return {layer: row.latency_ms.value for layer, row in table.rows.items() if which(layer)}


def test_a_missing_table_is_built_and_then_fresh(scheduled: ScheduledTable) -> None:
    assert maintained(scheduled).did == "rebuilt"
    before = scheduled.out.read_bytes()
    assert maintained(scheduled).did == "fresh"
    assert scheduled.out.read_bytes() == before
    assert not replacement.new_path(scheduled.out).exists()


@pytest.mark.usefixtures("built")
def test_an_old_table_is_refreshed_in_part_and_its_networks_are_measured_again(scheduled: ScheduledTable) -> None:
    before, count = load_table(scheduled.out), len(measurements(scheduled.out))
    outcome = maintained(replace(scheduled, max_age_days=0.5), datetime.now(UTC) + timedelta(days=1))
    assert outcome.did == "refreshed"
    assert "24 hours old, more than the 12 hours allowed" in outcome.sentence
    again = measurements(scheduled.out)[count:]
    known = {layer.key for layer in before.rows}
    assert 0 < len({key for key in again if key in known}) < 0.2 * len(known)  # the audit and what was wide
    assert {key for key in again if key.startswith("network ")} == {
        key for key in measurements(scheduled.out) if key.startswith("network ")
    }


@pytest.mark.usefixtures("built")
def test_the_rows_that_were_kept_keep_their_date_and_their_values(scheduled: ScheduledTable, device: Device) -> None:
    before = load_table(scheduled.out)
    device.slower = lambda layer, alone: 1.3 if depthwise(layer) else 1.0
    assert maintained(scheduled).did == "refreshed"
    after = load_table(scheduled.out)
    (begun,) = [event for event in read_journal(journal_path(scheduled.out)) if isinstance(event, Refresh)]
    for layer, row in before.rows.items():
        assert layer.key in begun.models or after.rows[layer] == row
    assert set(after.info.measured_utc) == {layer.key for layer in after.rows}
    assert all(utc >= (begun.utc or "") for key, utc in after.info.measured_utc.items() if key in begun.models)


@pytest.mark.usefixtures("built")
def test_a_kind_of_layer_that_drifted_is_measured_again_and_the_change_is_reported(
    scheduled: ScheduledTable, device: Device
) -> None:
    before = load_table(scheduled.out)
    device.slower = lambda layer, alone: 1.3 if depthwise(layer) else 1.0
    outcome = maintained(scheduled)
    after = load_table(scheduled.out)
    assert outcome.did == "refreshed"
    slow = [layer for layer in rows(after, depthwise) if SLOW * layer_ns(layer) > CALL_NS]
    for layer in slow:
        assert after.rows[layer].latency_ms.value > 1.1 * before.rows[layer].latency_ms.value
    assert outcome.changed is not None
    assert outcome.changed >= 0.8 * len(slow) > 0
    assert after.verified
    assert maintained(scheduled).did == "fresh"


def test_energy_is_measured_again_with_what_is_refreshed(scheduled: ScheduledTable) -> None:
    Path("script.toml").write_text(NOISY + "[energy]\nidle_w = 1\nbusy_w = 3\n")
    scheduled = replace(scheduled, energy=True)
    maintained(scheduled)
    before = load_table(scheduled.out)
    assert maintained(replace(scheduled, max_age_days=0.5), NOW + timedelta(days=1)).did == "refreshed"
    events = list(read_journal(journal_path(scheduled.out)))
    ((place, refresh),) = [(place, event) for place, event in enumerate(events) if isinstance(event, Refresh)]
    assert {event.model for event in events[place:] if isinstance(event, Energy)} == set(refresh.models)
    assert set(load_table(scheduled.out).energy_mj) == set(before.energy_mj)


def test_energy_that_is_asked_for_later_is_measured_if_the_device_can(scheduled: ScheduledTable) -> None:
    Path("script.toml").write_text(NOISY + "[energy]\nidle_w = 1\nbusy_w = 3\n")
    maintained(scheduled)
    outcome = maintained(replace(scheduled, energy=True))
    assert "energy" in outcome.sentence and load_table(scheduled.out).energy_mj
    assert maintained(replace(scheduled, energy=True)).did == "fresh"


@pytest.mark.usefixtures("built")
def test_a_general_drift_rebuilds_the_whole_table(scheduled: ScheduledTable, device: Device) -> None:
    device.slower = lambda layer, alone: 1.3
    outcome = maintained(scheduled)
    assert outcome.did == "rebuilt"
    assert not [event for event in read_journal(journal_path(scheduled.out)) if isinstance(event, Refresh)]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("[latency]", '[device]\ngovernor = "powersave"\n[latency]'), "governor"),
        (lambda text: text.replace("[latency]", '[device]\nkernel = "6.9"\n[latency]'), "kernel"),
        (lambda text: text + "base_us = 20\n", "runner's hash"),
    ],
)
def test_a_device_that_changed_gets_a_whole_new_table(scheduled: ScheduledTable, change: Callable[[str], str], said: str) -> None:
    script = Path("script.toml")
    script.write_text(change(script.read_text()))
    outcome = maintained(scheduled)
    assert outcome.did == "rebuilt"
    assert f"the device has changed: {said}" in outcome.sentence
    assert "measured differently" in outcome.sentence


@pytest.mark.usefixtures("built")
def test_a_table_with_another_setting_for_threads_is_rebuilt(scheduled: ScheduledTable) -> None:
    outcome = maintained(replace(scheduled, target=replace(scheduled.target, threads=2)))
    assert outcome.did == "rebuilt"
    assert load_table(scheduled.out).info.target.threads == 2


@pytest.mark.usefixtures("built")
def test_a_new_table_with_too_large_an_error_leaves_the_old_one_in_force(scheduled: ScheduledTable, device: Device) -> None:
    before = scheduled.out.read_bytes(), journal_path(scheduled.out).read_bytes()
    wild = Random(3)
    device.slower = lambda layer, alone: 1.3 if alone else wild.uniform(0.5, 4)  # networks follow no sum of layers
    outcome = maintained(scheduled)
    assert outcome.did == "failed"
    assert "the last good table stays in force" in outcome.sentence
    assert (scheduled.out.read_bytes(), journal_path(scheduled.out).read_bytes()) == before
    assert len(replacement.history_of(scheduled.out, ".failed")) == 1
    assert replacement.unfinished_journal(scheduled.out) is None


def test_a_first_table_with_too_large_an_error_is_not_put_in_force(scheduled: ScheduledTable) -> None:
    outcome = maintained(replace(scheduled, max_held_out_error_percent=1e-9))
    assert outcome.did == "failed"
    assert not scheduled.out.exists()


def test_earlier_tables_are_kept_and_pruned(scheduled: ScheduledTable) -> None:
    for day in range(4):
        threads = 1 + day % 2
        maintained(replace(scheduled, target=replace(scheduled.target, threads=threads)), NOW + timedelta(days=day))
    kept = replacement.history_of(scheduled.out)
    assert len(kept) == 2
    assert [load_table(path).info.target.threads for path in kept] == [2, 1]
    assert all(journal_path(path).exists() for path in kept)
    assert len(list((scheduled.out.parent / "history").iterdir())) == 4


class Impatient(Silent):
    """Ends the work after so many measurements."""

    def __init__(self, left: int, message: str = "measuring") -> None:
        self.left, self.message, self.counting = left, message, False

    def begin(self, what: str, total: int) -> None:
        self.counting = what.startswith(self.message)

    def advance(self, note: str = "") -> None:
        self.left -= self.counting
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("built")
def test_an_interrupted_refresh_is_resumed(scheduled: ScheduledTable, device: Device) -> None:
    before = scheduled.out.read_bytes()
    device.slower = lambda layer, alone: 1.3 if depthwise(layer) else 1.0
    with pytest.raises(KeyboardInterrupt):
        maintain(scheduled, NOW, Impatient(20), Random(1))
    assert scheduled.out.read_bytes() == before
    done = measurements(replacement.new_path(scheduled.out))
    assert maintained(scheduled).did == "refreshed"
    assert measurements(scheduled.out)[: len(done)] == done
    rounds = [(event.model, event.round) for event in read_journal(journal_path(scheduled.out)) if isinstance(event, Measurement)]
    assert len(rounds) == len(set(rounds))


def test_an_interrupted_first_build_is_resumed(scheduled: ScheduledTable) -> None:
    with pytest.raises(KeyboardInterrupt):
        maintain(scheduled, NOW, Impatient(20), Random(1))
    done = measurements(replacement.new_path(scheduled.out))
    assert maintained(scheduled).did == "rebuilt"
    assert measurements(scheduled.out)[: len(done)] == done


def test_a_build_that_was_interrupted_before_the_device_changed_is_set_aside_and_begun_again(scheduled: ScheduledTable) -> None:
    with pytest.raises(KeyboardInterrupt):
        maintain(scheduled, NOW, Impatient(20), Random(1))
    Path("script.toml").write_text(NOISY.replace("[latency]", '[device]\nkernel = "6.9"\n[latency]'))
    assert maintained(scheduled).did == "rebuilt"
    assert load_table(scheduled.out).info.device["device"]["kernel"] == "6.9"
    assert len(list((scheduled.out.parent / "history").glob("*.failed.journal.jsonl"))) == 1


@pytest.mark.usefixtures("built")
def test_a_promotion_that_was_cut_short_is_finished(scheduled: ScheduledTable) -> None:
    """Ended between moving the journal and moving the table."""
    scheduled.out.rename(replacement.new_path(scheduled.out))
    assert maintained(scheduled).did == "fresh"


@pytest.mark.usefixtures("built")
def test_a_table_that_another_process_extends_is_not_replaced_meanwhile_and_nothing_is_measured_again(
    scheduled: ScheduledTable,
) -> None:
    before, old, tomorrow = scheduled.out.read_bytes(), replace(scheduled, max_age_days=0.5), NOW + timedelta(days=1)
    with unwritten(journal_path(scheduled.out)), pytest.raises(JournalNotWritable):
        maintained(old, tomorrow)
    assert scheduled.out.read_bytes() == before
    made = measurements(replacement.new_path(scheduled.out))
    assert maintained(old, tomorrow).did == "refreshed"
    assert measurements(scheduled.out) == made


@pytest.mark.usefixtures("built")
def test_a_damaged_table_is_rebuilt_and_kept_in_the_history(scheduled: ScheduledTable) -> None:
    scheduled.out.write_bytes(b"garbage")
    assert maintained(scheduled).did == "rebuilt"
    assert [path.read_bytes() for path in replacement.history_of(scheduled.out)] == [b"garbage"]


@pytest.mark.usefixtures("built")
def test_a_table_without_its_journal_is_rebuilt(scheduled: ScheduledTable) -> None:
    journal_path(scheduled.out).unlink()
    assert maintained(replace(scheduled, max_age_days=0.5), NOW + timedelta(days=1)).did == "rebuilt"


@pytest.mark.usefixtures("built")
def test_two_builds_of_one_device_hardly_differ(scheduled: ScheduledTable) -> None:
    maintained(replace(scheduled, settings=replace(scheduled.settings, seed=2)))
    (earlier,) = replacement.history_of(scheduled.out)
    comparison = compare_files(earlier, scheduled.out)
    assert comparison.tested
    assert len(comparison.changed) <= 2
    assert comparison.differing_conditions == ()


# ------------------------------------------------------------------------------------------------- the maintainer and its state


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, most: float = 1e9) -> None:
        self.moment, self.left_s = datetime.now(UTC), most

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.left_s -= seconds
        if self.left_s < 0:
            raise KeyboardInterrupt


def silent(names: Any) -> dict[str, Silent]:
    return {name: Silent() for name in names}


@contextmanager
def progress(names: Any) -> Iterator[dict[str, Silent]]:
    yield silent(names)


def maintainer(clock: FakeClock, said: list[str] | None = None) -> Maintainer:
    return Maintainer(Clock(clock.now, clock.sleep), (said if said is not None else []).append)


def test_a_table_is_checked_when_it_is_due(scheduled: ScheduledTable) -> None:
    clock = FakeClock()
    first = maintainer(clock).once(read_schedule(), silent(["phone"]))
    assert first["small"].did == "rebuilt"
    assert maintainer(clock).once(read_schedule(), silent(["phone"])) == {}
    clock.sleep(24 * 3600)
    assert maintainer(clock).once(read_schedule(), silent(["phone"]))["small"].did == "fresh"


def test_the_scheduler_waits_until_each_check_is_due(scheduled: ScheduledTable) -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        maintainer(FakeClock(2.5 * 86400), said).forever(read_schedule, progress)
    assert len([line for line in said if line.startswith("small")]) in (3, 4)  # at once, and two or three nights


def test_a_device_that_cannot_be_reached_is_recorded_and_notified_as_a_failure(scheduled: ScheduledTable, tmp_path: Path) -> None:
    text = Path("profile.toml").read_text()
    heard = tmp_path / "heard.json"
    (tmp_path / "hear").write_text(f"#!/bin/sh\ncat > {heard}\n")
    (tmp_path / "hear").chmod(0o755)
    Path("profile.toml").write_text(f'{text}[schedule]\ncommand = ["{tmp_path}/hear", "T0KEN"]\n')
    Path("script.toml").unlink()
    said: list[str] = []
    found = maintainer(FakeClock(), said).once(read_schedule(), silent(["phone"]))
    assert found["small"].did == "failed"
    assert "script" in str(read_state(scheduled.out).failure)
    news = json.loads(heard.read_text())
    assert (news["table"], news["did"], news["verified"]) == ("small", "failed", False)


def test_one_table_that_fails_does_not_stop_the_others(scheduled: ScheduledTable) -> None:
    more = '[tables.other]\ndevice = "phone"\nplan = "gone.json"\nruntime = "fake"\n'
    Path("profile.toml").write_text(Path("profile.toml").read_text().replace("[tables.small]", more + "[tables.small]"))
    found = maintainer(FakeClock()).once(read_schedule(), silent(["phone"]))
    assert (found["other"].did, found["small"].did) == ("failed", "rebuilt")


def test_a_table_that_stays_stale_is_reported_as_stale_until_it_is_rebuilt(scheduled: ScheduledTable, device: Device) -> None:
    clock = FakeClock()
    maintainer(clock).once(read_schedule(), silent(["phone"]))
    assert stale_reason(scheduled.out, load_table(scheduled.out)) is None
    device.slower = lambda layer, alone: 1.3
    clock.sleep(86400)
    strict = replace(read_schedule(), tables=(replace(scheduled, max_held_out_error_percent=1e-9),))
    maintainer(clock).once(strict, silent(["phone"]))
    assert "latencies have drifted" in str(stale_reason(scheduled.out, load_table(scheduled.out)))
    clock.sleep(86400)
    maintainer(clock).once(read_schedule(), silent(["phone"]))
    assert stale_reason(scheduled.out, load_table(scheduled.out)) is None


@pytest.mark.usefixtures("built")
def test_a_table_is_stale_by_age_without_any_scheduler(scheduled: ScheduledTable) -> None:
    table = load_table(scheduled.out)
    assert stale_reason(scheduled.out, table, NOW + timedelta(days=29)) is None
    assert stale_reason(scheduled.out, table, NOW + timedelta(days=40)) == "it is 40 days old"


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 2}', '{"format": 99}', "\x00", "[" * 100_000, "x" * 2_000_000])
def test_a_damaged_state_file_is_read_as_an_empty_state(scheduled: ScheduledTable, text: str) -> None:
    state_path(scheduled.out).write_text(text)
    assert read_state(scheduled.out).looked_utc is None


def test_a_later_mistake_in_the_file_is_reported_once_and_the_old_schedule_stays_in_use(scheduled: ScheduledTable) -> None:
    said: list[str] = []
    clock = FakeClock(600)
    original = clock.sleep

    def sleep(seconds: float) -> None:
        Path("profile.toml").write_text("[tables.small]\nthread = 3\n")
        original(seconds)

    clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        maintainer(clock, said).forever(read_schedule, progress)
    assert len([line for line in said if "the schedule that was read before stays in use" in line]) == 1


@pytest.mark.usefixtures("built")
def test_nothing_that_is_wrong_with_one_table_is_a_traceback(scheduled: ScheduledTable) -> None:
    journal_path(scheduled.out).write_bytes(b'{"event":"journal","format":2}\n{"event":"measurement"}\n')
    try:
        assert maintained(replace(scheduled, max_age_days=0.5), NOW + timedelta(days=1)).did == "rebuilt"
    except ToolError:
        pass
