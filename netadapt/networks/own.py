"""A network of the user's own, `mypkg.models:make_net` or `path/to/file.py:make_net`: a function that returns a torch.nn.Module.

The function is called without arguments, or with the number of classes if it takes `num_classes` or `classes`. What the user's code
prints goes to standard error; what it raises is told with its file and line.
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
_NOT_THE_USERS = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<")
_ADDED_FOLDERS = "site-packages"


def is_own(name: str) -> bool:
    """Whether a network is meant by its function; names of ours have no colon."""
    return ":" in name


def settled(name: str) -> str:
    """The name as it is stored: a file by its whole path, so that a run can be finished from another folder."""
    where, _, function = name.rpartition(":")
    return f"{Path(where).resolve()}:{function}" if is_own(name) and _is_file(where) else name


def short(name: str) -> str:
    """For people: a file without its folders."""
    where, _, function = name.rpartition(":")
    return f"{Path(where).name}:{function}" if is_own(name) and _is_file(where) else name


def build_own(name: str, classes: int) -> nn.Module:
    """The network as the function makes it. `NetworkError` in one sentence for all that can be wrong with it."""
    from torch import nn

    function = _function(name)
    arguments = _arguments(name, function, classes)
    with users_code(f"{short(name)} failed"):
        model = function(**arguments)
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{short(name)} returned a {type(model).__name__}, not a torch.nn.Module; let it return the network")
    return model


def takes_classes(name: str) -> bool:
    return any(parameter in _parameters(_function(name)) for parameter in CLASSES)


def source_facts(name: str) -> dict[str, str]:
    """The sha256 of the file that the function is written in, to be kept with a run; {} for a network of ours."""
    if not is_own(name):
        return {}
    source = inspect.getsourcefile(inspect.unwrap(_function(name)))
    return {f"{name} (sha256)": hashlib.sha256(Path(source).read_bytes()).hexdigest()} if source else {}


def changed_source(name: str, facts: Mapping[str, str]) -> str | None:
    """A sentence if the file is not what it was when these facts were kept."""
    changed = [key for key, digest in source_facts(name).items() if key in facts and facts[key] != digest]
    if not changed:
        return None
    return f"the source of {short(name)} has changed since the run began; its networks are built by what is there now"


def parse_input(text: str) -> tuple[int, int, int, int]:
    """`1x3x224x224`: one image, its channels, height and width."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})x(\d{1,6})", text.strip().lower())
    n, channels, height, width = map(int, match.groups()) if match else (0, 0, 0, 0)
    if min(n, channels, height, width) < 1:
        raise NetworkError(f"{text!r} is no shape of an input; write 1x3x224x224: one image, channels, height, width")
    if n != 1:
        raise NetworkError(f"an input of {n} images at once cannot be planned for; write 1x{channels}x{height}x{width}")
    return n, channels, height, width


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Around calls of the user's code: whatever it raises becomes a `NetworkError` that begins with `what`."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ToolError:
        raise
    except (Exception, SystemExit) as exc:  # nobody can say what another's code may raise
        reason = " ".join(str(exc.msg if isinstance(exc, SyntaxError) else exc).split())[:300]
        raise NetworkError(f"{what}: {type(exc).__name__}{f': {reason}' if reason else ''} ({_place(exc)})") from exc


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where


def _function(name: str) -> Callable[..., Any]:
    where, _, attribute = name.rpartition(":")
    module = _file(Path(where).resolve()) if _is_file(where) else _module(where)
    found = getattr(module, attribute, None)
    if found is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        known = [key for key in own if callable(vars(module)[key])]
        raise NetworkError(f"{short(where)} has no function {attribute!r}; {did_you_mean(attribute, known)}")
    if not callable(found) or _is_module(found):
        raise NetworkError(f"{short(name)} is a {type(found).__name__}; name a function that returns the network")
    function: Callable[..., Any] = found
    return function


def _is_module(found: Any) -> bool:
    from torch import nn

    return isinstance(found, nn.Module)


def _module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` finds modules; an installed command does not
    try:
        with users_code(f"{name} cannot be imported"):
            return importlib.import_module(name)
    except NetworkError as exc:
        missing = exc.__cause__.name if isinstance(exc.__cause__, ModuleNotFoundError) else None
        if not name or (missing and f"{name}.".startswith(f"{missing}.")):
            raise NetworkError(
                f"there is no module {name!r}, installed or in {Path.cwd()}; go to the folder that holds it, or name its file"
            ) from exc
        raise


@cache
def _file(path: Path) -> ModuleType:
    """Run once, however often the network is built, and with its folder on the path as Python does for a script."""
    if not path.is_file():
        raise NetworkError(f"there is no file {path}; give path/to/file.py:function")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
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
            f"{short(name)} needs {', '.join(needed)}, but is called with nothing, or num_classes or classes; "
            "give these defaults, or name a function that fills them in"
        )
    return given


def _place(exc: BaseException) -> str:
    """The last line of the user's own that led to it or, without one, the very last line."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}, line {exc.lineno}"
    frames = traceback.extract_tb(exc.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS) and _ADDED_FOLDERS not in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"
