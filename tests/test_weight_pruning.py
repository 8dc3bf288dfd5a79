"""Single weights that become zero: which go, how the others are fitted, and whole prunings by the command."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper
from test_batch_norm import part
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from netadapt.cli.app import app
from netadapt.export.files import export_tflite
from netadapt.training.recipe import TrainSettings
from netadapt.weight_pruning import elimination
from netadapt.weight_pruning.elimination import eliminate, observed
from netadapt.weight_pruning.magnitude import prune_by_magnitude
from netadapt.weight_pruning.rounds import fine_tune
from profiler.modelled.densities import read_densities
from profiler.progress import Silent

pytestmark = pytest.mark.usefixtures("traced_once")
TESTS = Path(__file__).parent
TOY = f"{TESTS}/toys/network.py:toy"
LAYERS = {
    "linear": lambda: nn.Linear(12, 6),
    "convolution": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "without bias": lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, stride=2),
}


def images(name: str, count: int = 200) -> Tensor:
    """Inputs with features that depend on each other, so that one can make up for another."""
    draws = torch.Generator().manual_seed(0)
    if name == "linear":
        return torch.randn(count, 5, generator=draws) @ torch.randn(5, 12, generator=draws)
    few = torch.randn(count, 2, 6, 6, generator=draws)
    return torch.cat([few, few.roll(1, 2) + 0.1 * torch.randn(count, 2, 6, 6, generator=draws)], dim=1)


def model_of(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(LAYERS[name]())


def pruned(name: str, most_error: float) -> tuple[nn.Sequential, nn.Sequential, float]:
    """The reference, the pruned model, and by how much the error has risen."""
    reference = model_of(name)
    model = deepcopy(reference)
    moments = observed(reference, model, "0", images(name))
    assert moments is not None
    return reference, model, eliminate(model[0], reference[0], moments, most_error)


def error(reference: nn.Module, model: nn.Module, given: Tensor) -> float:
    """Of the outputs, as a share of their variance."""
    with torch.no_grad():
        wanted, found = reference(given), model(given)
    axes = (0, 2, 3) if wanted.ndim == 4 else (0,)
    return float((wanted - found).square().sum() / (wanted - wanted.mean(dim=axes, keepdim=True)).square().sum())


@pytest.mark.parametrize("name", LAYERS)
def test_weights_go_and_outputs_change_by_no_more_than_allowed(name: str) -> None:
    reference, model, risen = pruned(name, 0.05)
    weight = model[0].get_parameter("weight")
    assert 0 < int((weight == 0).sum()) < weight.numel()
    assert risen <= 0.05
    if name != "transposed":  # whose outputs overlap
        assert error(reference, model, images(name)) == pytest.approx(risen, abs=0.01)


@pytest.mark.parametrize("name", LAYERS)
def test_a_larger_error_leaves_fewer_weights(name: str) -> None:
    left = [int((pruned(name, most)[1][0].get_parameter("weight") != 0).sum()) for most in (0.001, 0.05, 0.4)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0]


@pytest.mark.parametrize(("name", "most"), [("linear", 0.7), ("convolution", 0.8), ("without bias", 0.8), ("grouped", 1.0)])
def test_the_fit_errs_less_than_leaving_the_other_weights_alone(name: str, most: float) -> None:
    reference, model, _ = pruned(name, 0.2)
    plain = deepcopy(reference)
    with torch.no_grad():
        plain[0].get_parameter("weight").mul_((model[0].get_parameter("weight") != 0).float())
    assert error(reference, model, images(name)) < most * error(reference, plain, images(name))


@pytest.mark.parametrize("name", ["linear", "convolution"])
def test_the_outputs_err_less_than_with_as_many_weights_by_magnitude(name: str) -> None:
    reference, model, _ = pruned(name, 0.2)
    smallest = deepcopy(reference)
    prune_by_magnitude([smallest[0]], int((model[0].get_parameter("weight") != 0).sum()))
    assert error(reference, model, images(name)) < 0.7 * error(reference, smallest, images(name))


def test_weights_that_are_zero_stay_so() -> None:
    reference = model_of("convolution")
    with torch.no_grad():
        reference[0].get_parameter("weight")[0, :, 0] = 0
    model = deepcopy(reference)
    moments = observed(reference, model, "0", images("convolution"))
    assert moments is not None
    eliminate(model[0], reference[0], moments, 0.01)
    assert not model[0].get_parameter("weight")[0, :, 0].any()


def test_a_layer_without_a_weight_that_is_not_zero_stays_as_it_is() -> None:
    reference = model_of("linear")
    with torch.no_grad():
        reference[0].get_parameter("weight").zero_()
    model = deepcopy(reference)
    moments = observed(reference, model, "0", images("linear"))
    assert moments is not None
    assert eliminate(model[0], reference[0], moments, 0.01) == 0
    assert torch.equal(model[0].get_parameter("bias"), reference[0].get_parameter("bias"))


def test_a_layer_makes_up_for_what_the_layers_before_it_lost() -> None:
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 6)).double()
    model, given = deepcopy(reference), images("linear").double()
    with torch.no_grad():
        model[0].weight *= 0.5
        assert model[0].bias is not None
        model[0].bias *= 0.5
    moments = observed(reference, model, "1", given)
    assert moments is not None
    eliminate(model[1], reference[1], moments, 1e-9)
    assert error(reference, model, given) < 1e-3


def test_a_fit_to_few_images_holds_for_others_too() -> None:
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 8))
    model = deepcopy(reference)
    with torch.no_grad():
        model[0].weight.add_(0.05 * torch.randn(60, 40))
    moments = observed(reference, model, "2", torch.randn(64, 40))
    assert moments is not None
    unfitted, others = deepcopy(model), torch.randn(500, 40)
    eliminate(model[2], reference[2], moments, 1e-9)
    assert error(reference, model, others) < error(reference, unfitted, others)


def test_a_layer_in_parts_is_pruned_within_the_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "MOST_FEATURES", 10)
    reference, model, risen = pruned("convolution", 0.05)
    assert (model[0].get_parameter("weight") == 0).any()
    assert risen <= 0.05
    assert error(reference, model, images("convolution")) < 0.3  # parts do not make up for each other


def test_a_layer_that_is_never_called_has_no_moments() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(12, 2), nn.Linear(12, 2)

        def forward(self, given: Tensor) -> Tensor:
            outputs: Tensor = self.used(given)
            return outputs

    assert observed(Lazy(), Lazy(), "spare", images("linear")) is None


@pytest.mark.parametrize("count", [0, 1, 37, 500, 10_000])
def test_as_many_weights_stay_by_magnitude_as_wanted(count: int) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(30, 20), nn.Conv2d(4, 8, 3)]
    total = sum(layer.weight.numel() for layer in layers)
    before = [layer.weight.clone() for layer in layers]
    prune_by_magnitude(layers, count)
    assert sum(int((layer.weight != 0).sum()) for layer in layers) == pytest.approx(min(count, total), abs=1)
    for layer, weight in zip(layers, before, strict=True):
        stays = layer.weight != 0
        assert torch.equal(layer.weight[stays], weight[stays])
        if stays.any() and not stays.all():
            assert weight[stays].abs().min() >= weight[~stays].abs().max()


# whole prunings

QUICK = (
    TOY, "--data", "digits", "--resolution", 16, "--training-epochs", 1, "--epochs", 0.1, "--images", 64, "--first-error", "3%",
    "--growth", 2, "--accuracy-loss", "100%",
)  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pruned") / "out"
    result = run("prune-weights", *QUICK, "--rounds", 2, "--export", "onnx", "--out", path)
    assert result.exit_code == 0, result.output
    assert "by magnitude, as many weights" in result.stdout
    assert "modelled, not measured" in result.stdout
    return path


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def weights_of(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)
    return {name: value for name, value in state.items() if value.ndim > 1}


def test_rounds_leave_fewer_weights_and_cost_less_energy(result: dict[str, Any]) -> None:
    rounds = [each for each in result["rounds"] if each["method"] == "energy-aware"]
    assert [each["number"] for each in rounds] == [0, 1, 2]
    for figure in ("nonzero", "energy_mj"):
        values = [each[figure] for each in rounds]
        assert values == sorted(values, reverse=True)
        assert values[-1] < values[0]


def test_both_methods_leave_as_many_weights_in_each_round(result: dict[str, Any]) -> None:
    counts: dict[str, list[int]] = {}
    for each in result["rounds"]:
        counts.setdefault(each["method"], []).append(each["nonzero"])
    assert counts["magnitude"] == pytest.approx(counts["energy-aware"][1:], abs=2)


def test_a_fine_tune_keeps_the_zeros_of_the_round_before(folder: Path) -> None:
    for method in ("energy-aware", "magnitude"):
        before, after = (weights_of(folder / f"{method}-0{number}.pt") for number in (1, 2))
        assert all(not after[name][before[name] == 0].any() for name in before)
        assert any((after[name] != before[name]).any() for name in before)


def test_zeros_take_no_part_in_any_step_of_a_fine_tune() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    weight = model[0].get_parameter("weight")
    weight.data[:2] = 0
    left: list[int] = []

    class Looking(Silent):
        def advance(self, note: str = "") -> None:
            left.append(int(torch.count_nonzero(weight[:2])))

    settings = TrainSettings(learning_rate=0.1, steps=3, batch_size=8, augment=False)
    fine_tune(model, [model[0]], part(), settings, 1, "a toy", Looking())
    assert left == [0, 0, 0]


def test_what_is_reported_is_what_is_in_the_weights(folder: Path, result: dict[str, Any]) -> None:
    for network in result["networks"]:
        assert (
            sum(int((value != 0).sum()) for value in weights_of(folder / network["weights"]).values())
            == network["round"]["nonzero"]
        )
        assert network["size_bytes"] < result["original_bytes"]
        assert 0 <= network["shared_accuracy"] <= 1
    assert [network["name"] for network in result["networks"]] == ["original", "by energy", "by magnitude, as many weights"]


def test_the_exported_file_carries_the_zeros(folder: Path) -> None:
    model = onnx.load(folder / "pruned.onnx")
    stored = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    in_file = {(array.size, int((array == 0).sum())) for array in stored}
    wanted = {(value.numel(), int((value == 0).sum())) for value in weights_of(folder / "energy-aware-02.pt").values()}
    assert wanted <= in_file
    assert all(zeros for _, zeros in wanted)


def test_the_densities_are_those_of_the_pruned_network(folder: Path) -> None:
    found = read_densities(folder / "densities.json")
    weights = weights_of(folder / "energy-aware-02.pt")
    for name, value in weights.items():
        assert found.layers[name.removesuffix(".weight")].weight == pytest.approx(float((value != 0).float().mean()))


@pytest.mark.slow
def test_an_interrupted_pruning_goes_on_behind_its_last_round_to_the_same_result(
    folder: Path, result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netadapt.weight_pruning import rounds

    done = rounds._record

    def interrupted(out: Path, item: rounds.Round) -> None:
        done(out, item)
        if item.number == 1:
            raise KeyboardInterrupt

    command = ("prune-weights", *QUICK, "--rounds", 2, "--export", "onnx", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(rounds, "_record", interrupted)
        first = run(*command)
    assert first.exit_code == 130
    assert "continue with --resume" in first.stderr
    refused = run(*command)
    assert refused.exit_code == 1
    assert "begun already" in refused.stderr
    other = run(*command, "--resume", "--seed", 2)
    assert "another seed" in other.stderr or "another weights" in other.stderr
    assert run(*command, "--resume").exit_code == 0
    again = json.loads((tmp_path / "out" / "result.json").read_text())
    assert again["rounds"] == result["rounds"]
    assert again["networks"] == result["networks"]


@pytest.mark.slow
def test_rounds_end_when_the_energy_is_low_enough(tmp_path: Path) -> None:
    printed = run("prune-weights", *QUICK, "--rounds", 5, "--energy", "99%", "--out", tmp_path / "out", "--json")
    assert printed.exit_code == 0, printed.output
    rounds = [each for each in json.loads(printed.stdout)["rounds"] if each["method"] == "energy-aware"]
    assert len(rounds) == 2
    assert rounds[1]["energy_mj"] <= 0.99 * rounds[0]["energy_mj"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = run("prune-weights", *QUICK, "--out", tmp_path)
    assert result.exit_code == 1
    assert "holds something else" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_accelerator_that_saves_nothing_for_zeros_of_weights_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")  # so that it ends before training
    assert "saves no multiplication" in run("prune-weights", *QUICK, "--device", "model:eyeriss", "--out", tmp_path).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "local"), "no accelerator that is modelled"),
        (("--export", "coreml"), "exported to onnx or tflite"),
        (("--first-error", "100%"), "a share below 1"),
        (("--accuracy-loss", "much"), "--accuracy-loss takes a percentage"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_written(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run("prune-weights", *QUICK, *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_tflite_file_carries_the_zeros(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    layers = [model[0], model[4]]
    prune_by_magnitude(layers, 500)
    export_tflite(model, ((1, 3, 8, 8),), tmp_path / "net.tflite")
    interpreter = Interpreter(str(tmp_path / "net.tflite"), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    stored = [interpreter.get_tensor(each["index"]) for each in interpreter.get_tensor_details() if each["dtype"] is np.float32]
    in_file = {(array.size, int((array == 0).sum())) for array in stored}
    assert {(layer.weight.numel(), int((layer.weight == 0).sum())) for layer in layers} <= in_file
