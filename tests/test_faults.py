"""Every kind of fault once, on builds that are resumed afterwards; `benchmarks/faults.py` has as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest
from adb_program import needs_adb
from fault_places import PLACES, RUNNER_FAULTS
from fault_programs import FAKETIME
from fault_schedule import run_schedule
from faulting import Counts, run_trials
from sshd import needs_sshd

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to see processes")]
FAULTS = [
    pytest.param("fake", tuple(kind for kind in PLACES["fake"].kinds if kind != "clock jump"), id="a simulated device"),
    pytest.param("local", (*RUNNER_FAULTS, "kill"), id="this machine"),
    pytest.param("ssh", ("link cut",), id="ssh", marks=needs_sshd),
    pytest.param("adb", ("link cut", "server killed", "reboot"), id="adb", marks=needs_adb),
]


@pytest.mark.parametrize(("name", "kinds"), FAULTS)
def test_nothing_is_lost_doubled_or_left_behind(name: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    """The full disk by a limit on the size of files: mounting one is for benchmarks."""
    found = run_trials(name, tmp_path / "t", len(kinds), seed=1, kinds=kinds, full_file_system=False)
    assert {kind for kind, counts in found.items() if counts.faults} == set(kinds)
    assert {kind: counts for kind, counts in found.items() if not counts.sound} == {}


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime; on Debian: apt install libfaketime")
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    found = run_trials("fake", tmp_path / "t", 1, seed=1, kinds=("clock jump",))
    assert found["clock jump"].sound, found


def test_a_scheduler_that_met_faults_is_gone_on_with_by_the_next(tmp_path: Path) -> None:
    found, reads = run_schedule(tmp_path / "t", 2, seed=1)
    assert reads
    assert sum(counts.faults for counts in found.values()) >= 1
    assert {kind: counts for kind, counts in found.items() if not counts.sound} == {}


def test_the_harness_itself_notices_what_should_not_be() -> None:
    assert Counts(faults=1, most_repeated=1).sound
    for wrong in (Counts(lost=1), Counts(doubled=1), Counts(zero=1), Counts(most_repeated=2), Counts(locks=1), Counts(left=1)):
        assert not wrong.sound
