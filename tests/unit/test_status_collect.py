"""Gathering a Status, and what lets a node take over, from what the programs print."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asha.asterisk.process.deaths import Deaths
from asha.asterisk.process.deaths import parse as parse_deaths
from asha.cluster import corosync, pacemaker
from asha.cluster.pacemaker import Attribute, Ban, Event, Failure, State
from asha.cluster.secret import PATH, Secret
from asha.cluster.site import parse
from asha.commands import check, online, standby, switchover
from asha.errors import UserError
from asha.machine import DeadlineMachine
from asha.run.deadline import Deadline
from asha.run.runner import Completed
from asha.status import collect, telephone
from asha.status import switchover as moving
from asha.status.calls import Calls
from asha.status.model import Address, Link, Service, Status
from asha.status.services import services
from tests.fakes.machine import FakeMachine, Outcome

SITE = """\
PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
ANODELAN=192.168.1.11
BNODENAME=crm2
BNODEIP=10.0.3.252
BNODELAN=192.168.1.12
DRBDDEV=/dev/sda5
SITEID=AEL TEST CLUSTER
"""
DRBD = """version: 8.4.11 (api:1/proto:86-101)
 0: cs:{state} ro:Primary/Secondary ds:UpToDate/{peer} C r-----
    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:{oos}
"""
LINKS = """Local node ID 1, transport knet
LINK ID 0 udp
\taddr\t= 10.0.3.251
\tstatus:
\t\tnodeid:          1:\tlocalhost
\t\tnodeid:          2:\tconnected
LINK ID 1 udp
\taddr\t= 192.168.1.11
\tstatus:
\t\tnodeid:          1:\tlocalhost
\t\tnodeid:          2:\tdisconnected
"""
SINGLES = ("p_asterisk", "p_ip", "p_mysql", "p_apache", "p_fs", "p_data")
CLONES = ("p_drbd", "p_line")
STARTED = datetime(2026, 11, 22, 14, 3, 15)

STATE = State(
    dc="crm1",
    quorum=True,
    nodes=(pacemaker.Node("crm1", True, is_dc=True), pacemaker.Node("crm2", True)),
    resources=(
        *(pacemaker.Resource(name, "ocf:x:y", "Started", "crm1", True, False, False, True, "")
          for name in SINGLES),
        *(pacemaker.Resource(name, "ocf:x:y", role, node, True, False, False, True, "")
          for name in CLONES for role, node in (("Promoted", "crm1"), ("Unpromoted", "crm2"))),
    ),
    failures=(),
    bans=(),
    stonith_enabled=False,
    maintenance=False,
    last_change=None,
    last_start=Event("crm1", STARTED),
    last_stop=Event("crm2", STARTED - timedelta(seconds=5)),
)
STATUS = Status(time="", node="crm1")
KEPT = """<rsc_location id="cli-prefer-cl_drbd" rsc="cl_drbd" role="Promoted">
  <rule id="cli-prefer-rule-cl_drbd" score="INFINITY" boolean-op="and">
    <expression id="x" attribute="#uname" operation="eq" value="crm2" type="string"/>
    <date_expression id="y" operation="lt" end="{end}"/>
  </rule>
</rsc_location>"""
FOR_EVER = """<xpath-query>
<rsc_location id="cli-prefer-p_ip" rsc="p_ip" role="Started" node="crm1" score="INFINITY"/>
</xpath-query>"""


def change(name: str, where: str, **fields: object) -> State:
    """The healthy state with one instance of a resource otherwise."""
    found = [one for one in STATE.of(name) if one.node == where]
    assert len(found) == 1
    other = dataclasses.replace(found[0], **fields)  # type: ignore[arg-type]
    return dataclasses.replace(
        STATE, resources=tuple(other if one is found[0] else one for one in STATE.resources)
    )


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """crm1 of a cluster in order, as far as programs tell."""
    fake = FakeMachine(tmp_path, {
        "cibadmin": Outcome(code=105),
        "corosync-cfgtool -s": LINKS.replace("disconnected", "connected"),
        "timedatectl": "yes\n",
        "crm_resource": "",
        "crm_attribute": "",
    })
    fake.absent("drbdsetup", "drbdadm", "modinfo", "ping")
    fake.put("/etc/asha/asha.conf", SITE)
    fake.put("/etc/asha/cluster-owns-services")
    return fake.put("/proc/drbd", DRBD.format(state="Connected", peer="UpToDate", oos=0))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have Pacemaker tell these states, one after the other; the last for ever."""
    monkeypatch.setattr(collect.calls, "ask", lambda *args, **named: Calls(calls=3))  # type: ignore[attr-defined]

    def tell(*states: State | None) -> None:
        waiting = list(states)

        def look(machine: object) -> State:
            state = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if state is None:
                raise UserError("Pacemaker does not run on this node")
            return state

        monkeypatch.setattr(pacemaker, "look", look)

    tell(STATE)
    return tell


