"""The listener under strangers, and while the cluster secret is changed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.bootstrap.join import rotation, server
from asha.bootstrap.join.protocol import Body, Session, WireError, WrongSecret
from asha.bootstrap.join.server import Listener, open_socket
from asha.cluster import corosync, generation
from asha.cluster import secret as secrets
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.run.deadline import Deadline
from tests.fakes.machine import FakeMachine, Outcome

OLD, NEW, OTHER = (Secret(bytes(range(n, n + 32))) for n in (0, 1, 2))
FIRST = """\
PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
BNODENAME=crm2
BNODEIP=10.0.3.252
USENIC1=true
DRBDDEV=/dev/sda5
"""


class Served:
    """The first node's listener on loopback, with its own loop."""

    def __init__(self, root: Path) -> None:
        self.machine = FakeMachine(root).put(MARKER)
        self.machine.put(conf.CONF, FIRST).put(secrets.PATH, OLD.text, 0o600)
        self.site = conf.parse(FIRST)
        self.machine.put(corosync.CONF, corosync.render(self.site, joined=True))
        self.machine.on("corosync-cmapctl", Outcome(code=1))
        self.log: list[str] = []
        self.server = open_socket("127.0.0.1", 0)
        self.port = self.server.getsockname()[1]
        self.listener = Listener(self.machine, self._load, contextlib.nullcontext, self.log.append)

    def _load(self) -> tuple[Site, Secret]:
        held = generation.current(self.machine)
        assert held is not None
        return self.site, held

    def accept(self) -> None:
        while True:
            try:
                channel, (address, _) = self.server.accept()
            except OSError:
                return
            assert address == "127.0.0.2"
            self.listener.receive(channel, "10.0.3.252")

    def connect(self) -> socket.socket:
        channel = socket.socket()
        channel.bind(("127.0.0.2", 0))
        channel.connect(("127.0.0.1", self.port))
        return channel

    def ask(self, secret: Secret, request: Body, name: str = "crm2") -> Body:
        with self.connect() as channel:
            talk = Session(channel, Deadline(10))
            talk.join(secret.join_key(), name)
            talk.say(request)
            return talk.hear()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path)
    thread = threading.Thread(target=one.accept, daemon=True)
    thread.start()
    yield one
    one.server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive()
    one.server.close()


# Strangers.

@pytest.mark.parametrize("count", [5, 50, 200])
@pytest.mark.parametrize("said", [b"", b'{"asha": 1, "no'])
def test_silent_strangers_hold_nobody_up(served: Served, count: int, said: bytes) -> None:
    with contextlib.ExitStack() as held:
        begun = time.monotonic()
        for _ in range(count):
            held.enter_context(served.connect()).sendall(said)
        assert served.ask(OLD, {"do": "secret"})["id"] == OLD.key_id()
        # A joiner waits for 15 s; the machine may be busy.
        assert time.monotonic() - begun < 10


