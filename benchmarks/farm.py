"""A lab machine's hour: `profile schedule run` over three devices while links are cut, devices go away and the scheduler is killed.

    python benchmarks/farm.py --minutes 60

The devices are this machine, OpenSSH's server on loopback and a simulated phone behind Google's adb server, so that all of them
measure this processor; the tables are small and due every few minutes. At the end: what became of every look, the state of the
tables, and what the scheduler cost while it only waited. A table in force is read all the while, and must be whole each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from device_agents.support.errors import ToolError
from profiler.tables.table import load_table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the servers that devices are played by
from adb_program import adb, adb_environment, connect
from adbd import Adbd
from graphs import mobilenet_v1
from sshd import Sshd

from profiler.tables.plan import make_plan, write_plan

PROFILE = (sys.executable, "-c", "from profiler.cli.app import app; app()")
RUNTIMES = {"local": "litert", "board": "onnxruntime", "phone": "litert"}
LOOK_S = 2.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Watch:
    """What was seen while it ran."""

    idle_s: float = 0.0
    idle_ticks: int = 0
    rss_bytes: int = 0
    reads: int = 0
    broken: list[str] = field(default_factory=list)
    before: tuple[int, int, float] | None = None
    """Process, ticks and time of the last look, if the process only waited then."""


def main(
    minutes: Annotated[float, typer.Option()] = 60.0,
    every: Annotated[int, typer.Option(help="Minutes from look to look.")] = 6,
    fault_every_s: Annotated[float, typer.Option()] = 90.0,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    chance, started = random.Random(seed), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farm_")))
        sshd = stack.enter_context(Sshd(folder / "sshd"))
        phone = stack.enter_context(Adbd())
        variables = stack.enter_context(adb_environment(folder / "home"))
        connect(variables, f"{phone.host}:{phone.port}")
        tables = write_config(folder, sshd, phone, every)
        environment = {**os.environ, **variables, "PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(folder / "cache")}
        log = stack.enter_context((folder / "log").open("ab"))

        def start() -> subprocess.Popen[bytes]:
            argv = [*PROFILE, "--config", str(folder / "profile.toml"), "schedule", "run"]
            return subprocess.Popen(argv, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)

        scheduler, watch, faults, next_fault = start(), Watch(), Counter[str](), started + fault_every_s
        stack.callback(lambda: scheduler.poll() is None and os.killpg(scheduler.pid, signal.SIGKILL))
        strikes: dict[str, Callable[[], object]] = {
            "ssh link cut": sshd.cut,
            "ssh server gone for a minute": lambda: (sshd.stop(), time.sleep(60), sshd.start()),
            "adb link cut": phone.cut,
            "adb server killed": lambda: adb(variables, "kill-server"),
            "scheduler killed": lambda: os.kill(scheduler.pid, signal.SIGKILL),
            "scheduler ended": lambda: os.kill(scheduler.pid, signal.SIGTERM),
            "runner killed": lambda: kill_runner(folder),
        }
        while time.monotonic() - started < 60 * minutes:
            look(scheduler.pid, tables, folder / "cache" / "netadapt-profiler" / "locks", watch)
            if time.monotonic() >= next_fault:
                name = chance.choice(sorted(strikes))
                strikes[name]()
                faults[name] += 1
                print(f"{(time.monotonic() - started) / 60:5.1f} min: {name}", flush=True)
                next_fault = time.monotonic() + chance.uniform(0.5, 1.5) * fault_every_s
            if scheduler.poll() is not None:
                scheduler, watch.before = start(), None
            time.sleep(LOOK_S)
        scheduler.terminate()
        scheduler.wait(120)
        report(folder, environment, watch, faults, (time.monotonic() - started) / 60)


def write_config(folder: Path, sshd: Sshd, phone: Adbd, every: int) -> dict[str, Path]:
    write_plan(make_plan(mobilenet_v1(0.25, 32, classes=10)), folder / "plan.json")
    for name in ("board", "phone"):
        (folder / name).mkdir()
    python = f'python = "{sys.executable}"'
    lines = [
        "[devices.board]", 'address = "ssh:board"', f'ssh_config = "{sshd.config}"', f'folder = "{folder}/board"', python,
        "[devices.phone]", f'address = "adb:{phone.host}:{phone.port}"', f'folder = "{folder}/phone"', python,
    ]  # fmt: skip
    for device, runtime in RUNTIMES.items():
        lines += [
            f"[tables.{device}]", f'device = "{device}"', 'plan = "plan.json"', f'runtime = "{runtime}"', "rounds = 3",
            "max_layers = 60", f"max_age_days = {0.8 * every / 1440:.5f}", f'when = "*/{every} * * * *"',
            'max_held_out_error = "10%"',
        ]  # fmt: skip
    lines += ["[schedule]", f'command = ["sh", "-c", "cat >> {folder}/news; echo >> {folder}/news"]']
    (folder / "profile.toml").write_text("\n".join(lines) + "\n")
    return {device: folder / f"{device}.parquet" for device in RUNTIMES}


def look(pid: int, tables: dict[str, Path], locks: Path, watch: Watch) -> None:
    """Add what it cost since the last look, if nobody had a device in between; read every table that there is."""
    for name, path in tables.items():
        if path.exists():
            watch.reads += 1
            try:
                load_table(path)
            except ToolError as exc:
                watch.broken.append(f"{name}: {exc}")
    now = time.monotonic()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        waits = not any(f'"pid": {pid},' in lock.read_text() for lock in locks.glob("*.json"))
        ticks = int(fields[11]) + int(fields[12])
        if waits and watch.before is not None and watch.before[0] == pid:
            watch.idle_ticks += ticks - watch.before[1]
            watch.idle_s += now - watch.before[2]
            watch.rss_bytes = max(watch.rss_bytes, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
        watch.before = (pid, ticks, now) if waits else None


def kill_runner(folder: Path) -> None:
    """One that measures now, on any of the devices; what it was started with names the farm's folder."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            if b"/runner-" in words and os.fsencode(folder) in words + (path / "environ").read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
                return


