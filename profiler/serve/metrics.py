"""Metrics in Prometheus' text format. As is the custom there, ratios replace per cent and seconds replace days."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from profiler.serve.dashboard import DashboardState
from profiler.serve.tables import TableView

PREFIX = "netadapt_profiler"
DAY_S = 86400.0


def metrics(state: DashboardState) -> bytes:
    """Return the metrics of a state. They have a registry of their own, so nothing about this process itself is included."""
    # the library's default registry also reports this process's memory, threads and garbage collection
    registry = CollectorRegistry()
    registry.register(_StateCollector(state))
    return generate_latest(registry)


def _age_seconds(view: TableView) -> float | None:
    return None if view.age_days is None else view.age_days * DAY_S


def _mean_error_ratio(view: TableView) -> float | None:
    return None if view.mean_error_percent is None else view.mean_error_percent / 100


def _worst_error_ratio(view: TableView) -> float | None:
    return None if view.worst_error_percent is None else view.worst_error_percent / 100


def _fresh(view: TableView) -> float | None:
    """Return 1 or 0; None for a table that was imported or computed, which is never measured again here."""
    return None if view.state in ("imported", "modelled") else float(view.state == "fresh")


def _last_failure_timestamp(view: TableView) -> float | None:
    """Return seconds since 1970; None if nothing failed or the state file, which users can edit, has no valid time."""
    if view.last_failure is None:
        return None
    try:
        return datetime.fromisoformat(view.last_failure.utc).timestamp()
    except ValueError:
        return None


TABLE_GAUGES: tuple[tuple[str, str, Callable[[TableView], float | None]], ...] = (
    ("table_age_seconds", "Time since the table was last checked against whole networks.", _age_seconds),
    ("table_held_out_mean_error_ratio", "Mean error on held-out networks; 0.02 is 2 %.", _mean_error_ratio),
    ("table_held_out_worst_error_ratio", "Worst error on held-out networks.", _worst_error_ratio),
    ("table_fresh", "1 for a fresh table, 0 for a stale, missing or broken one.", _fresh),
    ("table_verified", "1 for a table within its error limit that was measured undisturbed.", lambda view: float(view.verified)),
    ("table_layers", "Number of measured layers.", lambda view: view.layers),
    ("table_last_failure_timestamp_seconds", "Time of the scheduler's last failure.", _last_failure_timestamp),
)


class _StateCollector(Collector):
    """Gauges of one state of the dashboard."""

    def __init__(self, state: DashboardState) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, help_text, value_of in TABLE_GAUGES:
            family = _family(name, help_text, ["table", "device", "runtime", "file"])
            for view in self._state.tables:
                value = value_of(view)
                if value is not None:
                    family.add_metric(_labels(view.name, view.device, view.runtime, view.file), value)
            yield family

        yield GaugeMetricFamily(f"{PREFIX}_builds_running", "Number of running builds.", value=len(self._state.running))
        labels = ["build", "device", "file"]
        layers = _family("build_layers_measured", "Number of layers that a running build has measured so far.", labels)
        error = _family(
            "build_held_out_mean_error_ratio",
            "Mean error of a running build so far; only computed while somebody watches the page.",
            labels,
        )
        for build in self._state.running:
            if build.progress is not None:
                values = _labels(build.name, build.progress.device, build.file)
                layers.add_metric(values, build.progress.layers_measured)
                if build.errors:
                    error.add_metric(values, build.errors[-1].percent / 100)
        yield layers
        yield error

        busy = _family("device_busy", "1 while a process measures on the device.", ["device"])
        for device in self._state.devices:
            busy.add_metric(_labels(device.name), float(device.busy))
        yield busy


def _family(name: str, help_text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=labels)


def _labels(*values: str | None) -> list[str]:
    """Return label values that can be encoded as UTF-8, which names of files need not be; the library escapes the rest."""
    return [(value or "").encode("utf-8", "replace").decode() for value in values]
