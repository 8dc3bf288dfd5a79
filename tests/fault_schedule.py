"""Faults of `profile schedule once`, at random points, while somebody reads the table in force all the time."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from random import Random

from fault_places import Place, Simulated
from fault_programs import FAKETIME, dying_after, jump, other_clock
from faulting import JUMPS, SIGNALS, Child, Counts, count_lines, is_locked, measurements_of, whole_lines

from profiler.errors import TableError
from profiler.measure.state import MeasurementState
from profiler.protocol.journal import journal_path, read_journal
from profiler.schedule import replacement
from profiler.schedule.state import state_path
from profiler.tables.derive import table_of
from profiler.tables.table import load_table

KINDS = ("kill", "term", "hup", "file operation", "two schedulers", "clock jump")


class Reader(threading.Thread):
    """Loads the table in force again and again, once there is one; whatever goes wrong with that is kept."""

    def __init__(self, table: Path) -> None:
        super().__init__(daemon=True)
        self.table, self.reads, self.troubles, self.ended = table, 0, list[str](), threading.Event()

    def run(self) -> None:
        there = False
        while not self.ended.wait(0.02):
            there = there or self.table.exists()
            if there:
                self.reads += 1
                try:
                    load_table(self.table)
                except TableError as exc:
                    self.troubles.append(str(exc))


class ScheduleTrial:
    """One scheduled table of a simulated device, which changes again and again, so that there is always something to do."""

    def __init__(self, place: Place, chance: Random) -> None:
        self.place, self.chance = place, chance
        self.out = place.folder / "small.parquet"
        self.new = journal_path(replacement.new_path(self.out))
        text = (place.folder / "profile.toml").read_text()
        (place.folder / "profile.toml").write_text(
            f'{text}[tables.small]\ndevice = "phone"\nplan = "plan.json"\nruntime = "litert"\nrounds = 3\nmax_layers = 1\n'
            'max_held_out_error = "100%"\nkeep = 3\n'
        )
        self.kernels = 0

    def start(self, environment: dict[str, str] | None = None) -> Child:
        words = ["schedule", "once", "--now", "--json"]
        argv = [sys.executable, "-c", "from profiler.cli.app import app; app()", *words]
        return Child(argv, self.place.folder, {**self.place.environment, **(environment or {})})

    def change_the_device(self) -> None:
        """All of the table has to be measured anew."""
        self.kernels += 1
        script = self.place.folder / "script.toml"
        script.write_text(script.read_text().partition("[device]")[0] + f'[device]\nkernel = "6.{self.kernels}"\n')

    def fault(self, kind: str, lines: int) -> Counts:
        at = self.chance.randint(0, lines)
        before = whole_lines(self.new)
        child, other = self._started(kind, at)
        code, said = child.ended()
        happened = code < 0 or (kind in ("term", "hup") and code == 130)
        if other is not None:
            second, more = other.ended()
            happened, said = {code, second} == {0, 1} or code < 0, said + more
        found = Counts(faults=int(happened))
        if "Traceback" in said or code == 1000:
            found.wrong.append(f"schedule, {kind}: code {code}: {said[-1500:]}")
        now = whole_lines(self.new)
        if now[: len(before)] != before and happened and self.new.exists():
            found.lost += len(before)
        found.acknowledged = len(measurements_of(now))
        found.locks = sum(is_locked(path) for path in (self.new, self.place.folder / ".profile.toml.lock") if path.exists())
        found.wrong += self._unreadable()
        self.kept = now
        return found

    def _started(self, kind: str, at: int) -> tuple[Child, Child | None]:
        if kind == "file operation":
            return self.start(dying_after(self.chance.randint(1, 25), self.place.folder)), None
        if kind == "clock jump":
            child = self.start(other_clock(self.place.folder))
            self._await(child, at)
            jump(self.place.folder, self.chance.choice(JUMPS))
            self._await(child, at + 30)
            child.signal(signal.SIGKILL)
            return child, None
        child, other = self.start(), self.start() if kind == "two schedulers" else None
        self._await(child, at)
        if kind in SIGNALS:
            child.signal(SIGNALS[kind])
        return child, other

    def _await(self, child: Child, line: int) -> None:
        until = time.monotonic() + 60
        while child.runs and time.monotonic() < until and count_lines(self.new) < line:
            time.sleep(0.005)

    def _unreadable(self) -> list[str]:
        path = state_path(self.out)
        try:
            if path.exists():
                json.loads(path.read_text())
        except ValueError as exc:
            return [f"the state cannot be read: {exc}"]
        return []

    def finish(self) -> Counts:
        """The next `once` completes what was begun, and leaves nothing lying about."""
        code, said = self.start().ended()
        found = Counts()
        if code != 0 or self.new.exists():
            found.wrong.append(f"the next `once` did not complete it: code {code}: {said[-1500:]}")
            return found
        lines = whole_lines(journal_path(self.out))
        if self.kept and self.kept[0] == lines[0] and measurements_of(self.kept)[:1] == measurements_of(lines)[:1]:
            found.lost = sum(one != two for one, two in zip(self.kept, lines, strict=False))
        measurements = [(line["model"], line["round"]) for line in map(json.loads, lines) if line["event"] == "measurement"]
        found.doubled = len(measurements) - len(set(measurements))
        found.left = len([path for path in self.place.folder.rglob("*.tmp") if path.name != "clock.tmp"])
        table = load_table(self.out)
        if table.rows != table_of(MeasurementState.of(read_journal(journal_path(self.out)))).rows:
            found.wrong.append("the table in force is not the one of its journal")
        found.wrong += [f"{path} cannot be read" for path in replacement.history_of(self.out) if not load_table(path).rows]
        return found


def run_schedule(folder: Path, faults: int, seed: int) -> tuple[dict[str, Counts], int]:
    """So many faults; the counts by kind, and how often the table in force was read meanwhile."""
    chance, total = Random(seed), dict[str, Counts]()
    wanted = [kind for kind in KINDS if kind != "clock jump" or FAKETIME is not None]
    queue: list[str] = []
    with Simulated(folder) as place:
        trial = ScheduleTrial(place, chance)
        reader = Reader(trial.out)
        reader.start()
        for _ in range(3 * faults):
            if sum(counts.faults for counts in total.values()) >= faults:
                break
            trial.change_the_device()
            queue = queue or chance.sample(wanted, len(wanted))
            kind = queue.pop()
            found = total.setdefault(kind, Counts())
            found.add(trial.fault(kind, 500))
            found.add(trial.finish())
        reader.ended.set()
        reader.join()
        if reader.troubles:
            total[kind].wrong += reader.troubles[:3]
    return total, reader.reads
