"""The profile that ONNX Runtime writes of a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device_agents.on_device.runner.executed import Inference, Ran

ENDING = "_kernel_time"
CONTROL_FLOW = ("If", "Loop", "Scan")


def read_profile(path: Path) -> list[Inference]:
    """All inferences since the session was opened, in order. ValueError for a file that is none."""
    inferences: list[Inference] = []
    pending: list[tuple[int, Ran]] = []  # the operators since the last inference, each with the time when it began
    for event in json.loads(path.read_text(errors="replace")):
        if event["cat"] == "Session" and event["name"] == "model_run":
            inferences.append(Inference(event["dur"], [ran for _, ran in pending]))
            pending = []
        elif event["cat"] == "Node" and event["name"].endswith(ENDING):
            ran = _operator(event)
            # what ran inside of it was recorded before it, but did not begin before it
            while ran.op in CONTROL_FLOW and pending and pending[-1][0] >= event["ts"]:
                pending.pop()
            pending.append((event["ts"], ran))
    return inferences


def _operator(event: dict[str, Any]) -> Ran:
    told = event["args"]
    return Ran(
        name=event["name"][: -len(ENDING)],
        op=told["op_name"],
        partition=told["provider"],
        index=int(told["node_index"]),
        duration_us=event["dur"],
        inputs=told.get("input_type_shape", []),
        outputs=told.get("output_type_shape", []),
    )
