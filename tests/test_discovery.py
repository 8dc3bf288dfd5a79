"""The registry of device kinds, and what is known of a kind before a device is opened."""

from __future__ import annotations

import subprocess
import sys

import pytest

from device_agents.adb.direct import AdbDirectAgent
from device_agents.adb.server import AdbAgent
from device_agents.discovery import AGENTS, address_forms, agent_kind, attached
from device_agents.errors import UnknownDevice


@pytest.mark.parametrize("address", ["local", "ssh:jetson", "adb:1A2B", "adb:192.168.0.7:5555"])
def test_a_real_device_is_used_by_one_process_at_a_time_and_has_conditions(address: str) -> None:
    kind = agent_kind(address)
    assert (kind.shared, kind.has_conditions) == (False, True)


@pytest.mark.parametrize("address", ["replay:table.journal.jsonl", "fake:script.toml"])
def test_what_only_stands_for_a_device_may_be_shared_and_has_no_conditions(address: str) -> None:
    kind = agent_kind(address)
    assert (kind.shared, kind.has_conditions) == (True, False)


def test_both_ways_to_an_android_device_have_the_properties_of_their_kind() -> None:
    kind = agent_kind("adb:1A2B")
    for agent in (AdbAgent, AdbDirectAgent):
        assert (agent.shared, agent.has_conditions) == (kind.shared, kind.has_conditions)


def test_an_address_of_no_known_kind_says_which_was_meant() -> None:
    with pytest.raises(UnknownDevice, match="no kind of device called 'shh'; did you mean 'ssh'"):
        agent_kind("shh:jetson")


def test_the_property_of_a_kind_is_known_without_its_libraries() -> None:
    program = (
        "import sys\nfrom device_agents.discovery import agent_kind\nagent_kind('adb:1').shared\nprint('adbutils' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_this_machine_is_always_attached() -> None:
    assert "local" in [device.address for device in attached()]


def test_help_lists_how_real_devices_are_addressed() -> None:
    assert list(address_forms()) == ["local", "ssh:HOST", "adb:SERIAL", "adb:HOST:PORT"]
    assert {form.split(":")[0] for form in address_forms()} < set(AGENTS)
