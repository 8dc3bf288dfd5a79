"""Weights on disk: our own files, which are a state_dict and nothing else, and checkpoints as training scripts leave them.

Reading one can never run code: torch's loader for weights only and safetensors build tensors and plain containers.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from pickle import UnpicklingError  # torch raises it for a file that is no state_dict; nothing is ever unpickled
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from device_agents.support.atomic import write_whole
from device_agents.support.stand_ins import stand_in
from device_agents.support.strict_json import read_json
from device_agents.support.text import printable
from netadapt.errors import RunError

UNREADABLE = (
    OSError, EOFError, UnpicklingError, TypeError, AttributeError, ValueError, LookupError, AssertionError, struct.error,
    RuntimeError, SafetensorError,
)  # fmt: skip
"""The errors that torch and safetensors raise for damaged files, depending on the place of the damage."""
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile and others put into names, wherever the module that they wrap stands."""
_AVERAGED = ("ema", "swa", "averag", "shadow")
"""Parts of the names under which checkpoints keep averaged weights beside those that were trained."""
_MOST_DEEP = 4
"""Levels of mappings in which weights are looked for."""
_DTYPES = tuple(type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU")
_PLAIN: list[Any] = [
    Namespace, defaultdict, list, dict, int, float, np.dtype, np.ndarray, *_DTYPES,
    (PurePosixPath, "pathlib.PosixPath"), (PureWindowsPath, "pathlib.WindowsPath"),
    *((np.dtype(float).type(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((np.zeros(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]  # fmt: skip
"""What training scripts keep beside weights, such as their options and best scores, and what has no methods that could run."""
_ASKED = "it must be a state_dict saved by torch.save"
_DAMAGED = "it is damaged or cut short; copy or download it again"
_FOREIGN = "the model of another program; weights must be a state_dict saved by torch.save"
_ENDINGS: Mapping[str, str] = dict.fromkeys((".onnx", ".tflite", ".pb", ".index", ".pdparams", ".gguf", ".mlmodel"), _FOREIGN)
"""What files are by their endings, where nothing at their beginning tells it."""
_KERAS = "an HDF5 file, as Keras writes; rebuild the network in PyTorch and save its state_dict"
_IN_FOLDERS = ("*.index.json", "*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin", "*.tar")
_SPLIT: Mapping[str, str] = {
    ".parametrizations.": "torch.nn.utils.parametrize.remove_parametrizations",
    ".weight_orig.": "torch.nn.utils.prune.remove, or of spectral_norm remove_spectral_norm,",
    ".weight_g.": "torch.nn.utils.remove_weight_norm",
}
"""What takes back a weight that is kept in several tensors, by a part of the names of these."""
_SHARD = re.compile(r"-\d+-of-\d+\.")

MAKES_A_STATE_DICT = 'torch.save(torch.load("{path}", weights_only=False).state_dict(), "weights.pt")'
"""The line of Python that we advise a user to run on a pickled model, if it is trusted. We never run it."""

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file's weights."""

    random: tuple[str, ...] = ()
    """The names of the weights of the network's head that the file does not have in this size, and that stay as they were."""
    remarks: tuple[str, ...] = ()
    """Whole sentences about what was left out or stayed random, without the path of the file."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state_dict atomically: the file is there whole or not at all. `RunError` if it cannot be written."""
    data = io.BytesIO()
    torch.save(model.state_dict(), data)
    write_whole(path, data.getvalue(), RunError)


def load_weights(model: nn.Module, path: Path, *, headless: bool = False) -> Loaded:
    """Load weights into a model of the same shapes, in place.

    The file is a state_dict, also one within another mapping, under names with something before them, in another precision, or
    in the form of safetensors. With `headless`, the weights of the network's last part may be missing or be of another number
    of outputs. `RunError` if the file holds no weights, or those of another network.
    """
    found = _read(path)
    own = model.state_dict()
    is_optimiser = isinstance(found, Mapping) and "param_groups" in found
    holds = isinstance(found, Mapping | list | tuple) and not is_optimiser
    states = [(where, _renamed(state, own)) for where, state in (_states(found, "", 0) if holds else ())]
    if not states:
        raise RunError(f"{path} holds no weights that can be read; {_no_weights(found)}")
    # most names that fit, then weights that were trained before averages of them; of equal ones, the outermost
    scores = [(sum(name in own for name in state), not _averaged(where)) for where, state in states]
    best = scores.index(max(scores))
    where, state = states[best]
    rivals = [there for (there, _), score in zip(states, scores, strict=True) if score == scores[best] and there != where]
    if rivals and scores[best][0]:
        raise RunError(f"{path} holds several networks that fit, {where} and {rivals[0]}; save the state_dict of one of them alone")
    remarks = [f"the averaged weights {there} in it are left out" for there, _ in states if _averaged(there) and there != where]
    # a scalar that the network does not have is a counter of another tool; older files lack the counters of batch normalisation
    extra = [name for name, value in state.items() if name not in own and value.numel() > 1]
    counters = [name for name, value in state.items() if name not in own and value.numel() <= 1]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    other = [name for name, value in state.items() if name in own and value.shape != own[name].shape]
    random = _head(own, missing, other, {name: tuple(state[name].shape) for name in other}) if headless else ()
    if extra or ((missing or other) and not random):
        reason = _difference(own, state, extra, missing, other)
        index = next(path.parent.glob("*.index.json"), None) if _SHARD.search(path.name) else None
        way_out = f"give {index}, as they are in several files" if index else "use weights of the same network"
        if undo := next((undo for end, undo in _SPLIT.items() if any(end in f"{name}." for name in extra)), None):
            way_out = f"call {undo} on the trained network before its state_dict is saved"
        raise RunError(f"the weights in {path} are not of this network: {reason}; {way_out}")
    if counters:
        remarks.append(f"{len(counters)} counters in it that the network does not have, such as {counters[0]}, are left out")
    wild = [name for name, _ in model.named_parameters() if name in state and not state[name].float().isfinite().all()]
    if wild:
        remarks.append(
            f"{len(wild)} of its weights, such as {wild[0]}, have values that are not finite, as after a training that failed"
        )
    if random:
        remarks.append(
            f"it has no weights of this size for the head of the network ({', '.join(random)}), which stays random; the others "
            "are taken, and the original is trained from there"
        )
    with torch.no_grad():
        model.load_state_dict({name: value for name, value in state.items() if name in own and name not in random}, strict=False)
    return Loaded(random, tuple(remarks))


def _read(path: Path) -> Any:
    """What the file holds: a mapping of tensors, or of anything with tensors somewhere in it."""
    try:
        if path.is_dir():
            raise RunError(f"{path} is a folder; {_inside(path)}")
        if path.name.endswith(".index.json"):
            names = sorted(set(read_json(path.read_bytes())["weight_map"].values()))
            return {name: value for shard in names for name, value in _read(path.parent / Path(shard).name).items()}
        with path.open("rb") as file, torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that we refuse with a sentence
            if _is_safetensors(file.read(9)):  # whatever the file is called
                return load_file(path)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise RunError(f"there are no weights at {path}; restore the file or give the path of another") from exc
    except PermissionError as exc:
        raise RunError(f"{path} may not be read by this user; give yourself the right to, or copy it") from exc
    except UNREADABLE as exc:
        raise RunError(f"{path} holds no weights that can be read; {_way_out(path, str(exc))}") from exc


def _is_safetensors(beginning: bytes) -> bool:
    return beginning[8:9] == b"{"  # after the length of its header


def _inside(folder: Path) -> str:
    """Which file of a folder to give."""
    if (folder / ".metadata").is_file():
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pt"
        return f"its weights are in several files of torch.distributed; {command} makes one of them"
    found = next((file for pattern in _IN_FOLDERS for file in sorted(folder.rglob(pattern))), None)
    return f"give the file of the weights in it, such as {found}" if found else "give a file that torch.save has written"


def _way_out(path: Path, message: str) -> str:
    """What the file is, as far as its beginning, its ending or torch's message tells, and how to get a state_dict of it."""
    if known := stand_in(path):
        return f"it is {known}"
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning.startswith(b"\x89HDF"):
        return f"it is {_KERAS}"
    if "TorchScript" in message:
        line = f'torch.save(torch.jit.load("{path}").state_dict(), "weights.pt")'
        return f"it is a TorchScript program; python -c 'import torch; {line}' makes a state_dict of it"
    if pickled := re.search(r"GLOBAL ([\w.]+)", message):
        line = MAKES_A_STATE_DICT.format(path=path)
        return (
            f"it is a pickled model or has a pickled {pickled[1]} in it, and reading it would run code; if you trust it, "
            f"python -c 'import torch; {line}' makes a state_dict of a model, and [\"state_dict\"] in place of .state_dict() one "
            "of a checkpoint"
        )
    if beginning.startswith(b"PK"):
        return _in_archive(path)
    if known := _ENDINGS.get(path.suffix.lower()):
        return f"it is {known}"
    if beginning[:1] == b"\x80" and beginning[2:4] != b"\x8a\n":  # which begins the number that torch's older files begin with
        line = f'torch.save(pickle.load(open("{path}", "rb")), "weights.pt")'
        return (
            "it was not saved by torch.save but pickled, and reading it would run code; if you trust it, "
            f"python -c 'import pickle, torch; {line}' makes a file of it that can be read"
        )
    return _DAMAGED if beginning[:1] == b"\x80" or _is_safetensors(beginning) else _ASKED


def _in_archive(path: Path) -> str:
    """What an archive is that torch cannot read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return _DAMAGED
    if any(name.endswith(".h5") for name in names):
        return f"it is a file of Keras; {_KERAS.partition('; ')[2]}"
    if any(name.endswith(".npy") for name in names):
        return "it holds NumPy arrays; save them as tensors, by their names in the network, with torch.save"
    if any(name.endswith("archive_format") for name in names):
        line = f'torch.save(torch.export.load("{path}").state_dict, "weights.pt")'
        return f"it is a program of torch.export; python -c 'import torch; {line}' makes a state_dict of it"
    return f"it is an archive of {printable(names[0], 60)} and others; unpack it" if names else "it is an empty archive"


def _no_weights(found: Any) -> str:
    """Why there are no weights in what was read."""
    inner = list(found.values()) if isinstance(found, Mapping) else list(found) if isinstance(found, list | tuple) else []
    if any(isinstance(value, Mapping) and "param_groups" in value for value in (found, *inner)):
        return "it is the state of an optimiser alone; give the file that has the network's state_dict"
    tensors = [value for value in map(_dense, inner) if value is not None]
    if tensors and not any(value.is_floating_point() or value.is_complex() for value in tensors):
        return f"its weights are of type {tensors[0].dtype}, as in a quantised network; give those from before that"
    return "its tensors have no names; save the network's state_dict" if tensors else _ASKED


def _states(found: Any, where: str, depth: int) -> Iterator[tuple[str, State]]:
    """Every mapping of names to tensors within this one, the outermost first, with the keys that lead to it."""
    items = list(found.items() if isinstance(found, Mapping) else enumerate(found))
    tensors = {name: value for name, each in items if isinstance(name, str) and (value := _dense(each)) is not None}
    if any(value.is_floating_point() for value in tensors.values()):
        yield where or "the file itself", tensors
    if depth < _MOST_DEEP:
        for name, value in items:
            inner = vars(value) if isinstance(value, Namespace) else value
            is_optimiser = "optim" in str(name).lower() or (isinstance(inner, Mapping) and "param_groups" in inner)
            if isinstance(inner, Mapping | list | tuple) and not is_optimiser:
                yield from _states(inner, printable(f"{where}.{name}" if where else str(name), 60), depth + 1)


def _dense(value: Any) -> Tensor | None:
    """The tensor as an ordinary one; None for what is no tensor or has no values."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim:
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    if not isinstance(value, Tensor) or value.is_meta:
        return None
    if value.is_quantized:
        return value.dequantize()
    return value if value.layout is torch.strided else value.to_dense()


def _averaged(where: str) -> bool:
    return any(part in where.lower() for part in _AVERAGED)


def _renamed(state: State, own: State) -> State:
    """The weights under the network's names, without what wrappers have put before or into the names of the file.

    Only weights with the best beginning are the network's: beside a network there may be, for example, a loss with weights.
    """
    plain = {}
    for name, value in state.items():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        plain[name] = value
    # what stands before a name of the network; or what the network has before a name of the file
    before = [name.removesuffix(known) for known in list(own)[:8] for name in plain if name.endswith(f".{known}")]
    inside = [known.removesuffix(name) for name in list(plain)[:8] for known in own if known.endswith(f".{name}")]
    candidates = [plain]
    candidates += [
        {name.removeprefix(start): value for name, value in plain.items() if name.startswith(start)}
        for start in dict.fromkeys(before)
    ]
    candidates += [{start + name: value for name, value in plain.items()} for start in dict.fromkeys(inside)]
    return max(
        candidates, key=lambda renamed: sum(name in own and value.shape == own[name].shape for name, value in renamed.items())
    )


def _head(own: State, missing: list[str], other: list[str], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The names of weights that are missing or of another number of outputs, if they are those of the network's last part only."""
    unfit = [name for name in own if name in missing or name in other]
    learnt = [name for name in own if not name.endswith("num_batches_tracked")]
    parts, depth = [name.split(".") for name in learnt], 0
    while depth < min(map(len, parts)) - 1 and len({part[depth] for part in parts}) == 1:
        depth += 1  # a network that holds everything in one submodule has its parts inside it
    last = ".".join(parts[-1][: depth + 1])
    inside = all(name == last or name.startswith(f"{last}.") for name in unfit)
    only_outputs = all(shapes[name][1:] == tuple(own[name].shape)[1:] for name in other)
    return tuple(unfit) if inside and only_outputs and len(unfit) < len(learnt) else ()


def _difference(own: State, state: State, extra: list[str], missing: list[str], other: list[str]) -> str:
    """The first difference of each kind, as the middle of a sentence."""
    parts = []
    if missing:
        parts.append(f"they lack {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""))
    if extra:
        parts.append(
            f"they have {printable(extra[0], 80)}" + (f" and {len(extra) - 1} more" if len(extra) > 1 else "") + " besides"
        )
    if other:
        theirs, ours = tuple(state[other[0]].shape), tuple(own[other[0]].shape)
        parts.append(f"{other[0]} has the shape {theirs} and not {ours}")
    return ", ".join(parts)