Tell = Callable[..., None]


def warnings(status: Status) -> str:
    return "\n".join(found.what for found in status.findings if found.level == "warning")


def test_a_secret_of_which_no_key_is_made_is_told(machine: FakeMachine, seen: Tell) -> None:
    """Changed by hand, mistyped or lost; asha check says the same."""
    mine, other = Secret.generate(), Secret.generate()
    machine.put(corosync.CONF, corosync.render(parse(SITE), joined=True))
    machine.put(corosync.AUTHKEY, mine.corosync_authkey())
    for text, what, hint in (
        (mine.text, "", ""),
        (other.text, "is not the secret that this node's keys", "asha secret rotate"),
        (mine.text.replace(mine.text[:4], "AAAA"), "checksum is wrong",
         "/etc/asha/secret; asha secret rotate"),
        ("", "nothing was typed", "copy it from the other node's file"),
        (None, "/etc/asha/secret is missing", "asha secret rotate"),
    ):
        machine.path(PATH).unlink(missing_ok=True)
        if text is not None:
            machine.put(PATH, text, 0o600)
        found = [one for one in collect.collect(machine, "crm1").findings if "secret" in one.what]
        told = [*check.of_secret(machine)]
        assert [(one.what, one.hint) for one in found] == [(one.what, one.hint) for one in told]
        assert len(found) == bool(what)
        assert all(what in one.what and hint in one.hint for one in found)


def test_a_cluster_in_order(machine: FakeMachine, seen: Tell) -> None:
    status = collect.collect(machine, "crm1")
    assert warnings(status) == ""
    assert status.exit_code == 0
    assert (status.active, status.moved_from) == ("crm1", "crm2")
    assert status.active_since == STARTED.astimezone().isoformat(timespec="seconds")
    assert status.address is not None
    assert (status.address.address, status.address.node) == ("192.168.1.90", "crm1")
    assert status.calls == Calls(calls=3)
    assert status.links == (Link(0, "10.0.3.251", "connected"),
                            Link(1, "192.168.1.11", "connected"))
    assert [node.here for node in status.nodes] == [True, False]


def test_the_passive_node_asks_no_asterisk(machine: FakeMachine, seen: Tell) -> None:
    assert collect.collect(machine, "crm2").calls is None


def test_real_output_of_both_pacemakers(machine: FakeMachine) -> None:
    """crm2 is in standby in both; the older has a failure and two bans beside."""
    folder = Path(__file__).parent
    for version, expected in (("2.1", "p_apache may not run on crm2"),
                              ("3.0", "crm2 is in standby")):
        text = (folder / f"cluster_crm_mon_{version}.xml").read_text()
        machine.on("crm_mon", text)
        status = collect.collect(machine, "crm2")
        assert status.active == "crm1"
        assert status.exit_code == 1
        assert expected in warnings(status)
        assert status.line is not None
        assert (status.line.node, status.line.card_node, status.line.position) == \
            ("crm1", "crm1", "on-unconfirmed")


def test_nothing_is_there_at_all(tmp_path: Path) -> None:
    bare = FakeMachine(tmp_path).absent(
        "crm_mon", "drbdsetup", "drbdadm", "modinfo", "corosync-cfgtool", "timedatectl"
    )
    status = collect.collect(bare, "box")
    assert (status.configured, status.installed, status.pacemaker) == (False, False, False)
    assert "not configured" in warnings(status)
    assert status.exit_code == 2


def test_a_wrong_asha_conf_is_told_and_the_rest_too(machine: FakeMachine, seen: Tell) -> None:
    machine.put("/etc/asha/asha.conf", SITE.replace("192.168.1.90", "nonsense"))
    status = collect.collect(machine, "crm1")
    assert "CLUSTERIP=nonsense" in warnings(status)
    assert status.active == "crm1"


