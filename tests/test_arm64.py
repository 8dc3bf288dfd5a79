"""The native runner for aarch64 with the real runtimes of aarch64, under qemu: the machine code that a phone or a board would run.

Only what it computes and says is looked at; times under qemu mean nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_models import python_outputs, run_models, told_outputs, write_models
from runner_conformance import CONDITIONING, RunnerConformance, checked, events, files

from device_agents import native
from device_agents.support.cache import cache_folder

SYSROOT = Path("/usr/aarch64-linux-gnu")
MISSING = [name for name in ("qemu-aarch64-static", "aarch64-linux-gnu-gcc") if shutil.which(name) is None]
if MISSING:
    pytest.skip(
        f"{' and '.join(MISSING)} not installed; apt install qemu-user-static gcc-aarch64-linux-gnu", allow_module_level=True
    )

pytestmark = pytest.mark.slow  # all of RunnerConformance again, under qemu
WHEELS = {
    "onnxruntime": ("onnxruntime==1.26.0", "onnxruntime/capi/libonnxruntime.so*"),
    "litert": ("ai-edge-litert==2.3.0", "ai_edge_litert/libLiteRt.so"),
}
PLATFORMS = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
SMALL = ["dense", "conv", "depthwise", "int8", "network"]
CORE = """processor\t: {}
BogoMIPS\t: 108.00
Features\t: fp asimd aes pmull sha1 sha2 crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where qemu looks for files first. LiteRT reads /proc/cpuinfo and crashes where it is this machine's, not of an ARM core."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "lib").symlink_to(SYSROOT / "lib")
    files(folder, {"proc/cpuinfo": "\n".join(CORE.format(number) for number in range(2))})
    return folder


@pytest.fixture(scope="session")
def qemu(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    built = native.build("aarch64-linux", tmp_path_factory.mktemp("arm64") / "measure")
    return ["qemu-aarch64-static", "-cpu", "cortex-a72", "-L", str(root), str(built.path)]


@pytest.fixture(scope="session", params=WHEELS)
def runtime(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Its name, and its shared library out of the package for aarch64."""
    name: str = request.param
    package, pattern = WHEELS[name]
    kept = cache_folder() / "native" / f"{package}-aarch64"
    if not list(kept.glob(pattern)):
        _fetch(package, kept)
    return name, next(kept.glob(pattern))


def _fetch(package: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version=3.11", *PLATFORMS]
    done = subprocess.run([*argv, "--dest", str(folder), package], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{package} for aarch64 cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if ".so" in name])
        wheel.unlink()


class TestNativeRunnerOfAarch64(RunnerConformance):
    @pytest.fixture
    def command(self, qemu: list[str]) -> list[str]:
        return qemu

    def test_it_says_what_it_is(self, command: list[str], tmp_path: Path) -> None:
        hello = self.lines(command, tmp_path, {"a": CONDITIONING}, ["a"])[0]
        assert hello["device"]["machine"] == "aarch64"  # not this machine's
        assert "aarch64" in hello["build"]


def test_outputs_are_those_of_this_machine_but_for_rounding(qemu: list[str], runtime: tuple[str, Path], tmp_path: Path) -> None:
    name, library = runtime
    models = write_models(tmp_path, name, SMALL)
    found = [checked(line) for line in run_models(qemu, models, name, [str(library)], outputs=10**6, seed=5)]
    lines = {line["model"]: line for line in events(found, "outputs")}
    assert list(lines) == SMALL
    for model, path in models.items():
        for ours, theirs in zip(told_outputs(lines[model]), python_outputs(name, path, 5), strict=True):
            _assert_close(ours, theirs)


def _assert_close(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> None:
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    largest = float(np.abs(theirs.astype(np.float64)).max())
    off = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
    assert off <= (1e-4 * largest if ours.dtype.kind == "f" else 1)


def test_real_models_are_measured(qemu: list[str], runtime: tuple[str, Path], tmp_path: Path) -> None:
    name, library = runtime
    lines = run_models(qemu, write_models(tmp_path, name, ["dense", "conv"]), name, [str(library)], threads=2)
    assert [line["model"] for line in events([checked(line) for line in lines], "measurement")] == ["dense", "conv"]


def test_what_the_runtime_executes_is_told(qemu: list[str], runtime: tuple[str, Path], tmp_path: Path) -> None:
    name, library = runtime
    lines = run_models(qemu, write_models(tmp_path, name, ["network"]), name, [str(library)], profiled=2)
    (line,) = events([checked(line) for line in lines], "executed")
    first, last = line["operators"][0], line["operators"][-1]
    assert line["reason"] is None
    assert [name for name in ("Conv", "Gemm") if name.lower() in (first["op"] + last["op"]).lower()] == ["Conv", "Gemm"]
    assert 0 < sum(first["samples_us"]) <= sum(line["inferences_us"])
