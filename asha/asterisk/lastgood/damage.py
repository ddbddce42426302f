"""What tells a damaged file from one that somebody has changed on purpose.

Only what nobody means to write counts: an Asterisk that starts, with less SIP than before,
may be just what a person wants. Compared with the file that served.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import islice

from asha.asterisk import configuration
from asha.asterisk.lastgood import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asha.rootwork import Directory

# Which files, in whose includes too, say how a stack takes SIP; and those of all stacks.
OF_STACK = {"PJSIP": ("pjsip*.conf", "pjproject.conf", "sorcery.conf"), "chan_sip": ("sip*.conf",)}
OF_ALL = ("asterisk.conf", "modules.conf")

FILES_MOST = 200
# Differences that are named to people, and characters of each path: who may make files there
# may give them names of 255, in ten directories.
NAMED_MOST = 5
PATH_MOST = 120


def differences(today: Mapping[str, tree.Item], kept: Mapping[str, tree.Item]) -> list[str]:
    """The paths that are not the same in both, those that are empty or missing now first."""
    found = [path for path in {**kept, **today}
             if path not in today or path not in kept or today[path].digest != kept[path].digest]
    return sorted(found, key=lambda path: (path in today and today[path].size > 0, path))


def described(
    paths: list[str], today: Mapping[str, tree.Item], kept: Mapping[str, tree.Item],
    now: Directory, before: Directory,
) -> list[str]:
    """What people are told of each: "pjsip.conf is empty"."""
    told = []
    for path in paths:
        if path not in today:
            why = "is not there any more"
        elif path not in kept:
            why = "is new"
        elif not today[path].size and kept[path].size:
            why = "is empty"
        else:
            why = of_file(now, path, before) or "has changed"
        told.append(f"{_short(path)} {why}")
    return told


def of_stack(now: Directory, before: Directory, stacks: set[str]) -> list[str]:
    """What is damaged in the files of these SIP stacks. Raises OSError, Failed."""
    today, kept = tree.read(now), tree.read(before)
    patterns = [*OF_ALL, *(one for stack in stacks for one in OF_STACK.get(stack, ()))]
    wanted = _with_includes(now, today, patterns) | _with_includes(before, kept, patterns)
    found = []
    for path in differences(today, kept):
        if path in wanted and path in today:
            why = of_file(now, path, before)
            if why:
                found.append(f"{_short(path)} {why}")
    return found


def of_file(now: Directory, path: str, before: Directory) -> str:
    """What is damaged in it, "" if nothing is that nobody could have meant."""
    new, old = tree.text(now, path), tree.text(before, path)
    if new is None or old is None or not old.strip() or new == old:
        return ""
    if not new:
        return "is empty"
    if b"\0" in new and b"\0" not in old:
        return "has zero bytes"
    if not new.strip():
        return "is empty"
    # Without its last lines it may be meant: many a panel ends none of its files with a newline.
    rest = old[len(new):].lstrip(b"\r")
    if old.startswith(new) and not (new.endswith(b"\n") or rest.startswith(b"\n")):
        return "is cut off"
    line = _open_section(new)
    if line and not _open_section(old):
        return f"has no closing ] in line {line}"
    gone = _missing(now, new) - _missing(before, old)
    return f"includes {_short(min(gone))}, which is missing" if gone else ""


def _short(path: str) -> str:
    return path if len(path) <= PATH_MOST else f"{path[:PATH_MOST]}..."


def _open_section(data: bytes) -> int:
    """The first line that Asterisk refuses the file for (main/config.c), 0 without one."""
    for number, line in enumerate(data.splitlines(), 1):
        bare = line.partition(b";")[0].strip()
        if bare.startswith(b"[") and b"]" not in bare:
            return number
    return 0


def _missing(top: Directory, data: bytes) -> set[str]:
    """The files without which Asterisk refuses this one. A pattern may match none."""
    missing = set()
    for name, is_needed in islice(_included(data), FILES_MOST):
        is_here = not name.startswith("/") and ".." not in name.split("/")
        if is_needed and is_here and not any(letter in name for letter in "*?["):
            folder, _, base = name.rpartition("/")
            try:
                with top.below(folder) as place:
                    if not place.exists(base):
                        missing.add(name)
            except (OSError, ValueError):
                missing.add(name)
    return missing


def _included(data: bytes) -> Iterator[tuple[str, bool]]:
    for name, is_needed in configuration.included_in(data.decode("utf-8", "replace")):
        yield name.removeprefix(configuration.ETC), is_needed


def _with_includes(top: Directory, items: Mapping[str, tree.Item], patterns: list[str]) -> set[str]:
    """The files of these patterns, and what they include."""
    found: set[str] = set()
    waiting = list(patterns)
    asked = set(waiting)
    while waiting and len(found) < FILES_MOST and len(asked) < FILES_MOST:
        pattern = waiting.pop()
        for path in [one for one in items if fnmatchcase(one, pattern)]:
            if path in found:
                continue
            found.add(path)
            for name, _ in islice(_included(tree.text(top, path) or b""), FILES_MOST):
                if name not in asked:
                    asked.add(name)
                    waiting.append(name)
    return found
