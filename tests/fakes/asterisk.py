"""Fakes for tests: an Asterisk that answers or falls silent part by part, and a /proc.

FakeAsterisk has a control socket, AMI and SIP (UDP and TCP) on loopback. It can be
served by a thread of the test, or run as a process of its own, from a copy of the
Python interpreter under the name of the binary that the agent looks for.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

# Parts that can be silenced. "loading" holds back the word that all modules are
# loaded, "term" makes a process ignore SIGTERM.
CONTROL = "control"
AMI = "ami"
SIP = "sip"
LOADING = "loading"
TERM = "term"
# What AMI does not answer while the lock is held: its action, and the part's name; and the
# console.
LOCKS = {"Getvar": "channels", "ShowDialPlan": "dialplan"}
CONSOLE_LOCKS = {"database put": "astdb"}
# silent-call: a call that is asked for does not end.
CALL = "call"
# silent-astdb-locked: AstDB answers with an error.
ASTDB_LOCKED = "astdb-locked"
# AMI hangs up on such a question, or does not let this user ask it.
HUNG_UP = "hung-up"
FORBIDDEN = "forbidden"
# SIP's TCP connections are taken and closed.
SIP_HANGS_UP = "sip-hangs-up"
# A queue beyond its high-water mark, that moves or that does not; one that was, and is
# not down at its low-water mark yet.
OVERLOAD = "overload"
STUCK = "stuck"
DRAINING = "draining"
# Its calls were ended; before that it has one.
ENDED_CALLS = "ended-calls"
# A call is refused; one has not ended; call records wait, and are written; nobody keeps
# them; the console has no command to make one.
REFUSES = "refuses"
CALL_LEFT = "call-left"
RECORDS_WAIT = "records-wait"
RECORDS_MOVE = "records-move"
NO_RECORDS = "no-records"
NO_CALLS = "no-calls"
# Files of the folder: the steps of the context that was made, each call, and what it left.
CONTEXT = "context"
CALLS = "calls"
SIGN = "sign"
# The path of its control socket, if it is none of the folder's.
MOVED = "moved"
# And what a console command prints, by its words joined by "-".
SAYS = "says-"

USER = "asha"
SECRET = "geheim"

# The end of that answer is the end of the connection.
LAST_COMMAND = b"cli quit after "

# Seconds between two looks at what is to be silent.
TICK = 0.02
# A file that the server takes away as soon as it heeds all that was there with it.
HEEDED = "heeded"


class FakeAsterisk:
    """The sockets. ``ports`` are those of AMI and SIP.

    Changed while it serves by files in its folder, also from another process:
    silent-PART neither accepts nor reads, as if its thread were stuck; closed-PART
    closes its sockets for good.
    """

    def __init__(
        self, folder: Path, pid: int | None = None, ports: tuple[int, int] | None = None
    ) -> None:
        self.folder = folder
        self.pid = pid or os.getpid()
        # What its control socket says instead of its greeting.
        self.greeting = ""
        folder.mkdir(parents=True, exist_ok=True)
        self.control_path = folder / "asterisk.ctl"
        if (folder / MOVED).exists():
            self.control_path = Path((folder / MOVED).read_text(encoding="utf-8"))
        self._control = socket.socket(socket.AF_UNIX)
        self._parts = {}
        # As the true one, which goes on without.
        with contextlib.suppress(OSError):
            self.control_path.unlink(missing_ok=True)
            self._control.bind(str(self.control_path))
            self._control.listen(10)
            self._parts[self._control] = CONTROL
        self.ami_port, self.sip_port = ports or free_ports()
        self._ami = _bound(socket.SOCK_STREAM, self.ami_port)
        self._sip = _bound(socket.SOCK_DGRAM, self.sip_port)
        self._sip_tcp = _bound(socket.SOCK_STREAM, self.sip_port)
        for listener in (self._ami, self._sip_tcp):
            listener.listen(10)
        (folder / "asterisk.pid").write_text(f"{self.pid}\n")
        self._parts |= {self._ami: AMI, self._sip: SIP, self._sip_tcp: SIP}
        self._callers: dict[socket.socket, tuple[str, bytes]] = {}
        self._challenges: dict[socket.socket, str] = {}
        self._processed = 1000
        self._written = 25
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        what: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join(timeout=5)
        self.close()

    def silence(self, part: str) -> None:
        silence(self.folder, part)

    def speak(self, part: str) -> None:
        (self.folder / f"silent-{part}").unlink(missing_ok=True)

    def close_part(self, part: str) -> None:
        close(self.folder, part)

    def close(self) -> None:
        for one in (*self._parts, *self._callers):
            one.close()

    def serve(self) -> None:
        heeded = self.folder / HEEDED
        while not self._ending.is_set():
            asked = heeded.exists()
            for listener, part in list(self._parts.items()):
                if (self.folder / f"closed-{part}").exists():
                    del self._parts[listener]
                    listener.close()
            parts = {one: part for one, part in self._parts.items() if not self._silent(part)}
            callers = [one for one, (part, _) in self._callers.items() if not self._silent(part)]
            if asked:
                heeded.unlink()
            ready, _, _ = select.select([*parts, *callers], [], [], TICK)
            for one in ready:
                if one is self._sip:
                    request, address = one.recvfrom(65536)
                    one.sendto(_sip_response(request), address)
                elif one is self._sip_tcp and self._silent(SIP_HANGS_UP):
                    one.accept()[0].close()
                elif one in parts:
                    caller, _ = one.accept()
                    with self._or_gone(caller):
                        self._greet(caller, parts[one])
                else:
                    with self._or_gone(one):
                        self._hear(one)
            self._let_go_loaded()

    def _silent(self, part: str) -> bool:
        return (self.folder / f"silent-{part}").exists()

    @contextlib.contextmanager
    def _or_gone(self, caller: socket.socket) -> Iterator[None]:
        """Who has gone before the answer is no reason to end."""
        try:
            yield
        except ConnectionError:
            self._callers.pop(caller, None)
            caller.close()

    def _greet(self, caller: socket.socket, part: str) -> None:
        self._callers[caller] = (part, b"")
        if part == CONTROL:
            caller.sendall((self.greeting or f"host/{self.pid}/16.28.0\n").encode())
        elif part == AMI:
            caller.sendall(b"Asterisk Call Manager/5.0.4\r\n")

    def _hear(self, caller: socket.socket) -> None:
        part, heard = self._callers[caller]
        data = caller.recv(65536)
        if not data:
            del self._callers[caller]
            caller.close()
            return
        heard += data
        if part == CONTROL and heard.startswith(LAST_COMMAND):
            commands = heard[len(LAST_COMMAND) : -1].decode().split("\0")
            said = [self._console(command) for command in commands]
            if None in said:
                self._callers[caller] = (part, b"held")
                return
            caller.sendall(b"".join(one for one in said if one is not None))
            del self._callers[caller]
            caller.close()
            return
        if part == AMI:
            while b"\r\n\r\n" in heard:
                block, _, heard = heard.partition(b"\r\n\r\n")
                answer = self._greeted_answer(caller, block.decode())
                if answer is None:
                    del self._callers[caller]
                    caller.close()
                    return
                caller.sendall(answer)
        elif part == SIP and b"\r\n\r\n" in heard:
            caller.sendall(_sip_response(heard))
            heard = b""
        self._callers[caller] = (part, heard)

    def _console(self, command: str) -> bytes | None:
        """As Asterisk 16.28 words it; None while a lock is held."""
        file = self.folder / f"{SAYS}{'-'.join(command.split())}"
        if file.exists():
            return file.read_bytes()
        words = command.split()
        name = " ".join(words[:2])
        if name in CONSOLE_LOCKS and self._silent(CONSOLE_LOCKS[name]):
            return None
        if name == "database put":
            done = not self._silent(ASTDB_LOCKED)
            return b"Updated database successfully\n" if done else b"Failed to update entry\n"
        if name == "database get":
            return b"Value: 1\n"
        if command == "core show taskprocessors":
            return self._listing()
        if command == "channel request hangup all":
            (self.folder / ENDED_CALLS).touch()
            return b""
        if command == "core show channels count":
            number = 0 if (self.folder / ENDED_CALLS).exists() else 1
            return f"{number} active channels\n{number} of 600 max active calls\n".encode()
        if not self._silent(NO_CALLS):
            said = self._call(name, words)
            if said is not None:
                return said.encode()
        return f"No such command '{command}' (type 'core show help {command}' ...)\n".encode()

    def _call(self, name: str, words: list[str]) -> str | None:
        """What the call of depth 20 asks for; None for anything else."""
        context, calls, sign = (self.folder / one for one in (CONTEXT, CALLS, SIGN))
        if name == "module show":
            return f"Module ...\n{0 if self._silent(NO_RECORDS) else 1} modules loaded\n"
        if name == "dialplan add":
            with context.open("a", encoding="utf-8") as file:
                file.write(f"{words[3]}\n")
            return f"Extension {words[3]} replace by\n"
        if name == "channel originate":
            if context.exists() and not self._silent(REFUSES):
                with calls.open("a", encoding="utf-8") as file:
                    file.write(f"{' '.join(words[2:])}\n")
                if not self._silent(CALL):
                    sign.write_text(words[4].partition("@")[0], encoding="utf-8")
            return ""
        if name == "local show":
            asked = self._silent(CALL) and calls.exists()
            left = self._silent(CALL_LEFT) or asked
            return "Local/s@asha-heartbeat-00000001;1 -- s@asha-heartbeat\n" if left else (
                "No local channels in use\n")
        if words[2:] == ["asha-heartbeat"]:
            return "  '_k.' =>          1. Set(...)\n" if context.exists() \
                else "There is no existence of 'asha-heartbeat' context\n"
        if name == "dialplan show":
            kept = f"   ASHA_CALL={sign.read_text(encoding='utf-8')}\n" if sign.exists() else ""
            return f"   CONSOLE=Console/dsp\n{kept}\n    -- 2 variable(s)\n"
        return None

    def _greeted_answer(self, caller: socket.socket, block: str) -> bytes | None:
        """A challenge is one session's; the rest is as for any."""
        fields = dict(line.split(": ", 1) for line in block.split("\r\n") if ": " in line)
        if fields.get("Action") == "Challenge":
            self._challenges[caller] = str(random.randrange(10**9))
            identity = fields.get("ActionID", "")
            return (f"Response: Success\r\nActionID: {identity}\r\n"
                    f"Challenge: {self._challenges[caller]}\r\n\r\n").encode()
        if fields.get("Action") == "Login":
            return _login(fields, self._challenges.pop(caller, ""))
        return self._ami_answer(block)

    def _ami_answer(self, block: str) -> bytes | None:
        """None to hang up."""
        fields = dict(line.split(": ", 1) for line in block.split("\r\n") if ": " in line)
        name = fields.get("Action", "")
        if name in LOCKS and self._silent(LOCKS[name]):
            return b""
        if name in LOCKS and self._silent(HUNG_UP):
            return None
        # What AMI's account may not have, whatever it asks.
        if name not in LOCKS or self._silent(FORBIDDEN):
            return _answer(fields, "Error", "Permission denied")
        return _ami_response(fields)

    def _listing(self) -> bytes:
        """core show taskprocessors, with a long queue where the folder has one of these."""
        waiting, moves = 0, 0
        if self._silent(OVERLOAD):
            waiting, moves = 600, 10
        elif self._silent(DRAINING):
            waiting, moves = 470, 10
        elif self._silent(STUCK):
            waiting = 600
        self._processed += moves
        records = 9 if self._silent(RECORDS_WAIT) else 0
        self._written += 50 if self._silent(RECORDS_MOVE) else 0
        rows = (
            "Processor                 Processed   In Queue  Max Depth  Low water High water",
            f"pjsip/distributor-0000001c {self._processed} {waiting} 600 450 500",
            f"stasis/m:cdr:aggregator-00000005 {self._written} {records} 9 4500 5000",
            "1 taskprocessor",
        )
        return "".join(f"{row}\n" for row in rows).encode()

    def _let_go_loaded(self) -> None:
        if self._silent(LOADING):
            return
        for caller, (part, heard) in list(self._callers.items()):
            if part == CONTROL and heard == b"core waitfullybooted\0":
                with self._or_gone(caller):
                    caller.sendall(b"Asterisk has fully booted.\n")
                    self._callers[caller] = (part, b"")