def test_pacemaker_is_stopped(
    machine: FakeMachine, seen: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A telephone's question tells whether the telephones run, and the address where."""
    seen(None)
    said = [True]
    monkeypatch.setattr(telephone, "answers", lambda address, deadline: said[0])
    status = collect.collect(machine, "crm2")
    assert status.address_answers is True
    assert (status.active, status.address) == ("crm1", Address("192.168.1.90", "crm1"))
    assert status.exit_code == 1
    assert status.disks is not None
    said[0] = False
    assert collect.collect(machine, "crm2").exit_code == 2
    monkeypatch.setattr(telephone, "is_local", lambda address: address == "192.168.1.90")
    said[0] = True
    status = collect.collect(machine, "crm2")
    assert (status.active, status.exit_code) == ("crm2", 1)
    assert status.calls == Calls(calls=3)


def test_sip_that_a_telephone_does_not_hear(
    machine: FakeMachine, seen: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pacemaker is content: Asterisk runs, and listens at another address."""
    said, taken = [True], [True]
    monkeypatch.setattr(telephone, "is_local", lambda address: address == "192.168.1.90")
    monkeypatch.setattr(telephone, "answers", lambda address, deadline: said[0])
    monkeypatch.setattr(telephone, "is_taken", lambda: taken[0])
    assert collect.collect(machine, "crm1").address_answers is True
    said[0] = False
    status = collect.collect(machine, "crm1")
    assert "SIP at 192.168.1.90 does not answer, though Asterisk runs" in warnings(status)
    assert status.exit_code == 1
    taken[0] = False  # a site that has SIP elsewhere
    assert "SIP at" not in warnings(collect.collect(machine, "crm1"))


@pytest.mark.parametrize(("age", "count", "loop"), [(5, 6, True), (5, 2, False), (900, 6, False)])
def test_a_crash_loop_is_named(
    machine: FakeMachine, seen: Tell, age: int, count: int, loop: bool
) -> None:
    last = round(time.time()) - age
    told = Deaths(count, 12, last, "signal SEGV", "|/lib/systemd/systemd-coredump %P")
    seen(dataclasses.replace(STATE, attributes=(
        pacemaker.Attribute("crm2", "asha-asterisk-deaths", str(told)),)))
    status = collect.collect(machine, "crm1")
    assert ("crash loop: Asterisk has died 6 times on crm2, every 12 s" in warnings(status)) == loop
    assert [(one.node, one.count, one.between, one.how) for one in status.crash_loops] == \
        ([("crm2", 6, 12, "signal SEGV")] if loop else [])
    hints = "".join(found.hint for found in status.findings)
    assert ("coredumpctl info asterisk" in hints) == loop


def test_what_is_no_report_of_deaths() -> None:
    for text in ("", "many", "1 2 x how", "9" * 20 + " 1 1 -", "3 1 1"):
        assert parse_deaths(text) is None
    assert str(parse_deaths("3 1 1700000000 exit-status-1")) == "3 1 1700000000 exit-status-1"


def test_where_the_address_is() -> None:
    assert telephone.is_local("127.0.0.1")
    assert not telephone.is_local("192.0.2.1")  # RFC 5737: nobody's


@pytest.mark.parametrize("protocol", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_telephone_asks(protocol: socket.SocketKind) -> None:
    """By UDP or by TCP; and nobody is there."""
    with socket.socket(socket.AF_INET, protocol) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if protocol == socket.SOCK_STREAM:
            server.listen()
        answering = threading.Thread(target=answer_once, args=(server, protocol))
        answering.start()
        assert telephone.answers("127.0.0.1", Deadline(10), port)
        answering.join()
        assert telephone.is_taken(port)
    assert not telephone.answers("127.0.0.1", Deadline(1), port)
    assert not telephone.is_taken(port)


def test_who_is_silent_is_not_waited_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        begun = time.monotonic()
        assert not telephone.answers("127.0.0.1", Deadline(0.3), server.getsockname()[1])
        assert time.monotonic() - begun < 10


def answer_once(server: socket.socket, protocol: socket.SocketKind) -> None:
    if protocol == socket.SOCK_DGRAM:
        asked, caller = server.recvfrom(4096)
        server.sendto(asked.replace(b"OPTIONS", b"SIP/2.0 200 OK\r\nX:", 1), caller)
        return
    link, _ = server.accept()
    with link:
        link.sendall(link.recv(4096).replace(b"OPTIONS", b"SIP/2.0 200 OK\r\nX:", 1))


def test_a_cut_off_installation(machine: FakeMachine, seen: Tell) -> None:
    machine.put("/var/lib/asha/handover.json", "{}")
    assert "or was interrupted" in warnings(collect.collect(machine, "crm1"))


def test_a_cut_cable(machine: FakeMachine, seen: Tell) -> None:
    machine.on("corosync-cfgtool -s", LINKS)
    assert "cluster link 1 (192.168.1.11) is disconnected" in warnings(
        collect.collect(machine, "crm1")
    )


def test_a_restart_in_place_was_no_move(machine: FakeMachine, seen: Tell) -> None:
    for stop in (None, Event("crm1", STARTED), Event("crm2", STARTED - timedelta(hours=1)),
                 Event("crm2", STARTED + timedelta(seconds=1))):
        seen(dataclasses.replace(STATE, last_stop=stop))
        assert collect.collect(machine, "crm1").moved_from == ""


def test_a_switchover_that_was_killed(machine: FakeMachine, seen: Tell) -> None:
    later = datetime.now(UTC) + timedelta(minutes=3)
    machine.on("cibadmin", KEPT.format(end=f"{later:%Y-%m-%d %H:%M:%SZ}"))
    assert "a switchover to crm2" in warnings(collect.collect(machine, "crm1"))


def test_the_room_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect._store(FakeMachine(tmp_path), Deadline(10)) is None
    monkeypatch.setattr(collect, "STORE", "/")
    room = collect._store(FakeMachine("/"), Deadline(10))
    assert room is not None
    assert 0 <= room.free <= room.total
    assert room.total > 0


class Slow(FakeMachine):
    """Remembers how much time each program was given."""

    def run(self, *argv: str, timeout: float = 60.0, **rest: object) -> Completed:
        self.given = timeout
        return Completed(argv, 0, "", "")


def test_no_program_outlasts_the_whole(tmp_path: Path) -> None:
    slow = Slow(tmp_path)
    now = [0.0]
    quick = DeadlineMachine(slow, Deadline(9, clock=lambda: now[0]), cap=3)
    quick.run("crm_mon", timeout=15)
    assert slow.given == 3
    quick.run("crm_mon", timeout=1)
    assert slow.given == 1
    now[0] = 8.5
    quick.run("crm_mon", timeout=15)
    assert slow.given == 0.5


# Resources in plain words.


def service(state: State, name: str) -> Service:
    return next(one for one in services(state) if one.id == name)


def test_services_in_order() -> None:
    found = services(STATE)
    assert [one.id for one in found[:2]] == ["p_asterisk", "p_ip"]
    assert all(one.runs and one.nodes == ("crm1",) for one in found)


def test_unknown_resources_are_shown_and_fence_devices_are_not() -> None:
    extra = [pacemaker.Resource(name, agent, "Started", "crm2", True, False, False, True, "")
             for name, agent in (("p_own", "ocf:x:own"), ("p_off", "stonith:fence_ipmilan"))]
    state = dataclasses.replace(STATE, resources=(*STATE.resources, *extra))
    assert service(state, "p_own").title == "p_own"
    assert "p_off" not in [one.id for one in services(state)]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"role": "Stopped", "active": False, "node": ""}, "stopped"),
        ({"role": "Stopped", "active": False, "node": "", "pending": "Starting"}, "starting"),
        ({"pending": "Stopping"}, "stopping"),
        ({"role": "Stopping"}, "stopping"),
        ({"failed": True}, "failed"),
        ({"blocked": True}, "failed"),
        ({"managed": False}, "unmanaged"),
    ],
)
def test_what_a_resource_does(fields: dict[str, object], word: str) -> None:
    assert service(change("p_asterisk", "crm1", **fields), "p_asterisk").state == word


def test_a_line_that_nobody_has_is_not_running() -> None:
    state = change("p_line", "crm1", role="Unpromoted")
    assert service(state, "p_line").state == "stopped"


def test_the_reason_of_the_last_failure() -> None:
    failure = Failure("p_mysql", "start", "crm1", "not running", "no room on the disk", STARTED)
    state = dataclasses.replace(
        change("p_mysql", "crm1", role="Stopped", active=False, node=""), failures=(failure,)
    )
    found = service(state, "p_mysql")
    assert found.state == "failed"
    assert found.why == "start failed on crm1 at 14:03:15: no room on the disk"


def test_what_was_degraded_is_not_called_failed() -> None:
    failure = Failure("p_asterisk", "monitor", "crm1", "error", "AMI is gone", STARTED, "190")
    found = service(dataclasses.replace(change("p_asterisk", "crm1"), failures=(failure,)),
                    "p_asterisk")
    assert found.why == "was degraded on crm1 at 14:03:15: AMI is gone"
    assert found.degraded


def failure(action: str, node: str, minute: int, code: str = "1") -> Failure:
    return Failure("p_asterisk", action, node, "error", f"{action} {minute}",
                   STARTED + timedelta(minutes=minute), code)


def with_failures(state: State, *failures: Failure) -> State:
    return dataclasses.replace(state, failures=failures)


def test_a_failure_is_told_before_what_only_was_degraded() -> None:
    found = service(with_failures(STATE, failure("monitor", "crm1", 1),
                                  failure("monitor", "crm2", 2, "190")), "p_asterisk")
    assert (found.failed_on, found.degraded) == ("crm1", False)


def test_the_latest_failure_is_told_whatever_their_order() -> None:
    found = service(with_failures(STATE, failure("monitor", "crm2", 5),
                                  failure("start", "crm1", 3)), "p_asterisk")
    assert (found.failed_on, found.action) == ("crm2", "monitor")


def test_what_is_stuck_is_told_by_its_own_reason() -> None:
    failures = (failure("stop", "crm1", 1), failure("monitor", "crm2", 2))
    stuck = service(with_failures(change("p_asterisk", "crm1", blocked=True), *failures),
                    "p_asterisk")
    assert (stuck.blocked_on, stuck.failed_on, stuck.action) == ("crm1", "crm1", "stop")
    assert "stop failed on crm1" in stuck.why
    free = service(with_failures(STATE, *failures), "p_asterisk")
    assert free.blocked_on == ""


@pytest.mark.parametrize(
    ("fields", "given_up"),
    [
        ({"active": False, "role": "Stopped", "node": ""}, ("crm1",)),
        ({"active": True, "failed": True, "pending": "Stopping"}, ()),
    ],
)
def test_where_it_is_given_up(fields: dict[str, object], given_up: tuple[str, ...]) -> None:
    state = dataclasses.replace(change("p_asterisk", "crm1", **fields),
                                worn_out=frozenset({("p_asterisk", "crm1"), ("p_ip", "crm2")}))
    assert service(state, "p_asterisk").given_up_on == given_up


def test_a_death_that_systemd_told_of_is_not_called_simulated() -> None:
    failure = Failure("p_asterisk", "asyncmon", "crm1", "error", "Simulated failure", STARTED)
    found = service(dataclasses.replace(change("p_asterisk", "crm1"), failures=(failure,)),
                    "p_asterisk")
    assert "Simulated" not in found.why
    assert "Asterisk died on crm1 at 14:03:15" in found.why


@pytest.mark.parametrize(("late", "is_hang"), [(2, True), (300, False)])
def test_a_hang_that_the_watcher_has_seen_is_called_one(late: int, is_hang: bool) -> None:
    failure = Failure("p_asterisk", "asyncmon", "crm1", "error", "Simulated failure", STARTED)
    moment = int(STARTED.timestamp()) + late
    said = Attribute("crm1", "asha-asterisk-hang", f"{moment} dialplan lock is silent")
    found = service(dataclasses.replace(change("p_asterisk", "crm1"), failures=(failure,),
                                        attributes=(said,)), "p_asterisk")
    assert ("Asterisk hung on crm1 at 14:03:15: dialplan lock is silent" in found.why) == is_hang
    assert ("Asterisk died" in found.why) == (not is_hang)


def test_each_nodes_lan(machine: FakeMachine, seen: Tell) -> None:
    seen(dataclasses.replace(STATE, attributes=(Attribute("crm2", "asha-lan", "no-carrier"),)))
    status = collect.collect(machine, "crm1")
    assert [(one.name, one.lan) for one in status.nodes] == [("crm1", ""), ("crm2", "no-carrier")]
    said = "\n".join(one.what for one in status.findings)
    assert "the LAN of crm1 is not watched" in said
    assert "the LAN of crm2 is dead" in said


def test_an_address_that_was_deleted_is_not_called_simulated() -> None:
    failure = Failure("p_ip", "asyncmon", "crm1", "error", "Simulated failure", STARTED)
    found = service(dataclasses.replace(change("p_ip", "crm1"), failures=(failure,)), "p_ip")
    assert found.why == \
        "it was deleted on crm1 at 14:03:15, and put back: journalctl -u asha-lan"


# What lets a node take over.


def sight(machine: FakeMachine) -> list[str]:
    """The obstacles for crm2, as switchover finds them."""
    try:
        assert switchover.ready(machine, "crm1") == ("crm1", "crm2")
    except UserError as problem:
        return [*str(problem).splitlines(), problem.hint]
    return []


def test_a_cluster_in_order_can_switch(machine: FakeMachine, seen: Tell) -> None:
    assert sight(machine) == []


def node(**fields: bool) -> tuple[pacemaker.Node, ...]:
    return STATE.nodes[0], dataclasses.replace(STATE.nodes[1], **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nodes": STATE.nodes[:1]}, "no second node"),
        ({"nodes": node(online=False)}, "crm2 is not online"),
        ({"nodes": node(unclean=True)}, "crm2 is not online"),
        ({"nodes": node(pending=True)}, "just joining"),
        ({"nodes": node(standby=True)}, "asha online crm2"),
        ({"maintenance": True}, "crm maintenance off"),
        ({"quorum": False}, "no quorum"),
        ({"bans": (Ban("drbd-fence-by-handler-asha", "cl_drbd", "crm2"),)}, "asha sync --watch"),
        ({"bans": (Ban("cli-ban-g_phones", "g_phones", "crm2"),)}, "crm resource clear g_phones"),
        ({"failures": (Failure("p_asterisk", "start", "crm2", "error", "no licence", None),)},
         "crm resource cleanup p_asterisk"),
        ({"attributes": (Attribute("crm2", "asha-lan", "no-carrier"),)}, "LAN of crm2 is dead"),
    ],
)
def test_what_stands_in_the_way(
    machine: FakeMachine, seen: Tell, fields: dict[str, object], words: str
) -> None:
    seen(dataclasses.replace(STATE, **fields))  # type: ignore[arg-type]
    assert any(words in line for line in sight(machine))


def test_what_does_not_stand_in_the_way(machine: FakeMachine, seen: Tell) -> None:
    seen(dataclasses.replace(
        STATE,
        bans=(Ban("cli-ban-x", "p_own", "crm1"),),
        attributes=(Attribute("crm1", "asha-lan", "no-carrier"),
                    Attribute("crm2", "asha-lan", "unsteady")),
        failures=(Failure("p_asterisk", "monitor", "crm1", "not running", "", None),
                  Failure("p_asterisk", "monitor", "crm2", "error", "busy", None, "190"),
                  Failure("p_apache", "start", "crm2", "error", "", None)),
    ))
    assert sight(machine) == []


@pytest.mark.parametrize(
    ("state", "peer", "oos", "words"),
    [
        ("SyncSource", "Inconsistent", 1000, "resynchronising"),
        ("Connected", "Outdated", 0, "crm2 Outdated"),
        ("WFConnection", "DUnknown", 0, "WFConnection"),
    ],
)
def test_disks_that_stand_in_the_way(
    machine: FakeMachine, seen: Tell, state: str, peer: str, oos: int, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asha.status.replication.SAMPLE_SECONDS", 0)
    machine.put("/proc/drbd", DRBD.format(state=state, peer=peer, oos=oos))
    assert any(words in line for line in sight(machine))


def test_unknown_disks_stand_in_the_way(machine: FakeMachine, seen: Tell) -> None:
    machine.remove("/proc/drbd")
    assert any("DRBD does not tell" in line for line in sight(machine))


def test_somebodys_move_stands_in_the_way(machine: FakeMachine, seen: Tell) -> None:
    machine.on("cibadmin", FOR_EVER)
    assert any("crm resource clear p_ip" in line for line in sight(machine))


def test_nothing_to_switch(machine: FakeMachine, seen: Tell) -> None:
    seen(change("p_asterisk", "crm1", role="Stopped", active=False, node=""))
    assert "run on no node" in sight(machine)[0]


# Moving.

AFTER = dataclasses.replace(STATE, resources=tuple(
    dataclasses.replace(one, node={"crm1": "crm2", "crm2": "crm1"}[one.node])
    for one in STATE.resources
))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asha.machine.time.sleep", lambda seconds: None)


ORDER = "crm_resource --move --resource cl_drbd --promoted --node crm2 --lifetime PT90S"
CLEAR = "crm_resource --clear --resource cl_drbd"


@pytest.mark.usefixtures("no_waiting")
def test_the_order_has_an_end_and_is_taken_back(
    machine: FakeMachine, seen: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    seen(STATE, STATE, change("p_asterisk", "crm1", pending="Stopping"), AFTER)
    switchover.move(machine, "crm1", "crm2", 30)
    assert [str(call) for call in machine.ran("crm_resource")] == [CLEAR, ORDER, CLEAR]
    assert "everything runs on crm2: the telephones after" in capsys.readouterr().out


@pytest.mark.usefixtures("no_waiting")
def test_what_does_not_arrive_is_named_and_the_order_taken_back(
    machine: FakeMachine, seen: Tell
) -> None:
    late = [one for one in AFTER.resources if one.id != "p_mysql"]
    seen(STATE, dataclasses.replace(AFTER, resources=tuple(late + STATE.of("p_mysql"))))
    with pytest.raises(UserError, match=r"database \(MariaDB\)"):
        switchover.move(machine, "crm1", "crm2", 0)
    assert str(machine.ran("crm_resource")[-1]) == CLEAR


@pytest.mark.usefixtures("no_waiting")
def test_interrupted_it_takes_the_order_back(
    machine: FakeMachine, seen: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("asha.commands.switchover.wait_for_state", interrupt)
    with pytest.raises(KeyboardInterrupt):
        switchover.move(machine, "crm1", "crm2", 30)
    assert [str(call) for call in machine.ran("crm_resource")] == [CLEAR, ORDER, CLEAR]


def test_preferences_that_are_over_do_not_count() -> None:
    now = datetime.now(UTC)
    for end, count in ((now - timedelta(seconds=1), 0), (now + timedelta(minutes=1), 1)):
        found = moving.read_preferences(KEPT.format(end=f"{end:%Y-%m-%d %H:%M:%SZ}"))
        assert [one.node for one in found] == ["crm2"] * count
    assert moving.read_preferences(FOR_EVER) == [
        moving.Preference("p_ip", "crm1", None)
    ]
    assert moving.read_preferences("") == []


def test_calls_that_are_cut(seen: Tell) -> None:
    assert switchover.cut_calls("crm1", "crm1") == "3 calls in progress are cut."
    assert "asha status on crm1" in switchover.cut_calls("crm1", "crm2")


# Standby and online.


def test_names_are_the_clusters_own() -> None:
    assert standby.known(STATE, "CRM2") == "crm2"
    with pytest.raises(UserError, match="no node of the cluster"):
        standby.known(STATE, "crm3")


def test_online_takes_back_both_kinds_of_standby(machine: FakeMachine) -> None:
    online.take_back(machine, "crm2")
    assert [str(call).split()[-1] for call in machine.ran("crm_attribute")] == ["forever", "reboot"]
    assert all("--delete" in call.argv for call in machine.ran("crm_attribute"))


def test_online_waits_for_its_half_of_the_clones() -> None:
    assert online._left(STATE, "crm2") == []
    gone = change("p_drbd", "crm2", role="Stopped", active=False, node="")
    assert online._left(gone, "crm2") == ["p_drbd on crm2"]
    assert online._left(dataclasses.replace(STATE, nodes=node(standby=True)), "crm2") == \
        ["crm2 online"]


def test_standby_waits_until_nothing_runs_there_and_all_runs_elsewhere() -> None:
    assert "p_asterisk to stop on crm1" in standby._left(STATE, "crm1", STATE)
    only = tuple(one for one in AFTER.resources if one.node != "crm1")
    assert standby._left(dataclasses.replace(STATE, resources=only), "crm1", STATE) == []
    some = tuple(one for one in only if one.id != "p_mysql")
    stopped = pacemaker.Resource("p_mysql", "ocf:x:y", "Stopped", "", False, False, False, True, "")
    assert standby._left(dataclasses.replace(STATE, resources=(*some, stopped)), "crm1", STATE) == \
        ["database (MariaDB) on crm2"]
