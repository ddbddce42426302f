"""Asking Asterisk through panoramisk: what it counts, and that it can never hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.asterisk.process.proc import Endpoint, Proc, Process
from asha.status import calls
from tests.fakes.asterisk import SAYS, FakeAsterisk

pytest.importorskip("panoramisk")

LIMIT = 0.5
# What one visit may take beyond its limit on a busy machine.
SLACK = 4.0

CHALLENGE = "Response: Success\r\nChallenge: 159243958"
LOGIN = "Response: Success\r\nMessage: Authentication accepted"
REFUSED = "Response: Error\r\nMessage: Authentication failed"
UNKNOWN = "Response: Error\r\nMessage: Invalid/unknown command"

CHANNELS = """Response: Success
EventList: start
Message: Channels will follow

Event: CoreShowChannel
Channel: PJSIP/201-00000001
Duration: 00:01:30

Event: CoreShowChannel
Channel: PJSIP/trunk-00000002
Duration: 01:00:05

Event: CoreShowChannelsComplete
EventList: Complete
ListItems: 2"""
# As Asterisk 16.28 words them.
CONTACTS = """
  Contact:  <Aor/ContactUri..............................> <Hash....> <Status> <RTT(ms)..>
==========================================================================================

  Contact:  201/sip:201@192.168.1.201:5060                 bd7e4d5f53 Avail         0.577
  Contact:  202/sip:202@192.168.1.202:5060;transport=udp   c1f0a3b2d4 Unavail         nan

Objects found: 2

"""
PEERS = """Response: Success
EventList: start
Message: Peer status list will follow

Event: PeerEntry
ObjectName: 203
IPaddress: 192.168.1.203
Status: OK (12 ms)

Event: PeerEntry
ObjectName: 204
IPaddress: -none-
Status: UNKNOWN

Event: PeerlistComplete
EventList: Complete
ListItems: 2"""
REGISTRATIONS = """Response: Success
EventList: start
Message: Following are Events for each Outbound registration

Event: OutboundRegistrationDetail
ObjectName: provider
Status: Registered

Event: OutboundRegistrationDetail
ObjectName: spare
Status: Rejected

