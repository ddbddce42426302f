"""What a check gets to look at."""

from __future__ import annotations

from dataclasses import dataclass

from asha.bootstrap.facts import Facts
from asha.cluster.site import Site
from asha.machine import Machine


@dataclass(frozen=True)
class CheckContext:
    """All that a check may look at. ``other``: the other node's facts, if it was asked
    (facts.shared_facts).

    A check that judges answers also runs while they are given. Then the site is a draft
    (asha.cluster.site), and what is not known yet, "" or 0, is no finding.
    """

    machine: Machine
    site: Site
    facts: Facts
    other: dict[str, object] | None = None