def silence(folder: Path, part: str) -> None:
    """Have the fake of that folder silent there from now on."""
    (folder / f"silent-{part}").touch()
    _wait_until_heeded(folder)


def close(folder: Path, part: str) -> None:
    """Have the fake of that folder close its sockets there."""
    (folder / f"closed-{part}").touch()
    _wait_until_heeded(folder)


def _wait_until_heeded(folder: Path) -> None:
    heeded = folder / HEEDED
    heeded.touch()
    deadline = time.monotonic() + 30
    while heeded.exists():
        assert time.monotonic() < deadline, f"nobody serves {folder}"
        time.sleep(TICK / 4)


# Each of pytest's workers has ports of its own, and gives none again soon: what one has
# found looks free until it is listened on.
_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_OWN_PORTS = range(15000 + _WORKER, 30000, _WORKERS)
_CANDIDATES = itertools.cycle(random.sample(_OWN_PORTS, len(_OWN_PORTS)))


def free_ports() -> tuple[int, int]:
    """Two that are free for UDP and TCP, for AMI and SIP.

    Below those that the kernel gives to whoever connects, or one could be taken
    before it is bound.
    """
    found: list[int] = []
    for port in itertools.islice(_CANDIDATES, len(_OWN_PORTS)):
        try:
            with _bound(socket.SOCK_STREAM, port), _bound(socket.SOCK_DGRAM, port):
                found.append(port)
        except OSError:
            continue
        if len(found) == 2:
            return found[0], found[1]
    raise AssertionError("no free ports")


