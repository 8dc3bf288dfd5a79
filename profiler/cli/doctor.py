"""`profile doctor`: what would disturb measurements on a device."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profiler.cli.options import DeviceArgument, Python, Threads
from profiler.console import Json, plain_errors, print_findings, print_json
from profiler.devices.doctor import Diagnosis, diagnose


def doctor(device: DeviceArgument = "local", threads: Threads = 1, python: Python = None, as_json: Json = False) -> None:
    """List what would disturb measurements on a device, and how to mend it. This takes some four seconds."""
    with plain_errors():
        found = diagnose(device, threads, python)
        if as_json:
            print_json(diagnosis_data(found))
        else:
            print_diagnosis(found)


def diagnosis_data(found: Diagnosis) -> dict[str, Any]:
    findings = [asdict(finding) for finding in found.findings]
    return {"device": found.device, "facts": found.facts.to_dict(), "findings": findings}


def print_diagnosis(found: Diagnosis) -> None:
    print(f"{found.device}: {found.facts.sentence()}")
    print_findings(found.findings, "nothing that would disturb a measurement was found")