def test_a_drip_feed_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is not more time."""
    monkeypatch.setattr(server, "PROOF_SECONDS", 0.5)
    with served.connect() as channel:
        channel.settimeout(10)
        dripping = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not dripping.wait(0.05):
                    channel.sendall(b" ")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with contextlib.suppress(ConnectionError):
            while channel.recv(4096):
                pass  # its hello, then the end; TimeoutError without one
        dripping.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("line", [b"x" * 100_000, b"\n" * 100_000, b"{" * 200 + b"\n"])
def test_a_flood_ends(served: Served, line: bytes) -> None:
    with served.connect() as channel, contextlib.suppress(OSError):
        channel.settimeout(10)
        for _ in range(100):
            channel.sendall(line)
    assert served.ask(OLD, {"do": "secret"})["ok"] is True


def test_a_stranger_with_a_good_hello_has_no_more_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROOF_SECONDS", 0.3)
    with served.connect() as channel:
        channel.settimeout(10)
        channel.sendall(b'{"asha": 1, "node": "crm2", "nonce": "' + b"0" * 64 + b'"}\n')
        while channel.recv(4096):
            pass  # its hello, then the end


def test_the_oldest_stranger_goes_and_who_has_proved_stays(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as held:
        proved = held.enter_context(served.connect())
        talk = Session(proved, Deadline(10))
        talk.join(OLD.join_key(), "crm2")
        silent = [held.enter_context(served.connect()) for _ in range(server.PLACES)]
        # The first of them makes room for the last, long before its time is over.
        silent[0].settimeout(server.PROOF_SECONDS)
        while silent[0].recv(4096):
            pass
        talk.say({"do": "secret"})
        assert talk.hear()["ok"] is True


def test_work_is_done_one_at_a_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TURN_SECONDS", 0.1)
    with served.listener._one_at_a_time():
        answer = served.ask(OLD, {"do": "secret"})
    assert answer["ok"] is False
    assert answer["reason"] == "another request is in progress"
    assert served.ask(OLD, {"do": "secret"})["ok"] is True


# The change of the secret.

def test_both_secrets_are_known_while_one_is_changed(served: Served) -> None:
    with pytest.raises(WrongSecret):
        served.ask(NEW, {"do": "secret"})
    served.machine.put(generation.PENDING, NEW.text, 0o600)
    for secret in (OLD, NEW):
        told = served.ask(secret, {"do": "secret"})
        assert (told["id"], told["new"], told["member"]) == (OLD.key_id(), NEW.key_id(), True)
        assert OLD.typed not in str(told)
        assert NEW.typed not in str(told)
    with pytest.raises(WrongSecret):
        served.ask(OTHER, {"do": "secret"})


def test_who_was_removed_has_the_old_secret(served: Served) -> None:
    """Also while the change that ends a removal is not through yet."""
    served.machine.put(corosync.CONF, corosync.render(served.site, joined=False))
    served.machine.put(generation.PENDING, NEW.text, 0o600)
    with pytest.raises(WrongSecret):
        served.ask(OLD, {"do": "join"})
    assert served.ask(NEW, {"do": "secret"})["member"] is False


def test_nobody_joins_while_it_is_changed(served: Served) -> None:
    served.machine.put(generation.PENDING, NEW.text, 0o600)
    site = served.site
    answer = served.ask(NEW, {
        "do": "join", "name": "crm2", "address": "10.0.3.252", "lan": "",
        "ids": {peer.name: peer.nodeid for peer in (site.first, site.second)},
        "addresses": {peer.name: peer.address for peer in (site.first, site.second)},
        "agree": conf.agreement(site),
    })
    assert "is being changed" in answer["reason"]
    assert "asha secret rotate" in answer["hint"]


def test_a_step_is_done_by_a_unit(served: Served) -> None:
    served.machine.put(generation.PENDING, NEW.text, 0o600)
    unit = f"asha-secret@drbd:{NEW.key_id()}.service"
    served.machine.on(f"systemctl start {unit}")
    assert served.ask(NEW, {"do": "rotate", "step": "drbd"}) == {"ok": True}
    served.machine.on(f"systemctl start {unit}", Outcome(code=1, err="Job failed"))
    served.machine.put(rotation.TOLD, "the disk is full\nmake room\n")
    answer = served.ask(NEW, {"do": "rotate", "step": "drbd"})
    assert (answer["reason"], answer["hint"]) == ("the disk is full", "make room")


@pytest.mark.parametrize(
    ("secret", "step", "name", "why"),
    [
        (OLD, "drbd", "crm2", "has no secret"),
        (NEW, "drbd", "crm9", "no member"),
        (NEW, "rm -rf /", "crm2", "does not know"),
        (NEW, None, "crm2", "does not know"),
        (NEW, ["drbd"], "crm2", "does not know"),
    ],
)
def test_steps_that_are_refused(served: Served, secret: Secret, step: object, name: str,
                                why: str) -> None:
    served.machine.put(generation.PENDING, NEW.text, 0o600)
    answer = served.ask(secret, {"do": "rotate", "step": step}, name)
    assert answer["ok"] is False
    assert why in answer["reason"]
    assert served.machine.ran("systemctl") == []


def test_a_node_that_is_no_member_has_nothing_done(served: Served) -> None:
    served.machine.put(corosync.CONF, corosync.render(served.site, joined=False))
    answer = served.ask(OLD, {"do": "rotate", "step": "drbd"})
    assert "no member" in answer["reason"]


def test_what_is_unknown_is_refused(served: Served) -> None:
    for wish in ("anything", 7, None, ["rotate"]):
        assert "does not know" in served.ask(OLD, {"do": wish})["reason"]
    with pytest.raises(WireError):
        served.ask(OLD, {"do": "x" * (1 << 18)})
