"""nftables, where there is no other firewall: a table of our own.

``/etc/asha/firewall.nft`` drops what comes to the cluster's ports from anybody but the other
node, and touches nothing else. Where another table drops what it does not know (a packet must
pass every table's input chain), the same accept rules are put at the head of that chain too,
marked by a comment. asha-firewall.service does both at boot, after those who load theirs; it
runs this module as a program.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asha.bootstrap.action import Action, Call, Say, Write, enable
from asha.bootstrap.host.ports import Opening, allowed, openings
from asha.cluster import site as conf
from asha.cluster.site import Site, SiteError
from asha.errors import UserError
from asha.machine import Machine
from asha.run.text import printable
from asha.terminal import warn

TABLE_FILE = "/etc/asha/firewall.nft"
TABLE = "asha"
UNIT = "asha-firewall.service"
# fail2ban's tables and chains come with the first ban, and never mean the other node
# (asha/bootstrap/firewall/fail2ban.py).
FAIL2BAN = "f2b-"
# A rule whose comment begins so is ours, in whatever table.
MARK = "asha: "

HINT = f"look at: nft list ruleset; systemctl status {UNIT}. Is nftables installed?"


def actions(site: Site, opened: Sequence[Opening]) -> list[Action]:
    def work(machine: Machine, say: Say) -> None:
        try:
            machine.run("systemctl", "restart", UNIT)
        except UserError as trouble:
            raise UserError(str(trouble), HINT) from None

    return [
        Write(TABLE_FILE, render(opened, openings(site)),
              why="restrict the cluster's ports to the peer"),
        enable("load the firewall at boot", UNIT),
        Call(
            name="firewall",
            title="load the firewall",
            what=f"systemctl restart {UNIT}\n"
                 "and the same accept rules at the head of other input chains that drop",
            work=work,
            done=lambda machine: in_force(machine, opened),
        ),
    ]


def render(opened: Sequence[Opening], every: Sequence[Opening]) -> str:
    """The table, as a file that nft loads whole or not at all: the ports of ``every`` opening
    are closed to all, except those that are ``opened``."""
    accepts = "".join(f"        {_rule(opening)}\n" for opening in opened)
    closed = "".join(
        f"        {protocol} dport {{ {', '.join(map(str, ports))} }} drop\n"
        for protocol in ("udp", "tcp")
        if (ports := sorted({o.port for o in every if o.protocol == protocol}))
    )
    return f"""\
