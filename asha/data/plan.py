"""What this node is to bind, and whether it may: every check before the first mount.

It looks into the store, so it runs in a child; see asha.ocf.child.
"""

from __future__ import annotations

import os

from asha.data import owners
from asha.data.binds import Bind
from asha.data.mountinfo import escape, holding, unescape
from asha.data.paths import is_inside, overlap
from asha.ocf.results import BadConfig, BadHere, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.data.mountinfo import Mount
    from asha.data.paths import Item


class Plan:
    """The binds to make, the store's directory for each, and what to tell of the rest."""

    def __init__(self) -> None:
        self.binds: list[Bind] = []
        self.sources: list[str] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def to_text(self) -> str:
        """For the way from the child that made it."""
        pairs = zip(self.binds, self.sources, strict=True)
        lines = [f"bind {bind.to_line()} {escape(source)}" for bind, source in pairs]
        lines += [f"warn {text}" for text in self.warnings]
        lines += [f"note {text}" for text in self.notes]
        return "\n".join(lines)

    @classmethod
    def from_text(cls, text: str) -> Plan:
        plan = cls()
        for line in text.split("\n"):
            word, _, rest = line.partition(" ")
            if word == "bind":
                fields, _, source = rest.rpartition(" ")
                plan.binds.append(Bind.from_line(fields))
                plan.sources.append(unescape(source))
            else:
                (plan.warnings if word == "warn" else plan.notes).append(rest)
        return plan


def make(items: Sequence[Item], mounts: Sequence[Mount], store: Mount) -> Plan:
    """Look at every item. Raises BadConfig, BadHere or NotInstalled."""
    plan = Plan()
    for item in items:
        _add(plan, item, mounts, store)
    points = [bind.point for bind in plan.binds]
    if not points:
        raise NotInstalled(
            "none of the directories of parameter paths exists on this node: install Asterisk first"
        )
    problem = overlap(points, store.point)
    if problem:
        raise BadHere(f"with symbolic links resolved, {problem}")
    return plan


def _add(plan: Plan, item: Item, mounts: Sequence[Mount], store: Mount) -> None:
    source = store.point + item.path
    absent = _absence(item)
    if absent:
        # Not this node's program, which is no news, unless the data is waiting.
        if os.path.isdir(source):
            plan.warnings.append(f"{item.path} is left out: {absent}, though {source} has its data")
        else:
            plan.notes.append(f"{item.path} is left out: {absent}")
        return

    point = os.path.realpath(item.path)
    if is_inside(point, store.point):
        raise BadHere(
            f"{item.path} is a symbolic link to {point}, as older clusters made it:"
            f" replace it by a directory (rm {item.path} && mkdir {item.path})"
        )

    real = os.path.realpath(source)
    if not is_inside(real, store.point):
        raise BadConfig(
            f"{source} is a symbolic link out of the store, to {real}: put the data itself there"
        )
    if not os.path.isdir(real):
        _refuse_or_leave_out(plan, item, source)
        return
    disk = holding(mounts, real)
    if disk is None or disk.point != store.point:
        raise BadHere(
            f"another file system is mounted inside the store and holds {source}:"
            f" unmount it, or leave {item.path} out of parameter paths"
        )
    owner = owners.account(item.user) if item.user else None
    if owner is not None:
        about = os.stat(real)
        problem = owners.uid_problem(source, about, owner)
        if problem:
            raise NotInstalled(problem)
        problem = owners.gid_problem(source, about, owner)
        if problem:
            plan.warnings.append(problem)
    inside = real[len(store.point) :]
    plan.binds.append(Bind(store.device, store.root.rstrip("/") + inside, point))
    plan.sources.append(real)


def _absence(item: Item) -> str:
    """Why this node has no use for the directory, or ""."""
    if not os.path.isdir(item.path):
        return "this node has no such directory"
    if item.user and owners.account(item.user) is None:
        return f"this node has no user {item.user}"
    return ""


def _refuse_or_leave_out(plan: Plan, item: Item, source: str) -> None:
    parent = os.path.dirname(source)
    mend = f"mkdir -p {parent} && cp -a {item.path} {parent}/"
    if os.path.lexists(source) and not os.path.islink(source):
        raise NotInstalled(f"{source} is not a directory: replace it by the data ({mend})")
    if item.optional:
        plan.warnings.append(
            f"{item.path} stays this node's own and is not replicated: the store has no"
            f" {source}; to replicate it: {mend}, and restart this resource"
        )
        return
    raise NotInstalled(
        f"{item.path} exists on this node, but the store has no {source}:"
        f" copy the data there first ({mend})"
    )
