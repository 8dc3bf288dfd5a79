"""Small networks of families with shared weights, with groups, and with places of maxima: functions without arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from families import Head, conv_bn_act, seq
from torch import nn
from torch.nn import functional


class LabelQueries(nn.Module):
    """Embeddings of labels that are queries first and the classifier's weight last, as a language model's."""

    def __init__(self):
        super().__init__()
        self.p, self.labels = nn.Conv2d(3, 32, 8, 8), nn.Embedding(10, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.n, self.fc = nn.LayerNorm(32), nn.Linear(32, 10, bias=False)
        self.fc.weight = self.labels.weight
        self.register_buffer("ids", torch.arange(10)[None])

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        x = self.block(torch.cat([self.labels(self.ids).expand(len(x), -1, -1), x], 1))
        return self.fc(self.n(x.mean(1)))


def label_queries():
    return LabelQueries()


class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, transposed: a transposed convolution has them that way round."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_act(3, 16, 3, 2, act=nn.ReLU)
        self.down, self.deep = nn.Conv2d(16, 24, 4, 2, 1), nn.Conv2d(24, 32, 4, 2, 1)
        self.up_deep, self.up = nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.ConvTranspose2d(24, 16, 4, 2, 1)
        self.up_deep.weight, self.up.weight = self.deep.weight, self.down.weight
        self.out = nn.ConvTranspose2d(16, 3, 2, 2)

    def forward(self, x):
        code = functional.relu(self.deep(functional.relu(self.down(self.stem(x)))))
        return self.out(functional.relu(self.up(functional.relu(self.up_deep(code)))))


def tied_autoencoder():
    return TiedAutoencoder()


class TwoStreams(nn.Module):
    """Convolutions that two streams share, with normalisations of their own, and a head under two names."""

    def __init__(self):
        super().__init__()
        self.a = seq(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24))
        self.b = seq(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24))
        for place in (0, 3):
            self.b[place].weight, self.b[place].bias = self.a[place].weight, self.a[place].bias
        self.first = self.second = seq(nn.Linear(24, 16), nn.ReLU())
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        one, two = (functional.relu(stream(image)).mean((2, 3)) for stream, image in ((self.a, x), (self.b, x.flip(3))))
        return self.fc(torch.cat([self.first(one), self.second(two)], 1))


def two_streams():
    return TwoStreams()


class TwoAttentions(nn.Module):
    """Attention over one set of tokens and then between two, by one module, with shared layers behind it."""

    def __init__(self):
        super().__init__()
        self.p = nn.Conv2d(3, 32, 8, 8)
        self.queries = nn.Parameter(torch.randn(1, 5, 32))
        self.a, self.n, self.fc = nn.MultiheadAttention(32, 4, batch_first=True), nn.LayerNorm(32), nn.Linear(32, 10)
        self.mlp = seq(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32))

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        x = x + self.a(x, x, x, need_weights=False)[0]
        x = self.n(x + self.mlp(x))
        queries = self.queries + x.mean(1, keepdim=True)
        y = self.n(queries + self.a(queries, x, x, need_weights=False)[0])
        return self.fc((y + self.mlp(y)).mean(1))


def two_attentions():
    return TwoAttentions()


class TiedLayers(nn.Module):
    """Torch's encoder layer, several times."""

    def __init__(self):
        super().__init__()
        self.p, self.fc = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 10)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.ModuleList([layer] * 3)

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


def tied_layers():
    return TiedLayers()


class SeveralOfEach(nn.Module):
    """A depthwise convolution that makes several channels of each, as Keras' with a multiplier."""

    def __init__(self, i, o, times, s):
        super().__init__()
        self.depthwise = seq(nn.Conv2d(i, times * i, 3, s, 1, groups=i, bias=False), nn.BatchNorm2d(times * i), nn.ReLU())
        self.pointwise = conv_bn_act(times * i, o, 1, act=nn.ReLU)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))


def multiplier():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), SeveralOfEach(16, 24, 2, 1), SeveralOfEach(24, 32, 3, 2), Head(32))


def eegnet():
    """EEGNet: kernels over time, then some over all electrodes for each of them, then separable ones."""
    return seq(
        nn.Conv2d(3, 8, (1, 15), padding=(0, 7), bias=False), nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, (32, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 4)), nn.Dropout(0.25),
        nn.Conv2d(16, 16, (1, 5), padding=(0, 2), groups=16, bias=False), nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24),
        nn.ELU(), nn.AvgPool2d((1, 4)), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


