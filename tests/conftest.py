"""Shared by all tests: no test may depend on the user's own environment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from adb_program import adb_environment
from hypothesis import HealthCheck, settings

from profiler.protocol.settings import TimingSettings

if TYPE_CHECKING:
    from torch import nn

    from netadapt.input_shapes import InputShapes
    from profiler.layers.graph import Graph

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side: PyTorch's threads would only wait for each other
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C, and so would what we start
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and so `nohup`'s
pytest.register_assert_rewrite("agent_conformance", "adb_conformance", "runner_conformance")


@pytest.fixture(scope="session", autouse=True)
def own_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leases, built runners, named devices and an adb server of our own: nobody else's are in the way, nor we in theirs."""
    assert request.config.cache is not None
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with pytest.MonkeyPatch.context() as patch, adb_environment(tmp_path_factory.mktemp("home")) as variables:
        patch.setenv("ANDROID_ADB_SERVER_PORT", variables["ANDROID_ADB_SERVER_PORT"])
        patch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir(f"xdg-{worker}")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("PROFILE_CONFIG", raising=False)
        yield


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of users' networks stay on the path as long as a process lives, and a test must not find those of another test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


_TRACES: dict[tuple[str, object, str], Graph] = {}


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """For commands that adapt the same few networks again and again: each is traced once, which takes PyTorch seconds."""
    from netadapt.pruning import tracing

    trace = tracing.trace

    def kept(model: nn.Module, input_shapes: InputShapes, name: str) -> Graph:
        key = name, input_shapes, repr(model)
        if key not in _TRACES:
            _TRACES[key] = trace(model, input_shapes, name)
        return _TRACES[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "trace", kept)
        yield


@pytest.fixture(scope="session")
def quick() -> TimingSettings:
    """Timing settings that take milliseconds: for tests of what happens, not of how long it takes."""
    return TimingSettings(
        rounds=3,
        max_rounds=3,
        network_rounds=3,
        reference_ms=1.0,
        measurement_ms=2.0,
        warmup_ms=0.0,
        sample_ms=0.5,
        min_samples=2,
        min_round_s=0.0,
        silence_s=30.0,
    )
