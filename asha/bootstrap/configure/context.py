"""What a question may look at: the answers before it, and the machine."""

from __future__ import annotations

from dataclasses import dataclass

from asha.bootstrap.facts import Facts
from asha.bootstrap.host.nics import Nic
from asha.cluster import rules

Values = dict[str, str]
# What can be typed, and what it means.
Choices = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asking:
    """``values`` are in asha.conf's keys, as far as they are known."""

    facts: Facts
    values: Values

    @property
    def is_first(self) -> bool:
        return rules.is_yes(self.values.get("PRIMARY", ""))

    @property
    def one_nic(self) -> bool:
        return self.values.get("USENIC1") == "false"

    def own(self, what: str) -> str:
        return rules.own_key(self.values, what)

    def other(self, what: str) -> str:
        return f"{'B' if self.is_first else 'A'}NODE{what}"

    def lan(self) -> Nic | None:
        return self.facts.nic(self.values.get("LANNIC", ""))

    def link(self) -> Nic | None:
        return self.facts.nic(self.values.get("LINKNIC", ""))
