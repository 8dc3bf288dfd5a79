"""Exported files: they compute what PyTorch does, and a failure leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch.onnx._internal.exporter._torchlib import _torchlib_registry

from netadapt.export import files as export
from netadapt.export import operators
from netadapt.export.files import Exported, ExportError, export_onnx, export_tflite, file_scores, write_onnx
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import trace
from netadapt.registry import MissingPackage
from netadapt.training.tasks import open_task
from netadapt.training.trainer import score
from netadapt.training.types import ImagesInMemory
from profiler.errors import ModelError
from profiler.formats.model_file import read_model

SHAPE = (1, 3, 8, 8)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.conv(images)))
        scores: Tensor = self.head(self.pool(features).flatten(1))
        return scores


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images + 1 if images.sum() > 0 else images


def _part(count: int = 12) -> ImagesInMemory:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).byte()
    return ImagesInMemory(
        images, torch.randint(0, 4, (count,), generator=generator), (0.5,) * 3, (0.3,) * 3, True, open_task("classification")
    )


def test_the_operators_are_read_once_for_all_exports_and_are_pytorchs_own_again(
    trained: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    functions = _torchlib_registry.get_torchlib_ops
    monkeypatch.setattr(_torchlib_registry, "get_torchlib_ops", lambda: [read.append(1), *functions()][1:])
    monkeypatch.setattr(operators, "_KEPT", {})
    for name in "ab":
        write_onnx(trained, (SHAPE,), tmp_path / f"{name}.onnx")
    assert len(read) == 1
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    ONNXRegistry.from_torchlib()
    assert len(read) == 2


@pytest.fixture(scope="module")
def trained() -> Classifier:
    model = Classifier()
    model(torch.randn(8, 3, 8, 8))  # moves the running statistics
    return model.eval()


@pytest.fixture(scope="module", params=[("onnx", export_onnx), ("tflite", export_tflite)], ids=["onnx", "tflite"])
def exported(request: pytest.FixtureRequest, trained: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name, write = request.param
    result: Exported = write(trained.train(), (SHAPE,), tmp_path_factory.mktemp("exported") / f"network.{name}")
    return result


def test_the_file_is_told_with_its_size_and_difference(exported: Exported) -> None:
    assert exported.path.stat().st_size == exported.size_bytes > 0
    assert exported.path.suffix == f".{exported.format}"
    assert 0 <= exported.max_abs_difference < 1e-4


def test_nothing_else_is_left_in_the_folder(exported: Exported) -> None:
    assert list(exported.path.parent.iterdir()) == [exported.path]


def test_the_file_is_as_accurate_as_the_model(exported: Exported, trained: Classifier) -> None:
    assert file_scores(exported.path, _part()) == score(trained, _part())


def test_the_model_keeps_its_mode(exported: Exported, trained: Classifier) -> None:
    assert trained.training


def test_the_profiler_reads_the_file_and_its_input_is_channels_last(exported: Exported) -> None:
    graph = read_model(exported.path)
    assert [shape for _, shape in graph.inputs] == [(1, 8, 8, 3)]
    assert "transpose" not in " ".join(layer.op.lower() for layer in graph.layers)
    assert graph.macs == 8 * 8 * 8 * 27 + 8 * 4


@pytest.mark.parametrize(("name", "write"), [("onnx", export_onnx), ("tflite", export_tflite)])
def test_a_pruned_grouped_convolution_comes_back_as_the_graph_says(name: str, write: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(12, 4, 1)
    model = nn.Sequential(*layers).eval()
    graph = trace(model, (SHAPE,), "grouped")
    pruned = prune(model, graph, {"0": 4, "2": 6})
    path = write(pruned, (SHAPE,), tmp_path / f"network.{name}").path
    assert read_model(path).layers == graph.at_widths({"0": 4, "2": 6}).layers


@pytest.mark.parametrize("size", [1, (4, 2)])
def test_the_maxima_of_adaptive_pooling_are_exported_to_tflite(size: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveMaxPool2d(size))
    assert export_tflite(model, ((1, 3, 8, 8),), tmp_path / "pooled.tflite").max_abs_difference < 1e-4


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_file_that_computes_something_else_is_not_written(
    trained: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(export, "_OPENERS", {f".{name}": lambda _path: (lambda arrays: [arrays[0][:, 0, 0, :4]], 1)})
    path = tmp_path / f"network.{name}"
    path.write_text("old")
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export.export_checked(trained, (SHAPE,), path, name, lambda _model, _shape, written: written.touch())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_that_cannot_be_exported_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_text("old")
    with pytest.raises(ExportError, match=r"^the model cannot be written as onnx: [^\n]+$"):
        export_onnx(Branching(), (SHAPE,), path)
    assert path.read_text() == "old"


def test_a_folder_that_does_not_exist_is_told(trained: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written"):
        export_onnx(trained, (SHAPE,), tmp_path / "nowhere" / "network.onnx")


def test_a_missing_converter_is_told_with_what_to_install(
    trained: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(
        MissingPackage, match=r"litert_torch is not installed; install it with pip install 'netadapt-profiler\[adapt\]'"
    ):
        export_tflite(trained, (SHAPE,), tmp_path / "network.tflite")


@pytest.mark.parametrize("name", ["network.onnx", "network.tflite"])
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a network at all")
    with pytest.raises(ModelError, match="cannot be run"):
        file_scores(tmp_path / name, _part())


def test_exporting_says_nothing(trained: Classifier, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(trained, (SHAPE,), tmp_path / "network.onnx")
    export_tflite(trained, (SHAPE,), tmp_path / "network.tflite")
    assert capfd.readouterr() == ("", "")
