"""The virtual address is the telephone system: what the active node sends comes from it.

Seen from the LAN, by a telephone that looks at each sender (tests/lab/phone.py), with
PJSIP, chan_sip and IAX bound to 0.0.0.0 as SARK has them.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.conftest import lab_or_skip
from tests.lab import Node, sipp
from tests.lab.cluster import CIB, SINGLES, SOURCE, Cluster, State, parse_state
from tests.lab.faults import GENEROUS, UNNOTICED, by_name
from tests.lab.host import wait_for
from tests.lab.image import RELEASES
from tests.lab.lab import VIRTUAL_ADDRESS
from tests.lab.network import SWITCHBOARD_ADDRESS
from tests.lab.phone import IAX_PORT
from tests.lab.phone import on as phone
from tests.lab.play import play
from tests.lab.prober import Prober

# Where the telephone waits for what Asterisk sends by itself.
PJSIP_PEER, CHAN_SIP_PEER = 5070, 5071
CHAN_SIP_PORT = 5160
PORTS = (5060, CHAN_SIP_PORT)

# A provider and a telephone that is asked each second; both are the switchboard.
PJSIP = f"""
[trunk]
type=registration
transport=transport-udp
server_uri=sip:{SWITCHBOARD_ADDRESS}:{PJSIP_PEER}
client_uri=sip:asha@{SWITCHBOARD_ADDRESS}:{PJSIP_PEER}
retry_interval=2
[peer]
type=aor
contact=sip:peer@{SWITCHBOARD_ADDRESS}:{PJSIP_PEER}
qualify_frequency=1
[peer]
type=endpoint
context=lab
disallow=all
allow=ulaw
aors=peer
[alice]
type=auth
username=alice
password=wonder
[alice]
type=aor
max_contacts=1
[alice]
type=endpoint
context=lab
disallow=all
allow=ulaw
auth=alice
aors=alice
[known]
type=identify
endpoint=peer
match=198.51.100.9
"""
CHAN_SIP = f"""[general]
udpbindaddr=0.0.0.0:{CHAN_SIP_PORT}
allowguest=yes
context=lab
qualifyfreq=1
registertimeout=2
registerattempts=0
register => asha:secret@{SWITCHBOARD_ADDRESS}:{CHAN_SIP_PEER}
[peer]
type=peer
host={SWITCHBOARD_ADDRESS}
port={CHAN_SIP_PEER}
qualify=yes
[alice]
type=friend
host=dynamic
secret=wonder
disallow=all
allow=ulaw
context=lab
"""

NEXT_MONITOR = 60.0  # seconds: three of the monitor's intervals
FAR = "198.51.100.7"  # beyond the gateway (RFC 5737)
AGENT = "/usr/lib/ocf/resource.d/asha/lan-source"


def before_there_was_a_source() -> str:
    """The configuration of 0.1.0, as far as it matters here."""
    kept, inside = [], False
    for line in CIB.read_text().splitlines():
        inside = inside or line.startswith(f"primitive {SOURCE} ")
        if not (inside or SOURCE in line or "o_drbd_then_ip" in line):
            kept.append(line)
        inside = inside and line.endswith("\\")
    return "\n".join([*kept, ""])


@pytest.fixture(scope="module", params=RELEASES)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """As it was before, with telephones of both stacks; the first test upgrades it."""
    with lab_or_skip(release=request.param) as lab:
        running = Cluster(lab)
        running.singles = [name for name in SINGLES if name != SOURCE]
        running.load(before_there_was_a_source())
        node = running.active()
        folder = node.path("/etc/asterisk")
        modules = (folder / "modules.conf").read_text()
        (folder / "modules.conf").write_text(modules.replace("noload => chan_sip.so", ""))
        (folder / "pjsip.conf").write_text((folder / "pjsip.conf").read_text() + PJSIP)
        (folder / "sip.conf").write_text(CHAN_SIP)
        node.run("crm", "resource", "restart", "p_asterisk", timeout=90)
        running.wait_ready()
        yield running


def routes(node: Node, *words: str) -> str:
    return node.run("ip", "-4", "route", *words, check=False).out


def sends_from(node: Node, goal: str) -> str:
    """The source address that the kernel chooses."""
    words = routes(node, "get", goal).split()
    return words[words.index("src") + 1] if "src" in words else ""


def own_address(node: Node) -> str:
    return node.addresses["eth0"].partition("/")[0]


def assert_speaks_from_the_address(cluster: Cluster) -> None:
    """Answers, Contact, Via, SDP and sound of both stacks, and what they send by themselves."""
    with ThreadPoolExecutor() as several:
        listening = {
            port: several.submit(phone, cluster.lab, "listen", str(port), "OPTIONS", "REGISTER")
            for port in (PJSIP_PEER, CHAN_SIP_PEER)
        }
        for port in PORTS:
            said = phone(cluster.lab, "options", VIRTUAL_ADDRESS, str(port))
            assert said["senders"] == [f"{VIRTUAL_ADDRESS}:{port}"]
            call = phone(cluster.lab, "call", VIRTUAL_ADDRESS, str(port))
            assert call["senders"] == [f"{VIRTUAL_ADDRESS}:{port}"]
            assert f"{VIRTUAL_ADDRESS}:{port}" in call["contact"]
            assert (call["sdp"], call["origin"]) == (VIRTUAL_ADDRESS, VIRTUAL_ADDRESS)
            assert call["rtp"] == [VIRTUAL_ADDRESS]
        assert phone(cluster.lab, "poke", VIRTUAL_ADDRESS)["senders"] == [
            f"{VIRTUAL_ADDRESS}:{IAX_PORT}"]
        for waited in listening.values():
            for method, request in waited.result().items():
                assert request["sender"] == VIRTUAL_ADDRESS, method
                assert f"{VIRTUAL_ADDRESS}:" in request["contact"], method
                assert f" {VIRTUAL_ADDRESS}:" in request["via"], method
    assert cluster.audit() == []


def test_without_it_answers_come_from_the_nodes_own_address(cluster: Cluster) -> None:
    """So these tests can fail."""
    node = cluster.active()
    said = phone(cluster.lab, "options", VIRTUAL_ADDRESS, str(PORTS[0]))
    assert said["senders"] == [f"{own_address(node)}:{PORTS[0]}"]


TOLD = """
from asha.asterisk.talk import sip_addresses
told = sip_addresses.ask()
print(*sorted(told.modules), told.identified, told.registers, sep="\\n")
"""
TRAP = """
[trap](!)
type=identify
endpoint=peer
match=198.51.100.9
[caught](trap)
match+=,{address}
"""


def tied(node: Node) -> list[str]:
    """What `asha check` says of Asterisk's files."""
    said = json.loads(node.run("python3", "-m", "asha", "check", "--json", check=False).out)
    return [one["what"] for one in said["findings"] if one["what"].startswith("/etc/asterisk/")]


