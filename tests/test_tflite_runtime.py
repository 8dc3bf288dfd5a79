"""The Python runner with tflite-runtime itself, in environments made for it: it needs numpy 1 and Python 3.11 or older."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest
from ai_edge_litert.interpreter import Interpreter
from packed_runner import packed_runner
from runner_conformance import events, expected_input, model_of, run, told, written

from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d

pytestmark = pytest.mark.slow  # Its two environments are fetched by pip and made in some twenty seconds.
RELEASE = "tflite-runtime==2.14.0"
INSTALL_S = 100


@pytest.fixture(scope="module")
def numpy1(pytestconfig: pytest.Config) -> str:
    """An interpreter with what tflite-runtime needs."""
    return environment(pytestconfig, "tflite-numpy1", [RELEASE, "numpy<2"])


@pytest.fixture(scope="module")
def numpy2(pytestconfig: pytest.Config) -> str:
    """An interpreter with what pip gives who asks for tflite-runtime alone."""
    return environment(pytestconfig, "tflite-numpy2", [RELEASE, "numpy>=2"])


def environment(config: pytest.Config, name: str, packages: Sequence[str]) -> str:
    """The Python of a virtual environment with these packages, made once and kept below pytest's cache folder."""
    assert config.cache is not None
    folder = Path(config.cache.mkdir(name))
    python, ready = folder / "bin" / "python", folder / "ready.json"
    if ready.exists() and json.loads(ready.read_text()) == list(packages) and answers(str(python)):
        return str(python)
    base = python_for_tflite()
    shutil.rmtree(folder)
    made = subprocess.run([base, "-m", "venv", str(folder)], capture_output=True, text=True, timeout=INSTALL_S)
    if made.returncode != 0:
        pytest.skip(f"{base} cannot make a virtual environment; install its venv package (python3-venv): {made.stderr[-200:]}")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    installed = subprocess.run([*pip, "--only-binary", ":all:", *packages], capture_output=True, text=True, timeout=INSTALL_S)
    if installed.returncode != 0:
        pytest.skip(f"pip cannot install {' '.join(packages)}; give it an index it can reach: {installed.stderr.strip()[-200:]}")
    ready.write_text(json.dumps(list(packages)))
    return str(python)


def python_for_tflite() -> str:
    """tflite-runtime has wheels for Python 3.8 to 3.11 only; numpy 2 asks for 3.9."""
    for candidate in (sys.executable, *(shutil.which(f"python3.{minor}") for minor in (11, 10, 9))):
        if candidate and answers(candidate, "import sys, venv; assert (3, 9) <= sys.version_info < (3, 12)"):
            return candidate
    pytest.skip("there is no Python 3.9, 3.10 or 3.11 here; install one (apt, pyenv, uv) to try tflite-runtime")


def answers(python: str, code: str = "") -> bool:
    return Path(python).exists() and subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def convolution() -> bytes:
    return FORMATS["tflite"].write(Graph.of_layer(conv2d((1, 8, 8, 3), 16, 3, activation="relu6")))


def job(folder: Path, **more: object) -> str:
    (folder / "conv.tflite").write_bytes(convolution())
    return written(folder, {}, ["a"], runtime="tflite-runtime", models=[model_of("a", "conv.tflite")], **more)


def probed(python: str, folder: Path) -> dict[str, object]:
    (folder / "probe.tflite").write_bytes(convolution())
    (line,), code, stderr = run([python, packed_runner(), "--probe", str(folder)])
    assert code == 0, stderr
    return dict(line["runtimes"])


def test_a_probe_says_that_it_works(numpy1: str, tmp_path: Path) -> None:
    found = probed(numpy1, tmp_path)
    assert found["tflite-runtime"] == {"version": "2.14.0"}
    assert found["onnxruntime"] == {"missing": True}


def test_a_convolution_is_measured(numpy1: str, tmp_path: Path) -> None:
    lines, code, stderr = run([numpy1, packed_runner(), job(tmp_path)])
    assert code == 0, stderr
    assert told(lines) == ["hello", "round 0", "begin a", "measurement a", "done"]
    assert (lines[0]["runtime"], lines[0]["version"]) == ("tflite-runtime", "2.14.0")
    assert lines[0]["library_sha256"] is not None


def test_outputs_agree_with_those_of_litert(numpy1: str, tmp_path: Path) -> None:
    lines, code, stderr = run([numpy1, packed_runner(), job(tmp_path, seed=5, outputs=10**6)])
    assert code == 0, stderr
    (output,) = events(lines, "outputs")[0]["outputs"]
    expected = outputs_of_litert(seed=5)
    assert (output["shape"], output["type"]) == (list(expected.shape), "float32")
    numpy.testing.assert_allclose(numpy.reshape(output["values"], expected.shape), expected, atol=1e-4)
    assert numpy.ptp(expected) > 0.01  # else anything would agree


def outputs_of_litert(seed: int) -> numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]]:
    interpreter = Interpreter(model_content=convolution(), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (told_output,) = interpreter.get_input_details(), interpreter.get_output_details()
    values = expected_input(seed, 0, "float32", int(numpy.prod(given["shape"])))
    interpreter.set_tensor(given["index"], numpy.array(values, dtype="float32").reshape(given["shape"]))
    interpreter.invoke()
    result: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]] = interpreter.get_tensor(told_output["index"])
    return result


def test_with_numpy_2_a_probe_says_that_it_is_broken_and_why(numpy2: str, tmp_path: Path) -> None:
    found = probed(numpy2, tmp_path)["tflite-runtime"]
    assert isinstance(found, dict)
    assert "numpy.core.multiarray" in found["broken"]


def test_with_numpy_2_a_model_fails_and_says_why(numpy2: str, tmp_path: Path) -> None:
    lines, code, stderr = run([numpy2, packed_runner(), job(tmp_path)])
    assert code == 0, stderr
    (failed,) = events(lines, "failed")
    assert "numpy.core.multiarray" in failed["reason"]