def _bound(kind: int, port: int) -> socket.socket:
    one = socket.socket(type=kind)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    return one


def _login(fields: dict[str, str], challenge: str) -> bytes:
    """As main/manager.c: MD5 of the challenge and the secret, or the secret itself."""
    key = hashlib.md5((challenge + SECRET).encode(), usedforsecurity=False).hexdigest()
    accepted = fields.get("Username") == USER and (
        fields.get("Secret") == SECRET
        or (fields.get("AuthType") == "MD5" and bool(challenge) and fields.get("Key") == key)
    )
    word = "Success" if accepted else "Error"
    said = "Authentication accepted" if accepted else "Authentication failed"
    event = "Event: SuccessfulAuth\r\nActionID: none\r\n\r\n"
    return event.encode() + _answer(fields, word, said)


def _ami_response(fields: dict[str, str]) -> bytes:
    """As Asterisk 16 words it."""
    name = fields.get("Action", "")
    said = f"Invalid/unknown command: {name}"
    if name == "Getvar":
        said = "No such channel"
    elif name == "ShowDialPlan":
        said = f"Did not find context {fields['Context']}"
    return _answer(fields, "Error", said)


def _answer(fields: dict[str, str], word: str, said: str) -> bytes:
    identity = fields.get("ActionID", "")
    return f"Response: {word}\r\nActionID: {identity}\r\nMessage: {said}\r\n\r\n".encode()