#!/usr/sbin/nft -f
# The cluster's ports are the other node's alone. Written by asha.
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname "lo" accept
{accepts}{closed}    }}
}}
"""


def _rule(opening: Opening) -> str:
    return (f'iifname "{opening.nic}" ip saddr {opening.peer} '
            f'{opening.protocol} dport {opening.port} accept comment "{_comment(opening)}"')


def _comment(opening: Opening) -> str:
    return f"{MARK}{opening.protocol} {opening.port} from {opening.peer} on {opening.nic}"


def refusal(site: Site, machine: Machine) -> str:
    """Why the table cannot be loaded, "" if it can: the kernel itself checks it, whole, and
    throws it away (nft(8), --check). Not every kernel has every family and expression."""
    if not machine.has("nft"):
        return "nft is not installed"
    every = openings(site)
    checked = machine.run("nft", "--check", "-f", "-", stdin=render(every, every), check=False,
                          timeout=20)
    if checked.ok:
        return ""
    # The first error; those after it follow from it, and below each is the text it means.
    return next((line for line in checked.err.splitlines() if "Error" in line), checked.complaint)


# What is loaded.

@dataclass(frozen=True)
class _Chain:
    """An input chain, with what decides in it. ``ours``: comment -> handle."""

    family: str
    table: str
    name: str
    drops: bool
    ours: dict[str, int]


def in_force(machine: Machine, opened: Sequence[Opening]) -> bool:
    """Whether the other node passes every input chain, and nobody else passes ours."""
    if not machine.has("nft"):
        return False
    chains = list(_chains(machine))
    wanted = {_comment(opening) for opening in opened}
    return any(_is_our_table(chain) for chain in chains) and all(
        set(chain.ours) == wanted for chain in chains if chain.drops or chain.ours
    )


def load(machine: Machine, opened: Sequence[Opening]) -> None:
    machine.run("nft", "-f", str(machine.path(TABLE_FILE)))
    wanted = {_comment(opening): opening for opening in opened}
    for chain in _chains(machine):
        if _is_our_table(chain):
            continue
        for comment, handle in chain.ours.items():
            if comment not in wanted or not chain.drops:
                _delete(machine, chain, handle)
        if chain.drops:
            for comment, opening in wanted.items():
                if comment not in chain.ours:
                    machine.run("nft", "insert", "rule", chain.family, chain.table, chain.name,
                                _rule(opening))


def unload(machine: Machine) -> None:
    """Remove everything of ours."""
    for chain in _chains(machine):
        if _is_our_table(chain):
            machine.run("nft", "delete", "table", chain.family, chain.table)
        else:
            for handle in chain.ours.values():
                _delete(machine, chain, handle)


def _delete(machine: Machine, chain: _Chain, handle: int) -> None:
    machine.run("nft", "delete", "rule", chain.family, chain.table, chain.name,
                "handle", str(handle))


def _is_our_table(chain: _Chain) -> bool:
    return (chain.family, chain.table) == ("inet", TABLE)


def _chains(machine: Machine) -> list[_Chain]:
    """Every chain that a packet to this machine passes (libnftables-json(5)).

    Raises UserError, also for an answer that cannot be understood: another nft may differ.
    """
    said = machine.run("nft", "-j", "list", "ruleset").out
    try:
        return list(_parsed(json.loads(said or '{"nftables": []}')["nftables"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise UserError(
            f"nft lists its rules in a form that cannot be understood: {problem!r:.100}", HINT
        ) from None


def _parsed(listed: list[dict[str, Any]]) -> Iterator[_Chain]:
    rules: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for rule in (entry["rule"] for entry in listed if "rule" in entry):
        rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
    for chain in (entry["chain"] for entry in listed if "chain" in entry):
        family, table, name = chain["family"], chain["table"], chain["name"]
        if family not in ("ip", "inet") or (chain.get("type"), chain.get("hook")) != (
            "filter", "input"
        ) or table.startswith(FAIL2BAN):
            continue
        if not isinstance(name, str):
            raise TypeError(f"a chain with the name {name!r}")
        yield _Chain(
            family,
            table,
            name,
            chain.get("policy") == "drop" or _may_drop(rules, (family, table, name), set()),
            {
                rule["comment"]: rule["handle"]
                for rule in rules.get((family, table, name), [])
                if rule.get("comment", "").startswith(MARK)
            },
        )


def _may_drop(
    rules: dict[tuple[str, str, str], list[dict[str, Any]]],
    chain: tuple[str, str, str],
    seen: set[tuple[str, str, str]],
) -> bool:
    """Whether a rule of the chain, or of one that it jumps to, drops or rejects."""
    if chain in seen or chain[2].startswith(FAIL2BAN):
        return False
    seen.add(chain)
    for rule in rules.get(chain, []):
        for statement in rule.get("expr", []):
            if "drop" in statement or "reject" in statement:
                return True
            onward = statement.get("jump") or statement.get("goto")
            if onward and _may_drop(rules, (*chain[:2], onward["target"]), seen):
                return True
            if "vmap" in statement or "xt" in statement:
                return True  # not to be seen through: it may
    return False


# As asha-firewall.service runs it.

def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m asha.bootstrap.firewall.nftables")
    parser.add_argument("what", choices=("load", "unload"))
    options = parser.parse_args(argv)
    machine = Machine()
    try:
        if options.what == "load":
            load(machine, allowed(conf.read(), machine))
        else:
            unload(machine)
    except (UserError, OSError, SiteError) as problem:
        warn(f"asha-firewall: {printable(str(problem))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
