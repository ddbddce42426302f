"""What has taken a port that Asterisk needs. Imported only if Asterisk does not have it."""

from __future__ import annotations

import pwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asha.asterisk.process.proc import Endpoint, Proc, Process

# Not more of them are named: a port may be inherited by many.
NAMED_MOST = 3

# Has Asterisk listen again, once manager.conf has changed: it reads no other (main/manager.c,
# __init_manager(), CONFIG_FLAG_FILEUNCHANGED).
AGAIN = "asterisk -rx 'manager reload'"
RELOAD = f"touch /etc/asterisk/manager.conf; {AGAIN}"


def holder(proc: Proc, process: Process, port: int) -> str:
    """The processes that listen on this TCP port of ``process``'s network, in words; "" for
    none.

    They may be hidden from us, in another PID namespace.
    """
    bound = process.bound(port, ("tcp",))
    if not bound:
        return ""
    found = [f"{one} of user {_user(one)}" for one, _ in _having_open(proc, bound)]
    return " and ".join(found[:NAMED_MOST]) or "a process that is not seen from here"


def strangers_at(proc: Proc, process: Process, ports: Iterable[int]) -> list[str]:
    """What holds these ports, by UDP or TCP, in place of this process: in words."""
    bound: dict[str, Endpoint] = {}
    for port in ports:
        bound.update(process.bound(port, ("udp", "tcp")))
    return [
        f"{one} of user {_user(one)} holds {bound[inode]}"
        for one, held in _having_open(proc, bound) if one.pid != process.pid
        for inode in sorted(held)
    ][:NAMED_MOST]


def _having_open(
    proc: Proc, bound: dict[str, Endpoint]
) -> list[tuple[Process, dict[str, str]]]:
    if not bound:
        return []
    held = [(one, one.sockets(set(bound))) for one in proc.all(everywhere=True)]
    return [(one, sockets) for one, sockets in held if sockets]


def _user(process: Process) -> str:
    if not process.users:
        return "unknown"
    try:
        return pwd.getpwuid(process.users[0]).pw_name
    except KeyError:
        return str(process.users[0])