Event: OutboundRegistrationDetailComplete
EventList: Complete
Registered: 1
NotRegistered: 1"""
CORE = """Response: Success
CoreStartupDate: 2026-11-22
CoreStartupTime: 14:05:58
CoreCurrentCalls: 3"""

PBX = {
    "Challenge": CHALLENGE,
    "Login": LOGIN,
    "CoreStatus": CORE,
    "CoreShowChannels": CHANNELS,
    "SIPpeers": PEERS,
    "PJSIPShowRegistrationsOutbound": REGISTRATIONS,
    "SIPshowregistry": UNKNOWN,
}
Serve = Callable[[socket.socket], None]


def talker(answers: dict[str, str]) -> Serve:
    """An AMI that says this; what is not in the table it never answers."""

    def serve(caller: socket.socket) -> None:
        caller.sendall(b"Asterisk Call Manager/5.0.4\r\n")
        heard = ""
        while data := caller.recv(65536):
            heard += data.decode()
            while "\r\n\r\n" in heard:
                block, _, heard = heard.partition("\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in block.split("\r\n") if line)
                answer = answers.get(fields["Action"])
                if answer is None:
                    continue
                for message in answer.replace("\r\n", "\n").split("\n\n"):
                    text = f"{message}\nActionID: {fields['ActionID']}\n\n"
                    caller.sendall(text.replace("\n", "\r\n").encode())

    return serve


def me() -> Process:
    process = Proc().process(os.getpid())
    assert process is not None
    return process


@pytest.fixture
def console(tmp_path: Path) -> Iterator[FakeAsterisk]:
    """The control socket; its AMI is not asked."""
    with FakeAsterisk(tmp_path / "run") as fake:
        (fake.folder / f"{SAYS}pjsip-show-contacts").write_text(CONTACTS)
        yield fake


def ask(secret: str, port: int, seconds: float) -> calls.Calls:
    """This process is the Asterisk, and its control socket is beside the secret."""
    run_directory = str(Path(secret).parent / "run")
    return calls.ask(secret, port, seconds, run_directory, me())


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "ami.secret"
    path.write_text("user=asha\nsecret=geheim\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def listen() -> Iterator[Callable[[Serve], int]]:
    opened: list[socket.socket] = []

    def start(serve: Serve) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)

        def accept() -> None:
            try:
                while True:
                    caller, _ = listener.accept()
                    opened.append(caller)
                    threading.Thread(target=attend, args=(caller,), daemon=True).start()
            except OSError:
                return

        def attend(caller: socket.socket) -> None:
            try:
                serve(caller)
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for one in opened:
        one.close()


Listen = Callable[[Serve], int]


def test_everything_is_counted(secret: str, listen: Listen, console: FakeAsterisk) -> None:
    said = ask(secret, listen(talker(PBX)), seconds=10)
    assert said == calls.Calls(
        calls=3, channels=2, longest=3605, registered=3, silent=1, trunks=2, trunks_up=1,
        started="2026-11-22 14:05:58",
    )


def test_an_idle_pbx_with_pjsip_alone(
    secret: str, listen: Listen, console: FakeAsterisk
) -> None:
    (console.folder / f"{SAYS}pjsip-show-contacts").write_text("No objects found.\n")
    answers = PBX | {
        "CoreStatus": "Response: Success\r\nCoreCurrentCalls: 0",
        "CoreShowChannels": CHANNELS.split("\n\n")[0] + "\n\n" + CHANNELS.split("\n\n")[-1],
        "SIPpeers": UNKNOWN,
        "PJSIPShowRegistrationsOutbound": UNKNOWN,
    }
    said = ask(secret, listen(talker(answers)), seconds=10)
    assert (said.calls, said.channels, said.registered, said.trunks) == (0, 0, 0, 0)
    assert said.trouble == ""


def test_part_of_an_answer_is_kept(
    secret: str, listen: Listen, console: FakeAsterisk
) -> None:
    answers = {name: text for name, text in PBX.items() if name != "SIPpeers"}
    begun = time.monotonic()
    seconds = 3.0  # all else must have been answered by then
    said = ask(secret, listen(talker(answers)), seconds=seconds)
    assert time.monotonic() - begun < seconds + SLACK
    assert (said.calls, said.registered, said.trunks) == (3, None, 2)
    assert said.trouble == "Asterisk did not answer in time: SIPpeers"


def test_a_wrong_secret(secret: str, listen: Listen) -> None:
    said = ask(secret, listen(talker({"Challenge": CHALLENGE, "Login": REFUSED})), seconds=10)
    assert said.calls is None
    assert "refuses the manager user asha" in said.trouble
    assert "geheim" not in said.trouble


def test_a_user_without_the_right(secret: str, listen: Listen) -> None:
    denied = dict.fromkeys(calls.ACTIONS, "Response: Error\r\nMessage: Permission denied")
    answers = denied | {"Challenge": CHALLENGE, "Login": LOGIN}
    said = ask(secret, listen(talker(answers)), seconds=10)
    assert "write=reporting" in said.trouble


def accepts_and_is_silent(caller: socket.socket) -> None:
    caller.recv(65536)
    caller.recv(65536)


def hangs_up(caller: socket.socket) -> None:
    caller.sendall(b"Asterisk Call Manager/5.0.4\r\n")
    caller.recv(65536)
    # Not close(): a thread of ours may be reading, which keeps the socket.
    caller.shutdown(socket.SHUT_RDWR)


def babbles(caller: socket.socket) -> None:
    while True:
        caller.sendall(os.urandom(65536))


def stops_after_login(caller: socket.socket) -> None:
    talker({"Challenge": CHALLENGE, "Login": LOGIN})(caller)


@pytest.mark.parametrize(
    "serve", [accepts_and_is_silent, hangs_up, babbles, stops_after_login]
)
def test_never_hangs_and_never_prints(
    secret: str, listen: Listen, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    said = ask(secret, listen(serve), seconds=LIMIT)
    assert time.monotonic() - begun < LIMIT + SLACK
    assert said.calls is None
    assert said.trouble
    assert "\n" not in said.trouble
    assert capfd.readouterr() == ("", "")


def test_nobody_listens(secret: str, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = ask(secret, port, seconds=10)
    assert said.trouble.startswith(f"Asterisk does not listen on manager port {port}: set enabled")
    assert capfd.readouterr() == ("", "")


# Takes the port, greets as AMI does, and prints what it is told.
SQUATTER = """\
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    caller, _ = listener.accept()
    caller.sendall(b"Asterisk Call Manager/5.0.4\\r\\n")
    print(caller.recv(65536), flush=True)
