"""What a telephone hears: OPTIONS to the virtual address, and who answers.

The answer must come from the address that was called: a telephone behind NAT or a
stateful firewall hears no other.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asha.asterisk.process.proc import Endpoint
from asha.asterisk.talk.connections import Multiplexer, Silent
from asha.asterisk.talk.sip import options
from asha.run.deadline import Deadline

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation

# Where SIP is taken (RFC 3261, 19.1.2).
PORT = 5060
# For a request that is repeated twice, after 0.5 and 1.5 s; by TCP the kernel repeats it.
SECONDS = 2.0
TCP_SECONDS = 1.0
LOOK_EVERY = 0.05
# The kernel's lists of sockets, in which a port is hexadecimal: proc(5).
SOCKETS = ("/proc/net/udp", "/proc/net/udp6", "/proc/net/tcp", "/proc/net/tcp6")


def answers(address: str, deadline: Deadline, port: int = PORT) -> bool:
    """Whether SIP at ``address`` answers, by UDP or by TCP.

    Where this machine has it, the loopback's may answer in its place: an Asterisk that is
    bound to all addresses takes both, and what it sends to a machine's own second address
    the kernel gives the first one as its source (fib_add_ifaddr, net/ipv4), which the
    telephones never see.
    """
    places = [address]
    if is_local(address):
        places.append("::1" if ":" in address else "127.0.0.1")
    asked = [_ask(Endpoint(protocol, place, port, 0, ""), deadline.within(seconds))
             for place in places for protocol, seconds in (("udp", SECONDS), ("tcp", TCP_SECONDS))]
    with Multiplexer() as talks:
        for one in asked:
            talks.begin(one)
        # The first that answers is enough.
        while len(talks.results) < len(asked) and not any(talks.results.values()):
            if deadline.expired:
                return False
            talks.go_on(deadline.within(LOOK_EVERY))
        return any(talks.results.values())


def is_taken(port: int = PORT, sockets: Sequence[str] = SOCKETS) -> bool:
    """Whether anybody on this machine takes anything at that port, at whichever address. A
    site may have its SIP at another one, or by TLS alone. Not known is no."""
    local = f":{port:04X}"
    for path in sockets:
        try:
            with open(path, encoding="ascii") as file:
                rows = [line.split() for line in file]
        except (OSError, ValueError):
            continue
        # sl, local_address, rem_address: what is not connected has port 0 there.
        if any(len(row) > 2 and row[1].endswith(local) and row[2].endswith(":0000")
               for row in rows):
            return True
    return False


def is_local(address: str) -> bool:
    """Whether this machine has it: only then may a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as plug:
            plug.bind((address, 0))
    except OSError:
        return False
    return True


def _ask(endpoint: Endpoint, deadline: Deadline) -> Conversation[bool]:
    try:
        yield from options(endpoint, deadline)
    except (Silent, OSError):
        return False
    return True
