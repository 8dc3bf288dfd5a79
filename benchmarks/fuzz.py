"""Bytes that nobody meant, into every reader of what comes from outside: `python benchmarks/fuzz.py all --minutes 2`.

atheris (libFuzzer for Python; pip install 'netadapt-profiler[fuzz]') changes valid examples such that ever more of our code is
reached. Each reader has a child process of its own, so that one that crashes, hangs or takes too much memory does not end the
others; what a reader lets through is noted and gone on from. The readers and what they may do are those of tests/readers.py; what
is found belongs, as a few literal bytes, into tests/test_outside.py.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
PACKAGES = ("profiler", "device_agents", "netadapt")
MORE_MB = 256
"""Of memory, above what the reader and the fuzzer need for a valid example."""
FUZZER_MB = 256
"""For libFuzzer's own corpus and tables."""
SLOWEST_S = 10
LONGEST_BYTES = 1 << 16


@dataclass
class Outcome:
    executions: int
    minutes: float
    edges: int
    findings: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""
    """How the child ended, if not in time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="+", help="names from tests/readers.py, or all")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to keep the figures and findings")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        fuzz(asked.reader[0], asked.child, asked.minutes, asked.seed)
        return
    from readers import READERS  # not before: the child wants our modules instrumented

    names = list(READERS) if asked.reader == ["all"] else asked.reader
    if unknown := [name for name in names if name not in READERS]:
        parser.error(f"there is no reader {unknown[0]!r}; known are all, {', '.join(READERS)}")
    outcomes: dict[str, Outcome] = {}
    for name in names:
        outcomes[name] = outcome = watched(name, asked.minutes, asked.seed)
        told = f"{outcome.executions:>9,} executions {outcome.minutes:5.1f} min {outcome.edges:>6} edges {outcome.ended}"
        print(f"{name:<16}{told}", *(f"  {item['what']}  [{item['data']}]" for item in outcome.findings), sep="\n", flush=True)
        if asked.json:
            asked.json.write_text(json.dumps({name: vars(outcome) for name, outcome in outcomes.items()}, indent=1))
    sys.exit(any(outcome.findings or outcome.ended for outcome in outcomes.values()))


def watched(name: str, minutes: float, seed: int) -> Outcome:
    """A child process that fuzzes one reader, and what became of it. An input that kills it is among the findings."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        command = [sys.executable, __file__, name, "--child", folder, "--minutes", str(minutes), "--seed", str(seed)]
        started_s = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", cwd=folder)
        spent_min = (time.monotonic() - started_s) / 60
        notes = Path(folder, "findings.jsonl")
        findings = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        findings += [{"what": path.name.split("-")[0], "data": path.read_bytes()[:600].hex()} for path in _killers(Path(folder))]
    runs = [int(number) for number in re.findall(r"^(?:#|Done )([0-9]+)", done.stderr, re.MULTILINE)]
    edges = [int(number) for number in re.findall(r"\bcov: ([0-9]+)", done.stderr)]
    said = done.stderr.strip().splitlines()[-1:] or [""]
    ended = "" if done.returncode == 0 else f"ended with {done.returncode}: {said[0][:200]}"
    return Outcome(max(runs, default=0), spent_min, max(edges, default=0), findings, ended)


def _killers(folder: Path) -> list[Path]:
    return sorted(path for kind in ("crash", "oom", "timeout") for path in folder.glob(f"{kind}-*"))


def fuzz(name: str, folder: Path, minutes: float, seed: int) -> None:
    """In the child: never returns."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES)):
        from mutations import changed
        from readers import READERS, Fault, attempt

        reader = READERS[name]
        example = reader.example()
        for name_of_folder in ("corpus", "files"):
            Path(folder, name_of_folder).mkdir()
        attempt(reader, example, folder / "files")  # what it imports is imported, and instrumented, before anything is counted
    Path(folder, "corpus", "valid").write_bytes(example)
    Path(folder, "words").write_text(_dictionary(example))
    seen: set[str] = set()

    def once(data: bytes) -> None:
        try:
            attempt(reader, data, folder / "files")
        except Fault as fault:
            place = _place(fault.__cause__)
            if place not in seen:
                seen.add(place)
                with Path(folder, "findings.jsonl").open("a") as notes:
                    notes.write(json.dumps({"what": f"{fault} at {place}", "data": repr(data[:600])}) + "\n")

    used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    flags = [
        f"-max_total_time={max(1, round(minutes * 60))}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={used_mb + MORE_MB + FUZZER_MB}",
        f"-max_len={max(LONGEST_BYTES, 2 * len(example))}", f"-seed={seed}", f"-dict={folder / 'words'}",
        f"-artifact_prefix={folder}/", "-print_final_stats=1", "-len_control=0",
    ]  # fmt: skip

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        """Half of the time the structure is changed, half of the time libFuzzer changes what it likes."""
        if seed % 2 and data:
            return changed(reader.form, data, Random(seed))[:most_bytes]
        mutated: bytes = atheris.Mutate(data, most_bytes)
        return mutated

    atheris.Setup([sys.argv[0], *flags, str(folder / "corpus")], once, custom_mutator=mutate)
    atheris.Fuzz()


def _dictionary(example: bytes) -> str:
    """Words of the example, and values that often go wrong, in libFuzzer's form."""
    words = {bytes(word) for word in re.findall(rb'"?[A-Za-z_][A-Za-z0-9_.-]{2,30}"?', example)}
    odd = (b"null", b"true", b"[]", b"{}", b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b'"\\ud800"', b'"\\u0000"', b"../../x", b"1.5")
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words)[:300] + list(odd))
    return "".join(f'"{word}"\n' for word in quoted)


def _place(error: BaseException | None) -> str:
    """The innermost line of ours that an exception came through, and its class."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    ours = [frame for frame in frames if any(f"/{package}/" in frame.filename for package in PACKAGES)]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"


if __name__ == "__main__":
    main()
