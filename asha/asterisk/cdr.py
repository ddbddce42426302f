"""Call records and a database that starts after Asterisk.

Asterisk's database back ends connect, and learn the columns of their table, when the module is
loaded. One that found no database loses every record, even when the database is up later, until
the module is reloaded (cdr_mysql.c, my_load_config(); seen with 16.28). Here the telephones
start first, so the agent must reload it.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_STREAM

from asha.asterisk.talk.connections import Line, Silent, hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.asterisk.talk.connections import Conversation
    from asha.asterisk.talk.control import Console
    from asha.run.deadline import Deadline

# Seconds for the database to take a connection, which is the kernel's work: only one
# with a full queue, that hangs, needs longer.
CONNECT_SECONDS = 1.0

# Seconds for one module to reload: it connects to the database in that time.
RELOAD_SECONDS = 5.0

# What Asterisk says of a reload (main/loader.c, handle_module_reload() of main/cli.c)
# that it has done, and of one that it does not do yet.
RELOADED = "reloaded successfully"
NOT_LOADED = "No such module"
NOT_YET = ("already in progress", "request queued")


class NotYet(Exception):
    """Asterisk does another reload; the message is Asterisk's."""


def database_is_up(path: str, deadline: Deadline) -> bool:
    """Whether something accepts connections at the database's Unix socket."""
    try:
        hold(_connect(path, deadline.within(CONNECT_SECONDS)))
    except (OSError, Silent):
        return False
    return True


def reload_modules(console: Console, modules: Sequence[str], deadline: Deadline) -> list[str]:
    """Reload each module; returns what Asterisk printed, without unknown modules.

    Raises NotYet if it is not done now, Silent if a reload takes longer than RELOAD_SECONDS,
    OSError if the control socket is gone.
    """
    said = []
    for module in modules:
        answer = hold(
            console.first_line(f"module reload {module}", deadline.within(RELOAD_SECONDS))
        )
        if any(words in answer for words in NOT_YET):
            raise NotYet(answer)
        if NOT_LOADED not in answer:
            said.append(answer)
    return said


def is_module(name: str) -> bool:
    """Whether this can only be a module's name on Asterisk's command line."""
    return name.endswith(".so") and name[:-3].replace("_", "").isalnum()


def _connect(path: str, deadline: Deadline) -> Conversation[None]:
    with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
        yield from line.connect(path)
