"""What can be read of the device: what it is, and the conditions that it measures under."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from device_agents.on_device.runner.energy import Ina3221, Rapl
from device_agents.on_device.runner.system import numbers, read_text

UNREADABLE = "not readable"


class Device:
    """What can be read of the device, below `root`, which is `/` except in tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        cpus = [path for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*") if path.name[3:].isdigit()]
        self.cpus = sorted(cpus, key=lambda path: int(path.name[3:]))
        self.clock_files = [cpu / "cpufreq/scaling_cur_freq" for cpu in self.cpus]
        self.dumpsys = root / "system/bin/dumpsys"
        self.energy: Rapl | Ina3221 | None = next((source for source in (Rapl(root), Ina3221(root)) if source.usable()), None)

    def facts(self) -> dict[str, Any]:
        return {
            "system": platform.system(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpu": self.cpu_model(),
            "cores": os.cpu_count(),
            "memory_bytes": self.memory_bytes(),
            "governor": self.governor(),
            "python": platform.python_version(),
        }

    def conditions(self) -> dict[str, Any]:
        heat = numbers((self.root / "sys/class/thermal").glob("thermal_zone*/temp"))
        counts = numbers(cpu / "thermal_throttle/core_throttle_count" for cpu in self.cpus)
        return {
            "load_1min": self.load_1min(),
            "frequencies_khz": numbers(self.clock_files),
            "temperature_c": max(heat) / 1000 if heat else None,
            "throttled": sum(counts) if counts else None,
            "thermal_status": self.thermal_status(),
        }

    def cpu_model(self) -> str:
        lines = [line.partition(":") for line in (read_text(self.root / "proc/cpuinfo") or "").splitlines()]
        named = {name.strip(): value.strip() for name, _, value in reversed(lines) if value.strip()}
        found = [named[name] for name in ("model name", "Hardware", "Processor") if name in named]
        return found[0] if found else platform.machine()

    def memory_bytes(self) -> int | None:
        found = re.search(r"^MemTotal:\s*([0-9]+) kB", read_text(self.root / "proc/meminfo") or "", re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None

    def governor(self) -> str:
        found = {read_text(cpu / "cpufreq/scaling_governor") for cpu in self.cpus}
        return "+".join(sorted(name for name in found if name)) or UNREADABLE

    def load_1min(self) -> float | None:
        found = re.match(r"[0-9]+\.[0-9]+(?= )", read_text(self.root / "proc/loadavg") or "")
        return float(found.group()) if found else None

    def fastest_khz(self) -> int | None:
        """The clock of the fastest core, which is the one that measures."""
        found = numbers(self.clock_files)
        return max(found) if found else None

    def thermal_status(self) -> int | None:
        """Android's thermal status, from 0 (none) to 6 (shutdown)."""
        if not self.dumpsys.exists():
            return None
        command = [str(self.dumpsys), "thermalservice"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.search(rb"^[ \t]*Thermal Status:[ \t]*([0-6])[ \t]*$", done.stdout, re.MULTILINE)
        return int(found.group(1)) if found else None