def test_asha_check_names_the_line_that_ties_to_a_node(cluster: Cluster) -> None:
    """Its files, and what Asterisk says of itself."""
    node = cluster.active()
    told = node.run("python3", "-c", TOLD).out.splitlines()
    assert {"chan_iax2.so", "chan_sip.so", "res_pjsip.so"} <= set(told)
    assert told[-2:] == ["[('known', '198.51.100.9/32')]", "True"]
    [provider] = tied(node)
    assert f"sees the virtual address {VIRTUAL_ADDRESS} as the sender" in provider
    whole = node.run("cat", "/etc/asterisk/pjsip.conf").out
    node.run("tee", "-a", "/etc/asterisk/pjsip.conf", stdin=TRAP.format(address=own_address(node)))
    try:
        line = len(whole.splitlines()) + 7
        assert [one for one in tied(node) if one != provider] == [
            f"/etc/asterisk/pjsip.conf:{line} [caught] match={own_address(node)}: is this node's "
            f"own address, and {VIRTUAL_ADDRESS} is not in the list: the active node sends from "
            "the virtual address"]
    finally:
        node.run("tee", "/etc/asterisk/pjsip.conf", stdin=whole)


def test_an_upgrade_adds_it_and_asterisk_runs_on(cluster: Cluster) -> None:
    node = cluster.active()
    pids = node.pids("asterisk")
    cluster.singles = SINGLES
    cluster.load()
    assert cluster.active() is node
    assert node.pids("asterisk") == pids
    said = phone(cluster.lab, "options", VIRTUAL_ADDRESS, str(PORTS[0]))
    assert said["senders"] == [f"{VIRTUAL_ADDRESS}:{PORTS[0]}"]


