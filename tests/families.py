"""Small networks of many families, with the operators that these are known for: functions without arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


def seq(*m):
    return nn.Sequential(*m)


def conv_bn_act(i, o, k=3, s=1, g=1, act=nn.SiLU):
    return seq(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), act())


class LayerNorm2d(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, x):
        return functional.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, 1e-06).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        self.a = nn.Conv2d(c, r, 1)
        self.b = nn.Conv2d(r, c, 1)

    def forward(self, x):
        return x * self.b(functional.silu(self.a(x.mean((2, 3), keepdim=True)))).sigmoid()


class InvertedResidual(nn.Module):
    def __init__(self, i, o, st, e):
        super().__init__()
        self.r = i == o and st == 1
        self.body = seq(
            conv_bn_act(i, i * e, 1),
            conv_bn_act(i * e, i * e, 3, st, i * e),
            SqueezeExcite(i * e, i // 2),
            nn.Conv2d(i * e, o, 1, bias=False),
            nn.BatchNorm2d(o),
        )

    def forward(self, x):
        return x + self.body(x) if self.r else self.body(x)


class Head(nn.Module):
    def __init__(self, c, n=10):
        super().__init__()
        self.fc = nn.Linear(c, n)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


def efficientnet():
    return seq(
        conv_bn_act(3, 16, 3, 2),
        InvertedResidual(16, 24, 2, 4),
        InvertedResidual(24, 24, 1, 4),
        InvertedResidual(24, 40, 2, 4),
        conv_bn_act(40, 64, 1),
        Head(64),
    )


class Bottleneck(nn.Module):
    def __init__(self, c, act, add=True):
        super().__init__()
        self.a = conv_bn_act(c, c, 1, act=act)
        self.b = conv_bn_act(c, c, 3, act=act)
        self.add = add

    def forward(self, x):
        return x + self.b(self.a(x)) if self.add else self.b(self.a(x))


class C3(nn.Module):
    def __init__(self, i, o, act):
        super().__init__()
        h = o // 2
        self.a = conv_bn_act(i, h, 1, act=act)
        self.b = conv_bn_act(i, h, 1, act=act)
        self.m = Bottleneck(h, act)
        self.c = conv_bn_act(2 * h, o, 1, act=act)

    def forward(self, x):
        return self.c(torch.cat([self.m(self.a(x)), self.b(x)], 1))


class C2f(nn.Module):
    def __init__(self, i, o, act):
        super().__init__()
        h = o // 2
        self.a = conv_bn_act(i, 2 * h, 1, act=act)
        self.m = nn.ModuleList(Bottleneck(h, act) for _ in range(2))
        self.c = conv_bn_act(4 * h, o, 1, act=act)

    def forward(self, x):
        y = list(self.a(x).chunk(2, 1))
        for m in self.m:
            y.append(m(y[-1]))
        return self.c(torch.cat(y, 1))


def yolo(block, act):
    return seq(
        conv_bn_act(3, 16, 3, 2, act=act),
        conv_bn_act(16, 32, 3, 2, act=act),
        block(32, 32, act),
        conv_bn_act(32, 64, 3, 2, act=act),
        block(64, 64, act),
        Head(64),
    )


def yolo_c3():
    return yolo(C3, nn.SiLU)


def yolo_c3_elu():
    return yolo(C3, nn.ELU)


def yolo_c3_mish():
    return yolo(C3, nn.Mish)


def yolo_c2f():
    return yolo(C2f, nn.SiLU)


def darknet():
    return yolo(lambda i, o, a: Bottleneck(i, a), lambda: nn.LeakyReLU(0.1))


class ConvNeXtBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dw = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.n = nn.LayerNorm(c, eps=1e-06)
        self.u = nn.Linear(c, 4 * c)
        self.d = nn.Linear(4 * c, c)
        self.gamma = nn.Parameter(0.1 * torch.ones(c))

    def forward(self, x):
        return x + (self.gamma * self.d(functional.gelu(self.u(self.n(self.dw(x).permute(0, 2, 3, 1)))))).permute(0, 3, 1, 2)


def convnext():
    return seq(
        nn.Conv2d(3, 24, 4, 4),
        LayerNorm2d(24),
        ConvNeXtBlock(24),
        ConvNeXtBlock(24),
        LayerNorm2d(24),
        nn.Conv2d(24, 48, 2, 2),
        ConvNeXtBlock(48),
        Head(48),
    )


class Attention(nn.Module):
    def __init__(self, c, h):
        super().__init__()
        self.h = h
        self.qkv = nn.Linear(c, 3 * c)
        self.p = nn.Linear(c, c)

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.h, -1).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1) * q.shape[-1] ** (-0.5)).softmax(-1)
        return self.p((a @ v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    def __init__(self, c, h):
        super().__init__()
        self.n1 = nn.LayerNorm(c)
        self.a = Attention(c, h)
        self.n2 = nn.LayerNorm(c)
        self.u = nn.Linear(c, 4 * c)
        self.d = nn.Linear(4 * c, c)

    def forward(self, x):
        x = x + self.a(self.n1(x))
        return x + self.d(functional.gelu(self.u(self.n2(x))))


class ViT(nn.Module):
    def __init__(self, c=32):
        super().__init__()
        self.p = nn.Conv2d(3, c, 8, 8)
        self.cls = nn.Parameter(torch.zeros(1, 1, c))
        self.pos = nn.Parameter(torch.zeros(1, 17, c))
        self.b = seq(TransformerBlock(c, 4), TransformerBlock(c, 4))
        self.n = nn.LayerNorm(c)
        self.fc = nn.Linear(c, 10)

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.fc(self.n(self.b(x))[:, 0])


def vit():
    return ViT()


class UNet(nn.Module):
    def __init__(self, norm, up, pad=False, out=2):
        super().__init__()
        n = norm
        self.pad = pad
        self.d1 = seq(nn.Conv2d(3, 16, 3, padding=1), n(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), n(16), nn.ReLU())
        self.d2 = seq(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), n(32), nn.ReLU())
        self.d3 = seq(nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), n(64), nn.ReLU())
        self.u1 = up(64, 32)
        self.c1 = seq(nn.Conv2d(64, 32, 3, padding=1), n(32), nn.ReLU())
        self.u2 = up(32, 16)
        self.c2 = seq(nn.Conv2d(32, 16, 3, padding=1), n(16), nn.ReLU())
        self.h = nn.Conv2d(16, out, 1)

    def j(self, u, e):
        if self.pad:
            u = functional.pad(u, [0, e.shape[3] - u.shape[3], 0, e.shape[2] - u.shape[2]])
        return torch.cat([e, u], 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(a)
        c = self.d3(b)
        y = self.c1(self.j(self.u1(c), b))
        return self.h(self.c2(self.j(self.u2(y), a)))


def group_norm(c):
    return nn.GroupNorm(8, c)


def transposed(i, o):
    return nn.ConvTranspose2d(i, o, 2, 2)


def bilinear(i, o):
    return seq(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(i, o, 1))


def unet_gn():
    return UNet(group_norm, transposed)


def unet_bilinear():
    return UNet(nn.BatchNorm2d, bilinear)


def unet_pad():
    return UNet(nn.BatchNorm2d, transposed, True)


def unet_in():
    return UNet(lambda c: nn.InstanceNorm2d(c, affine=True), bilinear)


class UniversalBottleneck(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.d0 = seq(nn.Conv2d(c, c, 5, padding=2, groups=c, bias=False), nn.BatchNorm2d(c))
        self.u = conv_bn_act(c, 4 * c, 1, act=nn.ReLU)
        self.d1 = conv_bn_act(4 * c, 4 * c, 3, 1, 4 * c, act=nn.ReLU)
        self.p = seq(nn.Conv2d(4 * c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.gamma = nn.Parameter(torch.full((c, 1, 1), 0.1))

    def forward(self, x):
        return x + self.gamma * self.p(self.d1(self.u(self.d0(x))))


def mobilenetv4():
    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU),
        UniversalBottleneck(16),
        conv_bn_act(16, 32, 3, 2, act=nn.ReLU),
        UniversalBottleneck(32),
        Head(32),
    )


class RegNetBlock(nn.Module):
    def __init__(self, i, o, g, st):
        super().__init__()
        self.a = conv_bn_act(i, o, 1, act=nn.ReLU)
        self.b = conv_bn_act(o, o, 3, st, g, act=nn.ReLU)
        self.se = SqueezeExcite(o, 8)
        self.c = seq(nn.Conv2d(o, o, 1), nn.BatchNorm2d(o))
        self.sc = seq(nn.Conv2d(i, o, 1, st), nn.BatchNorm2d(o))

    def forward(self, x):
        return functional.relu(self.sc(x) + self.c(self.se(self.b(self.a(x)))))


def regnet():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), RegNetBlock(16, 32, 4, 2), RegNetBlock(32, 32, 4, 1), Head(32))


class Ghost(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.o = o
        h = -(-o // 2)
        self.a = conv_bn_act(i, h, 1, act=nn.ReLU)
        self.b = conv_bn_act(h, h, 3, 1, h, act=nn.ReLU)

    def forward(self, x):
        y = self.a(x)
        return torch.cat([y, self.b(y)], 1)[:, : self.o]


def ghostnet():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), Ghost(16, 32), Ghost(32, 24), Head(24))


class DenseLayer(nn.Module):
    def __init__(self, i, g):
        super().__init__()
        self.n = nn.BatchNorm2d(i)
        self.a = nn.Conv2d(i, 4 * g, 1)
        self.m = nn.BatchNorm2d(4 * g)
        self.b = nn.Conv2d(4 * g, g, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.b(functional.relu(self.m(self.a(functional.relu(self.n(x))))))], 1)


def densenet():
    return seq(
        nn.Conv2d(3, 16, 3, 2, 1),
        DenseLayer(16, 8),
        DenseLayer(24, 8),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 16, 1),
        nn.AvgPool2d(2),
        DenseLayer(16, 8),
        Head(24),
    )


class Inception(nn.Module):
    def __init__(self, i):
        super().__init__()
        self.a = conv_bn_act(i, 16, 1, act=nn.ReLU)
        self.b = seq(conv_bn_act(i, 8, 1, act=nn.ReLU), conv_bn_act(8, 16, 3, act=nn.ReLU))
        self.c = seq(nn.AvgPool2d(3, 1, 1), conv_bn_act(i, 8, 1, act=nn.ReLU))

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), self.c(x)], 1)


def inception():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), Inception(16), nn.MaxPool2d(3, 2, ceil_mode=True), Inception(40), Head(40))


class HighResolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.st = conv_bn_act(3, 16, 3, 2, act=nn.ReLU)
        self.dn = conv_bn_act(16, 32, 3, 2, act=nn.ReLU)
        self.a = Bottleneck(16, nn.ReLU)
        self.b = Bottleneck(32, nn.ReLU)
        self.up = nn.Conv2d(32, 16, 1)
        self.dd = nn.Conv2d(16, 32, 3, 2, 1)
        self.h = nn.Conv2d(48, 5, 1)

    def forward(self, x):
        x = self.st(x)
        y = self.dn(x)
        x, y = (self.a(x), self.b(y))
        a = functional.relu(x + functional.interpolate(self.up(y), scale_factor=2, mode="bilinear"))
        b = functional.relu(y + self.dd(x))
        return self.h(torch.cat([a, functional.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=False)], 1))


def hrnet():
    return HighResolution()


def superres():
    return seq(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(32, 16, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(16, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )


def superres_mid():
    return seq(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.PReLU(32),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.PixelShuffle(2),
        nn.PReLU(),
        nn.Conv2d(16, 3, 3, padding=1),
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Conv2d(3, 32, 8, 8)
        self.e = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.e(self.p(x).flatten(2).transpose(1, 2)).mean(1))


def encoder():
    return Encoder()


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = seq(conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 32, 3, 2), Bottleneck(32, nn.SiLU))
        self.c = seq(conv_bn_act(32, 16), nn.Conv2d(16, 8, 1))
        self.r = seq(conv_bn_act(32, 16), nn.Conv2d(16, 4, 1))

    def forward(self, x):
        x = self.b(x)
        return (self.c(x), self.r(x))


def detector():
    return TwoHeads()


def hardswish():
    return seq(conv_bn_act(3, 16, act=nn.Hardswish), conv_bn_act(16, 32, 3, 2, act=nn.Hardswish), Head(32))


def softplus():
    return seq(
        conv_bn_act(3, 16, act=nn.Softplus),
        conv_bn_act(16, 32, 3, 2, act=nn.SELU),
        conv_bn_act(32, 16, act=nn.CELU),
        conv_bn_act(16, 16, act=nn.LogSigmoid),
        Head(16),
    )


def dilated():
    return seq(
        conv_bn_act(3, 16),
        nn.ReflectionPad2d(1),
        nn.Conv2d(16, 16, 3),
        nn.LPPool2d(2, 2),
        nn.Conv2d(16, 8, 1),
        nn.Softsign(),
        nn.ReplicationPad2d(1),
        Head(8),
    )


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = conv_bn_act(3, 16)
        self.b = nn.Conv2d(16, 16, 1)
        self.c = nn.Conv2d(16, 16, 1)
        self.h = Head(16)

    def forward(self, x):
        x = self.a(x)
        y = self.b(x).softmax(1) * self.c(x).tanh()
        return self.h(x - 0.5 * y / (1 + y.abs()))


def gated():
    return Gated()


class ShuffleUnit(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.one = conv_bn_act(c // 2, c // 2, 1, act=nn.ReLU)
        self.depthwise = conv_bn_act(c // 2, c // 2, 3, 1, c // 2, act=nn.Identity)
        self.two = conv_bn_act(c // 2, c // 2, 1, act=nn.ReLU)

    def forward(self, x):
        kept, worked = x.chunk(2, 1)
        x = torch.cat([kept, self.two(self.depthwise(self.one(worked)))], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet():
    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU), ShuffleUnit(16), ShuffleUnit(16), conv_bn_act(16, 32, 1, act=nn.ReLU), Head(32)
    )


class PyramidPool(nn.Module):
    """DeepLab's pools of several rates, with one over the whole image that is resized again."""

    def __init__(self, i, o):
        super().__init__()
        self.rates = nn.ModuleList(nn.Conv2d(i, o, 3, padding=rate, dilation=rate) for rate in (1, 2, 4))
        self.whole = nn.Conv2d(i, o, 1)
        self.join = nn.Conv2d(4 * o, o, 1)

    def forward(self, x):
        whole = functional.interpolate(self.whole(x.mean((2, 3), keepdim=True)), size=x.shape[2:], mode="bilinear")
        return self.join(torch.cat([*(functional.relu(rate(x)) for rate in self.rates), whole], 1))


