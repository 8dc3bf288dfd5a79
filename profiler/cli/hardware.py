"""`profile hardware`: descriptions of accelerators, and how well the model agrees with what is published of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from profiler.console import Json, plain_errors, print_json, print_table
from profiler.modelled.checks import Check, checks
from profiler.modelled.engines import version_of
from profiler.modelled.hardware import HardwareFile, open_hardware, shipped_hardware


def hardware(
    name: Annotated[
        str | None,
        typer.Argument(help="A name from the list, or the path of a description of your own. Without it, all are listed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the accelerators that energy and latency can be modelled for, or print one with its checks against published figures."""
    with plain_errors():
        if name is None:
            listed = {file_name: list_data(file) for file_name, file in shipped_hardware().items()}
            if as_json:
                print_json(listed)
            else:
                print_list(listed)
            return
        file = open_hardware(name)
        found = checks(file.hardware)
        if as_json:
            print_json(hardware_data(file, found))
        else:
            print_hardware(name, file, found)


def list_data(file: HardwareFile) -> dict[str, Any]:
    described = file.hardware
    about = {"name": described.name, "engine": described.engine, "units": described.units, "clock_mhz": described.clock_mhz}
    return about | {"published_figures": len(described.published), "about": described.about, "sha256": file.sha256}


def hardware_data(file: HardwareFile, found: tuple[Check, ...]) -> dict[str, Any]:
    described = {name: value for name, value in asdict(file.hardware).items() if name not in ("published", "workload")}
    checked = [asdict(check.figure) | {"unit": check.unit, "modelled": check.modelled, "agrees": check.agrees} for check in found]
    about = {"engine_version": version_of(file.hardware), "sha256": file.sha256, "shipped": file.shipped}
    return described | about | {"published": checked}


def print_list(listed: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [(name, item["engine"], item["units"], item["published_figures"], item["about"]) for name, item in listed.items()]
    print_table(("name", "engine", "units", "figures", "what it is"), rows, right=("units", "figures"))
    print("figures are published ones that the model is checked against; `profile hardware NAME` prints them with the description")
    print(
        "`profile build MODEL --device model:NAME --out TABLE.parquet` computes a table; model:PATH takes a description of your own"
    )


def print_hardware(name: str, file: HardwareFile, found: tuple[Check, ...]) -> None:
    described = file.hardware
    print(f"{name}: engine {described.engine} {version_of(described)}, sha256 {file.sha256[:16]}\n")
    print(file.text.partition("[[workload]]")[0].partition("[[published]]")[0].rstrip() + "\n")
    rows = [
        (
            check.figure.what, check.figure.layer or "all", f"{check.figure.value:g}", f"{check.modelled:.4g}", check.unit,
            f"{check.figure.low:g} … {check.figure.high:g}", "agrees" if check.agrees else "differs", check.figure.source,
        )
        for check in found
    ]  # fmt: skip
    if rows:
        columns = ("figure", "layer", "published", "modelled", "unit", "limits", "", "source")
        print_table(columns, rows, right=("published", "modelled"))
    else:
        print("no published figure is given, so that nothing vouches for what is modelled")
