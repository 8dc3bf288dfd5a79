"""Weights on disk: our own files, which are a state_dict and nothing else, and checkpoints as training scripts leave them.

Reading one can never run code: torch's loader for weights only and safetensors build tensors and plain containers.
"""

from __future__ import annotations

import io
import re
import struct
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # torch raises it for a file that is no state_dict; nothing is ever unpickled
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from device_agents.support.atomic import write_whole
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
_BEGINNINGS: Mapping[bytes, str] = {
    b"version https://git-lfs": "it is a pointer of Git LFS to the file; fetch the file itself with `git lfs pull`",
    b"<": "it is a page of a website; download the file itself",
    b"\x89HDF": "it is an HDF5 file, as Keras writes; rebuild the network in PyTorch and save its state_dict",
}
"""Files that are taken for weights, by what they begin with."""

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
    states = [(where, _renamed(state, own)) for where, state in _states(found, "", 0)]
    if not states:
        raise RunError(f"{path} holds no weights that can be read; it must be a state_dict saved by torch.save")
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
        raise RunError(f"the weights in {path} are not of this network: {reason}; use weights of the same network")
    if counters:
        remarks.append(f"{len(counters)} counters in it that the network does not have, such as {counters[0]}, are left out")
    if random:
        remarks.append(
            f"it has no weights of this size for the head of the network ({', '.join(random)}), which stays random; the others "
            "are taken, and the original is trained from there"
        )
    with torch.no_grad():
        model.load_state_dict({name: value for name, value in state.items() if name in own and name not in random}, strict=False)
    return Loaded(random, tuple(remarks))


def _read(path: Path) -> Mapping[str, Any]:
    """What the file holds: a mapping of tensors, or of anything with tensors somewhere in it."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([Namespace]):  # the options of a training script; without methods that could run
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise RunError(f"there are no weights at {path}; restore the file or give the path of another") from exc
    except UNREADABLE as exc:
        raise RunError(f"{path} holds no weights that can be read; {_way_out(path, str(exc))}") from exc
    return found if isinstance(found, Mapping) else {}


def _way_out(path: Path, message: str) -> str:
    """What the file is, as far as its beginning or torch's message tells, and how to get a state_dict of it."""
    with path.open("rb") as file:
        beginning = file.read(64).lstrip()
    for known, sentence in _BEGINNINGS.items():
        if beginning.startswith(known):
            return sentence
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
    return "it must be a state_dict saved by torch.save"


def _states(found: Mapping[Any, Any], where: str, depth: int) -> Iterator[tuple[str, State]]:
    """Every mapping of names to tensors within this one, the outermost first, with the keys that lead to it."""
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if any(value.is_floating_point() for value in tensors.values()):
        yield where or "the file itself", tensors
    if depth < _MOST_DEEP:
        for name, value in found.items():
            inner = vars(value) if isinstance(value, Namespace) else value
            if isinstance(inner, Mapping) and "optim" not in str(name).lower():
                yield from _states(inner, printable(f"{where}.{name}" if where else str(name), 60), depth + 1)


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
