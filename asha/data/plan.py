"""What this node should bind, and whether it may: every check before the first mount.

It reads the store, so it runs in a child; see asha.run.child.
"""

from __future__ import annotations

import os

from asha.data import owners, store
from asha.data.binds import Bind
from asha.data.mountinfo import escape, holding, unescape
from asha.data.paths import is_inside, overlap
from asha.rootwork import Directory, Untrusted
from asha.run.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.data.mountinfo import Mount
    from asha.data.paths import Item

RESTART = "then restart this resource"


def on_both(hint: str) -> str:
    """The hint for what must be done on both nodes; the same text everywhere. The command ends
    the line, to be copied."""
    return f"on both nodes: {hint}"


class LeftOut(Exception):
    """An item cannot be bound as it is. ``lasting``: people are told until it is fixed.

    ``needed``: without it the PBX would run with other data.
    """

    def __init__(self, reason: str, *, needed: bool = True, lasting: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.needed = needed
        self.lasting = lasting


class Plan:
    """The binds to make, the store's path for each, and the messages about the rest.

    ``lasting`` are messages that stay until somebody fixes the cause.
    """

    def __init__(self) -> None:
        self.binds: list[Bind] = []
        self.sources: list[str] = []
        self.lasting: list[str] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def to_text(self) -> str:
        """For the transfer from the child that made it."""
        pairs = zip(self.binds, self.sources, strict=True)
        lines = [f"bind {bind.to_line()} {escape(source)}" for bind, source in pairs]
        lines += [f"last {escape(text)}" for text in self.lasting]
        lines += [f"warn {escape(text)}" for text in self.warnings]
        lines += [f"note {escape(text)}" for text in self.notes]
        return "\n".join(lines)

    @classmethod
    def from_text(cls, text: str) -> Plan:
        plan = cls()
        texts = {"last": plan.lasting, "warn": plan.warnings, "note": plan.notes}
        for line in text.split("\n"):
            word, _, rest = line.partition(" ")
            if word == "bind":
                fields, _, source = rest.rpartition(" ")
                plan.binds.append(Bind.from_line(fields))
                plan.sources.append(unescape(source))
            elif word:
                texts[word].append(unescape(rest))
        return plan


def make(items: Sequence[Item], mounts: Sequence[Mount], mounted: Mount) -> Plan:
    """Check every item; changes nothing.

    Raises Failed, after which Pacemaker tries again, here and on the other node. Never "not
    installed" or "not configured", which would be final: users may have made what is on the
    disk.
    """
    plan = Plan()
    try:
        root = store.enter(mounted.point)
    except Untrusted as problem:
        raise Failed(f"{problem} ({problem.hint})") from None
    except OSError as problem:
        raise Failed(f"cannot look into {mounted.point}: {problem.strerror}") from None
    with root:
        for item in items:
            try:
                _add(plan, item, mounts, mounted, root)
            except LeftOut as problem:
                if problem.needed and not item.optional:
                    raise Failed(problem.reason) from None
                said = plan.lasting if problem.lasting else plan.warnings
                said.append(f"{item.path} is left out: {problem.reason}")
    if not plan.binds:
        raise Failed(
            "none of the directories of parameter paths can be bound on this node: "
            + ("; ".join(plan.lasting) or "install Asterisk first")
        )
    return plan


def _add(plan: Plan, item: Item, mounts: Sequence[Mount], mounted: Mount,
         root: Directory) -> None:
    """Raises LeftOut."""
    source = mounted.point.rstrip("/") + item.path
    point = _place(item, mounted)
    absent = ""
    if not point:
        absent = "this node has no such directory"
    elif item.user and owners.account(item.user) is None:
        absent = f"this node has no user {item.user}"
    if absent:
        # Not this node's program, which is no news, unless the data is waiting.
        if _has(root, item.path):
            plan.warnings.append(f"{item.path} is left out: {absent}, though {source} has its data")
        else:
            plan.notes.append(f"{item.path} is left out: {absent}")
        return
    about = _look(item, source, root)
    disk = holding(mounts, source)
    if disk is None or disk.point != mounted.point or about.st_dev != root.about().st_dev:
        raise LeftOut(
            f"another file system is mounted inside the store and holds {source}: unmount it"
        )
    owner = owners.account(item.user) if item.user else None
    if owner is not None:
        problem = owners.uid_problem(source, about, owner)
        if problem:
            raise LeftOut(problem)
        problem = owners.gid_problem(source, about, owner)
        if problem:
            plan.warnings.append(problem)
    _require_apart(plan, item, point, mounted)
    inside = mounted.root.rstrip("/") + item.path
    plan.binds.append(Bind(mounted.device, inside, point, about.st_ino, item.optional))
    plan.sources.append(item.path)


def _place(item: Item, mounted: Mount) -> str:
    """The directory on this node, "" if there is none. Raises LeftOut."""
    try:
        with Directory.trusted(item.path) as place:
            point = place.path
    except Untrusted as problem:
        # Whoever writes there chooses what would be hidden by the bind.
        raise LeftOut(f"{problem} (hint, {on_both(problem.hint)}; {RESTART})",
                      needed=False) from None
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as problem:
        raise LeftOut(f"{item.path} cannot be looked at: {problem.strerror}") from None
    if is_inside(point, mounted.point):
        raise LeftOut(
            f"{item.path} is a symbolic link to {point}, as older clusters made it:"
            f" replace it by a directory (rm {item.path} && mkdir {item.path})"
        )
    return point


def _has(root: Directory, path: str) -> bool:
    try:
        root.below(path).close()
    except OSError:
        return False
    return True


def _look(item: Item, source: str, root: Directory) -> os.stat_result:
    """Check the store's directory. Raises LeftOut."""
    parent = os.path.dirname(source)
    hint = f"mkdir -p {parent} && cp -a {item.path} {parent}/"
    try:
        with root.below(item.path) as found:
            return found.about()
    except (Untrusted, NotADirectoryError):
        # A link not even where it stays inside: who made it is not to be known.
        bad = _first_bad(root, item.path)
        raise LeftOut(f"{bad} is a symbolic link or something else, and no directory: put the"
                      f" data itself there (mv {bad} {bad}.old; {hint}), and restart this"
                      " resource") from None
    except FileNotFoundError:
        if item.optional:
            reason = (f"it stays this node's own and is not replicated: the store has no {source};"
                      f" to replicate it: {hint}, and restart this resource")
        else:
            reason = (f"{item.path} exists on this node, but the store has no {source}:"
                      f" copy the data there first ({hint})")
        raise LeftOut(reason, lasting=False) from None
    except OSError as problem:
        raise LeftOut(f"{source} cannot be looked at: {problem.strerror}") from None


def _first_bad(root: Directory, path: str) -> str:
    """The first part of the way to an item of the store that is no directory."""
    here = Directory(os.dup(root.fd), root.path)
    for part in path.strip("/").split("/"):
        with here as above:
            try:
                here = above.enter(part)
            except OSError:
                return above.name(part)
    here.close()
    return root.path.rstrip("/") + path


def _require_apart(plan: Plan, item: Item, point: str, mounted: Mount) -> None:
    """Raises LeftOut where root's links bring two items together."""
    problem = overlap([*(bind.point for bind in plan.binds), point], mounted.point)
    if not problem:
        return
    others = [number for number, bind in enumerate(plan.binds)
              if bind.optional and overlap([bind.point, point], mounted.point)]
    reason = f"with symbolic links resolved, {problem}"
    if item.optional or not others:
        raise LeftOut(reason)
    for number in reversed(others):
        plan.lasting.append(f"{plan.binds[number].point} is left out: {reason}")
        del plan.binds[number], plan.sources[number]
    if overlap([*(bind.point for bind in plan.binds), point], mounted.point):
        raise LeftOut(reason)
