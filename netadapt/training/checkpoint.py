"""Weights on disk: a state_dict and nothing else, so that reading one can never run code."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from pickle import UnpicklingError  # torch raises it for a file that is no state_dict; nothing is ever unpickled

import torch
from torch import nn

from device_agents.support.atomic import write_whole
from netadapt.errors import RunError

_UNREADABLE = (
    OSError, EOFError, UnpicklingError, TypeError, AttributeError, ValueError, LookupError, AssertionError, struct.error,
)  # fmt: skip
"""The errors that torch raises for damaged files, depending on the place of the damage."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state_dict atomically: the file is there whole or not at all. `RunError` if it cannot be written."""
    data = io.BytesIO()
    torch.save(model.state_dict(), data)
    write_whole(path, data.getvalue(), RunError)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights into a model of the same shapes, in place. `RunError` if the file holds none, or those of another network."""
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as exc:
        raise RunError(f"there are no weights at {path}; restore the file or give the path of another") from exc
    except _UNREADABLE as exc:
        raise RunError(f"{path} holds no weights that can be read; it must be a state_dict saved by torch.save") from exc
    except RuntimeError as exc:
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        reason = lines[min(1, len(lines) - 1)][:200]  # the first line only names the model's class
        raise RunError(f"the weights in {path} are not of this network: {reason}; use weights of the same network") from exc
