"""Builds the native runner, on_device/measure.c, for this machine or for a device without Python.

It is built once for each compiler and state of the sources, and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from device_agents.support.atomic import whole
from device_agents.support.cache import cache_folder
from device_agents.support.errors import ToolError

SOURCES = Path(__file__).parent / "on_device"
TARGETS = ("host", "aarch64-linux", "android-arm64")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIE", "-pie", "-s", "-static-libgcc")
LIBRARIES = ("-pthread", "-ldl", "-lm")
"""Not -lpthread, because Android has no such library: its threads are in libc."""
ANDROID_API = 24
ANDROID_FLAGS = ("-Wl,-z,max-page-size=16384",)
"""Devices with Android 15 may have pages of 16 KiB."""
BUILD_S = 300.0


class UnknownTarget(ToolError):
    """The runner cannot be built for a target of this name."""


class CompilerMissing(ToolError):
    """No compiler for the target is installed."""


class BuildFailed(ToolError):
    """The compiler failed, or the program cannot be written."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler for one target."""

    argv: tuple[str, ...]
    """The program, with the arguments that make it compile for the target."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """The runner, built for one target."""

    target: str
    path: Path
    build: str
    """Compiler and target, as the runner itself reports them."""
    sha256: str


def build(target: str, out: Path, ndk: Path | None = None) -> Built:
    """Write the runner for a target to `out`. `ndk` is the folder of Android's NDK; None for that of ANDROID_NDK_HOME."""
    kept = cached(target, ndk)
    _write_program(out, kept.path.read_bytes())
    return replace(kept, path=out)


def cached(target: str, ndk: Path | None = None) -> Built:
    """The runner for a target in the cache folder, built if it is not there."""
    compiler = find_compiler(target, ndk)
    text = _describe(compiler)
    kept = cache_folder() / "native" / f"measure-{target}-{_key(compiler, text)}"
    if not kept.exists():
        _compile(compiler, text, kept)
    return Built(target, kept, text, hashlib.sha256(kept.read_bytes()).hexdigest())


def sources() -> list[Path]:
    return [SOURCES / "measure.c", *sorted((SOURCES / "native").glob("*.c"))]


# -------------------------------------------------------------------------------------------------------------- compilers


def find_compiler(target: str, ndk: Path | None = None) -> Compiler:
    """The first compiler for a target that is installed. `CompilerMissing` with what to install, or `UnknownTarget`."""
    match target:
        case "host":
            return _installed(("cc",), ("gcc",), ("clang",), install="no C compiler found: apt install gcc, or put cc on PATH")
        case "aarch64-linux":
            clang = ("clang", "--target=aarch64-linux-gnu")
            names = (("aarch64-linux-gnu-gcc",), *([clang] if Path("/usr/aarch64-linux-gnu").exists() else []))
            return _installed(*names, install="no compiler for aarch64 Linux found: apt install gcc-aarch64-linux-gnu")
        case "android-arm64":
            return _android(ndk)
    raise UnknownTarget(f"the runner cannot be built for {target!r}; known targets are {', '.join(TARGETS)}")


def _installed(*candidates: tuple[str, ...], install: str) -> Compiler:
    for argv in candidates:
        if shutil.which(argv[0]):
            return Compiler(argv)
    raise CompilerMissing(install)


def _android(ndk: Path | None) -> Compiler:
    named = ndk or (Path(os.environ["ANDROID_NDK_HOME"]) if os.environ.get("ANDROID_NDK_HOME") else None)
    if named is None:
        raise CompilerMissing(
            "Android's NDK is not known here: unpack it from https://developer.android.com/ndk/downloads and name its folder "
            "with --ndk or in ANDROID_NDK_HOME"
        )
    found = sorted(named.glob("toolchains/llvm/prebuilt/*/bin/clang"))
    if not found:
        raise CompilerMissing(f"there is no toolchains/llvm/prebuilt/*/bin/clang below {named}; is it the folder of Android's NDK?")
    return Compiler((str(found[-1]), f"--target=aarch64-linux-android{ANDROID_API}"), ANDROID_FLAGS)


# --------------------------------------------------------------------------------------------------------------- building


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=BUILD_S, cwd=SOURCES)
    except OSError as exc:
        raise CompilerMissing(f"{argv[0]} cannot be run: {exc.strerror or exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise BuildFailed(f"{argv[0]} did not end within {BUILD_S:g} s; build on a less busy machine") from exc


def _describe(compiler: Compiler) -> str:
    """'gcc (Debian 12.2.0) 12.2.0, x86_64-linux-gnu', without characters that would have to be quoted in C."""
    lines = [_run([*compiler.argv, what]).stdout.strip().split("\n")[0] for what in ("--version", "-dumpmachine")]
    return "".join(sign for sign in ", ".join(lines) if sign.isprintable() and sign.isascii() and sign not in '"\\')


def _key(compiler: Compiler, text: str) -> str:
    digest = hashlib.sha256(repr((compiler, text, FLAGS, LIBRARIES)).encode())
    for path in [*sources(), *sorted((SOURCES / "native").glob("*.h"))]:
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def _compile(compiler: Compiler, text: str, out: Path) -> None:
    names = [str(path.relative_to(SOURCES)) for path in sources()]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "measure")
        defined = f'-DBUILD="{text}"'
        done = _run([*compiler.argv, *FLAGS, *compiler.flags, defined, "-o", str(program), *names, *LIBRARIES])
        if done.returncode != 0:
            why = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise BuildFailed(f"{compiler.argv[0]} cannot build the runner: {why}; update it, or use another compiler")
        _write_program(out, program.read_bytes())


def _write_program(path: Path, data: bytes) -> None:
    with whole(path, BuildFailed) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.chmod(0o755)
