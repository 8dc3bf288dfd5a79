"""Faults at random points of builds, each resumed until it is done, and what may never happen then, counted.

A trial is one build in a folder of its own. Process after process goes on with it, and each meets a fault, until one ends well.
What was acknowledged is what the journal holds, in whole lines, when the process is dead: read before the next one is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fault_places import PLACES, Place, processes_of
from fault_programs import FAKETIME, dying_after, jump, other_clock

from device_agents.device_lock import lock_path
from device_agents.discovery import agent_kind
from profiler.measure.state import MeasurementState
from profiler.protocol.journal import journal_path, read_journal
from profiler.tables.derive import table_of
from profiler.tables.table import load_table

LONGEST_S = 90.0
STRAY_S = 10.0
"""A runner whose host is dead notices after a measurement at the latest."""
JUMPS = ("-400d", "+3650d", "-1h", "+40d")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "hup": signal.SIGHUP}
BY_DEVICE = ("crash", "hang", "out of memory", "link lost", "poison", "garbage")
"""Faults that the device brings about by itself, as it was told before."""
FAULTY_ROUND = 6
"""So many faults a build meets at the most."""


@dataclass
class Counts:
    """Of one kind of fault."""

    faults: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    zero: int = 0
    repeated: int = 0
    """Measurements that a runner made and the journal does not have, so they were made again; unseen of simulated devices."""
    most_repeated: int = 0
    locks: int = 0
    strays: int = 0
    left: int = 0
    """Temporary files that outlived the resume."""
    wrong: list[str] = field(default_factory=list)
    """Whatever else should not be."""

    def add(self, other: Counts) -> None:
        for name in ("faults", "acknowledged", "lost", "doubled", "zero", "repeated", "locks", "strays", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.most_repeated = max(self.most_repeated, other.most_repeated)
        self.wrong += other.wrong

    @property
    def sound(self) -> bool:
        """Nothing lost, doubled or left behind, and at most one measurement made again for each fault."""
        bad = self.lost or self.doubled or self.zero or self.locks or self.strays or self.left or self.wrong
        return not bad and self.most_repeated <= 1


class Child:
    """A host in a session of its own, whose words go into a file."""

    def __init__(self, argv: list[str], folder: Path, environment: Mapping[str, str], file_bytes: int | None = None) -> None:
        def limit() -> None:
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.process = subprocess.Popen(
            argv, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=self._said, start_new_session=True, preexec_fn=limit,
        )  # fmt: skip

    def ended(self) -> tuple[int, str]:
        """Exit code and what it said; one that does not end is killed, and that is told as code 1000."""
        try:
            code = self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
            code = 1000
        self._said.seek(0)
        return code, self._said.read().decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    @property
    def runs(self) -> bool:
        return self.process.poll() is None


class Trial:
    """One build of a place, and the counts of its faults by kind."""

    def __init__(self, place: Place, out: Path, chance: Random) -> None:
        self.place, self.out, self.chance = place, out, chance
        self.journal = journal_path(out)
        self.counts: dict[str, Counts] = {}
        self._measured_before, self._seen_repeats = self._measured(), 0

    # ------------------------------------------------------------------------------------------------------------ processes

    def argv(self) -> list[str]:
        folder = self.place.folder
        if self.place.name != "fake":
            return [sys.executable, str(folder / "host.py"), str(folder / "plan.json"), str(self.out)]
        words = [
            "build", str(folder / "plan.json"), "--device", "phone", "--runtime", "litert", "--rounds", "3", "--max-layers", "1",
            "--out", str(self.out), "--resume",
        ]  # fmt: skip
        return [sys.executable, "-c", "from profiler.cli.app import app; app()", *words]

    def start(self, environment: Mapping[str, str] | None = None, file_bytes: int | None = None) -> Child:
        variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parent.parent))}
        return Child(self.argv(), self.place.folder, {**variables, **self.place.environment, **(environment or {})}, file_bytes)

    def finish(self) -> None:
        """Go on until it is done; three attempts, for a device may need a moment after a fault."""
        for _ in range(3):
            code, said = self.start().ended()
            if code == 0 or " is kept, but " in said:  # a model that takes the runner down is told by the exit code too
                return
            time.sleep(0.5)
        raise AssertionError(f"the build cannot be gone on with: code {code}, {said[-1500:]}")

    # --------------------------------------------------------------------------------------------------------------- faults

    def fault(self, kind: str, lines: int) -> bool:
        """Let a process meet a fault some way into `lines` further lines; False if it was done before that could happen."""
        at_least = 1 if kind in ("term", "hup") else 0  # while Python itself starts, any program ends by the signal
        before, at = whole_lines(self.journal), self.chance.randint(at_least, lines)
        self.place.arm(kind, self.chance, keys(before, "layer"))
        code, said, happened = self._struck(kind, len(before) + at)
        self.place.disarm()
        found = self.counts.setdefault(kind, Counts())
        found.add(self._after(kind, before, code, said, happened))
        return happened

    def _struck(self, kind: str, line: int) -> tuple[int, str, bool]:
        match kind:
            case "two builds":
                return self._two_builds(line)
            case "file operation":
                child = self.start(dying_after(self.chance.randint(1, 3), self.place.folder))
                code, said = child.ended()
                return code, said, code == -signal.SIGKILL
            case "disk full":
                return self._disk_full()
            case "clock jump":
                return self._clock_jump(line)
            case _:
                started, child = len(self.place.runners()), self.start()
                happened = True
                if kind in SIGNALS:
                    self._await(child, line)
                    happened = child.runs
                    child.signal(SIGNALS[kind])
                elif self.place.name != "fake" and kind not in BY_DEVICE:
                    self._await(child, line)
                    happened = self._runner_is_there(child, started) and self.place.strike(kind)
                return *child.ended(), happened

    def _runner_is_there(self, child: Child, started: int) -> bool:
        """Once this process has started one; false if it ends without."""
        while child.runs and len(self.place.runners()) == started:
            time.sleep(0.005)
        return child.runs

    def _two_builds(self, line: int) -> tuple[int, str, bool]:
        """Both at once; then one of them is killed, and the other may do what it likes."""
        one, two = self.start(), self.start()
        self._await(one, line)
        happened = one.runs or two.runs
        self.chance.choice((one, two)).signal(signal.SIGKILL)
        (first, said), (second, more) = one.ended(), two.ended()
        return max(first, second), said + more, happened

    def _disk_full(self) -> tuple[int, str, bool]:
        """No file may grow any more after some thousand bytes; on a small file system of its own where there is one."""
        size = self.journal.stat().st_size if self.journal.exists() else 0
        room = self.chance.randint(0, 40_000)
        if (self.place.folder / "small").is_mount():
            with filled_up_to(self.place.folder / "small", room):
                code, said = self.start().ended()
        else:
            code, said = self.start(file_bytes=size + room).ended()
        return code, said, code != 0

    def _clock_jump(self, line: int) -> tuple[int, str, bool]:
        """And a kill some way behind it, so that there is something to go on with."""
        child = self.start(other_clock(self.place.folder))
        self._await(child, line)
        happened = child.runs
        jump(self.place.folder, self.chance.choice(JUMPS))
        self._await(child, line + self.chance.randint(1, 60))
        child.signal(signal.SIGKILL)
        return *child.ended(), happened

    def _await(self, child: Child, line: int) -> None:
        """Until the journal has so many lines, or the process has ended."""
        until, seen, offset = time.monotonic() + LONGEST_S, 0, 0
        while child.runs and time.monotonic() < until and seen < line:
            if self.journal.exists():
                with self.journal.open("rb") as file:
                    file.seek(offset)
                    seen, offset = seen + file.read().count(b"\n"), file.tell()
            time.sleep(0.002)

    # --------------------------------------------------------------------------------------------------------------- counts

    def _after(self, kind: str, before: list[bytes], code: int, said: str, happened: bool) -> Counts:
        strays = self._strays()
        now = whole_lines(self.journal)
        self.acknowledged = now
        found = Counts(faults=int(happened), acknowledged=len(measurements_of(now)), strays=len(strays), locks=len(self._locks()))
        found.lost = sum(now[place : place + 1] != [line] for place, line in enumerate(before))
        if "Traceback" in said or code == 1000:
            found.wrong.append(f"{kind} on {self.place.name}: code {code}: {said[-1500:]}")
        if kind in ("term", "hup") and happened and code < 0:
            found.wrong.append(f"{kind} on {self.place.name}: it did not end in order, but by signal {-code}")
        if self.place.name != "fake":
            repeats = self._measured() - self._measured_before - len(measurements_of(now))
            found.repeated = found.most_repeated = repeats - self._seen_repeats
            self._seen_repeats = repeats
        return found

    def _measured(self) -> int:
        """Measurements that runners of this place have made, told or not."""
        return sum(line["event"] == "measurement" for line in self.place.said())

    def _strays(self) -> list[tuple[int, str]]:
        """Processes that outlive their host; a runner that was stopped gets to see its end first."""
        until = time.monotonic() + STRAY_S
        while (left := list(processes_of(self.place.folder))) and time.monotonic() < until:
            for pid, _ in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def _locks(self) -> list[Path]:
        """Locked files of the trial: the device's on this host, the runner's lease on the device, the journal."""
        places = [*self.place.folder.rglob("lease"), self.journal]
        if not agent_kind(self.place.address).shared:
            with environment(self.place.environment):
                places.append(lock_path(self.place.address))
        return [path for path in places if path.exists() and is_locked(path)]

    def check_end(self, undisturbed: Mapping[str, float], faults: list[str]) -> Counts:
        """After a process has ended well. Whatever is wrong is counted for the last fault."""
        lines = [json.loads(line) for line in whole_lines(self.journal)]
        measurements = [(line["model"], line["round"]) for line in lines if line["event"] == "measurement"]
        samples = [value for line in lines if line["event"] in ("measurement", "reference") for value in line["samples_ns"]]
        found = Counts(doubled=sum(count - 1 for count in Counter(measurements).values()))
        found.zero = sum(not (type(value) is int and value > 0) for value in samples)
        found.lost = sum(one != two for one, two in zip(self.acknowledged, whole_lines(self.journal), strict=False))
        found.left = len([path for path in self.place.folder.rglob("*.tmp") if path.name != "clock.tmp"])
        table, again = load_table(self.out), table_of(MeasurementState.of(read_journal(self.journal)))
        if table.rows != again.rows or table.info.held_out != again.info.held_out or table.info.failed != again.info.failed:
            found.wrong.append(f"after {faults}: the table is not the one of its journal")
        found.wrong += [f"after {faults}: {what}" for what in differences(rows_of(table), undisturbed, set(table.info.failed))]
        if self.place.name == "fake" and "poison" not in faults and "garbage" not in faults:
            per_key = Counter(key for key, _ in measurements)
            if len(set(per_key.values())) > 2:  # layers and networks
                found.wrong.append(f"after {faults}: models were measured {sorted(set(per_key.values()))} times")
        return found


def rows_of(table: Any) -> dict[str, float]:
    return {layer.key: row.latency_ms.value for layer, row in table.rows.items()}


def differences(rows: Mapping[str, float], undisturbed: Mapping[str, float], failed: set[str]) -> Iterator[str]:
    """A simulated device's latencies are the same each time; those of a runner that waits are compared roughly."""
    if rows.keys() != undisturbed.keys() - failed:
        yield f"rows differ: {sorted(rows.keys() ^ (undisturbed.keys() - failed))[:3]}"
    for key in rows.keys() & undisturbed.keys():
        if not 0.2 < rows[key] / undisturbed[key] < 5:
            yield f"{key}: {rows[key]} ms instead of {undisturbed[key]} ms"


