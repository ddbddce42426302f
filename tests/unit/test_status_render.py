"""The screen and the findings: what a person reads, from a Status made by hand."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from asha.cluster.pacemaker import Ban
from asha.status import render
from asha.status.advice import Context, findings
from asha.status.calls import Calls
from asha.status.model import (
    NOTE,
    WARNING,
    Address,
    Disks,
    Finding,
    Generation,
    Line,
    Link,
    Node,
    Service,
    Status,
    Store,
    as_json,
)
from asha.status.switchover import Preference

SAME = Disks(node="crm1", role="Primary", disk="UpToDate", peer="crm2", peer_role="Secondary",
             peer_disk="UpToDate", connection="Connected", in_sync=True)
SYNCING = dataclasses.replace(
    SAME, in_sync=False, syncing=True, peer_disk="Inconsistent", percent=15.9,
    out_of_sync=2469104, speed=22896.0, seconds_left=107,
)
HEALTHY = Status(
    time="2026-11-22T14:03:25+0000",
    node="crm1",
    site_id="AEL TEST CLUSTER",
    configured=True,
    installed=True,
    pacemaker=True,
    quorum=True,
    active="crm1",
    active_since="2026-11-22T14:03:15+0000",
    nodes=(Node("crm1", "online", here=True, active=True), Node("crm2", "online")),
    services=(
        Service("p_asterisk", "telephones (Asterisk)", "running", ("crm1",)),
        Service("p_ip", "address", "running", ("crm1",)),
        Service("p_mysql", "database (MariaDB)", "running", ("crm1",)),
        Service("p_line", "telephone line", "running", ("crm1",)),
    ),
    disks=SAME,
    address=Address("192.168.1.90", "crm1"),
    line=Line("crm1", "crm1", "on-unconfirmed"),
    calls=Calls(calls=3, channels=5, longest=107, registered=45, silent=2, trunks=2, trunks_up=1),
    links=(Link(0, "10.0.3.251", "connected"), Link(1, "192.168.1.11", "connected")),
    store=Store(free=80 * 10**9, total=100 * 10**9),
)
USUAL = Context(other="crm2", fencing=True, clock_is_set=True)


def changed(**fields: Any) -> Status:
    return dataclasses.replace(HEALTHY, **fields)


def said(status: Status, about: Context = USUAL) -> str:
    """The warnings alone, one a line, with the mend."""
    return "\n".join(f"{f.what} -> {f.hint}" for f in findings(status, about)
                     if f.level == WARNING)


def notes(status: Status, about: Context) -> str:
    return "\n".join(f.what for f in findings(status, about) if f.level == NOTE)


def test_secrets_that_differ_are_told_and_a_change_that_is_half_done() -> None:
    same = changed(secrets=(Generation("crm1", "K7QF"), Generation("crm2", "K7QF")))
    assert said(same) == ""
    assert "Secret      crm1 K7QF, crm2 K7QF" in render.screen(same)
    assert as_json(same)["secrets"] == ({"node": "crm1", "id": "K7QF", "coming": ""},
                                        {"node": "crm2", "id": "K7QF", "coming": ""})
    text = said(changed(secrets=(Generation("crm1", "M2ZZ"), Generation("crm2", "K7QF"))))
    assert "the nodes' secrets differ (crm1 M2ZZ, crm2 K7QF): crm2 cannot come back" in text
    assert "on crm2: asha secret rotate, which asks for the one of crm1" in text
    text = said(changed(secrets=(Generation("crm1", "K7QF", "M2ZZ"), Generation("crm2", "K7QF"))))
    assert "is not finished (crm1 from K7QF to M2ZZ) -> asha secret rotate" in text
    assert "differ" not in text


def lans(here: str, there: str, state: str = "online") -> Status:
    return changed(nodes=(Node("crm1", "online", here=True, active=True, lan=here),
                          Node("crm2", state, lan=there)))


WATCHED = dataclasses.replace(USUAL, lan_watched=True)


def test_the_lans_of_both() -> None:
    assert said(lans("ok", "ok"), WATCHED) == notes(lans("ok", "ok"), WATCHED) == ""
    assert "\nLAN         crm1 ok; crm2 ok\n" in render.screen(lans("ok", "ok"))
    assert as_json(lans("ok", "no-answer"))["nodes"][1]["lan"] == "no-answer"
    assert "LAN " not in render.screen(HEALTHY), "where nobody watches it"


def test_a_dead_lan_is_told_with_what_to_look_at() -> None:
    both = lans("no-carrier", "no-answer")
    assert said(both, WATCHED).splitlines() == [
        "the LAN of crm1 is dead (no carrier, or no network card): the telephones stay there until "
        "the other node's LAN is good -> check the cable, the switch's port and: ip link, on crm1",
        "the LAN of crm2 is dead (neither the gateway nor the other node answers): it is no place "
        "for the telephones -> check the switch and what is between; ip neigh, on crm2",
    ]
    assert both.exit_code == 0 != changed(findings=findings(both, WATCHED)).exit_code
    assert "LAN         crm1 DEAD (no carrier); crm2 DEAD (no answer)" in render.screen(both)


def test_a_lan_that_is_not_trusted_yet_or_not_watched_is_no_alarm() -> None:
    status = lans("", "unsteady")
    assert said(status, WATCHED) == ""
    assert notes(status, WATCHED).splitlines() == [
        "the LAN of crm1 is not watched",
        "the LAN of crm2 works, and is trusted once it has held for half a minute, after several "
        "losses for longer",
    ]
    assert notes(lans("", ""), USUAL) == "", "LANWATCH=false"
    assert "LAN         crm1 not known; crm2 ok, not trusted yet" in render.screen(status)


def test_a_node_that_is_off_has_no_lan_to_speak_of() -> None:
    assert "LAN" not in said(lans("ok", "", "offline"), WATCHED)
    assert notes(lans("ok", "", "offline"), WATCHED) == ""


def test_a_value_that_nobody_knows_is_shown_and_does_no_harm() -> None:
    status = lans("ok", "what\x1b[2J")
    assert said(status, WATCHED) == ""
    assert "crm2 what\\x1b[2J" in render.screen(status)


def test_a_healthy_cluster_has_nothing_to_say() -> None:
    assert findings(HEALTHY, USUAL) == ()
    assert HEALTHY.exit_code == 0


def test_the_screen() -> None:
    text = render.screen(HEALTHY)
    assert text == """\
