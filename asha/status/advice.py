"""What a person should know of a Status, and what to do about it.

A warning needs action now: the telephones are silent, or the other node could not take over. A
note is a permanent property of the site, or a past event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asha import lan
from asha.cluster.pacemaker import TELEPHONES, Ban
from asha.data.space import size
from asha.status.model import NOTE, WARNING, CrashLoop, Finding, Node, Service, Status
from asha.status.switchover import Preference

# Free percent of the store, as sark-data's low_space.
LOW_SPACE = 10

NOT_TO_BE_TESTED = "do not test a fail-over before it ends: asha sync --watch"


@dataclass(frozen=True)
class Context:
    """What the findings need besides the Status. None: not known."""

    other: str = ""
    fencing: bool | None = None
    two_nics: bool = True
    second_ring: bool = True
    lan_watched: bool = False
    alert: str = ""
    cut_off: bool = False
    clock_is_set: bool | None = None
    space: str = ""
    damage: str = ""
    # What is wrong with this node's secret, and the hint.
    secret: tuple[str, str] = ("", "")
    # What is degraded, in the agents' words.
    asterisk: str = ""
    source: str = ""
    kept: tuple[Preference, ...] = ()
    bans: tuple[Ban, ...] = ()
    maintenance: bool = False
    pacemaker_hangs: bool = False
    trouble: tuple[str, ...] = ()
    # Whether somebody on this node takes SIP at its port, at whichever address.
    sip_is_taken: bool = False


def findings(status: Status, about: Context) -> tuple[Finding, ...]:
    """The findings, warnings first."""
    return tuple(found for part in (
        _installation(status, about),
        _blocked(status),
        _service(status, about),
        _crash_loops(status),
        _nodes(status, about),
        _lan(status, about),
        _disks(status),
        _links(status),
        _secrets(status, about),
        _space(status, about),
        _resources(status, about),
        _notes(status, about),
    ) for found in part)


def _installation(status: Status, about: Context) -> Iterator[Finding]:
    for trouble in about.trouble:
        yield Finding(WARNING, trouble)
    if about.cut_off:
        yield Finding(WARNING, "an installation is running here, or was interrupted",
                      "if none is running: asha install (it resumes)")
    elif not status.configured:
        yield Finding(WARNING, "this machine is not configured", "asha configure, asha install")
    elif not status.installed:
        yield Finding(WARNING, "this machine is not a node of the cluster yet", "asha install")


# What Asterisk cannot do without.
NEEDED = ("p_drbd", "p_fs", "p_data", "p_ip")

# By which the active node sends from the virtual address.
SOURCE = "p_source"

# Exit code of a monitor that found it dead (OCF_NOT_RUNNING).
NOT_RUNNING = "7"

# What cannot be stopped and needs no power cut: a relay that is broken.
HARMLESS = ("p_line",)


def _stuck(status: Status) -> list[Service]:
    """What could not be stopped, so it must not be started elsewhere. While the telephones go
    on, that is no reason to switch the node off."""
    if status.serves:
        return []
    return [one for one in status.services if one.blocked_on and one.id not in HARMLESS]


def _blocked(status: Status) -> Iterator[Finding]:
    for service in _stuck(status):
        where = service.blocked_on
        this = f"this node ({where})" if where == status.node else where
        then = "on the other node" if where == status.node else "here"
        yield Finding(WARNING, f"{service.title}: {service.why}",
                      f"switch {this} off, by its power: the other node waits for that; then "
                      f"asha status {then}; see asha(8), FENCING")


def _service(status: Status, about: Context) -> Iterator[Finding]:
    if not status.installed:
        return
    if not status.pacemaker:
        if about.pacemaker_hangs:
            yield Finding(WARNING, "Pacemaker does not answer on this node",
                          "journalctl -u corosync -u pacemaker tells why")
        else:
            yield Finding(WARNING, "Pacemaker does not run on this node: it can take nothing over",
                          "systemctl start pacemaker; journalctl -u corosync -u pacemaker")
        if status.address is not None and status.address_answers is not None:
            answers = "answers" if status.address_answers else "does not answer"
            holder = status.address.node
            has = "" if not holder else f": {holder} has it" if holder != status.node else \
                ": this node has it, and nothing watches it"
            yield Finding(NOTE, f"SIP at {status.address.address} {answers}{has}")
        return
    if status.serves and status.address and status.address_answers is False and about.sip_is_taken:
        yield Finding(WARNING, f"SIP at {status.address.address} does not answer, though Asterisk "
                               "runs: it listens at another address, or a firewall is in the way",
                      "ss -lntup; see transport in pjsip.conf, bindaddr in sip.conf; asha check")
    if not status.quorum:
        yield Finding(WARNING, "this node sees no quorum and may run nothing",
                      "start the other node; check the cables between the two")
    if about.maintenance:
        yield Finding(WARNING, "the cluster is in maintenance mode: nothing is watched or moved",
                      "crm maintenance off")
    for kept in about.kept:
        if kept.until is None:
            yield Finding(WARNING, f"a permanent constraint of `crm resource move` keeps "
                                   f"{kept.resource} on {kept.node}",
                          f"crm resource clear {kept.resource}")
        else:
            yield Finding(WARNING, f"a switchover to {kept.node} is running or was interrupted",
                          f"it ends by itself at {kept.until.astimezone():%H:%M:%S}")
    for ban in about.bans:
        if ban.id.startswith("drbd-fence"):
            yield Finding(WARNING, f"{ban.node} may not take over until its disk is UpToDate",
                          "asha sync --watch")
        else:
            yield Finding(WARNING, f"{ban.resource} may not run on {ban.node} ({ban.id})",
                          f"crm resource clear {ban.resource}")


def _crash_loops(status: Status) -> Iterator[Finding]:
    for one in status.crash_loops:
        how = f" by {one.how}" if one.how else ""
        yield Finding(WARNING, f"crash loop: Asterisk has died {one.count} times on {one.node}, "
                               f"every {one.between} s, the last time at {one.last[11:19]}{how}",
                      f"on {one.node}: journalctl -u asterisk and the log in /var/log/asterisk "
                      f"tell what came before; {_core(one)}")


def _core(loop: CrashLoop) -> str:
    """Where the core is that the last death left: core(5)."""
    if not loop.core:
        return "the last death left no core"
    if loop.core.startswith("|"):
        program = loop.core[1:].split(" ")[0]
        if program.endswith("systemd-coredump"):
            return "the core: coredumpctl info asterisk"
        return f"the core went to {program}"
    if loop.core.startswith("/"):
        return f"the core: {loop.core} (see core(5))"
    return f"the core: {loop.core} in the working directory of asterisk.service (see core(5))"


def _nodes(status: Status, about: Context) -> Iterator[Finding]:
    if not status.pacemaker:
        return
    if len(status.nodes) == 1:
        other = about.other or "the second node"
        yield Finding(WARNING, f"only {status.nodes[0].name} is in the cluster: no fail-over yet",
                      f"install {other}: apt install ./asha_*.deb, asha install")
    for node in status.nodes:
        if node.state != "online":
            yield _node(node)


def _node(node: Node) -> Finding:
    name = node.name
    if node.state == "standby":
        return Finding(WARNING, f"{name} is in standby and takes nothing over",
                       f"asha online {name}")
    if node.state == "maintenance":
        return Finding(WARNING, f"{name} is in maintenance: nothing is watched there",
                       f"crm node ready {name}")
    if node.state == "pending":
        return Finding(WARNING, f"{name} is just joining the cluster", "wait a minute")
    if node.state == "unclean":
        return Finding(WARNING, f"{name} is UNCLEAN: its state is unknown and it is not fenced",
                       f"switch {name} off, then on again")
    if node.here:  # or who would say so?
        return Finding(WARNING, f"this node ({name}) is not in the cluster yet",
                       "wait a minute; then: journalctl -b -u corosync -u pacemaker")
    return Finding(WARNING, f"{name} is offline: there is no fail-over",
                   f"check the power and the cluster link of {name}")


# What is wrong with a dead LAN, and what to look at, on that node.
DEAD_LAN = {
    lan.NO_CARRIER: ("no carrier, or no network card",
                     "check the cable, the switch's port and: ip link, on {node}"),
    lan.NO_ANSWER: ("neither the gateway nor the other node answers",
                    "check the switch and what is between; ip neigh, on {node}"),
}


def _lan(status: Status, about: Context) -> Iterator[Finding]:
    for node in status.nodes:
        if node.state in ("offline", "pending", "unclean"):
            continue
        if node.lan in DEAD_LAN:
            why, hint = DEAD_LAN[node.lan]
            then = "the telephones stay there until the other node's LAN is good" \
                if node.active else "it is no place for the telephones"
            yield Finding(WARNING, f"the LAN of {node.name} is dead ({why}): {then}",
                          hint.format(node=node.name))
        elif node.lan == lan.UNSTEADY:
            yield Finding(NOTE, f"the LAN of {node.name} works, and is trusted once it has held "
                                "for half a minute, after several losses for longer",
                          f"wait; journalctl -u asha-lan, on {node.name}")
        elif not node.lan and about.lan_watched:
            yield Finding(NOTE, f"the LAN of {node.name} is not watched",
                          f"on {node.name}: systemctl status asha-lan; asha install enables it")


def _disks(status: Status) -> Iterator[Finding]:
    disks = status.disks
    if disks is None:
        if status.installed:
            yield Finding(WARNING, "DRBD does not hold the disk on this node: it has no copy "
                                   "of what is written now", "drbdadm status asha; dmesg")
        return
    if disks.in_sync:
        return
    if disks.syncing:
        yield Finding(WARNING, "the disks are resynchronising", NOT_TO_BE_TESTED)
        return
    for name, disk in ((disks.node, disks.disk), (disks.peer, disks.peer_disk)):
        if disk in ("Failed", "Diskless"):
            yield Finding(WARNING, f"{name} has lost its disk for the store",
                          f"see dmesg and drbdadm status asha on {name}")
    if disks.connection == "StandAlone":
        yield Finding(WARNING, "DRBD split brain: both nodes wrote while disconnected",
                      "decide whose data is kept; see asha(8), SPLIT BRAIN")
    elif disks.connection != "Connected":
        if any(not node.here and node.state == "online" for node in status.nodes):
            yield Finding(WARNING, f"the disks are not connected ({disks.connection or 'unknown'})",
                          "check the cluster link and the other node")
    elif "Failed" not in (disks.disk, disks.peer_disk):
        yield Finding(WARNING, f"the disks are not in sync ({disks.node} {disks.disk}, "
                               f"{disks.peer} {disks.peer_disk})", NOT_TO_BE_TESTED)


def _links(status: Status) -> Iterator[Finding]:
    peers = [node for node in status.nodes if not node.here and node.state != "offline"]
    for link in status.links:
        if peers and link.state != "connected":
            yield Finding(WARNING, f"cluster link {link.number} ({link.address}) is "
                                   f"{link.state}", "check its cable, NIC and switch")


def _secrets(status: Status, about: Context) -> Iterator[Finding]:
    if about.secret[0]:
        yield Finding(WARNING, *about.secret)
    changing = [one for one in status.secrets if one.coming]
    if changing:
        where = ", ".join(f"{one.node} from {one.id} to {one.coming}" for one in changing)
        yield Finding(WARNING, f"a change of the cluster secret is not finished ({where})",
                      "asha secret rotate, on either node, finishes it")
    elif len({one.id for one in status.secrets}) > 1:
        where = ", ".join(f"{one.node} {one.id}" for one in status.secrets)
        others = [one.node for one in status.secrets if one.node != status.node]
        yield Finding(WARNING, f"the nodes' secrets differ ({where}): "
                               f"{' and '.join(others)} cannot come back",
                      f"on {' and '.join(others)}: asha secret rotate, which asks for the one of "
                      f"{status.node}")


def _space(status: Status, about: Context) -> Iterator[Finding]:
    hint = "remove old recordings and voicemail, or grow the disk"
    if status.store is not None and status.store.total:
        percent = status.store.free * 100 // status.store.total
        if percent < LOW_SPACE:
            yield Finding(WARNING, f"the store has only {size(status.store.free)} "
                                   f"({percent} %) left", hint)
    elif about.space.startswith(("low", "full")):
        yield Finding(WARNING, f"the store is {about.space}", hint)
    if about.damage:
        # A corrupt database, or a directory that is left out: the agent's own words.
        yield Finding(WARNING, f"a problem with the data on the store: {about.damage}",
                      "do what it says (a restart, which ends all calls: crm resource restart "
                      "p_data); journalctl -t sark-data tells more")


def _resources(status: Status, about: Context) -> Iterator[Finding]:
    if not status.pacemaker:
        return
    stuck = _stuck(status)
    telephones = next((one for one in status.services if one.id == TELEPHONES), None)
    silent = telephones is not None and not telephones.runs
    for service in status.services:
        if service in stuck or (stuck and service.state in ("failed", "stopped")):
            continue  # the others wait for what is stuck
        if service.id == "p_line" and silent and service.state == "stopped":
            continue  # it follows the telephones
        if _given_up(status, service):
            nodes = " and ".join(service.given_up_on)
            look = "asha evidence list, journalctl -u asterisk" if service.id == TELEPHONES else \
                "journalctl -u pacemaker"
            yield Finding(WARNING, f"{service.title}: given up after too many failures on {nodes}, "
                                   f"tried again within 30 s; the last: {service.why}",
                          f"crm resource cleanup {service.id} tries it now; why: "
                          f"{look}, on {nodes}")
        elif service.state == "failed":
            yield Finding(WARNING, f"{service.title}: {service.why or 'failed'}",
                          f"fix it, then: crm resource cleanup {service.id}")
        elif service.state == "stopped":
            yield Finding(WARNING, f"{service.title}: not running"
                                   f"{': ' + service.why if service.why else ''}",
                          f"crm resource cleanup {service.id}; journalctl -u pacemaker")
        elif service.state == "unmanaged":
            yield Finding(WARNING, f"{service.title}: not managed by the cluster",
                          f"crm resource manage {service.id}")
        elif service.id == TELEPHONES and about.asterisk:
            yield Finding(WARNING, f"{service.title}: degraded: {about.asterisk}",
                          f"on {status.active}: journalctl -t asterisk-health tells more")
        elif service.id == SOURCE and about.source:
            yield Finding(WARNING, f"{service.title}: degraded: {about.source}",
                          f"on {status.active}: ip route; journalctl -t lan-source tells more")
        elif service.degraded:
            yield Finding(NOTE, f"{service.title}: works now; earlier: {service.why}",
                          f"nothing to do; to forget it: crm resource cleanup {service.id}")
        elif service.id == TELEPHONES and service.action == "monitor":
            # A hang leaves evidence, a death does not.
            look = "journalctl -u asterisk" if service.code == NOT_RUNNING else \
                "asha evidence show last"
            yield Finding(WARNING, f"{service.title}: restarted after a failure: {service.why}",
                          f"why: {look}, on {service.failed_on}; "
                          f"then: crm resource cleanup {service.id}")
        elif service.why:
            yield Finding(WARNING, f"{service.title}: restarted after a failure: {service.why}",
                          f"see why; then: crm resource cleanup {service.id}")
    if status.calls is not None and status.calls.trouble:
        yield Finding(NOTE, f"calls not known: {status.calls.trouble}")


def _given_up(status: Status, service: Service) -> bool:
    """Whether no node is left on which the telephones may start, and this is a reason for it."""
    online = {node.name for node in status.nodes if node.state == "online"}
    vital = [one for one in status.services if one.id in (*NEEDED, TELEPHONES)]
    if service.id == TELEPHONES:
        may_be_it = all(one.runs for one in vital if one is not service)  # or it waits for them
    else:
        may_be_it = service in vital
    nowhere = {name for one in vital for name in one.given_up_on}
    return may_be_it and service.state in ("failed", "stopped") and bool(service.given_up_on) \
        and bool(online) and online <= nowhere


def _notes(status: Status, about: Context) -> Iterator[Finding]:
    if status.pacemaker and about.fencing is False:
        cut = "both links are" if about.two_nics else "its link is"
        yield Finding(NOTE, f"NO FENCING: if a node hangs, or {cut} cut, both nodes may run and "
                            "their data part", "see asha(8), FENCING")
    if status.configured and not about.two_nics:
        yield Finding(NOTE, "ONE NIC for all: good for learning, not for telephones")
    elif status.installed and not about.second_ring and len(status.nodes) != 1:
        yield Finding(NOTE, "no second ring: one cut cable separates the nodes",
                      "give both nodes static LAN addresses (ANODELAN, BNODELAN)")
    if about.clock_is_set is False:
        yield Finding(NOTE, "the clock is not synchronised: logs and call records will not agree",
                      "apt install systemd-timesyncd")
    if about.alert:
        yield Finding(NOTE, f"mail to {about.alert} is asked for, and this version sends none")
