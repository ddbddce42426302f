"""fail2ban never bans the other node.

Where ``ignoreip`` is set, in [DEFAULT] or in a jail, the last file that sets it counts;
ours is read last and repeats what was in force, with the other node's addresses.
"""

from __future__ import annotations

import configparser

from asha.bootstrap.action import Action, Say, Write
from asha.cluster.site import Site
from asha.machine import Machine
from asha.trouble import Trouble

# In the order of jail.conf(5): *.conf, then *.local, each by name.
OURS = "/etc/fail2ban/jail.d/zz-asha.local"


def actions(site: Site, machine: Machine) -> list[Action]:
    if not machine.has("fail2ban-client"):
        return []
    peers = [address for address in (site.there.address, site.there.lan) if address]
    lines = ["# Never ban the other node. Written by asha; the rest as it was in force."]
    for section, value in sorted(_in_force(machine).items()):
        known = value.replace(",", " ").split()
        lines += [f"[{section}]", "ignoreip = " + " ".join(
            [*known, *(peer for peer in peers if peer not in known)]
        )]
    return [_Ignore(OURS, "\n".join(lines) + "\n", peers)]


def _in_force(machine: Machine) -> dict[str, str]:
    """Section -> ignoreip, without ours; [DEFAULT] is there in any case."""
    found = {"DEFAULT": ""}
    for path in _files(machine):
        # Not strict: fail2ban accepts a section or a key that is there twice. And
        # [DEFAULT] as a section like any other, so that no jail seems to set what it
        # inherits.
        parser = configparser.RawConfigParser(
            strict=False, allow_no_value=True, default_section="(none)"
        )
        try:
            parser.read_string(machine.read(path) or "", path)
        except configparser.Error:
            continue  # fail2ban will say so itself
        for section in parser.sections():
            if parser.has_option(section, "ignoreip"):
                found[section] = parser.get(section, "ignoreip") or ""
    return found


def _files(machine: Machine) -> list[str]:
    directory = "etc/fail2ban"
    places = [
        machine.root / directory / "jail.conf",
        # by name: in root's /etc
        *sorted(machine.root.glob(f"{directory}/jail.d/*.conf")),
        machine.root / directory / "jail.local",
        # by name: in root's /etc
        *sorted(machine.root.glob(f"{directory}/jail.d/*.local")),
    ]
    paths = ["/" + str(place.relative_to(machine.root)) for place in places]
    return [path for path in paths if path != OURS]


class _Ignore(Write):
    """The file, checked by fail2ban and in force."""

    def __init__(self, path: str, text: str, peers: list[str]) -> None:
        super().__init__(path, text, why="fail2ban never bans the other node")
        self.peers = peers

    def is_done(self, machine: Machine) -> bool:
        return super().is_done(machine) and (
            not self._is_active(machine) or self._is_in_force(machine)
        )

    def do(self, machine: Machine, say: Say) -> None:
        super().do(machine, say)
        try:
            machine.run("fail2ban-client", "-t")
        except Trouble as trouble:
            machine.remove(self.path)
            raise Trouble(
                f"fail2ban refuses its configuration: {trouble}", "mend it: fail2ban-client -t"
            ) from None
        if self._is_active(machine):
            machine.run("fail2ban-client", "reload")

    def script(self) -> str:
        return f"{super().script()}\nfail2ban-client -t && fail2ban-client reload"

    @staticmethod
    def _is_active(machine: Machine) -> bool:
        return machine.says("systemctl", "is-active", "fail2ban.service").strip() == "active"

    def _is_in_force(self, machine: Machine) -> bool:
        """As its first jail says: all were loaded together."""
        for line in machine.says("fail2ban-client", "status").splitlines():
            if "Jail list:" in line and (jails := line.partition(":")[2].replace(",", " ").split()):
                ignored = machine.says("fail2ban-client", "get", jails[0], "ignoreip")
                return all(peer in ignored.split() for peer in self.peers)
        return True
