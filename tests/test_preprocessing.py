"""What is told beside an exported file: how its inputs are normalised, so that others can feed it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from test_netadapt_cli import NETWORK, QUICK, run, succeed
from test_own_data import write
from torch import Tensor, nn

from device_agents.support.errors import ToolError
from netadapt.export.files import export_onnx, export_tflite, file_scores
from netadapt.export.folding import Normalising, folded
from netadapt.export.preprocessing import KEY, Preprocessing, tell, told
from netadapt.runs.run_folder import RunFolder
from netadapt.settings import DataSettings, value_text
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.tasks import open_task
from netadapt.training.types import ImagesInMemory

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def part() -> ImagesInMemory:
    images = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    return ImagesInMemory(images, torch.zeros(4, dtype=torch.int64), MEAN, STD, True, open_task("classification"))


def written(folder: Path) -> tuple[Path, nn.Module]:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    path = folder / "net.onnx"
    export_onnx(model, ((1, 3, 8, 8),), path)
    tell(Preprocessing.of(part(), ((1, 3, 8, 8),), "onnx"), path)
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
    found = Preprocessing.of(part(), ((1, 3, 8, 16),), "tflite")
    assert (found.layout, found.shapes) == ("nhwc", ((1, 8, 16, 3),))


def test_inputs_of_the_users_own_data_are_fed_as_they_are() -> None:
    found = Preprocessing("nchw", (1, 5, 8, 8), None, (), ())
    assert found.text == "inputs are fed as the data gives them"


def test_a_tflite_file_says_the_same_in_its_metadata_and_still_runs(tmp_path: Path) -> None:
    model, path = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval(), tmp_path / "net.tflite"
    export_tflite(model, ((1, 3, 8, 8),), path)
    before = file_scores(path, part())
    tell(Preprocessing.of(part(), ((1, 3, 8, 8),), "tflite"), path)
    found = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (stored,) = [found.buffers[item.buffer].data for item in found.metadata if item.name.decode() == KEY]
    assert json.loads(bytes(stored)) == json.loads(told(path).read_text())
    assert file_scores(path, part()) == before


class Twice(nn.Module):
    """It reads its input by a convolution and by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        means: Tensor = self.conv(images).mean((2, 3))
        return means + images.amax((1, 2, 3)).unsqueeze(1)


IN_WEIGHTS = "by the weights of 0"


@pytest.mark.parametrize(
    ("first", "mean", "told"),
    [
        (nn.Conv2d(3, 4, 3, stride=2), MEAN, IN_WEIGHTS),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False), MEAN, IN_WEIGHTS),
        (nn.Conv2d(3, 4, 3, padding=1), (0.0, 0.0, 0.0), IN_WEIGHTS),
        (nn.Conv2d(3, 4, 3, padding=1), MEAN, "by a layer of its own before 0, which pads with zeros"),
        (nn.Conv2d(3, 6, 3, groups=3), MEAN, "by a layer of its own before the first"),
        (nn.AvgPool2d(2), MEAN, "by a layer of its own before the first"),
        (Twice(), MEAN, "by a layer of its own before the first"),
    ],
    ids=["no padding", "reflected padding", "no mean", "padding with zeros", "depthwise", "no convolution", "read twice"],
)
def test_normalisation_is_folded_into_weights_only_where_that_is_exact(
    first: nn.Module, mean: tuple[float, ...], told: str
) -> None:
    model = nn.Sequential(first, nn.ReLU()).eval()
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    found, where = folded(model, mean, STD, ((1, 3, 8, 8),))
    per_channel = [torch.tensor(values).view(1, -1, 1, 1) for values in (mean, STD)]
    with torch.inference_mode():
        torch.testing.assert_close(found(images), model((images / 255 - per_channel[0]) / per_channel[1]), rtol=1e-4, atol=1e-4)
    assert isinstance(found, Normalising) == (told != IN_WEIGHTS)
    assert where.startswith(told)


