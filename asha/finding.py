"""What a rule or a check has to say: what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """``what`` is wrong and ``hint``, what to do: one line each.

    An error forbids the installation. A warning is for the user to weigh. ``key`` is the
    key of asha.conf that it is about, "" where it is about the machine.
    """

    severity: Severity
    what: str
    hint: str = ""
    key: str = ""


def error(what: str, hint: str = "", key: str = "") -> Finding:
    return Finding("error", what, hint, key)


def warning(what: str, hint: str = "", key: str = "") -> Finding:
    return Finding("warning", what, hint, key)


def in_words(findings: list[Finding]) -> list[str]:
    """Each on a line, its hint on the next."""
    lines = []
    for one in findings:
        lines.append(one.what)
        if one.hint:
            lines.append(f"  {one.hint}")
    return lines