def switch(cluster: Cluster) -> Node:
    """Planned; the node that is active then."""
    before = cluster.active()
    cluster.standby(before)
    wait_for(lambda: cluster.state().active not in ("", before.name), "the switch", timeout=90)
    cluster.wait_ready()
    cluster.online(before)
    cluster.wait_ready()
    return cluster.active()


def test_everything_comes_from_the_address_after_a_start_a_switch_and_a_fail_back(
    cluster: Cluster,
) -> None:
    active, passive = cluster.active(), cluster.passive()
    idle = routes(passive, "show")
    assert VIRTUAL_ADDRESS not in idle
    cluster.running[0].run("crm", "resource", "restart", "p_asterisk", timeout=90)
    cluster.wait_ready()
    assert_speaks_from_the_address(cluster)
    assert switch(cluster) is passive
    assert_speaks_from_the_address(cluster)
    assert switch(cluster) is active
    assert_speaks_from_the_address(cluster)
    # A stop leaves what was there before the start.
    assert routes(passive, "show") == idle


@pytest.mark.parametrize("port", PORTS)
def test_a_real_user_agent_registers_and_calls(cluster: Cluster, port: int) -> None:
    """Contact, SDP and the source of SIP and RTP, as SIPp and a firewall see them."""
    text = sipp.scenario(sipp.PLAYS, "alice", "wonder")
    with sipp.firewall(cluster.lab, *map(own_address, cluster.running)) as sound:
        with sipp.Calls(cluster.lab, text, port) as calls:
            calls.wait()
        assert sound() > 0


def test_other_nics_and_the_passive_node_keep_their_own(cluster: Cluster) -> None:
    active, passive = cluster.active(), cluster.passive()
    for node, other in ((active, passive), (passive, active)):
        link = other.addresses["eth1"].partition("/")[0]
        assert sends_from(node, link) == node.addresses["eth1"].partition("/")[0]
        node.run("ping", "-c", "1", "-W", "5", link)
        node.run("ping", "-c", "1", "-W", "5", SWITCHBOARD_ADDRESS)
    assert sends_from(passive, SWITCHBOARD_ADDRESS) == own_address(passive)
    assert sends_from(active, SWITCHBOARD_ADDRESS) == VIRTUAL_ADDRESS


@contextmanager
def undisturbed(cluster: Cluster) -> Iterator[Node]:
    """Asterisk runs on, and Pacemaker sees no failure."""
    node = cluster.active()
    pids = node.pids("asterisk")
    yield node
    assert cluster.wait_ready() == node.name
    assert node.pids("asterisk") == pids
    assert [text for text in cluster.state().failures if SOURCE in text] == []


def test_a_default_route_that_comes_goes_and_changes_is_followed(cluster: Cluster) -> None:
    """As a DHCP client does it: flushed, made anew, with another gateway."""

    def wait_followed(node: Node, gateway: str) -> None:
        wait_for(lambda: f"via {gateway} " in routes(node, "get", FAR)
                 and sends_from(node, FAR) == VIRTUAL_ADDRESS,
                 f"a way by {gateway}", timeout=NEXT_MONITOR)

    with undisturbed(cluster) as node:
        assert routes(node, "get", FAR) == ""
        for gateway in (SWITCHBOARD_ADDRESS, "192.168.1.2"):
            routes(node, "flush", "default")
            routes(node, "add", "default", "via", gateway, "dev", "eth0")
            wait_followed(node, gateway)
            assert f"default via {gateway} dev eth0" in routes(node, "show")
        # No copy outlives what it copied for long.
        routes(node, "del", "default")
        wait_for(lambda: routes(node, "get", FAR) == "", "no way", timeout=NEXT_MONITOR)


