"""Code of the user that is given by name, `mypkg.module:function` or `path/to/file.py:function`: found, imported and called.

Whatever the user's code prints goes to standard error, so that it does not mix with what a command writes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean, printable
from netadapt.errors import NetAdaptError, NetworkError

# beginnings of the paths of code that the user has not written: Python's own, ours, and code without a file
_NOT_THE_USERS = (sysconfig.get_path("stdlib"), f"{Path(__file__).parent}{os.sep}", "<")
_ADDED_FOLDERS = "site-packages"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MOST_FRAMES = 8
"""Frames of the user's code that an error shows, the innermost."""


class UsersError(NetAdaptError):
    """The user's code failed, or gave something else than it was asked for.

    The first line of the message is a sentence. The lines after it are the traceback, cut to the user's own frames.
    """

    def __str__(self) -> str:
        return "\n".join(printable(line, 1000) for line in Exception.__str__(self).split("\n"))


def is_file(where: str) -> bool:
    """True if what stands before the colon is the path of a file, and not the name of a module."""
    return where.endswith(".py") or "/" in where


def is_name(name: str) -> bool:
    """True for `file.py:function` and for `module:function` of a module that can be found; a file need not be there."""
    where, _, attribute = name.rpartition(":")
    if not attribute.isidentifier() or not where:
        return False
    if where.endswith(".py"):
        return True
    if not _MODULE.fullmatch(where):
        return False
    _find_modules_in(Path.cwd())
    return importlib.util.find_spec(where.split(".")[0]) is not None


def absolute_name(name: str) -> str:
    """The name with the absolute path of its file, if it has one, so that a run can be continued from another folder."""
    where, _, attribute = name.rpartition(":")
    return f"{Path(where).resolve()}:{attribute}" if where and is_file(where) else name


def short_name(name: str) -> str:
    """The name for messages: its file, if it has one, without the folders."""
    where, _, attribute = name.rpartition(":")
    return f"{Path(where).name}:{attribute}" if where and is_file(where) else name


def module_of(where: str) -> ModuleType:
    """The module of this name or in this file, imported. `NetworkError` if there is none, or it cannot be imported."""
    return _file(Path(where).resolve()) if is_file(where) else _module(where)


def attribute_of(name: str, what: str) -> object:
    """The object that the name stands for. `NetworkError` if there is none; `what` says what was looked for, such as function."""
    where, _, attribute = name.rpartition(":")
    module = module_of(where)
    found: object = getattr(module, attribute, None)
    if found is None:
        defined = {key: value for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
        known = [key for key, value in defined.items() if callable(value)]
        raise NetworkError(f"{short_name(where)} has no {what} {attribute!r}; {did_you_mean(attribute, known)}")
    return found


def sources(names: Iterable[str]) -> dict[str, str]:
    """The sha256 of the file of each name of a user's object, to be stored with a run; other names and modules are left out."""
    files = {name: Path(name.rpartition(":")[0] if ":" in name else name) for name in names}
    return {
        f"{name} (sha256)": hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in files.items()
        if file.suffix == ".py" and file.is_file()
    }


def changed_sources(names: Iterable[str], facts: Mapping[str, str]) -> list[str]:
    """A warning for each file that differs from what `sources` said when the run began."""
    return [
        f"{key.removesuffix(' (sha256)')} has changed since the run began; check that it still gives the same"
        for key, digest in sources(names).items()
        if facts.get(key, digest) != digest
    ]


@contextmanager
def defined(path: str) -> Iterator[None]:
    """Import the user's code, or build what it defines, inside it: what a script sets for its whole process ends with it.

    A parser of arguments at the top of the script finds none, as they are ours.
    """
    import torch

    arguments, dtype, device, recording = sys.argv, torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    sys.argv = [path]
    try:
        yield
    finally:
        sys.argv = arguments
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)  # None is torch's own, which costs no time
        torch.set_grad_enabled(recording)


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Call the user's code inside it: whatever that raises becomes a `NetworkError` that begins with `what`."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ToolError:
        raise
    except (Exception, SystemExit) as exc:  # any exception, as it is not our code
        raise NetworkError(f"{what}: {_reason(exc)} ({_place(exc)})") from exc


