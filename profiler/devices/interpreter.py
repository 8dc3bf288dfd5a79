"""The Python of a device, where it is too old for what we run there."""

from __future__ import annotations

import re

from device_agents.agent import Agent

OLDEST = (3, 8)
"""The oldest version that our programs for devices work with (device_agents/on_device/)."""
COMMAND_S = 30.0


def too_old(agent: Agent, python: str) -> str | None:
    """Why this interpreter cannot run our programs and what to do; None if it is new enough or does not say its version.

    To be asked after a program has failed: an old interpreter takes what it does not know for an error of syntax.
    """
    result = agent.run([python, "--version"], timeout_s=COMMAND_S)
    found = re.search(r"Python ([0-9]{1,3})\.([0-9]{1,3})[0-9.]{0,8}", f"{result.stdout}\n{result.stderr}")  # Python 2 uses stderr
    if found is None or (int(found[1]), int(found[2])) >= OLDEST:
        return None
    search = "for minor in 8 9 10 11 12 13 14 15; do command -v python3.$minor; done; true"
    newer = agent.run(["sh", "-c", search], timeout_s=COMMAND_S).stdout.split()
    named = f", such as --python {newer[-1]}," if newer else " with --python"
    return (
        f"{python} on {agent.address} is {found[0]}, and {OLDEST[0]}.{OLDEST[1]} or later is needed; name a newer one{named} "
        'or as python = "PATH" of the device in profile.toml, or measure with the native runner, which needs no Python'
    )
