"""Networks of several inputs, and of inputs that are no images: what is traced, pruned, trained and exported of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_netadapt_cli import run, succeed
from torch import Tensor, nn

import netadapt
from netadapt.errors import NetworkError
from netadapt.export.files import export_onnx, export_tflite, open_network
from netadapt.export.quantize import export_int8
from netadapt.input_shapes import InputShapes, input_shapes_of
from netadapt.networks.plain import plain_network
from netadapt.pruning.counting import count_macs
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import trace
from netadapt.training.trees import split

SOURCE = """
import torch
from torch import nn
from torch.utils.data import Dataset

class Fused(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.image, self.numbers = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(8, 24)
        self.mix, self.head = nn.Linear(40, 20), nn.Linear(20, classes)

    def forward(self, image, numbers):
        both = [self.image(image).relu().mean((2, 3)), self.numbers(numbers).relu()]
        return self.head(self.mix(torch.cat(both, 1)).relu())

class Pairs(Dataset):
    classes = ["a", "b"]

    def __init__(self, count):
        self.images, self.numbers = torch.randn(count, 3, 8, 12), torch.randn(count, 8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return (self.images[index], self.numbers[index]), int(self.numbers[index, 0] > 0)

def make_net(classes=2):
    return Fused(classes)

def make_data():
    return Pairs(40), Pairs(12)
"""
SHAPES = ((1, 3, 8, 12), (1, 8))


class Difference(nn.Module):
    """Two images of the same shape, of which the second is taken from the first: an exporter that exchanges them is found out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        scores: Tensor = self.head(self.stem(2 * one - other).relu().mean((2, 3)))
        return scores


class Signal(nn.Module):
    """A spectrum of forty values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(40, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, spectrum: Tensor) -> Tensor:
        scores: Tensor = self.head(self.two(self.one(spectrum).relu()).relu())
        return scores


class Named(nn.Module):
    """Its argument and its layer have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum, self.head = nn.Linear(40, 32), nn.Linear(32, 4)

    def forward(self, spectrum: Tensor) -> Tensor:
        scores: Tensor = self.head(self.spectrum(spectrum).relu())
        return scores


NETWORKS: dict[str, tuple[type[nn.Module], InputShapes, dict[str, int]]] = {
    "two images": (Difference, ((1, 3, 9, 9), (1, 3, 9, 9)), {"stem": 16}),
    "a spectrum": (Signal, ((1, 40),), {"one": 32, "two": 16}),
    "an argument with the name of a layer": (Named, ((1, 40),), {"spectrum": 32}),
    "a sequence of spectra": (Signal, ((1, 5, 40),), {"one": 32, "two": 16}),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_they_are_narrowed_as_the_graph_says(kind: str) -> None:
    make, shapes, blocks = NETWORKS[kind]
    model = make().eval()
    graph = trace(model, shapes, "net")
    assert graph.widths == blocks and input_shapes_of(graph) == shapes
    widths = {block: width // 2 for block, width in blocks.items()}
    assert count_macs(prune(model, graph, widths), shapes) == graph.at_widths(widths).macs


@pytest.mark.parametrize("exporter", [export_onnx, export_tflite])
@pytest.mark.parametrize("kind", NETWORKS)
def test_their_files_compute_what_pytorch_does(kind: str, exporter: type, tmp_path: Path) -> None:
    make, shapes, _ = NETWORKS[kind]
    path = tmp_path / f"net.{exporter.__name__.removeprefix('export_')}"
    assert exporter(make().eval(), shapes, path).max_abs_difference < 1e-5


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_they_are_exported_in_integers(file_format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(16, 3, 9, 9), torch.randn(16, 3, 9, 9))
    model, path = Difference().eval(), tmp_path / f"net.{file_format}"
    export_int8(model, NETWORKS["two images"][1], path, inputs)
    network, _ = open_network(path)
    found = torch.cat([torch.from_numpy(network([one.numpy(), other.numpy()])[0]) for one, other in split(inputs, 1)])
    with torch.no_grad():
        wanted, exchanged = model(*inputs), model(*reversed(inputs))
    assert float((found - wanted).abs().mean()) < 0.6 * float((found - exchanged).abs().mean())


def test_an_input_without_a_shape_is_named() -> None:
    with pytest.raises(NetworkError, match=r"takes 2 inputs, one and other; give the shape of each with --input"):
        plain_network(Difference(), ((1, 3, 9, 9),), "net")


def test_filters_are_chosen_on_examples_of_several_inputs() -> None:
    torch.manual_seed(0)
    model, shapes = Difference().eval(), NETWORKS["two images"][1]
    inputs = (torch.randn(40, 3, 9, 9), torch.randn(40, 3, 9, 9))
    pruned = prune(model, trace(model, shapes, "net"), {"stem": 15}, "reconstruction", inputs)
    assert float((pruned(*inputs) - model(*inputs)).abs().mean()) < 0.1 * float(model(*inputs).abs().mean())


def test_the_python_interface_takes_a_tuple_of_inputs(tmp_path: Path) -> None:
    steps = netadapt.adapt(
        Difference(), (torch.zeros(4, 3, 9, 9), torch.zeros(4, 3, 9, 9)), "macs=60%", out=tmp_path / "run",
        evaluate=lambda _: 0.5, fine_tune=lambda _model, _steps: None, progress=False,
        search=netadapt.AdaptSettings(step=0.3, decay=1.0, width_step=4, min_width=4),
    )  # fmt: skip
    last = list(steps)[-1]
    assert last.widths["stem"] < 16 and last.export(tmp_path / "net.onnx").max_abs_difference < 1e-5


def test_a_run_of_them_ends_with_files_that_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(SOURCE)
    shapes = ("--input", "1x3x8x12,1x8")
    steps = ("--step", 0.2, "--decay", 1, "--min-width", 4, "--width-step", 4, "--short-term-steps", 2, "--epochs", 1)
    succeed("run", "two.py:make_net", *shapes, "--data", "two.py:make_data", "--budget", "macs=70%", *steps, "--out", "run")
    succeed("export", "run", "--out", "net.tflite")
    told = json.loads((tmp_path / "net.tflite.preprocessing.json").read_text())
    assert told["shapes"] == [[1, 8, 12, 3], [1, 8]]
    wrong = run(
        "run", "two.py:make_net", "--input", "1x3x8x12,1x9", "--data", "two.py:make_data", "--budget", "macs=70%", "--out", "b"
    )
    assert wrong.exit_code == 1 and not (tmp_path / "b").exists()
    assert "two.py:make_net does not accept an input of 1x3x8x12,1x9" in wrong.stderr
