"""Step 10: this node's permanent address on the cluster link.

The program that manages the link's NIC on this machine gets it: NetworkManager,
systemd-networkd or ifupdown. If something gives the NIC this address already, that stays. A
machine with one NIC has nothing to set: its LAN address is the link's.

The address must be there without a cable too: the other node may be off, or not exist yet, and
Corosync binds to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from asha.bootstrap.action import Action, Call, Run, Say, Write
from asha.bootstrap.host import nics, services
from asha.bootstrap.host.nics import Nic
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

INTERFACES = "/etc/network/interfaces"
IFUPDOWN = "/etc/network/interfaces.d/asha-link"
NETWORKD = "/etc/systemd/network/10-asha-link.network"
NM_PROFILE = "/etc/NetworkManager/system-connections/asha-link.nmconnection"
NM_DEVICE = "/etc/NetworkManager/conf.d/asha-link.conf"

# Where somebody may have given the NIC its address for good.
DEFINITIONS = (
    INTERFACES,
    "/etc/network/interfaces.d/*",
    "/etc/systemd/network/*.network",
    "/run/systemd/network/*.network",
    "/etc/NetworkManager/system-connections/*",
    "/etc/netplan/*.yaml",
    "/etc/dhcpcd.conf",
)

DEBIANS = "source /etc/network/interfaces.d/*\n"

# Until a network daemon has done what it was told.
ADDRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Found:
    """What sets addresses on this machine. ``devices``: state by NIC, as NetworkManager has
    them. ``files``: what defines addresses, by path. The defaults are those of a Debian."""

    nics: tuple[Nic, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    networkd: bool = False
    ifupdown: bool = True
    files: Mapping[str, str] = field(default_factory=lambda: {INTERFACES: DEBIANS})


def look(machine: Machine, found: tuple[Nic, ...]) -> Found:
    """``found``: the machine's NICs."""
    return Found(
        nics=found,
        devices=_nm_devices(machine)
        if services.is_active(machine, "NetworkManager.service")
        else {},
        networkd=services.is_active(machine, "systemd-networkd.service"),
        ifupdown=machine.has("ifup") and machine.exists(INTERFACES),
        files=dict(_texts(machine)),
    )


def actions(site: Site, found: Found) -> list[Action]:
    if not site.two_nics:
        return []
    ruler = _ruler(site, found)
    if _holds(site, found.nics):
        # Also when it is done: a written script asks for the step by its name.
        done = [_wait(site)]
        if ruler is None or _is_permanent(site, found):
            return done
        # Somebody gave it by hand: it would be gone after the next boot.
        return [*ruler, *done]
    if reason := _in_the_way(site, found):
        return [_refuse(site, *reason)]
    if ruler is None:
        return [_refuse(
            site,
            "nothing on this machine sets addresses: neither NetworkManager, "
            "systemd-networkd nor ifupdown",
            f"apt install ifupdown; or give {site.link_nic} the address "
            f"{site.here.address}/{site.link_prefix} so that it is there after each boot, "
            "and run this again",
        )]
    return [*ruler, _wait(site)]


def has_address(site: Site, machine: Machine) -> bool:
    """Whether the link's NIC has this node's address now."""
    return _holds(site, nics.read(machine))


def _holds(site: Site, found: tuple[Nic, ...]) -> bool:
    link = next((nic for nic in found if nic.name == site.link_nic), None)
    address = link.holds(site.here.address) if link else None
    return address is not None and address.prefix == site.link_prefix


def _is_permanent(site: Site, found: Found) -> bool:
    """Whether some definition on this machine names the address."""
    whole = re.compile(rf"(?<![\d.]){re.escape(site.here.address)}(?![\d.])")
    return any(whole.search(text) for text in found.files.values())


def _texts(machine: Machine) -> Iterator[tuple[str, str]]:
    for pattern in DEFINITIONS:
        # by name: in root's /etc and /run
        for place in sorted(machine.root.glob(pattern.lstrip("/"))):
            inside = "/" + str(place.relative_to(machine.root))
            if place.is_file() and (text := machine.read(inside)) is not None:
                yield inside, text


# Who rules the NIC.

def _ruler(site: Site, found: Found) -> list[Action] | None:
    """The actions that give the address to what manages the NIC; None where nothing does."""
    # NetworkManager leaves to ifupdown what /etc/network/interfaces names.
    if found.devices.get(site.link_nic, "unmanaged") != "unmanaged":
        return _network_manager(site)
    if found.networkd:
        return _networkd(site)
    if found.ifupdown:
        return _ifupdown(site, found)
    return None


def _nm_devices(machine: Machine) -> dict[str, str]:
    """NIC -> state, as NetworkManager has it."""
    devices: dict[str, str] = {}
    for line in machine.output("nmcli", "-t", "-f", "DEVICE,STATE", "device").splitlines():
        # A colon within a name is escaped; the state has none.
        device, _, state = line.replace("\\:", ":").rpartition(":")
        devices.setdefault(device, state)
    return devices


