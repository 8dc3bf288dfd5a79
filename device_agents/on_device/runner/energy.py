"""Energy counters: the processor's own, or a board's power meters (PROTOCOL.md, "Energy")."""

from __future__ import annotations

import math
import threading
from pathlib import Path

from device_agents.on_device.runner.system import clock_ns, read_number, read_text


class Rapl:
    """The processor's own energy counters in microjoules, one for each package."""

    name = "rapl"

    def __init__(self, root: Path) -> None:
        folders = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
        own = [folder for folder in folders if folder.name.count(":") == 1]  # intel-rapl:0:0 is a part of intel-rapl:0
        self.packages = [folder for folder in own if (read_text(folder / "name") or "").startswith("package")]

    def usable(self) -> bool:
        files = [folder / name for folder in self.packages for name in ("energy_uj", "max_energy_range_uj")]
        return bool(files) and all(read_number(path) is not None for path in files)

    def begin(self) -> None:
        self.before, self.started_ns = self._read(), clock_ns()

    def end(self) -> tuple[int, int]:
        """Nanoseconds and microjoules since the beginning."""
        after, duration_ns = self._read(), clock_ns() - self.started_ns
        ranges = [_must(folder / "max_energy_range_uj") for folder in self.packages]
        spent = [new - old + (most if new < old else 0) for old, new, most in zip(self.before, after, ranges)]
        return duration_ns, sum(spent)

    def _read(self) -> list[int]:
        return [_must(folder / "energy_uj") for folder in self.packages]


class Ina3221:
    """A board's own power meters, as on Jetsons, sampled by a second thread."""

    EVERY_S = 0.01
    WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")

    def __init__(self, root: Path) -> None:
        chips = root / "sys/bus/i2c/drivers"
        rails: list[tuple[str, list[Path]]] = []
        for label in sorted(chips.glob("ina3221*/*/hwmon/hwmon*/in[0-9]_label")):
            number = label.name[2]
            if number != "7":  # the sum of the others' shunts
                rails.append((read_text(label) or "NC", [label.with_name(f"{kind}{number}_input") for kind in ("in", "curr")]))
        for label in sorted(chips.glob("ina3221*/*/iio:device*/rail_name_[0-9]")):
            rails.append((read_text(label) or "NC", [label.with_name(f"in_power{label.name[-1]}_input")]))
        whole = [rail for rail in rails if rail[0] in self.WHOLE_BOARD]
        self.rails = whole or [rail for rail in rails if rail[0] != "NC"]
        self.name = "ina3221: " + ", ".join(name for name, _ in self.rails)

    def usable(self) -> bool:
        return bool(self.rails) and all(read_number(path) is not None for _, paths in self.rails for path in paths)

    def begin(self) -> None:
        self.samples = [self._sample()]
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def end(self) -> tuple[int, int]:
        """Nanoseconds and microjoules since the beginning."""
        self.over.set()
        self.thread.join()
        self.samples.append(self._sample())
        areas = [(t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in zip(self.samples, self.samples[1:])]
        return self.samples[-1][0] - self.samples[0][0], max(0, round(sum(areas) / 1e9))

    def _watch(self) -> None:
        while not self.over.wait(self.EVERY_S):
            try:
                self.samples.append(self._sample())
            except OSError:  # a lost sample is interpolated; only the first and the last are needed
                continue

    def _sample(self) -> tuple[int, int]:
        """The time in nanoseconds and the power in microwatts: millivolts times milliamperes, or milliwatts on older boards."""
        return clock_ns(), sum(math.prod(map(_must, paths)) * (1 if len(paths) == 2 else 1000) for _, paths in self.rails)


def _must(path: Path) -> int:
    value = read_number(path)
    if value is None:
        raise OSError(f"{path} cannot be read any more")
    return value
