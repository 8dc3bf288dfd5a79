"""What a runtime executes for a model, in the words of the protocol (PROTOCOL.md, "The executed graph")."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

WARM_UP_RUNS = 3
LARGEST_GRAPH_BYTES = 8 << 20


@dataclass(frozen=True)
class Ran:
    """One run of an operator."""

    name: str
    op: str
    partition: str
    index: int
    duration_us: int
    inputs: Sequence[Any] = ()
    """The type and the shape of each tensor that it reads, where the runtime tells them."""
    outputs: Sequence[Any] = ()

    def told(self, samples_us: list[int]) -> dict[str, Any]:
        own = {"name": self.name, "op": self.op, "partition": self.partition, "index": self.index}
        return dict(own, inputs=self.inputs, outputs=self.outputs, samples_us=samples_us)


class Inference(NamedTuple):
    """A profiled inference."""

    duration_us: int
    ran: Sequence[Ran]
    """In the order of execution."""


class Executed(NamedTuple):
    """All that a runtime tells of a model."""

    inferences: Sequence[Inference]
    graph: bytes | None = None
    """The optimised model as the runtime saves it, without its large weights."""
    reason: str | None = None
    """Why the graph or the operators are missing, if they ought to be there."""

    def told(self) -> dict[str, Any]:
        operators: dict[tuple[str, str, str, int], tuple[Ran, list[int]]] = {}
        for place, inference in enumerate(self.inferences):
            for ran in inference.ran:
                key = (ran.name, ran.op, ran.partition, ran.index)
                _, samples_us = operators.setdefault(key, (ran, [0] * len(self.inferences)))
                samples_us[place] += ran.duration_us
        graph, reason = self.graph, self.reason
        if graph is not None and len(graph) > LARGEST_GRAPH_BYTES:
            reason = reason or f"the optimised model has {len(graph)} bytes, more than are reported"
            graph = None
        return {
            "graph": None if graph is None else base64.b64encode(graph).decode(),
            "reason": reason,
            "inferences_us": [inference.duration_us for inference in self.inferences],
            "operators": [ran.told(samples_us) for ran, samples_us in operators.values()],
        }
