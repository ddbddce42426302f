"""The preflight's checks of the network: NICs, addresses, names, the other node, ports."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator

from asha.bootstrap.host import nics
from asha.bootstrap.host.nics import Nic
from asha.bootstrap.host.ports import JOIN_PORT
from asha.bootstrap.preflight.report import CheckContext
from asha.cluster import corosync, drbd, rules
from asha.finding import Finding, error, warning

# Protocol, port, whose it is, and how ss(8) calls its process (none: the kernel).
LISTENERS = (
    ("udp", corosync.PORTS[0], "Corosync", ("corosync",)),
    ("udp", corosync.PORTS[1], "Corosync's second ring", ("corosync",)),
    # The kernel's own, which ss shows without a process, or as that of its maker.
    ("tcp", drbd.PORT, "DRBD", ("drbdsetup",)),
    ("tcp", JOIN_PORT, "asha's join", ("asha", "python3")),
)
PRIVATE = ("a cable straight from node to node, or a tunnel between them as LINKNIC (WireGuard, "
           "MACsec): /usr/share/doc/asha/security.md.gz")
NEIGHBOURS_MOST = 3
# A later folder's file replaces one of the same name (systemd.network(5)).
SYSTEMD_FOLDERS = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")
NETWORKD_CONF = "/etc/systemd/networkd.conf"
# parse_boolean() in src/basic/parse-util.c
SYSTEMD_TRUE = ("1", "yes", "y", "true", "t", "on")
SYSTEMD_FALSE = ("0", "no", "n", "false", "f", "off")
LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


def cards(look: CheckContext) -> Iterator[Finding]:
    """The NICs exist, and there are two where two are configured."""
    site, facts = look.site, look.facts
    there = ", ".join(nic.name for nic in facts.nics) or "none"
    enough = not site.two_nics or len(facts.nics) > 1
    if not enough:
        yield error(f"USENIC1=true: this machine has only one NIC ({there})" if facts.nics
                    else "USENIC1=true: this machine has no NIC",
                    "put in a second NIC, or USENIC1=false (for learning, not for telephones)",
                    "USENIC1")
    for key, name in (("LANNIC", site.lan_nic), ("LINKNIC", site.link_nic)):
        if name and facts.nic(name) is None and (key == "LANNIC" or (site.two_nics and enough)):
            yield error(f"{key}={name}: this machine has no such NIC",
                        f"its NICs are: {there}; set {key} in asha.conf (asha configure)", key)
    if site.two_nics and site.link_nic and site.link_nic == facts.route_nic:
        yield error(f"LINKNIC={site.link_nic}: the way to the router goes through it",
                    f"it is the LAN's NIC; the link's is another one of: {there}", "LINKNIC")


def lan_has_address(look: CheckContext) -> Iterator[Finding]:
    nic = look.facts.nic(look.site.lan_nic)
    if nic is not None and not nic.addresses:
        yield error(f"{nic.name} has no address: the LAN cannot be looked at",
                    f"give it one (DHCP will do), or correct LANNIC={nic.name} in asha.conf",
                    "LANNIC")


def lan(look: CheckContext) -> Iterator[Finding]:
    """The virtual address is in the LAN, with the LAN's own prefix."""
    site = look.site
    nic = look.facts.nic(site.lan_nic)
    if nic is None or not nic.addresses or not site.virtual_address:
        return
    home = nic.in_network(site.virtual_address)
    if home is None:
        networks = ", ".join(str(address.network) for address in nic.addresses)
        yield error(f"CLUSTERIP={site.virtual_address}: is not in {nic.name}'s network {networks}",
                    "choose a free address of the LAN, outside the DHCP server's range",
                    "CLUSTERIP")
    elif site.lan_prefix not in (0, home.prefix) and home.local != site.virtual_address:
        yield error(f"LANPREFIX={site.lan_prefix}: {nic.name} has {home.local}/{home.prefix}",
                    f"LANPREFIX={home.prefix} in asha.conf", "LANPREFIX")


def kept_by_networkd(look: CheckContext) -> Iterator[Finding]:
    """systemd-networkd takes neither the virtual address nor lan-source's routes for leftovers
    (systemd.network(5), networkd.conf(5))."""
    nic = look.site.lan_nic
    if not nic or not look.facts.link.networkd:
        return
    said = look.machine.output("networkctl", "status", nic, "--no-pager", "--lines=0", timeout=5)
    found = re.search(r"^\s*Network File: (/\S+\.network)\s*$", said, re.MULTILINE)
    if not found:
        return  # it leaves this NIC alone
    own = f"network/{found[1].rpartition('/')[2]}.d"
    missing = []
    if _of_networkd(look, "KeepConfiguration", found[1], own) not in ("static", *SYSTEMD_TRUE):
        missing.append(f"KeepConfiguration=static in /etc/systemd/{own}/asha.conf")
    if _of_networkd(look, "ManageForeignRoutes", NETWORKD_CONF, "networkd.conf.d") \
            not in SYSTEMD_FALSE:
        missing.append(f"ManageForeignRoutes=no in {NETWORKD_CONF}.d/asha.conf")
    if missing:
        yield warning(f"{nic} is systemd-networkd's ({found[1]}): its restart or reload takes the "
                      "virtual address and its routes away, until the cluster puts them back "
                      "(1 to 20 s)",
                      f"below [Network]: {' and '.join(missing)}; then systemctl restart "
                      "systemd-networkd")


