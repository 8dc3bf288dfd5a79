"""Small networks of many families over sequences (n, 1, length), such as sounds: functions without arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


def m5():
    """Sounds to classes, as in PyTorch's tutorial."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 16, 4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4),
        nn.Conv1d(16, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4),
        nn.Conv1d(16, 32, 3), nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


class TemporalBlock(nn.Module):
    """TCN: dilated convolutions that see the past only, and a residual."""

    def __init__(self, i, o, d):
        super().__init__()
        self.a, self.b = nn.Conv1d(i, o, 3, padding=2 * d, dilation=d), nn.Conv1d(o, o, 3, padding=2 * d, dilation=d)
        self.cut, self.same = 2 * d, None if i == o else nn.Conv1d(i, o, 1)

    def forward(self, x):
        y = functional.relu(self.a(x)[:, :, : -self.cut])
        y = functional.relu(self.b(y)[:, :, : -self.cut])
        return functional.relu(y + (x if self.same is None else self.same(x)))


class TemporalNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(TemporalBlock(1, 16, 1), TemporalBlock(16, 16, 2), TemporalBlock(16, 24, 4))
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        return self.fc(self.body(x)[:, :, -1])


class SpeechEncoder(nn.Module):
    """wav2vec: convolutions with few steps, a grouped convolution for places, and a transformer."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv1d(1, 16, 10, 5, bias=False), nn.GroupNorm(16, 16), nn.GELU(), nn.Conv1d(16, 16, 3, 2, bias=False), nn.GELU(),
            nn.Conv1d(16, 24, 3, 2, bias=False), nn.GELU(),
        )  # fmt: skip
        self.n, self.p = nn.LayerNorm(24), nn.Linear(24, 32)
        self.pos = nn.Conv1d(32, 32, 9, padding=4, groups=4)
        self.e = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.p(self.n(self.f(x).transpose(1, 2)))
        x = x + functional.gelu(self.pos(x.transpose(1, 2))).transpose(1, 2)
        return self.fc(self.e(x).mean(1))


def separable():
    """Depthwise convolutions, several activations, and a flatten of more than one place."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 7, 2, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 5, padding=2, groups=16), nn.BatchNorm1d(16),
        nn.ReLU6(), nn.Conv1d(16, 24, 1), nn.BatchNorm1d(24), nn.SiLU(), nn.Dropout(0.1), nn.AvgPool1d(2),
        nn.Conv1d(24, 32, 3, 2, 1), nn.LeakyReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(128, 32), nn.ReLU(),
        nn.Linear(32, 6),
    )  # fmt: skip


def autoencoder():
    return nn.Sequential(
        nn.Conv1d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv1d(16, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose1d(32, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose1d(16, 1, 4, 2, 1),
    )  # fmt: skip


class WaveUNet(nn.Module):
    """What was made at the full rate beside what is brought back to it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 12, 5, padding=2), nn.Conv1d(12, 24, 5, 2, 2)
        self.c, self.h = nn.Conv1d(36, 12, 3, padding=1), nn.Conv1d(12, 2, 1)

    def forward(self, x):
        a = functional.leaky_relu(self.a(x), 0.1)
        b = functional.leaky_relu(self.b(a), 0.1)
        b = functional.interpolate(b, scale_factor=2, mode="linear", align_corners=False)
        return torch.tanh(self.h(functional.leaky_relu(self.c(torch.cat([a, b], 1)), 0.1)))


class WaveNet(nn.Module):
    """Gated units of both halves of a convolution, whose outputs are added up."""

    def __init__(self, c=16):
        super().__init__()
        self.first, self.last = nn.Conv1d(1, c, 1), nn.Conv1d(24, 8, 1)
        self.gated = nn.ModuleList(nn.Conv1d(c, 2 * c, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.residual = nn.ModuleList(nn.Conv1d(c, c, 1) for _ in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(c, 24, 1) for _ in range(3))

    def forward(self, x):
        x, total = self.first(x), 0
        for place, (gated, skip) in enumerate(zip(self.gated, self.skips, strict=True)):
            a, b = gated(x).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            if place < len(self.residual):
                x = x + self.residual[place](y)
        return self.last(functional.relu(total))


SEQUENCES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "m5": (m5, 0),
    "temporal convolutions": (TemporalNetwork, 0),
    "speech encoder": (SpeechEncoder, 0),
    "separable over sequences": (separable, 0),
    "autoencoder of sequences": (autoencoder, 0),
    "wave-u-net": (WaveUNet, 0),
    "wavenet": (WaveNet, 0),
}
"""As NETWORKS of tests/families.py, for inputs of LENGTH."""
LENGTH = (1, 1, 1024)
