"""More small networks of many families, as people write them: functions without arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from families import Head, SqueezeExcite, TransformerBlock, conv_bn_act, seq
from torch import nn
from torch.nn import functional


class MobileOneBlock(nn.Module):
    """Several convolutions side by side, one of them of single pixels, and the input itself, before they are merged."""

    def __init__(self, i, o, k, s=1, g=1, branches=2):
        super().__init__()
        self.same = nn.BatchNorm2d(i) if i == o and s == 1 else None
        self.scale = seq(nn.Conv2d(i, o, 1, s, groups=g, bias=False), nn.BatchNorm2d(o)) if k > 1 else None
        self.convs = nn.ModuleList(
            seq(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)) for _ in range(branches)
        )

    def forward(self, x):
        out = 0 if self.same is None else self.same(x)
        if self.scale is not None:
            out = out + self.scale(x)
        for conv in self.convs:
            out = out + conv(x)
        return functional.relu(out)


def mobileone():
    return seq(
        MobileOneBlock(3, 16, 3, 2, branches=1),
        MobileOneBlock(16, 16, 3, 2, 16),
        MobileOneBlock(16, 32, 1),
        MobileOneBlock(32, 32, 3, 1, 32),
        MobileOneBlock(32, 32, 1),
        Head(32),
    )


class PoolBlock(nn.Module):
    """PoolFormer: a pool in the place of attention, over groups of one, with scales of layers."""

    def __init__(self, c):
        super().__init__()
        self.n1, self.n2 = nn.GroupNorm(1, c), nn.GroupNorm(1, c)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.u, self.d = nn.Conv2d(c, 4 * c, 1), nn.Conv2d(4 * c, c, 1)
        self.s1, self.s2 = nn.Parameter(1e-1 * torch.ones(c)), nn.Parameter(1e-1 * torch.ones(c))

    def forward(self, x):
        y = self.n1(x)
        x = x + self.s1.unsqueeze(-1).unsqueeze(-1) * (self.pool(y) - y)
        return x + self.s2.unsqueeze(-1).unsqueeze(-1) * self.d(functional.gelu(self.u(self.n2(x))))


def poolformer():
    return seq(nn.Conv2d(3, 16, 7, 4, 2), PoolBlock(16), nn.Conv2d(16, 24, 3, 2, 1), PoolBlock(24), nn.GroupNorm(1, 24), Head(24))


class EfficientFormer(nn.Module):
    """Pools over images first, then a transformer over tokens."""

    def __init__(self):
        super().__init__()
        self.stem = seq(conv_bn_act(3, 12, 3, 2, act=nn.ReLU), conv_bn_act(12, 16, 3, 2, act=nn.ReLU))
        self.pool, self.down = PoolBlock(16), seq(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32))
        self.t, self.norm = TransformerBlock(32, 4), nn.LayerNorm(32)
        self.head, self.dist = nn.Linear(32, 10), nn.Linear(32, 10)

    def forward(self, x):
        x = self.down(self.pool(self.stem(x))).flatten(2).transpose(1, 2)
        x = self.norm(self.t(x)).mean(-2)
        return (self.head(x) + self.dist(x)) / 2


def efficientformer():
    return EfficientFormer()


class RepMixer(nn.Module):
    """FastViT: depthwise mixing of pixels less a normalisation, and a feed-forward part that begins with a large kernel."""

    def __init__(self, c):
        super().__init__()
        self.norm = nn.BatchNorm2d(c)
        self.mix = seq(nn.Conv2d(c, c, 3, 1, 1, groups=c, bias=False), nn.BatchNorm2d(c))
        self.scale = nn.Parameter(1e-1 * torch.ones((c, 1, 1)))
        self.dw = seq(nn.Conv2d(c, c, 7, 1, 3, groups=c, bias=False), nn.BatchNorm2d(c))
        self.u, self.d = nn.Conv2d(c, 3 * c, 1), nn.Conv2d(3 * c, c, 1)
        self.gamma = nn.Parameter(1e-1 * torch.ones((c, 1, 1)))

    def forward(self, x):
        x = x + self.scale * (self.mix(x) - self.norm(x))
        return x + self.gamma * self.d(functional.gelu(self.u(self.dw(x))))


def fastvit():
    return seq(
        MobileOneBlock(3, 16, 3, 2, branches=1),
        MobileOneBlock(16, 16, 3, 2, 16, branches=1),
        RepMixer(16),
        MobileOneBlock(16, 32, 7, 2, 16, branches=1),
        RepMixer(32),
        Head(32),
    )


class DecoupledHead(nn.Module):
    """YOLOX: for each level a branch of classes and one of boxes and objects."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 24, 3, 2)
        self.stems = nn.ModuleList(conv_bn_act(c, 16, 1) for c in (16, 24))
        self.cls_convs = nn.ModuleList(seq(conv_bn_act(16, 16), conv_bn_act(16, 16)) for _ in range(2))
        self.reg_convs = nn.ModuleList(seq(conv_bn_act(16, 16), conv_bn_act(16, 16)) for _ in range(2))
        self.cls = nn.ModuleList(nn.Conv2d(16, 5, 1) for _ in range(2))
        self.reg, self.obj = (nn.ModuleList(nn.Conv2d(16, n, 1) for _ in range(2)) for n in (4, 1))

    def forward(self, x):
        outputs = []
        a = self.a(x)
        for k, level in enumerate((a, self.b(a))):
            y = self.stems[k](level)
            reg = self.reg_convs[k](y)
            made = torch.cat([self.reg[k](reg), self.obj[k](reg).sigmoid(), self.cls[k](self.cls_convs[k](y)).sigmoid()], 1)
            outputs.append(made)
        return torch.cat([made.flatten(start_dim=2) for made in outputs], dim=2).permute(0, 2, 1)