def _of_networkd(look: CheckContext, key: str, file: str, dropped: str) -> str:
    """The value of a key of that file and its drop-ins, of which the last counts; "" without."""
    places = {place.name: place for folder in SYSTEMD_FOLDERS
              # by name: in root's /usr, /run and /etc
              for place in look.machine.path(f"{folder}/{dropped}").glob("*.conf")}
    texts = [look.machine.read(file)]
    for _, place in sorted(places.items()):
        texts.append(look.machine.read("/" + str(place.relative_to(look.machine.root))))
    values = re.findall(rf"^\s*{key}\s*=\s*(\S*)", "\n".join(filter(None, texts)), re.MULTILINE)
    return values[-1].lower() if values else ""


def virtual_address(look: CheckContext) -> Iterator[Finding]:
    """Nobody has the virtual address; on the second node, nobody but the first."""
    site, facts = look.site, look.facts
    if facts.owned or not site.virtual_address:
        return
    holder = facts.nic_with(site.virtual_address)
    if holder:
        yield error(f"CLUSTERIP={site.virtual_address}: is this machine's own, on {holder.name}",
                    "choose a free address of the LAN: it moves between the nodes", "CLUSTERIP")
        return
    mac = _answers(facts.nic(site.lan_nic), site.virtual_address)
    if not mac or (not site.is_first and look.other is None):
        return
    if look.other is not None and mac in _texts(look.other.get("macs")):
        return
    yield error(f"CLUSTERIP={site.virtual_address}: is taken by another machine in the LAN ({mac})",
                "choose a free address, or find that machine and give it another", "CLUSTERIP")


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _answers(nic: Nic | None, address: str) -> str:
    """The MAC of the machine that has the address; "" also where nobody can be asked."""
    if nic is None or not nic.up:
        return ""
    try:
        return nics.who_has(nic, address)
    except OSError:
        return ""


def cluster_address(look: CheckContext) -> Iterator[Finding]:
    """This node's link address is its own or free, in a network of its own."""
    site, facts = look.site, look.facts
    nic, own = facts.nic(site.link_nic), site.here.address
    key = "ANODEIP" if site.is_first else "BNODEIP"
    if nic is None or not own or (site.two_nics and site.link_nic == site.lan_nic):
        return
    present = nic.holds(own)
    elsewhere = facts.nic_with(own)
    if elsewhere and elsewhere.name != nic.name:
        yield error(f"the cluster address {own} is on {elsewhere.name}, not on {nic.name}",
                    f"take it off {elsewhere.name}, or correct LINKNIC in asha.conf", key)
        return
    if present and site.link_prefix not in (0, present.prefix):
        yield error(f"LINKPREFIX={site.link_prefix}: {nic.name} has {own}/{present.prefix}",
                    f"LINKPREFIX={present.prefix} in asha.conf, on both nodes", "LINKPREFIX")
    if not present and not site.two_nics:
        yield error(f"{nic.name} does not have this node's address {own}",
                    "with one NIC that is its static LAN address: correct asha.conf", key)
        return
    if site.two_nics and site.link_prefix:
        network = ipaddress.IPv4Network((own, site.link_prefix), strict=False)
        yield from _overlaps(look, network, key)
    mac = _answers(nic, own)
    if mac:
        other = site.there.name or "the other node"
        yield error(f"the cluster address {own} is taken by another machine ({mac}) on {nic.name}",
                    f"give this node another, or see whether {other} has it", key)


def _overlaps(
    look: CheckContext, network: ipaddress.IPv4Network, key: str
) -> Iterator[Finding]:
    used = [address.network for nic in look.facts.nics for address in nic.addresses]
    for other in look.facts.nics:
        for address in other.addresses:
            if other.name != look.site.link_nic and address.network.overlaps(network):
                yield error(
                    f"the cluster link's network {network} and {other.name}'s "
                    f"{address.network} overlap",
                    rules.own_subnet(used), key,
                )


def other_address(look: CheckContext) -> Iterator[Finding]:
    """The other node's address is not on this machine."""
    there = look.site.there
    holder = look.facts.nic_with(there.address) if there.address else None
    if holder:
        yield error(f"{there.address} is to be {there.name or 'the other node'}'s and is this "
                    f"machine's own, on {holder.name}", "correct the two addresses in asha.conf",
                    "BNODEIP" if look.site.is_first else "ANODEIP")