def _network_manager(site: Site) -> list[Action]:
    profile = f"""\
# The cluster link, written by asha.
[connection]
id=asha-link
type=ethernet
interface-name={site.link_nic}
autoconnect=true
autoconnect-priority=100

[ipv4]
method=manual
address1={site.here.address}/{site.link_prefix}
never-default=true

[ipv6]
method=disabled
"""
    device = f"""\
# The cluster link keeps its address when the other node is off. Written by asha.
[device-asha-link]
match-device=interface-name:{site.link_nic}
ignore-carrier=yes
"""
    return [
        Write(NM_DEVICE, device, why=f"keep {site.link_nic}'s address without a cable"),
        Write(NM_PROFILE, profile, mode=0o600, why=f"{site.link_nic}'s address: {NM_PROFILE}"),
        _apply(site, "have NetworkManager read its configuration", "nmcli", "general", "reload"),
        _apply(site, "have NetworkManager read the profile",
               "nmcli", "connection", "load", NM_PROFILE),
        _apply(site, f"set {site.link_nic}'s address", "nmcli", "connection", "up", "asha-link"),
    ]


def _networkd(site: Site) -> list[Action]:
    text = f"""\
# The cluster link, written by asha.
[Match]
Name={site.link_nic}

[Link]
RequiredForOnline=no

[Network]
Address={site.here.address}/{site.link_prefix}
ConfigureWithoutCarrier=yes
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
    return [
        Write(NETWORKD, text, why=f"{site.link_nic}'s address: {NETWORKD}"),
        _apply(site, "have systemd-networkd read it", "networkctl", "reload"),
        _apply(site, f"set {site.link_nic}'s address", "networkctl", "reconfigure",
               site.link_nic),
    ]


def _ifupdown(site: Site, found: Found) -> list[Action]:
    up = _apply(site, f"set {site.link_nic}'s address", "ifup", "--force", site.link_nic)
    if any(path != IFUPDOWN for path, _ in _stanzas(site, found)):
        return [up]  # the right one is there already: anything else is in the way
    text = f"""\
# The cluster link, written by asha.
auto {site.link_nic}
iface {site.link_nic} inet static
    address {site.here.address}/{site.link_prefix}
"""
    made: list[Action] = [Write(IFUPDOWN, text, why=f"{site.link_nic}'s address: {IFUPDOWN}")]
    main = found.files.get(INTERFACES, "")
    if not re.search(r"^\s*source(-directory)?\s+\S*interfaces\.d", main, re.MULTILINE):
        sourced = f"{main.rstrip()}\n\nsource {IFUPDOWN}\n".lstrip()
        made.append(Write(INTERFACES, sourced, why=f"have {INTERFACES} read it"))
    return [*made, up]


# What prevents it.

def _stanzas(site: Site, found: Found) -> Iterator[tuple[str, str]]:
    """(file, stanza) of each IPv4 definition of the NIC in ifupdown's files."""
    stanza = re.compile(
        rf"^[ \t]*iface[ \t]+{re.escape(site.link_nic)}[ \t]+inet[ \t].*"
        r"(?:\n(?![ \t]*(?:iface|auto|allow-|mapping|source|no-auto-down)\b).*)*",
        re.MULTILINE,
    )
    for path, text in found.files.items():
        if path.startswith(INTERFACES):
            for match in stanza.finditer(text):
                yield path, match.group()


def _in_the_way(site: Site, found: Found) -> tuple[str, str] | None:
    for path, stanza in _stanzas(site, found):
        if path != IFUPDOWN and not re.search(
            rf"^\s*address\s+{re.escape(site.here.address)}(/|\s|$)", stanza, re.MULTILINE
        ):
            return (
                f"{path} gives {site.link_nic} another configuration: "
                f"{stanza.splitlines()[0].strip()}",
                f"take {site.link_nic}'s lines (auto, allow-hotplug, iface) out of it, "
                f"run: ifdown --force {site.link_nic}",
            )
    return None


def _refuse(site: Site, what: str, hint: str) -> Action:
    """An action that raises when it is done, so that a plan can be shown before the cause is
    fixed."""

    def work(machine: Machine, say: Say) -> None:
        raise UserError(what, hint)

    return Call(
        name="link-address",
        title=f"give {site.link_nic} the address {site.here.address}/{site.link_prefix}",
        what=f"CANNOT: {what}\n{hint}",
        work=work,
        done=lambda machine: has_address(site, machine),
    )


def _apply(site: Site, title: str, *argv: str) -> Run:
    return Run(
        title=title,
        argv=argv,
        done=lambda machine: has_address(site, machine),
        timeout=90.0,
        hint=f"is {site.link_nic} there (ip link)? journalctl -b tells more",
    )


def _wait(site: Site) -> Action:
    def work(machine: Machine, say: Say) -> None:
        if machine.wait_while(
            lambda: not has_address(site, machine), ADDRESS_SECONDS,
            meanwhile=lambda *_: say(f"waiting for {site.link_nic}'s address"),
        ):
            raise UserError(
                f"{site.link_nic} has no address {site.here.address}/{site.link_prefix} "
                f"{ADDRESS_SECONDS:.0f} s after it was told",
                f"look at: ip addr show dev {site.link_nic}; does another configuration "
                "claim the NIC?",
            )

    return Call(
        name="link-address",
        title=f"wait until {site.link_nic} has the address",
        what=f"wait up to {ADDRESS_SECONDS:.0f} s until {site.link_nic} has "
             f"{site.here.address}/{site.link_prefix}",
        work=work,
        done=lambda machine: has_address(site, machine),
    )