ASHA on crm1   AEL TEST CLUSTER                         Sun 22 Nov 2026 14:03:25

The telephones run on crm1 since Sun 22 Nov 2026 14:03:15.

Nodes       crm1  online, active, this one
            crm2  online
Services    telephones (Asterisk)   running on crm1
            address 192.168.1.90    running on crm1
            database (MariaDB)      running on crm1
            telephone line          goes to crm1 (card on crm1: on-unconfirmed)
Disks       in sync (crm1 UpToDate, crm2 UpToDate)
Space       80 GB of 100 GB free (80 %)
Calls       3 calls (the longest 1 min 47 s), 45 telephones registered (2
            silent), 1 of 2 trunks registered
Links       0: 10.0.3.251 connected; 1: 192.168.1.11 connected
"""


NAMES = ("a" * 63, "b" * 63)


@pytest.mark.parametrize("colours", [False, True])
def test_nothing_is_wider_than_the_screen(colours: bool) -> None:
    wide = changed(
        node=NAMES[0],
        active=NAMES[0],
        site_id="site " * 40,
        nodes=tuple(Node(name, "unclean") for name in NAMES),
        services=tuple(dataclasses.replace(service, state="failed", nodes=NAMES, why="word " * 60)
                       for service in HEALTHY.services),
        disks=dataclasses.replace(SYNCING, node=NAMES[0], peer=NAMES[1]),
        findings=(Finding(WARNING, "what " * 50, "mend " * 50),),
    )
    for line in render.screen(wide, colours).splitlines():
        plain = line
        for code in ("\033[0m", "\033[31m", "\033[32m", "\033[33m",
                     "\033[1;31m", "\033[1;32m", "\033[1;33m"):
            plain = plain.replace(code, "")
        # A host name alone can be wider than what is left of the line, and is not cut.
        assert len(plain) <= 80 or NAMES[0] in plain or NAMES[1] in plain
        assert "\033" not in plain


def test_colours_only_where_asked() -> None:
    assert "\033[" not in render.screen(HEALTHY)
    assert "\033[" in render.screen(HEALTHY, colours=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert render.has_colours(Terminal())
    assert not render.has_colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not render.has_colours(Terminal())


def test_a_sync_is_told_with_its_speed_and_must_not_be_tested() -> None:
    status = changed(disks=SYNCING)
    assert "15.9 % in sync, 2.5 GB to go at 23 MB/s, 1 min 47 s left" in render.disks(SYNCING)
    assert "do not test a fail-over" in said(status)
    assert dataclasses.replace(status, findings=findings(status, USUAL)).exit_code == 1


@pytest.mark.parametrize(
    ("connection", "disk", "peer_disk", "words"),
    [
        ("StandAlone", "UpToDate", "DUnknown", "split brain"),
        ("Connecting", "UpToDate", "DUnknown", "not connected (Connecting)"),
        ("Connected", "Diskless", "UpToDate", "crm1 has lost its disk"),
        ("Connected", "UpToDate", "Failed", "crm2 has lost its disk"),
        ("Connected", "UpToDate", "Outdated", "crm2 Outdated"),
    ],
)
def test_disks_that_are_not_the_same(
    connection: str, disk: str, peer_disk: str, words: str
) -> None:
    disks = dataclasses.replace(SAME, in_sync=False, connection=connection, disk=disk,
                                peer_disk=peer_disk)
    assert words in said(changed(disks=disks))


def test_a_disk_that_drbd_does_not_hold() -> None:
    assert "DRBD does not hold the disk on this node" in said(changed(disks=None))


def test_a_node_that_is_off_explains_its_disk() -> None:
    disks = dataclasses.replace(SAME, in_sync=False, connection="Connecting", peer_disk="DUnknown")
    nodes = (HEALTHY.nodes[0], Node("crm2", "offline"))
    assert "disks" not in said(changed(disks=disks, nodes=nodes))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("standby", "asha online crm2"),
        ("offline", "crm2 is offline"),
        ("unclean", "crm2 is UNCLEAN"),
        ("pending", "just joining"),
        ("maintenance", "crm node ready crm2"),
    ],
)
def test_nodes_that_cannot_take_over(state: str, words: str) -> None:
    nodes = (HEALTHY.nodes[0], Node("crm2", state))
    assert words in said(changed(nodes=nodes))
    assert "crm2" in render.screen(changed(nodes=nodes))


def test_one_node_yet() -> None:
    assert "only crm1 is in the cluster" in said(changed(nodes=HEALTHY.nodes[:1]))
    assert "install crm2" in said(changed(nodes=HEALTHY.nodes[:1]))


def test_a_failed_service_is_named_with_its_reason() -> None:
    failed = Service("p_mysql", "database (MariaDB)", "failed", (), "start failed on crm1: no room")
    status = changed(services=(*HEALTHY.services[:2], failed))
    assert "database (MariaDB): start failed on crm1: no room" in said(status)
    assert "crm resource cleanup p_mysql" in said(status)
    assert dataclasses.replace(status, findings=findings(status, USUAL)).exit_code == 1


def test_what_failed_and_runs_again_is_still_told() -> None:
    again = dataclasses.replace(HEALTHY.services[0], why="Asterisk died on crm1: see its log")
    text = said(changed(services=(again, *HEALTHY.services[1:])))
    assert "restarted after a failure: Asterisk died" in text


def test_a_hang_has_left_evidence() -> None:
    again = dataclasses.replace(HEALTHY.services[0], why="monitor failed on crm2: SIP is silent",
                                action="monitor", code="1", failed_on="crm2")
    text = said(changed(services=(again, *HEALTHY.services[1:])))
    assert ("restarted after a failure: monitor failed on crm2: SIP is silent -> "
            "why: asha evidence show last, on crm2; then: crm resource cleanup p_asterisk") in text


def test_a_death_has_left_none() -> None:
    again = dataclasses.replace(HEALTHY.services[0], why="monitor failed on crm2: it is dead",
                                action="monitor", code="7", failed_on="crm2")
    text = said(changed(services=(again, *HEALTHY.services[1:])))
    assert "journalctl -u asterisk, on crm2" in text
    assert "evidence" not in text


def test_what_was_degraded_and_is_over_is_a_note() -> None:
    was = dataclasses.replace(HEALTHY.services[0], why="was degraded on crm1: AMI is gone",
                              action="monitor", degraded=True)
    status = changed(services=(was, *HEALTHY.services[1:]))
    assert said(status) == said(HEALTHY)
    assert "works now; earlier: was degraded on crm1" in notes(status, USUAL)


@pytest.mark.parametrize(("here", "told"), [
    ("crm2", "switch crm1 off, by its power: the other node waits for that; then asha status here"),
    ("crm1", "switch this node (crm1) off"),
])
def test_what_cannot_be_stopped_is_told_first_and_alone(here: str, told: str) -> None:
    """No cleanup cures a stalled disk."""
    services = (
        Service("p_asterisk", "telephones (Asterisk)", "failed", (),
                "stop failed on crm1: Asterisk cannot be killed", "stop", blocked_on="crm1"),
        Service("p_apache", "web panel (Apache)", "stopped"),
        Service("p_data", "data in its places", "failed", (), "monitor failed on crm1: stalled"),
    )
    first, *rest = said(changed(node=here, services=services)).splitlines()
    assert "Asterisk cannot be killed" in first
    assert told in first
    assert "asha(8), FENCING" in first
    assert "cleanup" not in first + "".join(rest)


@pytest.mark.parametrize("name", ["p_line", "p_apache", "p_mysql"])
def test_no_node_is_switched_off_while_the_telephones_go_on(name: str) -> None:
    stuck = Service(name, name, "failed", (), "stop failed on crm1: no answer", "stop",
                    failed_on="crm1", blocked_on="crm1")
    text = said(changed(services=(*HEALTHY.services[:2], stuck)))
    assert "switch" not in text
    assert f"crm resource cleanup {name}" in text


def test_a_relay_that_cannot_be_stopped_costs_no_node() -> None:
    line = Service("p_line", "telephone line", "failed", (), "stop failed on crm1: no answer",
                   "stop", failed_on="crm1", blocked_on="crm1")
    assert "by its power" not in said(changed(services=(HEALTHY.services[1], line)))


def test_telephones_that_no_node_may_start_any_more() -> None:
    failed = Service("p_asterisk", "telephones (Asterisk)", "failed", (),
                     "monitor failed on crm1: stopped by a signal", "monitor",
                     failed_on="crm1", given_up_on=("crm1", "crm2"))
    line = Service("p_line", "telephone line", "stopped")
    rest = tuple(one for one in HEALTHY.services if one.id not in ("p_asterisk", "p_line"))
    text = said(changed(services=(failed, line, *rest)))
    assert "given up after too many failures on crm1 and crm2" in text
    assert "tried again within 30 s" in text
    assert "crm resource cleanup p_asterisk tries it now" in text
    assert "asha evidence list, journalctl -u asterisk, on crm1 and crm2" in text
    assert "telephone line" not in text  # it follows
    one = dataclasses.replace(failed, given_up_on=("crm1",))
    assert "given up" not in said(changed(services=(one, line, *rest)))
    # Where it waits for the store, a cleanup of the telephones starts nothing.
    store = Service("p_fs", "store", "failed", (), "start failed on crm1: no such device", "start")
    assert "given up" not in said(changed(services=(failed, line, store)))


def test_what_the_telephones_need_and_no_node_may_start_any_more() -> None:
    """One thing on one node, another on the other: both are told."""
    telephones = Service("p_asterisk", "telephones (Asterisk)", "stopped")
    address = Service("p_ip", "address", "failed", (), "start failed on crm1: no such device",
                      "start", failed_on="crm1", given_up_on=("crm1",))
    store = Service("p_fs", "store", "failed", (), "start failed on crm2: bad superblock",
                    "start", failed_on="crm2", given_up_on=("crm2",))
    text = said(changed(services=(telephones, address, store)))
    assert ("address: given up after too many failures on crm1, tried again within 30 s; "
            "the last: start failed on crm1: no such device") in text
    assert "store: given up after too many failures on crm2" in text
    assert "crm resource cleanup p_ip tries it now; why: journalctl -u pacemaker, on crm1" in text
    alone = said(changed(services=(telephones, address)))
    assert "given up" not in alone  # the other node may have it


@pytest.mark.parametrize("missing", ["p_asterisk", "p_ip"])
def test_no_service_without_the_vital(missing: str) -> None:
    services = tuple(s for s in HEALTHY.services if s.id != missing)
    stopped = Service(missing, "gone", "stopped")
    assert changed(services=services).exit_code == 2
    assert changed(services=(*services, stopped)).exit_code == 2
    assert "do NOT run" in render.screen(changed(services=(*services, stopped)))


def test_on_the_way_is_no_service_and_no_despair() -> None:
    services = (Service("p_asterisk", "telephones", "starting"), *HEALTHY.services[1:])
    assert changed(services=services).exit_code == 2
    assert "being started or moved" in render.screen(changed(services=services))


def test_no_fencing_is_said_plainly_and_is_no_degradation() -> None:
    about = dataclasses.replace(USUAL, fencing=False)
    assert "NO FENCING" in notes(HEALTHY, about)
    assert dataclasses.replace(HEALTHY, findings=findings(HEALTHY, about)).exit_code == 0
    assert "NO FENCING" not in notes(HEALTHY, dataclasses.replace(USUAL, fencing=None))


def test_a_node_does_not_call_itself_off() -> None:
    nodes = tuple(dataclasses.replace(one, state="offline") if one.here else one
                  for one in HEALTHY.nodes)
    text = " ".join(f"{one.what} {one.hint}" for one in findings(
        dataclasses.replace(HEALTHY, nodes=nodes), USUAL))
    assert "is not in the cluster yet wait a minute" in text
    assert "is off or out of reach" not in text


def test_how_it_was_built() -> None:
    about = dataclasses.replace(USUAL, second_ring=False, alert="admin@example.com",
                                clock_is_set=False)
    text = notes(HEALTHY, about)
    assert "no second ring" in text
    assert "mail to admin@example.com is asked for, and this version sends none" in text
    assert "clock is not synchronised" in text
    # The second node's LAN address is learnt when it joins.
    alone = dataclasses.replace(HEALTHY, nodes=HEALTHY.nodes[:1])
    assert "no second ring" not in notes(alone, about)
    about = dataclasses.replace(USUAL, two_nics=False, second_ring=False)
    assert "ONE NIC" in notes(HEALTHY, about)
    one_nic = dataclasses.replace(about, fencing=False)
    assert "or its link is cut" in notes(HEALTHY, one_nic)
    assert "or both links are cut" in notes(HEALTHY, dataclasses.replace(one_nic, two_nics=True))
    assert "no second ring" not in notes(HEALTHY, about)


def test_space() -> None:
    assert "500 MB (1 %) left" in said(changed(store=Store(500 * 10**6, 50 * 10**9)))
    about = dataclasses.replace(USUAL, space="low: 3.0 GB free of 100 GB (3 %)")
    assert "the store is low: 3.0 GB" in said(changed(store=None), about)
    # The passive node's word for it comes from the cluster, and may be older.
    assert "store" not in said(HEALTHY, about)


def test_an_asterisk_that_works_and_is_not_well() -> None:
    about = dataclasses.replace(USUAL, asterisk="AstDB does not take a key")
    text = said(HEALTHY, about)
    assert "degraded: AstDB does not take a key -> on crm1: journalctl -t asterisk-health" in text
    assert "degraded" not in said(HEALTHY)


def test_a_node_that_sends_from_its_own_address() -> None:
    services = (*HEALTHY.services, Service("p_source", "source address", "running", ("crm1",)))
    text = said(changed(services=services),
                dataclasses.replace(USUAL, source="192.168.1.90 is not on eth0"))
    assert "source address: degraded: 192.168.1.90 is not on eth0 -> on crm1: ip route" in text
    assert "degraded" not in said(changed(services=services))


def test_a_cut_cable_is_told_but_not_of_a_node_that_is_off() -> None:
    links = (HEALTHY.links[0], Link(1, "192.168.1.11", "disconnected"))
    assert "cluster link 1 (192.168.1.11) is disconnected" in said(changed(links=links))
    off = (HEALTHY.nodes[0], Node("crm2", "offline"))
    assert "cluster link 1" not in said(changed(links=links, nodes=off))


def test_a_cut_off_installation() -> None:
    about = dataclasses.replace(USUAL, cut_off=True)
    assert "asha install" in said(HEALTHY, about)
    bare = Status(time=HEALTHY.time, node="crm1")
    assert "asha configure" in said(bare, Context())
    assert bare.exit_code == 2
    assert "not a node of the cluster yet" in render.screen(bare)


def test_pacemaker_is_stopped() -> None:
    stopped = changed(pacemaker=False, nodes=(), services=(), active="", calls=None,
                      address_answers=True, address=Address("192.168.1.90", "crm2"))
    about = dataclasses.replace(USUAL, fencing=None)
    assert "systemctl start pacemaker" in said(stopped, about)
    assert "SIP at 192.168.1.90 answers: crm2 has it" in notes(stopped, about)
    assert dataclasses.replace(stopped, findings=findings(stopped, about)).exit_code == 1
    assert dataclasses.replace(stopped, address_answers=False).exit_code == 2
    assert "The cluster does not run here" in render.screen(stopped)
    hangs = dataclasses.replace(about, pacemaker_hangs=True)
    assert "Pacemaker does not answer" in said(stopped, hangs)


def test_no_quorum_maintenance_and_a_switchover_that_was_killed() -> None:
    assert "no quorum" in said(changed(quorum=False))
    until = datetime(2026, 11, 22, 14, 10, 54, tzinfo=UTC)
    about = dataclasses.replace(USUAL, maintenance=True,
                                kept=(Preference("cl_drbd", "crm2", until),
                                      Preference("g_phones", "crm1", None)))
    assert "crm maintenance off" in said(HEALTHY, about)
    assert "a switchover to crm2 is running" in said(HEALTHY, about)
    assert "crm resource clear g_phones" in said(HEALTHY, about)


def test_what_keeps_a_node_from_taking_over() -> None:
    bans = (Ban("drbd-fence-by-handler-asha-rule-cl_drbd", "cl_drbd", "crm2"),
            Ban("cli-ban-g_phones-on-crm2", "g_phones", "crm2"))
    text = said(HEALTHY, dataclasses.replace(USUAL, bans=bans))
    assert "crm2 may not take over until its disk is UpToDate" in text
    assert "g_phones may not run on crm2 (cli-ban-g_phones-on-crm2)" in text


def test_the_passive_node_says_where_to_ask() -> None:
    text = render.screen(changed(node="crm2", calls=None))
    assert "only crm1 knows: asha status there" in text


def test_calls_that_are_not_known() -> None:
    status = changed(calls=Calls(trouble="Asterisk does not answer"))
    assert "not known: Asterisk does not answer" in render.screen(status)
    assert "Asterisk does not answer" in notes(status, USUAL)


def test_json_is_plain_and_keeps_its_shape() -> None:
    status = dataclasses.replace(
        HEALTHY, findings=findings(HEALTHY, dataclasses.replace(USUAL, fencing=False))
    )
    said = json.loads(json.dumps(as_json(status)))
    assert said["schema"] == 2
    assert (said["health"], said["exit_code"]) == ("healthy", 0)
    assert said["nodes"][0] == {"name": "crm1", "state": "online", "here": True, "active": True,
                                "lan": ""}
    assert said["services"][0]["nodes"] == ["crm1"]
    assert said["disks"]["peer_disk"] == "UpToDate"
    assert said["calls"]["registered"] == 45
    assert said["findings"][0]["level"] == "note"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (107, "1 min 47 s"), (3600, "1 h"),
     (11520, "3 h 12 min"), (187200, "2 d 4 h")],
)
def test_durations(seconds: int, words: str) -> None:
    assert render.duration(seconds) == words
