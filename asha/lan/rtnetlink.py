"""What the kernel tells of links, addresses and routes: netlink(7), rtnetlink(7).

Numbers are those of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
and linux/if.h. What is not whole is left out: a parser never raises.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

from asha.lan.netlink import DONE, DUMP, ERROR, INTERRUPTED, attributes, messages, request
from asha.run.deadline import Deadline

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
# RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
GROUPS = 0x1 | 0x10 | 0x40

LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=8BI")

IFLA_ADDRESS, IFLA_IFNAME = 1, 3
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 4, 5, 6

# The link is up, and the driver sees the other end (netdevice(7), RFC 2863's "up").
IFF_RUNNING = 0x40
ETHERNET = 1  # ARPHRD_ETHER
UNICAST, MAIN = 1, 254  # RTN_UNICAST, RT_TABLE_MAIN

# Larger than any message of the kernel's (32 KiB).
READ_MOST = 1 << 16
# Of events that wait while a program runs; the kernel's own default holds some hundred.
QUEUE_BYTES = 1 << 18
DUMP_SECONDS = 2.0
# Dumps that changed while they were read.
DUMPS_MOST = 5


class Overrun(Exception):
    """Events were lost: only a fresh look tells what is so."""


@dataclass(frozen=True)
class Message:
    kind: int
    flags: int
    sequence: int
    body: bytes


@dataclass(frozen=True)
class Link:
    index: int
    name: str
    hardware: int
    has_carrier: bool
    mac: bytes


@dataclass(frozen=True)
class Address:
    index: int
    address: str


@dataclass(frozen=True)
class Route:
    """A default route of the main table."""

    index: int
    gateway: str
    metric: int


def link(body: bytes) -> Link | None:
    """Of NEWLINK and DELLINK."""
    if len(body) < LINK.size:
        return None
    _, hardware, index, flags, _ = LINK.unpack_from(body)
    found = attributes(body[LINK.size:])
    name = found.get(IFLA_IFNAME, b"").partition(b"\0")[0].decode("ascii", "replace")
    return Link(index, name, hardware, bool(flags & IFF_RUNNING), found.get(IFLA_ADDRESS, b""))


def address(body: bytes) -> Address | None:
    """Of NEWADDR and DELADDR, IPv4 alone."""
    if len(body) < ADDRESS.size:
        return None
    family, _, _, _, index = ADDRESS.unpack_from(body)
    found = attributes(body[ADDRESS.size:])
    # IFA_ADDRESS is the other end's on a link from point to point.
    own = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    if family != socket.AF_INET or len(own) != 4:
        return None
    return Address(index, socket.inet_ntoa(own))


def default_route(body: bytes) -> Route | None:
    """Of NEWROUTE; None for any other than a default route with one gateway."""
    if len(body) < ROUTE.size:
        return None
    family, prefix, _, _, table, _, _, kind, _ = ROUTE.unpack_from(body)
    found = attributes(body[ROUTE.size:])
    gateway, out = found.get(RTA_GATEWAY, b""), found.get(RTA_OIF, b"")
    if (family, prefix, table, kind) != (socket.AF_INET, 0, MAIN, UNICAST):
        return None
    if len(gateway) != 4 or len(out) != 4:
        return None
    metric = found.get(RTA_PRIORITY, b"")
    return Route(int.from_bytes(out, "little" if struct.pack("=H", 1)[0] else "big"),
                 socket.inet_ntoa(gateway),
                 struct.unpack("=I", metric)[0] if len(metric) == 4 else 0)


class Kernel:
    """The subscription. OSError where there is no netlink."""

    def __init__(self) -> None:
        self._socket = _netlink(GROUPS)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def events(self) -> list[Message]:
        """What has come since. Raises Overrun."""
        found: list[Message] = []
        while True:
            try:
                data = from_kernel(self._socket)
            except BlockingIOError:
                return found
            except OSError as problem:
                if problem.errno == errno.ENOBUFS:
                    raise Overrun from None
                raise
            found += [Message(*one) for one in messages(data)]

    def links(self) -> list[Link]:
        """All there are, as the three that follow. Raises OSError, also in want of time."""
        return [one for body in _dump(GETLINK, NEWLINK) if (one := link(body))]

    def addresses(self) -> list[Address]:
        return [one for body in _dump(GETADDR, NEWADDR) if (one := address(body))]

    def default_routes(self) -> list[Route]:
        return [one for body in _dump(GETROUTE, NEWROUTE) if (one := default_route(body))]


def _netlink(groups: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                         socket.NETLINK_ROUTE)
    try:
        made.bind((0, groups))
    except BaseException:
        made.close()
        raise
    return made


def from_kernel(source: socket.socket) -> bytes:
    """The next datagram, b"" for one that is not the kernel's: any process may send one.

    Raises Overrun for one that was cut off.
    """
    data, _, flags, sender = source.recvmsg(READ_MOST)
    if flags & socket.MSG_TRUNC:
        raise Overrun
    return data if sender[0] == 0 else b""


def _dump(question: int, answer: int) -> list[bytes]:
    """The bodies of all that there is of a kind, on a socket of its own: events that come
    meanwhile stay in the other's queue, and are newer."""
    deadline = Deadline(DUMP_SECONDS)
    for sequence in range(1, DUMPS_MOST + 1):
        with _netlink() as asking:
            body = struct.pack("=B15x", socket.AF_INET if question != GETLINK else 0)
            asking.send(request(question, DUMP, sequence, body))
            found, whole = _answers(asking, answer, sequence, deadline)
        if whole:
            return found
    raise OSError(errno.EINTR, "what the kernel tells changes all the time")


def _answers(
    asking: socket.socket, answer: int, sequence: int, deadline: Deadline
) -> tuple[list[bytes], bool]:
    found: list[bytes] = []
    whole = True
    while True:
        left = deadline.remaining()
        if not left:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        asking.settimeout(left)
        try:
            data = from_kernel(asking)
        except Overrun:
            return [], False
        for one in (Message(*each) for each in messages(data)):
            if one.sequence != sequence:
                continue
            whole = whole and not one.flags & INTERRUPTED
            if one.kind == answer:
                found.append(one.body)
            elif one.kind == DONE:
                return found, whole
            elif one.kind == ERROR:
                raise OSError(errno.EPROTO, "the kernel refuses to list them")
