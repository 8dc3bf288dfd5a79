"""`profile estimate`: energy, latency and utilisation of networks on accelerators that are modelled, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from device_agents.support.errors import ToolError
from profiler.cli.options import Shapes, Values
from profiler.console import Json, count, plain_errors, print_json, print_table
from profiler.errors import HardwareError
from profiler.formats.given import given_inputs
from profiler.layers.graph import Graph
from profiler.modelled.estimate import Largest, NetworkCost, network_cost
from profiler.modelled.hardware import shipped_hardware
from profiler.modelled.model import SCHEME, Model, is_model, open_model
from profiler.tables.plan import read_plan


@dataclass(frozen=True, slots=True)
class Estimate:
    """One network on one accelerator."""

    model: Model
    """With the zeros of the network, where they were given."""
    cost: NetworkCost | HardwareError
    """The error if a layer cannot run there."""


Estimates = Mapping[str, Mapping[str, Estimate]]
"""By the address of the accelerator, then by the path of the network."""


def estimate(
    models: Annotated[list[Path], typer.Argument(help="One or several .onnx or .tflite files, or plans made by `netadapt plan`.")],
    device: Annotated[
        list[str],
        typer.Option(
            "--device",
            "-d",
            help="The accelerator: model:NAME, with batch=1, engine=zigzag and the like behind an @, or model: and the path "
            "of a description. It may be given several times. By default, all that `profile hardware` lists.",
        ),
    ] = [],  # noqa: B006
    densities: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL=FILE",
            help="The zeros of each layer of a network, a file made by `netadapt densities`. It may be given for each. Without it, "
            "every value counts as one that is not zero.",
        ),
    ] = [],  # noqa: B006
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Compare the energy, latency and utilisation of networks on modelled accelerators: what suits one may not suit another.

    Nothing is measured. Multiply-accumulates and weights are printed beside it, as they mislead about both.
    """
    with plain_errors():
        if twice := [path for path in models if models.count(path) > 1]:
            raise ToolError(f"{twice[0]} is given twice")
        addresses = list(dict.fromkeys(device)) or [f"{SCHEME}{name}" for name in shipped_hardware()]
        if measured := [address for address in addresses if not is_model(address)]:
            raise ToolError(f"{measured[0]} is no accelerator that is modelled; `profile benchmark` measures on devices")
        zeros = _files(densities, models)
        given = given_inputs(shape, input_)
        graphs = {str(path): read_plan(path, given).graph for path in models}
        found: dict[str, dict[str, Estimate]] = {}
        for address in addresses:
            for name, graph in graphs.items():
                found.setdefault(address, {})[name] = _estimate(address, graph, zeros.get(name))
        if as_json:
            print_json(estimates_data(graphs, found))
        else:
            print_estimates(graphs, found)


def _files(texts: Sequence[str], models: Sequence[Path]) -> dict[str, Path]:
    """The files of densities by the networks that they are for. `ToolError` for one that is for none."""
    found = {}
    for text in texts:
        model, _, file = text.rpartition("=")
        if Path(model) not in models:
            raise ToolError(f"--densities {text} is for none of the networks; write --densities {models[0]}=FILE")
        found[str(Path(model))] = Path(file)
    return found


def _estimate(address: str, graph: Graph, densities: Path | None) -> Estimate:
    model = open_model(address, densities)
    if model.densities is not None:
        model.densities.check(graph.nodes, graph.name)
    try:
        return Estimate(model, network_cost(model, graph))
    except HardwareError as exc:
        return Estimate(model, exc)


def estimates_data(graphs: Mapping[str, Graph], found: Estimates) -> dict[str, Any]:
    """Energies in mJ and latencies in ms of one inference; `error` where a network cannot run."""
    networks = {name: {"macs": graph.macs, "parameters": graph.parameters} for name, graph in graphs.items()}
    accelerators = {}
    for address, estimates in found.items():
        described = next(iter(estimates.values())).model
        accelerators[address] = {
            "hardware": described.hardware.name,
            "sha256": described.file.sha256,
            "batch": described.assumptions.batch,
            "bits": described.assumptions.bits,
            "networks": {
                name: {"error": str(each.cost)} if isinstance(each.cost, HardwareError) else asdict(each.cost)
                for name, each in estimates.items()
            },
        }
    return {"networks": networks, "accelerators": accelerators}


def print_estimates(graphs: Mapping[str, Graph], found: Estimates) -> None:
    """The sizes of the networks, then a row for each on each accelerator, with the ratios to the first network."""
    names = _short(list(graphs))
    base = next(iter(graphs.values()))
    sizes = [
        (
            names[name], count(graph.macs), f"{graph.macs / max(1, base.macs):.2f}", count(graph.parameters),
            f"{graph.parameters / max(1, base.parameters):.2f}", len(graph.nodes),
        )
        for name, graph in graphs.items()
    ]  # fmt: skip
    titles = ("network", "MACs", "times", "parameters", "times ", "layers")
    print_table(titles, sizes, right=titles[1:])
    print()
    rows: list[tuple[object, ...]] = []
    errors: list[str] = []
    for address, estimates in found.items():
        first: NetworkCost | None = None
        for name, each in estimates.items():
            shown = address.removeprefix(SCHEME) if name == next(iter(estimates)) else ""
            if isinstance(each.cost, HardwareError):
                errors.append(f"{names[name]} cannot run on {address}: {each.cost}")
                rows.append((shown, names[name], *(None,) * 7))
                continue
            first = first or each.cost
            rows.append(
                (
                    shown, names[name], f"{each.cost.energy_mj:.4g}", f"{each.cost.energy_mj / first.energy_mj:.2f}",
                    f"{each.cost.latency_ms:.4g}", f"{each.cost.latency_ms / first.latency_ms:.2f}",
                    f"{100 * each.cost.utilisation:.1f} %", *map(_largest, (each.cost.bound, each.cost.dearest)),
                )
            )  # fmt: skip
    columns = ("accelerator", "network", "mJ", "times", "ms", "times ", "used", "bound by", "most energy")
    print_table(columns, rows, right=columns[2:-2])
    for error in errors:
        print(error)
    batches = {address.removeprefix(SCHEME): next(iter(each.values())).model.assumptions.batch for address, each in found.items()}
    print(
        f"modelled, not measured, for one image; images at a time: {', '.join(f'{name} {size}' for name, size in batches.items())}"
    )
    print("times: of the first network; used: the share of the units' time or, of analog memory, of its cells")
    print("bound by: what limits the layers of the largest share of the latency; most energy: what takes the largest share of it")
    if any(isinstance(each.cost, NetworkCost) and each.cost.utilisation > 1 for some in found.values() for each in some.values()):
        print("more than 100 % are used where zeros are skipped: multiply-accumulates count as if they were done")


def _largest(found: Largest) -> str:
    return f"{found.name}, {100 * found.share:.0f} %"


def _short(paths: Sequence[str]) -> dict[str, str]:
    """The names of the files, or their whole paths where two would be the same."""
    ends = [Path(path).name for path in paths]
    return dict(zip(paths, ends if len(set(ends)) == len(ends) else paths, strict=True))