def yolox():
    return DecoupledHead()


class CenterNet(nn.Module):
    """Features that transposed convolutions bring back up, with a head for each output in a dictionary."""

    def __init__(self):
        super().__init__()
        self.body = seq(*(conv_bn_act(i, o, 3, 2, act=nn.ReLU) for i, o in ((3, 16), (16, 24), (24, 32))))
        self.up = seq(
            *(
                seq(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
                for i, o in ((32, 24), (24, 16))
            )
        )
        heads = {"hm": 3, "wh": 2, "reg": 2}
        self.heads = nn.ModuleDict(
            {k: seq(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, n, 1)) for k, n in heads.items()}
        )

    def forward(self, x):
        x = self.up(self.body(x))
        return {name: head(x) for name, head in self.heads.items()}


def centernet():
    return CenterNet()


class PSPNet(nn.Module):
    """Pools of several sizes, each through a convolution, upsampled to the size of the features."""

    def __init__(self):
        super().__init__()
        self.body = seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), conv_bn_act(16, 32, 3, 2, act=nn.ReLU))
        self.stages = nn.ModuleList(seq(nn.AdaptiveAvgPool2d(n), nn.Conv2d(32, 8, 1, bias=False)) for n in (1, 2, 4))
        self.join, self.classes = conv_bn_act(56, 16, act=nn.ReLU), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        size = x.shape[2:]
        x = self.body(x)
        pyramid = [
            functional.interpolate(stage(x), size=x.shape[2:], mode="bilinear", align_corners=False) for stage in self.stages
        ]
        return functional.interpolate(self.classes(self.join(torch.cat([x, *pyramid], 1))), size=size, mode="bilinear")


def pspnet():
    return PSPNet()


class TextRecogniser(nn.Module):
    """CRNN without its recurrent part: columns of an image as a sequence, and a class for each."""

    def __init__(self):
        super().__init__()
        self.cnn = seq(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d((8, 1)),
        )  # fmt: skip
        self.hidden, self.fc = nn.Linear(32, 24), nn.Linear(24, 12)

    def forward(self, x):
        y = self.cnn(x).squeeze(2).permute(2, 0, 1)
        return functional.log_softmax(self.fc(functional.relu(self.hidden(y))), dim=2)


def crnn():
    return TextRecogniser()


class SeparableBlock(nn.Module):
    """Xception: activations before separable convolutions, and a strided shortcut."""

    def __init__(self, i, o):
        super().__init__()
        self.skip = seq(nn.Conv2d(i, o, 1, 2, bias=False), nn.BatchNorm2d(o))
        self.rep = seq(
            nn.ReLU(), nn.Conv2d(i, i, 3, 1, 1, groups=i, bias=False), nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o),
            nn.ReLU(), nn.Conv2d(o, o, 3, 1, 1, groups=o, bias=False), nn.Conv2d(o, o, 1, bias=False), nn.BatchNorm2d(o),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip

    def forward(self, x):
        return self.rep(x) + self.skip(x)


