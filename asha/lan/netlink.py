"""The frame of what the kernel says by netlink: netlink(7), <linux/netlink.h>.

Next to nothing is imported: an agent's monitor needs it. What is not whole is left out;
nothing here raises.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# nlmsghdr and rtattr.
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
# NLA_F_NESTED and NLA_F_NET_BYTEORDER are no part of an attribute's type.
TYPE_MASK = 0x3FFF

ERROR, DONE = 2, 3
REQUEST, ACK, INTERRUPTED, DUMP, CREATE = 0x1, 0x4, 0x10, 0x300, 0x400


def request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message to the kernel."""
    return HEADER.pack(HEADER.size + len(body), kind, flags | REQUEST, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence and body of those of one datagram, up to the first that is not
    whole."""
    place = 0
    while place + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, place)
        if length < HEADER.size or place + length > len(data):
            return
        yield kind, flags, sequence, data[place + HEADER.size : place + length]
        place += _aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """By type; the first of each counts."""
    found: dict[int, bytes] = {}
    place = 0
    while place + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, place)
        if length < ATTRIBUTE.size or place + length > len(data):
            break
        found.setdefault(kind & TYPE_MASK, data[place + ATTRIBUTE.size : place + length])
        place += _aligned(length)
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, filled up to where the next may begin."""
    size = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
