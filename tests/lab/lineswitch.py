"""A stand-in for the card that moves a telephone line between two nodes.

There is no such hardware in the lab. This process is the card and the line: it
speaks the card's protocol on a pty that exists in its node's own /dev/pts, loses
its relay with the node's power, and says to which node the line goes. The tests
ask it, never the agent.

Two kinds:

* ``numato``: the vendor's documented protocol (sources in asha/relay/numato.py).
  The card's real driver talks to it.
* ``rhino``: the bytes on the wire of a Rhino 1SPF are not published. The lab's
  own rhinofailover (tests/lab/files/node) stands in for the vendor's program and
  speaks a made-up protocol with this process: a line of ASCII, such as
  ``RELAYON 0``, answered by ``OK`` or ``ERROR``.

As a process (``python3 tests/lab/lineswitch.py --socket PATH serve``) it prints
``ready`` when it can be asked, one JSON object a line on a Unix socket, and ends at
SIGTERM, SIGINT or ``quit``. ``LineSwitchClient`` and ``ask`` on the command line
talk to it. It needs nothing but Python, so that it starts at once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Sequence
from typing import Any

# linux/tty.h and asm-generic/ioctls.h; the termios module has no names for them.
TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
TIOCGPTPEER = 0x5441

# How a card can be broken: it never answers; it answers nonsense; it answers as it
# should and its relay stays where it is.
FAULTS = ("mute", "garbage", "stuck")
GARBAGE = b"\xff\x00?!\r\n"

READY_SECONDS = 10.0
ANSWER_SECONDS = 5.0

# A command line longer than any of the cards' is thrown away.
COMMAND_BYTES = 256


class Card:
    """The card's own logic: bytes in, bytes out, one latched relay."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self.relay = False
        self.fault = ""
        self._moved = moved
        self._line = b""

    def lose_power(self) -> None:
        self._line = b""
        self.relay = False

    def feed(self, data: bytes) -> bytes:
        """What the card answers to these bytes."""
        if self.fault == "mute":
            return b""
        if self.fault == "garbage":
            return GARBAGE
        answer = b""
        for byte in (data[at : at + 1] for at in range(len(data))):
            answer += self.echo(byte)
            if byte in (b"\r", b"\n"):
                command, self._line = self._line.decode("ascii", "replace"), b""
                answer += self.obey(command.split()) if command.strip() else b""
            elif len(self._line) < COMMAND_BYTES:
                self._line += byte
        return answer

    def set(self, on: bool) -> None:
        if self.fault != "stuck":
            self.relay = on
            self._moved()

    def echo(self, byte: bytes) -> bytes:
        raise NotImplementedError

    def obey(self, words: list[str]) -> bytes:
        raise NotImplementedError


class NumatoCard(Card):
    """A module of one relay, number 0. Layout of the answers: the vendor's library
    cuts ``len(command) + 1`` characters of echo and ``\\n\\r>`` at the end."""

    def echo(self, byte: bytes) -> bytes:
        return b"\n\r" if byte == b"\r" else byte

    def obey(self, words: list[str]) -> bytes:
        if words == ["relay", "read", "0"]:
            return (b"on" if self.relay else b"off") + b"\n\r>"
        if words in (["relay", "on", "0"], ["relay", "off", "0"]):
            self.set(words[1] == "on")
        return b">"


class RhinoCard(Card):
    """The other end of the lab's own rhinofailover."""

    def echo(self, byte: bytes) -> bytes:
        return b""

    def obey(self, words: list[str]) -> bytes:
        if words in (["RELAYON", "0"], ["RELAYOFF", "0"]):
            self.set(words[0] == "RELAYON")
        elif words != ["RESET"]:
            return b"ERROR\n"
        return b"OK\n"


KINDS: dict[str, type[Card]] = {"numato": NumatoCard, "rhino": RhinoCard}