def other_node(look: CheckContext) -> Iterator[Finding]:
    """The first node answers on the link, and waits for the second."""
    site = look.site
    if site.is_first or look.facts.owned or look.other is not None:
        return
    peer, nic = site.there, look.facts.nic(site.link_nic)
    if nic is None:
        return
    cable = f"look at the cable on {nic.name}, at {peer.name}'s power and at its address"
    if nic.holds(site.here.address):
        reason = nics.connects(peer.address, JOIN_PORT)
        if reason == "Connection refused":
            yield error(f"{peer.name} ({peer.address}) does not wait for a second node",
                        f"on {peer.name}: finish asha install, then systemctl start asha-join")
        elif reason:
            yield error(f"{peer.name} does not answer at {peer.address} port {JOIN_PORT}: "
                        f"{reason}", cable)
    elif not nic.up:
        yield warning(f"{nic.name} is switched off: {peer.name} could not be looked for",
                      f"ip link set {nic.name} up, then asha check again")
    elif not _answers(nic, peer.address):
        yield error(f"{peer.name} does not answer at {peer.address} on {nic.name}", cable)


def names(look: CheckContext) -> Iterator[Finding]:
    """A name need not resolve, as Corosync and DRBD get addresses; but it must not resolve
    wrongly."""
    site, facts = look.site, look.facts
    own = {address.local for nic in facts.nics for address in nic.addresses}
    for found in _resolved(look, site.here.name):
        if found not in own and ipaddress.IPv4Address(found) not in LOOPBACK:
            yield warning(f"{site.here.name} resolves to {found}, which is not this machine",
                          "correct its line in /etc/hosts")
            break
    for found in _resolved(look, site.there.name):
        if found in own or ipaddress.IPv4Address(found) in LOOPBACK:
            yield warning(f"{site.there.name}, the other node, resolves to {found}: this machine",
                          f"in /etc/hosts: {site.there.address} {site.there.name}")
            break


def _resolved(look: CheckContext, name: str) -> list[str]:
    said = look.machine.output("getent", "ahostsv4", name, timeout=5)
    return list(dict.fromkeys(line.split()[0] for line in said.splitlines() if line.strip()))


def listeners(look: CheckContext) -> Iterator[Finding]:
    """The cluster's ports are free, or the cluster's own."""
    said = look.machine.output("ss", "--no-header", "--listening", "--numeric", "--processes",
                             "--tcp", "--udp")
    for line in said.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        for protocol, number, what, processes in LISTENERS:
            if fields[0] == protocol and fields[4].rpartition(":")[2] == str(number):
                holder = re.search(r'\(\("([^"]*)"', line)
                if holder and holder.group(1) not in processes:
                    yield error(
                        f"port {number}/{protocol}, {what}, is in use by {holder.group(1)}",
                        f"stop that program, or have it listen elsewhere (ss -lp | grep {number})",
                    )


def one_nic(look: CheckContext) -> Iterator[Finding]:
    if not look.site.two_nics:
        yield warning("one NIC: this is for learning, not for a telephone system that matters",
                      "USENIC1=true with a second NIC and a cable between the two nodes")


def private_link(look: CheckContext) -> Iterator[Finding]:
    """The data crosses the link unencrypted, so nobody else may be on it.

    DRBD encrypts nothing, and proves who it is only when it connects (drbd.conf(5),
    cram-hmac-alg). With one NIC the LAN is the link.
    """
    site = look.site
    if not site.two_nics:
        yield warning("the disk's copy crosses the LAN unencrypted: who can listen there reads "
                      "the voice mail and the databases, who can answer for the other node "
                      "changes them", PRIVATE)
        return
    said = look.machine.output("ip", "-json", "neigh", "show", "dev", site.link_nic, timeout=5)
    strangers = sorted(_neighbours(said) - {site.there.address, site.here.address})
    if strangers:
        yield warning(f"the cluster link is shared: {', '.join(strangers[:NEIGHBOURS_MOST])} on "
                      f"{site.link_nic} can read and change the disk's copy, which crosses the "
                      "link unencrypted", PRIVATE)


def _neighbours(said: str) -> set[str]:
    """The IPv4 addresses that have answered there (ip-neighbour(8))."""
    try:
        entries = json.loads(said or "[]")
        return {
            str(entry["dst"])
            for entry in entries
            if "lladdr" in entry and "FAILED" not in entry["state"] and "." in str(entry["dst"])
        }
    except (ValueError, TypeError, KeyError):
        return set()


def second_ring(look: CheckContext) -> Iterator[Finding]:
    """Corosync's second ring uses the LAN, where addresses must not change."""
    site, nic = look.site, look.facts.nic(look.site.lan_nic)
    if not site.two_nics or nic is None or not nic.addresses or site.here.lan:
        return
    if all(address.dynamic for address in nic.addresses):
        yield warning(f"{nic.name}'s address is leased (DHCP): Corosync has no second ring "
                      "through the LAN",
                      "a static LAN address on both nodes gives the cluster a second way")
