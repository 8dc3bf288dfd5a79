"""Which channels each rule keeps, and what refitted layers compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netadapt.errors import SettingsError
from netadapt.networks import network_graph
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.importance import IMPORTANCES, Block, Criterion, ImportanceError, open_importance
from netadapt.pruning.importance import reconstruction as rule
from netadapt.pruning.prune import prune
from netadapt.pruning.pruner import prune_candidate, sample
from netadapt.pruning.settings import PruningSettings
from netadapt.pruning.tracing import trace
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.trees import each_of

CHANNELS = 8
SHAPE = (1, 3, 6, 6)


def images(count: int = 32) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(0))


class Chain(nn.Module):
    """A block with batch normalisation and a depthwise layer behind it, and one dense layer that reads it."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.maker = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.reader = reader

    def forward(self, seen: Tensor) -> Tensor:
        features = torch.relu(self.depthwise(torch.relu(self.norm(self.maker(seen)))))
        if isinstance(self.reader, nn.Linear):
            features = features.flatten(1)
        outputs: Tensor = self.reader(features)
        return outputs


READERS = {
    "pointwise": lambda: nn.Conv2d(CHANNELS, 5, 1, bias=False),
    "3x3 with strides": lambda: nn.Conv2d(CHANNELS, 5, 3, stride=2, padding=1),
    "dilated": lambda: nn.Conv2d(CHANNELS, 5, 3, dilation=2, padding="same"),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, 5, 2, stride=2),
    "linear after flatten": lambda: nn.Linear(CHANNELS * 36, 5),
}


def chain(name: str) -> Chain:
    torch.manual_seed(0)
    model = Chain(READERS[name]())
    model(images())  # moves the running statistics
    return model.eval()


def duplicate(model: Chain, original: int, copy: int) -> None:
    """Make one channel compute what another does, wherever it passes."""
    with torch.no_grad():
        for layer in (model.maker, model.norm, model.depthwise):
            for tensor in (*layer.parameters(), *(buffer for buffer in layer.buffers() if buffer.ndim)):
                tensor[copy] = tensor[original]


def silence(model: Chain, channel: int) -> None:
    with torch.no_grad():
        model.depthwise.weight[channel] = 0
        assert model.depthwise.bias is not None
        model.depthwise.bias[channel] = 0


def kept_filters(model: Chain, pruned: nn.Module) -> list[int]:
    """Which filters stayed, by the filters themselves."""
    filters = model.maker.weight.flatten(1)
    return [int((filters - kept).abs().sum(dim=1).argmin()) for kept in pruned.get_parameter("maker.weight").flatten(1)]


@pytest.fixture
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "RIDGE", 1e-9)


@pytest.mark.usefixtures("exactly")
@pytest.mark.parametrize("name", READERS)
def test_channels_that_others_make_up_for_go_first_and_the_refit_restores_the_outputs(name: str) -> None:
    model = chain(name)
    duplicate(model, 1, 5)
    silence(model, 6)
    with torch.no_grad():
        model.maker.weight[6] *= 10  # of the largest norm, and of no use
    pruned = prune(model, trace(model, (SHAPE,), "chain"), {"maker": 6}, "reconstruction", images(600))
    others = images(8).flip(-1)
    torch.testing.assert_close(pruned(others), model(others), rtol=1e-3, atol=1e-4)
    removed = set(range(CHANNELS)) - set(kept_filters(model, pruned))
    assert 6 in removed and len(removed & {1, 5}) == 1


@pytest.mark.parametrize("name", READERS)
def test_a_refit_never_errs_more_than_leaving_the_weights_alone(name: str) -> None:
    model = chain(name)
    (reader,) = rule.observed(block_of(model), images())
    kept = [0, 2, 3, 7]
    cut = reader.weights.clone()
    cut[:, reader.columns[[1, 4, 5, 6]].flatten()] = 0
    assert error(reader, rule.refitted(reader, kept)) < error(reader, cut)


def error(reader: rule.Reader, weights: Tensor) -> float:
    difference = weights - reader.weights
    return float(((difference @ reader.moments) * difference).sum())


def block_of(model: Chain) -> Block:
    couplings = Couplings(model, (SHAPE,))
    readers = {model.get_submodule(name): inputs for name, inputs in couplings.readers("maker").items()}
    return Block(model, "maker", CHANNELS, [model.maker], readers)