def test_a_route_of_the_lan_that_was_rewritten_is_put_back(cluster: Cluster) -> None:
    with undisturbed(cluster) as node:
        routes(node, "flush", "proto", "165")
        wait_for(lambda: sends_from(node, SWITCHBOARD_ADDRESS) == VIRTUAL_ADDRESS,
                 "the source to be put back", timeout=NEXT_MONITOR)
    wait_for(lambda: "put back, as something has changed the routes: 192.168.1.0/24" in
             node.run("journalctl", "-b", "-t", "lan-source", "--no-pager").out, "its word of it")


def test_an_address_that_is_lost_takes_no_route_with_it(cluster: Cluster) -> None:
    """And when it is put back, the source is too."""
    node = cluster.active()

    def others() -> list[str]:
        """Without the copies, which come back with the address in a moment."""
        return [line for line in routes(node, "show").splitlines() if VIRTUAL_ADDRESS not in line]

    before = others()
    node.run("ip", "addr", "del", f"{VIRTUAL_ADDRESS}/24", "dev", "eth0")
    assert others() == before
    node.run("ping", "-c", "1", "-W", "5", SWITCHBOARD_ADDRESS)
    # The LAN's watcher tells, and maybe the address's own monitor: no third time from here, at
    # which it would move.
    wait_for(lambda: sends_from(node, SWITCHBOARD_ADDRESS) == VIRTUAL_ADDRESS,
             "address and source", timeout=90)
    cluster.heal()
    assert cluster.audit() == []


@pytest.mark.parametrize("action", ["start", "stop"])
def test_one_that_fails_costs_no_telephone_a_call(cluster: Cluster, action: str) -> None:
    """The switch goes on without it; when the fault is gone it comes by itself."""
    broken = "#!/bin/sh\n" \
             f'case $1 in {action}) echo "ocf-exit-reason:broken" >&2; exit 1;; esac\n' \
             f'exec {AGENT}.whole "$@"\n'
    for node in cluster.running:
        node.run("cp", "-a", AGENT, f"{AGENT}.whole")
        node.write(AGENT, broken, 0o755)
    before = cluster.active()
    try:
        with Prober(cluster.lab, from_anyone=True) as prober:
            prober.wait_answering(time.monotonic())
            begun = time.monotonic()
            cluster.standby(before)
            wait_for(lambda: cluster.state().active not in ("", before.name), "the switch",
                     timeout=90)
            prober.wait_answering(time.monotonic())
            assert prober.outage(begun) <= by_name("planned").limit * GENEROUS
        wait_for(lambda: any(f"{SOURCE}_{action}" in text for text in cluster.state().failures),
                 f"Pacemaker to show the {action} that failed")
        assert before.pids("asterisk") == []
    finally:
        for node in cluster.running:
            node.run("mv", f"{AGENT}.whole", AGENT)
        cluster.online(before)
    # Its failures are forgotten after a minute.
    cluster.wait_ready(timeout=180)
    assert cluster.audit() == []


def test_no_node_gets_the_address_before_the_disk(cluster: Cluster) -> None:
    """Corosync of the active node stands still: the other one takes it for lost, and asks
    DRBD, which refuses, for Asterisk writes there still."""
    active, passive = cluster.active(), cluster.passive()
    with Prober(cluster.lab) as prober:
        prober.wait_answering(time.monotonic())
        begun = time.monotonic()
        active.kill("corosync", signal.SIGSTOP)
        try:
            wait_for(lambda: "p_drbd_promote" in " ".join(seen_by(passive).failures),
                     "the refusal", timeout=60)
            assert seen_by(passive).online == [passive.name]
            assert VIRTUAL_ADDRESS not in passive.run("ip", "-4", "addr", "show").out
            assert prober.outage(begun) <= UNNOTICED * GENEROUS
        finally:
            active.kill("corosync", signal.SIGCONT)
    cluster.heal()
    assert cluster.audit() == []


def seen_by(node: Node) -> State:
    return parse_state(node.run("crm_mon", "-1", "--output-as=xml", "--inactive").out)


def test_planned_switch(cluster: Cluster) -> None:
    with Prober(cluster.lab) as prober:
        report = play(cluster, prober, by_name("planned"))
    assert report.problems() == []
