"""The cluster's members, changed on the node that runs: one node more, one node less.

The telephones depend on this node's quorum (``no-quorum-policy=stop``), so every change is
checked afterwards and undone if it cost the quorum. Seen on Corosync 3.1.7 and 3.1.9: a reload
from one node to two with ``two_node``, also with a second link, and back to one, keeps quorum
without a gap; a survivor that waits for all has quorum from the moment at which it is told to
be alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from asha.cluster import corosync
from asha.cluster import site as conf
from asha.cluster.site import NodeConfig, Site, SiteError
from asha.conf import values_of, with_values
from asha.errors import UserError
from asha.machine import Machine

# Corosync takes a new configuration within a second; a machine under load gets more.
VERIFY_SECONDS = 10.0
EVERY = 0.2
# A node that was switched off is missed after Corosync's token and consensus, 2.2 s.
MISSED_SECONDS = 10.0
# After a boot Pacemaker takes as long until it can be told something.
PACEMAKER_SECONDS = 30.0

MEMBER = re.compile(r"runtime\.members\.(\d+)\.(ip|status) \(str\) = (.*)")
ADDRESS = re.compile(r"ip\(([^)]*)\)")
NAME = re.compile(r"nodelist\.node\.\d+\.name \(str\) = (\S+)")


def quorate(machine: Machine) -> bool | None:
    """Whether this node has quorum; None where Corosync does not run."""
    try:
        said = machine.run("corosync-quorumtool", "-s", timeout=20, check=False).out
    except UserError:
        return None
    match = re.search(r"^Quorate:\s+(Yes|No)", said, re.MULTILINE)
    return match.group(1) == "Yes" if match else None


def members(machine: Machine) -> dict[int, tuple[str, ...]]:
    """The addresses, by node id, of the nodes that are in the cluster now."""
    found: dict[tuple[int, str], str] = {}
    for line in machine.output("corosync-cmapctl", "runtime.members.").splitlines():
        if match := MEMBER.fullmatch(line.strip()):
            found[int(match.group(1)), match.group(2)] = match.group(3)
    return {
        number: tuple(ADDRESS.findall(found.get((number, "ip"), "")))
        for (number, key), value in found.items()
        if key == "status" and value == "joined"
    }


def add_node(machine: Machine, site: Site, lan: str, runs: bool = False) -> Site:
    """Have the cluster expect the other node, whose static LAN address is ``lan`` or "".

    ``runs``: it says that its Corosync runs, so it may be in the cluster already.

    Returns the site with that address, which asha.conf then has too. Called again it changes
    nothing that is right. Raises UserError; then everything is as before.
    """
    there = site.there
    _know_corosync(machine, site)
    present = members(machine).get(there.nodeid)
    if present is not None and runs and there.address in present:
        return site
    if present is not None and not _is_gone(machine, there):
        raise UserError(
            f"a node {there.name} is in the cluster already, at {' and '.join(present)}",
            "switch that machine off first, if this one is to take its place",
        )
    joined = with_lan(machine, site, lan)
    # What was set for, or went wrong on, the machine that had this name before.
    _purge(machine, there)
    _change(machine, corosync.render(joined, joined=True, have_met=False))
    remember(machine, {peer.name: peer.lan for peer in (joined.first, joined.second)})
    return joined


def agreed(machine: Machine) -> str:
    """The corosync.conf that the other node must have too."""
    return corosync.once_met(machine.read(corosync.CONF) or "")


def settle(machine: Machine, site: Site) -> bool:
    """Once the second node has come: from now on neither boots alone. True if this call did it."""
    text = machine.read(corosync.CONF) or ""
    settled = corosync.once_met(text)
    if settled == text or site.there.nodeid not in members(machine):
        return False
    # Corosync reads wait_for_all only when it starts: no reload.
    machine.write(corosync.CONF, settled)
    return True


def is_forgotten(machine: Machine, site: Site) -> bool:
    """Whether the other node is unknown to Corosync, on disk and running."""
    on_disk = {node.name for node in corosync.parse(machine.read(corosync.CONF) or "").nodes}
    return site.there.name not in on_disk | running_names(machine)


def need_gone(machine: Machine, site: Site) -> None:
    """Raises UserError unless Corosync runs here and the other node is not in the cluster."""
    _know_corosync(machine, site)
    if site.there.nodeid in members(machine):
        raise UserError(
            f"{site.there.name} is in the cluster: nothing was changed",
            f"move its services here and switch it off, then: asha remove-node {site.there.name}",
        )


def forget(machine: Machine, site: Site) -> None:
    """Make this node a cluster of its own, also after a reboot.

    Raises UserError if the other node is in the cluster, or the quorum would be lost; then
    everything is as before.
    """
    there = site.there
    need_gone(machine, site)
    # Corosync first: without quorum, as after a reboot alone, Pacemaker decides nothing.
    if not is_forgotten(machine, site):
        _change(machine, corosync.render(site, joined=False))
    _purge(machine, there)


def remember(machine: Machine, lan: Mapping[str, str]) -> None:
    """Write the nodes' LAN addresses, by name, to asha.conf; everything else in it stays."""
    values = values_of(machine.read(conf.CONF) or "")
    _note(machine, {f"{side}NODELAN": lan.get(values.get(f"{side}NODENAME", ""), "")
                    for side in "AB"})


