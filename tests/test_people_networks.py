"""Networks as people write them: each works the whole way, or is refused in one sentence before a run's folder is made."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import people_networks as people
import pytest
import torch
from torch import nn
from torch.nn import functional

from device_agents.support.errors import ToolError
from netadapt.adaptation import RunRequest, run
from netadapt.errors import NetworkError
from netadapt.export.files import export_onnx, reference
from netadapt.networks.dry_run import train_once
from netadapt.networks.options import NetworkOptions
from netadapt.networks.plain import Plain, plain_network
from netadapt.networks.scored import Outputs, outputs_of
from netadapt.outputs import named_outputs
from netadapt.pruning.couplings import Couplings
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import AdaptSettings
from netadapt.settings import DataSettings
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.recipe import RecipeOverrides, TrainSettings
from netadapt.training.tasks.one_output import of_one_output
from netadapt.training.trainer import score, train
from profiler.progress import Silent

SHAPE = (1, 3, 32, 32)
STEP = TrainSettings(learning_rate=0.01, steps=1, batch_size=4, augment=False)


def plain(make: Callable[[], nn.Module]) -> Plain:
    return plain_network(make(), (SHAPE,), "net")


def outputs(make: Callable[[], nn.Module], asked: str | None = None) -> Outputs:
    return outputs_of(plain(make).model, (SHAPE,), "net", asked, lambda shape: shape == (1, 10))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (people.dict_two, ["aux", "logits"]),
        (people.tuple_two, ["0", "1"]),
        (people.list_two, ["0", "1"]),
        (people.named_two, ["logits", "aux"]),
        (people.data_two, ["logits", "aux"]),
        (people.nested, ["feats.0", "out.cls"]),
        (people.with_none, ["0"]),
        (people.twice, ["out"]),
        (people.Base, [""]),
    ],
)
def test_every_tensor_that_is_returned_has_a_name(make: Callable[[], nn.Module], names: list[str]) -> None:
    assert list(named_outputs(make()(torch.zeros(SHAPE)))) == names


@pytest.mark.parametrize(
    ("make", "scored", "trained"),
    [
        (people.dict_two, "logits", "logits"),
        (people.nested, "out.cls", "out.cls"),
        (people.train_first, "", "0"),
        (people.train_last, "", "1"),
        (people.train_dict, "", "out"),
        (people.Base, "", ""),
    ],
)
def test_the_output_that_fits_is_scored_and_the_same_is_trained(make: Callable[[], nn.Module], scored: str, trained: str) -> None:
    found = outputs(make)
    assert (found.scored, found.trained) == (scored, trained)


def test_the_output_that_is_asked_for_is_scored() -> None:
    assert outputs(people.dict_two, "aux").scored == "aux"


def test_an_output_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(NetworkError, match="has no output 'foo'; known are aux, logits"):
        outputs(people.dict_two, "foo")


def test_a_network_that_returns_no_tensor_is_refused() -> None:
    with pytest.raises(NetworkError, match="returns no tensor"):
        outputs(people.no_tensor)


def test_the_output_of_training_is_told() -> None:
    assert list(outputs(people.train_last).lines()) == ["in training it returns 0 and 1, of which 1 is trained"]


def test_outputs_that_have_no_loss_are_told() -> None:
    (line,) = outputs(people.dict_two).lines()
    assert line == "its output logits (1x10) is scored; aux (1x10) is exported beside it, without a loss"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (people.compiled, "taken out of torch.compile"),
        (people.compiled_in_place, "taken out of torch.compile"),
        (people.compiled_part, "taken out of torch.compile"),
        (people.parallel, "taken out of DataParallel"),
        (people.swa, "taken out of AveragedModel"),
        (people.half, "in float16 are converted to float32"),
        (people.bf16, "in bfloat16 are converted to float32"),
        (people.double, "in float64 are converted to float32"),
        (people.wn_new, "weight_norm of 3 tensors in net is folded"),
        (people.wn_old, "weight_norm of 3 tensors in net is folded"),
        (people.sn_new, "spectral_norm of 3 tensors in net is folded"),
        (people.sn_old, "spectral_norm of 3 tensors in net is folded"),
        (people.own_param, "Sym of 1 tensor in net is folded"),
        (people.masked, "the mask of 1 tensor in net is folded"),
        (people.lazy, "the lazy layers of net have the shapes that an input of 1x3x32x32 gives them"),
    ],
)
def test_what_is_done_to_a_network_is_told_and_leaves_trainable_weights(make: Callable[[], nn.Module], said: str) -> None:
    found = plain(make)
    assert len(found.remarks) == 1 and said in found.remarks[0]
    assert all(weight.requires_grad and weight.dtype is torch.float32 for weight in found.model.parameters())


@pytest.mark.parametrize("make", [people.wn_new, people.wn_old, people.sn_new, people.sn_old, people.own_param, people.masked])
def test_folded_weights_compute_what_the_network_did(make: Callable[[], nn.Module]) -> None:
    model, images = make().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        after = plain_network(model, (SHAPE,), "net").model(images)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (people.scripted, "net is a TorchScript program"),
        (people.jit_traced, "net is a TorchScript program"),
        (people.script_part, "two of net is a TorchScript program"),
        (people.meta, "on the device meta"),
        (people.two_inputs, "net takes 2 inputs, x and y"),
        (people.no_grad, "net computes its outputs without gradients"),
        (people.tokens, "net looks rows up by whole numbers, such as token ids"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_a_sentence(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        plain(make)


@pytest.mark.parametrize("make", [people.grid_buffer, people.grid_batch])
def test_a_buffer_made_from_the_size_of_the_input_is_not_stored_with_the_weights(make: Callable[[], nn.Module]) -> None:
    assert "grid" not in plain(make).model.state_dict()


@pytest.mark.parametrize(
    "make", [people.aux_conv, people.branch_only_in_training, people.with_none, people.train_first, people.both_only]
)
def test_layers_that_only_training_runs_or_whose_results_are_unused_are_cut_along(make: Callable[[], nn.Module]) -> None:
    model = plain(make).model
    Couplings(model, (SHAPE,)).remove("one", [0, 3, 5])
    train_once((SHAPE,))(model)
    assert model.get_submodule("one").get_parameter("weight").shape[0] == 13


def test_a_network_that_keeps_its_features_can_be_copied_after_a_training_step() -> None:
    model = plain(people.keeps).model
    train_once((SHAPE,))(model)
    Couplings(model, (SHAPE,))
    assert torch.isfinite(reference(deepcopy(model), [torch.zeros(SHAPE)])[0]).all()


@pytest.mark.parametrize("make", [people.viewed, people.dict_two, people.data_two, people.train_last, people.grid_batch])
def test_networks_are_trained_and_scored_by_one_of_their_outputs(make: Callable[[], nn.Module]) -> None:
    data = open_dataset("digits", resolution=32, channels=3, seed=1, holdout_fraction=0.15)
    data = of_one_output(data, *outputs(make).names)
    model, few = plain(make).model, data.train.subset(torch.arange(8))
    train(model, few, STEP, seed=1)
    assert 0 <= score(model, few).accuracy <= 1


def test_a_network_without_trainable_weights_is_told() -> None:
    with pytest.raises(NetworkError, match="nothing can be trained"):
        train_once((SHAPE,))(plain(people.frozen).model)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize(("before", "after"), [(60, 64), (58, 64), (10, 23), (23, 10)])
def test_nearest_interpolation_by_a_broken_factor_is_exported_as_pytorch_computes_it(
    mode: str, before: int, after: int, tmp_path: Path
) -> None:
    class Resize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return functional.interpolate(self.layer(images), size=(after, after), mode=mode)

    done = export_onnx(Resize(), ((1, 3, before, before),), tmp_path / "resize.onnx")
    assert done.max_abs_difference < 1e-5


def test_several_outputs_are_exported_in_their_order(tmp_path: Path) -> None:
    assert export_onnx(plain(people.nested).model, (SHAPE,), tmp_path / "net.onnx").max_abs_difference < 1e-4


WORKS = [
    "dict_two", "tuple_two", "list_two", "named_two", "data_two", "nested", "with_none", "twice", "argmax", "train_first",
    "train_last", "train_dict", "aux_conv", "branch_only_in_training", "eval_only", "both_only", "viewed", "grid_always",
    "grid_once", "grid_shape", "grid_buffer", "grid_batch", "keeps", "wn_new", "wn_old", "sn_new", "sn_old", "own_param",
    "masked", "lazy", "compiled", "compiled_in_place", "compiled_part", "parallel", "swa", "half", "bf16", "double",
    "two_default", "counter", "script_fn", "checkpointed", "drop_path", "gray@1x1x32x32", "divisor",
    "depth_opaque", "depth_softplus", "depth_dict", "depth_exact", "near60@1x3x64x64", "near58@1x3x64x64", "bil58@1x3x64x64",
    "fx", "bicubic60@1x3x64x64",
]  # fmt: skip
REFUSED = [
    "no_tensor", "other_shape", "scripted", "jit_traced", "script_part", "half_inside", "meta", "two_inputs", "needs_targets",
    "frozen", "no_grad", "raises", "batch_one", "autocast", "nan", "five@1x5x32x32", "gray@1x1x24x40",
    "with_map",  # which calls its layers twice
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WORKS, *REFUSED])
def test_a_network_is_adapted_or_refused_in_one_sentence_before_its_folder_is_made(name: str, tmp_path: Path) -> None:
    function, _, shape = name.partition("@")
    data = "scenes:24" if function.startswith(("depth", "near", "bil", "bicubic")) else "digits"
    network = NetworkOptions.chosen(f"{people.__file__}:{function}", 1.0, 224, False, shape or "1x3x32x32")
    request = RunRequest(
        network, DataSettings(data), ["macs=90%"], tmp_path / "run", search=AdaptSettings(step=0.2),
        original=RecipeOverrides(epochs=0.1, batch_size=8), short_term=RecipeOverrides(steps=1, batch_size=8), dry_run=True,
    )  # fmt: skip
    try:
        steps = run(request, resume=False, progress=Silent(), on_step=lambda _step, _info: None).steps
    except ToolError as exc:
        assert "\n" not in str(exc) and not (tmp_path / "run").exists()
        assert name in REFUSED, str(exc)
    else:
        assert len(steps) > 1 and name in WORKS
        assert RunFolder.open(tmp_path / "run").info.settings.network == replace(network, **_found(tmp_path))


def _found(folder: Path) -> dict[str, object]:
    stored = RunFolder.open(folder / "run").info.settings.network
    return {"classes": stored.classes, "output": stored.output, "training_output": stored.training_output}