def whole_lines(path: Path) -> list[bytes]:
    """Read without our own reader: what ends with a newline counts."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def keys(lines: list[bytes], event: str) -> list[str]:
    found = [json.loads(line) for line in lines]
    return [line["model"] for line in found if line["event"] == event] or [""]


def measurements_of(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if json.loads(line)["event"] == "measurement"]


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def small_file_system(folder: Path) -> Iterator[bool]:
    """Mounted there, where that may be done; whether it was."""
    folder.mkdir()
    mounted = os.getuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    ).returncode  # fmt: skip
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def filled_up_to(folder: Path, room: int) -> Iterator[None]:
    """Only so many bytes are free meanwhile."""
    free, filler = os.statvfs(folder), folder / "filler"
    filler.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - room))
    try:
        yield
    finally:
        filler.unlink()


def undisturbed_rows(place: Place) -> dict[str, float]:
    trial = Trial(place, place.folder / "alone.parquet", Random(0))
    trial.finish()
    return rows_of(load_table(trial.out))


def run_trials(
    name: str,
    folder: Path,
    faults: int,
    seed: int,
    kinds: tuple[str, ...] | None = None,
    *,
    full_file_system: bool = True,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Counts]:
    """So many faults on builds of one kind of device, whatever it takes; the counts by kind of fault."""
    chance, total = Random(seed), dict[str, Counts]()
    wanted = [kind for kind in kinds or PLACES[name].kinds if kind != "clock jump" or FAKETIME is not None]
    queue: list[str] = []
    with PLACES[name](folder) as place, contextlib.ExitStack() as stack:
        where = folder
        if full_file_system and "disk full" in wanted and stack.enter_context(small_file_system(folder / "small")):
            where = folder / "small"
        alone = undisturbed_rows(place)
        lines, number = count_lines(journal_path(folder / "alone.parquet")), 0
        while (done := sum(counts.faults for counts in total.values())) < faults:
            number += 1
            assert number <= 4 * faults + 4, "hardly any fault comes about"
            trial, met = Trial(place, where / f"t{number}.parquet", chance), list[str]()
            while len(met) < min(FAULTY_ROUND, faults - done) and not trial.out.exists():
                queue = queue or chance.sample(wanted, len(wanted))
                met.append(queue.pop())
                if not trial.fault(met[-1], lines // 3):
                    queue.insert(0, met[-1])
                say(f"{name}, build {number}: {met[-1]}, {count_lines(trial.journal)} of {lines} lines")
            if not trial.out.exists():
                trial.finish()
            trial.counts[met[-1]].add(trial.check_end(alone, met))
            for kind, counts in trial.counts.items():
                total.setdefault(kind, Counts()).add(counts)
            for path in (trial.out, trial.journal):
                path.unlink()
    return total