class Pty:
    """The card's serial port: a pty of the node's devpts and a name for it there."""

    def __init__(self, ptmx: str, root: str, device: str, not_number: int | None = None) -> None:
        self._link = root + device
        with contextlib.ExitStack() as opened:
            self.master = _open_master(ptmx, not_number)
            opened.callback(os.close, self.master)
            self.number = _pty_number(self.master)
            fcntl.ioctl(self.master, TIOCSPTLCK, struct.pack("i", 0))
            # An end of our own: without any, reading the master fails and poll
            # spins whenever no program has the device open.
            own_end = fcntl.ioctl(
                self.master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
            )
            opened.callback(os.close, own_end)
            tty.setraw(own_end)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._link)
            os.symlink(f"/dev/pts/{self.number}", self._link)
            self._opened = opened.pop_all()

    def close(self) -> None:
        # The node may be gone, and its /dev with it; its next one may have a name
        # that is not ours.
        with contextlib.suppress(OSError):
            if os.readlink(self._link) == f"/dev/pts/{self.number}":
                os.unlink(self._link)
        self._opened.close()


def _open_master(ptmx: str, not_number: int | None) -> int:
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    if _pty_number(master) != not_number:
        return master
    try:
        # As long as this one is open, the next cannot have its number.
        return _open_master(ptmx, not_number)
    finally:
        os.close(master)


def _pty_number(master: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, struct.pack("i", 0)))[0])


class LineSwitch:
    """The card, its cable, its power and the line.

    ``device`` is the card's name inside the node. Node names are those of the
    cluster. Every public method can be asked for over the socket.
    """

    def __init__(
        self,
        card_node: str = "crm1",
        other_node: str = "crm2",
        kind: str = "rhino",
        device: str = "/dev/ttyUSB0",
        ptmx: str = "/dev/ptmx",
    ) -> None:
        self.card_node = card_node
        self.other_node = other_node
        self.device = device
        self._ptmx = ptmx
        self._card = KINDS[kind](self._note)
        self._powered = False
        self._plugged = True
        self._init_pid: int | None = None
        self._pty: Pty | None = None
        self._last_number: int | None = None
        self._history: list[tuple[float, str]] = []
        self._note()

    @property
    def master(self) -> int | None:
        """The descriptor to wait for, while the card is reachable."""
        return self._pty.master if self._pty else None

    def power_on(self, init_pid: int | None = None) -> None:
        """The node has booted; ``init_pid`` is its init as this machine sees it.

        None: no container, the pty is this machine's. The relay keeps its position
        unless ``power_off`` came before: a warm reboot does not cut USB power.
        """
        self._disconnect()
        self._powered, self._init_pid = True, init_pid
        self._connect()

    def power_off(self) -> None:
        """The node has lost its power, and the card with it."""
        self._powered = False
        self._disconnect()
        self._card.lose_power()
        self._note()

    def unplug(self) -> None:
        """Pull the card's USB plug."""
        self._plugged = False
        self._disconnect()
        self._card.lose_power()
        self._note()

    def plug(self) -> None:
        """Put it back in; the relay starts off."""
        self._plugged = True
        if self._pty is None:
            self._connect()

    def swap_card(self, kind: str) -> None:
        """Unplug the card and plug in one of another kind, in working order."""
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}: must be one of {', '.join(KINDS)}")
        self.unplug()
        self._card = KINDS[kind](self._note)
        self.plug()

    def break_card(self, fault: str = "mute") -> None:
        """From now on the card is there and of no use; see FAULTS."""
        if fault not in FAULTS:
            raise ValueError(f"fault {fault!r}: must be one of {', '.join(FAULTS)}")
        self._card.fault = fault

    def mend_card(self) -> None:
        """Undo ``break_card``; the relay is where it was left."""
        self._card.fault = ""

    def line_goes_to(self) -> str:
        """The node that a call on the line would reach."""
        return self.card_node if self._card.relay else self.other_node

    def history(self) -> list[tuple[float, str]]:
        """Every change: seconds of CLOCK_MONOTONIC, and the node from then on."""
        return list(self._history)

    def port(self) -> str:
        """The pty behind the device, as the node sees it; "" when unreachable."""
        return f"/dev/pts/{self._pty.number}" if self._pty else ""

    # What is below is not for the socket.

    def readable(self) -> None:
        """The node has sent something."""
        if self._pty is None:
            return
        try:
            data = os.read(self._pty.master, 4096)
            if data:
                os.write(self._pty.master, self._card.feed(data))
        except BlockingIOError:
            pass  # nobody reads the answers: they are lost, as on a wire
        except OSError:
            self._disconnect()  # hung up from inside the node; ``plug`` mends it

    def close(self) -> None:
        self._disconnect()

    def _connect(self) -> None:
        if not (self._powered and self._plugged):
            return
        root, ptmx = "", self._ptmx
        if self._init_pid:
            root = f"/proc/{self._init_pid}/root"
            ptmx = f"{root}/dev/pts/ptmx"
        # Not the last one's number: a device that comes back is another device.
        self._pty = Pty(ptmx, root, self.device, self._last_number)
        self._last_number = self._pty.number

    def _disconnect(self) -> None:
        if self._pty is not None:
            self._pty.close()
            self._pty = None

    def _note(self) -> None:
        node = self.line_goes_to()
        if not self._history or self._history[-1][1] != node:
            self._history.append((time.monotonic(), node))


