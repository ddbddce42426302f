"""What a look at the machine brings up, and what a check has to go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asha.bootstrap.host.facts import Facts
from asha.cluster.site import Site
from asha.machine import Machine

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """``what`` is wrong, in one line, and ``hint``: what to do, in one.

    An error forbids the installation. A warning is for the user to weigh.
    """

    severity: Severity
    what: str
    hint: str = ""


def error(what: str, hint: str = "") -> Finding:
    return Finding("error", what, hint)


def warning(what: str, hint: str = "") -> Finding:
    return Finding("warning", what, hint)


@dataclass(frozen=True)
class CheckContext:
    """All that a check may look at. ``other``: what the other node said of itself, if it
    was asked (facts.shared_facts)."""

    machine: Machine
    site: Site
    facts: Facts
    other: dict[str, object] | None = None
