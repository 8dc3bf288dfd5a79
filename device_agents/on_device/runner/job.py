"""The job file, each of its fields checked (PROTOCOL.md, "The job")."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, cast

from device_agents.on_device.runner.host import told
from device_agents.on_device.runner.runtimes import RUNTIMES

PROTOCOL = 8


class Model(TypedDict):
    id: str
    file: str
    """Its name in the folder of the job."""
    as_it_is: bool
    copies: int
    finite: bool


class ScheduledRound(TypedDict):
    round: int
    models: list[str]
    """Ids in the order of their measurements."""


class Job(TypedDict):
    """PROTOCOL.md, "The job", says what each field is."""

    format: int
    runtime: str
    threads: int
    seed: int
    cpus: list[int] | None
    root: str
    lease: str | None
    measurement_ms: float
    warmup_ms: float
    sample_ms: float
    min_samples: int
    min_round_s: float
    silence_s: float
    memory_bytes: int
    max_open: int
    max_open_pools: int
    reference: str | None
    reference_every: int
    reference_ms: float
    acknowledged: bool
    outputs: int
    energy_ms: float
    profiled: int
    models: list[Model]
    schedule: list[ScheduledRound]


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e9


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _cores(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and bool(value) and all(type(core) is int and 0 <= core < 8192 for core in value)
    )


def _models(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and _text(each.get("id"))
        and _text(each.get("file"))
        and isinstance(each.get("as_it_is"), bool)
        and _whole(1)(each.get("copies"))
        and isinstance(each.get("finite"), bool)
        for each in value
    )


def _schedule(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and _whole(0)(each.get("round"))
        and isinstance(each.get("models"), list)
        and all(map(_text, each["models"]))
        for each in value
    )


FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is int and value == PROTOCOL,
    "runtime": lambda value: isinstance(value, str) and value in RUNTIMES,
    "threads": _whole(1),
    "seed": _whole(0),
    "cpus": _cores,
    "root": _text,
    "lease": lambda value: value is None or _text(value),
    "measurement_ms": _number,
    "warmup_ms": _number,
    "sample_ms": _number,
    "min_samples": _whole(1),
    "min_round_s": _number,
    "silence_s": lambda value: _number(value) and value > 0,
    "memory_bytes": _whole(0),
    "max_open": _whole(1),
    "max_open_pools": _whole(1),
    "reference": lambda value: value is None or _text(value),
    "reference_every": _whole(1),
    "reference_ms": _number,
    "acknowledged": lambda value: isinstance(value, bool),
    "outputs": _whole(0),
    "energy_ms": _number,
    "profiled": _whole(0),
    "models": _models,
    "schedule": _schedule,
}


def measures_latency(job: Job) -> bool:
    """False for a job that asks for outputs, energy or executed graphs instead."""
    return not (job["outputs"] or job["energy_ms"] or job["profiled"])


def read_job(path: Path) -> Job:
    """The job in a file. SystemExit with the name of the field that is wrong."""
    try:
        job = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise SystemExit(f"the job {path} cannot be read: {told(exc)}") from exc
    if not isinstance(job, dict):
        raise SystemExit(f"{path} is not a job")
    for name, makes_sense in FIELDS.items():
        if not makes_sense(job.get(name, ...)):  # not None, because null may be a valid value
            raise SystemExit(f"{name} of the job is missing or makes no sense to protocol {PROTOCOL}: {str(job.get(name))[:80]!r}")
    if sum(map(bool, (job["outputs"], job["energy_ms"], job["profiled"]))) > 1:
        raise SystemExit("a job is for outputs, for energy or for executed graphs (profiled), not for two of these")
    known = {model["id"] for model in job["models"]}
    unknown = {name for entry in job["schedule"] for name in entry["models"]} | {job["reference"] or ""} - {""}
    if unknown - known:
        raise SystemExit(f"the job's schedule or reference names {min(unknown - known)[:80]!r}, which is none of its models")
    return cast(Job, job)
