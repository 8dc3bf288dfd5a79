"""What runs in another Python, that of ZigZag: layers come in as JSON lines, their costs go out as JSON lines.

ZigZag (https://github.com/KULeuven-MICAS/zigzag) is never imported by our own process: that takes seconds, brings packages for
plots along, and installs a package called `tests`. This file needs nothing of ours, and `profiler.modelled.zigzag` starts it.

The first line out is `{"zigzag": "3.9.1"}`. A line in has `accelerator`, `layer` and `mapping`, in ZigZag's own formats, and
`minimise`, which is `energy`, `latency` or their product, `EDP`; the line out for it has the fields of
`profiler.modelled.zigzag.Answer`, or `error`.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from typing import Any

ATTRIBUTES = ("data_trans_amount_per_period", "data_precision", "data_trans_period_count")
"""What ZigZag knows of each way between two memories: values at a time, bits of a value, and times."""


def main() -> None:
    # whatever ZigZag prints goes where errors go, so that standard output has nothing but answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"zigzag": version("zigzag-dse")}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    from zigzag.opt.loma.engine import NoValidLoopOrderingFoundException

    try:
        return costs(best(asked))
    except (AssertionError, ValueError, NoValidLoopOrderingFoundException) as exc:  # how it says that there is no mapping
        return {"error": " ".join(str(exc).split()) or type(exc).__name__}


def best(asked: dict[str, Any]) -> Any:
    """The evaluation of the best mapping that ZigZag's own search finds, as its `get_hardware_performance_zigzag` runs it."""
    from zigzag.mapping.temporal_mapping import TemporalMappingType
    from zigzag.parser.accelerator_factory import AcceleratorFactory
    from zigzag.parser.accelerator_validator import AcceleratorValidator
    from zigzag.parser.mapping_validator import MappingValidator
    from zigzag.parser.workload_factory import LayerNodeFactory
    from zigzag.parser.workload_validator import WorkloadValidator
    from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
    from zigzag.stages.main import MainStage
    from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
    from zigzag.stages.mapping.temporal_mapping_generator_stage import TemporalMappingGeneratorStage
    from zigzag.stages.results.reduce_stages import MinimalEDPStage, MinimalEnergyStage, MinimalLatencyStage

    accelerator, mapping = AcceleratorValidator(asked["accelerator"]), MappingValidator([asked["mapping"]])
    workload = WorkloadValidator([asked["layer"]])
    for checked in (accelerator, mapping, workload):
        if not checked.validate():
            raise ValueError(f"{type(checked).__name__} refuses what it was asked: {checked.validator.errors}")
    least = {"energy": MinimalEnergyStage, "latency": MinimalLatencyStage, "EDP": MinimalEDPStage}[asked["minimise"]]
    search = [least, SpatialMappingGeneratorStage, least, TemporalMappingGeneratorStage, CostModelStage]
    spread = mapping.normalized_data[0].get("spatial_mapping_hint") or {}
    ((found, _),) = MainStage(
        search,
        layer=LayerNodeFactory(workload.normalized_data[0], mapping.normalized_data).create(),
        accelerator=AcceleratorFactory(accelerator.normalized_data).create(),
        loma_lpf_limit=6,
        loma_show_progress_bar=False,
        nb_mappings_generated=3,
        enable_mix_spatial_mapping_generation=any(len(loops) > 1 for loops in spread.values()),
        access_same_data_considered_as_no_access=True,
        temporal_mapping_type=TemporalMappingType("uneven"),
    ).run()
    return found


def costs(found: Any) -> dict[str, Any]:
    """One evaluation. What moves is counted here in bits, as ZigZag rounds energies to whole accesses of the width of a port."""
    links, levels, placed = found.memory_operand_links, found.accelerator.memory_hierarchy, found.mapping
    moved_bits: dict[str, dict[str, float]] = {}
    for operand, moves in placed.unit_mem_data_movement.items():
        parts = moved_bits.setdefault(operand.name, {})
        memories = levels.get_memory_levels(links.layer_to_mem_op(operand))
        units = placed.spatial_mapping.unit_count[operand][1:]
        for memory, move, count in zip(memories, moves, units, strict=True):
            amounts, bits, times = (move.attributes[name].data for name in ATTRIBUTES)
            parts[memory.name] = float(count * sum(amounts[way] * bits[way] * times[way] for way in amounts))
    return {
        "energy_pj": float(found.energy_total),
        "moved_bits": moved_bits,
        "cycles": float(found.latency_total2),
        "computing_cycles": float(found.ideal_temporal_cycle),
        "active_units": float(placed.spatial_mapping.unit_count[found.layer.output_operand][0]),
        "mapping": ", ".join(f"{dimension} {loops}" for dimension, loops in found.layer.spatial_mapping.items()),
    }


if __name__ == "__main__":
    main()
