"""The configurations that have served, and which of today's did not: a directory of root's on
the store, so that both nodes have it.

::

    /drbd/last-good/                       root's, 0700
        0007-20261129T180355/about         digest, node and SIP sockets of that start
        0007-20261129T180355/files/        a copy of /etc/asterisk, owners and modes as there
        failed                             a line for each content that did not start

A generation is made under another name and renamed when all of it is on the disk: it is whole
or not there. All of this is for a child with a deadline, as any disk may hang.
"""

from __future__ import annotations

import os

from asha.asterisk.lastgood import tree
from asha.rootwork import Directory, Untrusted, access_list, is_roots_alone
from asha.run.results import Failed
from asha.run.text import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# So many stay, and one more while a new one is made.
KEPT_MOST = 3
DRAFT = ".asha-new"
ABOUT, FILES, FAILED = "about", "files", "failed"
ABOUT_MOST = 64 << 10
# Of these, for where it takes SIP: Asterisk itself tells that.
SIP_MOST = 8 << 10

# Lines of ``failed``, the newest: a person tries to repair, again and again.
FAILED_MOST = 40
# What it says of one that is today's; else the name of a generation.
TODAY = "today"

# Stands for the other node, where what is known of one is true of both.
ANY_NODE = "*"

# So many starts of both nodes have failed since one served, each perhaps with other files: who
# changes a file before each start must not keep the last good ones from being used. Three
# here, three there, three more; who repairs files has had a start with the kept ones before.
CHANGING = 9

# What keep() returns where there is no store: the agent may be used without.
NOWHERE = "-"

# Bytes that the store keeps free beside a new generation.
ROOM = 64 << 20


class Generation:
    """``sip``: the lines of talk/sip_transports.py that told where this one took SIP."""

    __slots__ = ("digest", "name", "sip")

    def __init__(self, name: str, digest: str, sip: str = "") -> None:
        self.name = name
        self.digest = digest
        self.sip = sip

    @property
    def when(self) -> str:
        """When it was kept, for people: 2026-11-29 18:03."""
        stamp = self.name.partition("-")[2]
        return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]} {stamp[9:11]}:{stamp[11:13]}"

    def files(self, directory: str) -> str:
        return f"{directory}/{self.name}/{FILES}"


class Failure:
    """So often has a start with this failed on that node. ``digest`` is of today's files, also
    for a start with a generation that was made instead: ``what`` is then its name."""

    __slots__ = ("count", "digest", "node", "what")

    def __init__(self, digest: str, node: str, what: str, count: int) -> None:
        self.digest = digest
        self.node = node
        self.what = what
        self.count = count


def enter(path: str) -> Directory:
    """Raises FileNotFoundError, OSError; Untrusted where others can write it."""
    place = Directory.trusted(path)
    if not is_roots_alone(place.about()):
        place.close()
        raise Untrusted(path, "can be written by others than root",
                        f"chown root:root {path} && chmod 700 {path}")
    return place


def listed(place: Directory) -> list[Generation]:
    """The newest first. Raises OSError."""
    found = []
    for name in _named(place):
        try:
            with place.enter(name) as inner:
                text = inner.read(ABOUT, ABOUT_MOST).decode("utf-8", "replace")
        except OSError:
            continue  # only a part of it is left
        lines = [line.partition(" ") for line in text.splitlines()]
        told = {word: rest for word, _, rest in lines}
        sip = "".join(f"{rest}\n" for word, _, rest in lines if word == "sip")
        found.append(Generation(name, told.get("digest", ""), sip))
    return found


def _named(place: Directory) -> list[str]:
    """The names of generations, the newest first: 10000 comes after 9999."""
    return sorted(filter(is_generation, place.names()), key=_number, reverse=True)


def _number(name: str) -> int:
    return number(name.partition("-")[0]) or 0


def is_generation(name: str) -> bool:
    first, _, stamp = name.partition("-")
    return number(first) is not None and len(stamp) == 15


def failures(place: Directory) -> list[Failure]:
    """Raises OSError."""
    try:
        text = place.read(FAILED, ABOUT_MOST).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return parsed(text)


def parsed(text: str) -> list[Failure]:
    """What with_another() has written; what is no line of that is left out."""
    words = [line.split() for line in text.splitlines()]
    return [Failure(one[0], one[1], one[2], count) for one in words
            if len(one) == 4 and (count := number(one[3])) is not None]


def add_failure(place: Directory, digest: str, node: str, what: str) -> None:
    """Write one more down. Raises OSError."""
    place.write(FAILED, with_another(failures(place), digest, node, what).encode())


