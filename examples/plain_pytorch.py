"""NetAdapt in a plain PyTorch training script: what is yours, and the four lines that are NetAdapt's.

    python examples/plain_pytorch.py                        # to 60 % of the multiply-accumulates
    python examples/plain_pytorch.py --table phone.parquet  # to 60 % of the latency on the table's device
    python examples/plain_pytorch.py --workers 4            # four candidates at the same time

The network, its training and its score are functions of this file, so that worker processes can be told their names.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split

import netadapt

TRAINED = Path("plain_pytorch.pt")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(images).mean((2, 3)))
        return scores


@cache
def data() -> list[Subset[tuple[Tensor, ...]]]:
    """Training, holdout and test images. Winners are chosen on the holdout; the test images are for the end."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return random_split(TensorDataset(images, torch.tensor(digits.target)), (0.6, 0.15, 0.25), torch.Generator().manual_seed(0))


def train(model: nn.Module, steps: int, rate: float = 0.02) -> None:
    """Your own training: anything that trains the network in place."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=rate, momentum=0.9)
    done = 0
    while done < steps:
        for images, labels in DataLoader(data()[0], batch_size=64, shuffle=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            done += 1
            if done == steps:
                return


def accuracy(model: nn.Module, part: int = 1) -> float:
    """Your own score, higher is better, on images that nothing was trained on."""
    model.eval()
    with torch.no_grad():
        right = [(model(images).argmax(1) == labels).float() for images, labels in DataLoader(data()[part], batch_size=256)]
    return float(torch.cat(right).mean())


def trained() -> nn.Module:
    """The trained network."""
    model = Net()
    if not TRAINED.exists():
        torch.manual_seed(0)
        train(model, 300, rate=0.1)
        torch.save(model.state_dict(), TRAINED)
    model.load_state_dict(torch.load(TRAINED, weights_only=True))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="a latency table, made by `profile build`")
    parser.add_argument(
        "--out", type=Path, default=Path("plain_pytorch_run"), help="the folder of the run; it goes on if it is there"
    )
    parser.add_argument("--workers", type=int, help="candidates that are fine-tuned at the same time")
    asked = parser.parse_args()
    print(f"trained: {accuracy(trained(), part=2):.1%} of the test images")
    here = str(Path(__file__).resolve())
    steps = netadapt.adapt(
        f"{here}:trained", data()[0][0][0].unsqueeze(0), "latency=60%" if asked.table else "macs=60%", asked.table,
        evaluate=f"{here}:accuracy", fine_tune=f"{here}:train", out=asked.out, resume=True, workers=asked.workers,
        search=netadapt.AdaptSettings(step=0.1),
    )  # fmt: skip
    for step in steps:
        print(f"step {step.iteration}: {step.score:.1%} of the holdout, {dict(step.prices)}, widths {dict(step.widths)}")
    torch.manual_seed(0)
    train(step.model, 300)
    print(f"adapted: {accuracy(step.model, part=2):.1%} of the test images")
    print(step.export(asked.out / "adapted.onnx").path)


if __name__ == "__main__":
    main()
