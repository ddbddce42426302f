"""Who has taken a port that Asterisk needs. Imported only when Asterisk has it not."""

from __future__ import annotations

import os
import pwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.proc import Proc, Process

# Not more of them are named: a port may be inherited by many.
NAMED_MOST = 3

# Has Asterisk listen again, once manager.conf has changed: it reads no other (main/manager.c,
# __init_manager(), CONFIG_FLAG_FILEUNCHANGED).
AGAIN = "asterisk -rx 'manager reload'"
RELOAD = f"touch /etc/asterisk/manager.conf; {AGAIN}"


def holder(proc: Proc, process: Process, port: int) -> str:
    """Those that listen on this TCP port of ``process``'s network, in words; "" for nobody.

    Their processes may be hidden from us, in another PID namespace.
    """
    sockets = process.anybodys(port)
    if not sockets:
        return ""
    found = [f"{one} of user {_user(one)}" for one in proc.having_open(sockets)]
    return " and ".join(found[:NAMED_MOST]) or "a process that is not seen from here"


def _user(process: Process) -> str:
    try:
        number = os.stat(process.folder).st_uid
    except OSError:
        return "unknown"
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
