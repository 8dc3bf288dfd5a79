"""A user's own network, `mypkg.models:make_net` or `path/to/file.py:make_net`: a function that returns a torch.nn.Module.

The function receives the number of classes if it has a parameter `num_classes` or `classes`, and no other arguments. Whatever the
user's code prints goes to standard error, and an exception becomes a `NetworkError` with the file and line that raised it.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netadapt.errors import NetworkError
from netadapt.input_shapes import InputShapes, WholeNumbers, shapes_text, with_count
from netadapt.users_code import attribute_of, defined, short_name, users_code

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("num_classes", "classes")
"""Parameters of a user's function that receive the number of classes."""


GIVEN = "python"
"""What stands before the colon in the name of a network that was given to `netadapt.adapt` as an object."""


def is_user_network(name: str) -> bool:
    """True if the name is a user's function; names of built-in networks have no colon."""
    return ":" in name and not is_given(name)


def is_given(name: str) -> bool:
    """True if the network was given as an object, which only the program that called `netadapt.adapt` has."""
    return name.startswith(f"{GIVEN}:")


def build_user_network(name: str, classes: int) -> nn.Module:
    """The network that the user's function returns.

    `NetworkError` if the function cannot be found or called, fails, or returns something else than a module.
    """
    from torch import nn

    function = _function(name)
    arguments = _arguments(name, function, classes)
    with users_code(f"{short_name(name)} failed"), defined(short_name(name).rpartition(":")[0]):
        model = function(**arguments)
    if not isinstance(model, nn.Module):
        raise NetworkError(
            f"{short_name(name)} returned a {type(model).__name__}, not a torch.nn.Module; let it return the network"
        )
    return model


def takes_classes(name: str) -> bool:
    """True if the user's function has a parameter for the number of classes."""
    return any(parameter in _parameters(_function(name)) for parameter in CLASSES)


def source_facts(name: str) -> dict[str, str]:
    """The sha256 of the source file of the user's function, to be stored with a run; empty for a built-in network."""
    if not is_user_network(name):
        return {}
    source = inspect.getsourcefile(inspect.unwrap(_function(name)))
    return {f"{name} (sha256)": hashlib.sha256(Path(source).read_bytes()).hexdigest()} if source else {}


def changed_source(name: str, facts: Mapping[str, str]) -> str | None:
    """A warning if the source file differs from the one that `source_facts` described at the start of the run; else None."""
    changed = [key for key, digest in source_facts(name).items() if key in facts and facts[key] != digest]
    if not changed:
        return None
    return f"the source of {short_name(name)} has changed since the run began; check that it still builds the same network"


def parse_inputs(text: str) -> InputShapes:
    """The shapes from text such as `1x3x224x224`, or `1x3x64x64,1x8:int64` for two inputs, the second of whole numbers.

    `NetworkError` for other text, and for several images at once.
    """
    shapes = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,6}(?:x\d{1,6})+)(:int64)?", part.strip().lower())
        kind = WholeNumbers if found and found[2] else tuple
        shape = kind(map(int, found[1].split("x"))) if found else ()
        if min(shape, default=0) < 1:
            raise NetworkError(
                f"{part.strip()!r} is not the shape of an input; write one image, channels, height and width, as in 1x3x224x224, "
                "several inputs with commas between them, and :int64 behind one of whole numbers, such as token ids: 1x128:int64"
            )
        if shape[0] != 1:
            raise NetworkError(
                f"{part.strip()} is the shape of {shape[0]} examples, and networks are adapted for one at a time; write "
                f"{shapes_text((with_count(shape, 1),))}"
            )
        shapes.append(shape)
    return tuple(shapes)


def _function(name: str) -> Callable[..., Any]:
    """The user's function, imported. `NetworkError` if there is none of this name."""
    from torch import nn

    found = attribute_of(name, "function")
    if not callable(found) or isinstance(found, nn.Module):  # a module is callable too, but with images
        raise NetworkError(f"{short_name(name)} is a {type(found).__name__}; name a function that returns the network")
    return found


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _arguments(name: str, function: Callable[..., Any], classes: int) -> dict[str, int]:
    """The arguments to call the user's function with. `NetworkError` if it needs others."""
    parameters = _parameters(function)
    given = {parameter: classes for parameter in CLASSES if parameter in parameters}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in variable and parameter.name not in given
    ]
    if needed:
        raise NetworkError(
            f"{short_name(name)} needs {', '.join(needed)}, but it is called with num_classes or classes only; "
            "give the others defaults, or name a function that sets them"
        )
    return given
