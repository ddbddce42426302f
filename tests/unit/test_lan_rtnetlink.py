"""Netlink by hand: whole messages, cut off ones, hostile ones, and the kernel's own."""

from __future__ import annotations

import errno
import random
import socket
import struct
from typing import Any, cast

import pytest

from asha.lan import netlink, rtnetlink
from asha.lan.rtnetlink import Address, Kernel, Link, Message, Overrun, Route

RUNNING = 0x1 | 0x40 | 0x10000
MAC = bytes.fromhex("525400000001")


def attribute(kind: int, value: bytes) -> bytes:
    text = struct.pack("=HH", 4 + len(value), kind) + value
    return text + bytes(-len(text) % 4)


def link(name: str, index: int = 2, flags: int = RUNNING, hardware: int = 1) -> bytes:
    return (struct.pack("=BxHiII", 0, hardware, index, flags, 0)
            + attribute(1, MAC) + attribute(3, name.encode() + b"\0"))


def address(text: str, index: int = 2, family: int = socket.AF_INET) -> bytes:
    packed = socket.inet_aton(text)
    return (struct.pack("=BBBBI", family, 24, 0, 0, index)
            + attribute(1, packed) + attribute(2, packed))


def route(gateway: str, index: int = 2, metric: int = 0, prefix: int = 0,
          table: int = 254) -> bytes:
    return (struct.pack("=8BI", socket.AF_INET, prefix, 0, 0, table, 3, 0, 1, 0)
            + attribute(4, struct.pack("=I", index)) + attribute(5, socket.inet_aton(gateway))
            + attribute(6, struct.pack("=I", metric)))


def message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    text = struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body
    return text + bytes(-len(text) % 4)


def test_several_messages_of_one_datagram() -> None:
    data = message(16, link("eth0")) + message(21, address("192.168.1.90"))
    found = [Message(*one) for one in netlink.messages(data)]
    assert [one.kind for one in found] == [rtnetlink.NEWLINK, rtnetlink.DELADDR]
    assert rtnetlink.link(found[0].body) == Link(2, "eth0", 1, True, MAC)
    assert rtnetlink.address(found[1].body) == Address(2, "192.168.1.90")


def test_a_carrier_is_what_is_running() -> None:
    # Up, and the cable is out (IFF_UP alone); down altogether.
    for flags in (0x1003, 0x1002):
        found = rtnetlink.link(link("eth0", flags=flags))
        assert found is not None
        assert not found.has_carrier


def test_an_address_from_point_to_point_is_the_own_one() -> None:
    body = (struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 5)
            + attribute(1, socket.inet_aton("10.0.0.1"))
            + attribute(2, socket.inet_aton("10.0.0.2")))
    assert rtnetlink.address(body) == Address(5, "10.0.0.2")


@pytest.mark.parametrize("body", [
    address("1.2.3.4", family=socket.AF_INET6), b"", address("1.2.3.4")[:7],
    struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 2),
    struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 2) + attribute(2, b"\1\2\3"),
])
def test_what_is_no_address(body: bytes) -> None:
    assert rtnetlink.address(body) is None


def test_a_default_route() -> None:
    assert rtnetlink.default_route(route("192.168.1.1", metric=100)) == \
        Route(2, "192.168.1.1", 100)


@pytest.mark.parametrize("body", [
    route("192.168.1.1", prefix=24), route("192.168.1.1", table=255), b"", route("1.1.1.1")[:11],
    route("192.168.1.1")[:12],
])
def test_what_is_no_default_route(body: bytes) -> None:
    assert rtnetlink.default_route(body) is None


@pytest.mark.parametrize("length", [0, 1, 15, 17 + 400, 0xFFFFFFFF])
def test_a_message_that_lies_about_its_length_ends_the_datagram(length: int) -> None:
    whole = message(16, link("eth0"))
    lie = struct.pack("=IHHII", length, 16, 0, 0, 0) + bytes(64)
    assert len(list(netlink.messages(whole + lie))) == 1


@pytest.mark.parametrize("length", [0, 3, 5000, 0xFFFF])
def test_an_attribute_that_lies_about_its_length_is_the_last(length: int) -> None:
    data = attribute(3, b"eth0\0") + struct.pack("=HH", length, 1) + bytes(16)
    assert netlink.attributes(data) == {3: b"eth0\0"}


def test_nothing_of_any_length_or_content_raises() -> None:
    known = b"".join((message(16, link("eth0")), message(20, address("1.2.3.4")),
                      message(24, route("1.1.1.1"))))
    chance = random.Random(11)
    samples = [known[:length] for length in range(len(known))]
    samples += [bytes(chance.randrange(256) for _ in range(chance.randrange(120)))
                for _ in range(3000)]
    for _ in range(3000):
        hurt = bytearray(known)
        for _ in range(4):
            hurt[chance.randrange(len(hurt))] = chance.randrange(256)
        samples.append(bytes(hurt))
    for data in samples:
        for one in (Message(*each) for each in netlink.messages(data)):
            rtnetlink.link(one.body)
            rtnetlink.address(one.body)
            rtnetlink.default_route(one.body)


class Wire:
    """A socket that gets these datagrams: (data, flags, sender's pid)."""

    def __init__(self, *datagrams: tuple[bytes, int, int] | OSError) -> None:
        self.datagrams = list(datagrams)

    def recvmsg(self, most: int) -> tuple[bytes, list[Any], int, tuple[int, int]]:
        if not self.datagrams:
            raise BlockingIOError
        one = self.datagrams.pop(0)
        if isinstance(one, OSError):
            raise one
        return one[0], [], one[1], (one[2], 1)


def kernel_with(*datagrams: tuple[bytes, int, int] | OSError) -> Kernel:
    kernel = Kernel()
    kernel._socket.close()
    kernel._socket = cast(socket.socket, Wire(*datagrams))
    return kernel


def test_a_strangers_message_is_not_the_kernels() -> None:
    lie, truth = message(21, address("192.168.1.90")), message(20, address("192.168.1.11"))
    found = kernel_with((lie, 0, 4711), (truth, 0, 0)).events()
    assert [one.kind for one in found] == [rtnetlink.NEWADDR]


def test_lost_events_ask_for_a_fresh_look() -> None:
    with pytest.raises(Overrun):
        kernel_with(OSError(errno.ENOBUFS, "")).events()
    with pytest.raises(Overrun):
        kernel_with((message(16, link("eth0")), socket.MSG_TRUNC, 0)).events()


def test_another_error_is_one() -> None:
    with pytest.raises(OSError, match="broken"):
        kernel_with(OSError(errno.EIO, "broken")).events()


def test_the_true_kernel_lists_what_is_there() -> None:
    kernel = Kernel()
    assert "lo" in {one.name for one in kernel.links()}
    lo = next(one.index for one in kernel.links() if one.name == "lo")
    assert Address(lo, "127.0.0.1") in kernel.addresses()
    assert all(socket.inet_aton(one.gateway) for one in kernel.default_routes())
    assert kernel.events() == []
