"""ARP frames: what is asked, and what is an answer."""

from __future__ import annotations

import random

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
