"""The facts of this machine. Reads, and changes nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from asha.bootstrap.firewall import backends
from asha.bootstrap.host import disks, nics
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.host.nics import Nic
from asha.bootstrap.steps import data, link_address
from asha.bootstrap.steps import systemd as unit_steps
from asha.cluster import cib, drbd
from asha.cluster.site import Site, agreement
from asha.errors import UserError
from asha.machine import Machine

# Whose files are in the store, under their numbers.
OWNERS = ("asterisk", "mysql", "www-data", "openldap")
PACKAGES = ("mariadb-server", "apache2", "pacemaker", "corosync", "drbd-utils", "crmsh", "slapd")

# The module that is in the kernels of Debian 12 and 13.
DEBIANS_DRBD = "8.4.11"

# Without epoch and Debian's revision: "1:22.10.1~dfsg-2" is 22.10.1.
UPSTREAM = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class Facts:
    """All that questions, checks and steps need to know of a machine. The defaults are those of
    a customer's Debian that was not looked at.

    ``versions`` has upstream's version numbers of what is installed; ``users`` and ``groups``
    have numbers by name. ``synchronised`` is None where that is unknown. ``drbd``: the version
    of the kernel's module. ``copied``: from where to where data is copied, for a person to
    read.
    """

    name: str
    nics: tuple[Nic, ...] = ()
    route_nic: str = ""
    users: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    synchronised: bool | None = None
    systemd: bool = True
    root: bool = True
    owned: bool = False
    free_disks: tuple[Disk, ...] = ()
    serial_devices: tuple[str, ...] = ()
    # What only the steps go by.
    link: link_address.Found = field(default_factory=link_address.Found)
    firewall: backends.Found = field(default_factory=backends.Found)
    services: unit_steps.Found = field(default_factory=unit_steps.Found)
    drbd: str = DEBIANS_DRBD
    copied: tuple[str, ...] = ("  each directory that sark-data binds, where it is there",)

    def nic(self, name: str) -> Nic | None:
        return next((nic for nic in self.nics if nic.name == name), None)

    def nic_with(self, address: str) -> Nic | None:
        return next((nic for nic in self.nics if nic.holds(address)), None)


class _Gathered(Facts):
    """Each fact is asked for once, when it is first needed, so a command pays only for what it
    uses."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @cached_property
    def name(self) -> str:
        return self._machine.output("uname", "-n").strip()

    @cached_property
    def nics(self) -> tuple[Nic, ...]:
        return nics.read(self._machine)

    @cached_property
    def route_nic(self) -> str:
        return nics.default_route_nic(self._machine)

    @cached_property
    def users(self) -> Mapping[str, int]:
        return numbers(self._machine, "/etc/passwd")

    @cached_property
    def groups(self) -> Mapping[str, int]:
        return numbers(self._machine, "/etc/group")

    @cached_property
    def versions(self) -> Mapping[str, str]:
        return versions(self._machine, self.drbd)

    @cached_property
    def synchronised(self) -> bool | None:
        return _synchronised(self._machine)

    @cached_property
    def systemd(self) -> bool:
        # sd_booted(3)
        return self._machine.path("/run/systemd/system").is_dir()

    @cached_property
    def root(self) -> bool:
        return os.geteuid() == 0

    @cached_property
    def owned(self) -> bool:
        return self._machine.exists(cib.MARKER)

    @cached_property
    def free_disks(self) -> tuple[Disk, ...]:
        return disks.candidates(self._machine)

    @cached_property
    def serial_devices(self) -> tuple[str, ...]:
        return serial_devices(self._machine)

    @cached_property
    def link(self) -> link_address.Found:
        return link_address.look(self._machine, self.nics)

    @cached_property
    def firewall(self) -> backends.Found:
        return backends.look(self._machine)

    @cached_property
    def services(self) -> unit_steps.Found:
        return unit_steps.look(self._machine)

    @cached_property
    def drbd(self) -> str:
        return drbd.version(self._machine)

    @cached_property
    def copied(self) -> tuple[str, ...]:
        return tuple(data.look(self._machine))


def gather(machine: Machine) -> Facts:
    """This machine's facts, for one command. Changes nothing.

    Reading a fact may raise UserError or OSError; what cannot be found out is left out.
    """
    return _Gathered(machine)


def serial_devices(machine: Machine) -> tuple[str, ...]:
    """What may be a line relay. The names that do not change when other devices come and go are
    first."""
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


def versions(machine: Machine, module: str) -> dict[str, str]:
    """Upstream version numbers by package; "asterisk" as the program says, and "drbd" of the
    kernel's ``module``. What is not installed is left out."""
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
    found["drbd"] = _upstream(module)
    return {name: version for name, version in found.items() if version}


def _query(machine: Machine, *argv: str) -> str:
    """What a program prints, also where it cannot answer everything and fails."""
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


def shared_facts(machine: Machine, site: Site, here: Facts) -> dict[str, object]:
    """What the other node has to know of this one: see asha.bootstrap.preflight.peer.

    Goes into JSON. "clock" is the present time, Unix time in seconds. The receiver adds its own
    as "received", so that the two clocks can be compared at any time later.
    """
    return {
        "name": site.here.name,
        "first": site.is_first,
        "nodes": {peer.name: peer.address for peer in (site.first, site.second)},
        # As asha.conf has it, which is what a join tells as well.
        "lan": site.here.lan,
        "agree": agreement(site),
        "relay": site.relay.node if site.relay else "",
        "macs": [nic.mac for nic in here.nics],
        "device": site.device,
        "size": _size(machine, site.device),
        "users": here.users,
        "groups": here.groups,
        "versions": here.versions,
        "clock": time.time(),
    }


def static_lan_address(found: tuple[Nic, ...], site: Site) -> str:
    """This node's own LAN address, "" where it is leased or there is none."""
    for nic in found:
        if nic.name == site.lan_nic:
            for address in nic.addresses:
                if address.local != site.virtual_address and not address.dynamic:
                    return address.local
    return ""


def _size(machine: Machine, device: str) -> int:
    """Bytes; 0 where the size cannot be read."""
    try:
        return disks.size_of(machine, device)
    except OSError:
        return 0
