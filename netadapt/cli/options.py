"""The options of `netadapt`'s commands, in the groups that `--help` shows them in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from netadapt.executors import EXECUTORS
from netadapt.pruning.importance import IMPORTANCES
from netadapt.resources import RESOURCES

_network = partial(typer.Option, rich_help_panel="Network and data")
_budget = partial(typer.Option, rich_help_panel="Budgets")
_search = partial(typer.Option, rich_help_panel="Search")
_training = partial(typer.Option, rich_help_panel="Training")
_executor = partial(typer.Option, rich_help_panel="Where candidates are trained")

Run = Annotated[Path, typer.Argument(help="A run made by `netadapt run`.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from --seed on; 3 or more for figures with a spread.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write logs for TensorBoard into the run's folder.")]
Device = Annotated[
    str | None, typer.Option(help="Where to measure: a device, or the name of one of the run's tables; by default the first's.")
]
Runtime = Annotated[str | None, typer.Option(help="onnxruntime or litert; by default the table's.")]

LayerPrecision = Annotated[str, typer.Option(help="The data type that the layers compute in: float32 or int8.")]

# network and data

Network = Annotated[
    str, typer.Argument(help="A network by name, as `netadapt networks` lists them, or your own: mypkg.models:make_net.")
]
Multiplier = Annotated[float, _network(help="Width multiplier of the original network.")]
Resolution = Annotated[int, _network(help="Side of the input image, in pixels.")]
Input = Annotated[str | None, _network("--input", help="Shape of the input, such as 1x3x224x224, instead of --resolution.")]
SmallInput = Annotated[bool, _network("--small-input", help="Keep more of small images: the stem does not halve them.")]
Classes = Annotated[int, _network(help="Outputs of the classifier.")]
Data = Annotated[str, _network(help="digits, cifar10:PATH, folder:PATH, nyu:PATH, scenes or a path.")]
Weights = Annotated[
    Path | None,
    _network(
        help="Trained weights of the original (a state_dict), else it is trained first; from an .npz only its encoder starts."
    ),
]

# budgets

Budgets = Annotated[
    list[str],
    _budget(
        "--budget",
        help=f"What the network may spend, such as latency=60% or pixel=40ms; of {', '.join(RESOURCES)}. Repeatable.",
    ),
]
Tables = Annotated[
    list[str] | None,
    _budget("--table", help="A latency table, made by `profile build`; of several devices NAME=TABLE each, repeated."),
]
AllowUnverified = Annotated[bool, _budget("--allow-unverified", help="Rely on a table that is not known to predict networks.")]
Measure = Annotated[
    bool | None,
    _budget("--measure/--no-measure", help="Measure every winner on the table's device; by default if it can be reached."),
]

# search

Step = Annotated[float, _search(help="What the first iteration takes away, as a fraction of the price.")]
Decay = Annotated[float, _search(help="By what that shrinks from iteration to iteration.")]
MaxIterations = Annotated[int, _search(help="Iterations at most.")]
WidthStep = Annotated[int, _search(help="Widths stay multiples of this.")]
MinWidth = Annotated[int, _search(help="No block becomes narrower than this.")]
SelectBy = Annotated[str, _search(help="What picks an iteration's winner: accuracy, or ratio (accuracy lost for the price saved).")]
IfNoCandidate = Annotated[str, _search(help="Where no block alone can bring a step: halve it, or join several blocks.")]
SuccessiveHalving = Annotated[
    bool,
    _search("--successive-halving", help="Drop the worse half of the candidates after a quarter and a half of their steps."),
]
Importance = Annotated[
    str, _search(help=f"Which channels stay: {' or '.join(IMPORTANCES)}. Reconstruction refits the next layers, too.")
]
BnRecalibrationBatches = Annotated[
    int, _search(help="Batches to count batch normalisation's statistics anew from after pruning; 0 leaves them.")
]

# training: what is not said is the task's own recipe

Epochs = Annotated[float | None, _training(help="To train the original network, without --weights; by default the task's.")]
LearningRate = Annotated[float | None, _training(help="The highest of the schedule; by default the task's.")]
ShortTermSteps = Annotated[int | None, _training(help="Batches to fine-tune each candidate; by default 20.")]
ShortTermLearningRate = Annotated[float | None, _training(help="Of candidates; by default the task's.")]
BatchSize = Annotated[int | None, _training(help="Images in a batch; by default the task's, and then as the run began.")]
Augment = Annotated[
    bool | None,
    _training("--augment/--no-augment", help="Change training images at random; by default as the task says."),
]
Holdout = Annotated[float, _training(help="Part of the training images that picks the winners.")]

# where candidates are trained

Executor = Annotated[
    str | None, _executor(help=f"Where candidates are fine-tuned: {', '.join(EXECUTORS)}; no result depends on it.")
]
Workers = Annotated[int | None, _executor(help="Candidates at the same time, in worker processes unless --executor says ray.")]
CoresPerWorker = Annotated[int | None, _executor(help="By default as many as a candidate has threads.")]
RayAddress = Annotated[str, _executor(help="Of the Ray cluster: auto, HOST:PORT or local.")]
ThreadsPerCandidate = Annotated[
    int | None, _executor(help="Of PyTorch, for each candidate; 1 by default, and kept for the whole run.")
]