def _sip_response(request: bytes) -> bytes:
    lines = request.decode().split("\r\n")
    kept = [
        line for line in lines if line.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")
    ]
    return "\r\n".join(("SIP/2.0 404 Not Found", *kept, "Content-Length: 0", "", "")).encode()


class FakeProcess:
    """A FakeAsterisk as a process of its own, run from ``binary``."""

    def __init__(self, binary: Path, folder: Path, ports: tuple[int, int]) -> None:
        root = Path(__file__).parents[2]
        code = (
            f"import sys; sys.path.insert(0, {str(root)!r})\n"
            "from tests.fakes.asterisk import run_fake\n"
            f"run_fake({str(folder)!r}, {ports!r})"
        )
        self.popen = subprocess.Popen([str(binary), "-I", "-c", code])
        self.pid = self.popen.pid

    @staticmethod
    def make_binary(folder: Path) -> Path:
        """A program named asterisk whose processes are told from all others."""
        binary = folder / "asterisk"
        shutil.copy(os.path.realpath(sys.executable), binary)
        return binary

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()


def run_fake(folder: str, ports: tuple[int, int]) -> None:
    """Be a fake Asterisk until SIGTERM, which cleans up as the true one does."""
    where = Path(folder)

    def end(*_: object) -> None:
        if (where / f"silent-{TERM}").exists():
            return
        for name in ("asterisk.pid", "asterisk.ctl"):
            (where / name).unlink(missing_ok=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    FakeAsterisk(where, ports=ports).serve()


class FakeProc:
    """A directory that reads like /proc, for states that a test cannot make for real."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.add(1, "systemd", cgroup="/init.scope", parent=0)
        self.add(os.getpid(), "pytest")
        (root / "self").symlink_to(str(os.getpid()))

    def add(
        self,
        pid: int,
        name: str,
        state: str = "S",
        *,
        exe: str = "",
        argv: tuple[str, ...] = (),
        parent: int = 1,
        started: int = 100,
        cgroup: str = "/",
        space: str = "pid:[1]",
        session: int = 0,
        uid: int = 0,
    ) -> None:
        folder = self.root / str(pid)
        (folder / "ns").mkdir(parents=True, exist_ok=True)
        (folder / "fd").mkdir(exist_ok=True)
        (folder / "net").mkdir(exist_ok=True)
        _link(folder / "ns/pid", space)
        if exe:
            _link(folder / "exe", exe)
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        # Of the network that it sees.
        (folder / "net/if_inet6").write_text(f"{1:032x} 01 80 10 80       lo\n")
        users = "\t".join([str(uid)] * 4)
        (folder / "status").write_text(f"Name:\t{name}\nUid:\t{users}\nCoreDumping:\t0\n")
        self.task(
            pid, pid, state, name=name, parent=parent, started=started, session=session
        )

    def task(
        self,
        pid: int,
        tid: int,
        state: str,
        *,
        name: str = "asterisk",
        parent: int = 1,
        started: int = 100,
        switches: int = 5,
        tracer: int = 0,
        where: str = "io_schedule",
        ran: int = 0,
        waited: int = 0,
        realtime: bool = False,
        session: int = 0,
    ) -> None:
        """Add a thread, or change its state. The leader's is the process's own too.

        ``ran`` and ``waited`` are nanoseconds.
        """
        folder = self.root / str(pid) / "task" / str(tid)
        folder.mkdir(parents=True, exist_ok=True)
        fields = [state, parent, 0, session, *[0] * 15, started, *[0] * 18]
        fields += [2 if realtime else 0, *[0] * 11]
        for place in (folder, self.root / str(pid)) if tid == pid else (folder,):
            (place / "stat").write_text(f"{tid} ({name}) {' '.join(map(str, fields))}\n")
        (folder / "wchan").write_text(where)
        (folder / "schedstat").write_text(f"{ran} {waited} 1\n")
        (folder / "status").write_text(
            f"Name:\t{name}\nTracerPid:\t{tracer}\n"
            f"voluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t1\n"
        )

    def socket(
        self, pid: int, protocol: str, local: str, *, queue: int = 0, state: str = "07"
    ) -> None:
        """An open socket; ``local`` as the kernel prints it, 0100007F:13C4."""
        folder = self.root / str(pid)
        table = folder / "net" / protocol
        inode = 7000 + len(list((folder / "fd").iterdir()))
        if not table.exists():
            table.write_text("  sl  local_address rem_address   st tx_queue:rx_queue ...\n")
        line = (
            f"   0: {local} 00000000:0000 {state} 00000000:{queue:08X} "
            f"00:00000000 00000000   102        0 {inode} 2 0 0\n"
        )
        table.write_text(table.read_text() + line)
        _link(folder / "fd" / str(inode), f"socket:[{inode}]")

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