@contextmanager
def asked_of(what: str, asked: str) -> Iterator[None]:
    """Call the user's function inside it: whatever that raises becomes a `UsersError`: WHAT failed; it is asked for ASKED."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ToolError:
        raise
    except (Exception, SystemExit) as exc:  # any exception, as it is not our code
        frames = "".join(f"\n{line}" for line in _their_frames(exc))
        raise UsersError(f"{what} failed: {_reason(exc)}; it is asked for {asked}{frames}") from exc


def made_here(function: object) -> str:
    """The file and line where the user's function or class is defined, as a line below an error; empty where it is not known."""
    code = function.__code__ if isinstance(function, FunctionType) else None
    return "" if code is None else f"\n  {code.co_filename}, line {code.co_firstlineno}, in {code.co_name}"


def _module(name: str) -> ModuleType:
    _find_modules_in(Path.cwd())  # as `python -m` does; an installed command does not
    try:
        with users_code(f"{name} cannot be imported"), defined(name):
            return importlib.import_module(name)
    except NetworkError as exc:
        # only the module itself and the packages around it are misspelt names; others are missing imports of the user's code
        missing = exc.__cause__.name if isinstance(exc.__cause__, ModuleNotFoundError) else None
        if not name or (missing and f"{name}.".startswith(f"{missing}.")):
            raise NetworkError(
                f"there is no module {name!r}, installed or in {Path.cwd()}; change to the folder that holds it, or name its file"
            ) from exc
        raise


def _find_modules_in(folder: Path) -> None:
    """Have modules found in this folder, after Python's own.

    A user's program seldom starts in the folder of its networks, so that a `types.py` there has never replaced Python's.
    """
    if str(folder) in sys.path:
        return
    own = Path(sysconfig.get_path("stdlib"))
    last = max((at for at, entry in enumerate(sys.path) if Path(entry) in (own, own / "lib-dynload")), default=-1)
    sys.path.insert(last + 1, str(folder))


@cache
def _file(path: Path) -> ModuleType:
    """The module in this file, run once however often it is used. What stands beside it can be imported."""
    if not path.is_file():
        raise NetworkError(f"there is no file {path}; give path/to/file.py:function")
    # a name of its own, so that a file called torch.py replaces no installed module
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _find_modules_in(path.parent)
    sys.modules[name] = module  # before it runs, as dataclasses look their module up
    try:
        with users_code(f"{path} cannot be run"), defined(str(path)):
            spec.loader.exec_module(module)
    except NetworkError as exc:
        del sys.modules[name]
        if "no known parent package" in str(exc):
            raise NetworkError(f"{path} {_in_its_package(path)}") from exc
        raise
    return module


def _in_its_package(path: Path) -> str:
    """How a file that imports its neighbours with a dot is named, as the end of a sentence that begins with the file."""
    top = next(folder for folder in path.parents if not (folder / "__init__.py").is_file())
    if top == path.parent:
        return "imports its neighbours with a dot in front, but its folder has no __init__.py; add one, or take the dots out"
    name = ".".join(path.relative_to(top).with_suffix("").parts)
    return f"is a part of the package {name.split('.')[0]}; change to the folder {top}, and write {name} in place of the file"


def _reason(exc: BaseException) -> str:
    """The kind and the message of an exception in one line."""
    reason = " ".join(str(exc.msg if isinstance(exc, SyntaxError) else exc).split())[:300]
    return f"{type(exc).__name__}{f': {reason}' if reason else ''}"


def _theirs(exc: BaseException) -> list[traceback.FrameSummary]:
    """The frames of the traceback that are the user's own code, the outermost first."""
    frames = traceback.extract_tb(exc.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS) and _ADDED_FOLDERS not in frame.filename]


def _their_frames(exc: BaseException) -> Iterator[str]:
    for frame in _theirs(exc)[-_MOST_FRAMES:]:
        yield f"  {frame.filename}, line {frame.lineno}, in {frame.name}"
        if line := linecache.getline(frame.filename, frame.lineno or 0).strip():
            yield f"    {line}"


def _place(exc: BaseException) -> str:
    """The file and line of the innermost call in the user's code or, if there is none, of the innermost call."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}, line {exc.lineno}"
    frame = (_theirs(exc) or traceback.extract_tb(exc.__traceback__))[-1]
    return f"{frame.filename}, line {frame.lineno}"
