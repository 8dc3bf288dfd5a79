"""Baselines: all kinds through the commands on a tiny run, measured on this machine, and what makes them comparable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_run import GRAPH, INFO, adapted_run, complete_run
from test_netadapt_cli import NETWORK, plan, run, succeed, table

from netadapt.baselines import BASELINES, open_baseline, title_of
from netadapt.baselines.compare import applicable_kinds, compare
from netadapt.baselines.macs import search
from netadapt.baselines.match import Match
from netadapt.baselines.torch_pruning import pruned
from netadapt.baselines.uniform_family import multipliers
from netadapt.errors import RunError, SettingsError
from netadapt.executors import ExecutorOptions
from netadapt.runs.models import RunModels, randomly_initialised
from netadapt.runs.records import Baseline
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.training_schedule import stages_of
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.tasks import open_task
from profiler.progress import Silent
from profiler.protocol.settings import Target
from profiler.tables.growing import GrowingTable

__all__ = ["plan", "table"]  # fixtures
pytestmark = pytest.mark.usefixtures("traced_once")

QUICK = ["--data", "digits", "--epochs", 0.25, "--short-term-steps", 1, "--step", 0.12]
LONG_EPOCHS = 0.2
MACS_ONLY = replace(INFO, budgets=("macs=60%",), tables={})


@pytest.fixture(scope="module")
def compared(table: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A run with all kinds of baselines and two seeds of each, and what the command said of them."""
    torch.set_num_threads(1)  # several fight over the cores with whatever else is tested
    path = table.with_name("compared")
    options = ["--table", table, "--budget", "latency=85%", "--no-measure"]
    succeed("run", *NETWORK, *QUICK, *options, "--out", path)
    return path, json.loads(succeed("baselines", path, "--seeds", 2, "--epochs", LONG_EPOCHS, "--json"))


def mtimes(path: Path) -> dict[str, int]:
    return {str(item): item.stat().st_mtime_ns for item in sorted(path.rglob("*.pt"))}


@contextmanager
def matching(path: Path) -> Iterator[Match]:
    with RunFolder.open(path, write=True) as folder:
        models, table = RunModels(folder), GrowingTable(folder.table_path())
        yield Match(
            models,
            models.step(None),
            Target(),
            table,
            stages_of(folder.info.settings, RecipeOverrides(epochs=LONG_EPOCHS)),
            ExecutorOptions(),
            Silent(),
        )


def compared_again(path: Path, kinds: Sequence[str]) -> list[Baseline]:
    """What the command does before it measures."""
    with matching(path) as match:
        return compare(match, list(kinds), seed=1, seeds=2)


