"""The kernel's IPv4 routes, and copies of them with another source address.

What a program sends without having chosen a source gets that of the route: the preferred
source, `src` in ip-route(8). For the time that a node has the virtual address, each route
of the LAN's NIC gets a copy in front of it, which differs in its source and its protocol
alone. A default route gets two halves (0.0.0.0/1 and 128.0.0.0/1): of two default routes
of one metric the kernel takes turns (fib_select_default() in net/ipv4/fib_semantics.c).

The routes themselves stay as DHCP, ifupdown, NetworkManager or a person made them. The
kernel removes the copies together with the address (fib_sync_down_addr(), the same file),
so that nothing is left of them when this program is not there to do it.

Source: rtnetlink(7), <linux/rtnetlink.h>. Next to nothing is imported: a monitor needs it.
"""

from __future__ import annotations

import errno
import os
import select
import struct
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_RAW, if_nametoindex, inet_ntop, inet_pton
from _socket import socket as Socket

from asha.lan.netlink import (
    ACK,
    CREATE,
    DONE,
    DUMP,
    ERROR,
    INTERRUPTED,
    attribute,
    attributes,
    messages,
    request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Of the copies, so that they are known as ours ("proto 165" in `ip route`). A number that
# neither the kernel nor /etc/iproute2/rt_protos has.
PROTOCOL = 165

# Of a default route's halves: after any other route to half of the world, a VPN's say.
HALF_METRIC = 1 << 30
HALVES = (bytes(4), bytes([128, 0, 0, 0]))

# 169.254.0.0/16 (RFC 3927) is every NIC's own business.
LINK_LOCAL = bytes([169, 254])

# An address in each half of the world that is in no LAN. The first is the one by which PJSIP
# finds its own (pjlib/src/pj/sock_common.c, pj_getdefaultipinterface()); the second RFC 5737.
FAR = (bytes([1, 1, 1, 1]), bytes([192, 0, 2, 1]))

AF_NETLINK, NETLINK_ROUTE = 16, 0
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWADDR, RTM_GETADDR = 24, 25, 26, 20, 22
RT_TABLE_MAIN, RTN_UNICAST, RTM_F_CLONED, RTNH_F_ONLINK = 254, 1, 0x200, 4
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_METRICS, RTA_FLOW, RTA_TABLE, RTA_VIA = 8, 11, 15, 18
IFA_LOCAL = 2
# What makes a route what it is; the rest is statistics, or follows from these.
KEPT = (RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_FLOW, RTA_VIA)

# rtmsg and ifaddrmsg.
ROUTE = struct.Struct("=BBBBBBBBI")
ADDRESS = struct.Struct("=BBBBI")
NUMBER = struct.Struct("=I")
CODE = struct.Struct("=i")

# The kernel answers within the call.
ANSWER_MS = 1000
BUFFER = 1 << 17
# A dump while routes change may have missed some: it is asked again.
TRIES = 5


class Route:
    """One route. Two are equal where the kernel would take them for the same."""

    __slots__ = ("attributes", "flags", "length", "protocol", "scope", "tos")

    def __init__(self, length: int, tos: int, protocol: int, scope: int, flags: int,
                 attributes: dict[int, bytes]) -> None:
        self.length = length
        self.tos = tos
        self.protocol = protocol
        self.scope = scope
        self.flags = flags & RTNH_F_ONLINK
        self.attributes = {kind: attributes[kind] for kind in KEPT if kind in attributes}
        if not any(self.attributes.get(RTA_DST, b"")):
            self.attributes.pop(RTA_DST, None)  # the kernel leaves 0.0.0.0 out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Route) and self.message == other.message

    def __hash__(self) -> int:
        return hash(self.message)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        """In the words of ip-route(8), without the NIC's name."""
        way = f" via {inet_ntop(AF_INET, self.gateway)}" if self.gateway else ""
        place = f"{inet_ntop(AF_INET, self.destination)}/{self.length}"
        return f"{place if self.length else 'default'}{way}"

    @property
    def destination(self) -> bytes:
        return self.attributes.get(RTA_DST, bytes(4))

    @property
    def gateway(self) -> bytes:
        return self.attributes.get(RTA_GATEWAY, b"")

    @property
    def source(self) -> bytes:
        return self.attributes.get(RTA_PREFSRC, b"")

    @property
    def nic(self) -> int:
        return _number(self.attributes.get(RTA_OIF))

    @property
    def metric(self) -> int:
        return _number(self.attributes.get(RTA_PRIORITY))

    @property
    def is_ours(self) -> bool:
        return self.protocol == PROTOCOL

    @property
    def place(self) -> tuple[bytes, int, int, int]:
        """Of all that have the same, the kernel takes the first."""
        return self.destination, self.length, self.tos, self.metric

    @property
    def message(self) -> bytes:
        """The rtmsg with its attributes."""
        head = ROUTE.pack(AF_INET, self.length, 0, self.tos, RT_TABLE_MAIN, self.protocol,
                          self.scope, RTN_UNICAST, self.flags)
        return head + b"".join(attribute(kind, self.attributes[kind])
                               for kind in sorted(self.attributes))

    def reaches(self, address: bytes) -> bool:
        shift = 32 - self.length
        return _whole(address) >> shift == _whole(self.destination) >> shift

    def copy(self, source: bytes) -> Route:
        """The same as ours, with this source."""
        return Route(self.length, self.tos, PROTOCOL, self.scope, self.flags,
                     {**self.attributes, RTA_PREFSRC: source})

    def halves(self, source: bytes) -> list[Route]:
        """The two that together are as good as a default route."""
        return [
            Route(1, self.tos, PROTOCOL, self.scope, self.flags,
                  {**self.attributes, RTA_DST: half, RTA_PREFSRC: source,
                   RTA_PRIORITY: NUMBER.pack(HALF_METRIC)})
            for half in HALVES
        ]


def wanted(routes: Sequence[Route], nic: int, source: bytes) -> list[Route]:
    """The copies that make ``source`` that of what leaves by this NIC.

    ``routes``: the main table in its order. A route that another one hides is left alone,
    so that nothing leaves by another way than before.
    """
    copies = []
    seen = set()
    others = [route for route in routes if not route.is_ours]
    lowest = min((route.metric for route in others if not route.length), default=0)
    for route in others:
        hidden = route.place in seen or (not route.length and route.metric != lowest)
        seen.add(route.place)
        if hidden or route.nic != nic or route.source == source:
            continue
        if not route.length:
            copies += route.halves(source)
        elif not (route.length >= 16 and route.destination.startswith(LINK_LOCAL)):
            copies.append(route.copy(source))
    return copies


def late(routes: Sequence[Route], copies: Sequence[Route]) -> list[Route]:
    """Those of the copies in the table before which another of the same place stands."""
    first: dict[tuple[bytes, int, int, int], Route] = {}
    for route in routes:
        first.setdefault(route.place, route)
    there = set(routes)
    return [one for one in copies if one in there and first[one.place] != one]


class Kernel:
    """A conversation with rtnetlink. Each method raises OSError."""

    def __init__(self) -> None:
        self._line = Socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
        self._poll = select.poll()
        self._poll.register(self._line.fileno(), select.POLLIN)
        self._count = 0

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *rest: object) -> None:
        self._line.close()

    def nic(self, name: str) -> int:
        """Its number."""
        return if_nametoindex(name)

    def has_address(self, nic: int, address: bytes) -> bool:
        for kind, body in self._dump(RTM_GETADDR, ADDRESS.pack(AF_INET, 0, 0, 0, 0)):
            here = kind == RTM_NEWADDR and ADDRESS.unpack_from(body)[4] == nic
            if here and attributes(body[ADDRESS.size:]).get(IFA_LOCAL) == address:
                return True
        return False

    def routes(self) -> list[Route]:
        """Those of the main table that lead to one neighbour, in the table's order."""
        found = []
        ask = ROUTE.pack(AF_INET, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)
        for kind, body in self._dump(RTM_GETROUTE, ask):
            if kind != RTM_NEWROUTE or len(body) < ROUTE.size:
                continue
            _, length, _, tos, table, protocol, scope, type_, flags = ROUTE.unpack_from(body)
            about = attributes(body[ROUTE.size:])
            table = _number(about.get(RTA_TABLE)) or table
            if table == RT_TABLE_MAIN and type_ == RTN_UNICAST and RTA_OIF in about \
                    and not flags & RTM_F_CLONED:
                found.append(Route(length, tos, protocol, scope, flags, about))
        return found

    def put_first(self, route: Route) -> None:
        """Add it before others of the same place. One that is there is no error."""
        self._do(RTM_NEWROUTE, CREATE, route, errno.EEXIST)

    def remove(self, route: Route) -> None:
        """One that is not there is no error."""
        self._do(RTM_DELROUTE, 0, route, errno.ESRCH)

    def way_to(self, address: bytes) -> tuple[int, bytes]:
        """By which NIC, and from which address; (0, b"") for no way."""
        ask = ROUTE.pack(AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, address)
        for kind, body in self._ask(RTM_GETROUTE, 0, ask):
            if kind == RTM_NEWROUTE:
                way = attributes(body[ROUTE.size:])
                return _number(way.get(RTA_OIF)), way.get(RTA_PREFSRC, b"")
            break
        return 0, b""

    def _do(self, kind: int, flags: int, route: Route, excused: int) -> None:
        for answer, body in self._ask(kind, flags | ACK, route.message):
            code = -CODE.unpack_from(body)[0] if answer == ERROR else errno.EPROTO
            if code not in (0, excused):
                raise OSError(code, os.strerror(code), str(route))
            return

    def _dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        for _ in range(TRIES):
            try:
                return list(self._ask(kind, DUMP, body))
            except InterruptedError:
                continue
        raise OSError(errno.EBUSY, "the kernel's list changes all the time")

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages of the answer: one, or with DUMP all to its end."""
        self._count += 1
        self._line.send(request(kind, flags, self._count, body))
        interrupted = False
        while True:
            if not self._poll.poll(ANSWER_MS):
                raise OSError(errno.ETIMEDOUT, "the kernel does not answer (rtnetlink)")
            for answer, how, number, inner in messages(self._line.recv(BUFFER)):
                if number != self._count:
                    continue  # the rest of an earlier answer
                interrupted = interrupted or bool(how & INTERRUPTED)
                if answer == ERROR and flags & DUMP == DUMP:
                    code = -CODE.unpack_from(inner)[0]
                    raise OSError(code, os.strerror(code))
                if answer == DONE:
                    if interrupted:
                        raise InterruptedError
                    return
                yield answer, inner
                if flags & DUMP != DUMP:
                    return


def address_of(text: str) -> bytes:
    """Raises OSError for what is no IPv4 address."""
    return inet_pton(AF_INET, text)


def text_of(address: bytes) -> str:
    return inet_ntop(AF_INET, address) if address else "no address"


def neighbour_in(routes: Sequence[Route], nic: int, own: bytes) -> bytes:
    """An address of the network that ``own`` is in, another than that; b"" without one."""
    for route in routes:
        if route.nic == nic and not route.gateway and 0 < route.length < 31 and route.reaches(own):
            number = _whole(route.destination) + 1
            return (number if number != _whole(own) else number + 1).to_bytes(4, "big")
    return b""


def _whole(address: bytes) -> int:
    return int.from_bytes(address, "big")


def _number(value: bytes | None) -> int:
    return int(NUMBER.unpack(value)[0]) if value is not None and len(value) == NUMBER.size else 0