def xception():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), SeparableBlock(16, 24), SeparableBlock(24, 32), Head(32))


class Cell(nn.Module):
    """NASNet: sums of pairs of operations on the last two cells, which are concatenated."""

    def __init__(self, before, here, c):
        super().__init__()
        self.p, self.h = (seq(nn.ReLU(), nn.Conv2d(i, c, 1, bias=False), nn.BatchNorm2d(c)) for i in (before, here))
        self.sep = nn.ModuleList(
            seq(nn.ReLU(), nn.Conv2d(c, c, k, 1, k // 2, groups=c, bias=False), nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
            for k in (3, 5, 3)
        )
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, before, here):
        p, h = self.p(before), self.h(here)
        a = self.sep[0](h) + p
        b = self.sep[1](p) + self.pool(h)
        c = self.sep[2](a) + self.pool(p)
        return torch.cat([h, a, b, c], 1)


class NASNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn_act(3, 16, 3, 2, act=nn.Identity)
        self.one, self.two = Cell(16, 16, 8), Cell(16, 32, 8)
        self.head = Head(32)

    def forward(self, x):
        x = self.stem(x)
        y = self.one(x, x)
        return self.head(functional.relu(self.two(x, y)))


def nasnet():
    return NASNet()


class EfficientSpatialPyramid(nn.Module):
    """ESPNet: kernels of several rates, each added to the one before."""

    def __init__(self, c):
        super().__init__()
        n = c // 4
        self.reduce = nn.Conv2d(c, n, 1, bias=False)
        self.d = nn.ModuleList(nn.Conv2d(n, n, 3, padding=r, dilation=r, bias=False) for r in (1, 2, 4, 8))
        self.bn, self.act = nn.BatchNorm2d(c), nn.PReLU(c)

    def forward(self, x):
        y = self.reduce(x)
        outs = [d(y) for d in self.d]
        sums = [outs[0]]
        for out in outs[1:]:
            sums.append(sums[-1] + out)
        return self.act(self.bn(x + torch.cat(sums, 1)))


def espnet():
    return seq(
        conv_bn_act(3, 16, 3, 2), EfficientSpatialPyramid(16), conv_bn_act(16, 32, 3, 2), EfficientSpatialPyramid(32), Head(32)
    )


class ENet(nn.Module):
    """Pools that remember where their maxima were, and put them back."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn_act(3, 16, act=nn.ReLU), conv_bn_act(16, 24, act=nn.ReLU)
        self.c, self.d = conv_bn_act(24, 16, act=nn.ReLU), nn.Conv2d(16, 5, 1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        x, places = self.pool(self.a(x))
        return self.d(self.unpool(self.c(self.b(x)), places))


def enet():
    return ENet()


class SqueezeNextBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        layers = (nn.Conv2d(c, c // 2, 1), nn.Conv2d(c // 2, c // 4, 1), nn.Conv2d(c // 4, c // 2, (3, 1), padding=(1, 0)))
        layers = (*layers, nn.Conv2d(c // 2, c // 2, (1, 3), padding=(0, 1)), nn.Conv2d(c // 2, c, 1))
        self.body = seq(*(seq(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()) for layer in layers))

    def forward(self, x):
        return functional.relu(x + self.body(x))


def squeezenext():
    return seq(conv_bn_act(3, 16, 7, 2, act=nn.ReLU), SqueezeNextBlock(16), conv_bn_act(16, 32, 1), SqueezeNextBlock(32), Head(32))


class MixedDepthwise(nn.Module):
    """MixNet: parts of the channels through kernels of several sizes."""

    def __init__(self, c, kernels=(3, 5)):
        super().__init__()
        self.parts = [c // len(kernels)] * len(kernels)
        self.u = conv_bn_act(c, 2 * c, 1)
        self.m = nn.ModuleList(
            nn.Conv2d(2 * n, 2 * n, k, 1, k // 2, groups=2 * n, bias=False) for n, k in zip(self.parts, kernels, strict=True)
        )
        self.bn, self.d = nn.BatchNorm2d(2 * c), seq(nn.Conv2d(2 * c, c, 1, bias=False), nn.BatchNorm2d(c))

    def forward(self, x):
        y = self.u(x)
        split = torch.chunk(y, len(self.m), 1)
        y = torch.cat([conv(part) for conv, part in zip(self.m, split, strict=True)], 1)
        return x + self.d(functional.silu(self.bn(y)))


def mixnet():
    return seq(conv_bn_act(3, 16, 3, 2), MixedDepthwise(16), conv_bn_act(16, 24, 3, 2), MixedDepthwise(24), Head(24))


class ConditionalConvolution(nn.Module):
    """CondConv as a sum of experts, each weighted by a gate of the whole image."""

    def __init__(self, i, o, experts=3):
        super().__init__()
        self.route = nn.Linear(i, experts)
        self.experts = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for _ in range(experts))

    def forward(self, x):
        gates = torch.sigmoid(self.route(x.mean((2, 3))))
        made = [expert(x) * gates[:, k].view(-1, 1, 1, 1) for k, expert in enumerate(self.experts)]
        return sum(made)


def condconv():
    return seq(conv_bn_act(3, 16, 3, 2), ConditionalConvolution(16, 24), nn.ReLU(), conv_bn_act(24, 32, 3, 2), Head(32))


class BlazeBlock(nn.Module):
    """BlazeFace: shortcuts that are padded with channels of zeros."""

    def __init__(self, i, o, s=1):
        super().__init__()
        self.s, self.more = s, o - i
        self.body = seq(nn.Conv2d(i, i, 5, s, 2, groups=i), nn.Conv2d(i, o, 1), nn.BatchNorm2d(o))

    def forward(self, x):
        y = functional.max_pool2d(x, 2, 2) if self.s == 2 else x
        if self.more:
            y = functional.pad(y, (0, 0, 0, 0, 0, self.more))
        return functional.relu(self.body(x) + y)


def blazeface():
    return seq(conv_bn_act(3, 16, 5, 2, act=nn.ReLU), BlazeBlock(16, 16), BlazeBlock(16, 24, 2), BlazeBlock(24, 24), Head(24))


def lcnet():
    """PP-LCNet: depthwise separable convolutions, with gates near the end, and a wide last layer."""

    def separable(i, o, k, s, gated):
        gate = [SqueezeExcite(i, i // 4)] if gated else []
        return seq(conv_bn_act(i, i, k, s, i, act=nn.Hardswish), *gate, conv_bn_act(i, o, 1, act=nn.Hardswish))

    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.Hardswish), separable(16, 24, 3, 1, False), separable(24, 32, 5, 2, True),
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 64, 1, bias=False), nn.Hardswish(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


class TinyViT(nn.Module):
    """Convolutions first, then attention over windows with a depthwise convolution between its parts."""

    def __init__(self):
        super().__init__()
        self.stem = seq(conv_bn_act(3, 16, 3, 2, act=nn.GELU), conv_bn_act(16, 32, 3, 2, act=nn.Identity))
        self.n, self.qkv, self.proj = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.local = seq(nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32))
        self.m, self.u, self.d = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.n(x)).view(n, h * w, 4, -1).split([8, 8, 8], dim=3)
        q, k, v = (each.permute(0, 2, 1, 3) for each in (q, k, v))
        y = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(dim=-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, h * w, c))
        x = self.local(x.transpose(1, 2).reshape(n, c, h, w)).view(n, c, h * w).transpose(1, 2)
        x = x + self.d(functional.gelu(self.u(self.m(x))))
        return self.head(x.mean(1))


def tinyvit():
    return TinyViT()


class Generator(nn.Module):
    """DCGAN, from what an encoder of the image says: a linear layer, a view as an image, and transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.encoder = seq(nn.Conv2d(3, 16, 4, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16 * 64, 24), nn.Tanh())
        self.fc = nn.Linear(24, 32 * 4 * 4)
        self.up = seq(
            nn.BatchNorm2d(32), nn.ReLU(True), nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(True),
            nn.ConvTranspose2d(24, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True), nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Tanh(),
        )  # fmt: skip

    def forward(self, x):
        return self.up(self.fc(self.encoder(x)).view(-1, 32, 4, 4))


def generator():
    return Generator()


def autoencoder():
    return seq(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


class Embedding(nn.Module):
    """A triplet network: vectors of length one for three parts of the image, by the same layers."""

    def __init__(self):
        super().__init__()
        self.body = seq(conv_bn_act(3, 16, 3, 2, act=nn.PReLU), conv_bn_act(16, 24, 3, 2, act=nn.PReLU), nn.AdaptiveAvgPool2d(1))
        self.fc = seq(nn.Flatten(), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x):
        anchor, positive, negative = (functional.normalize(self.fc(self.body(part)), dim=1) for part in (x, x.flip(3), x.flip(2)))
        return anchor, positive, negative


def triplet():
    return Embedding()


class Keypoints(nn.Module):
    """Maps of keypoints, and the expected place of each in its map."""

    def __init__(self):
        super().__init__()
        self.body = seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), conv_bn_act(16, 32, 3, 2, act=nn.ReLU))
        self.up = seq(nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.maps = nn.Conv2d(24, 5, 1)
        self.register_buffer("at", torch.linspace(0, 1, 16))

    def forward(self, x):
        maps = self.maps(self.up(self.body(x)))
        shares = maps.flatten(2).softmax(-1).view_as(maps)
        columns, rows = (shares.sum(2) * self.at).sum(-1), (shares.sum(3) * self.at).sum(-1)
        return torch.stack([columns, rows], -1)


def keypoints():
    return Keypoints()


def mnasnet():
    def inverted(i, o, k, s, e):
        return seq(
            conv_bn_act(i, i * e, 1, act=nn.ReLU), conv_bn_act(i * e, i * e, k, s, i * e, act=nn.ReLU),
            nn.Conv2d(i * e, o, 1, bias=False), nn.BatchNorm2d(o),
        )  # fmt: skip

    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU),
        inverted(16, 24, 3, 2, 3),
        inverted(24, 32, 5, 1, 3),
        conv_bn_act(32, 64, 1),
        Head(64),
    )


