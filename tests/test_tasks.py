"""Tasks: what their figures say of networks whose quality is known, and how those are printed."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from netadapt.training.recipe import TrainSettings
from netadapt.training.tasks import TASKS, TaskError, open_task, scores_of, scores_text
from netadapt.training.tasks.depth import recoloured, warped
from netadapt.training.trainer import TrainingError, precision_on, score, train
from netadapt.training.types import ImagesInMemory, Metric, Scores

DEPTH = open_task("depth")
CLASSIFICATION = open_task("classification")


class Constant(nn.Module):
    """Sees the same distance everywhere."""

    def __init__(self, metres: float) -> None:
        super().__init__()
        self.metres = nn.Parameter(torch.tensor(metres))

    def forward(self, images: Tensor) -> Tensor:
        return self.metres.expand(len(images), 1, *images.shape[-2:])


def _part(millimetres: list[int], side: int = 4) -> ImagesInMemory:
    """Grey images, each of one distance."""
    count = len(millimetres)
    targets = torch.tensor(millimetres, dtype=torch.int16).view(-1, 1, 1, 1).expand(-1, 1, side, side)
    return ImagesInMemory(
        torch.full((count, 3, side, side), 128, dtype=torch.uint8), targets, (0.5,) * 3, (0.2,) * 3, True, open_task("depth")
    )


def _metres(*values: float) -> Tensor:
    """One image with these distances."""
    return torch.tensor(values).view(1, 1, 1, -1)


def _judged(found: Tensor, true: Tensor) -> Scores:
    return scores_of(DEPTH, [(found, true)])


def test_a_perfect_network_has_no_error() -> None:
    assert score(Constant(2.0), _part([2000, 2000])) == Scores(1.0, {"rmse_m": 0.0, "rel": 0.0})


def test_a_constant_distance_misses_by_what_it_is_off() -> None:
    found = score(Constant(2.0), _part([2000, 4000]))
    assert found.accuracy == 0.5
    assert found.metrics == {"rmse_m": pytest.approx(1.0), "rel": pytest.approx(0.25)}


def test_every_image_counts_the_same_however_many_of_its_pixels_are_known() -> None:
    found = torch.cat([_metres(1, 1, 1, 1), _metres(1, 1, 1, 1)])
    true = torch.cat([_metres(1, 1, 1, 1), _metres(0, 0, 0, 3)])
    assert _judged(found, true) == Scores(0.5, {"rmse_m": 1.0, "rel": pytest.approx(1 / 3)})


@pytest.mark.parametrize("unknown", [0.0, -1.0, math.nan, math.inf])
def test_pixels_of_unknown_distance_do_not_count(unknown: float) -> None:
    found, true = _metres(1.0, 9.0), _metres(1.0, unknown)
    assert _judged(found, true) == Scores(1.0, {"rmse_m": 0.0, "rel": 0.0})
    assert float(DEPTH.loss(found, true)) == 0


def test_a_image_of_which_nothing_is_known_is_left_out() -> None:
    found, true = torch.cat([_metres(1.0), _metres(5.0)]), torch.cat([_metres(1.0), _metres(0.0)])
    assert _judged(found, true).accuracy == 1
    assert float(DEPTH.loss(found[1:], true[1:])) == 0


def test_images_of_which_nothing_is_known_at_all_are_told() -> None:
    with pytest.raises(TaskError, match="no image can be scored for depth"):
        score(Constant(1.0), _part([0, 0]))


@pytest.mark.parametrize(("found", "right"), [(1.24, 1), (1.26, 0), (1 / 1.24, 1), (1 / 1.26, 0), (1.25, 0)])
def test_a_pixel_is_right_within_a_quarter_either_way(found: float, right: int) -> None:
    assert _judged(_metres(found), _metres(1.0)).accuracy == right


@pytest.mark.parametrize("found", [0.0, -3.0])
def test_a_distance_of_nothing_or_less_is_simply_wrong(found: float) -> None:
    assert _judged(_metres(found), _metres(1.0)).accuracy == 0


def test_outputs_that_are_no_numbers_are_told() -> None:
    with pytest.raises(TaskError, match="rmse_m is nan"):
        _judged(_metres(math.nan), _metres(1.0))


def test_the_loss_is_the_mean_distance_over_known_pixels() -> None:
    assert float(DEPTH.loss(_metres(1.0, 2.0, 9.0), _metres(2.0, 4.0, 0.0))) == 1.5


positive = st.floats(0.125, 30, width=32)


@given(pairs=st.lists(st.tuples(st.floats(-1, 40, width=32), positive), min_size=1, max_size=12))
def test_figures_stay_in_their_ranges(pairs: list[tuple[float, float]]) -> None:
    found, true = (_metres(*values) for values in zip(*pairs, strict=True))
    scores = _judged(found, true)
    assert 0 <= scores.accuracy <= 1
    assert 0 <= scores.metrics["rmse_m"] <= 41
    assert scores.metrics["rel"] >= 0


@given(true=st.lists(positive, min_size=1, max_size=12), factor=st.floats(0.81, 1.24))
def test_a_factor_below_a_quarter_keeps_every_pixel_right(true: list[float], factor: float) -> None:
    assert _judged(_metres(*true) * factor, _metres(*true)).accuracy == 1


@given(count=st.integers(1, 20), right=st.integers(0, 20), at_once=st.integers(1, 7))
def test_top1_is_the_share_of_right_answers_however_they_are_batched(count: int, right: int, at_once: int) -> None:
    labels = torch.zeros(count, dtype=torch.int64)
    outputs = torch.where(torch.arange(count)[:, None] < right, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    batches = zip(outputs.split(at_once), labels.split(at_once), strict=True)
    assert scores_of(CLASSIFICATION, batches).accuracy == min(right, count) / count


def test_distances_are_stored_in_millimetres_and_used_in_metres() -> None:
    _, targets = _part([1234]).batch(torch.tensor([0]))
    assert torch.allclose(targets, torch.full((1, 1, 4, 4), 1.234))


@pytest.mark.parametrize("targets", [torch.zeros(2, dtype=torch.int16), torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5).short()])
def test_targets_of_another_kind_make_no_part(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="for depth"):
        ImagesInMemory(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), targets, (0.0,) * 3, (1.0,) * 3, True, open_task("depth"))


def test_enlarging_a_image_brings_its_distances_as_much_nearer() -> None:
    images, targets = torch.rand(50, 3, 16, 16), torch.full((50, 1, 16, 16), 3.0)
    _, nearer = warped(images, targets, torch.Generator().manual_seed(0), mirrored=True)
    middles = nearer[:, 0, 6:10, 6:10].flatten(1)
    assert torch.equal(middles.amin(dim=1), middles.amax(dim=1))
    assert 2 - 1e-6 <= float(middles.min()) < 2.1
    assert 2.9 < float(middles.max()) <= 3


def test_a_image_and_its_distances_move_together() -> None:
    """Where it is bright it is far."""
    targets = 1 + torch.linspace(0, 1, 32).view(1, 1, 1, -1).expand(40, 1, 32, 32)
    images, moved = warped(targets.expand(-1, 3, -1, -1), targets, torch.Generator().manual_seed(1), mirrored=True)
    zoom = images[:, :1, 12:20, 12:20] / moved[:, :, 12:20, 12:20]
    assert float((zoom.amax(dim=(1, 2, 3)) / zoom.amin(dim=(1, 2, 3))).max()) < 1.05
    falls = images[:, 0, 16, 10] > images[:, 0, 16, 22]
    assert 10 < int(falls.sum()) < 30


def test_only_scenes_that_may_be_are_mirrored() -> None:
    targets = 1 + torch.linspace(0, 1, 32).view(1, 1, 1, -1).expand(40, 1, 32, 32)
    images, _ = warped(targets, targets, torch.Generator().manual_seed(1), mirrored=False)
    assert bool((images[:, 0, 16, 10] < images[:, 0, 16, 22]).all())


def test_colours_change_by_at_most_two_fifths_in_brightness() -> None:
    """Grey stays grey, whatever the saturation; the mean is 0.5 of white, which contrast leaves alone."""
    part = _part([1000] * 200)
    images, _ = part.batch(torch.arange(200))
    changed = recoloured(torch.zeros_like(images), part, torch.Generator().manual_seed(0))
    seen = changed[:, :, 0, 0] * 0.2 + 0.5
    assert float((seen.amax(dim=1) - seen.amin(dim=1)).max()) < 1e-5
    assert 0.5 * (1 - 0.4 * 1.4) < float(seen.min()) < 0.35
    assert 0.65 < float(seen.max()) < 0.5 * (1 + 0.4 * 1.4)


def test_augmenting_depends_on_its_generator_only() -> None:
    part = _part([1000, 2000])
    batch = part.batch(torch.arange(2))
    one, two = (DEPTH.augment(*batch, part, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_training_for_depth_learns_a_distance() -> None:
    model = Constant(1.0)
    train(model, _part([3000] * 8), TrainSettings(0.2, steps=60, batch_size=4, augment=False, momentum=0.0), seed=0)
    assert score(model, _part([3000] * 8)).accuracy == 1


def test_training_in_16_bits_reaches_what_it_reaches_in_32() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU())
    nn.init.ones_(network[0].get_parameter("bias"))
    settings = TrainSettings(0.05, steps=60, batch_size=4, augment=False, precision="bfloat16")
    train(network, _part([3000] * 8), settings, seed=0)
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert score(network, _part([3000] * 8)).accuracy == 1


def test_a_processor_computes_in_32_bits_unless_told_otherwise() -> None:
    settings = TrainSettings(0.1, steps=1)
    assert precision_on(torch.device("cpu"), settings.precision) is torch.float32
    assert precision_on(torch.device("cpu"), "float16") is torch.float16


def test_depth_that_becomes_no_number_ends_the_training() -> None:
    with pytest.raises(TrainingError, match="the loss became nan after 1 steps"):
        train(Constant(math.nan), _part([1000]), TrainSettings(0.1, steps=2, batch_size=1), seed=0)


def test_figures_are_printed_with_their_names_and_units() -> None:
    assert scores_text(DEPTH, 0.7714, {"rmse_m": 0.6041, "rel": 0.16}) == "δ1 0.771, RMSE 0.604 m, REL 0.160"
    assert scores_text(CLASSIFICATION, 0.9654, {}) == "96.5 %"


def test_a_figure_that_was_not_recorded_is_left_out() -> None:
    assert scores_text(DEPTH, 0.5, {}) == "δ1 0.500"


def test_a_heading_says_what_is_better_where_that_is_not_more() -> None:
    assert Metric("rmse_m", "RMSE", 3, "m", lower_is_better=True).heading == "RMSE (m, lower is better)"
    assert CLASSIFICATION.accuracy.heading == "accuracy (%)"


def test_an_unknown_task_gets_a_hint() -> None:
    with pytest.raises(TaskError, match="did you mean 'depth'"):
        open_task("deph")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_bears_its_name_and_its_figures_have_different_ones(name: str) -> None:
    task = open_task(name)
    names = [figure.name for figure in (task.accuracy, *task.metrics)]
    assert task.name == name
    assert len(set(names)) == len(names)


def test_printing_figures_needs_no_torch() -> None:
    code = "import sys; from netadapt.training.tasks import open_task; [open_task(name) for name in ('classification', 'depth')]"
    found = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False)
    assert found.returncode == 0
