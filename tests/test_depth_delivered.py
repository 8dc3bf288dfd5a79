"""FastDepth as files to ship: every format and precision judged by its own runtime, and measured by both."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_netadapt_cli import succeed

from netadapt.runs.measure import verify
from netadapt.runs.models import RunModels
from netadapt.runs.run_folder import RunFolder
from netadapt.training.tasks import open_task
from profiler.formats.model_file import read_model
from profiler.formats.tflite.schema import load
from profiler.progress import Silent
from profiler.protocol.settings import Target

pytestmark = pytest.mark.slow

FORMATS = ("onnx", "tflite")
NETWORK = ["fastdepth", "--width-multiplier", 0.25, "--resolution", 32, "--data", "scenes:20"]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("depth") / "run"
    quick = ["--epochs", 4, "--short-term-steps", 1, "--step", 0.1, "--no-augment"]
    succeed("run", *NETWORK, *quick, "--budget", "macs=95%", "--out", path)
    return path


@pytest.fixture(scope="module")
def files(adapted: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(form, precision): _exported(adapted, form, precision) for form in FORMATS for precision in ("float32", "int8")}


def _exported(run: Path, form: str, precision: str) -> dict[str, Any]:
    return json.loads(succeed("export", run, "--format", form, "--precision", precision, "--json"))  # type: ignore[no-any-return]


def test_a_run_is_trained_as_its_task_asks_for_and_remembers_how(adapted: Path) -> None:
    with RunFolder.open(adapted) as folder:
        training = folder.info.settings.training.recipe
    recipe = open_task("depth").recipe
    original = training.from_scratch
    assert (original.batch_size, original.learning_rate) == (8, recipe.from_scratch.learning_rate)
    assert training.short_term.learning_rate == recipe.short_term.learning_rate
    assert (original.epochs, original.augment) == (4, False)  # asked for


def test_the_long_term_fine_tune_goes_on_as_the_run_began_but_for_what_is_asked(adapted: Path) -> None:
    (done,) = json.loads(succeed("finetune", adapted, "--step", 0, "--epochs", 1, "--learning-rate", 0.02, "--json"))
    assert (done["epochs"], done["learning_rate"], done["batch_size"], done["augment"]) == (1, 0.02, 8, False)


@pytest.mark.parametrize("form", FORMATS)
def test_a_float_file_is_as_good_as_the_network_in_pytorch(files: dict[tuple[str, str], dict[str, Any]], form: str) -> None:
    done = files[form, "float32"]
    assert done["accuracy"] == pytest.approx(done["torch_accuracy"], abs=1e-3)
    assert done["metrics"] == pytest.approx(done["torch_metrics"], abs=1e-4)
    assert set(done["metrics"]) == {"rmse_m", "rel"} and done["max_abs_difference"] < 1e-4


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_integers_is_judged_by_what_it_computes_itself(files: dict[tuple[str, str], dict[str, Any]], form: str) -> None:
    done = files[form, "int8"]
    assert done["metrics"] != done["torch_metrics"] == files[form, "float32"]["torch_metrics"]
    assert math.isclose(done["metrics"]["rmse_m"], done["torch_metrics"]["rmse_m"], rel_tol=0.1)
    assert done["cosine_similarity"] > 0.95 and done["top1_agreement"] is None
    assert done["size_bytes"] < 0.6 * files[form, "float32"]["size_bytes"]


def test_a_tflite_file_is_integers_from_end_to_end(files: dict[tuple[str, str], dict[str, Any]]) -> None:
    contents = load(Path(files["tflite", "int8"]["path"]))
    assert {contents.dtype(tensor) for operator in contents.operators for tensor in operator.outputs} == {"int8"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_has_the_layers_that_the_run_counts(files: dict[tuple[str, str], dict[str, Any]], adapted: Path, form: str) -> None:
    found = read_model(Path(files[form, "float32"]["path"]))
    with RunFolder.open(adapted) as folder:
        expected = folder.graph.at_widths(folder.steps[-1].widths)
    assert found.macs == expected.macs
    ops = [layer.op for layer in found.layers]
    assert sorted(ops) == sorted(layer.op for layer in expected.layers)
    assert [shape for _, shape in found.inputs] == [(1, 32, 32, 3)]


def test_what_was_delivered_is_told_with_the_task_s_figures(adapted: Path) -> None:
    said = succeed("export", adapted, "--format", "onnx", "--measure")
    assert "RMSE" in said and "δ1" in said and "%" not in said.split("ms on local")[0] and "ms on local with onnxruntime" in said
    page = (adapted / "report.html").read_text()
    assert "step001.onnx" in page and "Scores are those of the file itself" in page


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_steps_are_verified_with_either_runtime(adapted: Path, runtime: str) -> None:
    with RunFolder.open(adapted, write=True) as folder:
        found = verify(RunModels(folder), [1], Target(runtime=runtime), None, Silent())
        assert folder.verified[1].target.runtime == runtime
    assert found[0].measured_ms.value > 0