"""


def test_whoever_else_has_the_port_is_told_nothing(secret: str) -> None:
    argv = [sys.executable, "-I", "-c", SQUATTER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as squatter:
        assert squatter.stdout is not None
        try:
            port = int(squatter.stdout.readline())
            said = ask(secret, port, seconds=10)
            assert f"({squatter.pid}) of user " in said.trouble
            assert f"has Asterisk's manager port {port}, so nothing is said to it" in said.trouble
            # Nobody has come before us.
            with socket.create_connection(("127.0.0.1", port)) as own:
                own.sendall(b"own")
                assert squatter.stdout.readline() == "b'own'\n"
        finally:
            squatter.kill()


def test_a_port_that_is_not_asterisks_any_more_is_told_nothing(
    secret: str, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the login: the greeting may be anybody's."""
    told: list[bytes] = []

    def greets(caller: socket.socket) -> None:
        try:
            caller.sendall(b"Asterisk Call Manager/5.0.4\r\n")
            told.append(caller.recv(65536))
        except ConnectionError:  # hung up on before it has read
            told.append(b"")

    port = listen(greets)
    monkeypatch.setattr(Endpoint, "is_held", False)
    said = ask(secret, port, seconds=10)
    assert "is not Asterisk's any more" in said.trouble
    deadline = time.monotonic() + 30
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told == [b""]


def test_the_secret_is_never_sent(secret: str, listen: Listen) -> None:
    heard: list[bytes] = []

    class Watched:
        """A socket that remembers what came."""

        def __init__(self, true: socket.socket) -> None:
            self.sendall = true.sendall
            self._true = true

        def recv(self, size: int) -> bytes:
            data = self._true.recv(size)
            heard.append(data)
            return data

    port = listen(lambda caller: talker(PBX)(Watched(caller)))  # type: ignore[arg-type]
    assert ask(secret, port, seconds=10).calls == 3
    sent = b"".join(heard)
    assert b"Action: Login" in sent
    assert b"Key: " in sent
    assert b"geheim" not in sent


def test_a_hang_up_is_seen_at_once(secret: str, listen: Listen) -> None:
    begun = time.monotonic()
    ask(secret, listen(hangs_up), seconds=60)
    assert time.monotonic() - begun < 30


def test_too_much_is_not_taken(
    secret: str, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visit ends long before its time, and memory has a bound."""
    monkeypatch.setattr(calls, "VISIT_MOST", 1 << 20)
    begun = time.monotonic()
    said = ask(secret, listen(babbles), seconds=60)
    assert time.monotonic() - begun < 30
    assert said.calls is None


def test_without_the_secret(tmp_path: Path) -> None:
    said = calls.ask(str(tmp_path / "none"))
    assert "there is no" in said.trouble


def test_a_secret_that_others_read_is_not_used(secret: str, listen: Listen) -> None:
    Path(secret).chmod(0o644)
    said = ask(secret, listen(talker(PBX)), seconds=10)
    assert said.calls is None
    assert "chmod 600" in said.trouble


def test_without_panoramisk(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "panoramisk", None)
    assert "apt install python3-panoramisk" in calls.ask(secret).trouble