def deeplab():
    up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)
    return seq(conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 32, 3, 2), PyramidPool(32, 24), nn.ReLU(), nn.Conv2d(24, 5, 1), up)


class Pyramid(nn.Module):
    """A feature pyramid: what is upsampled is added to the finer level."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 32, 3, 2)
        self.lateral, self.top = nn.Conv2d(16, 24, 1), nn.Conv2d(32, 24, 1)
        self.smooth, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 5, 1)

    def forward(self, x):
        fine = self.fine(x)
        top = self.top(self.coarse(fine))
        return self.head(functional.silu(self.smooth(self.lateral(fine) + functional.interpolate(top, scale_factor=2))))


def pyramid():
    return Pyramid()


def prelu():
    return seq(nn.Conv2d(3, 16, 3, 2, 1), nn.PReLU(16), nn.Conv2d(16, 32, 3, 2, 1), nn.PReLU(), nn.Conv2d(32, 16, 1), Head(16))


def inverted_relu6():
    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU6), conv_bn_act(16, 16, 3, 1, 16, act=nn.ReLU6), conv_bn_act(16, 24, 1), Head(24)
    )


class ChannelAttention(nn.Module):
    """CBAM: a gate of channels, and one of pixels from means and maxima over channels."""

    def __init__(self, c):
        super().__init__()
        self.one, self.two, self.pixels = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1), nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        x = x * torch.sigmoid(self.two(functional.relu(self.one(x.mean((2, 3), keepdim=True)))))
        return x * torch.sigmoid(self.pixels(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


def channel_attention():
    return seq(conv_bn_act(3, 16, 3, 2), ChannelAttention(16), conv_bn_act(16, 32, 3, 2), Head(32))


class RepVGGBlock(nn.Module):
    """Three branches in training; one convolution once it is deployed."""

    def __init__(self, i, o, s=1, deploy=False):
        super().__init__()
        self.deploy = deploy
        if deploy:
            self.reparam = nn.Conv2d(i, o, 3, s, 1)
        else:
            self.dense = seq(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o))
            self.point = seq(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))
            self.same = nn.BatchNorm2d(i) if i == o and s == 1 else None

    def forward(self, x):
        if self.deploy:
            return functional.relu(self.reparam(x))
        y = self.dense(x) + self.point(x)
        return functional.relu(y if self.same is None else y + self.same(x))


def repvgg(deploy=False):
    return seq(*(RepVGGBlock(i, o, s, deploy) for i, o, s in ((3, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1))), Head(32))


def repvgg_train():
    return repvgg()


def repvgg_deploy():
    return repvgg(True)


class FusedResidual(nn.Module):
    def __init__(self, i, o, st, e):
        super().__init__()
        self.r = i == o and st == 1
        self.body = seq(conv_bn_act(i, i * e, 3, st), nn.Conv2d(i * e, o, 1, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        return x + self.body(x) if self.r else self.body(x)


def efficientnetv2():
    return seq(
        conv_bn_act(3, 16, 3, 2), FusedResidual(16, 16, 1, 2), FusedResidual(16, 24, 2, 4), InvertedResidual(24, 32, 2, 4), Head(32)
    )


class CrossStage(nn.Module):
    """CSPNet: half of the channels go past the blocks."""

    def __init__(self, c):
        super().__init__()
        self.down = conv_bn_act(c, 2 * c, 3, 2, act=nn.LeakyReLU)
        self.m = Bottleneck(c, nn.LeakyReLU)
        self.t = conv_bn_act(c, c, 1, act=nn.LeakyReLU)
        self.j = conv_bn_act(2 * c, 2 * c, 1, act=nn.LeakyReLU)

    def forward(self, x):
        a, b = self.down(x).chunk(2, dim=1)
        return self.j(torch.cat([a, self.t(self.m(b))], 1))


def cspnet():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.LeakyReLU), CrossStage(16), CrossStage(32), Head(64))


class WeightedPyramid(nn.Module):
    """BiFPN: levels are added with weights that are learnt and add up to one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 24, 3, 2)
        self.la, self.lb = nn.Conv2d(16, 16, 1), nn.Conv2d(24, 16, 1)
        self.w1, self.w2 = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        self.up, self.down = (seq(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)) for _ in "ab")
        self.h = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        a = self.a(x)
        a, b = self.la(a), self.lb(self.b(a))
        w = functional.relu(self.w1)
        w = w / (w.sum() + 1e-4)
        a = self.up(functional.silu(w[0] * a + w[1] * functional.interpolate(b, scale_factor=2)))
        w = functional.relu(self.w2)
        w = w / (w.sum() + 1e-4)
        b = self.down(functional.silu(w[0] * b + w[1] * functional.max_pool2d(a, 2)))
        return self.h(a), self.h(b)


