"""Targets that take a text: what a program prints, what a person or another host wrote."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path

from asha.asterisk.talk import sip_transports
from asha.bootstrap import facts
from asha.bootstrap.configure import interview
from asha.bootstrap.facts import Facts
from asha.bootstrap.firewall import fail2ban, nftables, shorewall
from asha.bootstrap.firewall.fail2ban import OURS
from asha.bootstrap.host import nics
from asha.bootstrap.host.ports import allowed, openings
from asha.bootstrap.preflight import peer
from asha.bootstrap.steps import link_address
from asha.bootstrap.takeover import state as records
from asha.cluster import corosync, drbd, pacemaker, secret
from asha.cluster import site as conf
from asha.cluster.site import SiteError
from asha.conf import values_of
from asha.data import binds, mountinfo, paths
from asha.data.binds import Bind
from asha.errors import UserError
from asha.lan import arp
from asha.ocf.state import StateFile
from asha.relay.contract import Position
from asha.relay.numato import Numato
from asha.relay.rhino import Rhino
from asha.run.deadline import Deadline
from asha.run.runner import Completed
from asha.run.text import lines, plain, printable
from tests.fakes.machine import FakeMachine, Outcome
from tests.fuzz import mutate, samples
from tests.fuzz.target import Wrong, target, text

SITE = conf.parse(samples.SITE)


class Babbler(FakeMachine):
    """Every program is installed, ends well, and prints what the input says."""

    def __init__(self, root: Path, said: str) -> None:
        super().__init__(root)
        self.said = said

    def has(self, program: str) -> bool:
        return True

    def _answer(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        try:
            return super()._answer(argv, stdin)
        except AssertionError:
            return Outcome(self.said)


# The rule for text.

@target("text", *samples.of("test_text.py", "\x1b"), "Ünïcode\n\ttext")
def _text(data: bytes, scratch: Path) -> None:
    """asha.run.text: what is shown can be shown."""
    for raw in (text(data), data.decode("latin-1")):
        for made in (printable(raw), plain(raw), lines(raw)):
            made.encode()
            if not all(one.isprintable() or one in "\n\t" for one in made):
                raise Wrong(f"{made!r} is not printable")
        if "\n" in printable(raw) or not plain(raw).isascii():
            raise Wrong("more than a line, or more than ASCII")


# What comes over the LAN.

MAC = bytes.fromhex("525400000001")
# A whole answer of 192.168.1.1 to that card.
ARP_REPLY = MAC + bytes.fromhex(
    "525400000002 0806 0001 0800 06 04 0002 525400000002 c0a80101") + MAC + bytes(4)


@target("arp", ARP_REPLY, ARP_REPLY + bytes(18), arp.question(MAC, "192.168.1.11", "192.168.1.1"))
def _arp(data: bytes, scratch: Path) -> None:
    """asha.lan.arp: who answers."""
    found = arp.answerer(data, MAC)
    if found and str(IPv4Address(found)) != found:
        raise Wrong(f"{found!r} is no address")


# The kernel. Its format is its own; the names in it are everybody's.

def _mount_line(rng: random.Random) -> bytes:
    def path() -> bytes:
        made = b"/" + b"/".join(mutate.name(rng) for _ in range(rng.randrange(3)))
        for mark, code in ((b"\\", b"\\134"), (b" ", b"\\040"), (b"\t", b"\\011"),
                           (b"\n", b"\\012")):
            made = made.replace(mark, code)
        return made

    return b"".join(
        b"%d %d 8:%d %s %s rw,nosuid - ext4 %s rw\n"
        % (number, rng.randrange(number), rng.randrange(300), path(), path(), path())
        for number in range(1, rng.randrange(2, 8))
    )


@target("mountinfo", make=_mount_line)
def _mountinfo(data: bytes, scratch: Path) -> None:
    """/proc/self/mountinfo with any names in it."""
    file = scratch / "mountinfo"
    file.write_bytes(data)
    mounts = mountinfo.read(str(file))
    if len(mounts) != data.count(b"\n"):
        raise Wrong(f"{len(mounts)} mounts")
    for mount in mounts:
        if mountinfo.unescape(mountinfo.escape(mount.point)) != mount.point:
            raise Wrong(f"{mount.point!r} does not come back")
        mountinfo.visible(mounts, mount.point)
        mountinfo.holding(mounts, mount.point)
    mountinfo.below(mounts, mounts)
    bind = [Bind(mount.device, mount.root, mount.point) for mount in mounts]
    memory = StateFile(str(scratch / "binds"))
    binds.save(memory, bind)
    again = [one.to_line() for one in binds.load(memory)]
    if again != [one.to_line() for one in bind]:
        raise Wrong("the binds' state file does not come back")


@target("binds", "8:1 /opt /opt/sark\n8:1 /var\\040x /var/x\\134\n", "8:1 / /\n")
def _binds(data: bytes, scratch: Path) -> None:
    """The state file of the binds: nothing, where it is damaged."""
    (scratch / "binds").write_bytes(data)
    binds.load(StateFile(str(scratch / "binds")))


@target("paths", "/etc/asterisk:asterisk /var/lib/mysql:mysql? /opt/sark/www/origrecs?")
def _paths(data: bytes, scratch: Path) -> None:
    """The parameter paths."""
    for item in paths.parse(text(data), "/drbd"):
        if not item.path.startswith("/") or "/../" in f"{item.path}/":
            raise Wrong(f"{item.path!r} is no path of its own")


# What people write.

@target("asha.conf", samples.SITE, *samples.of("test_cluster_site.py", "CLUSTERIP="),
        errors=(SiteError,))
def _conf(data: bytes, scratch: Path) -> None:
    """asha.conf, and as the answers of debconf and of asha configure --answers."""
    said = text(data)
    place = scratch / "asha.conf"
    place.write_bytes(data)
    machine = FakeMachine(scratch)
    values, findings = interview.complete(machine, facts.Facts("crm1"), values_of(said))
    if not findings:
        conf.parse(interview.render(values, said))
    conf.read(str(place), strict=True)


@target("secret", secret.Secret(bytes(range(32))).text, errors=(ValueError,))
def _secret(data: bytes, scratch: Path) -> None:
    """The secret, typed and in its file."""
    place = scratch / "secret"
    place.write_bytes(data)
    place.chmod(0o600)
    try:
        secret.Secret.parse(text(data))
    except ValueError as wrong:
        str(wrong).encode("utf-8", "surrogateescape")
    secret.Secret.read(place)


@target("corosync.conf", *samples.of("test_cluster_corosync.py", "nodelist {"),
        corosync.render(SITE, joined=True))
def _corosync(data: bytes, scratch: Path) -> None:
    """corosync.conf, also as the other node gives it."""
    corosync.parse(text(data))


# What programs print.

@target("drbd", *samples.of("test_cluster_drbd.py", "cs:"),
        *samples.of("test_cluster_drbd.py", "version: 8"), json.dumps([{
            "name": "asha", "role": "Primary", "devices": [{"disk-state": "UpToDate"}],
            "connections": [{"connection-state": "Connected", "peer-role": "Secondary",
                             "peer_devices": [{"replication-state": "SyncSource",
                                               "peer-disk-state": "Inconsistent",
                                               "percent-in-sync": 33.5, "out-of-sync": 42,
                                               "db1/dt1 [MiB/s]": 1.5,
                                               "estimated-seconds-to-finish": 8}]}]}]))
def _drbd(data: bytes, scratch: Path) -> None:
    """DRBD's state, as JSON, in /proc and in words: never raises."""
    said = text(data)
    try:
        drbd.parse_json(said, "9.2.0")
        drbd.parse_proc(said, "8.4.11", 1000)
        drbd.status(Babbler(scratch, said).put("/proc/drbd", said))
    except UserError as trouble:
        raise Wrong(f"raises {trouble}") from None


