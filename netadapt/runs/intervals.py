"""Latencies with their intervals as text."""

from __future__ import annotations

from profiler.interval import Interval


def ms_text(interval: Interval | None) -> str | None:
    """The latency as text, such as `5.913`; None for no latency, which tables show as a dash."""
    return None if interval is None else f"{interval.value:.3f}"


def interval_text(interval: Interval | None) -> str | None:
    """The 95 % interval as text, such as `5.880 … 5.934`; None where it is not known."""
    return f"{interval.low:.3f} … {interval.high:.3f}" if interval is not None and interval.known else None
