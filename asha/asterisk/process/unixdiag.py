"""Whose file a Unix socket is bound to, as only the kernel knows: names can be taken by others.

Source: sock_diag(7), <linux/unix_diag.h>. Imported only when a connection does not come.
"""

from __future__ import annotations

import os
import select
import struct
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_RAW
from _socket import socket as Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

AF_NETLINK, NETLINK_SOCK_DIAG = 16, 4
SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 20, 1
UDIAG_SHOW_VFS, UNIX_DIAG_VFS = 2, 1
ANY = 0xFFFFFFFF

# nlmsghdr, and what follows it: unix_diag_req, unix_diag_msg; nlattr, unix_diag_vfs.
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBHIIIII")
ANSWER = struct.Struct("=BBBBIII")
ATTRIBUTE = struct.Struct("=HH")
VFS = struct.Struct("=II")

# The kernel answers within the call.
ANSWER_MS = 200


def is_one_of(path: str, inodes: Iterable[str]) -> bool | None:
    """Whether the file is that of one of these sockets; None if that is unknown."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    told = [bound_to(int(inode)) for inode in inodes]
    if None in told:
        return None
    return any(one == about.st_ino & ANY for one in told)


def bound_to(inode: int) -> int | None:
    """The lower half of the inode number of the file to which a socket is bound, 0 for none;
    None if the kernel does not tell."""
    request = REQUEST.pack(AF_UNIX, 0, 0, ANY, inode, UDIAG_SHOW_VFS, ANY, ANY)
    header = HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    try:
        line = Socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    except OSError:
        return None
    try:
        line.send(header + request)
        waiting = select.poll()
        waiting.register(line.fileno(), select.POLLIN)
        if not waiting.poll(ANSWER_MS):
            return None
        said = line.recv(65536)
    except OSError:
        return None
    finally:
        line.close()
    return _file_of(said)


def _file_of(said: bytes) -> int | None:
    if len(said) < HEADER.size + ANSWER.size:
        return None
    length, kind, _, _, _ = HEADER.unpack_from(said)
    if kind != SOCK_DIAG_BY_FAMILY:
        return None
    place = HEADER.size + ANSWER.size
    while place + ATTRIBUTE.size + VFS.size <= min(length, len(said)):
        size, what = ATTRIBUTE.unpack_from(said, place)
        if what == UNIX_DIAG_VFS:
            return int(VFS.unpack_from(said, place + ATTRIBUTE.size)[0])
        if size < ATTRIBUTE.size:
            break
        place += (size + 3) & ~3
    return 0
