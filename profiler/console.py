"""What both commands share: errors as one sentence, tables on a terminal, JSON on request."""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from device_agents.support.errors import ToolError
from device_agents.support.starting import INTERRUPTED
from device_agents.support.text import printable
from profiler.finding import Finding

EXIT_CODES = (
    "Exit codes: 0 when all went well; 1 for an error, which is one sentence on standard error; 2 for options that do not exist or "
    "do not fit; 130 after Ctrl-C."
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"netadapt-profiler {version('netadapt-profiler')}, Python {platform.python_version()}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and do nothing else.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON. Without it, the result is printed as text.")]

_WARM_UP = "models are always warmed up until their latency is steady"
_ROUNDS = "write --rounds"
_GPU = "the runtime says what computes, such as --runtime onnxruntime-cuda"
_SAID = "everything worth knowing is printed anyway"
_QUIET = "progress goes to standard error, which 2>/dev/null silences"
_PRECISION = "a model file is measured in the precision that it has; export it in another"
_BATCH = "the shape of the input has the batch, such as --shape NAME=4x3x224x224 where the file leaves it open"
_ARGUMENT = "give the file itself, without an option"
MEANT: Mapping[str, str] = {
    "--warmup": _WARM_UP, "--warm-up": _WARM_UP, "--warmup-runs": _WARM_UP, "--warmup_runs": _WARM_UP, "--warmups": _WARM_UP,
    "--output": "write --out", "--output-file": "write --out", "--outfile": "write --out",
    "--outdir": "write --out", "--output-dir": "write --out",
    "--iterations": _ROUNDS, "--iters": _ROUNDS, "--runs": _ROUNDS, "--num-runs": _ROUNDS, "--num_runs": _ROUNDS,
    "--repeat": _ROUNDS, "--repeats": _ROUNDS, "-n": _ROUNDS, "-r": _ROUNDS,
    "--num-threads": "write --threads", "--num_threads": "write --threads", "-j": "write --threads",
    "--intra-op-num-threads": "write --threads",
    "--serial": "write --device adb:SERIAL", "-s": "write --device adb:SERIAL", "--host": "write --device ssh:HOST",
    "--target": "write --device",
    "--gpu": _GPU, "--cuda": _GPU, "--use-gpu": _GPU, "--use_gpu": _GPU, "--provider": _GPU, "--backend": "write --runtime",
    "--framework": "write --runtime", "--ep": _GPU,
    "--model": _ARGUMENT, "--graph": _ARGUMENT, "--input-file": _ARGUMENT, "-m": _ARGUMENT, "-i": _ARGUMENT,
    "--batch": "write --batch-size",
    "--verbose": _SAID, "-v": _SAID, "--debug": _SAID, "--quiet": _QUIET, "-q": _QUIET, "--silent": _QUIET,
    "-o": "write --out", "--format": "write --json", "--csv": "write --json", "--delegate": _GPU,
    "--dataset": "write --data", "--data-dir": "write --data", "--checkpoint": "write --weights", "--pretrained": "write --weights",
    "--lr": "write --learning-rate", "--bs": "write --batch-size", "--num-classes": "write --classes",
    "--input-size": "write --resolution", "--img-size": "write --resolution", "--image-size": "write --resolution",
}  # fmt: skip
"""What to write instead of options that other tools have, as the end of a sentence."""

MEANT_OF_FILES: Mapping[str, str] = {
    **dict.fromkeys(("--batch", "--batch-size", "--batch_size", "-b"), _BATCH),
    **dict.fromkeys(("--fp16", "--allow-fp16", "--int8", "--half", "--precision"), _PRECISION),
}
"""The same for commands that read model files, which have --shape."""
MEANT_COMMANDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("model", "latency", "time", "profile"), ("benchmark",)),
    **dict.fromkeys(("adapt", "netadapt", "train", "prune", "search", "compress"), ("run",)),
    **dict.fromkeys(("eval", "evaluate", "test", "fine-tune"), ("finetune", "check")),
    **dict.fromkeys(("list", "ls"), ("devices", "networks")),
    **dict.fromkeys(("table", "tables", "print", "view"), ("show",)), "status": ("devices", "history"),
    "bench": ("benchmark", "measure"),
    "benchmark": ("measure",), "measure": ("benchmark",), "run": ("benchmark",),
    "resume": ("build",), "convert": ("export", "import"),
}  # fmt: skip
"""Names that other tools have for commands, with ours; of several, the first that the program has is meant."""

ARGUMENTS = "netadapt.arguments"
"""Where a command finds its arguments as they were typed, in the `meta` of its context."""


