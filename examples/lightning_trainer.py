"""NetAdapt around a LightningModule: candidates are trained by PyTorch Lightning's own Trainer.

    pip install lightning
    python examples/lightning_trainer.py --out run

`fine_tune` and `evaluate` are objects of this program, which may use whatever it has.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

import netadapt


class Digits(lightning.LightningDataModule):
    def setup(self, stage: str) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        whole = TensorDataset(images, torch.tensor(digits.target))
        self.training, self.holdout, self.testing = random_split(whole, (0.6, 0.15, 0.25), torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.training, batch_size=64, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.holdout, batch_size=256)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.testing, batch_size=256)


class Classifier(lightning.LightningModule):
    """As people write it: the network is a part of it, so that a candidate can take its place."""

    def __init__(self, network: nn.Module, rate: float = 0.02) -> None:
        super().__init__()
        self.network, self.rate = network, rate

    def training_step(self, batch: tuple[Tensor, Tensor], _number: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _number: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean(), batch_size=len(labels))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


def trainer(steps: int = 0) -> lightning.Trainer:
    return lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0 if steps else 1.0,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", type=Path, help="a latency table, made by `profile build`; else multiply-accumulates are reduced"
    )
    parser.add_argument("--out", type=Path, default=Path("lightning_run"))
    asked = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    data = Digits()
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip

    def fine_tune(model: nn.Module, steps: int) -> None:
        trainer(steps).fit(Classifier(model.train()), datamodule=data)  # Lightning leaves a network in the mode that it has

    def evaluate(model: nn.Module) -> float:
        (found,) = trainer().validate(Classifier(model), datamodule=data, verbose=False)
        return found["accuracy"]

    trainer(300).fit(Classifier(network, rate=0.05), datamodule=data)
    steps = netadapt.adapt(
        network, torch.zeros(1, 1, 8, 8), "latency=60%" if asked.table else "macs=60%", asked.table, evaluate=evaluate,
        fine_tune=fine_tune, out=asked.out, search=netadapt.AdaptSettings(step=0.1),
    )  # fmt: skip
    for step in steps:
        print(f"step {step.iteration}: {step.score:.1%} of the holdout, {dict(step.prices)}")
    fine_tune(step.model, 300)
    (found,) = trainer().test(Classifier(step.model), datamodule=data, verbose=False)
    print(f"adapted: {found['accuracy']:.1%} of the test images")
    print(step.export(asked.out / "adapted.onnx").path)


if __name__ == "__main__":
    main()