@pytest.mark.slow
def test_every_kind_is_trained_with_every_seed_and_measured(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    _, found = compared
    assert [item["kind"] for item in found] == list(BASELINES)
    for item in found:
        assert [trained["seed"] for trained in item["runs"]] == [1, 2]
        assert item["accuracy"]["count"] == 2 and item["accuracy"]["deviation"] >= 0
        assert item["measured_ms"] > 0 and item["predicted_ms"] > 0


@pytest.mark.slow
def test_original_and_adapted_are_fine_tuned_with_the_same_seeds_and_measured_beside_them(
    compared: tuple[Path, list[dict[str, Any]]],
) -> None:
    with RunFolder.open(compared[0]) as folder:
        last = folder.steps[-1].iteration
        for number in (0, last):
            assert [trained.seed for trained in folder.finished[number].runs] == [1, 2]
            assert folder.verified[number].measured_ms.value > 0
    history = json.loads(succeed("history", compared[0], "--json"))
    assert len(history[-1]["test_accuracies"]) == 2
    assert history[-1]["test_accuracy"] == history[-1]["test_accuracies"][0]


@pytest.mark.slow
def test_baselines_differ_from_the_adapted_network_in_what_they_say(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    path, found = compared
    by_kind = {item["kind"]: item for item in found}
    with RunFolder.open(path) as folder, RunFolder.open(path / "baselines" / "macs") as macs:
        last = folder.steps[-1]
        assert by_kind["scratch"]["widths"] == last.widths
        assert by_kind["multiplier"]["widths"] == by_kind["uniform"]["widths"] != last.widths
        assert by_kind["macs"]["widths"] in [step.widths for step in macs.steps]
        assert macs.weights_path(macs.steps[0].weights).read_bytes() == folder.weights_path(folder.steps[0].weights).read_bytes()
        assert macs.steps[0].accuracy == folder.steps[0].accuracy
        assert macs.info.settings.seed == folder.info.settings.seed


@pytest.mark.slow
def test_what_random_weights_grow_from_is_as_long_a_training(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    path, found = compared
    training = {item["kind"]: item["training"] for item in found}
    with RunFolder.open(path) as folder:
        last, start = folder.finished[folder.steps[-1].iteration], folder.steps[0].weights
    assert training["multiplier"] == training["scratch"]
    assert len(training["scratch"]) == 4
    assert training["uniform"][1:] == training["scratch"][2:]
    assert start in training["uniform"][0]
    assert {item[-1] for item in training.values()} == {last.training[-1]}


@pytest.mark.slow
def test_what_is_there_is_not_trained_measured_or_searched_again(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    path, found = compared
    before = mtimes(path)
    again = compared_again(path, BASELINES)
    assert mtimes(path) == before
    assert [item.measured_ms.value if item.measured_ms else None for item in again] == [item["measured_ms"] for item in found]


@pytest.mark.slow
def test_only_the_seed_that_is_missing_is_trained(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = compared
    plain = json.loads((path / "baselines.json").read_text())
    lost = plain[1]["runs"].pop()
    (path / "baselines.json").write_text(json.dumps(plain))
    before = mtimes(path)
    (again,) = compared_again(path, [plain[1]["kind"]])
    assert {name for name, moment in mtimes(path).items() if before[name] != moment} == {str(path / "weights" / lost["weights"])}
    assert asdict(again.runs[-1]) == lost  # and comes out the same


@pytest.mark.slow
def test_a_search_guided_by_macs_that_was_killed_goes_on_to_the_same_end(
    compared: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(compared[0], path)
    steps = path / "baselines" / "macs" / "steps.jsonl"
    with RunFolder.open(steps.parent) as folder:
        before = folder.steps
    steps.write_text(steps.read_text().partition("\n")[0] + '\n{"iteration":1,"bl')
    with matching(path) as match:
        again = search(match)
    assert [(step.widths, step.accuracy) for step in again] == [(step.widths, step.accuracy) for step in before]


@pytest.mark.slow
def test_a_search_from_another_original_network_is_not_gone_on_with(
    compared: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(compared[0], path)
    with matching(path) as match:
        match.models.run.weights_path(match.models.step(0).weights).write_bytes(b"other")
        with pytest.raises(RunError, match="another original network"):
            search(match)
        match.models.run.weights_path(match.models.step(0).weights).unlink()
        with pytest.raises(RunError, match="cannot be read: No such file"):
            search(match)


@pytest.mark.slow
def test_torch_pruning_makes_ever_narrower_networks_that_still_run_and_the_same_each_time(
    compared: tuple[Path, list[dict[str, Any]]],
) -> None:
    with matching(compared[0]) as match:
        graph, found = match.models.run.graph, []
        _, (_, height, width, channels) = graph.inputs[0]
        for label, widths, model in pruned(match):
            with torch.inference_mode():
                assert model(torch.zeros(2, channels, height, width)).shape == (2, 10)
            found.append((label, dict(widths)))
        again = [(label, dict(widths)) for label, widths, _ in pruned(match)]
    macs = [graph.at_widths(widths).macs for _, widths in found]
    assert len(found) > 10 and macs == sorted(macs, reverse=True)
    assert again == found
    assert all(width % 8 == 0 for _, widths in found for width in widths.values())


@pytest.mark.slow
def test_torch_pruning_starts_from_the_trained_original(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    path, found = compared
    item = next(item for item in found if item["kind"] == "torch-pruning")
    with matching(path) as match:
        method = open_baseline("torch-pruning")
        model = method.begin(
            match, match.choice(method.shape, item["name"].split("-as-")[0].removeprefix("torch-pruning-"), item["widths"]), 1
        )
        original = match.models.model(match.models.step(0), finished=False)
    kept, before = model.state_dict()["stem.conv.weight"], original.state_dict()["stem.conv.weight"]
    assert all(any(bool((one == other).all()) for other in before) for one in kept)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.slow
def test_the_report_shows_all_kinds_with_their_spread(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    page = (compared[0] / "report.html").read_text()
    assert all(title_of(kind) in page for kind in BASELINES)
    assert "test, 2 seeds" in page and "What guided the search" in page


@pytest.mark.slow
def test_every_seed_starts_from_other_random_weights(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    with RunFolder.open(compared[0]) as folder:
        models = RunModels(folder)
        one, same, other = (next(randomly_initialised(models, folder.steps[-1].widths, seed).parameters()) for seed in (1, 1, 2))
    assert bool((one == same).all()) and not bool((one == other).all())


def test_a_run_without_a_latency_budget_is_compared_with_its_shape_from_scratch_only() -> None:
    assert applicable_kinds(MACS_ONLY) == ("scratch",)
    assert applicable_kinds(INFO) == tuple(BASELINES)


@pytest.mark.parametrize("kind", [kind for kind in BASELINES if open_baseline(kind).needs_latency])
def test_equal_latency_without_a_latency_budget_is_refused(kind: str) -> None:
    with pytest.raises(RunError, match="no latency budget"):
        applicable_kinds(MACS_ONLY, [kind])


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'uniform'"):
        applicable_kinds(INFO, ["unifrom"])


@pytest.mark.slow
def test_the_original_has_nothing_to_beat(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    told = run("baselines", compared[0], "--step", 0)
    assert told.exit_code == 1
    assert "choose a later --step" in told.stderr


def test_a_recipe_from_scratch_has_the_steps_of_every_iteration() -> None:
    training = replace(
        INFO.settings.training, recipe=open_task("classification").recipe.changed(RecipeOverrides(epochs=7.0), RecipeOverrides())
    )
    recipe = stages_of(replace(INFO.settings, training=training), RecipeOverrides(epochs=3.0))
    training, short, long = recipe.from_scratch(9)
    assert (training.settings.epochs, short.settings.steps, long.settings.epochs) == (7.0, 180, 3.0)
    assert [stage.with_holdout for stage in (training, short, long)] == [False, False, True]
    assert recipe.pruned(9) == (short, long)
    assert recipe.pruned(0) == (long,)


def test_evenly_thinner_networks_keep_multiples_of_eight_and_are_each_there_once() -> None:
    found = [widths for _, widths in multipliers(GRAPH)]
    assert all(width % 8 == 0 for widths in found for width in widths.values())
    assert len({tuple(widths.values()) for widths in found}) == len(found)
    assert GRAPH.widths not in found


def test_a_baseline_of_the_same_kind_for_the_same_step_takes_the_others_place(tmp_path: Path) -> None:
    with adapted_run(tmp_path / "run") as folder:
        one = replace(complete_run(tmp_path / "other").baselines[0], name="one", kind="uniform", step=3)
        for item in (one, replace(one, step=4), replace(one, name="two")):
            folder.add_baseline(item)
        assert [(item.name, item.step) for item in folder.baselines] == [("one", 4), ("two", 3)]