def command_group(summary: str) -> typer.Typer:
    """A program of several commands, which are added to it as `Command`; `-h` works for all of them."""
    return typer.Typer(
        cls=Group,
        help=summary,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def examples(lines: Sequence[str]) -> str | None:
    """The end of a command's help. Each example is a paragraph of its own, as typer joins the lines of one."""
    return "\n\n".join(("Examples:", *lines)) if lines else None


class Group(TyperGroup):
    """A program whose errors about commands say which was meant, where the habits of other tools show."""

    def main(self, *args: Any, **named: Any) -> Any:
        """Run the program. Its help and its version may be too much for the disk as well."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # a shell has closed it
                setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):  # a terminal in Latin-1 or ASCII has no ellipsis and no arrow
                stream.reconfigure(errors="replace")
        try:
            return super().main(*args, **named)
        except OSError as exc:
            if not _could_not_print(exc):
                raise
            sys.exit(1)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The command that the first argument names. A usage error, with the next step, if there is none."""
        name = args[0]
        if name not in self.commands:
            ours = next((known for known in MEANT_COMMANDS.get(name.lower(), ()) if known in self.commands), None)
            if name in ("help", "version"):
                ctx.fail(f"No such command '{name}'; write {ctx.command_path} --{name}.")
            if "." in name and "benchmark" in self.commands:
                ctx.fail(f"No such command '{printable(name, 80)}'; to measure a file, write {ctx.command_path} benchmark FILE.")
            if ours:
                ctx.fail(f"No such command '{name}'; did you mean '{ours}'?")
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """A command whose errors about options and arguments say what to write, where the habits of other tools show."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Take the arguments. A usage error, with the next step, for those that the command does not have."""
        ctx.meta[ARGUMENTS] = tuple(args)
        own = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for argument in args:
            name = argument.partition("=")[0]
            way = (MEANT_OF_FILES.get(name) if "--shape" in own else None) or MEANT.get(name, "")
            if name == "--config" and any("--config" in each.opts for each in ctx.find_root().command.params):
                way = "write it before the command"
            if way == "write --out" and "--out" not in own:
                way = "write --json > FILE, which prints the result into a file"
            if (
                name not in own
                and way
                and (not way.startswith("write ") or not (option := way.split()[1]).startswith("-") or option in own)
            ):
                ctx.fail(f"No such option: {name}; {way}.")
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if ctx.args:
            more = printable(" ".join(ctx.args), 200)
            ctx.fail(f'Got unexpected extra arguments ({more}). For several: for each in ...; do {ctx.command_path} "$each"; done')
        return rest


@contextmanager
def plain_errors(after_interrupt: str = "", kept: Sequence[Path] = ()) -> Iterator[None]:
    """Print one of our errors as a sentence and exit with 1; after Ctrl-C say what is kept and exit with 130.

    What is kept is said only if one of the paths `kept` is there by then.

    Standard output that goes to a full disk is such an error too. A reader that has closed the pipe, as `head` does, wants no more.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as exc:
        if not _could_not_print(exc):
            raise
        raise typer.Exit(1) from exc
    except ToolError as exc:
        print(f"error: {exc}", file=sys.stderr)
        raise typer.Exit(1) from exc
    except KeyboardInterrupt as exc:
        is_kept = after_interrupt and (not kept or any(path.exists() for path in kept))
        print(f"\ninterrupted; {after_interrupt if is_kept else 'nothing was written'}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from exc


def _could_not_print(exc: OSError) -> bool:
    """True for an error of standard output, of which a full disk is told, and where what is left in buffers is dropped."""
    # an error of a file has its name; one without, of these kinds, comes from printing, or from the pipe to another program
    if exc.filename is not None or not (exc.errno == errno.ENOSPC or (exc.errno == errno.EPIPE and _reader_is_gone())):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in buffers goes there when Python ends
    if exc.errno == errno.ENOSPC:
        print(f"error: the output cannot be written: {exc.strerror}; free some space", file=sys.stderr)
    return True


def _reader_is_gone() -> bool:
    """True if standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does, so that a device is left in order; one that is ignored, as under nohup, stays so."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def percent(text: str, option: str) -> float:
    """'2%' or '2' as 2.0. `ToolError` for anything that is no percentage above 0 and up to 100."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise ToolError(f"{option} takes a percentage such as 2%, not {text!r}")
    return value


def age_text(days: float) -> str:
    """31 days, 14 hours or 6 minutes."""
    for number, unit, most in ((1440 * days, "minute", 120), (24 * days, "hour", 48)):
        if number < most:
            return f"{number:.0f} {unit}{'' if round(number) == 1 else 's'}"
    return f"{days:.0f} days"


def local_time(moment: datetime) -> str:
    """Date and time to the minute, where this machine is."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def print_findings(findings: Sequence[Finding], none: str) -> None:
    """Each with its next step; the sentence `none` where there are none."""
    for finding in findings:
        print(f"{finding.severity}: {finding.what}\n  {finding.next_step}")
    if not findings:
        print(none)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table as wide as the terminal; columns named in `right` hold numbers. None shows as a dash."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else printable(str(cell))) for cell in row))  # as it stands: no markup
    # a pipe has no width of its own: give it enough that nothing is folded
    Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False).print(table)


def count(number: int | None) -> str | None:
    """1234567 as 1.235 M; None stays None."""
    if number is None:
        return None
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.4g} {unit}"
    return str(number)


def sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
