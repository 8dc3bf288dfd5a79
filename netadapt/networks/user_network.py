"""A user's own network, `mypkg.models:make_net` or `path/to/file.py:make_net`: a function that returns a torch.nn.Module.

The function receives the number of classes if it has a parameter `num_classes` or `classes`, and no other arguments. Whatever the
user's code prints goes to standard error, and an exception becomes a `NetworkError` with the file and line that raised it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean
from netadapt.errors import NetworkError

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("num_classes", "classes")
"""Parameters of a user's function that receive the number of classes."""
# beginnings of the paths of code that the user has not written: Python's own, ours, and code without a file
_NOT_THE_USERS = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<")
_ADDED_FOLDERS = "site-packages"


def is_user_network(name: str) -> bool:
    """True if the name is a user's function; names of built-in networks have no colon."""
    return ":" in name


def absolute_name(name: str) -> str:
    """The name with the absolute path of its file, if it has one, so that a run can be continued from another folder."""
    where, _, function = name.rpartition(":")
    return f"{Path(where).resolve()}:{function}" if is_user_network(name) and _is_file(where) else name


def short_name(name: str) -> str:
    """The name for messages: its file, if it has one, without the folders."""
    where, _, function = name.rpartition(":")
    return f"{Path(where).name}:{function}" if is_user_network(name) and _is_file(where) else name


def build_user_network(name: str, classes: int) -> nn.Module:
    """The network that the user's function returns.

    `NetworkError` if the function cannot be found or called, fails, or returns something else than a module.
    """
    from torch import nn

    function = _function(name)
    arguments = _arguments(name, function, classes)
    with users_code(f"{short_name(name)} failed"):
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


def parse_input(text: str) -> tuple[int, int, int, int]:
    """The shape (1, c, h, w) from text such as `1x3x224x224`. `NetworkError` for other text, and for several images."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})x(\d{1,6})", text.strip().lower())
    n, channels, height, width = map(int, match.groups()) if match else (0, 0, 0, 0)
    if min(n, channels, height, width) < 1:
        raise NetworkError(f"{text!r} is not the shape of an input; write one image, channels, height and width, as in 1x3x224x224")
    if n != 1:
        raise NetworkError(f"networks are adapted for single images, not for {n} at once; write 1x{channels}x{height}x{width}")
    return n, channels, height, width


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Call the user's code inside it: whatever that raises becomes a `NetworkError` that begins with `what`."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ToolError:
        raise
    except (Exception, SystemExit) as exc:  # any exception, as it is not our code
        reason = " ".join(str(exc.msg if isinstance(exc, SyntaxError) else exc).split())[:300]
        raise NetworkError(f"{what}: {type(exc).__name__}{f': {reason}' if reason else ''} ({_place(exc)})") from exc


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where


def _function(name: str) -> Callable[..., Any]:
    """The user's function, imported. `NetworkError` if there is none of this name."""
    from torch import nn

    where, _, attribute = name.rpartition(":")
    module = _file(Path(where).resolve()) if _is_file(where) else _module(where)
    found = getattr(module, attribute, None)
    if found is None:
        defined = {key: value for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
        known = [key for key, value in defined.items() if callable(value)]
        raise NetworkError(f"{short_name(where)} has no function {attribute!r}; {did_you_mean(attribute, known)}")
    if not callable(found) or isinstance(found, nn.Module):  # a module is callable too, but with images
        raise NetworkError(f"{short_name(name)} is a {type(found).__name__}; name a function that returns the network")
    function: Callable[..., Any] = found
    return function


def _module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` finds modules; an installed command does not
    try:
        with users_code(f"{name} cannot be imported"):
            return importlib.import_module(name)
    except NetworkError as exc:
        # only the module itself and the packages around it are misspelt names; others are missing imports of the user's code
        missing = exc.__cause__.name if isinstance(exc.__cause__, ModuleNotFoundError) else None
        if not name or (missing and f"{name}.".startswith(f"{missing}.")):
            raise NetworkError(
                f"there is no module {name!r}, installed or in {Path.cwd()}; change to the folder that holds it, or name its file"
            ) from exc
        raise


@cache
def _file(path: Path) -> ModuleType:
    """The module in this file, run once however often the network is built. Its folder is on the path, as for a script."""
    if not path.is_file():
        raise NetworkError(f"there is no file {path}; give path/to/file.py:function")
    # a name of its own, so that a file called torch.py replaces no installed module
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module  # before it runs, as dataclasses look their module up
    try:
        with users_code(f"{path} cannot be run"):
            spec.loader.exec_module(module)
    except NetworkError:
        del sys.modules[name]
        raise
    return module


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


def _place(exc: BaseException) -> str:
    """The file and line of the innermost call in the user's code or, if there is none, of the innermost call."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}, line {exc.lineno}"
    frames = traceback.extract_tb(exc.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS) and _ADDED_FOLDERS not in frame.filename]
    frame = (theirs or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"
