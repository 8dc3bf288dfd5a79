"""Shared by all tests: no test may depend on the user's own environment."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from profiler.settings import TimingSettings

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture
def quick() -> TimingSettings:
    """Timing settings that take milliseconds: for tests of what happens, not of how long it takes."""
    return TimingSettings(
        rounds=3,
        max_rounds=3,
        network_rounds=3,
        reference_ms=1.0,
        visit_ms=2.0,
        warmup_ms=0.0,
        sample_ms=0.5,
        min_samples=2,
        min_round_s=0.0,
        silence_s=30.0,
    )
