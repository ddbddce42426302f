"""The parameter ``paths``: which directories live on the store, and whose they are.

A word is ``/path``, ``/path:user``, and with a ``?`` at its end an optional one.
The store holds a directory under the same name: /etc/asterisk is kept in
``data_root``/etc/asterisk.
"""

from __future__ import annotations

from itertools import pairwise

from asha.ocf.params import path_problem
from asha.run.results import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What useradd(8) of Debian takes, and room for what adduser's administrators do.
USER_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class Item:
    """One word of the parameter. ``user`` is "" where the owner does not matter."""

    __slots__ = ("optional", "path", "user")

    def __init__(self, path: str, user: str = "", optional: bool = False) -> None:
        self.path = path
        self.user = user
        self.optional = optional


def parse(text: str, data_root: str) -> list[Item]:
    """The items of the parameter. Raises BadConfig: it would be invalid on any node."""
    if data_root == "/":
        raise BadConfig('parameter data_root="/": must be the mount point of the store')
    items = [_item(word) for word in text.split()]
    if not items:
        raise BadConfig("parameter paths: names no directory")
    problem = overlap([item.path for item in items], data_root)
    if problem:
        raise BadConfig(f"parameter paths: {problem}")
    return items


def overlap(points: Sequence[str], data_root: str) -> str:
    """Why not all of these can be mounted at once, "" if they can."""
    for point in points:
        if is_inside(point, data_root):
            return f"{point} is inside the store {data_root} itself"
        if is_inside(data_root, point):
            return f"{point} contains the store {data_root} and would hide it"
    # Sorted by its parts a directory comes right before what is inside it.
    ordered = sorted(points, key=lambda point: point.split("/"))
    for outer, inner in pairwise(ordered):
        if inner == outer:
            return f"{inner} is named twice"
        if is_inside(inner, outer):
            return f"{inner} is inside {outer}; name only one of them"
    return ""


def is_inside(path: str, directory: str) -> bool:
    """Whether a path is this directory or below it, by their spelling."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _item(word: str) -> Item:
    optional = word.endswith("?")
    path, colon, user = word.removesuffix("?").partition(":")
    problem = path_problem(path)
    if path == "/":
        problem = "the whole file system cannot be kept on the store"
    elif colon and (not user or user.startswith("-") or not USER_CHARACTERS.issuperset(user)):
        problem = "must be /path, /path:user or either with a ? at its end"
    if problem:
        raise BadConfig(f'parameter paths: "{word}": {problem}')
    return Item(path, user, optional)