@pytest.mark.parametrize("name", [*READERS, "reflecting", "in groups", "of a sequence", "of a volume"])
def test_the_features_of_a_layer_times_its_weights_are_what_it_computes(name: str) -> None:
    others = {
        "reflecting": lambda: nn.Conv2d(CHANNELS, 5, 3, padding=1, padding_mode="reflect"),
        "in groups": lambda: nn.Conv2d(CHANNELS, 6, 3, padding=1, groups=2),
        "of a sequence": lambda: nn.Conv1d(CHANNELS, 5, 3, stride=2, padding=2, dilation=2),
        "of a volume": lambda: nn.Conv3d(CHANNELS, 5, (1, 2, 3), padding=(0, 1, 1)),
    }
    layer = (READERS | others)[name]().eval()
    shapes = {"of a sequence": (36,), "of a volume": (4, 5, 6)}
    given_ = torch.randn(2, CHANNELS * 36) if isinstance(layer, nn.Linear) else torch.randn(2, CHANNELS, *shapes.get(name, (6, 6)))
    made = torch.cat([*(rule.features_of(layer, given_, 10**6, torch.Generator()) @ rule.matrices(layer).mT)], dim=1)
    expected = layer(given_)
    if isinstance(layer, nn.ConvTranspose2d):  # its windows do not overlap here, so every output comes from one pixel
        made = (
            made.reshape(2, 6, 6, 5, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(2, 5, 12, 12)
            + layer.get_parameter("bias")[:, None, None]
        )
    elif expected.ndim > 2:
        made = made.reshape(2, *expected.shape[2:], -1).movedim(-1, 1)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.data())
def test_the_cost_of_going_without_a_channel_is_the_error_after_its_refit(
    channels: int, each: int, outputs: int, constant: bool, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    features = channels * each + constant
    seen = torch.randn(3 * features + 5, features, generator=generator, dtype=torch.float64)
    weights = torch.randn(outputs, features, generator=generator, dtype=torch.float64)
    columns = torch.arange(channels * each).reshape(channels, each)
    reader = rule.Reader(nn.Identity(), columns, seen.T @ seen, weights)
    costs = rule._costs(weights, torch.linalg.inv(reader.moments), columns)
    for gone in range(channels):
        kept = [channel for channel in range(channels) if channel != gone]
        assert float(costs[gone]) == pytest.approx(error(reader, rule.refitted(reader, kept)), rel=1e-6, abs=1e-9)
    width = data.draw(st.integers(1, channels))
    left = rule.eliminated([reader], channels, width)
    assert len(set(left)) == width and left == sorted(left)
    if width == channels - 1:
        assert set(range(channels)) - set(left) == {int(costs.argmin())}


def test_the_errors_of_all_layers_that_read_a_block_count() -> None:
    torch.manual_seed(0)
    seen = torch.randn(50, 3, dtype=torch.float64)
    first, second = (rule.Reader(nn.Identity(), torch.arange(3)[:, None], seen.T @ seen, weights) for weights in (
        torch.tensor([[0.01, 1.0, 1.0]], dtype=torch.float64), torch.tensor([[1.0, 0.1, 1.0]], dtype=torch.float64)))  # fmt: skip
    assert rule.eliminated([first], 3, 2) == [1, 2]
    assert rule.eliminated([second], 3, 2) == [0, 2]
    assert 2 in rule.eliminated([first, second], 3, 1)


class Shared(nn.Module):
    """Two makers added (one block); two layers read their sum, one of them beside another layer's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, CHANNELS, 1), nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.other = nn.Conv2d(3, 4, 1)
        self.plain, self.beside = nn.Conv2d(CHANNELS, 6, 1), nn.Conv2d(4 + CHANNELS, 6, 3, padding=1)

    def forward(self, seen: Tensor) -> Tensor:
        features = torch.relu(self.one(seen) + self.two(seen))
        outputs: Tensor = self.plain(features) + self.beside(torch.cat([self.other(seen), features], dim=1))
        return outputs


def test_every_layer_that_reads_a_block_is_found_with_its_inputs() -> None:
    found = Couplings(Shared(), (SHAPE,)).readers("one")
    assert found == {"plain": {c: [c] for c in range(CHANNELS)}, "beside": {c: [4 + c] for c in range(CHANNELS)}}


@pytest.mark.usefixtures("exactly")
def test_a_block_of_several_makers_and_readers_keeps_its_outputs_without_a_double() -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    with torch.no_grad():
        for layer in (model.one, model.two):
            for tensor in layer.parameters():
                tensor[7] = tensor[2]
    pruned = prune(model, trace(model, (SHAPE,), "shared"), {"one": CHANNELS - 1}, "reconstruction", images(64))
    assert pruned.get_parameter("beside.weight").shape[1] == 4 + CHANNELS - 1
    torch.testing.assert_close(pruned(images(4)), model(images(4)), rtol=1e-3, atol=1e-4)


class InGroups(nn.Module):
    """A block of two slices: a convolution of two groups and a plain one read it."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.grouped, self.plain = nn.Conv2d(CHANNELS, 6, 3, padding=1, groups=2), nn.Conv2d(CHANNELS, 5, 1, bias=False)

    def forward(self, seen: Tensor) -> Tensor:
        features = torch.relu(self.maker(seen))
        return torch.cat([self.grouped(features), self.plain(features)], dim=1)


def in_groups() -> InGroups:
    torch.manual_seed(0)
    return InGroups().eval()


def test_of_a_block_in_slices_the_positions_that_are_strongest_over_all_slices_stay() -> None:
    model = in_groups()
    with torch.no_grad():
        model.maker.weight.fill_(0.1)
        model.maker.weight[1] = 3
        model.maker.weight[5] = 0  # made up for by channel 1, at the same position
        model.maker.weight[[2, 6]] = 1
        model.maker.bias.copy_(torch.arange(CHANNELS))
    pruned = prune(model, trace(model, (SHAPE,), "in groups"), {"maker": 4})
    assert pruned.get_parameter("maker.bias").tolist() == [1, 2, 5, 6]
    assert torch.equal(pruned.get_parameter("grouped.weight"), model.grouped.weight[:, [1, 2]])
    assert torch.equal(pruned.get_parameter("plain.weight"), model.plain.weight[:, [1, 2, 5, 6]])


@pytest.mark.usefixtures("exactly")
def test_a_grouped_convolution_is_refitted_so_that_nothing_is_missed_of_doubles() -> None:
    model = in_groups()
    with torch.no_grad():
        for tensor in (model.maker.weight, model.maker.bias):
            tensor[[3, 7]] = tensor[[1, 5]]
        model.maker.weight[[2, 6]] *= 10  # of the largest norm, and read by nothing
        model.grouped.weight[:, 2] = 0
        model.plain.weight[:, [2, 6]] = 0
    pruned = prune(model, trace(model, (SHAPE,), "in groups"), {"maker": 4}, "reconstruction", images(600))
    torch.testing.assert_close(pruned(images(4).flip(-1)), model(images(4).flip(-1)), rtol=1e-3, atol=1e-4)


def test_every_group_of_a_layer_is_refitted_to_err_less_than_without() -> None:
    model = in_groups()
    couplings = Couplings(model, (SHAPE,))
    readers = {model.get_submodule(name): inputs for name, inputs in couplings.readers("maker").items()}
    block = Block(model, "maker", CHANNELS, [model.maker], readers, couplings.slices("maker"))
    found = rule.observed(block, images())
    assert {(reader.layer, reader.group) for reader in found} == {(model.grouped, 0), (model.grouped, 1), (model.plain, 0)}
    for reader in found:
        cut = reader.weights.clone()
        cut[:, reader.columns[[1, 3]].flatten()] = 0
        assert error(reader, rule.refitted(reader, [0, 2])) < error(reader, cut)


def test_what_a_group_computes_is_seen_beside_all_that_its_layer_does() -> None:
    weak, strong = torch.tensor([[0.01, 0.04]], dtype=torch.float64), torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    layer, columns, moments = nn.Identity(), torch.arange(2)[:, None], torch.eye(2, dtype=torch.float64)
    one, two = rule.Reader(layer, columns, moments, weak, 0), rule.Reader(layer, columns, moments, strong, 1)
    alone = rule.Reader(nn.Identity(), columns, moments, weak)
    assert rule.eliminated([one, two], 2, 1) == [0]
    assert rule.eliminated([alone, two], 2, 1) == [1]  # as if it were another layer


def test_a_rule_that_keeps_channels_instead_of_positions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTANCES, "last channels", Criterion("test_importance:last_channels", "the last ones stay"))
    model = in_groups()
    with pytest.raises(ImportanceError, match=r"must keep 2 of 4 positions of block maker, but keeps \[6, 7\]"):
        prune(model, trace(model, (SHAPE,), "in groups"), {"maker": 4}, "last channels")