@target("crm_mon", samples.file("cluster_crm_mon_2.1.xml"), samples.file("cluster_crm_mon_3.0.xml"))
def _crm_mon(data: bytes, scratch: Path) -> None:
    """crm_mon's XML."""
    state = pacemaker.parse(text(data))
    state.busy, state.active_node, state.has_fencing  # noqa: B018


RULESET = json.dumps({"nftables": [
    {"metainfo": {"version": "1.0.6"}},
    {"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 1,
               "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
    {"chain": {"family": "inet", "table": "asha", "name": "input", "handle": 1,
               "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 7,
              "comment": "asha: udp 5405 from 10.0.3.252 on eth1",
              "expr": [{"match": {}}, {"jump": {"target": "x"}}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "x", "handle": 8,
              "expr": [{"counter": {}}, {"goto": {"target": "y"}}, {"drop": None}]}},
]})


@target("nft", RULESET)
def _nft(data: bytes, scratch: Path) -> None:
    """nft's JSON: the rules of other programs among ours."""
    machine = Babbler(scratch, text(data))
    nftables.in_force(machine, openings(SITE))
    nftables.load(machine, openings(SITE))
    nftables.unload(machine)


LINKS = json.dumps([{
    "ifname": "eth1", "flags": ["UP", "LOWER_UP"], "link_type": "ether", "address": "0:1:2:3:4:5",
    "linkinfo": {"info_kind": "veth"}, "dev": "eth0",
    "addr_info": [{"family": "inet", "local": "10.0.3.251", "prefixlen": 24, "scope": "global",
                   "dynamic": True}]}])


@target("machine", LINKS, "asterisk 1:22.1 installed\nNTPSynchronized=yes\n", "8.4.11\n",
        "Id=asterisk.service\nLoadState=loaded\nUnitFileState=enabled\nActiveState=active\n",
        "root:x:0:0:root:/root:/bin/sh\nasterisk:x:117:121::/:/bin/false\n")
def _machine(data: bytes, scratch: Path) -> None:
    """Everything that is asked of a machine: ip, dpkg, systemctl, /etc/passwd, the disks."""
    said = text(data)
    machine = Babbler(scratch, said).put("/etc/passwd", said).put("/etc/group", said)
    machine.put("/proc/swaps", said)
    found = facts.gather(machine)
    for fact in fields(Facts):
        getattr(found, fact.name)
    for nic in nics.read(machine):
        nic.in_network("10.0.3.252")
        nic.holds("10.0.3.252")
    interview.complete(machine, found, values_of(samples.SITE))
    link_address.has_address(SITE, machine)


@target("ifupdown", "auto lo\niface lo inet loopback\n\nauto eth1\niface eth1 inet static\n"
        "    address 10.0.3.251/24\n", "source /etc/network/interfaces.d/*\n",
        "[Match]\nName=eth1\n[Network]\nAddress=10.0.3.251/24\n")
def _ifupdown(data: bytes, scratch: Path) -> None:
    """The network's files, ifupdown's above all."""
    said = text(data)
    machine = Babbler(scratch, "").put("/etc/network/interfaces", said)
    machine.put("/etc/network/interfaces.d/x", said).put("/etc/systemd/network/x.network", said)
    for action in link_address.actions(SITE, link_address.look(machine, nics.read(machine))):
        action.is_done(machine)
        action.preview(machine)
        action.script()


@target("shorewall", "fw firewall\nnet ipv4\n", "net eth0 detect dhcp\nlan eth1:1 physical=$NET\n",
        "?SECTION NEW\nACCEPT net $FW tcp 22\n# asha begin\nACCEPT x\n# asha end\nDROP net all\n",
        "export NET=\"eth1\"\nX=${NET}\n")
def _shorewall(data: bytes, scratch: Path) -> None:
    """Shorewall's files: every line of the administrator's is there afterwards."""
    said = text(data)
    machine = Babbler(scratch, "")
    for name in ("zones", "interfaces", "policy", "rules", "params"):
        machine.put(f"{shorewall.DIRECTORY}/{name}", said)
    before = machine.read(f"{shorewall.DIRECTORY}/rules") or ""
    [action] = shorewall.actions(SITE, allowed(SITE, machine))
    action.preview(machine)
    action.do(machine, lambda text: None)
    after = machine.read(f"{shorewall.DIRECTORY}/rules") or ""
    theirs, inside = [], False
    for line in before.split("\n"):
        if line == shorewall.BEGIN and not inside:
            inside = True
        elif line == shorewall.END and inside:
            inside = False
        elif not inside:
            theirs.append(line)
    left = after.split("\n")
    for line in theirs:
        if line not in left:
            raise Wrong(f"a line is gone: {line!r}")
        left.remove(line)


@target("fail2ban", "[DEFAULT]\nignoreip = 127.0.0.1/8 ::1\n  10.0.0.1 ; x\n",
        "[INCLUDES]\nbefore = x.conf\n  jail.conf\nafter = jail.local\n",
        "[sshd]\nignoreip = %(known/ignoreip)s 1.2.3.4, 2.3.4.5\nenabled = true\n",
        "ignoreip\n  x\n")
def _fail2ban(data: bytes, scratch: Path) -> None:
    """fail2ban's files, included ones too."""
    said = text(data)
    machine = Babbler(scratch, "")
    for place in ("jail.conf", "jail.local", "jail.d/x.conf", "x.conf"):
        machine.put(f"/etc/fail2ban/{place}", said)
    [action] = fail2ban.actions(SITE, fail2ban.look(machine))
    action.is_done(machine)
    action.do(machine, lambda text: None)
    if SITE.there.address not in (machine.read(OURS) or ""):
        raise Wrong("the other node is not ignored")


# What ASHA wrote itself, on a disk that was damaged.

@target("handover.json", json.dumps({
    "owner": [1, "2", "boot"], "stage": records.MOVING, "fingerprint": "x", "runit": ["mysql"],
    "units": [{"name": "asterisk.service", "enabled": "enabled", "active": True}], "paused": [],
    "moved": [{"path": "/etc/asterisk", "aside": "/etc/asterisk.asha-1"}]}))
def _handover(data: bytes, scratch: Path) -> None:
    """What an unfinished installation has written down."""
    machine = FakeMachine(scratch).put(records.RECORD, text(data))
    found = records.load(machine)
    if found is not None:
        found.is_orphaned(machine), found.is_ours, found.reached(records.MOVING)


# What the other node tells, once it has proved the secret.

THEIRS: Mapping[str, object] = {
    "name": "crm2", "device": "/dev/sda5", "size": 1 << 30, "clock": 1e9, "received": 1e9,
    "nodes": {"crm1": "10.0.3.251", "crm2": "10.0.3.252"}, "users": {"asterisk": 117},
    "groups": {"asterisk": 121}, "versions": {"asterisk": "22.1"},
    "agree": conf.agreement(SITE), "relay": "crm1", "first": False,
}


@target("agreement", json.dumps(THEIRS))
def _agreement(data: bytes, scratch: Path) -> None:
    """The other node's facts, compared with ours."""
    try:
        other = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(other, dict):  # as asha.bootstrap.join.client makes sure
        babbler = Babbler(scratch, "")
        own = facts.shared_facts(babbler, SITE, facts.gather(babbler))
        for finding in peer.compare({**THEIRS, **own, "name": "crm1"}, other):
            printable(f"{finding.what} {finding.hint}").encode()


# A relay card.

class _Tty:
    """A card that answers this."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def in_waiting(self) -> int:
        return min(len(self._data), 7)

    def read(self, size: int) -> bytes:
        part, self._data = self._data[:size], self._data[size:]
        return part

    def write(self, data: bytes) -> int:
        return len(data)

    def reset_input_buffer(self) -> None: ...

    def reset_output_buffer(self) -> None: ...

    def close(self) -> None: ...


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@target("relay", "relay on 3\r\n>relay read 3\r\non\r\n>", "relay read 3\n\roff\n\r>",
        "RELAYON: ok\n")
def _relay(data: bytes, scratch: Path) -> None:
    """A Numato module's answers, and what the Rhino's program prints."""
    clock = _Clock()
    deadline = Deadline(5.0, clock, clock.sleep)
    card = Numato("/dev/ttyACM0", 3, lambda device: _Tty(data))
    card.read(deadline)

    def run(*argv: str, cap: float | None = None) -> Completed:
        return Completed(argv, 1, text(data), data.decode("latin-1"))

    try:
        Rhino("/dev/ttyUSB0", "/bin/true", run).command(Position.ON, deadline)
    finally:
        card.command(Position.ON, Deadline(5.0, clock, clock.sleep))


# What Asterisk says in many lines.

@target("sockets", *samples.of("test_asterisk_sip_transports.py", "\n"))
def _sockets(data: bytes, scratch: Path) -> None:
    """Asterisk's lists of SIP sockets, and what is remembered of them."""
    for stack in ("pjsip", "sip"):
        found = sip_transports._entries(stack, text(data))
        sip_transports.read(sip_transports.kept(found))
        sip_transports.wanted(found)
    sip_transports.read(text(data))
