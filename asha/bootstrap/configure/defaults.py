"""What the machine suggests as an answer, "" where it suggests nothing.

Its objections to an answer are in asha.bootstrap.preflight.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from asha.bootstrap.configure.context import Asking, Choices, Values
from asha.bootstrap.host.nics import Nic
from asha.cluster.rules import is_address, spare_network
from asha.cluster.site import KEYS
from asha.data.space import size
from asha.relay import NUMBERED

# The manual's: the first node's and the second's, on a link of their own.
FIRST_HOST, SECOND_HOST = 251, 252
STANDARD = {key.name: key.default or "" for key in KEYS}


# Which node, which name.

def role_default(asking: Asking) -> str:
    return "second" if asking.values.get("PRIMARY") == "false" else "first"


def role(asking: Asking, answer: str) -> Values:
    return {"PRIMARY": "true" if answer == "first" else "false"}


def other_name(asking: Asking) -> str:
    """For crm1 it is crm2: the same name with the next number, on the second node with the one
    before."""
    if known := asking.values.get(asking.other("NAME")):
        return known
    match = re.fullmatch(r"(.*?)(\d+)", asking.facts.name)
    if not match:
        return ""
    number = int(match.group(2)) + (1 if asking.is_first else -1)
    return f"{match.group(1)}{number:0{len(match.group(2))}d}" if number >= 0 else ""


# NICs.

def nic_count_default(asking: Asking) -> str:
    if known := asking.values.get("USENIC1"):
        return "1" if known == "false" else "2"
    return "2" if len(asking.facts.nics) > 1 else "1"


def nic_count(asking: Asking, answer: str) -> Values:
    return {"USENIC1": "true" if answer == "2" else "false"}


def lan_nic(asking: Asking) -> str:
    """The NIC towards the router; without a route the one that fits the virtual address, or the
    only one with an address."""
    known = asking.values.get("LANNIC", "")
    if asking.facts.nic(known):
        return known
    if asking.facts.nic(asking.facts.route_nic):
        return asking.facts.route_nic
    virtual = asking.values.get("CLUSTERIP", "")
    if is_address(virtual):
        fitting = [nic.name for nic in asking.facts.nics if nic.in_network(virtual)]
        if len(fitting) == 1:
            return fitting[0]
    addressed = [nic.name for nic in asking.facts.nics if nic.addresses]
    return addressed[0] if len(addressed) == 1 else ""


def link_nic(asking: Asking) -> str:
    if asking.one_nic:
        return asking.values.get("LANNIC", "")
    known = asking.values.get("LINKNIC", "")
    left = [nic for nic in asking.facts.nics if nic.name != asking.values.get("LANNIC")]
    if any(nic.name == known for nic in left):
        return known
    bare = [nic for nic in left if not nic.addresses]
    for group in (left, bare):
        if len(group) == 1:
            return group[0].name
    return ""


def nic_choices(asking: Asking) -> Choices:
    return tuple((nic.name, about(nic)) for nic in asking.facts.nics)


def about(nic: Nic) -> str:
    addresses = ", ".join(f"{one.local}/{one.prefix}" for one in nic.addresses)
    return addresses or ("no address" if nic.carrier else "no address, no cable")


# Addresses.

def virtual_default(asking: Asking) -> str:
    return asking.values.get("CLUSTERIP", "")


def lan_prefix(asking: Asking) -> str:
    nic, virtual = asking.lan(), asking.values.get("CLUSTERIP", "")
    home = nic.in_network(virtual) if nic and is_address(virtual) else None
    return str(home.prefix) if home else asking.values.get("LANPREFIX", "24")


def lan_is_known(asking: Asking) -> bool:
    nic = asking.lan()
    return nic is not None and bool(nic.addresses)


def lan_in_words(asking: Asking) -> str:
    nic = asking.lan()
    return about(nic) if nic and nic.addresses else "its network was not found"


def own_address(asking: Asking) -> str:
    known = asking.values.get(asking.own("IP"), "")
    link = asking.link()
    present = [one.local for one in link.addresses
               if not one.dynamic and one.local != asking.values.get("CLUSTERIP")] if link else []
    if known and (known in present or not asking.one_nic):
        return known
    if present:
        return present[0]
    return "" if asking.one_nic else convention(asking)


def convention(asking: Asking) -> str:
    """The manual's 10.0.3.251 and .252, unless the LAN has that network."""
    network = spare_network(one.network for nic in asking.facts.nics for one in nic.addresses)
    return str(network[FIRST_HOST if asking.is_first else SECOND_HOST]) if network else ""


def free_subnet(asking: Asking) -> str:
    link = asking.values.get("LINKNIC")
    return str(spare_network(one.network for nic in asking.facts.nics if nic.name != link
                             for one in nic.addresses) or "192.168.0.0/24")


def link_prefix(asking: Asking) -> str:
    link = asking.link()
    present = link.holds(asking.values.get(asking.own("IP"), "")) if link else None
    return str(present.prefix) if present else asking.values.get("LINKPREFIX", "24")


def other_address(asking: Asking) -> str:
    """The next address, on the second node the one before."""
    if known := asking.values.get(asking.other("IP")):
        return known
    own = asking.values.get(asking.own("IP"), "")
    if asking.one_nic or not is_address(own):
        return ""
    home = ipaddress.IPv4Network((own, 24), strict=False)
    other = ipaddress.IPv4Address(own) + (1 if asking.is_first else -1)
    return str(other) if other in home and other not in (home[0], home[-1]) else ""


# The disk.

def device_default(asking: Asking) -> str:
    known = asking.values.get("DRBDDEV", "")
    free = asking.facts.free_disks
    return known or (free[0].path if len(free) == 1 else "")


def device_choices(asking: Asking) -> Choices:
    return tuple((disk.path, f"free, {size(disk.size)}") for disk in asking.facts.free_disks)


# Mail, and the line.

def relay_device(asking: Asking) -> str:
    found = asking.facts.serial_devices if has_relay(asking) else ()
    return asking.values.get("RHINOUSB") or (found[0] if found else STANDARD["RHINOUSB"])


def relay_devices(asking: Asking) -> Choices:
    return tuple((device, "") for device in asking.facts.serial_devices)


def site_id(asking: Asking) -> str:
    return asking.values.get("SITEID") or f"{asking.facts.name} cluster"


def relay_default(asking: Asking) -> str:
    if asking.values.get("RHINOSPF", "").upper() == "YES":
        return "here"
    return "there" if asking.values.get("RELAYNODE") == other(asking) else "none"


def other(asking: Asking) -> str:
    return asking.values.get(asking.other("NAME")) or "?"


def relay(asking: Asking, answer: str) -> Values:
    return {"RHINOSPF": "YES" if answer == "here" else "NO",
            "RELAYNODE": other(asking) if answer == "there" else ""}


def has_relay(asking: Asking) -> bool:
    return asking.values.get("RHINOSPF") == "YES" or bool(asking.values.get("RELAYNODE"))


def has_several_relays(asking: Asking) -> bool:
    return has_relay(asking) and asking.values.get("RELAYDRIVER") in NUMBERED


def kept(name: str) -> Callable[[Asking], str]:
    """The value of the earlier asha.conf, or the key's default."""
    return lambda asking: asking.values.get(name) or STANDARD[name]