class CheapFeatures(nn.Module):
    """GhostNet with a ratio of three: each channel gives two more by cheap kernels."""

    def __init__(self, i, o):
        super().__init__()
        self.primary = conv_bn_act(i, o // 3, 1, act=nn.ReLU)
        self.cheap = conv_bn_act(o // 3, 2 * (o // 3), 3, 1, o // 3, act=nn.ReLU)

    def forward(self, x):
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


def cheap_features():
    return seq(conv_bn_act(3, 16, 3, 2), CheapFeatures(16, 24), CheapFeatures(24, 36), Head(36))


class PatchMerging(nn.Module):
    """Twice the channels at half the size: kernels for each channel, added to a pool through a layer."""

    def __init__(self, c):
        super().__init__()
        self.main = seq(nn.Conv2d(c, 2 * c, 3, 2, 1, groups=c, bias=False), nn.BatchNorm2d(2 * c))
        self.side, self.mix = nn.Conv2d(c, 2 * c, 1, bias=False), conv_bn_act(2 * c, 2 * c, 1)

    def forward(self, x):
        y = functional.gelu(self.main(x) + self.side(functional.avg_pool2d(x, 2)))
        return y + self.mix(y)


def patch_merging():
    return seq(conv_bn_act(3, 12, 3, 2), PatchMerging(12), PatchMerging(24), Head(48))


class GroupedDense(nn.Module):
    """Grouped convolutions of all features before, joined."""

    def __init__(self, i, c, g):
        super().__init__()
        self.one, self.two = conv_bn_act(i, 2 * c, 1, act=nn.ReLU), conv_bn_act(2 * c, c, 3, 1, g, act=nn.ReLU)
        self.join = conv_bn_act(i + c, i + c, 3, 1, g, act=nn.ReLU)

    def forward(self, x):
        return self.join(torch.cat([x, self.two(self.one(x))], 1))


def grouped_dense():
    return seq(conv_bn_act(3, 16, 3, 2), GroupedDense(16, 16, 4), GroupedDense(32, 16, 4), Head(48))


class ShuffleStage(nn.Module):
    """ShuffleNet's unit that halves the image: a pool is joined to what its grouped layers make."""

    def __init__(self, i, o, g, first=False):
        super().__init__()
        c = o - i
        self.one = seq(nn.Conv2d(i, o // 4, 1, groups=1 if first else g, bias=False), nn.BatchNorm2d(o // 4), nn.ReLU())
        self.shuffle = nn.ChannelShuffle(g)
        self.dw = seq(nn.Conv2d(o // 4, o // 4, 3, 2, 1, groups=o // 4, bias=False), nn.BatchNorm2d(o // 4))
        self.two = seq(nn.Conv2d(o // 4, c, 1, groups=g, bias=False), nn.BatchNorm2d(c))

    def forward(self, x):
        y = self.two(self.dw(self.shuffle(self.one(x))))
        return functional.relu(torch.cat([functional.avg_pool2d(x, 3, 2, 1), y], 1))


class ShuffleResidual(nn.Module):
    """The unit between, which is added to what it reads."""

    def __init__(self, c, g):
        super().__init__()
        self.g = g
        self.one = seq(nn.Conv2d(c, c // 4, 1, groups=g, bias=False), nn.BatchNorm2d(c // 4), nn.ReLU())
        self.dw = seq(nn.Conv2d(c // 4, c // 4, 3, 1, 1, groups=c // 4, bias=False), nn.BatchNorm2d(c // 4))
        self.two = seq(nn.Conv2d(c // 4, c, 1, groups=g, bias=False), nn.BatchNorm2d(c))

    def forward(self, x):
        y = self.one(x)
        n, c, h, w = y.shape
        y = y.reshape(n, self.g, c // self.g, h, w).permute(0, 2, 1, 3, 4).reshape(n, -1, h, w)
        return functional.relu(x + self.two(self.dw(y)))


def shuffle_stages():
    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU), ShuffleStage(16, 64, 2, True), ShuffleResidual(64, 2), ShuffleStage(64, 128, 2),
        ShuffleResidual(128, 2), Head(128),
    )  # fmt: skip


class GroupedDecoder(nn.Module):
    """Transposed convolutions in groups, and depthwise ones."""

    def __init__(self):
        super().__init__()
        self.down = seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), conv_bn_act(16, 32, 3, 2, 4, act=nn.ReLU))
        self.up = seq(nn.ConvTranspose2d(32, 24, 4, 2, 1, groups=4, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.mix, self.again = conv_bn_act(24, 16, 1, act=nn.ReLU), nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16, bias=False)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        return self.head(self.again(self.mix(self.up(self.down(x)))))


def grouped_decoder():
    return GroupedDecoder()


def interleaved():
    """IGCV: two grouped convolutions with a shuffle before each, whose groups are each other's sizes."""
    return seq(
        conv_bn_act(3, 32, 3, 2, act=nn.ReLU), nn.Conv2d(32, 32, 3, padding=1, groups=8, bias=False), nn.ChannelShuffle(8),
        nn.Conv2d(32, 32, 1, groups=4, bias=False), nn.ChannelShuffle(4), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 24, 1),
        nn.ReLU(), Head(24),
    )  # fmt: skip


class SegNet(nn.Module):
    """Pools of two levels, whose maxima are put back in the decoder."""

    def __init__(self):
        super().__init__()
        self.e1, self.e2 = conv_bn_act(3, 16, act=nn.ReLU), conv_bn_act(16, 24, act=nn.ReLU)
        self.d2, self.d1 = conv_bn_act(24, 16, act=nn.ReLU), conv_bn_act(16, 12, act=nn.ReLU)
        self.pool, self.unpool, self.out = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x, one = self.pool(self.e1(x))
        size = x.size()
        x, two = self.pool(self.e2(x))
        x = self.d2(self.unpool(x, two, output_size=size))
        return self.out(self.d1(self.unpool(x, one)))


def segnet():
    return SegNet()


class EnetUnits(nn.Module):
    """ENet's units: a pool that is padded with channels beside a strided branch, and an unpool beside another."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_act(3, 12, act=nn.PReLU)
        self.down = seq(nn.Conv2d(12, 6, 2, 2, bias=False), nn.BatchNorm2d(6), nn.PReLU(), nn.Conv2d(6, 24, 1), nn.BatchNorm2d(24))
        self.mid = conv_bn_act(24, 24, act=nn.PReLU)
        self.main = seq(nn.Conv2d(24, 12, 1, bias=False), nn.BatchNorm2d(12))
        self.up = seq(nn.Conv2d(24, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 12, 2, 2), nn.BatchNorm2d(12))
        self.unpool, self.out = nn.MaxUnpool2d(2), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x = self.stem(x)
        y, places = functional.max_pool2d(x, 2, return_indices=True)
        padding = torch.zeros(len(x), 12, *y.shape[2:])
        x = functional.relu(torch.cat([y, padding], 1) + self.down(x))
        x = x + self.mid(x)
        return self.out(functional.relu(self.unpool(self.main(x), places) + self.up(x)))


def enet_units():
    return EnetUnits()


class DeconvNet(nn.Module):
    """Places kept in a list, a bottleneck of linear layers, and transposed convolutions behind the unpools."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(conv_bn_act(i, o, act=nn.ReLU) for i, o in ((3, 8), (8, 16), (16, 24)))
        self.fc = seq(nn.Conv2d(24, 32, 4), nn.ReLU(), nn.ConvTranspose2d(32, 24, 4), nn.ReLU())
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 3, 1, 1) for i, o in ((24, 16), (16, 8), (8, 5)))

    def forward(self, x):
        places = []
        for layer in self.down:
            x, found = functional.max_pool2d(layer(x), 2, return_indices=True)
            places.append(found)
        x = self.fc(x)
        for layer in self.up:
            x = layer(functional.max_unpool2d(x, places.pop(), 2).relu())
        return x


def deconvnet():
    return DeconvNet()


SHARING: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "labels that are queries": (label_queries, 0),
    "a decoder with the encoder's weights": (tied_autoencoder, 0),
    "streams that share convolutions": (two_streams, 0),
    "an attention to itself and to others": (two_attentions, 0),
    "an encoder layer three times": (tied_layers, 0),
    "depthwise with a multiplier": (multiplier, 0),
    "eegnet": (eegnet, 0),
    "cheap features": (cheap_features, 0),
    "patch merging": (patch_merging, 0),
    "grouped convolutions of joined features": (grouped_dense, 0),
    "shufflenet v1 with its stages": (shuffle_stages, 0),
    "interleaved groups": (interleaved, 32),  # one channel of each group makes a whole group of the next
}
"""As NETWORKS of tests/families.py."""

NOT_IN_TFLITE: dict[str, Callable[[], nn.Module]] = {
    "segnet": segnet,
    "enet's units": enet_units,
    "deconvnet": deconvnet,
    "a decoder in groups": grouped_decoder,
}
"""As OPEN of tests/more_families.py: TFLite has nothing that puts numbers at places, and no transposed convolution in groups."""
