"""ARP frames: what is asked, and what is an answer."""

from __future__ import annotations

import random
import socket
import struct
from array import array

import pytest

from asha.lan import arp

OURS = bytes.fromhex("525400000001")
THEIRS = bytes.fromhex("525400000002")


def reply(sender: str = "192.168.1.1", to: bytes = OURS, **changes: bytes) -> bytes:
    parts = {
        "ethernet": to + THEIRS + b"\x08\x06", "head": bytes.fromhex("0001080006040002"),
        "sender": THEIRS + bytes(map(int, sender.split("."))),
        "target": to + bytes((192, 168, 1, 11)), "padding": bytes(18), **changes,
    }
    return b"".join(parts.values())


def test_a_question_byte_by_byte() -> None:
    assert arp.question(OURS, "192.168.1.11", "192.168.1.1") == bytes.fromhex(
        "ffffffffffff 525400000001 0806"
        "0001 0800 06 04 0001 525400000001 c0a8010b 000000000000 c0a80101")


def test_without_an_address_it_is_a_probe() -> None:
    """RFC 5227, 2.1.1: the sender's address is zero."""
    assert arp.question(OURS, "", "192.168.1.1")[28:32] == bytes(4)


def test_an_answer_says_who_it_is() -> None:
    assert arp.answerer(reply(), OURS) == "192.168.1.1"


@pytest.mark.parametrize("frame", [
    reply(to=THEIRS),  # to somebody else
    reply(head=bytes.fromhex("0001080006040001")),  # a question
    reply(head=bytes.fromhex("0001080010040002")),  # a length that is not Ethernet's
    reply(head=bytes.fromhex("000186dd06040002")),  # of another protocol
    reply(ethernet=OURS + THEIRS + b"\x08\x00"),
    reply()[:41], b"",
])
def test_what_is_no_answer(frame: bytes) -> None:
    assert arp.answerer(frame, OURS) == ""


def test_nothing_of_any_length_or_content_raises() -> None:
    chance = random.Random(11)
    for _ in range(3000):
        hurt = bytearray(reply()[:chance.randrange(61)])
        for _ in range(3 if hurt else 0):
            hurt[chance.randrange(len(hurt))] = chance.randrange(256)
        arp.answerer(bytes(hurt), OURS)


def test_a_nic_that_is_not_there() -> None:
    with pytest.raises(OSError, match=r"No such device|not permitted"):
        arp.Ears("no-such-nic", OURS)


def passed(frames: list[bytes], targets: list[str]) -> list[bytes]:
    """Of these frames; the kernel filters a Unix socket's datagrams alike."""
    program = array("B", arp.only(OURS, targets))
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ends[0] as sender, ends[1] as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, arp.SO_ATTACH_FILTER, struct.pack(
            "@HP", len(program) // arp.INSTRUCTION.size, program.buffer_info()[0]))
        for frame in [*frames, END]:
            sender.send(frame)
        found = []
        while (frame := receiver.recv(2048)) != END:
            found.append(frame)
        return found


# Passes, and ends the reading.
END = reply("192.168.1.1", padding=b"the end")


def test_only_answers_of_the_asked_take_room_in_the_queue() -> None:
    gateway, peer = reply("192.168.1.1"), reply("192.168.1.12")
    flood = [reply(sender) for sender in ("192.168.1.2", "1.1.168.192", "0.0.0.0")]
    flood += [reply("192.168.1.1", to=THEIRS), reply("192.168.1.1", to=OURS[:4] + THEIRS[4:][::-1]),
              reply(head=bytes.fromhex("0001080006040001")), b"", gateway[:31]]
    frames = [gateway, *flood, peer, *flood]
    assert passed(frames, ["192.168.1.1", "192.168.1.12"]) == [gateway, peer]
    assert passed(frames, ["192.168.1.1"]) == [gateway]


def test_ears_hear_whom_they_ask_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway may become another one."""
    asked: list[list[str]] = []

    def only(mac: bytes, targets: list[str]) -> bytes:
        asked.append(list(targets))
        return arp.INSTRUCTION.pack(arp.TAKE, 0, 0, 0)

    ears = arp.Ears.__new__(arp.Ears)
    ears.mac, ears._targets = OURS, []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears._socket:
        monkeypatch.setattr(arp, "only", only)
        for targets in (["192.168.1.1"], ["192.168.1.1"], ["192.168.1.2", "192.168.1.12"]):
            ears.ask("192.168.1.11", targets)
    assert asked == [["192.168.1.1"], ["192.168.1.2", "192.168.1.12"]]
