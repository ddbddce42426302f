"""KEY=VALUE files: asha.conf, as the shell of 2014 read it."""

from __future__ import annotations

from collections.abc import Mapping


def key_of(line: str) -> str | None:
    """The key of a KEY=VALUE line; None for any other line."""
    key, equals, _ = line.partition("=")
    return key.strip() if equals and not key.lstrip().startswith("#") else None


def values_of(text: str) -> dict[str, str]:
    """The KEY=VALUE lines, quotes taken off, unknown keys kept."""
    values = {}
    for line in text.splitlines():
        if (key := key_of(line)) is not None:
            values[key] = line.partition("=")[2].strip().strip("\"'")
    return values


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The same text with these values; its other lines, their order and comments stay.

    A key that it does not have is added at the end, if it has a value.
    """
    lines = []
    for line in text.splitlines(keepends=True):
        key = key_of(line)
        lines.append(f"{key}={values[key]}\n" if key is not None and key in values else line)
    known = values_of(text)
    if added := [f"{key}={value}\n" for key, value in values.items() if value and key not in known]:
        return "".join(lines).rstrip() + "\n" + "".join(added)
    return "".join(lines)
