"""The result of a rule or a check: what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """``what`` is wrong, ``hint`` says what to do: one line each.

    An error forbids the installation; a warning is for the user to decide. ``key`` is the key
    of asha.conf that the finding is about, "" where it is about the machine.
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
    """Each finding on a line, its hint on the next."""
    lines = []
    for one in findings:
        lines.append(one.what)
        if one.hint:
            lines.append(f"  {one.hint}")
    return lines
