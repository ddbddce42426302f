"""Asterisk's configuration files, read only as far as the installer must.

Format: Asterisk main/config.c. Sections may repeat; ``#include`` puts another file in.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

SECTION = re.compile(r"\[([^\]]+)\]")
INCLUDE = re.compile(r"#(?:try)?include\s+[\"<]?([^\">]+?)[\">]?\s*$")
BLOCK_COMMENT = re.compile(r";--(?!-).*?--;", re.DOTALL)
# Files that include each other.
DEPTH_MOST = 10


@dataclass
class Section:
    """``[name]`` with its lines, keys in lower case."""

    name: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def get(self, key: str) -> str:
        """The last value, which is the one that counts; "" without one."""
        return next((value for name, value in reversed(self.lines) if name == key), "")


def read(directory: Path, name: str, without: str = "") -> list[Section]:
    """A file of Asterisk's directory, includes but ``without`` resolved; [] without it.

    ``directory`` stands for /etc/asterisk: a copy of it may be read.
    """
    sections: list[Section] = []
    _read(directory, name, without, sections, 0)
    return sections


def _read(directory: Path, name: str, without: str, sections: list[Section], depth: int) -> None:
    inside = os.path.relpath(name, "/etc/asterisk") if name.startswith("/") else name
    for place in sorted(glob.glob(str(directory / inside))):
        try:
            text = Path(place).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in BLOCK_COMMENT.sub("", text).splitlines():
            line = re.split(r"(?<!\\);", line, maxsplit=1)[0].strip()
            include = INCLUDE.match(line)
            section = SECTION.match(line)
            if include:
                if depth < DEPTH_MOST and include[1] != without:
                    _read(directory, include[1], without, sections, depth + 1)
            elif section:
                sections.append(Section(section[1]))
            elif "=" in line and sections:
                key, _, value = line.partition("=")
                sections[-1].lines.append((key.strip().lower(), value.removeprefix(">").strip()))


def includes(directory: Path, name: str, included: str) -> bool:
    """Whether a file itself names the other one."""
    try:
        text = (directory / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    found = (INCLUDE.match(line.strip()) for line in text.splitlines())
    return any(one is not None and one[1] == included for one in found)


def is_true(value: str) -> bool:
    """As ast_true() in main/utils.c."""
    return value.lower() in ("yes", "true", "y", "t", "1", "on")