def report(folder: Path, environment: dict[str, str], watch: Watch, faults: Counter[str], minutes: float) -> None:
    said = (folder / "log").read_text(errors="replace").splitlines()
    news = [json.loads(line) for line in (folder / "news").read_text().splitlines() if line]
    outcomes = Counter(f"{item['table']} {item['did']}" for item in news)
    outcomes += Counter(f"{device} fresh" for line in said for device in RUNTIMES if line.startswith(f"{device} is fresh"))
    why = Counter(item["sentence"] for item in news if item["did"] == "failed")
    status = [*PROFILE, "--config", str(folder / "profile.toml"), "schedule", "status", "--json"]
    found = json.loads(subprocess.run(status, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)
    print(f"\n{minutes:.0f} minutes; faults: {dict(faults)}")
    for name, count in sorted(outcomes.items()):
        print(f"  {name}: {count} times")
    for sentence, count in why.most_common():
        print(f"  failed {count} times: {sentence}")
    for table in found:
        age = "none" if table["age_days"] is None else f"{1440 * table['age_days']:.1f} min old"
        print(f"  {table['table']}: {age}, mean error {table['mean_error_percent']}, stale: {table['stale'] or 'no'}")
        print(f"    last failure: {table['last_failure']}")
    print(f"tables read {watch.reads} times, {len(watch.broken)} times broken {watch.broken[:3]}")
    cpu_s = watch.idle_ticks / TICKS_PER_S
    print(f"waited {watch.idle_s / 60:.1f} minutes: {cpu_s:.2f} s of processor, at most {watch.rss_bytes / 1e6:.0f} MB resident")
    left = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    print(f"left behind: {left or 'nothing'}")


if __name__ == "__main__":
    typer.run(main)
