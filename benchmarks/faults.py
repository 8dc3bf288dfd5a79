"""Builds that meet faults at random points and are resumed: is anything lost, doubled or left behind?

    python benchmarks/faults.py --faults 100 --seed 1

Hosts, runners and links are killed, stopped, cut, and run out of disk, on simulated devices, this machine, OpenSSH's server and a
phone's daemon behind Google's adb, both on loopback; then schedulers. Each build is gone on with until it is done. Printed are
counts for each kind of fault, and whatever else should not be; the exit code is 1 if there is any such thing. tests/faulting.py
says how it is counted. Where a program is missing, its part is left out, and that is said. A small file system of its own, for the
full disk, needs root; without it, no file may grow beyond a limit.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fault_places import PLACES
from fault_programs import FAKETIME
from fault_schedule import run_schedule
from faulting import Counts, run_trials
from sshd import SSHD

SHARES = {"fake": 0.5, "local": 0.14, "ssh": 0.13, "adb": 0.13, "schedule": 0.1}
COLUMNS = ("faults", "acknowledged", "lost", "doubled", "zero", "repeated", "most_repeated", "locks", "strays", "left")
MISSING = {
    "ssh": (SSHD is None or shutil.which("ssh") is None, "OpenSSH's server and client (Debian: openssh-server, openssh-client)"),
    "adb": (shutil.which("adb") is None, "Google's adb (Debian: adb)"),
}


def main(
    faults: Annotated[int, typer.Option(help="How many, over all.")] = 100,
    seed: Annotated[int, typer.Option(help="Of what fails, and when.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SHARES)}; by default all.")] = None,
) -> None:
    if FAKETIME is None:
        print("LEFT OUT: clock jumps need libfaketime (Debian: libfaketime)")
    shares = {name: share for name, share in SHARES.items() if not only or name in only}
    sound = True
    for name, share in shares.items():
        missing, program = MISSING.get(name, (False, ""))
        if missing:
            print(f"LEFT OUT: {name} needs {program}")
            continue
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            sound &= report(name, Path(folder, "f"), max(1, round(faults * share / sum(shares.values()))), seed)
    raise typer.Exit(0 if sound else 1)


def report(name: str, folder: Path, faults: int, seed: int) -> bool:
    """Whether nothing was found that should not be."""
    begun = time.monotonic()
    if name in PLACES:
        found, more = run_trials(name, folder, faults, seed, say=lambda text: print(text, file=sys.stderr)), ""
    else:
        found, reads = run_schedule(folder, faults, seed)
        more = f", the table in force read {reads} times"
    total = Counts()
    for counts in found.values():
        total.add(counts)
    print(f"{name}: {total.faults} faults in {time.monotonic() - begun:.0f} s{more}")
    print("  " + " " * 16 + " " + " ".join(f"{column:>13}" for column in COLUMNS))
    for kind, counts in [*sorted(found.items()), ("all", total)]:
        print("  " + " ".join([f"{kind:>16}", *(f"{getattr(counts, column):>13}" for column in COLUMNS)]), flush=True)
    for wrong in total.wrong:
        print(f"  WRONG: {wrong}")
    return total.sound


if __name__ == "__main__":
    typer.run(main)
