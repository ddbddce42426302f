"""Shorewall, where it is in use: SARK's own firewall on a Debian of its time.

Our lines are in blocks between two marks, in the administrator's files. SARK's panel rewrites
``sark_rules`` only, so they stay. A NIC that is in a zone keeps it; one that is in none, as a
cluster link mostly is, gets a zone of its own. Shorewall checks the new files in another
directory before the old ones are touched.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from asha.bootstrap.action import Action, Call
from asha.bootstrap.host import services
from asha.bootstrap.host.ports import Opening, openings
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

DIRECTORY = "/etc/shorewall"
TRIAL = "/var/lib/asha/shorewall"
# What Shorewall made of its files when it was last started or reloaded.
COMPILED = "/var/lib/shorewall/firewall"

BEGIN, END = "# asha begin", "# asha end"
ZONE = "asha"

# shorewall(8) compiles with Perl, and an old box is slow at it.
CHECK_SECONDS = 120.0


def rules(machine: Machine) -> bool:
    """Whether Shorewall is this machine's firewall."""
    return (
        machine.has("shorewall")
        and machine.exists(f"{DIRECTORY}/interfaces")
        and services.is_enabled(machine, "shorewall.service")
    )


def actions(site: Site, opened: list[Opening]) -> list[Action]:
    closed = [opening for opening in openings(site) if opening not in opened]
    return [_Shorewall(
        name="firewall",
        title="open Shorewall to the other node",
        what=f"zones, interfaces, policy, rules in {DIRECTORY}; shorewall check, shorewall reload",
        work=lambda machine, say: _apply(machine, _changed(machine, opened)),
        done=lambda machine: _is_open(machine, opened, closed),
        opened=opened,
    )]


@dataclass
class _Shorewall(Call):
    """Shows the differences of the files too."""

    opened: list[Opening]

    def preview(self, machine: Machine) -> str:
        try:
            changed = _changed(machine, self.opened)
        except UserError as trouble:
            return f"CANNOT: {trouble}\n{trouble.hint}"
        lines: list[str] = []
        for path, text in changed.items():
            lines += difflib.unified_diff(
                (machine.read(path) or "").splitlines(), text.splitlines(), path, path, lineterm=""
            )
        return "\n".join([*lines, "shorewall check", "shorewall reload"])


def _is_open(machine: Machine, opened: list[Opening], closed: list[Opening]) -> bool:
    try:
        if _changed(machine, opened):
            return False
    except UserError:
        return False
    compiled = machine.read(COMPILED)
    return compiled is None or (
        all(f" {opening.peer} " in compiled for opening in opened)
        and not any(_has_rule(compiled, opening) for opening in closed)
    )


def _has_rule(compiled: str, opening: Opening) -> bool:
    return any(f" {opening.peer} " in line and f"--dport {opening.port} " in f"{line} "
               for line in compiled.splitlines())


def _apply(machine: Machine, changed: dict[str, str]) -> None:
    for name in ("shorewall.conf", *(path.rpartition("/")[2] for path in changed)):
        text = changed.get(f"{DIRECTORY}/{name}") or machine.read(f"{DIRECTORY}/{name}") or ""
        machine.write(f"{TRIAL}/{name}", text, mode=0o600)
    try:
        machine.run("shorewall", "check", TRIAL, timeout=CHECK_SECONDS)
    except UserError as trouble:
        raise UserError(
            f"Shorewall refuses the cluster's rules, nothing was changed: {trouble}",
            f"run: shorewall check {TRIAL}; fix {DIRECTORY}",
        ) from None
    for path, text in changed.items():
        if machine.exists(path):
            mode = machine.path(path).stat().st_mode & 0o7777
            user, group = machine.owner_of(path)
            machine.write(path, text, mode, user or "root", group)
        else:
            machine.write(path, text)
    if machine.run("shorewall", "status", check=False).ok:
        machine.run("shorewall", "reload", timeout=CHECK_SECONDS)


