"""Programs that the fault harness starts in place of ordinary ones: a host, a runner with faults, a Python that dies on purpose.

All are written into the folder of one trial, so that their processes can be told from any others by their command lines.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

HOST = """
import sys
from pathlib import Path
import typer
from profiler.tables.build import StopCriterion, build
from profiler.console import plain_errors, terminable
from profiler.tables.plan import read_plan
from profiler.protocol.settings import Target, TimingSettings

def main(plan: Path, out: Path) -> None:
    settings = TimingSettings(
        rounds=3, max_rounds=3, network_rounds=3, reference_ms=1.0, measurement_ms=20.0, warmup_ms=0.0, sample_ms=0.5,
        min_samples=2, min_round_s=0.0, silence_s=1.0,
    )
    with plain_errors("kept"), terminable():
        build([read_plan(plan)], Target("phone", "fake"), out, settings=settings, stop=StopCriterion(max_layers=1), resume=True)

typer.run(main)
"""
"""`profile build` with shorter measurements and the runner's own fake runtime, which the command does not offer."""

RUNNER = """#!{python}
import json, os, runpy, sys

tap = os.open({folder!r} + "/tap", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
try:
    with open({folder!r} + "/faults.json") as file:
        faults = json.load(file)
except FileNotFoundError:
    faults = {{}}
measurements = 0

class Output:
    def write(self, text):
        global measurements
        os.write(tap, text.encode())
        event = json.loads(text) if text.startswith("{{") else {{}}
        measurements += event.get("event") == "measurement"
        if measurements and measurements == faults.get("garbage_at"):
            faults.pop("garbage_at")
            os.unlink({folder!r} + "/faults.json")  # once, not again after a restart
            real.flush()
            self.spoil(faults["garbage"])
        real.write(text)
        if faults.get("poison") and event.get("event") == "begin" and event["model"] == faults["poison"]:
            real.flush()
            os.abort()

    def spoil(self, kind):
        if kind == "endless line":
            for _ in range(100):
                os.write(1, b"x" * 1000000)
        elif kind == "binary":
            os.write(1, bytes(range(256)) * 40 + b"\\n")
        elif kind == "chatter":
            os.write(1, b"WARNING: falling back\\n" * 2000)
        elif kind == "half a line":
            os.write(1, b'{{"event":"measurement","mod')
        elif kind == "nonsense":
            os.write(1, b'{{"event":"measurement","model":null,"round":-1,"samples_ns":[0,-5]}}\\n')

    def flush(self):
        real.flush()

    def __getattr__(self, name):
        return getattr(real, name)

real, sys.stdout = sys.stdout, Output()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A Python for devices: keeps a copy of what the runner says, and spoils it, or aborts, as `faults.json` wants it."""
GARBAGE = ("endless line", "binary", "chatter", "half a line", "nonsense")

DYING = """
import os, signal, sys

left = int(os.environ.pop("FAULT_AFTER", "0"))
folder = os.environ.pop("FAULT_FOLDER", "\\0")

def hook(event, details):
    global left
    if event in ("os.rename", "os.remove", "os.mkdir", "os.truncate") or (event == "open" and writes(*details)):
        if left and any(folder in str(detail) for detail in details[:2]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

def writes(path, mode, flags):
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

if left:
    sys.addaudithook(hook)
"""
"""As `sitecustomize`: dies by SIGKILL just before the process's FAULT_AFTER-th change to a file below FAULT_FOLDER."""

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def write_programs(folder: Path) -> None:
    """`host.py`, `python` (for devices) and `site/sitecustomize.py`."""
    (folder / "host.py").write_text(HOST)
    runner = folder / "python"
    runner.write_text(RUNNER.format(python=sys.executable, folder=str(folder)))
    runner.chmod(0o755)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(DYING)


def set_faults(folder: Path, faults: Mapping[str, object]) -> None:
    (folder / "faults.json").write_text(json.dumps(faults))


def dying_after(operations: int, folder: Path) -> dict[str, str]:
    """Variables of a process that is to die at so many changes to files."""
    path = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH", "")]))
    return {"FAULT_AFTER": str(operations), "FAULT_FOLDER": str(folder), "PYTHONPATH": path}


def other_clock(folder: Path) -> dict[str, str]:
    """Variables of a process whose wall clock is what `clock` in the folder says, at each look at it; monotonic clocks go on."""
    (folder / "clock").write_text("+0\n")
    return {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"), "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


def jump(folder: Path, how: str) -> None:
    """Such as `-400d`. Replaced at once, so that no half-written clock is ever read."""
    (folder / "clock.tmp").write_text(f"{how}\n")
    shutil.move(folder / "clock.tmp", folder / "clock")
