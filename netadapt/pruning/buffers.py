"""Buffers with a number, or a kernel, for each channel, such as those of a frozen batch normalisation or of a blur before a stride.

Torch-Pruning follows parameters, but no buffers; so these hold parameters while channels are removed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ChannelBuffer:
    """A buffer of the user's own code that follows channels."""

    owner: nn.Module
    name: str
    """In its owner."""
    path: str
    """In the model."""
    axis: int
    """The axis of its channels."""
    is_stored: bool
    """Whether it is stored with the weights."""

    @property
    def values(self) -> Tensor:
        """What it holds now."""
        found: Tensor = getattr(self.owner, self.name)
        return found

    def hold(self, values: Tensor) -> None:
        """Hold these values as a buffer, even where they are a parameter, which Torch-Pruning makes an attribute of the owner."""
        self.owner._parameters.pop(self.name, None)
        self.owner.register_buffer(self.name, values, persistent=self.is_stored)


def buffers_of_channels(model: nn.Module) -> list[ChannelBuffer]:
    """Those of the user's own modules; torch's own modules keep theirs."""
    return [
        ChannelBuffer(module, name, f"{path}.{name}".lstrip("."), axis, name not in module._non_persistent_buffers_set)
        for path, module in model.named_modules()
        if not type(module).__module__.startswith("torch.")
        for name, buffer in module._buffers.items()
        if buffer is not None and (axis := _channel_axis(buffer)) is not None
    ]


def _channel_axis(buffer: Tensor) -> int | None:
    """That of (c,), (c, 1, 1), (1, c, 1, 1) and (c, 1, k, k); None for other shapes."""
    if not buffer.is_floating_point() or buffer.ndim not in (1, 3, 4) or buffer.numel() == 1:
        return None
    if buffer.ndim == 4 and buffer.shape[0] > 1:
        return 0 if buffer.shape[1] == 1 else None
    axis = 1 if buffer.ndim == 4 else 0
    return axis if buffer.shape[axis] == buffer.numel() else None
