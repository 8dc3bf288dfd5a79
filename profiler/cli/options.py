"""The options that several commands share, and the choices that they are derived from."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from device_agents.discovery import address_forms
from device_agents.support.text import nearest
from profiler.devices.config import CONFIG_VARIABLE
from profiler.runner_names import RUNNERS
from profiler.runtimes import MEANT, offered_runtimes

ADDRESS_FORMS = ", ".join(address_forms())
FOREVER_S = 1e9


class Choices(TypedDict):
    """The arguments of `typer.Option` for an option that takes one of several words."""

    parser: Callable[[str], str]
    metavar: str


def one_of(names: Callable[[], Collection[str]], meant: Mapping[str, str] | None = None) -> Choices:
    """Of the names in a registry, looked up when the option is given. Typer by itself takes an `Enum`, which would have to repeat
    them. `meant` has the names of other tools for some of them."""

    def parse(text: str) -> str:
        if text not in names():
            near = (meant or {}).get(text.lower()) or nearest(text, names())
            raise typer.BadParameter(
                f"{text!r} is not one of {', '.join(map(repr, names()))}{f'; did you mean {near!r}?' if near else '.'}"
            )
        return text

    return {"parser": parse, "metavar": f"[{' | '.join(names())}]"}  # with blanks, so that help breaks lines between names


ADD_WAIT = "add --wait"
"""How a command that has this option waits for a device, for the error of one that another run is measuring."""


def patience_s(wait: bool) -> float:
    """How long to wait for a device that another run is measuring."""
    return FOREVER_S if wait else 0.0


def use_config(path: Path | None) -> None:
    """Have devices and tables read from this file; None leaves it to the environment and the usual places."""
    if path is not None:
        os.environ[CONFIG_VARIABLE] = str(path)


Device = Annotated[
    str, typer.Option("--device", "-d", help=f"The device to measure on: a name from profile.toml, or one of {ADDRESS_FORMS}.")
]
Devices = Annotated[
    list[str],
    typer.Option(
        "--device",
        "-d",
        help=f"The device to measure on: a name from profile.toml, or one of {ADDRESS_FORMS}; or an accelerator to model: "
        "model:NAME of those that `profile hardware` lists, or model: and the path of a description, with batch=1, bits=8 and the "
        "like behind an @. It may be given several times; the devices are then measured side by side.",
    ),
]
DeviceArgument = Annotated[str, typer.Argument(help=f"The device: a name from profile.toml, or one of {ADDRESS_FORMS}.")]
Threads = Annotated[
    int,
    typer.Option(
        "--threads", "-t", help="The number of threads that the runtime may use, at most as many as the device has cores."
    ),
]
Oversubscribe = Annotated[
    bool, typer.Option("--oversubscribe", help="Allow more threads than the device has cores. Without it, they are refused.")
]
Python = Annotated[
    str | None,
    typer.Option(
        help="The Python on the device that has the runtime. By default it is the one in profile.toml, or else the one found there."
    ),
]
Runner = Annotated[
    str | None,
    typer.Option(
        **one_of(lambda: RUNNERS),
        help="The program that measures on the device. By default it is the one in profile.toml or else our own: the one in "
        "Python where the device has a Python, the native one elsewhere.",
    ),
]
RuntimeToBuild = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        "-r",
        **one_of(offered_runtimes, MEANT),
        help="The runtime that runs the models on the device. By default the first that reads the model files; a plan fits every "
        "runtime and needs one named, except for an accelerator that is modelled.",
    ),
]
RuntimeOfFile = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        "-r",
        **one_of(offered_runtimes, MEANT),
        help="The runtime that runs the model. By default it is the first of these that reads this kind of file.",
    ),
]
RuntimeOfOthers = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        "-r",
        **one_of(offered_runtimes, MEANT),
        help="The runtime that the table was measured with. By default it counts as not known.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option("--wait", help="Wait for a device on which another run is measuring. Without it, such a device is an error."),
]
Densities = Annotated[
    Path | None,
    typer.Option(
        help="The zeros of each layer of the network, a file made by `netadapt densities`, for an accelerator that is modelled. "
        "Without it, every value counts as one that is not zero, unless the address of the accelerator says otherwise."
    ),
]
TableFile = Annotated[Path, typer.Argument(help="A table made by `profile build`.")]
ModelFiles = Annotated[
    list[Path],
    typer.Argument(
        help="One or several .onnx or .tflite files. Of several, one that fails is told and does not stop the others, and --json "
        "prints a list instead of an object."
    ),
]
Shapes = Annotated[
    list[str],
    typer.Option(
        "--shape",
        metavar="NAME=1x3x320x320",
        help="The shape of an input whose dimensions the model leaves open, in the layout of the file. It may be given several "
        "times. Without it, an open batch is 1, and any other open dimension is an error.",
    ),
]
Values = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="NAME=VALUE",
        help="The values of an input: an .npy file, or a number for all elements. It may be given several times. By default they "
        "are random: -1 to 1, and small whole numbers with which the model runs.",
    ),
]
