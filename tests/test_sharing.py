"""Weights that several layers share, and modules that a network has under several names."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from more_families import tied_attention, tied_weights
from sharing_families import label_queries, tied_autoencoder, two_attentions, two_streams
from torch import Tensor, nn
from torch.nn import functional

from netadapt.export.files import export_onnx
from netadapt.pruning.counting import count_macs
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.prune import prune_in_order, reshape_like
from netadapt.pruning.tracing import trace

SHAPES = ((1, 3, 32, 32),)


def test_layers_that_share_a_weight_are_one_block() -> None:
    assert Couplings(tied_weights(), SHAPES).blocks() == [("stem.0", "a", "b")]


def test_layers_that_share_a_weight_still_do_when_it_is_narrower() -> None:
    model = tied_weights()
    couplings = Couplings(narrow := deepcopy(model), SHAPES)
    couplings.remove("stem.0", [0, 5])
    kept = [channel for channel in range(16) if channel not in (0, 5)]
    assert narrow.b.weight is narrow.a.weight
    assert torch.equal(narrow.a.weight, model.a.weight[kept][:, kept])
    assert [torch.equal(getattr(narrow, name).bias, getattr(model, name).bias[kept]) for name in ("a", "b")] == [True, True]


def test_what_a_convolution_makes_is_what_a_transposed_one_with_its_weight_reads() -> None:
    couplings = Couplings(tied_autoencoder(), SHAPES)
    assert couplings.blocks() == [("stem.0", "up"), ("down", "up_deep"), ("deep",)]


def test_an_embedding_and_the_last_layer_lose_the_same_columns() -> None:
    model = label_queries()
    couplings = Couplings(narrow := deepcopy(model), SHAPES)
    couplings.remove("p", list(range(0, 32, 8)))
    kept = [column for column in range(32) if column % 8]
    assert narrow.fc.weight is narrow.labels.weight
    assert torch.equal(narrow.fc.weight, model.fc.weight[:, kept])
    assert (narrow.fc.in_features, narrow.labels.embedding_dim) == (28, 28)


class Looked(nn.Module):
    """A hidden layer whose outputs are scores of the words of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.words, self.scores, self.head = nn.Linear(8, 6), nn.Embedding(12, 6), nn.Linear(6, 12), nn.Linear(12, 4)
        self.scores.weight = self.words.weight
        self.register_buffer("ids", torch.arange(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.scores(self.stem(x) + self.words(self.get_buffer("ids")).sum(0))))


def test_a_layer_keeps_its_width_whose_channels_are_the_words_of_an_embedding() -> None:
    couplings = Couplings(Looked(), ((1, 8),))
    assert couplings.blocks() == [("stem",)]
    assert couplings.coupled("scores").reason == "scores shares weights with words, where they are no channels"


def test_normalisations_of_their_own_behind_shared_convolutions_are_cut_alike() -> None:
    couplings = Couplings(narrow := two_streams(), SHAPES)
    couplings.remove("a.0", [1, 2, 3])
    assert [narrow.a[1].num_features, narrow.b[1].num_features, narrow.b[0].out_channels] == [13, 13, 13]
    assert narrow.a[0].bias is narrow.b[0].bias


def test_an_attention_that_is_called_twice_is_pruned_in_its_heads() -> None:
    model = tied_attention().eval()
    couplings = Couplings(model, SHAPES)
    assert (couplings.blocks(), couplings.slices("p"), couplings.calls("a.out_proj")) == ([("p", "a.out_proj")], 4, 2)
    couplings.remove("p", list(range(0, 32, 8)))
    assert model(torch.zeros(SHAPES[0])).shape == (1, 10)


def test_an_attention_between_two_sets_of_tokens_projects_each_once() -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, few: Tensor, many: Tensor) -> Tensor:
            found: Tensor = self.attention(few, key=many, value=many)[0]
            return found

    assert count_macs(Between(), ((1, 3, 8), (1, 5, 8))) == 2 * (3 + 5) * 8 * 8


@pytest.mark.slow
def test_the_graph_has_a_module_under_its_first_name_and_counts_shared_weights_once() -> None:
    model = two_streams().eval()
    graph = trace(model, SHAPES, "network")
    assert graph.widths == {"a.0": 16, "a.3": 24, "first.0": 16}
    convolutions = 16 * 27 + 16 + 24 * 16 * 9 + 24
    assert graph.parameters == convolutions + 16 * 24 + 16 + 10 * 32 + 10


@pytest.mark.slow
def test_shared_weights_stay_shared_in_files(tmp_path: Path) -> None:
    model = tied_weights().eval()
    graph = trace(model, SHAPES, "network")
    narrow = prune_in_order(model, graph, {"stem.0": 9}, {})
    again = reshape_like(model, graph, {"stem.0": 9})
    again.load_state_dict(narrow.state_dict())
    assert again.b.weight is again.a.weight
    export_onnx(again, SHAPES, tmp_path / "narrow.onnx")


@pytest.mark.slow
def test_an_attention_to_itself_and_to_others_has_the_macs_of_its_graph() -> None:
    model = two_attentions().eval()
    graph = trace(model, SHAPES, "network")
    narrow = prune_in_order(model, graph, {"p": 16, "mlp.0": 20}, {})
    assert graph.at_widths({"p": 16, "mlp.0": 20}).macs == count_macs(narrow, SHAPES)
