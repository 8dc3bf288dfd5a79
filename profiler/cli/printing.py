"""What the `profile` command prints: each result once as plain data (for --json) and once as text made of that data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from profiler.console import count, print_table, sizes
from profiler.exchange.writer import ExportedTable
from profiler.latency.staircase import staircases_data
from profiler.layers.graph import Graph, unique_layers
from profiler.layers.layer import LayerSpec
from profiler.measure.benchmark import Measured
from profiler.measure.discovery import Found
from profiler.measure.estimate import Estimate
from profiler.protocol.events import RuntimeState
from profiler.protocol.settings import Target
from profiler.tables.compare import LEAST_MS, LEAST_PERCENT, Comparison, Q
from profiler.tables.table import LatencyTable, Prediction, origin_of

Plain = dict[str, Any]


def known(value: float | None) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if value is None or math.isnan(value) else value


def interval(latency_ms: float, low_ms: float | None, high_ms: float | None) -> str:
    if low_ms is None or high_ms is None:
        return f"{latency_ms:.3f} ms, interval not known"
    return f"{latency_ms:.3f} ms [{low_ms:.3f} … {high_ms:.3f}]"


def found_data(found: Found) -> Plain:
    """A device of the roster."""
    probe: Plain = {}
    if found.probe is not None:
        probe = {name: value for name, value in asdict(found.probe).items() if name != "protocol"}
        probe["runtimes"] = {name: runtime_data(state) for name, state in found.probe.runtimes.items()}
    about = {"name": found.device.name, "address": found.device.address, "description": found.description}
    return about | {"usable": found.probe is not None, "obstacle": found.obstacle} | probe


def runtime_data(state: RuntimeState) -> Plain:
    """The one of version, missing and broken that is the case."""
    if state.missing:
        return {"missing": True}
    return {"broken": state.broken} if state.version is None else {"version": state.version}


def print_found(plain: Plain) -> None:
    named = "" if plain["name"] == plain["address"] else f" ({plain['address']})"
    if not plain["usable"]:
        described = f" {plain['description']}:" if plain["description"] else ""
        print(f"{plain['name']}{named}:{described} {plain['obstacle']}")
        return
    facts = plain["device"]
    size = facts.get("memory_bytes")
    memory = "memory not readable" if size is None else f"{size / 2**30:.1f} GiB"
    cpu, cores = facts.get("cpu") or "processor not told", facts.get("cores") or "?"
    print(f"{plain['name']}{named}: {cpu}, {cores} cores, {memory}, {facts.get('machine')}")
    program = f"Python {facts['python']}" if facts.get("python") else f"{plain.get('runner')} runner"
    print(f"  {facts.get('system')} {facts.get('kernel')}, {program}")
    if plain.get("load_1min") is not None:
        print(f"  governor {facts.get('governor')}, load {plain['load_1min']:.2f}")
    for name, state in plain["runtimes"].items():
        if not state.get("missing"):
            print(f"  {name}: {state.get('version') or 'broken, ' + state['broken']}")
    if missing := [name for name, state in plain["runtimes"].items() if state.get("missing")]:
        print(f"  not installed: {', '.join(missing)}")
    if not any(state.get("version") for state in plain["runtimes"].values()):
        print("  no runtime works there: install onnxruntime or ai-edge-litert in its Python and name that with --python, or name")
        print(f"  a runtime's library for the native runner in profile.toml, as libraries.litert of [devices.{plain['name']}]")


def layer_data(layer: LayerSpec) -> Plain:
    return {
        "op": layer.op,
        "inputs": [list(shape) for shape in layer.inputs],
        "output": list(layer.output),
        "kernel": list(layer.kernel),
        "stride": list(layer.stride),
        "dilation": list(layer.dilation),
        "padding": list(layer.padding),
        "groups": layer.groups,
        "activation": layer.activation,
        "precision": layer.dtype,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        "measured_as": "cut out of the file" if layer.opaque else "made from its shapes",
        "key": layer.key,
    }


def graph_data(graph: Graph) -> Plain:
    found = unique_layers(graph.layers)
    rows = [layer_data(layer) | {"occurs": times} for layer, times in found.items()]
    return {"groups": len(graph.nodes), "distinct": len(found), "macs": graph.macs, "layers": rows}


def print_graph(plain: Plain) -> None:
    columns = (
        "layer",
        "input",
        "output",
        "kernel",
        "stride",
        "groups",
        "activation",
        "MACs",
        "weights B",
        "activations B",
        "times",
    )
    cells = [
        (
            row["op"] + ("" if row["precision"] == "float32" else f" {row['precision']}"),
            " + ".join(map(sizes, row["inputs"])),
            sizes(row["output"]),
            sizes(row["kernel"]),
            sizes(row["stride"]),
            row["groups"],
            row["activation"],
            count(row["macs"]),
            count(row["weight_bytes"]),
            count(row["activation_bytes"]),
            row["occurs"],
        )
        for row in plain["layers"]
    ]
    print_table(columns, cells, right=("groups", "MACs", "weights B", "activations B", "times"))
    print(f"{plain['groups']} groups, {plain['distinct']} distinct, {count(plain['macs'])} MACs")


def measured_data(measured: Measured, target: Target) -> Plain:
    about = {"model": str(measured.path), "device": target.device, "runtime": target.runtime, "threads": target.threads}
    fingerprint = {name: value for name, value in asdict(measured.hello).items() if name not in ("protocol", "pid", "utc")}
    about |= {"origin": origin_of(fingerprint)}
    conditions = [{name: value for name, value in asdict(item).items() if name != "clock_ns"} for item in measured.rounds]
    return about | asdict(measured.estimate) | {"fingerprint": fingerprint, "conditions": conditions}


def print_measured(plain: Plain) -> None:
    print(f"{plain['origin']}{plain['model']}: {interval(plain['latency_ms'], plain['latency_ms_low'], plain['latency_ms_high'])}")
    print(f"  {plain['runtime']} {plain['fingerprint'].get('version')} on {plain['device']}, threads {plain['threads']}")
    print(f"  {plain['samples']} samples in {plain['rounds']} rounds: the fast side of them, in brackets its 95 % interval")


def table_data(table: LatencyTable) -> Plain:
    info = table.info
    return {
        "layers_measured": len(table.rows),
        "device": info.target.device,
        "runtime": info.target.runtime,
        "threads": info.target.threads,
        "fingerprint": dict(info.device),
        "created_utc": info.created_utc,
        "age_days": info.age_days,
        "networks": list(info.networks),
        "calibration": info.calibration.to_dict(),
        "held_out": info.held_out.to_dict(),
        "verified": table.verified,
        "staircases": staircases_data(info.staircases),
        "disturbed_percent": table.disturbed_percent,
        "disturbances": dict(info.disturbances),
        "progress": [dict(step) for step in info.progress],
        "failed": dict(info.failed),
        "measuring_s": info.measuring_s,
        "wall_s": info.wall_s,
    }


def print_table_data(name: str, plain: Plain, held_out: str) -> None:
    version, facts = plain["fingerprint"].get("version"), plain["fingerprint"].get("device", {})
    imported = plain["fingerprint"].get("imported")
    if imported:
        print_imported(name, plain, imported)
    else:
        print(f"{name}: {plain['layers_measured']} layers, {plain['runtime']} {version}, threads {plain['threads']}")
        print(f"  {plain['device']}: {facts.get('cpu')}; measured {plain['created_utc']}, {plain['age_days']:.1f} days ago")
    print(f"  held_out: {held_out}")
    figures = plain["held_out"]
    if figures["bias_percent"] is not None:
        rank = "no rank correlation" if figures["spearman"] is None else f"Spearman {figures['spearman']:.3f}"
        inside = f"{figures['coverage_percent']:.0f} % inside their 95 % intervals"
        print(f"  bias {figures['bias_percent']:+.1f} %, {rank}, {inside}")
    steps = [f"{rule['kind']} {rule['axis']} {rule['step']}" for rule in plain["staircases"] if rule["step"] > rule["granularity"]]
    if steps:
        print(f"  steps in channels: {', '.join(steps)}")


def print_imported(name: str, plain: Plain, imported: Plain) -> None:
    runtime, threads = imported["runtime"] or "not told", imported["threads"] or "not told"
    print(f"{name}: {plain['layers_measured']} layers, imported {plain['created_utc']}; measured by others, nobody knows when")
    print(f"  {plain['device']}; runtime {runtime}, threads {threads}; {imported['statistic']}")
    print(f"  from {imported['source'] or imported['from']}, licence {imported['licence'] or 'not known'}")
    for item in imported["files"]:
        print(f"  {item['name']}: {item['size_bytes']} bytes, sha256 {item['sha256']}")


def print_import(plain: Plain) -> None:
    """What became of the entries."""
    imported = plain["fingerprint"]["imported"]
    for assumption in imported["assumptions"]:
        print(f"  taken for granted: {assumption}")
    print(f"{imported['entries']} entries read, {plain['layers_measured']} layers made of them")
    for reason, many in imported["skipped"].items():
        print(f"  left out: {many} {reason}")


def export_data(writing: ExportedTable, table: LatencyTable) -> Plain:
    imported = table.info.imported or {}
    return {
        "layers": len(table.rows),
        "written": writing.written,
        "left_out": dict(writing.left_out),
        "notes": list(writing.notes),
        "verified": table.verified,
        "imported_from": imported.get("from"),
        "licence": imported.get("licence"),
    }


def print_export(plain: Plain) -> None:
    print(f"{plain['file']}: {plain['written']} of {plain['layers']} layers as {plain['format']}")
    for note in plain["notes"]:
        print(f"  {note}")
    for reason, many in plain["left_out"].items():
        print(f"  left out: {many} {reason}")
    if plain["imported_from"]:
        print(f"  the table was imported from {plain['imported_from']}, licence {plain['licence'] or 'not known'}: mind that")
    if not plain["verified"]:
        print("  the table is unverified, which the file does not say")


def row_data(layer: LayerSpec, estimate: Estimate) -> Plain:
    flat = layer_data(layer) | {"inputs": "+".join(map(sizes, layer.inputs)), "output": sizes(layer.output)}
    wanted = ("op", "inputs", "output", "precision", "macs", "weight_bytes", "activation_bytes")
    ends = {"latency_ms_low": known(estimate.latency_ms_low), "latency_ms_high": known(estimate.latency_ms_high)}
    return {name: flat[name] for name in wanted} | asdict(estimate) | ends | {"key": layer.key}


def rows_data(table: LatencyTable) -> list[Plain]:
    """With energy, where the device could tell any."""
    rows = [row_data(layer, estimate) for layer, estimate in table.rows.items()]
    if not table.energy_mj:
        return rows
    return [row | {"energy_mj": table.energy_mj.get(layer)} for row, layer in zip(rows, table.rows, strict=True)]


def rows_csv(rows: Sequence[Plain]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_markdown(rows: Sequence[Plain]) -> str:
    columns = list(rows[0]) if rows else []
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join('' if value is None else str(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


def print_rows(rows: Sequence[Plain]) -> None:
    cells = [
        (
            row["op"],
            row["inputs"],
            row["output"],
            count(row["macs"]),
            *(None if row[name] is None else f"{row[name]:.4f}" for name in ("latency_ms", "latency_ms_low", "latency_ms_high")),
            row["rounds"] or None,
            *([None if row["energy_mj"] is None else f"{row['energy_mj']:.3g}"] if "energy_mj" in row else []),
        )
        for row in rows
    ]
    energy = ("mJ",) if rows and "energy_mj" in rows[0] else ()
    columns = ("layer", "input", "output", "MACs", "ms", "low", "high", "rounds", *energy)
    print_table(columns, cells, right=("MACs", "ms", "low", "high", "rounds", *energy))


def prediction_data(said: Prediction, table: LatencyTable) -> Plain:
    names = ("latency_ms", "latency_ms_low", "latency_ms_high", "naive_ms")
    parts = [
        {"node": part.node, "op": part.layer.op, "output": list(part.layer.output), "latency_ms": part.latency_ms}
        | {
            "latency_ms_low": known(part.latency_ms_low),
            "latency_ms_high": known(part.latency_ms_high),
            "source": part.source,
            "key": part.layer.key,
        }
        for part in said.parts
    ]
    return {name: None if said.missing else known(getattr(said, name)) for name in names} | {
        "missing": [part.layer.key for part in said.missing],
        "verified": table.verified,
        "held_out": table.info.held_out.to_dict(),
        "layers": parts,
    }


def print_prediction(plain: Plain, model: str, add: str | None) -> None:
    """`add` is the command that measures what is missing; None where nothing can."""
    cells = [
        (
            part["node"],
            part["op"],
            sizes(part["output"]),
            None if part["latency_ms"] is None else f"{part['latency_ms']:.4f}",
            part["source"],
        )
        for part in plain["layers"]
    ]
    print_table(("layer", "kind", "output", "ms", "source"), cells, right=("ms",))
    if plain["missing"]:
        mended = f"`{add}` adds them" if add else "an imported table cannot be extended"
        print(f"{len(plain['missing'])} of {len(plain['layers'])} layers are missing; {mended}")
    else:
        said = interval(plain["latency_ms"], plain["latency_ms_low"], plain["latency_ms_high"])
        print(f"{model}: {said}, plain sum of layers {plain['naive_ms']:.3f} ms")


MOST_CHANGES = 10
LEAST = f"changes from {LEAST_PERCENT:g} % and {1e3 * LEAST_MS:g} µs on"
TESTED = f"permutation test on the rounds, false discoveries below {100 * Q:g} %, {LEAST}"
UNTESTED = f"intervals that do not touch, {LEAST}; the journals with the rounds are not there"


def comparison_data(result: Comparison) -> Plain:
    changes = [
        {
            "key": change.layer.key,
            "before_ms": change.before.latency_ms,
            "after_ms": change.after.latency_ms,
            "percent": change.percent,
            "beyond_intervals": change.beyond_intervals,
            "q": change.q,
            "changed": change.changed,
        }
        for change in result.changes
    ]
    return {
        "sentence": result.sentence(),
        "test": TESTED if result.tested else UNTESTED,
        "same_device": not result.differing_conditions,
        "changed": len(result.changed),
        "median_ratio": result.median_ratio,
        "networks_percent": result.networks_percent,
        "networks": [asdict(network) | {"percent": network.percent} for network in result.networks],
        "shared": len(changes),
        "median_percent": result.median_percent,
        "beyond_intervals": sum(change.beyond_intervals for change in result.changes),
        "only_before": [layer.key for layer in result.only_before],
        "only_after": [layer.key for layer in result.only_after],
        "differing_conditions": list(result.differing_conditions),
        "changes": changes,
    }


def print_comparison(plain: Plain) -> None:
    for line in plain["differing_conditions"]:
        print(f"measured differently: {line}")
    if not plain["same_device"]:
        print("so these are two devices, not one that has changed")
    changed = [change for change in plain["changes"] if change["changed"]]
    cells = [
        (change["key"], f"{change['before_ms']:.4f}", f"{change['after_ms']:.4f}", f"{change['percent']:+.1f} %")
        for change in changed[:MOST_CHANGES]
    ]
    if cells:
        print_table(("layer", "before ms", "after ms", "change"), cells, right=("before ms", "after ms", "change"))
    if len(changed) > MOST_CHANGES:
        print(f"and {len(changed) - MOST_CHANGES} more; --json has them all")
    print(f"{plain['sentence']} ({plain['test']})")
    said = "no layer in common" if plain["median_percent"] is None else f"median difference {plain['median_percent']:.1f} %"
    print(f"{plain['shared']} shared layers, {said}, {plain['beyond_intervals']} beyond their intervals")
    print(f"{len(plain['only_before'])} only in the first table, {len(plain['only_after'])} only in the second")
