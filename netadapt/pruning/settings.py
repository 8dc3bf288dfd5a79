"""The settings of pruning: the importance criterion, and what is done before the short-term fine-tune. No torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from netadapt.errors import SettingsError
from netadapt.pruning.importance import DEFAULT, check_importance


@dataclass(frozen=True, slots=True)
class PruningSettings:
    """How a candidate is pruned. `SettingsError` for a number out of range, `ImportanceError` for an unknown criterion."""

    importance: str = DEFAULT
    """A name in `netadapt.pruning.importance.IMPORTANCES`."""
    bn_recalibration_batches: int = 0
    """Batches of 64 images from which batch normalisation's statistics are computed again; 0 keeps the old statistics."""
    images: int = 256
    """The number of training images for criteria that need the inputs of layers."""

    def __post_init__(self) -> None:
        check_importance(self.importance)
        if self.bn_recalibration_batches < 0:
            raise SettingsError(
                f"--bn-recalibration-batches must be at least 0, which is for none, got {self.bn_recalibration_batches}"
            )
        if self.images < 1:
            raise SettingsError(f"the number of images for importance criteria must be at least 1, got {self.images}")
