from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.adb.shell_v2 import LONGEST_BYTES, Kind, Packet, PacketParser, pack

packets = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(packets, st.data())
def test_packets_survive_any_split_of_their_bytes(expected: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(pack(kind, payload) for kind, payload in expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = PacketParser()
    found = [
        packet for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for packet in parser.feed(stream[start:end])
    ]
    assert found == [Packet(kind, payload) for kind, payload in expected]


@given(st.binary(max_size=400))
def test_any_bytes_are_packets_or_a_value_error(data: bytes) -> None:
    try:
        found = PacketParser().feed(data)
    except ValueError:
        return
    assert sum(5 + len(packet.data) for packet in found) <= len(data)


def test_a_packet_is_its_id_its_length_and_its_data() -> None:
    assert pack(Kind.STDOUT, b"hi") == b"\x01\x02\x00\x00\x00hi"
    assert PacketParser().feed(b"\x03\x01\x00\x00\x00\x07") == [Packet(Kind.EXIT, b"\x07")]


def test_a_length_beyond_reason_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="bytes"):
        PacketParser().feed(b"\x01" + (LONGEST_BYTES + 1).to_bytes(4, "little"))
