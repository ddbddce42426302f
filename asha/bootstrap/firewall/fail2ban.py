"""fail2ban never bans the other node.

Where ``ignoreip`` is set, in [DEFAULT] or in a jail, the last file that sets it counts. Ours is
read last and repeats what was in force, with the other node's addresses.
"""

from __future__ import annotations

import configparser
import posixpath

from asha.bootstrap.action import Action, Say, Write
from asha.bootstrap.host import services
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

SERVICE = "fail2ban.service"

# In the order of jail.conf(5): *.conf, then *.local, each by name.
OURS = "/etc/fail2ban/jail.d/zz-asha.local"

# Of files that include one another. fail2ban itself counts none.
DEPTH_MOST = 8


def look(machine: Machine) -> dict[str, str] | None:
    """Section -> ignoreip as it is in force without our file; None where there is no fail2ban."""
    return _in_force(machine) if machine.has("fail2ban-client") else None


def actions(site: Site, in_force: dict[str, str] | None) -> list[Action]:
    if in_force is None:
        return []
    peers = [address for address in (site.there.address, site.there.lan) if address]
    lines = ["# Never ban the other node. Written by asha; the rest as it was in force."]
    for section, value in sorted(in_force.items()):
        known = value.replace(",", " ").split()
        lines += [f"[{section}]", "ignoreip = " + " ".join(
            [*known, *(peer for peer in peers if peer not in known)]
        )]
    return [_Ignore(OURS, "\n".join(lines) + "\n", peers)]


def _in_force(machine: Machine) -> dict[str, str]:
    """Section -> ignoreip without our file; [DEFAULT] is always there.

    Read as fail2ban does (fail2ban/client/configparserinc.py, 0.11 to 1.1). What it cannot read
    it refuses as a whole: it says so when our file is checked with the others.
    """
    found = {"DEFAULT": ""}
    for path in _files(machine):
        for section, value in _values(_text(machine, path)).items():
            # "What was in force before", which is what ours would mean itself.
            before = found.get(section, "%(default/ignoreip)s")
            found[section] = value.replace("%(known/ignoreip)s", before)
    return found


def _text(machine: Machine, path: str) -> str:
    """"" for what fail2ban ignores: a missing file, or one that is not UTF-8."""
    try:
        text = machine.read(path) or ""
        text.encode()
    except (OSError, ValueError, UserError):  # also for a name with a zero byte
        return ""
    return text


def _values(text: str, option: str = "ignoreip") -> dict[str, str]:
    """Section -> that option's text; nothing from a file that is invalid."""
    # Not strict: of what is there twice the last counts, where fail2ban allows it. And
    # [DEFAULT] as a section like any other, so that no jail seems to set what it inherits.
    parser = configparser.RawConfigParser(
        strict=False, inline_comment_prefixes=";", default_section="(none)"
    )
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {section: parser.get(section, option) for section in parser.sections()
            if parser.has_option(section, option)}


def _files(machine: Machine) -> list[str]:
    """The files in the order in which they are read, with those that others include."""
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
    read = [one for path in paths for one in _with_included(machine, path, ())]
    return [path for path in read if path != OURS]


def _with_included(machine: Machine, path: str, inside: tuple[str, ...]) -> list[str]:
    if path in inside or len(inside) >= DEPTH_MOST:
        return []
    text = _text(machine, path)

    def included(option: str) -> list[str]:
        names = _values(text, option).get("INCLUDES", "").split("\n")
        found = []
        for name in filter(None, names):
            place = posixpath.join(posixpath.dirname(path), name)
            found.append(place)
            local = posixpath.splitext(place)[0] + ".local"
            if local not in names and local != place:
                found.append(local)
        return [one for place in found
                for one in _with_included(machine, place, (*inside, path))]

    return [*included("before"), path, *included("after")]


class _Ignore(Write):
    """The file, checked by fail2ban and in force."""

    def __init__(self, path: str, text: str, peers: list[str]) -> None:
        super().__init__(path, text, why="fail2ban never bans the other node")
        self.peers = peers

    def is_done(self, machine: Machine) -> bool:
        return super().is_done(machine) and (
            not services.is_active(machine, SERVICE) or self._is_in_force(machine)
        )

    def do(self, machine: Machine, say: Say) -> None:
        super().do(machine, say)
        try:
            machine.run("fail2ban-client", "-t")
        except UserError as trouble:
            machine.remove(self.path)
            raise UserError(
                f"fail2ban refuses its configuration: {trouble}",
                "fix it, then check: fail2ban-client -t",
            ) from None
        if services.is_active(machine, SERVICE):
            machine.run("fail2ban-client", "reload")

    def script(self) -> str:
        return f"{super().script()}\nfail2ban-client -t && fail2ban-client reload"

    def _is_in_force(self, machine: Machine) -> bool:
        """Whether the first jail has it: all were loaded together."""
        for line in machine.output("fail2ban-client", "status").splitlines():
            if "Jail list:" in line and (jails := line.partition(":")[2].replace(",", " ").split()):
                ignored = machine.output("fail2ban-client", "get", jails[0], "ignoreip")
                return all(peer in ignored.split() for peer in self.peers)
        return True