def _changed(machine: Machine, opened: list[Opening]) -> dict[str, str]:
    """The path and new text of each file that has to change. Raises UserError."""
    before = {
        name: _without_block(name, machine.read(f"{DIRECTORY}/{name}") or "")
        for name in ("zones", "interfaces", "policy", "rules")
    }
    params = _params(machine.read(f"{DIRECTORY}/params") or "")
    known = dict(_interfaces(before["interfaces"], params))
    blocks: dict[str, list[str]] = {name: [] for name in before}
    for nic in dict.fromkeys(opening.nic for opening in opened):
        if nic not in known:
            known[nic] = (ZONE, nic)
            blocks["zones"] = [f"{ZONE} ipv4"]
            blocks["interfaces"] = [f"{ZONE} {nic}"]
            blocks["policy"] = [f"$FW {ZONE} ACCEPT", f"{ZONE} all DROP", f"all {ZONE} DROP"]
    for opening in opened:
        blocks["rules"] += _rules(opening, *known[opening.nic])
    after = {
        # A zone must be declared after fw; of a policy or a rule the first counts.
        "zones": _at_end(before["zones"], blocks["zones"]),
        "interfaces": _at_end(before["interfaces"], blocks["interfaces"]),
        "policy": _at_top(before["policy"], blocks["policy"]),
        "rules": _at_top(before["rules"], blocks["rules"]),
    }
    return {
        path: text
        for name, text in after.items()
        if text != (machine.read(path := f"{DIRECTORY}/{name}") or "")
    }


def _rules(opening: Opening, zone: str, interface: str) -> Iterator[str]:
    if zone == "-":
        raise UserError(
            f"{DIRECTORY}/interfaces gives {opening.nic} no zone of its own (-)",
            f"open {opening.port}/{opening.protocol} to {opening.peer} in {DIRECTORY}/rules by "
            f"hand, and give {opening.nic} a zone",
        )
    there = f"{zone}:{interface}:{opening.peer}"
    yield f"ACCEPT {there} $FW {opening.protocol} {opening.port}"
    yield f"ACCEPT $FW {there} {opening.protocol} {opening.port}"


def _params(text: str) -> dict[str, str]:
    found = re.findall(r"^\s*(?:export\s+)?(\w+)=[\"']?([^\"'\s#]*)", text, re.MULTILINE)
    return dict(found)


def _interfaces(text: str, params: dict[str, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """NIC -> (zone, the name by which Shorewall knows the NIC): shorewall-interfaces(5)."""
    for line in text.splitlines():
        bare = line.split("#", 1)[0]
        words = re.sub(
            r"\$\{?(\w+)\}?", lambda name: params.get(name[1], name[0]), bare
        ).split()
        if len(words) >= 2 and not words[0].startswith("?"):
            name = words[1].split(":")[0]
            physical = re.search(r"\bphysical=([^,\s]+)", " ".join(words[2:]))
            yield (physical[1] if physical else name), (words[0], name)


def _without_block(name: str, text: str) -> str:
    """Raises UserError for a block without an end: what follows may be somebody else's."""
    kept: list[str] = []
    inside = False
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        mark = line.rstrip("\n")
        if mark == BEGIN and inside:
            break
        if mark == BEGIN:
            inside = True
        elif mark == END and inside:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise UserError(
            f"{DIRECTORY}/{name} has a line \"{BEGIN}\" without its \"{END}\"",
            f"delete that line, and what asha wrote below it, in {DIRECTORY}/{name}; asha writes "
            "it anew",
        )
    return "".join(kept)


def _block(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in (BEGIN, *lines, END)) if lines else ""


def _at_end(text: str, lines: list[str]) -> str:
    if not lines:
        return text
    return text + ("" if text.endswith("\n") or not text else "\n") + _block(lines)


def _at_top(text: str, lines: list[str]) -> str:
    """Before the first line that is neither a comment nor ?FORMAT, and within the section NEW."""
    if not lines:
        return text
    new = re.search(r"^\??SECTION[ \t]+NEW\b.*\n", text, re.MULTILINE)
    if new:
        place = new.end()
    else:
        heads = re.match(r"(?:[ \t]*(?:#.*|\?FORMAT.*)?\n)*", text)
        place = heads.end() if heads else 0
    return text[:place] + _block(lines) + text[place:]
