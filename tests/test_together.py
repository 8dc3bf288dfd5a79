"""Trainings that go on where they were interrupted, and those of several processes together: both end as if nothing had been."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_netadapt_cli import run, succeed
from test_own_data import DATA
from test_training import SETTINGS, _bright_or_dark, _network, _weights
from torch import distributed as dist
from torch import nn

from netadapt.errors import SettingsError
from netadapt.runs.finetune import trainings_of
from netadapt.runs.models import RunModels
from netadapt.runs.records import Trained
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.training_jobs import TrainingJob, train_jobs
from netadapt.runs.training_schedule import Stage, advancing, stages_of
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.interrupted import Interrupted
from netadapt.training.recipe import RecipeOverrides
from netadapt.training.together import Share, synchronise
from netadapt.training.trainer import train
from profiler.progress import Silent

AUGMENTED = replace(SETTINGS, augment=True, ema=0.9)


class Killed(Exception):
    """Stands for the end of the process."""


def trained_after_interruption(path: Path, at: int, what: str = "this") -> nn.Module:
    """A model whose training was killed after the step `at` and given again."""

    def kill(step: int, _steps: int, _loss: float) -> None:
        if step == at:
            raise Killed

    with pytest.raises(Killed):
        train(_network(), _bright_or_dark(), AUGMENTED, seed=1, progress=kill, interrupted=Interrupted(path, "this", every_s=0))
    again, told = _network(), list[int]()
    train(
        again, _bright_or_dark(), AUGMENTED, seed=1, progress=lambda step, _steps, _loss: told.append(step),
        interrupted=Interrupted(path, what),
    )  # fmt: skip
    assert told[0] == (at if what == "this" else 1)
    return again


def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = _network()
    train(whole, _bright_or_dark(), AUGMENTED, seed=1)
    assert torch.equal(_weights(trained_after_interruption(tmp_path / "a.unfinished", 17)), _weights(whole))


def test_another_training_or_a_damaged_file_begins_anew(tmp_path: Path) -> None:
    trained_after_interruption(tmp_path / "a.unfinished", 5, what="another")
    (tmp_path / "b.unfinished").write_bytes(b"no weights")
    assert Interrupted(tmp_path / "b.unfinished", "this").load() is None


def test_a_training_is_saved_now_and_then_and_not_after_every_step(tmp_path: Path) -> None:
    train(_network(), _bright_or_dark(), replace(SETTINGS, steps=2), seed=1, interrupted=Interrupted(tmp_path / "a", "this"))
    assert not (tmp_path / "a").exists()


def test_the_time_of_a_training_leaves_out_the_time_for_which_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    first = Interrupted(tmp_path / "a", "this")
    first.load()
    now_s += 7
    first.save({})
    now_s += 1000
    second = Interrupted(tmp_path / "a", "this")
    second.load()
    now_s += 3
    assert second.seconds == 10


def test_a_training_that_goes_on_shows_the_steps_that_it_has_already_once() -> None:
    notes: list[str] = []

    class Noting(Silent):
        def advance(self, note: str = "") -> None:
            notes.append(note)

    tell = advancing(Noting())
    for done in (5, 6, 7):
        tell(done, 1.0)
    assert len(notes) == 7


def test_shares_make_up_the_whole_batch() -> None:
    batch = torch.arange(12)
    shares = [Share(rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([share.of(batch) for share in shares]), batch)
    assert [share.first(12) for share in shares] == [0, 4, 8]
    assert torch.equal(sum((share.in_whole(share.of(batch)) for share in shares), torch.zeros(12)), batch.float())


def test_a_batch_that_cannot_be_shared_alike_is_told() -> None:
    with pytest.raises(SettingsError, match="a batch of 16 images cannot be shared alike by 3 processes"):
        Share(0, 3).require(16)


def test_examples_of_a_share_are_drawn_as_in_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "mydata.py").write_text(DATA)
    part = open_dataset(f"{tmp_path / 'mydata.py'}:make_data", resolution=8, seed=1).train
    groups = [torch.arange(start, start + 6) for start in (0, 6, 12)]
    whole = [inputs for inputs, _ in part.batches(groups, seed=3)]
    share = Share(1, 2)
    own = [inputs for inputs, _ in part.batches(map(share.of, groups[1:]), seed=3, after=1, offset=share.first(6))]
    assert all(torch.equal(mine, theirs[3:]) for mine, theirs in zip(own, whole[1:], strict=True))  # type: ignore[index]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_batch_normalisation_is_torchs_own_where_there_is_one_process(momentum: float | None) -> None:
    images = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    plain, synced = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum)) for _ in range(2))
    synced.load_state_dict(plain.state_dict())
    synchronise(synced)
    for _ in range(2):
        outputs = [network(images) for network in (plain, synced)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
        for network, found in zip((plain, synced), outputs, strict=True):
            found.square().sum().backward()
            assert network[0].weight.grad is not None
    torch.testing.assert_close(synced[0].bias.grad, plain[0].bias.grad, rtol=1e-3, atol=1e-3)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(synced.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-4)


NET = """
from torch import nn

