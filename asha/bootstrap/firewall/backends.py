"""Step 10: restrict the cluster's ports to the peer.

This machine's firewall gets the rules: Shorewall, firewalld, or else a table of our own in
nftables (asha/bootstrap/firewall/nftables.py). And fail2ban never bans the other node.
"""

from __future__ import annotations

from dataclasses import dataclass

from asha.bootstrap.action import Action, Call, Say
from asha.bootstrap.firewall import fail2ban, nftables, shorewall
from asha.bootstrap.host import services
from asha.bootstrap.host.ports import Opening, allowed_among, members, openings
from asha.cluster.cib import MARKER
from asha.cluster.site import Site
from asha.machine import Machine


@dataclass(frozen=True)
class Found:
    """Which firewall this machine has, who the cluster's members are, and what fail2ban
    ignores. The defaults are those of a Debian that is no node yet."""

    firewall: str = "nftables"
    members: frozenset[str] = frozenset()
    owned: bool = False
    ignored: dict[str, str] | None = None

    def refusal(self, site: Site, machine: Machine) -> str:
        """Why this machine cannot load the rules, in the program's own words; "" if it can, or
        if that is only seen when it is done. Changes nothing."""
        return nftables.refusal(site, machine) if self.firewall == "nftables" else ""


def look(machine: Machine) -> Found:
    firewall = "shorewall" if shorewall.rules(machine) else (
        "firewalld" if _firewalld_rules(machine) else "nftables")
    return Found(firewall, members(machine), machine.exists(MARKER), fail2ban.look(machine))


def actions(site: Site, found: Found) -> list[Action]:
    return [*_firewall(site, found), *fail2ban.actions(site, found.ignored)]


def close(site: Site, machine: Machine, say: Say) -> None:
    """After the other node was removed: close to it what only a member may reach.

    Does nothing where step 10 was never done. Raises UserError.
    """
    if not (machine.exists(nftables.TABLE_FILE) or shorewall.rules(machine)
            or _firewalld_rules(machine)):
        return
    for action in _firewall(site, look(machine)):
        if not action.is_done(machine):
            action.do(machine, say)


def _firewall(site: Site, found: Found) -> list[Action]:
    opened = allowed_among(site, found.members, found.owned)
    if found.firewall == "shorewall":
        return shorewall.actions(site, opened)
    if found.firewall == "firewalld":
        return [_firewalld(site, opened)]
    return nftables.actions(site, opened)


def _firewalld_rules(machine: Machine) -> bool:
    return services.is_active(machine, "firewalld.service")


@dataclass(frozen=True)
class _Rule:
    """A rich rule in the zone of its NIC, at run time or permanent."""

    opening: Opening
    permanent: bool

    @property
    def text(self) -> str:
        return (f'rule family="ipv4" source address="{self.opening.peer}" '
                f'port port="{self.opening.port}" protocol="{self.opening.protocol}" accept')

    def command(self, machine: Machine, verb: str) -> list[str]:
        scope = ["--permanent"] if self.permanent else []
        return ["firewall-cmd", *scope, f"--zone={_zone(machine, self.opening.nic)}",
                f"--{verb}-rich-rule={self.text}"]

    def is_there(self, machine: Machine) -> bool:
        return machine.run(*self.command(machine, "query"), check=False).ok


def _zone(machine: Machine, nic: str) -> str:
    """firewalld's zone of a NIC: its own, or the default one."""
    own = machine.output("firewall-cmd", f"--get-zone-of-interface={nic}").strip()
    return own or machine.run("firewall-cmd", "--get-default-zone").out.strip()


def _firewalld(site: Site, opened: list[Opening]) -> Action:
    # Not a zone of the other node's own, by its address: all else that comes from
    # it, ssh for one, would then find that zone's rules and not the administrator's.
    rules = [_Rule(opening, permanent) for opening in opened for permanent in (True, False)]
    closed = [_Rule(opening, permanent) for opening in openings(site) if opening not in opened
              for permanent in (True, False)]

    def work(machine: Machine, say: Say) -> None:
        for rule in rules:
            if not rule.is_there(machine):
                machine.run(*rule.command(machine, "add"))
        for rule in closed:
            if rule.is_there(machine):
                machine.run(*rule.command(machine, "remove"))

    return Call(
        name="firewall",
        title="open firewalld to the other node",
        what="\n".join(f"firewall-cmd [--permanent] --zone=(that of {rule.opening.nic}) "
                       f"--add-rich-rule='{rule.text}'" for rule in rules if rule.permanent),
        work=work,
        done=lambda machine: all(rule.is_there(machine) for rule in rules)
        and not any(rule.is_there(machine) for rule in closed),
    )
