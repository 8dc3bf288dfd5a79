"""Training: what the settings mean, that it learns, and that a seed decides all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from netadapt.errors import SettingsError
from netadapt.training.recipe import RecipeOverrides, TrainSettings
from netadapt.training.tasks import TASKS, open_task
from netadapt.training.tasks.classification import shifted
from netadapt.training.trainer import TrainingError, score, train
from netadapt.training.types import ImagesInMemory

SETTINGS = TrainSettings(learning_rate=0.05, steps=30, batch_size=16, augment=False)


def _bright_or_dark(count: int = 64, *, mirrored: bool = False) -> ImagesInMemory:
    """Two classes that any network can tell apart."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (noise + 180 * labels.view(-1, 1, 1, 1)).byte()
    return ImagesInMemory(images, labels, mean=(0.5,) * 3, std=(0.3,) * 3, mirrored=mirrored, task=open_task("classification"))


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(8, 2),
    )  # fmt: skip


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def test_training_learns_to_tell_bright_from_dark() -> None:
    model, part = _network(), _bright_or_dark()
    loss = train(model, part, SETTINGS, seed=0)
    assert score(model, part).accuracy == 1
    assert loss < 0.5


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    models = [_network() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, _bright_or_dark(), replace(SETTINGS, augment=True), seed=seed)
    assert torch.equal(_weights(models[0]), _weights(models[1]))
    assert not torch.equal(_weights(models[0]), _weights(models[2]))


def test_training_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = _network()
    torch.manual_seed(5)
    train(model, _bright_or_dark(), replace(SETTINGS, steps=2), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_trained_network_lies_in_memory_as_before() -> None:
    model = _network()
    train(model, _bright_or_dark(), replace(SETTINGS, steps=1), seed=0)
    assert model.get_parameter("0.weight").is_contiguous()


def test_a_scored_network_lies_in_memory_as_before() -> None:
    model = _network()
    score(model, _bright_or_dark())  # LiteRT's converter makes other networks of some residual ones whose weights lie channels last
    assert model.get_parameter("0.weight").is_contiguous()


def test_progress_is_told_after_every_step() -> None:
    told: list[tuple[int, int]] = []
    train(_network(), _bright_or_dark(), replace(SETTINGS, steps=3), seed=0, progress=lambda *step: told.append(step[:2]))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_epochs_are_counted_in_batches() -> None:
    assert TrainSettings(learning_rate=0.1, epochs=3, batch_size=20).steps_for(64) == 10


def test_a_batch_larger_than_the_dataset_is_filled_up() -> None:
    train(_network(), _bright_or_dark(count=4), replace(SETTINGS, steps=1, batch_size=16), seed=0)


def test_weight_decay_leaves_batch_normalisation_alone() -> None:
    model = _network()
    for weight in model.parameters():
        nn.init.ones_(weight)
    blank = ImagesInMemory(
        torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        torch.tensor([0, 1, 0, 1]),
        (0.0,) * 3,
        (1.0,) * 3,
        False,
        open_task("classification"),
    )
    train(model, blank, replace(SETTINGS, steps=1, batch_size=4, weight_decay=0.5, schedule="constant"), seed=0)
    assert float(model.get_parameter("0.weight").detach().max()) < 1
    assert torch.equal(model.get_parameter("1.weight"), torch.ones(8))


def test_a_loss_that_is_no_number_ends_the_training_with_advice() -> None:
    model = _network()
    with torch.no_grad():
        model.get_parameter("6.weight").fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"the loss became nan after 1 steps; lower the learning rate"):
        train(model, _bright_or_dark(), SETTINGS, seed=0)


def test_accuracy_is_the_share_of_right_answers_and_leaves_the_mode() -> None:
    always_first = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).train()
    with torch.no_grad():
        always_first.get_parameter("1.weight").zero_()
        always_first.get_parameter("1.bias").copy_(torch.tensor([1.0, 0.0]))
    assert score(always_first, _bright_or_dark(count=10), batch_size=4).accuracy == 0.5
    assert always_first.training


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("cosine", [1.0, 0.7939, 0.5, 0.0]),
        ("one_cycle", [0.04, 1.0, 0.8117, 0.0]),
    ],
)
def test_learning_rates_follow_their_schedule(schedule: str, expected: list[float]) -> None:
    settings = TrainSettings(learning_rate=1.0, steps=10, schedule=schedule)
    assert [round(settings.rate_at(progress), 4) for progress in (0.0, 0.3, 0.5, 1.0)] == expected


def test_a_shifted_image_holds_a_piece_of_the_old_one_and_zeros() -> None:
    images = torch.arange(1, 65.0).reshape(1, 1, 8, 8).expand(200, -1, -1, -1)
    moved = shifted(images, torch.Generator().manual_seed(0), mirrored=False)
    corners = {tuple(image[0, 3, 3:5].tolist()) for image in moved}
    # an eighth of 8 pixels is 1: the pixel at (3, 3) comes from one of nine, and its right neighbour stays its right neighbour
    assert corners == {(1.0 + 8 * row + column, 2.0 + 8 * row + column) for row in (2, 3, 4) for column in (2, 3, 4)}


def test_only_images_that_may_be_are_mirrored() -> None:
    images = torch.arange(1, 65.0).reshape(1, 1, 8, 8).expand(100, -1, -1, -1)
    moved = shifted(images, torch.Generator().manual_seed(0), mirrored=True)
    falling = int((moved[:, 0, 3, 3] > moved[:, 0, 3, 4]).sum())
    assert 25 < falling < 75


@pytest.mark.parametrize("task", TASKS)
def test_candidates_are_trained_at_a_constant_rate_well_below_that_of_the_original(task: str) -> None:
    recipe = open_task(task).recipe
    assert recipe.short_term.schedule == "constant" and recipe.short_term.steps is not None
    assert recipe.short_term.learning_rate <= recipe.from_scratch.learning_rate / 4
    assert recipe.long_term.learning_rate <= recipe.from_scratch.learning_rate


def test_what_nobody_asks_for_is_left_as_the_recipe_says() -> None:
    assert RecipeOverrides().applied_to(SETTINGS) == SETTINGS
    assert RecipeOverrides(0.2, steps=5, augment=True).applied_to(SETTINGS) == replace(
        SETTINGS, learning_rate=0.2, steps=5, augment=True
    )


def test_a_change_that_makes_no_sense_is_told() -> None:
    with pytest.raises(SettingsError, match=r"the learning rate must be above 0.*got 0,"):
        RecipeOverrides(learning_rate=0.0).applied_to(SETTINGS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": None},
        {"epochs": 1.0},
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"schedule": "steps"},
    ],
)
def test_settings_that_make_no_sense_cannot_exist(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]