def last_channels(block: Block, count: int, _images: Tensor | None) -> list[int]:
    return list(range(block.width))[-count:]


def test_a_layer_that_reads_too_many_features_leaves_the_choice_to_the_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain("linear after flatten")
    graph = trace(model, (SHAPE,), "chain")
    monkeypatch.setattr(rule, "MAX_FEATURES", 100)
    one, two = (prune(model, graph, {"maker": 4}, name, images()) for name in IMPORTANCES)
    assert torch.equal(one(images()), two(images()))


def test_reconstruction_without_images_is_refused() -> None:
    model = chain("pointwise")
    with pytest.raises(ImportanceError, match="sample of images"):
        prune(model, trace(model, (SHAPE,), "chain"), {"maker": 4}, "reconstruction")


def test_an_unknown_rule_is_told_with_those_there_are() -> None:
    with pytest.raises(ImportanceError, match="did you mean 'reconstruction'"):
        open_importance("reconstructon")


@pytest.mark.parametrize("wrong", [{"bn_recalibration_batches": -1}, {"images": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        PruningSettings(**wrong)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_network_and_the_model_stays_as_it_was() -> None:
    from netadapt.networks import build_network

    options = {"width_multiplier": 0.25, "resolution": 32, "classes": 10}
    part = open_dataset("digits", resolution=32, seed=1).train
    torch.manual_seed(0)
    model, graph = build_network("mobilenet_v1", **options).eval(), network_graph("mobilenet_v1", **options)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    how = PruningSettings("reconstruction", 1, images=32)
    one, two = (prune_candidate(model, graph, {"pairs.2.pointwise.conv": 16}, how, part, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(*(each_of(sample(part, 8, seed))[0] for seed in (3, 4)))