def with_another(found: Sequence[Failure], digest: str, node: str, what: str) -> str:
    same = [one for one in found if (one.digest, one.node, one.what) == (digest, node, what)]
    rest = [one for one in found if one not in same]
    rest.append(Failure(digest, node, what, sum(one.count for one in same) + 1))
    return "".join([f"{one.digest} {one.node} {one.what} {one.count}\n"
                    for one in rest[-FAILED_MOST:]])


def choose(
    generations: Sequence[Generation],
    failed: Sequence[Failure],
    today: str,
    node: str,
    is_there_a_peer: Callable[[], bool],
    tries: int,
) -> Generation | None:
    """Which one to start with; None: with today's files, whose digest is ``today``.

    A generation where just these files have failed here and on the other node; with no other
    node there, or as many ``tries`` here as make Pacemaker move it, here alone. Not
    where these files have served: then something else is wrong. Where generations fail too, each
    second try is today's. Also where files that change all the time have failed so often.
    """
    if not generations or any(one.digest == today for one in generations):
        return None
    these = [one for one in failed if one.digest == today]
    own = sum(one.count for one in these if one.node == node and one.what == TODAY)
    kept = sum(one.count for one in these if one.node == node and one.what != TODAY)
    elsewhere = any(one.node != node and one.what == TODAY for one in these)
    if own > kept and (elsewhere or own >= tries or not is_there_a_peer()):
        return generations[kept % len(generations)]
    in_vain = sum(one.count for one in failed if one.what != TODAY)
    if not own and _tried(failed) >= CHANGING * (in_vain + 1):
        return generations[in_vain % len(generations)]
    return None


def _tried(failed: Sequence[Failure]) -> int:
    return sum(one.count for one in failed if one.what == TODAY and one.node != ANY_NODE)


def forget_failures(place: Directory) -> None:
    """Raises OSError."""
    place.remove(FAILED)
    place.sync()


def keep(path: str, source: Directory, state: str, node: str, sip: str) -> str:
    """Keep ``source`` as a generation, unless it is the last one already; what failed is
    forgotten. Returns its name; "" where it is not as it was in ``state`` (tree.state), NOWHERE
    without a directory to make ``path`` in.

    Raises OSError, Failed.
    """
    if tree.state(source) != state:
        return ""
    parent, _, name = path.rpartition("/")
    try:
        above = Directory.trusted(parent or "/")
    except FileNotFoundError:
        return NOWHERE
    with above:
        if above.about().st_dev != source.about().st_dev:
            raise Failed(f"{path} is not on the disk that {source.path} is on")
        with above.ensure(name) as place:
            place.own(0o700)
            above.sync()
            made = _keep(place, source, state, node, sip)
            if made:
                forget_failures(place)
            return made


def _keep(place: Directory, source: Directory, state: str, node: str, sip: str) -> str:
    from time import localtime, strftime

    if len(sip) > SIP_MOST:
        sip = sip[:SIP_MOST].rpartition("\n")[0]
    items = tree.read(source)
    digest = tree.digest_of(items)
    before = listed(place)
    if before and before[0].digest == digest and (
        set(sip.splitlines()) <= set(before[0].sip.splitlines())
    ):
        return before[0].name
    room = os.fstatvfs(place.fd)
    if room.f_bavail * room.f_frsize < tree.size_of(items) + ROOM:
        raise Failed(f"{place.path}: its disk has no room for {tree.size_of(items) >> 10} kB "
                     f"beside {ROOM >> 20} MB that must stay free")
    newest = max(map(_number, _named(place)), default=0)
    made = f"{newest + 1:04}-{strftime('%Y%m%dT%H%M%S', localtime())}"
    place.remove_tree(DRAFT)  # of one that was killed
    try:
        with place.make(DRAFT) as draft:
            with draft.make(FILES) as files:
                copied = tree.read(source, files)
                files.put_on(source.about(), access_list(source.fd))
            if tree.digest_of(copied) != digest or tree.state(source) != state:
                return ""
            lines = [f"digest {digest}\n", f"node {node}\n",
                     *(f"sip {line}\n" for line in sip.splitlines())]
            draft.write(ABOUT, "".join(lines).encode())
        place.sync_all()
        place.rename(DRAFT, made)
        place.sync()
    finally:
        place.remove_tree(DRAFT)
    for same in listed(place)[1:]:
        if same.digest == digest:
            place.remove_tree(same.name)  # the same files served again, or take SIP elsewhere too
    for old in _named(place)[KEPT_MOST:]:
        place.remove_tree(old)
    return made