class SelfAttention(nn.Module):
    """SAGAN: queries and keys of an eighth of the channels, over pixels."""

    def __init__(self, c):
        super().__init__()
        self.q, self.k, self.v = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c, c // 4, 1), nn.Conv2d(c, c, 1)
        self.gamma = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x):
        n, c, h, w = x.size()
        q = self.q(x).view(n, -1, h * w).permute(0, 2, 1)
        k = self.k(x).view(n, -1, h * w)
        attention = torch.softmax(torch.bmm(q, k), dim=-1)
        out = torch.bmm(self.v(x).view(n, -1, h * w), attention.permute(0, 2, 1)).view(n, c, h, w)
        return self.gamma * out + x


def sagan():
    return seq(conv_bn_act(3, 16, 3, 2), SelfAttention(16), conv_bn_act(16, 24, 3, 2), SelfAttention(24), Head(24))


class LinearAttention(nn.Module):
    """Attention without a softmax over pairs: keys and values are multiplied first."""

    def __init__(self, c, d):
        super().__init__()
        self.n, self.q, self.k, self.v, self.o = nn.LayerNorm(c), nn.Linear(c, d), nn.Linear(c, d), nn.Linear(c, c), nn.Linear(c, c)

    def forward(self, x):
        y = self.n(x)
        q, k, v = functional.elu(self.q(y)) + 1, functional.elu(self.k(y)) + 1, self.v(y)
        return x + self.o(q @ (k.transpose(1, 2) @ v))