ASKABLE = (
    *("power_on", "power_off", "unplug", "plug", "swap_card", "break_card", "mend_card"),
    *("line_goes_to", "history", "port"),
)


class Server:
    """One thread: the card's pty and the Unix socket, each waited for, none polled."""

    def __init__(self, switch: LineSwitch, socket_path: str) -> None:
        self._switch = switch
        self._path = socket_path
        self._selector = selectors.DefaultSelector()
        self._watched: int | None = None
        self._running = True
        # A killed one leaves its socket's name behind.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(socket_path)
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        # A signal must wake the selector, not interrupt an answer.
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ, self.stop)

    def stop_at_signals(self) -> None:
        """End at SIGTERM and SIGINT. Only from the main thread."""
        signal.set_wakeup_fd(self._waker)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Serve until stopped; leaves no device, socket or descriptor behind."""
        try:
            while self._running:
                self._watch()
                for key, _ in self._selector.select():
                    key.data()
        finally:
            self._switch.close()
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self._selector.close()
            os.close(self._wake)
            os.close(self._waker)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _watch(self) -> None:
        """Wait for the pty that there is now."""
        master = self._switch.master
        if self._watched is None and master is not None:
            self._selector.register(master, selectors.EVENT_READ, self._card_speaks)
            self._watched = master

    def _card_speaks(self) -> None:
        self._unwatch()
        self._switch.readable()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        stream = connection.makefile("rb")

        def talk() -> None:
            try:
                line = stream.readline()
            except OSError:
                line = b""  # gone without reading the last answer
            if line:
                with contextlib.suppress(OSError):
                    connection.sendall(self._answer(line))
                return
            self._selector.unregister(connection)
            stream.close()
            connection.close()

        self._selector.register(connection, selectors.EVENT_READ, talk)

    def _answer(self, line: bytes) -> bytes:
        answer: dict[str, Any] = {"ok": True}
        try:
            asked = json.loads(line)
            name = asked.pop("do")
            if name == "quit":
                self.stop()
            elif name in ASKABLE:
                # The pty may change: unregister it while its number still means it.
                self._unwatch()
                answer["result"] = getattr(self._switch, name)(**asked)
            else:
                raise ValueError(f"there is {', '.join(ASKABLE)} and quit")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
            answer = {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return json.dumps(answer).encode() + b"\n"

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._selector.unregister(self._watched)
            self._watched = None


class LineSwitchClient:
    """Asks a running line switch. Each method is LineSwitch's of the same name.

    Raises OSError when nobody listens at the socket or answers within
    ANSWER_SECONDS, RuntimeError with the switch's words when it refuses.
    """

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def ask(self, name: str, **arguments: object) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(self.socket_path)
            connection.sendall(json.dumps({"do": name, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        if not line:
            raise ConnectionError(f"the line switch at {self.socket_path} hung up")
        answer = json.loads(line)
        if not answer["ok"]:
            raise RuntimeError(answer["error"])
        return answer.get("result")

    def power_on(self, init_pid: int | None = None) -> None:
        self.ask("power_on", init_pid=init_pid)

    def power_off(self) -> None:
        self.ask("power_off")

    def unplug(self) -> None:
        self.ask("unplug")

    def plug(self) -> None:
        self.ask("plug")

    def swap_card(self, kind: str) -> None:
        self.ask("swap_card", kind=kind)

    def break_card(self, fault: str = "mute") -> None:
        self.ask("break_card", fault=fault)

    def mend_card(self) -> None:
        self.ask("mend_card")

    def line_goes_to(self) -> str:
        return str(self.ask("line_goes_to"))

    def history(self) -> list[tuple[float, str]]:
        return [(float(when), str(node)) for when, node in self.ask("history")]

    def port(self) -> str:
        return str(self.ask("port"))

    def quit(self) -> None:
        self.ask("quit")


def start_line_switch(
    socket_path: str,
    *,
    card_node: str = "crm1",
    other_node: str = "crm2",
    kind: str = "rhino",
    device: str = "/dev/ttyUSB0",
) -> int:
    """Start the process, wait until it can be asked, and return its pid.

    It outlives its parent, as the lab does between two commands: whoever starts it
    ends it, by a signal or ``quit``. Raises RuntimeError when it does not start.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-I", os.path.abspath(__file__), "--socket", socket_path, "serve"),
            *("--card-node", card_node, "--other-node", other_node),
            *("--kind", kind, "--device", device),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # It outlives its parent: whoever reads the parent's output must see its end.
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        said = process.stdout.readline() if selector.select(READY_SECONDS) else ""
    if said != "ready\n":
        process.kill()
        process.wait()
        raise RuntimeError(f"the line switch at {socket_path} did not start: {said!r}")
    _started.append(process)
    return process.pid


