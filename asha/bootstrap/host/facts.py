"""What this machine is. Reads, and changes nothing."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field

from asha.bootstrap.host import disks, nics
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.host.nics import Nic
from asha.cluster import cib, drbd
from asha.cluster.site import Site, agreement
from asha.errors import UserError
from asha.machine import Machine

# There while the services belong to the cluster.
MARKER = cib.MARKER

# Whose files are in the store, under their numbers.
OWNERS = ("asterisk", "mysql", "www-data", "openldap")
PACKAGES = ("mariadb-server", "apache2", "pacemaker", "corosync", "drbd-utils", "crmsh", "slapd")

# Without epoch and Debian's revision: "1:22.10.1~dfsg-2" is 22.10.1.
UPSTREAM = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class Facts:
    """``versions`` has upstream's numbers of what is installed, ``users`` and ``groups``
    the numbers by name. ``synchronised`` is None where nobody can tell."""

    name: str
    nics: tuple[Nic, ...] = ()
    route_nic: str = ""
    users: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    synchronised: bool | None = None
    systemd: bool = True
    root: bool = True
    owned: bool = False
    free_disks: tuple[Disk, ...] = ()
    serial_devices: tuple[str, ...] = ()

    def nic(self, name: str) -> Nic | None:
        return next((nic for nic in self.nics if nic.name == name), None)

    def nic_with(self, address: str) -> Nic | None:
        return next((nic for nic in self.nics if nic.holds(address)), None)


def gather(machine: Machine) -> Facts:
    """Ask the machine everything; about a second. What cannot be told is left out."""
    return Facts(
        name=node_name(machine),
        nics=nics.read(machine),
        route_nic=nics.default_route_nic(machine),
        users=numbers(machine, "/etc/passwd"),
        groups=numbers(machine, "/etc/group"),
        versions=versions(machine),
        synchronised=_synchronised(machine),
        # sd_booted(3)
        systemd=machine.path("/run/systemd/system").is_dir(),
        root=os.geteuid() == 0,
        owned=machine.exists(MARKER),
        free_disks=disks.candidates(machine),
        serial_devices=serial_devices(machine),
    )


def node_name(machine: Machine) -> str:
    return machine.output("uname", "-n").strip()


def serial_devices(machine: Machine) -> tuple[str, ...]:
    """What a line relay may be; first the names that stay when other devices come and go."""
    return tuple(
        f"/dev/{place.relative_to(machine.path('/dev'))}"
        for pattern in ("serial/by-id/*", "ttyUSB*", "ttyACM*")
        # by name: the kernel's and udev's own
        for place in sorted(machine.path("/dev").glob(pattern))
    )


def numbers(machine: Machine, path: str) -> dict[str, int]:
    """The uids of /etc/passwd or the gids of /etc/group, by name.

    Not by getent: the owners of services are local, and a directory service that
    hangs must not hang us.
    """
    found = {}
    for line in (machine.read(path) or "").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal() and len(fields[2]) <= 10:
            found[fields[0]] = int(fields[2])
    return found


def versions(machine: Machine) -> dict[str, str]:
    """Upstream version numbers by package; "asterisk" by its own word, and "drbd" the
    kernel's module. What is not installed is not in it."""
    found = {}
    for line in _query(machine, "dpkg-query", "--show",
                       "--showformat=${Package} ${Version} ${db:Status-Status}\\n",
                       *PACKAGES).splitlines():
        name, _, rest = line.partition(" ")
        version, _, status = rest.partition(" ")
        if status == "installed":
            found[name] = _upstream(version)
    # Often built from source: no package would know it.
    asterisk = _query(machine, "asterisk", "-V")
    if asterisk.startswith("Asterisk"):
        found["asterisk"] = _upstream(asterisk.removeprefix("Asterisk").strip().split("/")[-1])
    found["drbd"] = _upstream(drbd.version(machine))
    return {name: version for name, version in found.items() if version}


def _query(machine: Machine, *argv: str) -> str:
    """What a program prints, also where it could not tell everything and fails."""
    try:
        return machine.run(*argv, timeout=20, check=False).out
    except UserError:
        return ""


def _upstream(version: str) -> str:
    match = UPSTREAM.match(version)
    return match.group(1) if match else ""


def _synchronised(machine: Machine) -> bool | None:
    said = machine.output("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    return {"yes": True, "no": False}.get(said)


def shared_facts(machine: Machine, site: Site) -> dict[str, object]:
    """What the other node has to know of this one: see asha.bootstrap.preflight.peer.

    Goes into JSON. "clock" is this moment, Unix time in seconds; the receiver adds its
    own as "received", so that the two clocks can be compared at any time after.
    """
    return {
        "name": site.here.name,
        "first": site.is_first,
        "nodes": {peer.name: peer.address for peer in (site.first, site.second)},
        # As asha.conf has it, which is what a join tells as well.
        "lan": site.here.lan,
        "agree": agreement(site),
        "relay": site.relay.node if site.relay else "",
        "macs": [nic.mac for nic in nics.read(machine)],
        "device": site.device,
        "size": _size(machine, site.device),
        "users": numbers(machine, "/etc/passwd"),
        "groups": numbers(machine, "/etc/group"),
        "versions": versions(machine),
        "clock": time.time(),
    }


def static_lan_address(found: tuple[Nic, ...], site: Site) -> str:
    """This node's own address in the LAN, "" where it is leased or there is none."""
    for nic in found:
        if nic.name == site.lan_nic:
            for address in nic.addresses:
                if address.local != site.virtual_address and not address.dynamic:
                    return address.local
    return ""


def _size(machine: Machine, device: str) -> int:
    """Bytes; 0 where it cannot be read."""
    try:
        return disks.size_of(machine, device)
    except OSError:
        return 0