class MultiQuery(nn.Module):
    """Several heads of queries, one of keys and values."""

    def __init__(self, c, h, d):
        super().__init__()
        self.h, self.d = h, d
        self.n, self.q, self.k, self.v, self.o = (
            nn.LayerNorm(c),
            nn.Linear(c, h * d),
            nn.Linear(c, d),
            nn.Linear(c, d),
            nn.Linear(h * d, c),
        )

    def forward(self, x):
        y = self.n(x)
        q = self.q(y).view(*y.shape[:2], self.h, -1).transpose(1, 2)
        k, v = self.k(y).unsqueeze(1), self.v(y).unsqueeze(1)
        y = (q @ k.transpose(-2, -1) * self.d**-0.5).softmax(-1) @ v
        return x + self.o(y.transpose(1, 2).flatten(2))


class Tokens(nn.Module):
    """Patches of an image through these layers."""

    def __init__(self, c, *layers):
        super().__init__()
        self.p, self.body, self.fc = nn.Conv2d(3, c, 8, 8), seq(*layers), nn.Linear(c, 10)

    def forward(self, x):
        return self.fc(self.body(self.p(x).flatten(2).transpose(1, 2)).mean(1))


def linear_attention():
    return Tokens(32, LinearAttention(32, 16), LinearAttention(32, 16))


