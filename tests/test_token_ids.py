"""Networks whose inputs are whole numbers, such as token ids: what is traced, pruned, trained, exported and priced of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from test_netadapt_cli import run, succeed
from torch import Tensor, nn

import netadapt
from netadapt.errors import NetworkError
from netadapt.export.files import export_onnx, export_tflite
from netadapt.export.quantize import agreement, export_int8
from netadapt.input_shapes import InputShapes, WholeNumbers, input_shapes_of, shapes_text
from netadapt.networks.plain import plain_network
from netadapt.networks.user_network import parse_inputs
from netadapt.pruning.counting import count_macs
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import trace_with_reasons
from netadapt.training.trees import random_inputs
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph

SOURCE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.word, self.up, self.down, self.head = nn.Embedding(50, 16), nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 2)

    def forward(self, ids):
        words = self.word(ids)
        return self.head((words + self.down(self.up(words).relu())).mean(1))

def make_net():
    return Text()

def make_data():
    ids = torch.randint(50, (48, 6), dtype=torch.int32)
    return tuple(TensorDataset(part, (part[:, 0] > 25).long()) for part in (ids[:36], ids[36:]))
"""
IDS = WholeNumbers((1, 6))


class Attention(nn.Module):
    """A block of a transformer, as people write it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.before, self.between = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        query, key, value = (
            layer(self.before(x)).view(count, tokens, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        found = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1) @ value
        x = x + self.out(found.transpose(1, 2).reshape(count, tokens, -1))
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class Text(nn.Module):
    """An encoder whose width is that of its two embeddings, of which the second is always read at the same places."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place, self.block = nn.Embedding(50, 32), nn.Embedding(6, 32), Attention(32, 2)
        self.head = nn.Linear(32, 4)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(self.block(self.word(ids) + self.place(torch.arange(ids.shape[1])))[:, 0])
        return scores


class Masked(nn.Module):
    """The mean of the words that a second input names."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.up, self.head = nn.Embedding(50, 16), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        kept = mask.unsqueeze(-1).float()
        scores: Tensor = self.head((self.up(self.word(ids)).relu() * kept).sum(1) / kept.sum(1).clamp(min=1))
        return scores


class Tied(nn.Module):
    """Its head has the weights of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.up, self.down, self.head = nn.Embedding(50, 16), nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 50)
        self.head.weight = self.word.weight

    def forward(self, ids: Tensor) -> Tensor:
        words = self.word(ids)
        scores: Tensor = self.head((words + self.down(self.up(words).relu())).mean(1))
        return scores


NETWORKS: dict[str, tuple[type[nn.Module], InputShapes, dict[str, int]]] = {
    "an encoder of text": (Text, (IDS,), {"block.key": 32, "block.value": 32, "block.out": 32, "block.up": 64}),
    "words and a mask": (Masked, (IDS, IDS), {"up": 32}),
    "tied weights": (Tied, (IDS,), {"up": 32, "down": 16}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, InputShapes, Graph]:
    make, shapes, blocks = NETWORKS[request.param]
    torch.manual_seed(0)
    model = make().eval()
    found = trace_with_reasons(model, shapes, "net")
    assert found.graph.widths == blocks
    return model, shapes, found.graph


def test_the_types_of_inputs_are_known_from_the_graph(traced: tuple[nn.Module, InputShapes, Graph]) -> None:
    _, shapes, graph = traced
    assert shapes_text(input_shapes_of(graph)) == shapes_text(shapes)


def test_they_are_narrowed_as_the_graph_says(traced: tuple[nn.Module, InputShapes, Graph]) -> None:
    model, shapes, graph = traced
    narrow = _halved(graph)
    assert count_macs(prune(model, graph, narrow.widths), shapes) == narrow.macs


@pytest.mark.parametrize("exporter", [export_onnx, export_tflite])
def test_their_files_compute_what_pytorch_does(
    traced: tuple[nn.Module, InputShapes, Graph], exporter: type, tmp_path: Path
) -> None:
    model, shapes, graph = traced
    narrow = prune(model, graph, _halved(graph).widths)
    path = tmp_path / f"net.{exporter.__name__.removeprefix('export_')}"
    assert exporter(narrow, shapes, path).max_abs_difference < 1e-5


def test_onnx_files_for_a_table_take_whole_numbers_at_any_width(traced: tuple[nn.Module, InputShapes, Graph]) -> None:
    model, shapes, graph = traced
    session = onnxruntime.InferenceSession(FORMATS["onnx"].write(_halved(graph)), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    (scores,) = session.run(None, dict(zip(names, (ids.numpy() for ids in random_inputs(shapes)), strict=True)))
    assert scores.size == model.get_submodule("head").out_features


def test_tflite_files_for_a_table_take_whole_numbers_at_any_width(traced: tuple[nn.Module, InputShapes, Graph]) -> None:
    model, _, graph = traced
    interpreter = Interpreter(model_content=FORMATS["tflite"].write(_halved(graph)), num_threads=1)
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], np.int32))
    interpreter.invoke()
    assert interpreter.get_output_details()[0]["shape"].prod() == model.get_submodule("head").out_features


def _halved(graph: Graph) -> Graph:
    return graph.at_widths({block: width // 2 for block, width in graph.widths.items()})


def test_whole_numbers_are_written_behind_a_shape() -> None:
    found = parse_inputs("1x3x8x8,1x6:int64")
    assert shapes_text(found) == "1x3x8x8,1x6:int64" and [isinstance(shape, WholeNumbers) for shape in found] == [False, True]


def test_a_network_that_is_given_floats_instead_says_which_option_is_meant() -> None:
    with pytest.raises(NetworkError, match=r"looks rows up by whole numbers.*--input 1x6:int64"):
        plain_network(Text(), ((1, 6),), "net")


def test_the_python_interface_knows_them_by_their_type(tmp_path: Path) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    steps = netadapt.adapt(
        Masked(), (ids, torch.ones_like(ids)), "macs=70%", out=tmp_path / "run",
        evaluate=lambda model: float(model(ids, torch.ones_like(ids)).shape[1] == 4),
        fine_tune=lambda _model, _steps: None, progress=False, search=netadapt.AdaptSettings(step=0.3, decay=1.0),
    )  # fmt: skip
    assert list(steps)[-1].export(tmp_path / "net.onnx").max_abs_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_they_are_exported_in_integers(file_format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(50, (64, 6))
    model, path = Masked().eval(), tmp_path / f"net.{file_format}"
    export_int8(model, (IDS, IDS), path, (ids, torch.ones_like(ids)))
    found = agreement(model, path, (ids, torch.ones_like(ids)))
    assert found.cosine_similarity > 0.98


@pytest.mark.slow
def test_a_run_of_them_ends_with_files_that_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.py").write_text(SOURCE)
    steps = ("--step", 0.2, "--decay", 1, "--min-width", 4, "--width-step", 4, "--short-term-steps", 2, "--epochs", 1)
    data = ("--data", "text.py:make_data", "--budget", "macs=70%")
    succeed("run", "text.py:make_net", "--input", "1x6:int64", *data, *steps, "--out", "run")
    assert "on the test images, run by the file's own runtime" in succeed("export", "run", "--out", "net.tflite")
    wrong = run("run", "text.py:make_net", "--input", "1x7:int64", *data, "--out", "other")
    assert wrong.exit_code == 1 and not (tmp_path / "other").exists()
    assert "choose the same with --input 1x6:int64" in wrong.stderr