def make_net(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))
"""
"""Small, as in a deep network of few images the last bits of a sum soon grow into other weights."""
FINETUNE = ["--step", 1, "--epochs", 0.25, "--learning-rate", 0.01, "--batch-size", 32, "--distill", 0.5]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "net.py").write_text(NET)
    options = ["--input", "1x3x16x16", "--data", "digits", "--epochs", 1, "--short-term-steps", 1, "--step", 0.12]
    succeed("run", f"{folder / 'net.py'}:make_net", *options, "--budget", "macs=95%", "--out", folder / "run")
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("start", [[], ["--from-scratch"]])
def test_processes_together_and_side_by_side_end_with_the_weights_of_one(adapted: Path, tmp_path: Path, start: list[str]) -> None:
    found = []
    for options in ([], ["--processes", 2], ["--workers", 2]):
        path = tmp_path / "-".join(map(str, options))
        shutil.copytree(adapted, path, dirs_exist_ok=True)
        succeed("finetune", path, *FINETUNE, "--step", 0, *start, *options)
        with RunFolder.open(path) as folder:
            records = [folder.finished[step] for step in (0, 1)]
            weights = [torch.load(folder.weights_path(record.weights)) for record in records]
        found.append((weights, records))
        assert not [*path.glob("weights/*.unfinished"), *path.glob("weights/*.begin")]
    (one, records), *others = found
    for weights, of_others in others:
        for step in (0, 1):
            for name, value in one[step].items():
                torch.testing.assert_close(weights[step][name], value, rtol=1e-3, atol=1e-4)
            assert of_others[step].test_accuracy == pytest.approx(records[step].test_accuracy, abs=0.005)
            assert of_others[step].training == records[step].training


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to see processes")
@pytest.mark.parametrize(("processes", "workers"), [(2, 1), (1, 2)])
def test_ctrl_c_leaves_no_process_and_no_half_result(adapted: Path, tmp_path: Path, processes: int, workers: int) -> None:
    shutil.copytree(adapted, tmp_path / "run")

    def press(_job: TrainingJob, _step: int, _loss: float) -> None:
        raise KeyboardInterrupt

    with RunFolder.open(tmp_path / "run") as folder:
        step, settings = folder.steps[1], replace(folder.info.settings.training.recipe.long_term, epochs=50.0)
        begin = str(folder.weights_path(step.weights))
    jobs = [
        TrainingJob(str(tmp_path / "run"), "training", step.widths, begin, (Stage("training", settings),), 1, f"{name}.pt", "this")
        for name in ("a", "b")
    ]
    with pytest.raises(KeyboardInterrupt):
        list(train_jobs(jobs, press, processes=processes, workers=workers))
    assert not list((tmp_path / "run/weights").glob("[ab].pt"))
    assert processes > 1 or list((tmp_path / "run/weights").glob("[ab].unfinished"))
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # others end in the meantime
            commands.append(path.read_bytes())
    assert not [command for command in commands if str(tmp_path).encode() in command]


@pytest.mark.slow
def test_a_step_that_is_named_twice_is_trained_once(adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted, tmp_path / "run")
    succeed("finetune", tmp_path / "run", *FINETUNE, "--step", 1)
    with RunFolder.open(tmp_path / "run") as folder:
        assert [trained.seed for trained in folder.finished[1].runs] == [1]


@pytest.mark.slow
def test_the_first_seed_comes_first_though_another_ends_before(adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted, tmp_path / "run")
    with RunFolder.open(tmp_path / "run", write=True) as folder:
        models = RunModels(folder)
        stage = stages_of(folder.info.settings, RecipeOverrides(epochs=0.25)).last
        for training in reversed(trainings_of(models, [models.step(1)], stage, (1, 2))):
            job = training.job
            shutil.copyfile(job.begin, folder.weights_path(job.weights))
            training.record(Trained(job.seed, job.weights, 0.5, {}))
        assert [trained.seed for trained in folder.finished[1].runs] == [1, 2]


@pytest.mark.slow
def test_one_of_several_trainings_that_fails_ends_the_others(adapted: Path) -> None:
    told = run("finetune", adapted, *FINETUNE, "--step", 0, "--workers", 2, "--learning-rate", 1e30)
    assert told.exit_code == 1 and "the loss became" in told.stderr and "Traceback" not in told.stderr


def test_several_trainings_of_several_processes_each_are_refused(tmp_path: Path) -> None:
    told = run("finetune", tmp_path / "run", "--workers", 2, "--processes", 2)
    assert told.exit_code == 1 and "give one of them" in told.stderr


@pytest.mark.slow
def test_what_fails_in_the_processes_is_one_sentence(adapted: Path) -> None:
    told = run("finetune", adapted, *FINETUNE, "--processes", 2, "--learning-rate", 1e30)
    assert told.exit_code == 1 and "the loss became" in told.stderr and len(told.stderr.strip().splitlines()) == 1
    told = run("finetune", adapted, *FINETUNE, "--processes", 3)
    assert told.exit_code == 1 and "cannot be shared alike by 3 processes" in told.stderr
