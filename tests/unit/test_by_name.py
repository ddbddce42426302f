"""Who works where others can write goes by descriptor: this reads the sources and says where
one does not.

A call that resolves a path by its name is allowed only with a reason beside it::

    # by name: /etc/asha is root's alone
    os.rename(old, new)

The reason is a claim that a reader can check: why nobody but root can bend that path.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
# The rooms that copy, rename, dress, read, bind or delete where the PBX's users write.
ROOMS = ("asha/data", "asha/bootstrap", "asha/asterisk/lastgood",
         "asha/asterisk/configuration.py")
MARK = "# by name: "

OS = frozenset((
    "chmod", "chown", "lchown", "link", "listdir", "listxattr", "makedirs", "mkdir", "mkfifo",
    "mknod", "open", "remove", "removedirs", "rename", "renames", "replace", "rmdir", "scandir",
    "setxattr", "symlink", "truncate", "unlink", "utime", "walk",
))
SHUTIL = frozenset((
    "chown", "copy", "copy2", "copyfile", "copymode", "copystat", "copytree", "move", "rmtree",
))
PATHLIB = frozenset((
    "chmod", "glob", "hardlink_to", "iterdir", "mkdir", "open", "read_bytes", "read_text",
    "rename", "rglob", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
))
# Of a ``str``, of ``re`` and of our own classes, which have these names too.
OURS = frozenset(("os", "rootwork", "self", "machine", "directory", "here", "above", "parent",
                  "store", "place", "folder", "top", "there", "made"))
DESCRIPTORS = ("dir_fd", "src_dir_fd", "dst_dir_fd")


def by_name(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each call that resolves a path and gives no reason."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = _name(node)
            if name and not any(MARK in lines[number - 1] for number in _near(node, lines)):
                yield node.lineno, name


def _near(node: ast.Call, lines: list[str]) -> Iterator[int]:
    """The call's own lines, and the comment right above the statement."""
    yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
    above = node.lineno - 1
    while above and lines[above - 1].strip().startswith("#"):
        yield above
        above -= 1


def _name(call: ast.Call) -> str:
    if any(word.arg in DESCRIPTORS for word in call.keywords) or _is_the_kernels(call):
        return ""
    function = call.func
    if isinstance(function, ast.Name):
        is_path = function.id == "open" and call.args and not _is_descriptor(call.args[0])
        return "open" if is_path else ""
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if owner == "os":
        is_path = function.attr in OS and not (call.args and _is_descriptor(call.args[0]))
        return f"os.{function.attr}" if is_path else ""
    if owner == "shutil":
        return f"shutil.{function.attr}" if function.attr in SHUTIL else ""
    if function.attr in PATHLIB and owner not in OURS:
        return f"Path.{function.attr}"
    return ""


def _is_the_kernels(call: ast.Call) -> bool:
    """A path that begins with /proc or /sys as it stands there: nobody can bend it."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.JoinedStr):
        first = first.values[0]
    text = first.value if isinstance(first, ast.Constant) else ""
    return isinstance(text, str) and text.startswith(("/proc/", "/sys/"))


def _is_descriptor(argument: ast.expr) -> bool:
    if isinstance(argument, ast.Call):
        return isinstance(argument.func, ast.Attribute) and argument.func.attr in ("open", "fileno")
    name = argument.id if isinstance(argument, ast.Name) else ""
    if isinstance(argument, ast.Attribute):
        name = argument.attr
    return name in ("descriptor", "fd", "draft_fd", "writer", "reader") or name.endswith("_fd")


def modules(room: str) -> list[Path]:
    place = HERE / room
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


@pytest.mark.parametrize("room", ROOMS)
def test_no_path_is_resolved_where_others_write(room: str) -> None:
    found = [
        f"{path.relative_to(HERE)}:{line}: {name}"
        for path in modules(room)
        for line, name in by_name(path.read_text())
    ]
    assert not found, "by name, and no reason beside it:\n" + "\n".join(found)


def test_the_rooms_are_there() -> None:
    assert [len(modules(room)) > 5 for room in ROOMS] == [True, True, False, False]
    assert len(modules(ROOMS[2])) == 5
    assert len(modules(ROOMS[-1])) == 1


@pytest.mark.parametrize("call", [
    "open(path)", "os.open(path, 0)", "os.chown(place, 1, 1)", "os.rename(a, b)",
    "shutil.chown(path)", "place_of_it.touch()", "machine.path(x).rename(y)",
    "Path(x).read_text()", "os.walk(top)", "os.mkdir(name)",
])
def test_a_call_by_name_is_seen(call: str) -> None:
    assert list(by_name(f"import os\n{call}\n"))
    assert list(by_name(f"# a comment\n{call}\n"))
    assert not list(by_name(f"# by name: root's own\n{call}\n"))
    assert not list(by_name(f"{call}  # by name: root's own\n"))


@pytest.mark.parametrize("call", [
    "os.open(name, 0, dir_fd=self.fd)", "os.fchown(descriptor, 1, 1)",
    "open(descriptor, 'rb')", "open(os.open(name, 0, dir_fd=fd), 'rb')",
    "os.rename(a, b, src_dir_fd=x, dst_dir_fd=x)", "os.listdir(directory.fd)",
    "directory.rename('a', 'b')", "os.lstat(path)", "open(f'/proc/{pid}/comm')",
])
def test_one_by_descriptor_is_none(call: str) -> None:
    assert not list(by_name(call))
