"""The second node's way in: the conversation, the change of the cluster, both sides."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asha.bootstrap import facts
from asha.bootstrap.join import client, nodelist, protocol
from asha.bootstrap.join import server as server_join
from asha.bootstrap.join.protocol import Session, WireError, WrongSecret
from asha.bootstrap.join.server import Listener, open_socket
from asha.cluster import corosync
from asha.cluster import site as conf
from asha.cluster.cib import MARKER, RHINO_PROGRAM
from asha.cluster.secret import Secret
from asha.cluster.site import Relay, Site
from asha.commands import remove_node
from asha.errors import UserError
from asha.run.deadline import Deadline
from tests.fakes.machine import FakeMachine, Outcome

SECRET = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))
FIRST = """\
# The site.
PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
ANODELAN=192.168.1.11
BNODENAME=crm2
BNODEIP=10.0.3.252
DRBDDEV=/dev/sda5
"""
SECOND = FIRST.replace("PRIMARY=true", "PRIMARY=false").replace(
    "ANODELAN=192.168.1.11", "BNODELAN=192.168.1.12"
)


# What stands for the cluster link here.
LOOPBACK = {"10.0.3.251": "127.0.0.1", "10.0.3.252": "127.0.0.2", "10.0.3.253": "127.0.0.3"}
LINK = {loopback: address for address, loopback in LOOPBACK.items()}


class LinkSocket(socket.socket):
    """Of the joining node: the cluster link is the loopback."""

    def bind(self, address: Any) -> None:
        super().bind((LOOPBACK.get(address[0], address[0]), address[1]))

    def connect(self, address: Any) -> None:
        super().connect((LOOPBACK.get(address[0], address[0]), address[1]))


class Cluster:
    """Corosync and Pacemaker of a running node, as far as their programs show it."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.running = machine.read(corosync.CONF) or ""
        self.is_quorate = True
        self.loses_quorum = False
        self.refuses = False
        self.quorum_seen: list[bool] = []
        self.members = {1: "r(0) ip(10.0.3.251)"}
        self.up = True
        machine.on("corosync-quorumtool -s", self._quorum)
        machine.on("corosync-cfgtool -R", self._reload)
        machine.on("corosync-cmapctl nodelist.node.", self._nodelist)
        machine.on("corosync-cmapctl runtime.members.", self._members)
        machine.on("crm_node -R")
        self.disk = "UpToDate"
        machine.on("modinfo").on("drbdsetup")
        machine.on("drbdadm role", "Primary/Unknown\n").on("drbdadm cstate", "WFConnection\n")
        machine.on("drbdadm dstate asha", lambda argv, stdin: f"{self.disk}/DUnknown\n")

    @property
    def names(self) -> list[str]:
        return [node.name for node in corosync.parse(self.running).nodes]

    def _quorum(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        if not self.up:
            return Outcome(code=1, err="Cannot initialize QUORUM service")
        word = "Yes" if self.is_quorate else "No"
        return Outcome(f"Quorate:          {word}\n", code=0 if self.is_quorate else 2)

    def _reload(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        if self.refuses:
            return Outcome(code=1, err="Could not reload configuration")
        self.running = self.machine.read(corosync.CONF) or ""
        two = len(self.names) == 2
        self.is_quorate = not (self.loses_quorum and two) and (self.is_quorate or not two)
        self.quorum_seen.append(self.is_quorate)
        return Outcome("Done\n")

    def _nodelist(self, argv: tuple[str, ...], stdin: str | None) -> str:
        return "".join(f"nodelist.node.{i}.name (str) = {name}\n"
                       for i, name in enumerate(self.names))

    def _members(self, argv: tuple[str, ...], stdin: str | None) -> str:
        return "".join(
            f"runtime.members.{number}.config_version (u64) = 0\n"
            f"runtime.members.{number}.ip (str) = {ip} \n"
            f"runtime.members.{number}.status (str) = joined\n"
            for number, ip in self.members.items()
        )


class Node:
    """The first node with its listener, on loopback."""

    def __init__(self, root: Path) -> None:
        self.machine = FakeMachine(root)
        self.machine.put(conf.CONF, FIRST).put(MARKER)
        self.machine.put(corosync.CONF, corosync.render(self.site, joined=False))
        self.machine.on("systemctl start --no-block asha-network.service")
        self.machine.on("systemctl is-active firewalld.service", Outcome("inactive", 3))
        self.machine.on("crm_attribute")
        self.cluster = Cluster(self.machine)
        self.secret = SECRET
        self.log: list[str] = []
        self.busy = False
        self.port = 0
        self.attended = threading.Semaphore(0)
        self.listener = Listener(self.machine, lambda: (self.site, self.secret), self._alone,
                                 self.log.append)

    @property
    def site(self) -> Site:
        return conf.parse(self.machine.read(conf.CONF) or "")

    @property
    def conf(self) -> str:
        return self.machine.read(corosync.CONF) or ""

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self.busy:
            raise UserError("another asha install is running on this machine")
        yield


@pytest.fixture(autouse=True)
def _link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", LinkSocket)


@pytest.fixture
def first(tmp_path: Path) -> Node:
    return Node(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> FakeMachine:
    machine = FakeMachine(tmp_path / "second").put(conf.CONF, SECOND)
    machine.on("corosync-quorumtool -s", Outcome(code=1)).on("corosync-cmapctl", Outcome(code=1))
    return machine


@pytest.fixture
def serving(first: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """The first node's listener serves, on a free port."""
    server = open_socket("127.0.0.1", 0)
    first.port = server.getsockname()[1]
    monkeypatch.setattr("asha.bootstrap.join.client.JOIN_PORT", first.port)
    with background(lambda: serve(first, server)):
        yield first
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
    server.close()


def serve(node: Node, server: socket.socket) -> None:
    while True:
        try:
            channel, (address, _) = server.accept()
        except OSError:
            return
        with channel:
            node.listener.attend(channel, LINK[address])
        node.attended.release()


@contextlib.contextmanager
def background(work: Callable[[], None]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def corosync_runs(second: FakeMachine, *quorum: str, name: str = "crm2") -> None:
    answers = [Outcome(f"Quorate:          {word}\n", 0 if word == "Yes" else 2)
               for word in quorum]
    second.on("corosync-quorumtool -s", answers).on("corosync-cfgtool -R")
    second.on("corosync-cmapctl nodelist.node.", f"nodelist.node.0.name (str) = {name}\n")


def site2() -> Site:
    return conf.parse(SECOND)


def do_join(second: FakeMachine, secret: Secret = SECRET, text: str = "") -> list[str]:
    said: list[str] = []
    [action] = client.actions(conf.parse(text or SECOND), secret)
    action.do(second, said.append)
    return said


# The conversation.

class Pair:
    """Both ends of a wire, and what each end has to say about the other's beginning."""

    def __init__(self, key: bytes = b"k" * 32, other: bytes = b"k" * 32) -> None:
        one, two = socket.socketpair()
        self.joiner, self.listener = Session(one, Deadline(5)), Session(two, Deadline(5))
        self.channels = one, two
        self.trouble: list[BaseException] = []

        def listen() -> None:
            try:
                self.listener.listen(other, "crm1")
            except WireError as problem:
                self.trouble.append(problem)

        with background(listen):
            try:
                self.joiner.join(key, "crm2")
            except WireError as problem:
                self.trouble.append(problem)


def test_both_know_each_other_and_talk() -> None:
    pair = Pair()
    assert not pair.trouble
    assert (pair.joiner.peer, pair.listener.peer) == ("crm1", "crm2")
    for n in range(3):
        pair.joiner.say({"n": n})
        assert pair.listener.hear() == {"n": n}
        pair.listener.say({"back": n})
        assert pair.joiner.hear() == {"back": n}


def test_another_secret_is_noticed_by_both() -> None:
    trouble = Pair(other=b"x" * 32).trouble
    assert [type(one) for one in trouble] == [WrongSecret, WrongSecret]


def test_every_conversation_has_a_key_of_its_own() -> None:
    first, second = Pair(), Pair()
    first.joiner.say({"do": "join"})
    line = first.channels[1].recv(4096)
    second.channels[0].sendall(line)
    with pytest.raises(WireError, match="changed on its way"):
        second.listener.hear()


def spoilt(how: Callable[[bytes], bytes]) -> Any:
    pair = Pair()
    pair.joiner.say({"do": "one"})
    sent = pair.channels[1].recv(4096)
    pair.channels[0].sendall(how(sent))
    pair.channels[0].shutdown(socket.SHUT_WR)
    return pair.listener.hear()


def test_what_is_not_spoilt_is_heard() -> None:
    assert spoilt(lambda line: line) == {"do": "one"}


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda line: line.replace(b"one", b"two"), "changed on its way"),
        (lambda line: b"0" * 64 + line[64:], "changed on its way"),
        (lambda line: line[65:], "changed on its way"),
        (lambda line: line[:-5], "hung up in the middle"),
        (lambda line: b"", "hung up"),
        (lambda line: b"x" * (protocol.LINE_MOST + 8192), "too long"),
        (lambda line: b"\n" + line, "changed on its way"),
    ],
)
def test_spoilt_lines_are_refused(how: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(WireError, match=why):
        spoilt(how)


def test_said_twice_or_reflected_is_refused() -> None:
    pair = Pair()
    pair.joiner.say({"do": "one"})
    line = pair.channels[1].recv(4096)
    pair.channels[0].sendall(line + line)
    assert pair.listener.hear() == {"do": "one"}
    with pytest.raises(WireError, match="said before"):
        pair.listener.hear()
    pair.channels[1].sendall(line)
    with pytest.raises(WireError, match="changed on its way"):
        pair.joiner.hear()


def test_out_of_order_is_refused() -> None:
    pair = Pair()
    pair.joiner.say({"n": 0})
    pair.joiner.say({"n": 1})
    zero, one, _ = pair.channels[1].recv(4096).split(b"\n")
    pair.channels[0].sendall(one + b"\n" + zero + b"\n")
    with pytest.raises(WireError):
        pair.listener.hear()


def test_a_silent_visitor_is_sent_away_in_time() -> None:
    one, two = socket.socketpair()
    with one, two:
        one.sendall(b'{"asha"')
        with pytest.raises(WireError, match="took too long"):
            Session(two, Deadline(0.05)).listen(b"k" * 32, "crm1")


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"GET / HTTP/1.0",
        b"null",
        b"[" * 200,
        b"\xff\xfe",
        b'{"asha": 2, "node": "crm2", "nonce": "' + b"0" * 64 + b'"}',
        b'{"asha": 1, "node": "a\\nb", "nonce": "' + b"0" * 64 + b'"}',
        b'{"asha": 1, "node": 7, "nonce": "' + b"0" * 64 + b'"}',
        b'{"asha": 1, "node": "crm2", "nonce": "' + b"0" * 63 + b'"}',
        b'{"asha": 1, "node": "crm2", "nonce": "' + b"0" * 65 + b'"}',
        b'{"asha": 1, "node": "crm2"}',
        b'{"asha": 1, "pad": "' + b"x" * protocol.HELLO_MOST + b'"}',
        b"1" * 5000,
    ],
)
def test_strangers_hellos_are_refused(hello: bytes) -> None:
    one, two = socket.socketpair()
    with one, two:
        one.sendall(hello + b"\n")
        with pytest.raises(WireError):
            Session(two, Deadline(5)).listen(b"k" * 32, "crm1")


def test_nothing_secret_is_on_the_wire(serving: Node, second: FakeMachine,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []
    send = Session._send

    def listening(self: Session, line: bytes) -> None:
        said.append(line)
        send(self, line)

    monkeypatch.setattr(Session, "_send", listening)
    do_join(second)
    text = b"\n".join(said).decode()
    assert "10.0.3.252" in text
    for hidden in (SECRET.typed, SECRET.join_key().hex(), SECRET.corosync_authkey(), SECRET.drbd(),
                   SECRET.ami()):
        assert hidden not in text
        assert all(hidden not in line for line in serving.log)


# The listener.

def visit(port: int, junk: bytes) -> None:
    """Say it and wait until the listener hangs up."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as visitor,
        contextlib.suppress(OSError),  # it may hang up first
    ):
        visitor.sendall(junk)
        visitor.shutdown(socket.SHUT_WR)
        while visitor.recv(4096):
            pass


def test_random_visitors_leave_it_serving(serving: Node, second: FakeMachine) -> None:
    dice = random.Random(5409)
    good = json.dumps({"asha": 1, "node": "crm2", "nonce": "0" * 64}).encode()
    for _ in range(200):
        length = dice.choice((0, 1, 70, 300, 5000))
        junk = dice.choice((b"", good + b"\n")) + dice.randbytes(length) + dice.choice((b"", b"\n"))
        visit(serving.port, junk)
    assert corosync.parse(serving.conf).nodes[0].name == "crm1"
    assert len(corosync.parse(serving.conf).nodes) == 1
    assert all(line.isprintable() for line in serving.log)
    do_join(second)
    assert len(corosync.parse(serving.conf).nodes) == 2


def test_the_listener_survives_an_error_of_ours(serving: Node, second: FakeMachine,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, object]:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(facts, "shared_facts", broken)
    with pytest.raises(UserError, match="cannot be understood: hung up"):
        client.ask_facts(site2(), SECRET, {}, 5, nic_with_address(second))
    assert "ZeroDivisionError" in serving.log[-1]
    monkeypatch.setattr(facts, "shared_facts", lambda machine, site, here: {"name": site.here.name})
    assert client.ask_facts(site2(), SECRET, {}, 5, second)["name"] == "crm1"


def test_turned_away_visitors_cost_a_pause(first: Node) -> None:
    one, two = socket.socketpair()
    with one, two:
        one.sendall(b"hello\n")
        first.listener.attend(two, "10.0.3.252")
    assert first.machine.clock == server_join.PAUSE_SECONDS
    assert first.log == ["10.0.3.252: turned away: not a message"]


# Asking.

def nic_with_address(machine: FakeMachine, address: str = "10.0.3.252", up: bool = True
                     ) -> FakeMachine:
    info = [{"family": "inet", "local": address, "prefixlen": 24, "scope": "global"}]
    machine.on("ip -json", json.dumps([{
        "ifname": "eth1", "link_type": "ether", "flags": ["UP"] if up else [],
        "address": "00:11:22:33:44:55", "addr_info": info if address else [],
    }]))
    return machine.on("ip address").on("ip link")


def test_facts_come_with_our_own_clock(serving: Node, second: FakeMachine,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "shared_facts", lambda machine, site, here: {"name": site.here.name})
    monkeypatch.setattr("asha.bootstrap.join.client.time.time", lambda: 12.5)
    told = client.ask_facts(site2(), SECRET, {"name": "crm2"}, 5, nic_with_address(second))
    assert told == {"name": "crm1", "received": 12.5}
    assert second.ran("ip address") == []


def test_a_bare_nic_is_lent_the_address_and_gets_it_taken_back(
    serving: Node, second: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "shared_facts", lambda *_: {})
    client.ask_facts(site2(), SECRET, {}, 5, nic_with_address(second, "", up=False))
    assert second.lines[1:] == [
        "ip address add 10.0.3.252/24 dev eth1",
        "ip link set dev eth1 up",
        "ip address del 10.0.3.252/24 dev eth1",
        "ip link set dev eth1 down",
    ]
    serving.secret = OTHER
    second.calls.clear()
    with pytest.raises(UserError):
        client.ask_facts(site2(), SECRET, {}, 5, second)
    assert second.lines[-1] == "ip link set dev eth1 down"


def test_nobody_listens(second: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr("asha.bootstrap.join.client.JOIN_PORT", closed.getsockname()[1])
        with pytest.raises(UserError, match="refused the connection") as trouble:
            do_join(second)
    assert "systemctl status asha-join" in trouble.value.hint


def test_no_address_and_no_answer(second: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: socket.socket, address: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "bind", absent)
        with pytest.raises(UserError, match=re.escape("eth1 does not have this node's address")):
            do_join(second)

    def silent(self: socket.socket, address: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", silent)
    with pytest.raises(UserError, match=re.escape("crm1 does not answer at 10.0.3.251")) as trouble:
        do_join(second)
    assert "cable in eth1" in trouble.value.hint


def test_wrong_secret_is_told_in_one_line_and_changes_nothing(
    serving: Node, second: FakeMachine
) -> None:
    before = serving.conf
    with pytest.raises(UserError) as trouble:
        do_join(second, OTHER)
    assert str(trouble.value) == "the secret is not the one of crm1"
    assert serving.conf == before
    assert not second.exists(corosync.CONF)
    assert serving.attended.acquire(timeout=5)
    assert serving.log == ["10.0.3.252: turned away: crm2 does not have the cluster secret"]
    assert serving.machine.clock == server_join.PAUSE_SECONDS


# Joining.

def test_joins(serving: Node, second: FakeMachine) -> None:
    [action] = client.actions(site2(), SECRET)
    assert not action.is_done(second)
    said = do_join(second)
    assert said == ["asking crm1"]
    assert action.is_done(second)
    assert serving.cluster.names == ["crm1", "crm2"]
    assert serving.cluster.quorum_seen == [True]
    # Both ends are static, so that there is a second link; both know, and agree.
    assert serving.site.second_ring
    both = conf.parse(second.read(conf.CONF) or "")
    assert (both.first, both.second) == (serving.site.first, serving.site.second)
    given = second.read(corosync.CONF) or ""
    assert given == corosync.render(both, joined=True)
    assert "wait_for_all" not in given
    assert second.read(corosync.AUTHKEY) == SECRET.corosync_authkey()
    assert second.path(corosync.AUTHKEY).stat().st_mode & 0o777 == 0o400
    assert (serving.machine.read(conf.CONF) or "").startswith("# The site.\n")
    # The second ring's port is opened by a unit that may.
    assert serving.machine.ran("systemctl start --no-block asha-network.service")


@pytest.mark.parametrize("holder", ["crm1", "crm2"])
def test_both_know_whose_card_moves_the_line(
    serving: Node, second: FakeMachine, holder: str
) -> None:
    card = "RHINOSPF=YES\nRHINOUSB=/dev/serial/by-id/usb-1\nRELAYDRIVER=numato\nRELAYNUMBER=3\n"
    serving.machine.put(conf.CONF, FIRST + (card if holder == "crm1" else ""))
    text = SECOND + (card if holder == "crm2" else "RHINOSPF=NO\nRHINOUSB=/dev/ttyUSB0\n")
    second.put(conf.CONF, text)
    do_join(second, text=text)
    for machine in (serving.machine, second):
        relay = conf.parse(machine.read(conf.CONF) or "").relay
        assert relay == Relay("numato", "/dev/serial/by-id/usb-1", 3, RHINO_PROGRAM, holder)


@pytest.mark.parametrize("told", [
    None, {}, {"RELAYNODE": "crm1"},
    {"RHINOUSB": "/dev/tty\nIP=1", "RELAYDRIVER": "rhino", "RELAYNUMBER": "0",
     "RELAYPROGRAM": "/p", "RELAYNODE": "crm1"},
    {"RHINOUSB": "/dev/../x", "RELAYDRIVER": "rhino", "RELAYNUMBER": "0",
     "RELAYPROGRAM": "/p", "RELAYNODE": "crm1"},
    {"RHINOUSB": "/dev/ttyUSB0", "RELAYDRIVER": "rhino", "RELAYNUMBER": "many",
     "RELAYPROGRAM": "/p", "RELAYNODE": "crm1"},
    {"RHINOUSB": "/dev/ttyUSB0", "RELAYDRIVER": "rhino", "RELAYNUMBER": "0",
     "RELAYPROGRAM": "/p", "RELAYNODE": "crm2"},
])
def test_a_card_that_cannot_be_is_not_remembered(second: FakeMachine, told: object) -> None:
    second.put(conf.CONF, SECOND)
    nodelist.remember_card(second, site2(), told)
    assert second.read(conf.CONF) == SECOND


def test_asked_again_it_says_yes_again(serving: Node, second: FakeMachine) -> None:
    do_join(second)
    files = [serving.conf, serving.machine.read(conf.CONF), second.read(corosync.CONF)]
    do_join(second)
    assert files == [serving.conf, serving.machine.read(conf.CONF), second.read(corosync.CONF)]
    serving.cluster.members[2] = "r(0) ip(10.0.3.252) r(1) ip(192.168.1.12)"
    serving.machine.calls.clear()
    corosync_runs(second, "Yes")
    do_join(second)
    # It is in the cluster: nothing of it is cleared, nothing is reloaded.
    assert serving.machine.ran("crm_node") == serving.machine.ran("corosync-cfgtool") == []
    assert second.read(corosync.CONF) == files[2]


def test_the_first_starts_alone_until_they_have_met(first: Node) -> None:
    nodelist.add_node(first.machine, first.site, "")
    assert "two_node: 1\n    wait_for_all: 0\n" in first.conf
    assert not nodelist.settle(first.machine, first.site)
    first.listener.tick()
    assert first.log == []
    first.cluster.members[2] = "r(0) ip(10.0.3.252)"
    first.listener.tick()
    assert "wait_for_all" not in first.conf
    assert first.conf == corosync.render(first.site, joined=True)
    assert first.log == ["crm2 has come: from now on neither starts alone"]
    first.listener.tick()
    assert len(first.log) == 1


def test_what_was_set_for_the_old_node_of_that_name_is_cleared(first: Node) -> None:
    nodelist.add_node(first.machine, first.site, "")
    lines = first.machine.lines
    assert lines.index("crm_node -R crm2 --force") < lines.index("corosync-cfgtool -R")


def test_quorum_lost_is_taken_back(first: Node) -> None:
    before = first.conf
    first.cluster.loses_quorum = True
    with pytest.raises(UserError, match="would have cost the quorum and was rolled back"):
        nodelist.add_node(first.machine, first.site, "")
    assert first.conf == before
    assert first.cluster.running == before
    assert first.cluster.quorum_seen == [False, True]


def test_refused_by_corosync_is_taken_back(first: Node) -> None:
    before = first.conf
    first.cluster.refuses = True
    with pytest.raises(UserError, match="Could not reload"):
        nodelist.add_node(first.machine, first.site, "")
    assert first.conf == before


def test_interrupted_is_taken_back(first: Node) -> None:
    before = first.conf

    def interrupted(argv: tuple[str, ...], stdin: str | None) -> str:
        first.machine.on("corosync-cfgtool -R", "Done\n")
        raise KeyboardInterrupt

    first.machine.on("corosync-cfgtool -R", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nodelist.add_node(first.machine, first.site, "")
    assert first.conf == before


def test_a_survivor_that_waits_may_admit_without_quorum(first: Node) -> None:
    first.machine.put(corosync.CONF, corosync.render(first.site, joined=True))
    first.cluster.is_quorate = False
    nodelist.add_node(first.machine, first.site, "")
    assert first.cluster.names == ["crm1", "crm2"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("BNODENAME=crm2", "BNODENAME=crm3", "crm1 says: the joining node is crm2"),
        ("BNODEIP=10.0.3.252", "BNODEIP=10.0.3.253", "crm2 has 10.0.3.252 in crm1's asha.conf"),
        ("CLUSTERIP=192.168.1.90", "CLUSTERIP=192.168.1.91",
         "CLUSTERIP is 192.168.1.90 on crm1 and '192.168.1.91' here"),
        ("CLUSTERIP", "LANPREFIX=23\nCLUSTERIP", "LANPREFIX is 24 on crm1 and '23' here"),
        ("BNODELAN=192.168.1.12", "BNODELAN=192.168.1.11", "BNODELAN are both 192.168.1.11"),
    ],
)
def test_what_does_not_agree_is_refused(serving: Node, second: FakeMachine,
                                        old: str, new: str, why: str) -> None:
    before = serving.conf
    with pytest.raises(UserError) as trouble:
        do_join(second, text=SECOND.replace(old, new))
    assert why in str(trouble.value)
    assert serving.conf == before
    assert not second.exists(corosync.CONF)


def test_the_node_at_that_address_has_another_name(serving: Node, second: FakeMachine) -> None:
    with pytest.raises(UserError, match=re.escape("10.0.3.251 is crm1, and in asha.conf here")):
        do_join(second, text=SECOND.replace("ANODENAME=crm1", "ANODENAME=crm0"))


def request() -> dict[str, Any]:
    peers = (site2().here, site2().there)
    return {"do": "join", "name": "crm2", "address": "10.0.3.252", "lan": "",
            "ids": {peer.name: peer.nodeid for peer in peers},
            "addresses": {peer.name: peer.address for peer in peers},
            "agree": conf.agreement(site2())}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ids": {"crm1": 2, "crm2": 1}}, "numbers"),
        ({"agree": None}, "CLUSTERIP"),
        ({"lan": 7}, "LAN"),
        ({"name": ["crm2"]}, "joining node"),
        ({"do": "anything"}, "does not know"),
    ],
)
def test_odd_requests_are_refused(first: Node, change: dict[str, Any], why: str) -> None:
    one, two = socket.socketpair()
    with one, two, background(lambda: first.listener.attend(two, "10.0.3.252")):
        talk = Session(one, Deadline(5))
        talk.join(SECRET.join_key(), "crm2")
        talk.say({**request(), **change})
        answer = talk.hear()
    assert answer["ok"] is False
    assert why in answer["reason"]
    assert answer["hint"]


def test_another_source_address_is_refused(first: Node) -> None:
    with pytest.raises(UserError, match=re.escape("speaks from 10.9.9.9")):
        server_join._checked(first.site, request(), "10.9.9.9")
    assert server_join._checked(first.site, request(), "10.0.3.252") == ""


def test_a_node_of_that_name_elsewhere(serving: Node, second: FakeMachine) -> None:
    # At another address; or at the same, while the Corosync of who asks does not run.
    for address in ("10.0.3.9", "10.0.3.252"):
        serving.cluster.members[2] = f"r(0) ip({address})"
        with pytest.raises(UserError, match=re.escape(f"in the cluster already, at {address}")):
            do_join(second)
        assert serving.cluster.names == ["crm1"]


def test_a_node_that_is_not_missed_yet(first: Node) -> None:
    """It was switched off a moment ago; its replacement is quicker than the token."""
    first.cluster.members[2] = "r(0) ip(10.0.3.252)"
    looks = iter((2, 2, 1))

    def missed(argv: tuple[str, ...], stdin: str | None) -> str:
        number = next(looks, 1)
        return (f"runtime.members.{number}.ip (str) = r(0) ip(10.0.3.252)\n"
                f"runtime.members.{number}.status (str) = joined\n")

    first.machine.on("corosync-cmapctl runtime.members.", missed)
    nodelist.add_node(first.machine, first.site, "")
    assert first.machine.ran("crm_node -R crm2 --force")
    assert first.cluster.names == ["crm1", "crm2"]


def test_refused_while_the_first_is_not_ready(serving: Node, second: FakeMachine) -> None:
    serving.busy = True
    with pytest.raises(UserError, match="crm1 says: another asha install is running"):
        do_join(second)
    serving.busy = False
    serving.cluster.up = False
    with pytest.raises(UserError, match="the cluster does not run on crm1") as trouble:
        do_join(second)
    assert trouble.value.hint == "on crm1: systemctl start corosync pacemaker"
    serving.machine.remove(MARKER)
    with pytest.raises(UserError, match="not completely installed"):
        do_join(second)


def test_the_peers_disk_is_told(serving: Node, second: FakeMachine) -> None:
    serving.cluster.disk = "Inconsistent"
    assert do_join(second)[-1] == "crm1's own disk is not UpToDate: see asha status there"


def test_joined_is_not_done_without_quorum(serving: Node, second: FakeMachine) -> None:
    """The other has forgotten this node: what the files say is not enough."""
    do_join(second)
    [action] = client.actions(site2(), SECRET)
    second.on("corosync-quorumtool -s", Outcome("Quorate:          No\n", code=2))
    assert not action.is_done(second)
    second.on("corosync-quorumtool -s", "Quorate:          Yes\n")
    assert action.is_done(second)
    assert not client.actions(site2(), OTHER)[0].is_done(second)


def test_a_running_corosync_is_told_the_new_file(serving: Node, second: FakeMachine) -> None:
    corosync_runs(second, "No", "No", "Yes")
    do_join(second)
    assert second.ran("corosync-cfgtool")
    assert second.clock > 0
    corosync_runs(second, "No")
    with pytest.raises(UserError, match="does not reach it"):
        do_join(second)


def test_debians_own_cluster_is_left_alone(serving: Node, second: FakeMachine) -> None:
    corosync_runs(second, "Yes", name="node1")
    do_join(second)
    assert second.ran("corosync-cfgtool") == []


def test_the_preview_shows_no_secret(second: FakeMachine) -> None:
    [action] = client.actions(site2(), SECRET)
    assert "5409" in action.preview(second)
    assert action.script().endswith("asha step join")
    assert SECRET.corosync_authkey() not in action.preview(second) + action.script()


# Removing.

def with_both(first: Node) -> None:
    first.machine.put(corosync.CONF, corosync.render(first.site, joined=True))
    first.cluster.running = first.conf


def test_forgets(first: Node) -> None:
    with_both(first)
    first.cluster.is_quorate = False  # it was rebooted alone, and waits
    assert not nodelist.is_forgotten(first.machine, first.site)
    nodelist.forget(first.machine, first.site)
    assert first.conf == corosync.render(first.site, joined=False)
    assert first.cluster.is_quorate
    assert nodelist.is_forgotten(first.machine, first.site)
    lines = first.machine.lines
    assert lines.index("corosync-cfgtool -R") < lines.index("crm_node -R crm2 --force")
    first.machine.calls.clear()
    nodelist.forget(first.machine, first.site)
    assert first.machine.ran("corosync-cfgtool") == []


def test_pacemaker_may_still_be_starting(first: Node) -> None:
    with_both(first)
    refused = Outcome(code=102, err="crm_node: Could not purge node crm2: Connection refused")
    first.machine.on("crm_node -R", [refused, refused, ""])
    nodelist.forget(first.machine, first.site)
    first.machine.on("crm_node -R", refused)
    with pytest.raises(UserError, match="Pacemaker does not forget crm2"):
        nodelist.forget(first.machine, first.site)
    assert first.cluster.names == ["crm1"]


def test_a_half_done_removal_is_ended(first: Node) -> None:
    """Cut off between the file and the reload: the file alone is not enough."""
    with_both(first)
    first.machine.put(corosync.CONF, corosync.render(first.site, joined=False))
    nodelist.forget(first.machine, first.site)
    assert first.cluster.names == ["crm1"]


def test_does_not_forget_who_is_there(first: Node) -> None:
    with_both(first)
    first.cluster.members[2] = "r(0) ip(10.0.3.252)"
    with pytest.raises(UserError, match="crm2 is in the cluster"):
        nodelist.forget(first.machine, first.site)
    assert first.cluster.names == ["crm1", "crm2"]


def test_strange_numbers_are_not_touched(first: Node) -> None:
    first.machine.put(corosync.CONF, first.conf.replace("nodeid: 1", "nodeid: 168428283"))
    with pytest.raises(UserError, match="168428283"):
        nodelist.add_node(first.machine, first.site, "")


def test_the_command_refuses_the_wrong_name(first: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remove_node, "load_site", lambda: first.site)
    with pytest.raises(UserError, match="crm1 is this node"):
        remove_node.run(argparse.Namespace(name="crm1", yes=True))
    with pytest.raises(UserError, match="there is no node crm7"):
        remove_node.run(argparse.Namespace(name="crm7", yes=True))


def test_the_command_asks_unless_told_not_to(first: Node, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    with_both(first)
    monkeypatch.setattr(remove_node, "load_site", lambda: first.site)
    monkeypatch.setattr(remove_node, "need_root", lambda what: None)
    monkeypatch.setattr(remove_node, "Machine", lambda: first.machine)
    monkeypatch.setattr(remove_node, "only_one", contextlib.nullcontext)
    monkeypatch.setattr(remove_node, "ask", lambda question: False)
    with pytest.raises(UserError, match="nothing was changed"):
        remove_node.run(argparse.Namespace(name="crm2", yes=False))
    assert first.cluster.names == ["crm1", "crm2"]
    assert remove_node.run(argparse.Namespace(name="crm2", yes=True)) == 0
    assert first.cluster.names == ["crm1"]
    assert "crm2 must be switched off" in capsys.readouterr().out
    assert remove_node.run(argparse.Namespace(name="crm2", yes=True)) == 0
    assert "the cluster has no crm2" in capsys.readouterr().out


def test_lan_addresses_are_remembered_by_name(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).put(conf.CONF, "ANODENAME=b\nBNODENAME=a\nANODELAN = 1.2.3.4\n")
    nodelist.remember(machine, {"a": "1.2.3.5", "b": ""})
    assert machine.read(conf.CONF) == "ANODENAME=b\nBNODENAME=a\nANODELAN=\nBNODELAN=1.2.3.5\n"
