"""A kind of device: a folder of this machine that pretends to be a board, `toy` or `toy:NAME`."""

from __future__ import annotations

from collections.abc import Sequence

from device_agents.agent import Attached
from device_agents.local import LocalAgent


class ToyAgent(LocalAgent):
    has_conditions = False
    address_forms = ("toy", "toy:NAME")

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        return [Attached("toy:board", "a toy board")]
