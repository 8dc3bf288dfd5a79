"""Networks as people write them: what they return, keep, wrap and compute beside the usual."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


class Base(nn.Module):
    def __init__(self, classes=10, wrapped=lambda s, e: s):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.head, self.aux, self.wrapped = nn.Linear(24, classes), nn.Linear(16, classes), wrapped

    def forward(self, x):
        e = self.one(x).relu()
        return self.wrapped(self.head(self.two(e).relu().mean((2, 3))), self.aux(e.mean((2, 3))))


Pair = namedtuple("Pair", "logits aux")


@dataclass
class Out:
    logits: torch.Tensor
    aux: torch.Tensor
    loss: Any = None


def dict_two(num_classes=10):
    return Base(num_classes, lambda s, e: {"aux": e, "logits": s})


def tuple_two(num_classes=10):
    return Base(num_classes, lambda s, e: (s, e))


def list_two(num_classes=10):
    return Base(num_classes, lambda s, e: [s, e])


def named_two(num_classes=10):
    return Base(num_classes, Pair)


def data_two(num_classes=10):
    return Base(num_classes, Out)


def nested(num_classes=10):
    return Base(num_classes, lambda s, e: {"feats": [e[:, :3]], "out": OrderedDict(cls=s)})


def with_none(num_classes=10):
    return Base(num_classes, lambda s, e: (s, None, 3))


def twice(num_classes=10):
    return Base(num_classes, lambda s, e: {"out": s, "logits": s})


def argmax(num_classes=10):
    return Base(num_classes, lambda s, e: {"out": s, "label": s.argmax(1)})


def no_tensor(num_classes=10):
    return Base(num_classes, lambda s, e: None)


def other_shape(num_classes=10):
    return Base(num_classes, lambda s, e: {"a": s[:, :3], "b": e[:, :3]})


class TrainAux(Base):
    def __init__(self, classes, order):
        super().__init__(classes)
        self.order = order

    def forward(self, x):
        e = self.one(x).relu()
        s = self.head(self.two(e).relu().mean((2, 3)))
        if not self.training:
            return s
        a = self.aux(e.mean((2, 3)))
        return {"main": (s, a), "last": (a, s), "dict": {"aux": a, "out": s}}[self.order]


def train_first(num_classes=10):
    return TrainAux(num_classes, "main")


def train_last(num_classes=10):
    return TrainAux(num_classes, "last")


def train_dict(num_classes=10):
    return TrainAux(num_classes, "dict")


class AuxConv(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.extra, self.bn = nn.Conv2d(16, 12, 3), nn.BatchNorm2d(12)
        self.aux = nn.Linear(12, classes)

    def forward(self, x):
        e = self.one(x).relu()
        s = self.head(self.two(e).relu().mean((2, 3)))
        if self.training:
            return s + 0.3 * self.aux(F.dropout(self.bn(self.extra(e)), 0.5, self.training).relu().mean((2, 3)))
        return s


def aux_conv(num_classes=10):
    return AuxConv(num_classes)


class Branch(Base):
    def forward(self, x):
        e = self.one(x).relu()
        s = self.head(self.two(e).relu().mean((2, 3)))
        return (s + self.aux(e.mean((2, 3)))) / 2 if self.training else s


def branch_only_in_training(num_classes=10):
    return Branch(num_classes)


class EvalOnly(Base):
    def forward(self, x):
        e = self.one(x).relu()
        s = self.head(self.two(e).relu().mean((2, 3)))
        return s if self.training else s + self.aux(e.mean((2, 3)))


def eval_only(num_classes=10):
    return EvalOnly(num_classes)


class BothOnly(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.other = nn.Linear(16, classes)

    def forward(self, x):
        e = self.one(x).relu()
        s = self.head(self.two(e).relu().mean((2, 3)))
        return s + (self.other if self.training else self.aux)(e.mean((2, 3)))


def both_only(num_classes=10):
    return BothOnly(num_classes)


class Viewed(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Linear(16 * 16 * 16, classes)

    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        return self.fc(x.view(x.size(0), -1))


def viewed(num_classes=10):
    return Viewed(num_classes)


class Grid(Base):
    def __init__(self, classes, kind):
        super().__init__(classes)
        self.kind, self.grid = kind, None

    def forward(self, x):
        e = self.one(x).relu()
        if self.kind == "always" or self.grid is None or (self.kind == "shape" and self.grid.shape != e.shape[-2:]):
            grid = torch.linspace(0, 1, e.shape[-1]).expand(e.shape[-2:]).clone()
            if self.kind == "buffer":
                del self.grid
                self.register_buffer("grid", grid)
            else:
                self.grid = grid
        e = e + self.grid
        return self.head(self.two(e).relu().mean((2, 3)))


def grid_always(num_classes=10):
    return Grid(num_classes, "always")


def grid_once(num_classes=10):
    return Grid(num_classes, "once")


def grid_shape(num_classes=10):
    return Grid(num_classes, "shape")


def grid_buffer(num_classes=10):
    return Grid(num_classes, "buffer")


class GridBatch(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("grid", None)

    def forward(self, x):
        e = self.one(x).relu()
        if self.grid is None or self.grid.shape[0] != len(x):
            self.grid = torch.arange(len(x) * e.shape[-1]).float().view(len(x), 1, 1, -1) / 100
        return self.head(self.two(e + self.grid * 0.01).relu().mean((2, 3)))


def grid_batch(num_classes=10):
    return GridBatch(num_classes)


class Keeps(Base):
    def forward(self, x):
        e = self.one(x).relu()
        self.early = e
        self.all = [e]
        return self.head(self.two(e).relu().mean((2, 3)))


def keeps(num_classes=10):
    return Keeps(num_classes)


def norm_all(wrap):
    def make(num_classes=10):
        m = Base(num_classes)
        for name in ("one", "two", "head"):
            setattr(m, name, wrap(getattr(m, name)))
        return m

    return make


wn_new, wn_old, sn_new, sn_old = map(
    norm_all, (parametrizations.weight_norm, weight_norm, parametrizations.spectral_norm, spectral_norm)
)


class Sym(nn.Module):
    def forward(self, w):
        return w * 0.5


def own_param(num_classes=10):
    m = Base(num_classes)
    nn.utils.parametrize.register_parametrization(m.one, "weight", Sym())
    return m


def masked(num_classes=10):
    m = Base(num_classes)
    nn.utils.prune.l1_unstructured(m.one, "weight", 0.3)
    return m


def lazy(num_classes=10):
    return nn.Sequential(
        nn.LazyConv2d(16, 3, 2, 1),
        nn.LazyBatchNorm2d(),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(32),
        nn.ReLU(),
        nn.LazyLinear(num_classes),
    )


def compiled(num_classes=10):
    return torch.compile(Base(num_classes))


def compiled_in_place(num_classes=10):
    m = Base(num_classes)
    m.compile()
    return m


def compiled_part(num_classes=10):
    m = Base(num_classes)
    m.two = torch.compile(m.two)
    return m


def tokens(num_classes=10):
    return nn.Sequential(nn.Embedding(10, 16), nn.Flatten(), nn.Linear(16, num_classes))


def scripted(num_classes=10):
    return torch.jit.script(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
    )


def jit_traced(num_classes=10):
    return torch.jit.trace(Base(num_classes), torch.zeros(1, 3, 32, 32))


def script_part(num_classes=10):
    m = Base(num_classes)
    m.two = torch.jit.script(m.two)
    return m


def parallel(num_classes=10):
    return nn.DataParallel(Base(num_classes))


def half(num_classes=10):
    return Base(num_classes).half()


def bf16(num_classes=10):
    return Base(num_classes).to(torch.bfloat16)


def double(num_classes=10):
    return Base(num_classes).double()


class HalfInside(Base):
    def forward(self, x):
        return super().forward(x.half())


def half_inside(num_classes=10):
    return HalfInside(num_classes).half()


def meta(num_classes=10):
    with torch.device("meta"):
        return Base(num_classes)


class Two(Base):
    def forward(self, x, y):
        return super().forward(x + y)


def two_inputs(num_classes=10):
    return Two(num_classes)


class TwoDefault(Base):
    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


def two_default(num_classes=10):
    return TwoDefault(num_classes)


class Targets(Base):
    def forward(self, x, targets=None):
        if self.training:
            assert targets is not None, "targets are needed in training"
        return super().forward(x)


def needs_targets(num_classes=10):
    return Targets(num_classes)


def frozen(num_classes=10):
    return Base(num_classes).requires_grad_(False)


class NoGrad(Base):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def no_grad(num_classes=10):
    return NoGrad(num_classes)


class Raises(Base):
    def forward(self, x):
        if self.training:
            raise KeyError("only in training")
        return super().forward(x)


def raises(num_classes=10):
    return Raises(num_classes)


class Fixed(Base):
    def forward(self, x):
        return super().forward(x.reshape(1, 3, 32, 32))


def batch_one(num_classes=10):
    return Fixed(num_classes)


def divisor(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.AvgPool2d(2, divisor_override=3),
        nn.Conv2d(16, 8, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )


class NaN(Base):
    def forward(self, x):
        return super().forward(x) / 0.0 * 0.0


def nan(num_classes=10):
    return NaN(num_classes)


class ListAppend(Base):
    def __init__(self, c):
        super().__init__(c)
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        return super().forward(x)


def counter(num_classes=10):
    return ListAppend(num_classes)


def swa(num_classes=10):
    return torch.optim.swa_utils.AveragedModel(Base(num_classes))


@torch.jit.script
def fused(x):
    return x * torch.sigmoid(x)


class ScriptFn(Base):
    def forward(self, x):
        return self.head(fused(self.two(self.one(x).relu())).mean((2, 3)))


def script_fn(num_classes=10):
    return ScriptFn(num_classes)


class Ckpt(Base):
    def forward(self, x):
        e = torch.utils.checkpoint.checkpoint(self.one, x, use_reentrant=False).relu()
        return self.head(self.two(e).relu().mean((2, 3)))


def checkpointed(num_classes=10):
    return Ckpt(num_classes)


class AMP(Base):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


def autocast(num_classes=10):
    return AMP(num_classes)


class DropPath(nn.Module):
    def forward(self, x):
        return x * (torch.rand(len(x), 1, 1, 1) > 0.1) if self.training else x


def drop_path(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        DropPath(),
        nn.Conv2d(16, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )


def fx(num_classes=10):
    return torch.fx.symbolic_trace(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 8, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        )
    )


class Rank3(Base):
    def forward(self, x):
        return {"map": self.two(self.one(x)), "logits": super().forward(x)}


def with_map(num_classes=10):
    return Rank3(num_classes)


class Depth(nn.Module):
    def __init__(self, end, wrap=lambda y: y):
        super().__init__()
        self.one, self.two, self.end, self.wrap = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 1, 1), end, wrap

    def forward(self, x):
        return self.wrap(self.end(self.two(self.one(x).relu()), x.shape[2:]))


def depth_opaque():
    return Depth(lambda y, s: F.interpolate(y, size=s, mode="bilinear", align_corners=True))


def depth_softplus():
    return Depth(lambda y, s: F.softplus(F.interpolate(y, size=s)))


def depth_dict():
    return Depth(lambda y, s: F.elu(F.interpolate(y, size=s)), lambda y: {"small": y[:, :, ::2, ::2], "depth": y})


def depth_exact():
    return Depth(lambda y, s: F.interpolate(y, size=s, mode="nearest-exact"))


class DepthN(nn.Module):
    def __init__(self, inner, mode, **o):
        super().__init__()
        self.one, self.two, self.mode, self.o = nn.Conv2d(3, 16, inner), nn.Conv2d(16, 1, 1), mode, o

    def forward(self, x):
        return F.interpolate(self.two(self.one(x).relu()), size=x.shape[2:], mode=self.mode, **self.o)


def near60():
    return DepthN(5, "nearest")


def near58():
    return DepthN(7, "nearest")


def bil58():
    return DepthN(7, "bilinear", align_corners=False)


def exact60():
    return DepthN(5, "nearest-exact")


def bicubic60():
    return DepthN(5, "bicubic")


class Gray(nn.Module):
    def __init__(self, c, n):
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(n, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 2, 1), nn.Linear(24, c)

    def forward(self, x):
        return self.fc(self.two(self.one(x).relu()).relu().mean((2, 3)))


def gray(num_classes=10):
    return Gray(num_classes, 1)


def five(num_classes=10):
    return Gray(num_classes, 5)