def bifpn():
    return WeightedPyramid()


class WindowAttention(nn.Module):
    """Swin: attention within windows, with a bias of relative positions."""

    def __init__(self, c, h, w):
        super().__init__()
        self.h, self.w, self.scale = h, w, (c // h) ** -0.5
        self.n1, self.n2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.u, self.d = nn.Linear(c, 2 * c), nn.Linear(2 * c, c)
        self.bias = nn.Parameter(torch.zeros(h, w * w, w * w))

    def forward(self, x):
        n, height, width, c = x.shape
        w = self.w
        y = torch.roll(self.n1(x), (-1, -1), (1, 2))
        y = y.view(n, height // w, w, width // w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, c)
        q, k, v = self.qkv(y).reshape(y.shape[0], w * w, 3, self.h, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * self.scale) @ k.transpose(-2, -1) + self.bias).softmax(-1) @ v
        y = self.proj(y.transpose(1, 2).flatten(2))
        y = y.view(n, height // w, width // w, w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(n, height, width, c)
        x = x + torch.roll(y, (1, 1), (1, 2))
        return x + self.d(functional.gelu(self.u(self.n2(x))))


class PatchMerging(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * c), nn.Linear(4 * c, 2 * c, bias=False)

    def forward(self, x):
        return self.reduction(self.norm(torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)))


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Conv2d(3, 16, 4, 4)
        self.b = WindowAttention(16, 2, 4)
        self.m = PatchMerging(16)
        self.c = WindowAttention(32, 4, 4)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.c(self.m(self.b(self.p(x).permute(0, 2, 3, 1)))).mean((1, 2)))