def multi_query():
    return Tokens(32, MultiQuery(32, 4, 8), MultiQuery(32, 4, 8))


class ShuffleV1(nn.Module):
    """ShuffleNet's first version: convolutions of groups, whose channels are shuffled between them."""

    def __init__(self, c, g):
        super().__init__()
        self.g, m = g, c // 2
        self.one, self.n1 = nn.Conv2d(c, m, 1, groups=g, bias=False), nn.BatchNorm2d(m)
        self.dw, self.n2 = nn.Conv2d(m, m, 3, padding=1, groups=m, bias=False), nn.BatchNorm2d(m)
        self.two, self.n3 = nn.Conv2d(m, c, 1, groups=g, bias=False), nn.BatchNorm2d(c)

    def forward(self, x):
        y = functional.relu(self.n1(self.one(x)))
        n, c, h, w = y.shape
        y = y.view(n, self.g, c // self.g, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return functional.relu(x + self.n3(self.two(self.n2(self.dw(y)))))


def shufflenet_v1():
    return seq(conv_bn_act(3, 24, 3, 2), ShuffleV1(24, 2), conv_bn_act(24, 32, 3, 2), ShuffleV1(32, 4), Head(32))


class GlobalContext(nn.Module):
    """GCNet: a mean of pixels, weighted by a softmax over them, is added to all."""

    def __init__(self, c):
        super().__init__()
        self.mask = nn.Conv2d(c, 1, 1)
        self.t = seq(nn.Conv2d(c, c // 2, 1), nn.LayerNorm([c // 2, 1, 1]), nn.ReLU(inplace=True), nn.Conv2d(c // 2, c, 1))

    def forward(self, x):
        n, c, h, w = x.shape
        mask = self.mask(x).view(n, 1, h * w).softmax(2).unsqueeze(-1)
        context = torch.matmul(x.view(n, c, h * w).unsqueeze(1), mask).view(n, c, 1, 1)
        return x + self.t(context)


def gcnet():
    return seq(conv_bn_act(3, 16, 3, 2), GlobalContext(16), conv_bn_act(16, 24, 3, 2), GlobalContext(24), Head(24))


class SelectiveKernel(nn.Module):
    """SKNet: a softmax over branches for each channel."""

    def __init__(self, c, r):
        super().__init__()
        self.a, self.b = conv_bn_act(c, c, act=nn.ReLU), conv_bn_act(c, c, 5, act=nn.ReLU)
        self.down, self.up = conv_bn_act(c, r, 1, act=nn.ReLU), nn.ModuleList(nn.Conv2d(r, c, 1) for _ in range(2))

    def forward(self, x):
        both = torch.stack([self.a(x), self.b(x)], 1)
        s = self.down(both.sum(1).mean((2, 3), keepdim=True))
        return (both * torch.stack([up(s) for up in self.up], 1).softmax(1)).sum(1)


def sknet():
    return seq(conv_bn_act(3, 16, 3, 2), SelectiveKernel(16, 8), conv_bn_act(16, 24, 3, 2), SelectiveKernel(24, 8), Head(24))


class SplitAttention(nn.Module):
    """ResNeSt: a convolution makes several times the channels, and a softmax over the parts weighs them."""

    def __init__(self, c, radix=2):
        super().__init__()
        self.radix = radix
        self.conv, self.bn = nn.Conv2d(c, c * radix, 3, padding=1, groups=radix, bias=False), nn.BatchNorm2d(c * radix)
        self.fc1, self.bn1, self.fc2 = nn.Conv2d(c, c // 2, 1), nn.BatchNorm2d(c // 2), nn.Conv2d(c // 2, c * radix, 1)

    def forward(self, x):
        x = functional.relu(self.bn(self.conv(x)))
        n, rc, h, w = x.shape
        x = x.reshape(n, self.radix, rc // self.radix, h, w)
        gap = x.sum(dim=1).mean((2, 3), keepdim=True)
        attention = self.fc2(functional.relu(self.bn1(self.fc1(gap))))
        attention = attention.view(n, self.radix, -1).softmax(dim=1).view(n, self.radix, rc // self.radix, 1, 1)
        return (x * attention).sum(dim=1)


def resnest():
    return seq(conv_bn_act(3, 16, 3, 2), SplitAttention(16), conv_bn_act(16, 24, 3, 2), SplitAttention(24), Head(24))


class TiedTransformer(nn.Module):
    """ALBERT: one block that is called several times."""

    def __init__(self):
        super().__init__()
        self.p, self.b, self.fc = nn.Conv2d(3, 32, 8, 8), TransformerBlock(32, 4), nn.Linear(32, 10)

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        for _ in range(2):
            x = self.b(x)
        return self.fc(x.mean(1))


def tied_transformer():
    return TiedTransformer()


class TiedAttention(nn.Module):
    """Torch's attention, called twice."""

    def __init__(self):
        super().__init__()
        self.p, self.a, self.fc = nn.Conv2d(3, 32, 8, 8), nn.MultiheadAttention(32, 4, batch_first=True), nn.Linear(32, 10)
        self.n = nn.LayerNorm(32)

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        for _ in range(2):
            y = self.n(x)
            x = x + self.a(y, y, y, need_weights=False)[0]
        return self.fc(x.mean(1))


def tied_attention():
    return TiedAttention()


class TiedWeights(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv_bn_act(3, 16, 3, 2), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.b.weight = self.a.weight
        self.head = Head(16)

    def forward(self, x):
        x = self.stem(x)
        return self.head(functional.relu(x + self.b(functional.relu(self.a(x)))))


def tied_weights():
    return TiedWeights()


class PointNet(nn.Module):
    """Points as a sequence: layers over each alone, a matrix that turns them, and the maximum over all."""

    def __init__(self):
        super().__init__()
        self.t1, self.t2 = (
            seq(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU()),
            seq(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 9)),
        )
        self.a, self.b = seq(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU()), seq(nn.Conv1d(16, 32, 1), nn.BatchNorm1d(32))
        self.fc = seq(nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 10))

    def forward(self, x):
        points = x.flatten(2)
        turn = self.t2(self.t1(points).amax(2)).view(-1, 3, 3) + torch.eye(3)
        points = torch.bmm(points.transpose(2, 1), turn).transpose(2, 1)
        return self.fc(torch.max(self.b(self.a(points)), 2)[0])


def pointnet():
    return PointNet()


MORE_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mobileone": (mobileone, 0),
    "poolformer": (poolformer, 0),
    "efficientformer": (efficientformer, 0),
    "fastvit": (fastvit, 0),
    "yolox": (yolox, 0),
    "centernet": (centernet, 0),
    "pspnet": (pspnet, 0),
    "crnn": (crnn, 0),
    "xception": (xception, 0),
    "nasnet": (nasnet, 0),
    "espnet": (espnet, 0),
    "squeezenext": (squeezenext, 0),
    "mixnet": (mixnet, 0),
    "condconv": (condconv, 3),
    "pp-lcnet": (lcnet, 0),
    "mnasnet": (mnasnet, 0),
    "keypoints": (keypoints, 0),
    "shufflenet v1": (shufflenet_v1, 16),
    "selective kernels": (sknet, 0),
    "blazeface": (blazeface, 0),
    "self-attention over pixels": (sagan, 0),
    "generator": (generator, 512),
    "triplets": (triplet, 0),
    "a transformer called twice": (tied_transformer, 0),
    "an attention called twice": (tied_attention, 0),
    "tied weights": (tied_weights, 0),
    "linear attention": (linear_attention, 0),
    "multi-query attention": (multi_query, 0),
    "split attention": (resnest, 0),
}
"""As NETWORKS of tests/families.py."""

OPEN: dict[str, Callable[[], nn.Module]] = {
    "enet": enet,
    "tinyvit": tinyvit,
    "autoencoder": autoencoder,
    "pointnet": pointnet,
    "global context": gcnet,
}
"""Networks of which less can be pruned than could be, or of which an exporter cannot write a file."""
