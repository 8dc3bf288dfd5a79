"""Files in eight-bit integers: they are integers, they agree with PyTorch, nonsense is refused, and all of it is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_export import SHAPE, Classifier, _part
from test_netadapt_cli import NETWORK, QUICK, run, succeed
from torch import Tensor, nn

from netadapt.export import quantize
from netadapt.export.files import Exported, ExportError, export_onnx, export_tflite, file_scores, open_network
from netadapt.export.quantize import agreement, export_int8
from netadapt.pruning.settings import PruningSettings
from netadapt.runs.records import TargetName
from netadapt.runs.run_folder import RunFolder
from profiler.formats.model_file import read_model
from profiler.formats.tflite.schema import load

FORMATS = {"onnx": export_onnx, "tflite": export_tflite}


def images(count: int = 32) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def trained() -> Classifier:
    model = Classifier()
    model(images())
    return model.eval()


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, trained: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_int8(trained, (SHAPE,), tmp_path_factory.mktemp("int8") / f"network.int8.{request.param}", images())


def test_outputs_agree_with_pytorch_and_are_not_the_same(exported: Exported, trained: Classifier) -> None:
    found = agreement(trained, exported.path, images())
    assert found.cosine_similarity > 0.99
    assert found.top1_agreement is not None and found.top1_agreement > 0.9
    assert 0 < found.max_abs_difference == exported.max_abs_difference


def test_the_accuracy_of_the_file_itself_can_be_measured(exported: Exported) -> None:
    assert 0 <= file_scores(exported.path, _part()).accuracy <= 1


def test_nothing_else_is_left_in_the_folder(exported: Exported) -> None:
    assert list(exported.path.parent.iterdir()) == [exported.path]


def test_a_float_file_agrees_fully(trained: Classifier, tmp_path: Path) -> None:
    found = agreement(trained, export_onnx(trained, (SHAPE,), tmp_path / "network.onnx").path, images())
    assert found.cosine_similarity == pytest.approx(1) and found.top1_agreement == 1


def test_weights_of_an_onnx_file_are_bytes_with_a_scale_for_every_channel(trained: Classifier, tmp_path: Path) -> None:
    graph = onnx.load(export_int8(trained, (SHAPE,), tmp_path / "network.onnx", images()).path).graph
    shapes = {tuple(item.dims): item.data_type for item in graph.initializer}
    assert shapes[8, 3, 3, 3] == onnx.TensorProto.INT8
    assert (8,) in shapes
    pools = [node for node in graph.node if node.op_type in ("ReduceMean", "GlobalAveragePool")]
    assert [node.op_type for node in pools] == ["GlobalAveragePool"]  # what onnxruntime computes in integers


def test_a_tflite_file_is_integers_from_end_to_end(trained: Classifier, tmp_path: Path) -> None:
    contents = load(export_int8(trained, (SHAPE,), tmp_path / "network.tflite", images()).path)
    assert {contents.dtype(tensor) for operator in contents.operators for tensor in operator.outputs} == {"int8"}


def test_the_profiler_reads_a_file_whose_weights_the_quantiser_appends(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2048), nn.ReLU(), nn.Linear(2048, 4)).eval()
    done = export_int8(model, (SHAPE,), tmp_path / "network.tflite", images())
    assert done.size_bytes > 192 * 2048  # above 256 kB the quantiser does so
    assert read_model(done.path).macs == 192 * 2048 + 2048 * 4
    assert agreement(model, done.path, images()).cosine_similarity > 0.9


def test_quantising_says_nothing(trained: Classifier, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in FORMATS:
        export_int8(trained, (SHAPE,), tmp_path / f"network.{name}", images(4))
    assert capfd.readouterr() == ("", "")


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * 0 + self.value


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "not all numbers"), (1.0, "the same for every image")])
def test_nonsense_is_not_written(trained: Classifier, tmp_path: Path, value: float, said: str) -> None:
    path = tmp_path / "network.onnx"
    nonsense = export_onnx(Constant(1.0), (SHAPE,), tmp_path / "constant.onnx").path if value == 1 else _nan_file(tmp_path)
    with pytest.raises(ExportError, match=said):
        quantize.sensible_agreement(trained, nonsense, images(8), path)


def _nan_file(folder: Path) -> Path:
    model = onnx.load(export_onnx(Constant(1.0), (SHAPE,), folder / "constant.onnx").path)
    for item in model.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT:
            item.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(item.dims), np.nan, np.float32), item.name))
    onnx.save(model, folder / "nan.onnx")
    return folder / "nan.onnx"


def test_a_network_that_gives_always_the_same_may_do_so_in_integers(tmp_path: Path) -> None:
    path = export_onnx(Constant(1.0), (SHAPE,), tmp_path / "network.onnx").path
    assert quantize.sensible_agreement(Constant(1.0), path, images(4), path).max_abs_difference == 0


def test_too_few_images_to_calibrate_on_leave_the_old_file(trained: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_text("old")
    with pytest.raises(ExportError, match="at least 1 images, got 0"):
        export_int8(trained, (SHAPE,), path, images(0))
    assert path.read_text() == "old"


def test_a_file_of_integers_takes_and_gives_floats_once_opened(exported: Exported) -> None:
    network, at_once = open_network(exported.path)
    (scores,) = network([images(1).numpy()])
    assert at_once == 1 and scores.dtype == np.float32 and scores.shape == (1, 4)


# the command


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    options = ["--importance", "reconstruction", "--bn-recalibration-batches", 1]
    succeed("run", *NETWORK, *QUICK, *options, "--budget", "macs=95%", "--out", path)
    return path


@pytest.mark.slow
def test_a_run_remembers_how_its_filters_were_chosen(adapted: Path) -> None:
    with RunFolder.open(adapted) as folder:
        assert folder.info.settings.pruning == PruningSettings("reconstruction", bn_recalibration_batches=1)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_an_export_in_integers_is_recorded_with_all_that_is_known_of_it(adapted: Path, form: str) -> None:
    done = json.loads(succeed("export", adapted, "--format", form, "--precision", "int8", "--calibration", 64, "--json"))
    assert done["path"].endswith(f".int8.{form}") and done["calibration"] == 64 and done["precision"] == "int8"
    assert done["accuracy"] is not None and done["torch_accuracy"] is not None and done["latency_ms"] is None
    with RunFolder.open(adapted) as folder:
        (record,) = [item for item in folder.exported if item.path == done["path"]]
    assert record.sha256 == done["sha256"] and record.size_bytes == Path(record.path).stat().st_size
    assert Path(record.path).name in (adapted / "report.html").read_text()


@pytest.mark.slow
def test_a_file_made_again_replaces_its_record_and_is_measured_when_asked_to(adapted: Path) -> None:
    succeed("export", adapted, "--format", "onnx")
    done = json.loads(succeed("export", adapted, "--format", "onnx", "--measure", "--json"))
    with RunFolder.open(adapted) as folder:
        (record,) = [item for item in folder.exported if item.precision == "float32"]
    assert done["latency_ms_low"] <= done["latency_ms"] <= done["latency_ms_high"]
    assert record.target == TargetName("local", "onnxruntime")
    assert record.latency_ms is not None and record.latency_ms.value == done["latency_ms"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"), [(["--precision", "int3"], "float32 and int8"), (["--calibration", 0], "--calibration is a number")]
)
def test_what_cannot_be_exported_is_told_in_one_sentence(adapted: Path, options: list[object], said: str) -> None:
    result = run("export", adapted, "--format", "onnx", *options)
    assert result.exit_code == 1 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1