def test_images_are_normalised_as_asked_for_and_not_by_their_own_mean() -> None:
    found = open_dataset("digits", resolution=8, seed=1, mean=(0.5,), std=(0.25, 0.25, 0.25)[:1])
    assert found.train.mean == (0.5, 0.5, 0.5) and found.test.std == (0.25, 0.25, 0.25)
    images, _ = found.train.batch(torch.arange(8))
    torch.testing.assert_close(images, (found.train.in_raw_values().batch(torch.arange(8))[0] / 255 - 0.5) / 0.25)


def test_images_of_the_users_own_data_too_if_they_are_bytes(tmp_path: Path) -> None:
    text = "import torch\nfrom torch.utils.data import TensorDataset\n\ndef make():\n"
    text += (
        "    data = TensorDataset(torch.full((12, 2, 6, 5), 255, dtype=torch.uint8), torch.arange(12) % 3)\n    return data, data\n"
    )
    (tmp_path / "mydata.py").write_text(text)
    found = open_dataset(f"{tmp_path / 'mydata.py'}:make", resolution=8, seed=1, mean=(0.5, 0.0), std=(0.25, 0.5))
    images = found.train.batch(torch.arange(1))[0]
    assert isinstance(images, Tensor) and images[0, :, 0, 0].tolist() == [2.0, 2.0]
    with pytest.raises(ToolError, match="no images in bytes"):
        open_dataset(write(tmp_path, name="floats.py"), resolution=8, seed=1, mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ("0.5", None, "give both --mean and --std"),
        ("123.7", "58.4", "divide that of bytes by 255"),
        ("0.5", "0", "divide that of bytes by 255"),
        ("0.5,0.5", "0.2", "2 numbers and --std 1"),
        ("half", "0.2", "a number or several"),
        ("", "", "give one for each channel"),
    ],
)
def test_a_normalisation_that_makes_no_sense_is_told(mean: str | None, std: str | None, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        DataSettings.chosen("digits", 0.15, None, mean, std)


def test_another_number_of_channels_is_told() -> None:
    with pytest.raises(ToolError, match="3 channels; give 3 or 1"):
        open_dataset("digits", resolution=8, seed=1, mean=(0.5, 0.5), std=(0.5, 0.5))


def test_a_mean_is_written_as_it_is_typed() -> None:
    assert value_text(DataSettings.chosen("digits", 0.15, None, "0.485 0.456,0.406", "0.5,0.5,0.5").mean) == "0.485,0.456,0.406"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    succeed("run", *NETWORK, *QUICK, "--mean", "0.5", "--std", "0.25", "--budget", "macs=95%", "--out", path)
    return path


@pytest.mark.slow
def test_a_run_keeps_its_normalisation_and_goes_on_with_no_other(adapted: Path) -> None:
    with RunFolder.open(adapted) as folder:
        known = folder.info.settings.data.known
    assert known is not None and known.mean == (0.5,) * 3 and known.std == (0.25,) * 3
    told = run("run", *NETWORK, *QUICK, "--budget", "macs=95%", "--out", adapted, "--resume")
    assert told.exit_code == 1 and "was begun with --mean 0.5, not none" in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("form", "precision"), [("onnx", "float32"), ("tflite", "float32"), ("tflite", "int8")])
def test_a_file_that_normalises_its_inputs_itself_is_as_accurate(adapted: Path, form: str, precision: str) -> None:
    options = ["--format", form, "--precision", precision, "--calibration", 64]
    plain = json.loads(succeed("export", adapted, *options, "--json"))
    done = json.loads(succeed("export", adapted, *options, "--fold-normalisation", "--json"))
    assert done["torch_accuracy"] == plain["torch_accuracy"]
    assert done["accuracy"] == pytest.approx(plain["accuracy"], abs=0.0 if precision == "float32" else 0.05)
    assert json.loads(told(Path(done["path"])).read_text())["in_file"] is True
    assert "values from 0 to 255 as they are" in succeed("export", adapted, *options, "--fold-normalisation")
