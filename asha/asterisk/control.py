"""The control socket, what ``asterisk -r`` connects to.

Source: Asterisk main/asterisk.c. netconsole() greets with "host/pid/version\\n",
then takes commands, each ended by a zero byte. At verbose 3 Asterisk logs
"Remote UNIX connection" for each caller, unless asterisk.conf says
hideconnect = yes; no caller can prevent that.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_STREAM

from asha.asterisk.wire import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.wire import Conversation
    from asha.ocf.deadline import Deadline

SOCKET_NAME = "asterisk.ctl"


def greet(path: str, deadline: Deadline) -> Conversation[str]:
    """The greeting, "host/pid/version"."""
    with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
        yield from line.connect(path)
        return (yield from _greeting(line))


def wait_fully_booted(path: str, deadline: Deadline) -> Conversation[None]:
    """Return when all modules are loaded.

    Asterisk holds the answer back until then. An Asterisk that is so young that
    it does not know the command yet is silent (Silent), like one still loading.
    """
    with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
        yield from line.connect(path)
        yield from _greeting(line)
        yield from line.send(b"core waitfullybooted\0")
        yield from line.read_until(b"fully booted", "end of loading")


def command(path: str, text: str, deadline: Deadline) -> Conversation[str]:
    """Give a command; return the first line of its answer."""
    with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
        yield from line.connect(path)
        yield from _greeting(line)
        yield from line.send(text.encode() + b"\0")
        answer = yield from line.read_until(b"\n", f"answer to {text}")
        return answer.decode("utf-8", "replace").strip()


def whole_answer(path: str, text: str, deadline: Deadline) -> Conversation[str]:
    """Give a command; return all of its answer, after which Asterisk hangs up.

    As asterisk -rx does, whose end is told the same way (netconsole(), "cli quit after ").
    """
    with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
        yield from line.connect(path)
        yield from _greeting(line)
        yield from line.send(b"cli quit after " + text.encode() + b"\0")
        answer = yield from line.read_to_end(f"answer to {text}")
        return answer.decode("utf-8", "replace")


def _greeting(line: Line) -> Conversation[str]:
    text = yield from line.read_until(b"\n", "greeting")
    return text.decode("utf-8", "replace").strip()
