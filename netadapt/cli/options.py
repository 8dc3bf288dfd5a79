"""The options of `netadapt`'s commands, in the groups that `--help` shows them in.

Lists of names in help texts come from the registries. Help texts name the defaults that depend on a task or a run; typer shows the
others.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from netadapt.executors import EXECUTORS
from netadapt.pruning.importance import IMPORTANCES
from netadapt.resources import RESOURCES
from netadapt.search.types import CANDIDATES, IF_NO_CANDIDATE, METHODS, SELECT_BY
from netadapt.training.datasets import usages
from netadapt.training.tasks import TASKS
from profiler.runtimes import offered_runtimes

_network = partial(typer.Option, rich_help_panel="Network and data")
_budget = partial(typer.Option, rich_help_panel="Budgets")
_search = partial(typer.Option, rich_help_panel="Search")
_training = partial(typer.Option, rich_help_panel="Training")
_executor = partial(typer.Option, rich_help_panel="Where candidates are trained")

Run = Annotated[Path, typer.Argument(help="The folder of a run made by `netadapt run`.")]
Seed = Annotated[int, typer.Option(help="The seed of all random numbers.")]
Seeds = Annotated[
    int, typer.Option(min=1, help="Number of seeds, from --seed on; with several, results have a standard deviation.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write logs for TensorBoard into the run's folder.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        "-d",
        help="The device to measure on, or the name of one of the run's tables. Default: the first table's device, or local "
        "without one.",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        "-r",
        help=f"The runtime to measure with: {', '.join(offered_runtimes())}. Default: the table's, or onnxruntime without one.",
    ),
]
LayerPrecision = Annotated[str, typer.Option(help="The data type that the layers compute in: float32 or int8.")]

# network and data

Network = Annotated[
    str, typer.Argument(help="A network by name, as `netadapt networks` lists them, or your own: mypkg.models:make_net.")
]
NetworkOrRun = Annotated[
    str,
    typer.Argument(
        help="A network by name, as `netadapt networks` lists them, or your own: mypkg.models:make_net; or the folder of a run."
    ),
]
StepOfRun = Annotated[int | None, _network("--step", help="The step of a run. Default: the last.")]
Multiplier = Annotated[float, _network(help="Width multiplier of the original network: the factor of every layer's channels.")]
Resolution = Annotated[int, _network(help="Side of the square input image, in pixels.")]
Input = Annotated[
    str | None,
    _network(
        "--input",
        help="Shape of the input, such as 1x3x224x224, and of several with commas between them, such as 1x3x224x224,1x8. One of "
        "whole numbers, such as token ids, has :int64 behind it, as in 1x128:int64. Default: three channels of --resolution.",
    ),
]
Output = Annotated[
    str | None,
    _network(
        "--output",
        help="The output that is scored and trained, of a network with several: its key, field or place, such as logits, 1 or "
        "heads.0. Default: the first that fits the data.",
    ),
]
DryRun = Annotated[
    bool,
    _network(
        "--dry-run/--no-dry-run",
        help="Try the whole way first: narrow the network once, train it for a step, and export it to the formats of the tables.",
    ),
]
SmallInput = Annotated[
    bool, _network("--small-input", help="Build mobilenet_v1 for images of about 32 pixels, which its stem does not halve.")
]
Classes = Annotated[int, _network(help="Number of outputs of the classifier.")]
Data = Annotated[str, _network(help=f"The images to train on: {usages()}, or a path.")]
DataOfRun = Annotated[str | None, _network("--data", help=f"The images: {usages()}, or a path. Default: those of the run.")]
TrainedWeights = Annotated[
    Path | None,
    _network(
        "--weights",
        help="Trained weights: a state_dict or a checkpoint with one, .pt or .safetensors. Default: the step's, else random.",
    ),
]
Task = Annotated[
    str | None,
    _network(
        help=f"What the network learns: {', '.join(TASKS)}, or your own, mytask.py:MyTask, with loss(outputs, targets) and "
        "evaluate(outputs, targets). Default: the data's, or these two functions in the file of --data."
    ),
]
DataWorkers = Annotated[
    int | None,
    _network(
        help="Processes that read images which are not kept in memory. Default: one per core where reading takes time, else 0."
    ),
]
Mean = Annotated[
    str | None,
    _network(
        help="Mean of each channel that images are normalised with, such as 0.485,0.456,0.406, where 1 is white; that which "
        "--weights were trained with. Default: the training images' own."
    ),
]
Std = Annotated[
    str | None, _network(help="Standard deviation of each channel, such as 0.229,0.224,0.225. Default: the training images' own.")
]
Weights = Annotated[
    Path | None,
    _network(
        help="Trained weights of the original network: a state_dict or a checkpoint that has one, .pt or .safetensors. From "
        "weights without those of its head, and from an .npz file of an encoder, the original is trained. Default: it is trained "
        "from random weights."
    ),
]

# budgets

Budgets = Annotated[
    list[str],
    _budget(
        "--budget",
        "-b",
        help=f"The most that the network may use, such as latency=60% or pixel=40ms, of one of {', '.join(RESOURCES)}. Repeatable.",
    ),
]
Tables = Annotated[
    list[str] | None,
    _budget("--table", help="A latency table, made by `profile build`. For several devices: NAME=TABLE for each, repeated."),
]
AllowUnverified = Annotated[
    bool, _budget("--allow-unverified", help="Use a table even if its error on whole networks is unknown or too large.")
]
Measure = Annotated[
    bool | None,
    _budget("--measure/--no-measure", help="Measure every winner on the table's device. Default: if the device can be reached."),
]

# search

Step = Annotated[float, _search(help="Reduction of the first iteration, as a fraction of the initial price.")]
Decay = Annotated[float, _search(help="Factor by which the reduction shrinks from one iteration to the next.")]
MaxIterations = Annotated[int, _search(help="Largest number of iterations.")]
WidthStep = Annotated[int, _search(help="Widths are multiples of this number of channels.")]
MinWidth = Annotated[int, _search(help="Smallest width of a block, in channels.")]
SelectBy = Annotated[
    str, _search(help=f"What selects the winner of an iteration: {' or '.join(SELECT_BY)} (accuracy lost per price saved).")
]
IfNoCandidate = Annotated[
    str,
    _search(
        help=f"What happens if no block alone can bring the reduction: {' or '.join(IF_NO_CANDIDATE)} "
        "(halve the reduction, or prune several blocks)."
    ),
]
SuccessiveHalving = Annotated[
    bool,
    _search("--successive-halving", help="Drop the worse half of the candidates after a quarter and after half of their steps."),
]
Search = Annotated[
    str,
    _search(
        "--search",
        help=f"How candidates are made: {' or '.join(METHODS)} (each narrows one block; or each of --samples narrows several at "
        "random, judged in a super-network).",
    ),
]
Samples = Annotated[int, _search(help="Samples of an iteration of --search descent.")]
Blocks = Annotated[int, _search(help="Largest number of blocks that a sample of --search descent narrows.")]
Candidates = Annotated[
    str | None,
    _search(
        help=f"How candidates are judged: {' or '.join(CANDIDATES)} (after a short-term fine-tune; or sliced out of a "
        "super-network, without one). Default: supernet for --search descent, else fine-tune."
    ),
]
SuperNetwork = Annotated[
    Path | None,
    _search("--supernet", help="The folder of a super-network made by `netadapt supernet`, for candidates that are judged in it."),
]
_CRITERIA = "; ".join(f"{name}: {criterion.summary}" for name, criterion in IMPORTANCES.items())
Importance = Annotated[str, _search(help=f"Importance criterion, which selects the channels to keep. {_CRITERIA}.")]
BnRecalibrationBatches = Annotated[
    int,
    _search(help="Batches that batch normalisation's statistics are recomputed from after pruning; 0 keeps the old statistics."),
]

# training: a number that is not given is that of the task's recipe

Epochs = Annotated[
    float | None,
    _training(help="Epochs of the original network's training, which a state_dict in --weights replaces. Default: the task's."),
]
LearningRate = Annotated[float | None, _training(help="Highest learning rate of the schedule. Default: the task's.")]
ShortTermSteps = Annotated[
    int | None,
    _search(help="Batches of each candidate's short-term fine-tune. Default: the task's, which is 20 for the built-in tasks."),
]
ShortTermLearningRate = Annotated[float | None, _search(help="Learning rate of the short-term fine-tune. Default: the task's.")]
BatchSize = Annotated[int | None, _training(help="Images in a batch. Default: the task's for a new run, the run's own afterwards.")]
Augment = Annotated[
    bool | None,
    _training(
        "--augment/--no-augment",
        help="Change training images at random. Default: the task's for a new run, the run's own afterwards.",
    ),
]
Holdout = Annotated[float, _training(help="Fraction of the training images that is held out to select winners.")]

# where candidates are trained

Executor = Annotated[
    str | None,
    _executor(
        help=f"Where candidates are fine-tuned: {', '.join(EXECUTORS)}. Results do not depend on it. "
        "Default: in-process, or processes if --workers is given."
    ),
]
Workers = Annotated[
    int | None, _executor(help="Networks that are trained at the same time. Default: as many as the GPUs or cores allow.")
]
CoresPerWorker = Annotated[int | None, _executor(help="Cores of each worker. Default: as many as a candidate has threads.")]
RayAddress = Annotated[str, _executor(help="Address of the Ray cluster: auto, HOST:PORT, or local for one on this machine.")]
ThreadsPerCandidate = Annotated[
    int | None, _executor(help="PyTorch's threads for each candidate. Default: 1 for a new run, the run's own for a resumed one.")
]
