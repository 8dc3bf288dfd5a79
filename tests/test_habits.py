"""What people write by the habits of other tools: each gets what was meant, or a sentence with it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from test_table import table
from typer.testing import CliRunner, Result

from device_agents.support.errors import ToolError
from netadapt.cli.app import app as netadapt
from netadapt.resources.budgets import parse_budget
from profiler.cli.app import app as profile
from profiler.console import plain_errors
from profiler.devices.config import find_device
from profiler.errors import ModelError
from profiler.formats.model_file import format_of
from profiler.protocol.settings import Target

BENCHMARK = ("benchmark", "m.onnx")
BUILD = ("build", "p.json", "--runtime", "litert", "--out", "t.parquet")


def told(*arguments: str) -> str:
    """The error of a command that was called wrongly, on one line."""
    result: Result = CliRunner().invoke(profile, list(arguments), env={"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"})
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ort", "onnxruntime"), ("ORT", "onnxruntime"), ("onnx", "onnxruntime"), ("tflite", "litert"), ("lite-rt", "litert"),
        ("tensorflow-lite", "litert"),
        ("trt", "onnxruntime-tensorrt"), ("cuda", "onnxruntime-cuda"), ("onnxruntme", "onnxruntime"),
    ],
)  # fmt: skip
def test_a_runtime_by_another_name_says_which_was_meant(name: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in told(*BENCHMARK, "--runtime", name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*BENCHMARK, "--warmup", "3"), "No such option: --warmup; models are always warmed up"),
        ((*BENCHMARK, "--warmup=3"), "No such option: --warmup; models are always warmed up"),
        ((*BENCHMARK, "--runs", "50"), "No such option: --runs; write --rounds"),
        ((*BENCHMARK, "--num_threads=4"), "No such option: --num_threads; write --threads"),
        ((*BENCHMARK, "--use_gpu", "1"), "such as --runtime onnxruntime-cuda"),
        ((*BENCHMARK, "-s", "1A2B"), "write --device adb:SERIAL"),
        ((*BUILD, "--output", "x"), "No such option: --output; write --out"),
        (("benchmark", "--model", "m.onnx"), "give the file itself, without an option"),
        ((*BENCHMARK, "--thread", "4"), "Possible options: --threads"),
        ((*BENCHMARK, "--quiet"), "No such option: --quiet; progress goes to standard error"),
        ((*BENCHMARK, "--batch-size=4"), "No such option: --batch-size; the shape of the input has the batch"),
        ((*BENCHMARK, "--fp16"), "No such option: --fp16; a model file is measured in the precision that it has"),
        ((*BENCHMARK, "--config", "x.toml"), "No such option: --config; write it before the command"),
        (("m.onnx",), "benchmark FILE"),
        (("help",), "--help."),
        (("list",), "did you mean 'devices'?"),
        (("measure", "m.onnx"), "did you mean 'benchmark'?"),
    ],
)
def test_an_option_of_another_tool_says_what_to_write(arguments: tuple[str, ...], said: str) -> None:
    assert said in told(*arguments)


def test_an_option_that_the_command_has_not_is_not_advised() -> None:
    said = told(*BENCHMARK, "--output", "x")
    assert "write --out" not in said and "write --json > FILE" in said


@pytest.mark.parametrize(("app", "words"), [(profile, ("show", "a.parquet")), (netadapt, ("history", "run"))])
def test_several_files_say_how_to_call_the_command_for_each(app: object, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "b", "c"], env={"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"})  # type: ignore[arg-type]
    assert result.exit_code == 2
    assert "unexpected extra arguments (b c). For several: for each in ...; do" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.lite", "rename it to .tflite"), ("m.TFL", "rename it to .tflite"), ("m.pth", "export the network"),
        ("m.pt", "export the network with torch.onnx.export"), ("m.h5", "TFLiteConverter"), ("m.pb", "TFLiteConverter"),
        ("m.engine", "built by TensorRT"),
        ("m.ort", "the .onnx file that it was made from"), ("t.parquet", "a table"),
    ],
)  # fmt: skip
def test_a_model_of_another_kind_is_told_with_the_way_to_one_of_ours(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=said):
        format_of(tmp_path / name)


def test_a_pointer_that_git_lfs_left_is_told_with_the_command_that_fetches_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")
    with pytest.raises(ModelError, match="`git lfs pull`"):
        format_of(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "latency=5ms",
        "latency<5ms",
        "latency:5ms",
        "latency==5ms",
        "latency<=5ms",
        "latency <= 5 ms",
        "LATENCY=5MS",
        "latency=0.005s",
        "latency=5000us",
    ],
)
def test_a_budget_is_understood_however_it_is_written(text: str) -> None:
    assert parse_budget(text).absolute == pytest.approx(5)


def test_several_budgets_in_one_say_to_give_each_its_own() -> None:
    with pytest.raises(ToolError, match="--budget for each of several"):
        parse_budget("latency=60%,macs=50%")


@pytest.mark.parametrize(("name", "meant"), [("adapt", "run"), ("train", "run"), ("eval", "finetune"), ("list", "networks")])
def test_a_command_by_another_name_says_which_was_meant(name: str, meant: str) -> None:
    result = CliRunner().invoke(netadapt, [name], env={"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"})
    assert result.exit_code == 2 and f"did you mean '{meant}'?" in result.stderr


def test_an_accelerator_that_is_modelled_says_which_commands_take_it() -> None:
    with pytest.raises(ToolError, match="are for `profile build` and `profile estimate`"):
        find_device("model:nope")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from profiler.cli.app import app; app()", *map(str, arguments)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
@pytest.mark.parametrize("form", [(), ("--json",), ("--format", "csv")])
def test_output_into_a_full_disk_is_one_sentence(form: tuple[str, ...], tmp_path: Path) -> None:
    table().save(tmp_path / "t.parquet")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command("show", tmp_path / "t.parquet", *form), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device; free some space\n"


PRINTS = """
from profiler.console import command_group
app = command_group("A program.")
app.callback()(lambda: None)
app.command("print")(lambda: print("1 \\u2026 2"))
app(["print"])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_a_character_of_ours_shows_question_marks(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("1 ? 2\n", 0), done.stderr


STARTS = """
import sys
from device_agents.support.starting import run_program
class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "profiler.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
run_program("profiler.cli.app:app")
"""


def test_ctrl_c_while_a_program_starts_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted; nothing was written\n")


@pytest.mark.parametrize(("kept", "said"), [("there", "go on"), ("nowhere", "nothing was written")])
def test_what_is_kept_after_ctrl_c_is_said_only_if_it_is_there(
    kept: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(typer.Exit), plain_errors("go on", [tmp_path / kept]):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"\ninterrupted; {said}\n"


def test_a_folder_is_no_table_to_write() -> None:
    result = CliRunner().invoke(profile, [*BUILD[:-1], "."])
    assert isinstance(result.exception, SystemExit) and result.stderr.startswith("error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
@pytest.mark.parametrize("arguments", [("--help",), ("show", "--help"), ("--version",)])
def test_help_into_a_full_disk_is_one_sentence(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the output cannot be written")


def test_output_that_a_shell_has_closed_is_no_error(tmp_path: Path) -> None:
    table().save(tmp_path / "t.parquet")
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command("show", tmp_path / "t.parquet")]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("form", [(), ("--json",), ("--format", "csv")])
def test_output_into_a_closed_pipe_ends_in_silence(form: tuple[str, ...], tmp_path: Path) -> None:
    table().save(tmp_path / "t.parquet")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command("show", tmp_path / "t.parquet", *form), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_runtime_by_another_name_says_which_was_meant_where_no_option_lists_them() -> None:
    with pytest.raises(ToolError, match="there is no runtime 'ort'; did you mean 'onnxruntime'"):
        Target(runtime="ort")


PIPE = """
import errno
from profiler.console import plain_errors
with plain_errors():
    raise BrokenPipeError(errno.EPIPE, "the pipe to another program")
"""


def test_another_pipe_that_breaks_is_not_taken_for_the_output() -> None:
    done = subprocess.run([sys.executable, "-c", PIPE], capture_output=True, text=True)
    assert "BrokenPipeError" in done.stderr


def on_a_terminal(*arguments: object, **variables: str) -> bytes:
    """What a command prints where its output is a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80", **variables}
    process = subprocess.Popen(command(*arguments), stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal that nobody has open any more in this way
        while data := os.read(ours, 65536):
            printed += data
    os.close(ours)
    assert process.wait() == 0
    return printed


def test_colours_are_for_terminals_where_nobody_has_declined_them() -> None:
    colour = b"\x1b[3"
    assert colour in on_a_terminal("check", "--help")
    assert colour not in on_a_terminal("check", "--help", NO_COLOR="1")
