"""A Status on one screen of 80 columns."""

from __future__ import annotations

import os
import textwrap
import time
from typing import TextIO

from asha import lan
from asha.data.space import size
from asha.run.text import lines as within
from asha.run.text import printable
from asha.status.calls import Calls
from asha.status.model import DEGRADED, NO_SERVICE, VITAL, WARNING, Disks, Service, Status

WIDTH = 80
INDENT = 12

GREEN, YELLOW, RED, BOLD = "32", "33", "31", "1"
NODE_WORDS = {
    "online": "online",
    "standby": "standby: takes nothing over",
    "offline": "OFFLINE",
    "unclean": "UNCLEAN: state unknown, not fenced",
    "pending": "joining",
    "maintenance": "in maintenance: not watched",
}
LAN_WORDS = {
    lan.OK: "ok",
    lan.NO_CARRIER: "DEAD (no carrier)",
    lan.NO_ANSWER: "DEAD (no answer)",
    lan.UNSTEADY: "ok, not trusted yet",
    "": "not known",
}


def has_colours(stream: TextIO) -> bool:
    """Only for a terminal, and not if the user refuses colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and \
        os.environ.get("TERM", "dumb") != "dumb"


def screen(status: Status, colours: bool = False) -> str:
    """The whole text; it ends with a newline."""
    return "\n".join(_Screen(status, colours).lines()) + "\n"


class _Screen:
    def __init__(self, status: Status, colours: bool) -> None:
        self.status = status
        self.colours = colours
        self.text: list[str] = []

    def lines(self) -> list[str]:
        status = self.status
        head = f"ASHA on {status.node}"
        stamp = clock(status.time)
        site = textwrap.shorten(printable(status.site_id), 30, placeholder="...")
        self.text.append(printable(f"{head}   {site}".rstrip()).ljust(WIDTH - len(stamp)) + stamp)
        self._verdict()
        if status.pacemaker:
            self._nodes()
            self._services()
        if status.disks is not None:
            self._row("Disks", disks(status.disks),
                      "" if status.disks.in_sync else YELLOW)
        if status.store is not None:
            room = status.store
            percent = room.free * 100 // room.total if room.total else 0
            self._row("Space", f"{size(room.free)} of {size(room.total)} free ({percent} %)")
        if status.calls is not None:
            self._row("Calls", calls(status.calls))
        elif status.active and status.active != status.node:
            self._row("Calls", f"only {status.active} knows: asha status there")
        if status.secrets:
            self._row("Secret", ", ".join(
                f"{one.node} {one.id}{' to ' + one.coming if one.coming else ''}"
                for one in status.secrets))
        if status.links:
            self._row("Links", "; ".join(f"{link.number}: {link.address} {link.state}"
                                         for link in status.links))
        self._findings()
        return self.text

    def _verdict(self) -> None:
        status = self.status
        if status.exit_code == NO_SERVICE:
            colour, text = RED, "The telephones do NOT run."
            if any(service.id in VITAL and service.state.endswith("ing")
                   for service in status.services if not service.runs):
                colour, text = YELLOW, "The telephones are being started or moved."
            if not status.pacemaker:
                text = "The cluster does not run here, and the telephones do not answer."
                if not status.installed:
                    text = "This machine is not a node of the cluster yet."
        elif not status.pacemaker:
            who = f"{status.active} has" if status.active else "some node has"
            if status.active == status.node:
                who = "This node has"
            colour, text = YELLOW, f"The cluster does not run here. {who} the telephones."
        else:
            colour = YELLOW if status.exit_code == DEGRADED else GREEN
            text = f"The telephones run on {status.active}"
            if status.active_since:
                text += f" since {clock(status.active_since)}"
            if status.moved_from:
                text += f", before on {status.moved_from}"
            text += "."
        self.text += ["", self._colour(printable(text), f"{BOLD};{colour}"), ""]

    def _nodes(self) -> None:
        title = "Nodes"
        width = max((len(node.name) for node in self.status.nodes), default=0)
        for node in self.status.nodes:
            words = NODE_WORDS.get(node.state, node.state)
            about = [word for word, holds in (("active", node.active), ("this one", node.here))
                     if holds]
            text = f"{node.name.ljust(width)}  {words}{', ' if about else ''}{', '.join(about)}"
            self._row(title, text, GREEN if node.state == "online" else YELLOW)
            title = ""
        if any(node.lan for node in self.status.nodes):
            self._row("LAN", "; ".join(f"{node.name} {LAN_WORDS.get(node.lan, node.lan)}"
                                       for node in self.status.nodes),
                      GREEN if all(node.lan == lan.OK for node in self.status.nodes) else YELLOW)
        if not self.status.quorum:
            self._row("Quorum", "NO: this node may run nothing", RED)

    def _services(self) -> None:
        title = "Services"
        for service in self.status.services:
            self._row(title, self._service(service),
                      GREEN if service.runs and not service.why else
                      YELLOW if service.runs or service.state.endswith("ing") else RED)
            title = ""

    def _service(self, service: Service) -> str:
        address, line = self.status.address, self.status.line
        name = service.title
        if service.id == "p_ip" and address is not None:
            name = f"address {address.address}"
        text = f"{name:<24}{service.state}"
        if service.nodes:
            text += f" on {', '.join(service.nodes)}"
        if service.id == "p_line" and line is not None:
            goes = f"goes to {line.node}" if line.node else "not known where"
            text = f"{name:<24}{goes} (card on {line.card_node}: {line.position})"
        return text

    def _findings(self) -> None:
        if self.status.findings and self.text[-1]:
            self.text.append("")
        for finding in self.status.findings:
            urgent = finding.level == WARNING
            mark = self._colour("!", f"{BOLD};{RED}") if urgent else "-"
            # Newlines become blanks when it is wrapped: of ours, where it has points.
            lines = textwrap.wrap(within(finding.what), WIDTH - 2) or [""]
            self.text.append(f"{mark} {lines[0]}")
            self.text += [f"  {line}" for line in lines[1:]]
            self.text += textwrap.wrap(within(finding.hint), WIDTH, initial_indent="    -> ",
                                       subsequent_indent="       ")

    def _row(self, title: str, text: str, colour: str = "") -> None:
        lines = textwrap.wrap(printable(text), WIDTH - INDENT, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            head = (title if number == 0 else "").ljust(INDENT)
            self.text.append(head + self._colour(line, colour))

    def _colour(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colours and code else text


def disks(disks: Disks) -> str:
    """Both disks, and the progress of a sync."""
    halves = f"{disks.node} {disks.disk or 'unknown'}, {disks.peer} {disks.peer_disk or 'unknown'}"
    if disks.in_sync:
        return f"in sync ({halves})"
    if disks.syncing:
        return f"{sync(disks)} ({halves})"
    return f"{disks.connection or 'not connected'} ({halves})"


def sync(disks: Disks) -> str:
    """A sync in progress: "15.9 % in sync, 2.4 GB to go at 22.9 MB/s, 1 min 47 s left"."""
    parts = [f"{disks.percent:.1f} % in sync" if disks.percent is not None else "being synced"]
    if disks.out_of_sync:
        speed = f" at {size(int(disks.speed * 1024))}/s" if disks.speed else ""
        parts.append(f"{size(disks.out_of_sync * 1024)} to go{speed}")
    if disks.seconds_left is not None:
        parts.append(f"{duration(disks.seconds_left)} left")
    return ", ".join(parts)


def calls(calls: Calls) -> str:
    """One line of counts; what is not known is left out."""
    if calls.calls is None:
        return f"not known: {calls.trouble}"
    parts = [plural(calls.calls, "call")]
    if calls.longest:
        parts[0] += f" (the longest {duration(calls.longest)})"
    if calls.registered is not None:
        silent = f" ({calls.silent} silent)" if calls.silent else ""
        parts.append(f"{plural(calls.registered, 'telephone')} registered{silent}")
    if calls.trunks:
        parts.append(f"{calls.trunks_up} of {plural(calls.trunks, 'trunk')} registered")
    return ", ".join(parts)


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def duration(seconds: int) -> str:
    """For people: "47 s", "1 min 47 s", "3 h 12 min", "2 d 4 h"."""
    for size_, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"),
                                              (60, "min", 1, "s")):
        if seconds >= size_:
            rest = seconds % size_ // next_size
            return f"{seconds // size_} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{seconds} s"


def clock(stamp: str) -> str:
    """An ISO time as people write it, in its own zone."""
    try:
        moment = time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return stamp
    return time.strftime("%a %d %b %Y %H:%M:%S", moment)