def card(site: Site) -> dict[str, str]:
    """For the other node: the relay card, in asha.conf's keys. {} where there is none."""
    relay = site.relay
    return {} if relay is None else {
        "RHINOUSB": relay.device, "RELAYDRIVER": relay.driver, "RELAYNUMBER": str(relay.number),
        "RELAYPROGRAM": relay.program, "RELAYNODE": relay.node,
    }


def remember_card(machine: Machine, site: Site, told: object) -> None:
    """Write the other node's card to asha.conf, if this node knows of none: then asha cib
    prints the same on both. Invalid values are left out."""
    if site.relay is not None or not isinstance(told, dict):
        return
    new = {key: told.get(key) for key in ("RHINOUSB", "RELAYDRIVER", "RELAYNUMBER",
                                          "RELAYPROGRAM", "RELAYNODE")}
    lines = {key: value for key, value in new.items()
             if isinstance(value, str) and value.isprintable()}
    if len(lines) < len(new) or lines["RELAYNODE"] != site.there.name:
        return
    with suppress(SiteError):
        conf.site_of(values_of(machine.read(conf.CONF) or "") | lines)
        _note(machine, lines)


def _note(machine: Machine, lines: Mapping[str, str]) -> None:
    """Write these values to asha.conf; everything else in it stays."""
    text = machine.read(conf.CONF) or ""
    new = with_values(text, lines)
    if new != text:
        mode = machine.path(conf.CONF).stat().st_mode & 0o7777
        machine.write(conf.CONF, new, mode=mode)


def _is_gone(machine: Machine, there: NodeConfig) -> bool:
    """Whether it has left the cluster: it takes a moment to be missed."""
    return not machine.wait_while(lambda: there.nodeid in members(machine), MISSED_SECONDS, EVERY)


def _purge(machine: Machine, there: NodeConfig) -> None:
    """Have Pacemaker forget the node's failures, standby and all else. A missing node is no
    error."""

    def refusal() -> str:
        done = machine.run("crm_node", "-R", there.name, "--force", timeout=30, check=False)
        return "" if done.ok else done.complaint

    if why := machine.wait_while(refusal, PACEMAKER_SECONDS, EVERY):
        raise UserError(f"Pacemaker does not forget {there.name}: {why}",
                        "systemctl status pacemaker tells more; then run this again")


def with_lan(machine: Machine, site: Site, lan: str) -> Site:
    """The same site with the other node's LAN address. Raises UserError."""
    values = values_of(machine.read(conf.CONF) or "")
    side = "A" if values.get("ANODENAME") == site.there.name else "B"
    try:
        return conf.site_of({**values, f"{side}NODELAN": lan})
    except SiteError as wrong:
        raise UserError(f"{site.there.name}'s LAN address is invalid here: {wrong}",
                        f"{side}NODELAN in asha.conf on {site.there.name}: correct it, or leave "
                        "it empty") from None


def _know_corosync(machine: Machine, site: Site) -> None:
    """Raises UserError unless Corosync runs with the nodes of asha.conf."""
    if quorate(machine) is None:
        raise UserError(
            f"the cluster does not run on {site.here.name}",
            f"on {site.here.name}: systemctl start corosync pacemaker",
        )
    ids = {peer.name: peer.nodeid for peer in (site.first, site.second)}
    for node in corosync.parse(machine.read(corosync.CONF) or "").nodes:
        if ids.get(node.name) != node.nodeid:
            raise UserError(
                f"{corosync.CONF} on {site.here.name} has a node {node.name} with the number "
                f"{node.nodeid}, asha.conf has {' and '.join(f'{n} {i}' for n, i in ids.items())}",
                f"on {site.here.name}: asha plan shows what it should be",
            )


def running_names(machine: Machine) -> set[str]:
    """The nodes that the running Corosync knows; none where it does not run."""
    return set(NAME.findall(machine.output("corosync-cmapctl", "nodelist.node.")))


def _change(machine: Machine, text: str) -> None:
    """Put ``text`` in force. If anything goes wrong, the old file is in force again."""
    before = machine.read(corosync.CONF) or ""
    wanted = {node.name for node in corosync.parse(text).nodes}
    needs_quorum = bool(quorate(machine)) or len(wanted) == 1
    machine.write(corosync.CONF, text)
    try:
        machine.run("corosync-cfgtool", "-R", timeout=30)
        _verify(machine, wanted, needs_quorum)
    except BaseException:
        machine.write(corosync.CONF, before)
        machine.run("corosync-cfgtool", "-R", timeout=30, check=False)
        raise


def _verify(machine: Machine, wanted: set[str], needs_quorum: bool) -> None:

    def problem() -> str:
        if running_names(machine) != wanted:
            return "was not taken by Corosync"
        return "would have cost the quorum" if needs_quorum and not quorate(machine) else ""

    if what := machine.wait_while(problem, VERIFY_SECONDS, EVERY):
        raise UserError(f"the change of {corosync.CONF} {what} and was rolled back",
                        "journalctl -u corosync tells more")
