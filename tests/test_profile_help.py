"""`profile --help`: each command and each option explains itself in whole sentences."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from netadapt.cli.app import app as netadapt_app
from profiler.cli.app import app


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


COMMANDS = dict(commands(typer.main.get_command(app)))
OPTIONS = {
    f"{name} {option.opts[0]}": option for name, command in COMMANDS.items() for option in command.params if option.name != "help"
}


def is_sentence(text: str | None) -> bool:
    return bool(text) and (text or "")[0] in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" and (text or "").rstrip().endswith(".")


def test_subcommands_are_among_those_that_are_looked_at() -> None:
    assert {"build", "import", "schedule once", "runner build"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_explained_in_sentences(name: str) -> None:
    assert is_sentence(COMMANDS[name].help)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_explained_in_sentences(name: str) -> None:
    assert is_sentence(OPTIONS[name].help)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_what_holds_without_it(name: str) -> None:
    option = OPTIONS[name]
    shown = option.default not in (None, False)  # typer prints a default that is a value
    assert option.required or shown or "default" in option.help or "Without it" in option.help


PROGRAMS = {"profile": app, "netadapt": netadapt_app}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_its_version(program: str) -> None:
    done = CliRunner().invoke(PROGRAMS[program], ["--version"])
    assert (done.exit_code, done.output.startswith(f"netadapt-profiler {version('netadapt-profiler')}, Python 3.")) == (0, True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_says_what_its_exit_codes_mean_and_how_to_complete_its_words(program: str) -> None:
    help_text = " ".join(CliRunner().invoke(PROGRAMS[program], ["-h"], env={"COLUMNS": "200"}).output.split())
    assert "Exit codes: 0 when all went well" in help_text and "--install-completion" in help_text


@pytest.mark.parametrize("words", [name.split() for name in COMMANDS], ids=list(COMMANDS))
def test_h_is_short_for_help(words: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*words, option]) for option in ("-h", "--help"))
    assert short.exit_code == 0 and short.output == long.output


ALL_COMMANDS = {f"profile {name}": command for name, command in COMMANDS.items()} | {
    f"netadapt {name}": command for name, command in commands(typer.main.get_command(netadapt_app))
}


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_command_shows_examples_of_itself(name: str) -> None:
    assert f"Examples:\n\n{name}" in (ALL_COMMANDS[name].epilog or "")


@pytest.mark.parametrize("name", [*PROGRAMS, *ALL_COMMANDS])
def test_no_word_of_help_is_cut_at_80_columns(name: str) -> None:
    program, *words = name.split()
    shown = CliRunner().invoke(PROGRAMS[program], [*words, "--help"], env={"COLUMNS": "80"}).output
    options = ALL_COMMANDS[name].params if words else []
    assert "…" not in shown
    assert not [word for option in options for word in (option.metavar or "").strip("[]").split() if word not in shown]


def test_each_example_has_options_that_its_command_has() -> None:
    for command in ALL_COMMANDS.values():
        for line in command.epilog.split("\n\n")[1:]:
            name = max((name for name in ALL_COMMANDS if line.startswith(f"{name} ") or line == name), key=len)
            parameters = ALL_COMMANDS[name].params
            own = {text for parameter in parameters for text in (*parameter.opts, *parameter.secondary_opts)}
            assert not [word for word in line.split() if word.startswith("-") and word not in own], line


@pytest.mark.parametrize(
    ("name", "long", "short"),
    [
        ("profile build", "--device", "-d"), ("profile build", "--runtime", "-r"), ("profile build", "--threads", "-t"),
        ("profile build", "--out", "-o"), ("profile plot", "--out", "-o"), ("netadapt run", "--out", "-o"),
        ("netadapt run", "--budget", "-b"), ("netadapt measure", "--device", "-d"), ("netadapt measure", "--runtime", "-r"),
    ],
)  # fmt: skip
def test_common_options_have_a_short_form(name: str, long: str, short: str) -> None:
    assert (long, short) in [tuple(parameter.opts) for parameter in ALL_COMMANDS[name].params]
