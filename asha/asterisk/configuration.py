"""Asterisk's configuration files, read only as far as the installer must.

Format: Asterisk main/config.c, process_text_line(). Sections may repeat; ``#include`` puts
another file in.

They are Asterisk's own to write, and read by root: no name leads out of their directory,
and everything has an end. What cannot be read so is absent, and said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from asha import rootwork
from asha.rootwork import Directory, Untrusted

Warn = Callable[[str], None]

ETC = "/etc/asterisk/"
SECTION = re.compile(r"\[([^\]]+)\](?:\(([^)]*))?")
# Files that include each other.
DEPTH_MOST = 10
# Of one file, and of all that are read for one question; in bytes.
FILE_MOST = 1 << 20
TOTAL_MOST = 1 << 22
# Includes that are followed for one question, and names of a directory that are compared.
FILES_MOST = 1000
NAMES_MOST = 10_000
# Lines that sections have once templates are copied into them: they double with each
# template, so a small file could fill the memory.
LINES_MOST = 100_000
# Of a line; as main/config.c, config_text_file_load().
VALUE_MOST = 8192


@dataclass
class Section:
    """``[name]`` with its lines, keys in lower case.

    A template, ``[name](!)``, counts only for the sections that name it. ``words``: what
    stands in the parentheses. ``places``: the file and number of each line, ``pjsip.conf:7``."""

    name: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    is_template: bool = False
    words: tuple[str, ...] = ()
    places: list[str] = field(default_factory=list)

    def get(self, key: str) -> str:
        """The last value, which is the one that counts; "" without one."""
        return next((value for name, value in reversed(self.lines) if name == key), "")


def _ignore(text: str) -> None:
    pass


def read(directory: Directory, name: str, without: str = "", warn: Warn = _ignore) -> list[Section]:
    """A file of Asterisk's directory, includes but ``without`` resolved; [] without it.

    ``directory`` stands for /etc/asterisk: a copy of it may be read. ``warn`` is told
    what counts as absent though it is there.
    """
    reader = _Reader(directory, without, warn)
    reader.read(name, 0)
    return reader.sections


def resolved(sections: Sequence[Section]) -> list[Section]:
    """The sections as Asterisk has them: with what they take from templates, ``[x](+)`` added
    to the first of its name, and ``key+=value`` to the value before."""
    first: dict[str, int] = {}
    found: list[Section] = []
    # Where the last line of that key is, by the section's number.
    last: dict[tuple[int, str], int] = {}
    left = LINES_MOST
    for section in sections:
        adds = any(word.startswith("+") for word in section.words)
        number = first.get(section.name) if adds else None
        if number is None:
            number = len(found)
            found.append(Section(section.name, is_template=section.is_template))
            first.setdefault(section.name, number)
        into = found[number]
        bases = [found[first[word]] for word in section.words if word in first and word != "!"]
        for source in (*bases, section):
            lines = list(zip(source.lines, source.places, strict=True))[:left]
            left -= len(lines)
            for (key, value), place in lines:
                name = key.removesuffix("+").rstrip()
                before = last.get((number, name))
                if name != key and before is not None:
                    into.lines[before] = name, (into.lines[before][1] + value)[:VALUE_MOST]
                    into.places[before] = place
                    continue
                last[number, name] = len(into.lines)
                into.lines.append((name, value))
                into.places.append(place)
    return [section for section in found if not section.is_template]


class _Reader:
    """One question: what it may still read gets less with each file."""

    def __init__(self, directory: Directory, without: str, warn: Warn) -> None:
        self.sections: list[Section] = []
        self._directory = directory
        self._without = without
        self._warn = warn
        self._files = FILES_MOST
        self._bytes = TOTAL_MOST

    def read(self, name: str, depth: int) -> None:
        for place in self._places(name):
            if self._files <= 0 or self._bytes <= 0:
                return
            self._files -= 1
            try:
                text = text_of(self._directory, place, min(FILE_MOST, self._bytes))
            except FileNotFoundError:
                continue
            except OSError as problem:
                self._warn(f"{_told(self._directory, place, problem)}: taken as absent")
                continue
            self._bytes -= len(text)
            if self._files <= 0 or self._bytes <= 0:
                self._warn(f"{self._directory.name(place)}: too much is included; what comes "
                           "after this is not read")
            self._parse(place, text, depth)

    def _parse(self, place: str, text: str, depth: int) -> None:
        for number, line in enumerate(_without_comments(text).split("\n"), 1):
            line = re.split(r"(?<!\\);", line[:VALUE_MOST], maxsplit=1)[0].strip()
            include = _included(line)
            section = SECTION.match(line)
            if include:
                if depth < DEPTH_MOST and include != self._without:
                    self.read(include, depth + 1)
            elif section:
                words = tuple(word.strip() for word in (section[2] or "").split(","))
                self.sections.append(Section(section[1], is_template="!" in words, words=words))
            elif "=" in line and self.sections:
                key, _, value = line.partition("=")
                self.sections[-1].lines.append(
                    (key.strip().lower(), value.removeprefix(">").strip()))
                self.sections[-1].places.append(f"{place}:{number}")

    def _places(self, name: str) -> Iterator[str]:
        """The files of an include, below the directory; it may be a pattern (glob(7))."""
        inside = name.removeprefix(ETC)
        parts = [part for part in inside.split("/") if part not in ("", ".")]
        if inside.startswith("/") or ".." in parts:
            self._warn(f"{name} is included and lies out of {self._directory.path}: taken as "
                       "absent")
        elif parts:
            yield from self._matches(parts, "")

    def _matches(self, parts: list[str], above: str) -> Iterator[str]:
        part, *rest = parts
        if not any(letter in part for letter in "*?["):
            found = [part]
        else:
            found = [one for one in self._names(above) if fnmatchcase(one, part)
                     and (part.startswith(".") or not one.startswith("."))]
        for one in found:
            if rest:
                yield from self._matches(rest, f"{above}{one}/")
            else:
                yield f"{above}{one}"

    def _names(self, folder: str) -> list[str]:
        # Each pattern costs a file, so that a thousand of them have an end too.
        self._files -= 1
        if self._files <= 0:
            return []
        try:
            with self._directory.below(folder) as place:
                names = place.names()
        except OSError:
            return []
        if len(names) > NAMES_MOST:
            self._warn(f"{self._directory.path}/{folder} has {len(names)} files: not all are read")
        return names[:NAMES_MOST]


def text_of(directory: Directory, name: str, most: int = FILE_MOST) -> str:
    """Raises Untrusted for what is no ordinary file or too large, OSError."""
    return rootwork.read_within(directory, name, most).decode("utf-8", "replace")


def _told(directory: Directory, name: str, problem: OSError) -> str:
    return str(problem) if isinstance(problem, Untrusted) \
        else f"{directory.name(name)}: {problem.strerror}"


def _without_comments(text: str) -> str:
    """``;--`` to ``--;``, over lines; one without an end takes the rest. The lines keep their
    numbers."""
    kept = []
    here = left_out = 0
    for begin in [*re.finditer(r";--(?!-)", text), None]:
        if begin is not None and begin.start() < here:
            continue
        part = text[here:begin.start() if begin else len(text)]
        # What stands before and behind it is one line.
        kept.append(part.replace("\n", "\n" * (left_out + 1), 1))
        left_out = 0 if "\n" in part else left_out
        if begin is not None:
            end = text.find("--;", begin.end())
            here = end + 3 if end >= 0 else len(text)
            left_out += text.count("\n", begin.start(), here)
    return "".join(kept)


def _included(line: str) -> str:
    """The name in an #include, "" where the line is none."""
    word, _, rest = line.replace("\t", " ", 1).partition(" ")
    # A string of C's ends there.
    name = rest.partition("\0")[0].strip()
    if word not in ("#include", "#tryinclude") or not name:
        return ""
    name = name[1:] if name[0] in "\"<" else name
    name = name[:-1] if name[-1:] in ("\"", ">") else name
    return "" if "\"" in name or ">" in name else name


def included_in(text: str) -> Iterator[tuple[str, bool]]:
    """The name in each include of a file's text, and whether Asterisk refuses the file
    without it (#tryinclude: it does not)."""
    for line in _without_comments(text).splitlines():
        name = _included(line.strip())
        if name:
            yield name, line.strip().startswith("#include")


def includes(directory: Directory, name: str, included: str) -> bool:
    """Whether a file itself names the other one."""
    try:
        text = text_of(directory, name)
    except OSError:
        return False
    return any(_included(line.strip()) == included for line in text.splitlines())


def is_true(value: str) -> bool:
    """As ast_true() in main/utils.c."""
    return value.lower() in ("yes", "true", "y", "t", "1", "on")
