"""Statistics counted anew are those of the images, and nothing else changes."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from netadapt.pruning.batch_norm import reestimate
from netadapt.training.tasks import open_task
from netadapt.training.types import ImagesInMemory

COUNT = 24


def part(count: int = COUNT) -> ImagesInMemory:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=generator).byte()
    return ImagesInMemory(
        images, torch.zeros(count, dtype=torch.int64), (0.5,) * 3, (0.3,) * 3, mirrored=True, task=open_task("classification")
    )


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(3, 5, 3), dropout=nn.Dropout(0.9), norm=nn.BatchNorm2d(5), second=nn.BatchNorm2d(5))
    return nn.Sequential(layers).eval()


def test_one_batch_of_everything_gives_the_statistics_of_the_images(model: nn.Sequential) -> None:
    reestimate(model, part(), 1, seed=1, batch_size=COUNT)
    features = model.get_submodule("conv")(part().batch(torch.arange(COUNT))[0])  # without dropout
    norm = model.get_submodule("norm")
    torch.testing.assert_close(norm.get_buffer("running_mean"), features.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.get_buffer("running_var"), features.var(dim=(0, 2, 3)))


def test_batches_count_alike(model: nn.Sequential) -> None:
    reestimate(model, part(), 3, seed=1, batch_size=8)
    features = model.get_submodule("conv")(part().batch(torch.arange(COUNT))[0])
    torch.testing.assert_close(model.get_submodule("norm").get_buffer("running_mean"), features.mean(dim=(0, 2, 3)))


def test_what_was_there_before_does_not_matter(model: nn.Sequential) -> None:
    reestimate(model, part(), 2, seed=1, batch_size=8)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    model.get_submodule("norm").get_buffer("running_mean").fill_(1e6)
    reestimate(model, part(), 2, seed=1, batch_size=8)
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())


def test_weights_modes_momenta_and_gradients_are_left_alone(model: nn.Sequential) -> None:
    model.train()
    model.get_submodule("second").eval()
    before = {name: value.clone() for name, value in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    reestimate(model, part(), 2, seed=1, batch_size=8)
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in model.named_parameters())
    assert [module.training for module in model.modules()] == modes
    assert model.get_submodule("norm").momentum == model.get_submodule("second").momentum == 0.1


def test_no_batches_change_nothing(model: nn.Sequential) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reestimate(model, part(), 0, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_last_image_by_itself_is_left_out(model: nn.Sequential) -> None:
    reestimate(model, part(9), 5, seed=1, batch_size=8)
    assert int(model.get_submodule("norm").get_buffer("num_batches_tracked")) == 1


def test_a_model_can_be_trained_and_pruned_afterwards(model: nn.Sequential) -> None:
    reestimate(model, part(), 1, seed=1)
    model.train()(part().batch(torch.arange(4))[0]).sum().backward()
    assert model.get_parameter("conv.weight").grad is not None


def test_a_network_whose_own_code_refuses_channels_last_gets_statistics_too_and_stays_as_it_lies_in_memory() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm1d(20)

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.conv(images)
            normalised: Tensor = self.norm(features.view(features.size(0), -1))
            return normalised

    model = Flattened().eval()
    reestimate(model, part(), 1, seed=1, batch_size=COUNT)
    features = model.conv(part().batch(torch.arange(COUNT))[0]).flatten(1)
    torch.testing.assert_close(model.norm.running_mean, features.mean(dim=0))
    assert model.conv.weight.is_contiguous()
