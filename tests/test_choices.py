"""What commands and profile.toml offer comes from the registries: a new runner, runtime or device kind is listed by itself."""

from __future__ import annotations

import pytest
from test_profile_cli import run

from device_agents.discovery import AGENTS, address_forms, agent_kind
from profiler.runner_names import RUNNERS
from profiler.runners import runner_named
from profiler.runtimes import RUNTIMES


@pytest.mark.parametrize("name", RUNNERS)
def test_a_runner_is_found_by_the_name_it_has_itself(name: str) -> None:
    assert runner_named(name).name == name


@pytest.mark.parametrize("name", RUNNERS)
def test_every_runner_can_be_asked_for(name: str) -> None:
    result = run("benchmark", "nowhere.onnx", "--runner", name)
    assert (result.exit_code, "there is no file" in result.stderr) == (1, True)


def test_a_runner_that_does_not_exist_is_refused_with_those_that_do() -> None:
    result = run("benchmark", "nowhere.onnx", "--runner", "abacus")
    assert result.exit_code == 2
    assert all(name in " ".join(result.stderr.split()) for name in ("abacus", "python", "native"))


@pytest.mark.parametrize("name", [runtime.name for runtime in RUNTIMES.values() if not runtime.is_simulated])
def test_every_runtime_can_be_asked_for(name: str) -> None:
    result = run("benchmark", "nowhere.onnx", "--runtime", name)
    assert (result.exit_code, "there is no file" in result.stderr) == (1, True)


def test_the_simulated_runtime_is_not_offered() -> None:
    assert run("benchmark", "nowhere.onnx", "--runtime", "fake").exit_code == 2


@pytest.mark.parametrize("command", ["benchmark", "build", "doctor", "clean"])
def test_the_help_lists_every_kind_of_address(command: str) -> None:
    words = " ".join(run(command, "--help").output.replace("│", " ").split())
    assert ", ".join(address_forms()) in words


@pytest.mark.parametrize("kind", AGENTS)
def test_addresses_of_a_device_kind_begin_with_its_name(kind: str) -> None:
    assert {form.split(":")[0] for form in agent_kind(kind).address_forms} <= {kind}