def swin():
    return Swin()


class ResponseNorm(nn.Module):
    """ConvNeXt V2's normalisation by the response of each channel."""

    def __init__(self, c):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, c)), nn.Parameter(torch.zeros(1, 1, 1, c))

    def forward(self, x):
        g = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (g / (g.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


class ConvNeXtV2Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dw = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.n = nn.LayerNorm(c, eps=1e-06)
        self.u, self.g, self.d = nn.Linear(c, 4 * c), ResponseNorm(4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        y = self.u(self.n(self.dw(x).permute(0, 2, 3, 1)))
        return x + self.d(self.g(functional.gelu(y))).permute(0, 3, 1, 2)


def convnextv2():
    return seq(nn.Conv2d(3, 16, 4, 4), LayerNorm2d(16), ConvNeXtV2Block(16), nn.Conv2d(16, 32, 2, 2), ConvNeXtV2Block(32), Head(32))


class LinearGate(nn.Module):
    """Squeeze-excite as it was published: pool, flatten, two linear layers, and a view."""

    def __init__(self, c, r):
        super().__init__()
        self.one, self.two = nn.Linear(c, r), nn.Linear(r, c)

    def forward(self, x):
        n, c, _, _ = x.shape
        y = functional.adaptive_avg_pool2d(x, 1).view(n, c)
        return x * torch.sigmoid(self.two(functional.relu(self.one(y)))).view(n, c, 1, 1)


class EfficientGate(nn.Module):
    """ECA: a convolution over the means of neighbouring channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(y)


def squeeze_excite():
    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU),
        LinearGate(16, 4),
        conv_bn_act(16, 32, 3, 2, act=nn.ReLU),
        LinearGate(32, 8),
        Head(32),
    )


def efficient_gate():
    return seq(
        conv_bn_act(3, 16, 3, 2, act=nn.ReLU),
        EfficientGate(),
        conv_bn_act(16, 32, 3, 2, act=nn.ReLU),
        conv_bn_act(32, 16),
        Head(16),
    )


class MobileViTBlock(nn.Module):
    """Convolutions, then a transformer over the pixels at the same place of each patch, joined with what came in."""

    def __init__(self, c, d):
        super().__init__()
        self.c1, self.c2 = conv_bn_act(c, c, 3), nn.Conv2d(c, d, 1, bias=False)
        self.t = TransformerBlock(d, 2)
        self.c3, self.c4 = conv_bn_act(d, c, 1), conv_bn_act(2 * c, c, 3)

    def forward(self, x):
        y = self.c2(self.c1(x))
        n, d, h, w = y.shape
        y = y.reshape(n, d, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(n * 4, h * w // 4, d)
        y = self.t(y)
        y = y.reshape(n, 2, 2, h // 2, w // 2, d).permute(0, 5, 3, 1, 4, 2).reshape(n, d, h, w)
        return self.c4(torch.cat([x, self.c3(y)], 1))


def mobilevit():
    return seq(conv_bn_act(3, 16, 3, 2), InvertedResidual(16, 24, 2, 2), MobileViTBlock(24, 16), conv_bn_act(24, 32, 1), Head(32))


class PoolPyramid(nn.Module):
    """YOLO's SPPF."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b, self.m = conv_bn_act(c, c // 2, 1), conv_bn_act(2 * c, c, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.a(x)
        y = self.m(x)
        z = self.m(y)
        return self.b(torch.cat([x, y, z, self.m(z)], 1))


class YoloHead(nn.Module):
    """Boxes and classes of two levels, joined over all places."""

    def __init__(self):
        super().__init__()
        self.b1, self.b2 = seq(conv_bn_act(3, 16, 3, 2), C2f(16, 16, nn.SiLU)), conv_bn_act(16, 32, 3, 2)
        self.s = PoolPyramid(32)
        self.up = C2f(48, 16, nn.SiLU)
        self.box = nn.ModuleList(seq(conv_bn_act(c, 16), nn.Conv2d(16, 8, 1)) for c in (16, 32))
        self.cls = nn.ModuleList(seq(conv_bn_act(c, 16), nn.Conv2d(16, 4, 1)) for c in (16, 32))

    def forward(self, x):
        a = self.b1(x)
        b = self.s(self.b2(a))
        a = self.up(torch.cat([functional.interpolate(b, scale_factor=2, mode="nearest"), a], 1))
        levels = [torch.cat([box(y), cls(y)], 1).flatten(2) for y, box, cls in zip((a, b), self.box, self.cls, strict=True)]
        box, cls = torch.cat(levels, 2).split([8, 4], 1)
        return torch.cat([box, cls.sigmoid()], 1)


def yolo_head():
    return YoloHead()


class SeparateHeads(nn.Module):
    """Queries, keys and values from layers of their own, by torch's own attention, with a patch for the class."""

    def __init__(self, c, h):
        super().__init__()
        self.h = h
        self.n, self.q, self.k, self.v, self.o = nn.LayerNorm(c), *(nn.Linear(c, c) for _ in "qkvo")

    def forward(self, x):
        y = self.n(x)
        q, k, v = (layer(y).view(*y.shape[:2], self.h, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return x + self.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SeparateViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Conv2d(3, 32, 8, 8)
        self.pos = nn.Parameter(torch.zeros(1, 16, 32))
        self.a, self.fc = SeparateHeads(32, 4), nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.a(self.p(x).flatten(2).transpose(1, 2) + self.pos).mean(1))


def separate_vit():
    return SeparateViT()


class GatedMlp(nn.Module):
    """A gated unit of both halves of a layer's channels, as in NAFNet and in networks with SwiGLU."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, 4 * c, 1), nn.Conv2d(2 * c, c, 1)

    def forward(self, x):
        one, two = self.a(x).chunk(2, 1)
        return x + self.b(one * functional.silu(two))


def gated_units():
    return seq(conv_bn_act(3, 16, 3, 2), GatedMlp(16), conv_bn_act(16, 24, 3, 2), GatedMlp(24), Head(24))


class Concatenated(nn.Module):
    """Two branches side by side, to which the layer before is added."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = conv_bn_act(c, c // 2, 1, act=nn.ReLU), conv_bn_act(c, c // 2, 3, act=nn.ReLU)

    def forward(self, x):
        return functional.relu(x + torch.cat([self.a(x), self.b(x)], 1))


def concatenated():
    return seq(conv_bn_act(3, 16, 3, 2, act=nn.ReLU), Concatenated(16), Concatenated(16), conv_bn_act(16, 32, 3, 2), Head(32))


class Segmenter(nn.Module):
    """SegFormer's head: the features of each level as a sequence through a linear layer, upsampled and fused."""

    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList([conv_bn_act(i, o, 3, 2) for i, o in ((3, 16), (16, 24), (24, 32))])
        self.linear = nn.ModuleList([nn.Linear(c, 16) for c in (16, 24, 32)])
        self.fuse, self.classes = conv_bn_act(48, 16, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        found = []
        for level, linear in zip(self.levels, self.linear, strict=True):
            x = level(x)
            y = linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
            found.append(functional.interpolate(y, size=(16, 16), mode="bilinear", align_corners=False))
        return self.classes(self.fuse(torch.cat(found, 1)))


def segmenter():
    return Segmenter()


class SharedHeads(nn.Module):
    """RetinaNet: two heads that are called for every level of a pyramid."""

    def __init__(self):
        super().__init__()
        self.b1, self.b2 = conv_bn_act(3, 16, 3, 4), conv_bn_act(16, 24, 3, 2)
        self.l1, self.l2 = nn.Conv2d(16, 16, 1), nn.Conv2d(24, 16, 1)
        self.cls = seq(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 6, 3, padding=1))
        self.box = seq(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))

    def forward(self, x):
        one = self.b1(x)
        top = self.l2(self.b2(one))
        levels = [self.l1(one) + functional.interpolate(top, size=one.shape[2:]), top]
        return tuple(
            torch.cat([head(level).permute(0, 2, 3, 1).reshape(x.shape[0], -1, values) for level in levels], 1)
            for head, values in ((self.cls, 3), (self.box, 4))
        )


def retinanet():
    return SharedHeads()


class Siamese(nn.Module):
    """Both halves of an image seen by the same layers, and compared."""

    def __init__(self):
        super().__init__()
        self.body = seq(conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 24, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.one, self.two = nn.Linear(3 * 96, 32), nn.Linear(32, 10)

    def forward(self, x):
        left, right = (self.body(half) for half in x.chunk(2, 3))
        return self.two(functional.relu(self.one(torch.cat([left, right, (left - right).abs()], 1))))


def siamese():
    return Siamese()


class AttentionModule(nn.Module):
    """CBAM: channels gated by the same layers for means and maxima, then pixels by both over the channels."""

    def __init__(self, c):
        super().__init__()
        self.shared = seq(nn.Conv2d(c, c // 2, 1, bias=False), nn.ReLU(), nn.Conv2d(c // 2, c, 1, bias=False))
        self.pixels = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        pools = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(sum(self.shared(pool) for pool in pools))
        over_channels = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return x * torch.sigmoid(self.pixels(over_channels))


def cbam():
    return seq(conv_bn_act(3, 16, 3, 2), AttentionModule(16), conv_bn_act(16, 24, 3, 2), AttentionModule(24), Head(24))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "efficientnet": (efficientnet, 0),
    "C3 with SiLU": (yolo_c3, 0),
    "C3 with ELU": (yolo_c3_elu, 0),
    "C3 with Mish": (yolo_c3_mish, 0),
    "C2f": (yolo_c2f, 0),
    "darknet": (darknet, 0),
    "convnext": (convnext, 0),
    "vit": (vit, 0),
    "transformer encoder": (encoder, 0),
    "unet with group normalisation": (unet_gn, 0),
    "unet with instance normalisation": (unet_in, 0),
    "unet with bilinear upsampling": (unet_bilinear, 0),
    "unet with padding": (unet_pad, 0),
    "mobilenetv4": (mobilenetv4, 0),
    "regnet": (regnet, 0),
    "ghostnet": (ghostnet, 0),
    "densenet": (densenet, 0),
    "inception": (inception, 0),
    "hrnet": (hrnet, 0),
    "super-resolution": (superres, 0),
    "two heads": (detector, 0),
    "hard-swish": (hardswish, 0),
    "rare activations": (softplus, 0),
    "rare pads and pools": (dilated, 0),
    "a gate of a softmax": (gated, 0),
    "shufflenet": (shufflenet, 32),  # halves are interleaved
    "deeplab": (deeplab, 0),
    "feature pyramid": (pyramid, 0),
    "prelu": (prelu, 0),
    "relu6": (inverted_relu6, 0),
    "channel attention": (channel_attention, 0),
    "repvgg in training": (repvgg_train, 0),
    "repvgg deployed": (repvgg_deploy, 0),
    "efficientnetv2": (efficientnetv2, 0),
    "cspnet": (cspnet, 0),
    "bifpn": (bifpn, 0),
    "swin": (swin, 48),
    "convnextv2": (convnextv2, 0),
    "squeeze-excite of linear layers": (squeeze_excite, 0),
    "a gate over neighbouring channels": (efficient_gate, 17),  # with the one channel of its Conv1d
    "mobilevit": (mobilevit, 0),
    "yolo with its head": (yolo_head, 0),
    "separate queries, keys and values": (separate_vit, 0),
    "gated units": (gated_units, 0),
    "added to a concatenation": (concatenated, 0),
    "segformer's head": (segmenter, 0),
    "heads that all levels share": (retinanet, 0),
    "siamese": (siamese, 0),
    "cbam": (cbam, 0),
}
"""The function that makes each network, and the channels that keep their widths besides those of its outputs."""
