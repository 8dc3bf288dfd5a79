"""Weights on disk: a state_dict and nothing else, so that reading one can never run code."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from pickle import UnpicklingError  # what torch raises for a file that is no state_dict; nothing is ever unpickled

import torch
from torch import nn

from device_agents.support.atomic import write_whole
from netadapt.errors import RunError

_NO_WEIGHTS = (
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
        raise RunError(f"there are no weights {path}") from exc
    except _NO_WEIGHTS as exc:
        raise RunError(f"{path} holds no weights that can be read; it must be a state_dict saved by torch.save") from exc
    except RuntimeError as exc:
        said = [line.strip() for line in str(exc).splitlines() if line.strip()]
        raise RunError(f"the weights in {path} do not fit this network: {said[min(1, len(said) - 1)][:200]}") from exc
