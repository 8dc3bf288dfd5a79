"""The same in Prometheus' text form: ratios instead of per cent and seconds instead of days, as is the custom there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from profiler.serve.dashboard import Farm
from profiler.serve.tables import TableView

PREFIX = "netadapt_profiler"
DAY_S = 86400.0
TABLE_GAUGES: tuple[tuple[str, str, Callable[[TableView], float | None]], ...] = (
    ("table_age_seconds", "Since the table was last held against whole networks.", lambda view: _seconds(view.age_days)),
    (
        "table_held_out_mean_error_ratio", "Mean error on networks that took no part in fitting; 0.02 is 2 %.",
        lambda view: _part(view.mean_error_percent),
    ),
    (
        "table_held_out_worst_error_ratio", "Worst error on networks that took no part in fitting.",
        lambda view: _part(view.worst_error_percent),
    ),
    ("table_fresh", "1 for a table that can be relied on, 0 for a stale, missing or broken one.", lambda view: _fresh(view)),
    ("table_verified", "1 for a table that closes and was measured on a quiet device.", lambda view: float(view.verified)),
    ("table_layers", "Layers measured.", lambda view: view.layers),
    ("table_last_failure_timestamp_seconds", "When the scheduler last failed to make it fresh.", lambda view: _failed(view)),
)  # fmt: skip


def metrics(farm: Farm) -> bytes:
    """Of a registry of their own: nothing is said of this process itself."""
    registry = CollectorRegistry()
    registry.register(_Farm(farm))
    return generate_latest(registry)


class _Farm(Collector):
    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._tables()
        yield from self._builds()
        busy = _family("device_busy", "1 while somebody measures on the device.", ["device"])
        for device in self._farm.devices:
            busy.add_metric(_labels(device.name), float(device.busy))
        yield busy

    def _tables(self) -> Iterator[GaugeMetricFamily]:
        for name, said, value_of in TABLE_GAUGES:
            family = _family(name, said, ["table", "device", "runtime", "file"])
            for view in self._farm.tables:
                if (value := value_of(view)) is not None:
                    family.add_metric(_labels(view.name, view.device, view.runtime, view.file), value)
            yield family

    def _builds(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(f"{PREFIX}_builds_running", "Builds that go on.", value=len(self._farm.running))
        labels = ["build", "device", "file"]
        layers = _family("build_layers_measured", "Layers that a running build has measured so far.", labels)
        error = _family(
            "build_held_out_mean_error_ratio", "Mean error of a running build so far; only worked out while watched.", labels
        )
        for build in self._farm.running:
            if build.progress is not None:
                named = _labels(build.name, build.progress.device, build.file)
                layers.add_metric(named, build.progress.layers_measured)
                if build.errors:
                    error.add_metric(named, build.errors[-1].percent / 100)
        yield from (layers, error)


def _family(name: str, said: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", said, labels=labels)


def _labels(*values: str | None) -> list[str]:
    """Names come out of files, and need not be text that can be encoded; the library escapes the rest."""
    return [(value or "").encode("utf-8", "replace").decode() for value in values]


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY_S


def _part(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _fresh(view: TableView) -> float | None:
    """Nothing is said of what others have measured: it does not become stale here."""
    return None if view.state == "imported" else float(view.state == "fresh")


def _failed(view: TableView) -> float | None:
    if view.last_failure is None:
        return None
    try:
        return datetime.fromisoformat(view.last_failure.utc).timestamp()
    except ValueError:  # the state file is only a memory, and may have been edited
        return None
