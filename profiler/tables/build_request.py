"""Requests of `profile build`: one or several devices, measured at the same time, each into a table of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agents.support.errors import ToolError
from profiler.devices.fleet import on_each
from profiler.formats.given import NOTHING, Given
from profiler.measure.executed import EMPTY_CALL
from profiler.modelled.model import is_model
from profiler.progress import ProgressReporter
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import StopCriterion, build, network_key
from profiler.tables.build_modelled import build_modelled
from profiler.tables.limits import COLD
from profiler.tables.plan import read_plan
from profiler.tables.table import Table


def table_path(out: Path, device: str) -> Path:
    """The path of a device's table: `out` with {device} replaced by the name of the device, as far as file names allow."""
    return Path(str(out).replace("{device}", re.sub(r"[^A-Za-z0-9._-]+", "-", device)))


def journal_paths(out: Path, devices: Sequence[str]) -> Sequence[Path]:
    """The paths of the journals of these devices."""
    return [journal_path(table_path(out, device)) for device in devices]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Plans to measure, and devices to measure them on. `ToolError` if two devices would write the same table."""

    plans: tuple[Path, ...]
    """Plan files, or model files."""
    targets: tuple[Target, ...]
    out: Path
    """The path of the table, which contains {device} if there are several targets."""
    settings: TimingSettings = field(default_factory=TimingSettings)
    stop: StopCriterion = field(default_factory=StopCriterion)
    resume: bool = False
    energy: bool = False
    wait_s: float = 0.0
    given: Given = NOTHING
    """Shapes and values of the inputs of model files."""
    densities: Path | None = None
    """The zeros of the network's layers, for devices that are modelled; None counts every value as one that is not zero."""

    def __post_init__(self) -> None:
        if len({table_path(self.out, target.device) for target in self.targets}) < len(self.targets):
            raise ToolError(
                f"{len(self.targets)} devices cannot share one table; write {{device}} into --out, as in tables/{{device}}.parquet"
            )
        measured = [target.device for target in self.targets if not is_model(target.device)]
        if self.densities is not None and measured:
            raise ToolError(f"{measured[0]} is measured, not modelled; leave --densities out, or give --device model:NAME")


@dataclass(frozen=True, slots=True)
class Builds:
    """The result of a request."""

    tables: Mapping[Path, Table]
    lost: tuple[ToolError, ...] = ()
    """The errors of devices that were given up."""

    def check(self) -> None:
        """`ToolError` if a device was given up, or if layers or whole networks could not be measured. All tables are kept."""
        said = []
        if self.lost:
            number = len(self.tables) + len(self.lost)
            said.append(f"{len(self.lost)} of {number} devices were given up: {'; '.join(map(str, self.lost))}")
        said += [f"{path} is kept, but {lack}" for path, table in self.tables.items() if (lack := what_lacks(table))]
        if said:
            raise ToolError("; ".join(said))


def what_lacks(table: Table) -> str | None:
    """What a build was to measure and could not, with the first reason; None if nothing."""
    failed = {key: why for key, why in table.info.failed.items() if key != EMPTY_CALL and not key.startswith(COLD)}
    networks = {key: why for key, why in failed.items() if key.startswith(network_key(""))}
    layers = {key: why for key, why in failed.items() if key not in networks}
    said = []
    for kind, found in (("network", networks), ("layer", layers)):
        if found:
            key, why = next(iter(found.items()))
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            said.append(f"the {kind} {key.removeprefix(network_key(''))} could not be measured ({why}){more}")
    if not said and table.info.networks and table.info.held_out.networks == 0:
        said = ["no whole network could be checked, because each has a layer that is not in the table"]
    if not said:
        return None
    return f"{' and '.join(said)}: networks with these cannot be predicted; use another runtime, or networks without them"


def build_tables(request: BuildRequest, progress: Mapping[str, ProgressReporter]) -> Builds:
    """Build a table on each device; `progress` is by device name. With a single device, its error is raised."""
    plans = [read_plan(path, request.given) for path in request.plans]
    targets = {target.device: target for target in request.targets}

    def on_device(device: str, reporter: ProgressReporter) -> Table:
        if is_model(device):
            return build_modelled(plans, device, table_path(request.out, device), request.densities, reporter)
        return build(
            plans, targets[device], table_path(request.out, device), settings=request.settings, stop=request.stop,
            resume=request.resume, energy=request.energy, progress=reporter, wait_s=request.wait_s,
        )  # fmt: skip

    found: dict[str, Table | ToolError]
    if len(targets) == 1:  # in this thread, where Ctrl-C arrives
        found = {device: on_device(device, progress[device]) for device in targets}
    else:
        found = on_each(list(targets), on_device, progress, last=["local"])
    return Builds(
        {table_path(request.out, device): table for device, table in found.items() if isinstance(table, Table)},
        tuple(error for error in found.values() if isinstance(error, ToolError)),
    )
