"""Ingredients of the long-term fine-tune: smoothed labels, distillation from the original, averaged weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_tasks import Constant, _part
from test_training import SETTINGS, _bright_or_dark, _network, _weights
from torch import Tensor, nn
from torch.nn import functional

from netadapt.errors import SettingsError
from netadapt.runs.records import Finished, Trained
from netadapt.runs.training_schedule import as_before
from netadapt.training.recipe import TrainSettings
from netadapt.training.soft_targets import loss_of
from netadapt.training.tasks import open_task
from netadapt.training.tasks.one_output import OneOutput
from netadapt.training.trainer import score, train

TASK = open_task("classification")
SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
LABELS = torch.tensor([0, 1])


class WithFeatures(nn.Module):
    """It returns more in training than in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _network()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        scores = self.network(images)
        return {"aux": 2 * scores, "logits": scores} if self.training else {"logits": scores}


def test_smoothed_labels_give_every_class_a_share_of_the_target() -> None:
    found = loss_of(TASK, replace(SETTINGS, label_smoothing=0.3), SCORES, LABELS)
    target = 0.7 * functional.one_hot(LABELS, 3) + 0.1
    torch.testing.assert_close(found, -(target * SCORES.log_softmax(1)).sum(1).mean())


def test_nothing_is_left_to_learn_from_a_network_that_says_the_same() -> None:
    settings = replace(SETTINGS, distill=1.0)
    assert float(loss_of(TASK, settings, SCORES, LABELS, SCORES)) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(TASK, settings, SCORES, LABELS, -SCORES)) > 0.1


def test_the_weight_is_between_the_labels_and_the_other_network() -> None:
    taught = SCORES.flip(1)
    ends = [float(loss_of(TASK, replace(SETTINGS, distill=weight), SCORES, LABELS, taught)) for weight in (0.0, 1.0)]
    middle = float(loss_of(TASK, replace(SETTINGS, distill=0.25), SCORES, LABELS, taught))
    assert middle == pytest.approx(0.75 * ends[0] + 0.25 * ends[1])


def test_gradients_of_a_high_temperature_do_not_vanish() -> None:
    sizes = []
    for temperature in (20.0, 40.0):
        scores = SCORES.clone().requires_grad_()
        loss_of(TASK, replace(SETTINGS, distill=1.0, temperature=temperature), scores, LABELS, -SCORES).backward()
        assert scores.grad is not None
        sizes.append(float(scores.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_a_distilled_network_learns_what_the_other_says_and_not_the_labels() -> None:
    right, part = _network(), _bright_or_dark()
    train(right, part, SETTINGS, seed=0)
    wrong = replace(part, targets=1 - part.targets)
    taught = _network()
    train(taught, wrong, replace(SETTINGS, distill=1.0), seed=1, teacher=right)
    assert score(taught, part).accuracy == 1


def test_the_other_network_stays_as_it_is() -> None:
    teacher = _network()
    before = _weights(teacher)
    train(_network(), _bright_or_dark(), replace(SETTINGS, steps=2, distill=0.5), seed=0, teacher=teacher)
    assert torch.equal(_weights(teacher), before)


def test_of_several_outputs_the_trained_one_learns_from_the_scored_one() -> None:
    teacher, part = WithFeatures(), _bright_or_dark()
    task = OneOutput(TASK, "logits", "aux")
    train(teacher, part.of_task(task), SETTINGS, seed=0)
    student = WithFeatures()
    train(student, part.of_task(task), replace(SETTINGS, distill=1.0), seed=1, teacher=teacher)
    assert score(student, part.of_task(task)).accuracy == 1


@pytest.mark.parametrize("asked", [{"distill": 0.5}, {"label_smoothing": 0.1}])
def test_a_task_without_classes_has_no_soft_targets(asked: dict[str, float]) -> None:
    settings = replace(TrainSettings(0.1, steps=1, batch_size=1), **asked)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="change the loss of classification, and this run's task is depth"):
        train(Constant(1.0), _part([1000]), settings, seed=0, teacher=Constant(1.0))


def test_averaged_weights_are_the_mean_of_the_last_steps_and_weigh_the_early_ones_less() -> None:
    constant = replace(SETTINGS, schedule="constant")
    found = []
    for settings in (replace(constant, steps=1), replace(constant, steps=2), replace(constant, steps=2, ema=0.999)):
        model = _network()
        train(model, _bright_or_dark(), settings, seed=0)
        found.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    one, two, averaged = found
    torch.testing.assert_close(averaged, 2 / 11 * one + 9 / 11 * two)


def test_averaged_weights_of_a_long_training_score_as_well() -> None:
    model = _network()
    train(model, _bright_or_dark(), replace(SETTINGS, steps=60, ema=0.9), seed=0)
    assert score(model, _bright_or_dark()).accuracy == 1


@pytest.mark.parametrize("wrong", [{"label_smoothing": 1.0}, {"distill": 1.5}, {"temperature": 0.0}, {"ema": 1.0}])
def test_ingredients_that_make_no_sense_cannot_exist(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="label smoothing and the decay of averaged weights"):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def test_baselines_are_trained_with_the_ingredients_of_the_step() -> None:
    settings = TrainSettings(
        0.02, epochs=3.0, batch_size=16, schedule="one_cycle", augment=False, precision="bfloat16", label_smoothing=0.1,
        distill=0.5, temperature=2.0, ema=0.9,
    )  # fmt: skip
    record = Finished(1, settings, ("made up",), (Trained(1, "a.pt", 0.5),))
    assert as_before(record).applied_to(TASK.recipe.long_term) == settings
