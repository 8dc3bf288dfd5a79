"""What is told beside an exported file: how its inputs are normalised, so that others can feed it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from netadapt.export.files import export_onnx
from netadapt.export.preprocessing import KEY, Preprocessing, tell, told
from netadapt.training.tasks import open_task
from netadapt.training.types import ImagesInMemory

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def part() -> ImagesInMemory:
    images = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    return ImagesInMemory(images, torch.zeros(4, dtype=torch.int64), MEAN, STD, True, open_task("classification"))


def written(folder: Path) -> tuple[Path, nn.Module]:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    path = folder / "net.onnx"
    export_onnx(model, (1, 3, 8, 8), path)
    tell(Preprocessing.of(part(), (1, 3, 8, 8), "onnx"), path)
    return path, model


def test_bytes_that_are_normalised_as_the_file_says_give_what_pytorch_computed(tmp_path: Path) -> None:
    path, model = written(tmp_path)
    plain = json.loads(told(path).read_text())
    raw = part().images[:1].numpy().astype(np.float32)
    per_channel = [np.array(plain[name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std")]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: (raw / plain["white"] - per_channel[0]) / per_channel[1]})[0]
    with torch.inference_mode():
        expected = model(part().batch(torch.tensor([0]))[0])
    np.testing.assert_allclose(outputs, expected.numpy(), atol=1e-5)


def test_an_onnx_file_says_the_same_in_its_metadata(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    stored = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert json.loads(stored[KEY]) == json.loads(told(path).read_text())


def test_channels_are_last_in_a_tflite_file() -> None:
    found = Preprocessing.of(part(), (1, 3, 8, 16), "tflite")
    assert (found.layout, found.shape) == ("nhwc", (1, 8, 16, 3))


def test_inputs_of_the_users_own_data_are_fed_as_they_are() -> None:
    found = Preprocessing("nchw", (1, 5, 8, 8), None, (), ())
    assert found.text == "inputs are fed as the data gives them"
