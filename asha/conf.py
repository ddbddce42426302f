"""KEY=VALUE files: asha.conf, as the shell of 2014 read it."""

from __future__ import annotations


def values_of(text: str) -> dict[str, str]:
    """The KEY=VALUE lines, quotes taken off, unknown keys kept."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith("#"):
            values[key.strip()] = value.strip().strip("\"'")
    return values
