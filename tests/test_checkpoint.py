"""Weights of the original network, in the forms in which training scripts and other programs leave them."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from netadapt.errors import RunError
from netadapt.training.checkpoint import load_weights, save_weights

State = dict[str, Tensor]


def network(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
    )


class Wrapped(nn.Module):
    """A network that holds all its parts in one submodule."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.net = network(classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)  # type: ignore[no-any-return]


@pytest.fixture
def state() -> State:
    torch.manual_seed(3)
    return {name: value + 1 if value.is_floating_point() else value for name, value in network().state_dict().items()}


def prefixed(start: str, state: State) -> State:
    return {start + name: value for name, value in state.items()}


def loaded(path: Path, model: nn.Module | None = None, *, headless: bool = True) -> tuple[State, tuple[str, ...], str]:
    """The weights of the network after the file was loaded, the names that stayed random, and all that was said."""
    into = model or network()
    found = load_weights(into, path, headless=headless)
    return into.state_dict(), found.random, "; ".join(found.remarks)


def same(one: State, other: State, *, within: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name].to(one[name].dtype), atol=within) for name in one
    )


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 1, "state_dict": state},
    "model_state_dict": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}},
    },
    "model and its average": lambda state: {"model": state, "model_ema": {name: value * 0 for name, value in state.items()}},
    "average alone": lambda state: {"epoch": 3, "state_dict_ema": state},
    "average by swa_utils": lambda state: {"n_averaged": torch.tensor(7)} | prefixed("module.", state),
    "any other wrapper": lambda state: {"weights": {"net": state}},
    "module": lambda state: prefixed("module.", state),
    "orig_mod": lambda state: prefixed("_orig_mod.", state),
    "both of them": lambda state: {"state_dict": prefixed("module._orig_mod.", state)},
    "compiled inside": lambda state: {name.replace(".", "._orig_mod.", 1): value for name, value in state.items()},
    "lightning": lambda state: {"state_dict": prefixed("model.", state) | {"criterion.weight": torch.ones(10)}},
    "student": lambda state: {"model": prefixed("student.backbone.", state)},
    "thop": lambda state: state | {"total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
    "without counters of batches": lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    "options of the script": lambda state: {"args": Namespace(lr=0.1), "model": state},
    "double": lambda state: {name: value.double() for name, value in state.items()},
    "arrays of NumPy": lambda state: {name: value.numpy() for name, value in state.items()},
    "scores of NumPy": lambda state: {"state_dict": state, "best": np.float64(0.9), "epoch": np.int64(3), "curve": np.zeros(3)},
    "paths and defaults": lambda state: {"net": state, "from": Path("/data"), "losses": defaultdict(list)},
    "a pair": lambda state: (state, 7),
    "sparse": lambda state: {name: value.to_sparse() for name, value in state.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_what_training_scripts_leave(form: str, state: State, tmp_path: Path) -> None:
    torch.save(FORMS[form](state), tmp_path / "w.pt")
    found, random, _ = loaded(tmp_path / "w.pt")
    assert same(found, state) and not random


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_the_networks_precision(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    torch.save({name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}, tmp_path / "w.pt")
    found, _, _ = loaded(tmp_path / "w.pt")
    assert found["0.weight"].dtype == torch.float32
    assert same(found, state, within=0.02)


def test_safetensors_are_read(state: State, tmp_path: Path) -> None:
    save_file(prefixed("model.", state), tmp_path / "w.safetensors")
    assert same(loaded(tmp_path / "w.safetensors")[0], state)


def test_a_file_is_what_it_holds_and_not_what_it_is_called(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.bin")
    torch.save(state, tmp_path / "b.safetensors")
    assert same(loaded(tmp_path / "a.bin")[0], state) and same(loaded(tmp_path / "b.safetensors")[0], state)


def in_two_files(state: State, folder: Path) -> Path:
    files = {name: f"model-{1 + place % 2:05}-of-00002.safetensors" for place, name in enumerate(state)}
    for file in set(files.values()):
        save_file({name: value for name, value in state.items() if files[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def test_weights_in_several_files_are_read_by_their_index(state: State, tmp_path: Path) -> None:
    assert same(loaded(in_two_files(state, tmp_path))[0], state)


def test_one_of_several_files_names_their_index(state: State, tmp_path: Path) -> None:
    index = in_two_files(state, tmp_path)
    with pytest.raises(RunError, match=f"give {index}, as they are in several files"):
        loaded(tmp_path / "model-00002-of-00002.safetensors")


def test_a_file_that_the_index_names_and_that_is_missing_is_named(state: State, tmp_path: Path) -> None:
    index = in_two_files(state, tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(RunError, match=r"no weights at .*model-00002-of-00002\.safetensors"):
        loaded(index)


def test_a_folder_names_the_file_to_give(state: State, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    save_file(state, tmp_path / "hub" / "model.safetensors")
    with pytest.raises(RunError, match=r"hub is a folder; give the file .*model\.safetensors"):
        loaded(tmp_path / "hub")


def test_a_folder_of_distributed_weights_names_the_command_that_makes_one_file(tmp_path: Path) -> None:
    (tmp_path / ".metadata").touch()
    with pytest.raises(RunError, match="format_utils dcp_to_torch"):
        loaded(tmp_path)


def test_weights_that_are_not_finite_are_told(state: State, tmp_path: Path) -> None:
    torch.save(state | {"0.weight": state["0.weight"] * float("nan")}, tmp_path / "w.pt")
    assert "1 of its weights, such as 0.weight, have values that are not finite" in loaded(tmp_path / "w.pt")[2]


@pytest.mark.parametrize(
    ("names", "undo"),
    [
        (("weight_orig", "weight_mask"), "prune.remove"), (("weight_g", "weight_v"), "remove_weight_norm"),
        (("parametrizations.weight.original0", "parametrizations.weight.original1"), "remove_parametrizations"),
    ],
)  # fmt: skip
def test_a_weight_that_is_kept_in_several_tensors_names_what_takes_that_back(
    names: tuple[str, ...], undo: str, state: State, tmp_path: Path
) -> None:
    torch.save(state | {f"0.{name}": state["0.weight"] for name in names}, tmp_path / "w.pt")
    with pytest.raises(RunError, match=f"{undo}.* before its state_dict is saved"):
        loaded(tmp_path / "w.pt")


HOLDS_NONE: dict[str, tuple[Callable[[State], Any], str]] = {
    "whole numbers": (lambda state: {name: (10 * value).to(torch.int8) for name, value in state.items()}, r"type torch\.int8"),
    "no names": (lambda state: list(state.values()), "its tensors have no names"),
    "an optimiser": (lambda _: {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}, "state of an optimiser alone"),
}


@pytest.mark.parametrize("form", HOLDS_NONE)
def test_what_holds_no_weights_is_told_with_what_it_holds(form: str, state: State, tmp_path: Path) -> None:
    change, said = HOLDS_NONE[form]
    torch.save(change(state), tmp_path / "w.pt")
    with pytest.raises(RunError, match=said):
        loaded(tmp_path / "w.pt")


def archive(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        opened.writestr(name, "x")
    return data.getvalue()


def saved(value: object, *, newest: bool = True) -> bytes:
    data = io.BytesIO()
    torch.save(value, data, _use_new_zipfile_serialization=newest)
    return data.getvalue()


def test_weights_of_the_inner_network_fit_the_one_around_it(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    assert same(loaded(tmp_path / "w.pt", Wrapped())[0], prefixed("net.", state))


def test_our_own_files_come_back_as_they_were(tmp_path: Path) -> None:
    model = network()
    save_weights(model, tmp_path / "w.pt")
    assert same(loaded(tmp_path / "w.pt", headless=False)[0], model.state_dict())


def test_averaged_weights_that_are_left_out_are_told(state: State, tmp_path: Path) -> None:
    torch.save({"model": state, "model_ema": state}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt")[2] == "the averaged weights model_ema in it are left out"


def test_counters_of_other_tools_are_told(state: State, tmp_path: Path) -> None:
    torch.save(state | {"total_ops": torch.zeros(1), "total_params": torch.zeros(1)}, tmp_path / "w.pt")
    assert "2 counters in it that the network does not have, such as total_ops" in loaded(tmp_path / "w.pt")[2]


def test_several_networks_in_one_file_are_not_chosen_among(state: State, tmp_path: Path) -> None:
    torch.save({"student": state, "teacher": state}, tmp_path / "w.pt")
    with pytest.raises(RunError, match="several networks that fit, student and teacher"):
        loaded(tmp_path / "w.pt")


@pytest.mark.parametrize("model", [network, Wrapped])
def test_all_but_the_head_is_loaded_and_the_head_is_named(model: Callable[[], nn.Module], state: State, tmp_path: Path) -> None:
    torch.save({name: value for name, value in state.items() if not name.startswith("5.")}, tmp_path / "w.pt")
    found, random, said = loaded(tmp_path / "w.pt", model())
    start = "" if model is network else "net."
    assert random == (f"{start}5.weight", f"{start}5.bias") and f"{start}5.weight, {start}5.bias" in said
    assert torch.equal(found[f"{start}0.weight"], state["0.weight"])


def test_a_head_of_another_size_stays_random(state: State, tmp_path: Path) -> None:
    torch.save(network(1000).state_dict() | {"0.weight": state["0.weight"]}, tmp_path / "w.pt")
    found, random, said = loaded(tmp_path / "w.pt")
    assert random == ("5.weight", "5.bias") and "stays random" in said
    assert torch.equal(found["0.weight"], state["0.weight"])


def test_a_missing_head_is_an_error_where_a_whole_network_is_needed(state: State, tmp_path: Path) -> None:
    torch.save({name: value for name, value in state.items() if not name.startswith("5.")}, tmp_path / "w.pt")
    with pytest.raises(RunError, match=r"are not of this network: they lack 5\.weight and 1 more"):
        loaded(tmp_path / "w.pt", headless=False)


def test_a_network_of_two_layers_has_a_head_too(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    torch.save({"0.weight": torch.ones(4, 3, 1, 1), "0.bias": torch.ones(4)}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt", model)[1] == ("2.weight", "2.bias")


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))])
def test_a_network_of_one_layer_takes_none_of_another(model: nn.Module, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(4, 5)}, tmp_path / "w.pt")
    with pytest.raises(RunError, match="are not of this network"):
        loaded(tmp_path / "w.pt", model)


OTHERS: dict[str, tuple[Callable[[State], State], str]] = {
    "no stem": (lambda state: {name: value for name, value in state.items() if name[0] != "0"}, r"lack 0\.weight and 1 more"),
    "a head alone": (lambda state: {name: value for name, value in state.items() if name[0] == "5"}, "lack 0"),
    "one more layer": (lambda state: state | {"6.weight": torch.ones(10, 10)}, r"have 6\.weight besides"),
    "wider": (lambda state: state | {"0.weight": torch.ones(32, 3, 3, 3)}, r"0\.weight has the shape \(32, 3, 3, 3\)"),
    "grey": (lambda state: state | {"0.weight": torch.ones(16, 1, 3, 3)}, r"0\.weight has the shape \(16, 1, 3, 3\)"),
    "a head for other features": (lambda state: state | {"5.weight": torch.ones(10, 8)}, r"5\.weight has the shape \(10, 8\)"),
    "of another network": (lambda _state: nn.Sequential(nn.Linear(3, 4)).state_dict(), "lack 1"),
}


@pytest.mark.parametrize("form", OTHERS)
def test_weights_of_another_network_are_refused_with_the_difference(form: str, state: State, tmp_path: Path) -> None:
    change, said = OTHERS[form]
    torch.save(change(state), tmp_path / "w.pt")
    before = network()
    with pytest.raises(RunError, match=said) as error:
        loaded(tmp_path / "w.pt", before)
    assert "\n" not in str(error.value)


class _Custom:
    """Something that only its own class can unpickle."""


def test_a_whole_pickled_model_is_refused_with_the_line_that_makes_a_state_dict_of_it(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(RunError, match=r"a pickled model.*torch\.save\(torch\.load\(.*weights_only=False\)\.state_dict\(\)"):
        loaded(tmp_path / "whole.pt")


def test_a_checkpoint_with_a_foreign_object_is_refused_with_its_name(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state, "trainer": _Custom()}, tmp_path / "w.pt")
    with pytest.raises(RunError, match=r"has a pickled test_checkpoint\._Custom in it"):
        loaded(tmp_path / "w.pt")


def test_a_torchscript_program_is_refused_with_the_line_that_makes_a_state_dict_of_it(tmp_path: Path) -> None:
    torch.jit.script(network()).save(str(tmp_path / "w.pt"))
    with pytest.raises(RunError, match=r"TorchScript program.*torch\.jit\.load"):
        loaded(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html></html>\n", "a page of a website"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "as Keras writes"),
        (b"\xef\xbb\xbf\n <html>", "a page of a website"),
        (b"", "it is empty"),
        (gzip.compress(b"x", mtime=0), "unpack it with gunzip"),
        (pickle.dumps([1, 2]), "not saved by torch.save but pickled"),
        (saved({"a": torch.ones(9)})[:300], "damaged or cut short"),
        (saved({"a": torch.ones(9)}, newest=False)[:90], "damaged or cut short"),
        (bytes([99, 0, 0, 0, 0, 0, 0, 0]) + b'{"a":', "damaged or cut short"),
        (archive("model.weights.h5"), "a file of Keras"),
        (archive("w.npy"), "holds NumPy arrays"),
        (archive("net.pth"), r"an archive of net\.pth and others; unpack it"),
        (archive("net/archive_format"), r"a program of torch\.export"),
        (b"nonsense" * 9, "must be a state_dict"),
    ],
)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_file_that_holds_no_weights_is_told_with_what_it_is(data: bytes, said: str, ending: str, tmp_path: Path) -> None:
    (tmp_path / f"w.{ending}").write_bytes(data)
    with pytest.raises(RunError, match=said) as error:
        loaded(tmp_path / f"w.{ending}")
    assert "\n" not in str(error.value)


def test_a_file_of_optimiser_states_alone_holds_no_weights(tmp_path: Path) -> None:
    torch.save({"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(RunError, match="holds no weights"):
        loaded(tmp_path / "w.pt")