# Held, or Python would complain that a running process is dropped.
_started: list[subprocess.Popen[str]] = []


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(argv)
    if given.action == "ask":
        if given.argument and given.name not in ARGUMENTS:
            parser.error(f"{given.name} takes no argument")
        return _ask(given)
    switch = LineSwitch(
        given.card_node, given.other_node, given.kind, given.device, given.ptmx
    )
    server = Server(switch, given.socket)
    server.stop_at_signals()
    print("ready", flush=True)
    server.run()
    return 0


# What the one argument of ``ask`` means.
ARGUMENTS = {"power_on": "init_pid", "break_card": "fault", "swap_card": "kind"}


def _ask(given: argparse.Namespace) -> int:
    arguments: dict[str, object] = {}
    if given.argument:
        value = given.argument
        arguments[ARGUMENTS[given.name]] = int(value) if value.isdecimal() else value
    try:
        result = LineSwitchClient(given.socket).ask(given.name, **arguments)
    except (OSError, RuntimeError) as problem:
        print(f"lineswitch: {problem}", file=sys.stderr)
        return 1
    if isinstance(result, list):
        print("\n".join(f"{when:.3f} {node}" for when, node in result))
    elif result:
        print(result)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 tests/lab/lineswitch.py",
        description="Stands in for the relay card that moves the telephone line.",
    )
    parser.add_argument("--socket", required=True, help="Unix socket it is asked at")
    actions = parser.add_subparsers(dest="action", required=True, metavar="serve|ask")
    serve = actions.add_parser("serve", help="be the card until told to end")
    serve.add_argument("--kind", choices=KINDS, default="rhino")
    serve.add_argument("--card-node", default="crm1", help="the node that powers it (crm1)")
    serve.add_argument("--other-node", default="crm2", help="the other one (crm2)")
    serve.add_argument("--device", default="/dev/ttyUSB0", help="its name in the node")
    serve.add_argument("--ptmx", default="/dev/ptmx", help="for power_on without a container")
    ask = actions.add_parser("ask", help="ask a running one")
    ask.add_argument("name", choices=(*ASKABLE, "quit"))
    ask.add_argument(
        "argument", nargs="?", help="init pid of power_on, fault of break_card, kind of swap_card"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
