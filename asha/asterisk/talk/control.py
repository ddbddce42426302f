"""The control socket, to which ``asterisk -r`` connects.

Source: Asterisk main/asterisk.c. netconsole() greets with "host/pid/version\\n", then takes
commands, each ended by a zero byte. At verbose 3 Asterisk logs "Remote UNIX connection" for
each client, unless asterisk.conf says hideconnect = yes; no client can prevent that.
"""

from __future__ import annotations

from _socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET
from errno import EACCES

from asha.asterisk.talk.connections import Line, NotConnected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.process.proc import Process
    from asha.asterisk.talk.connections import Conversation
    from asha.run.deadline import Deadline

SOCKET_NAME = "asterisk.ctl"

# What one question of several commands may have in bytes: netconsole() reads it at once,
# into 512.
QUESTION_MOST = 500


class NotOurs(OSError):
    """Somebody else holds the socket. ``strerror`` says who."""


class Console:
    """The control socket of one Asterisk, in a directory that Asterisk's user may write.

    If another process holds it, nothing is sent to it and nothing it sends is believed.
    """

    __slots__ = ("path", "process")

    def __init__(self, run_directory: str, process: Process) -> None:
        self.path = f"{run_directory}/{SOCKET_NAME}"
        self.process = process

    def connect(self, line: Line) -> Conversation[None]:
        """Raises NotOurs.

        Asterisk's user chooses the socket's place (astrundir and astctl in asterisk.conf): if
        it is not at its place, the kernel is asked.
        """
        try:
            yield from self._enter(line, self.path)
            return
        except OSError as problem:
            why = problem
        for path in self.process.listens_at().values():
            line.hang_up()
            try:
                yield from self._enter(line, path)
            except OSError:
                continue
            self.path = path
            return
        raise why

    def _enter(self, line: Line, path: str) -> Conversation[None]:
        try:
            yield from line.connect(path)
        except NotConnected:
            from asha.asterisk.process.unixdiag import is_one_of

            if is_one_of(path, self.process.listens_at()) is not False:
                raise
            # Nobody accepts, but it is not Asterisk that does not: no sign of a hang.
            raise NotOurs(EACCES, "another process has put its socket there") from None
        # Who called listen(2) (unix(7)); 0 is one of another PID namespace.
        pid = _peer(line)
        if pid != self.process.pid:
            raise NotOurs(EACCES, f"process {pid} holds it, but Asterisk is process "
                                  f"{self.process.pid}")

    def greet(self, deadline: Deadline) -> Conversation[str]:
        """The greeting, "host/pid/version"."""
        with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
            yield from self.connect(line)
            return (yield from greeting(line))

    def wait_fully_booted(self, deadline: Deadline) -> Conversation[None]:
        """Return when all modules are loaded.

        Asterisk holds the answer back until then. One that has just started and does not know
        the command yet is silent (Silent), like one that still loads.
        """
        with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
            yield from self.connect(line)
            yield from greeting(line)
            yield from line.send(b"core waitfullybooted\0")
            yield from line.read_until(b"fully booted", "end of loading")

    def first_line(self, text: str, deadline: Deadline) -> Conversation[str]:
        """Send a command; return the first line of its answer."""
        with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
            yield from self.connect(line)
            yield from greeting(line)
            yield from line.send(text.encode() + b"\0")
            answer = yield from line.read_until(b"\n", f"answer to {text}")
            return answer.decode("utf-8", "replace").strip()

    def answer(self, deadline: Deadline, *commands: str) -> Conversation[str]:
        """Send commands; return all that they print."""
        with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
            yield from self.connect(line)
            yield from greeting(line)
            return (yield from last_answer(line, *commands))


def greeting(line: Line) -> Conversation[str]:
    text = yield from line.read_until(b"\n", "greeting")
    return text.decode("utf-8", "replace").strip()


def last_answer(line: Line, *commands: str) -> Conversation[str]:
    """What these commands print, one after the other, until Asterisk hangs up.

    As asterisk -rx does, whose end is told in the same way (netconsole(), "cli quit after ";
    ast_cli_command_multiple_full() for several).
    """
    question = b"cli quit after " + "".join(f"{one}\0" for one in commands).encode()
    assert len(question) <= QUESTION_MOST, commands
    yield from line.send(question)
    answer = yield from line.read_to_end(f"answer to {commands[0]}")
    return answer.decode("utf-8", "replace")


def _peer(line: Line) -> int:
    import sys

    # struct ucred: pid, uid, gid (unix(7)).
    return int.from_bytes(line.socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], sys.byteorder)
