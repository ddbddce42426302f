"""The live data's way into the store: twice with rsync, then verified.

The first pass runs beside the telephone system and takes as long as it takes. Then the
services stop, and the second pass brings what has changed since. What the running PBX
wrote during the first pass is so in the store; if anybody writes during the second one
or after it, that is seen (tree.fingerprint) and refused.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
import uuid
from pathlib import PurePath
from typing import Any

from asha.bootstrap import handover, live, tree, units
from asha.bootstrap import record as records
from asha.bootstrap.action import Action, Call, Say
from asha.bootstrap.handover import COPY_ID
from asha.bootstrap.live import Live
from asha.bootstrap.record import BEGUN, COPIED
from asha.cluster.site import Site
from asha.data import holders, space, sqlite
from asha.data.paths import is_inside
from asha.machine import Machine
from asha.ocf.child import in_child
from asha.ocf.deadline import Deadline
from asha.ocf.results import AgentError
from asha.trouble import Trouble

# Whose copy the store has, and what of. In sark-data's own directory of the store.
CLAIM = f"{live.STORE}/{space.PROBE_DIRECTORY}/copy.json"
# sark-data writes one of these in every store that a cluster has run on.
PROBES = "probe.*"

# Of these both sides are read, of the rest size and time compared.
DATABASES = ("/var/lib/mysql", "/var/lib/ldap")
DATABASE_NAMES = (".db", ".sqlite", ".sqlite3", "-wal", "-journal")

RSYNC = (
    # Not outliving us: what it writes later would not be verified.
    "setpriv", "--pdeathsig", "KILL",
    "rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--numeric-ids", "--delete",
    # Compare times to the nanosecond; by default a second is the same (rsync(1)).
    "--modify-window=-1",
    # No room is needed for a second copy of a large database file.
    "--inplace", "--from0", "--exclude-from=-",
)
# rsync(1): some files were not transferred; some vanished before they were.
LIVE_CODES = (0, 23, 24)
NO_ROOM = "No space left"

# A slow disk with small files. At least ten minutes.
BYTES_PER_SECOND = 1_000_000
LEAST_SECONDS = 600.0
# An inode, and the unused end of a last block.
BYTES_PER_ENTRY = 4096
SQLITE_SECONDS = 300.0
LEFTOVER_SECONDS = 30.0
SAY_SECONDS = 5.0
LINKS_MOST = 10


def actions(site: Site, machine: Machine) -> list[Action]:
    """Everything of step 30 up to a verified copy; the services are stopped then."""

    def pass_done(machine: Machine) -> bool:
        # Whoever comes later does it again: the more is copied now, the shorter the stop.
        by_us = _json(machine, CLAIM).get("passed") == list(records.owner())
        return handover.is_taken_over(machine) or by_us or handover.has_reached(machine, BEGUN)

    def all_done(machine: Machine) -> bool:
        return handover.is_taken_over(machine) or is_copied(machine)

    return [
        Call(
            "first-copy",
            "copy the live data while the telephone system runs",
            f"Mount {live.DEVICE} on {live.STORE}. Make sure that the store has nobody else's data,"
            "\nand room. Copy with rsync, from where sark-data will bind it later:\n"
            + "\n".join(_preview(machine)),
            first_pass,
            pass_done,
        ),
        handover.begin_action(site, machine),
        Call(
            "last-copy",
            "copy what has changed since, and verify everything",
            "rsync again. Compare every file: size, time, owner, mode, links, attributes; the\n"
            "contents of databases and of all that changed during the first copy. Make sure that\n"
            "nobody has written meanwhile.",
            last_pass,
            all_done,
        ),
    ]


def is_copied(machine: Machine) -> bool:
    """Whether this very installation has made and verified the copy."""
    if not handover.has_reached(machine, COPIED):
        return False
    claim, own = _json(machine, CLAIM), _json(machine, COPY_ID)
    # Handed to the cluster already, it is not mounted by us.
    return not machine.exists(CLAIM) or (
        claim.get("id") == own.get("id") and claim.get("state") == "copied"
    )


def _preview(machine: Machine) -> list[str]:
    try:
        found = live.directories(machine)
    except Trouble as trouble:
        return [str(trouble)]
    return [f"  {one.path} to {one.copy}" for one in found]


def first_pass(machine: Machine, say: Say) -> None:
    """Raises Trouble, with nothing changed but the store."""
    handover.settle(machine, say)
    directories = live.directories(machine)
    live.mount_store(machine)
    _wait_for_leftovers(machine)
    claim = _claim(machine)
    sizes = {one.path: tree.measure(str(machine.path(one.place))) for one in directories}
    _require_room(machine, directories, sizes)
    _warn_of_links(machine, directories, say)
    for one in directories:
        _rsync(machine, one, sizes[one.path], say, codes=LIVE_CODES)
    _save_claim(machine, {**claim, "passed": list(records.owner())})


def last_pass(machine: Machine, say: Say) -> None:
    """Raises Trouble; the guard then puts everything back."""
    with records.locked(machine, say):
        record = handover.require_own(machine, BEGUN)
        directories = live.directories(machine)
        live.mount_store(machine)
        claim = _claim(machine)
        places = [str(machine.path(one.place)) for one in directories]
        units.require_quiet(machine, [one.place for one in directories])
        before = _fingerprint(places)
        sizes = {one.path: tree.measure(place)
                 for one, place in zip(directories, places, strict=True)}
        for one in directories:
            _rsync(machine, one, sizes[one.path], say)
        found = _verify(machine, directories, claim, say)
        handover.require_unchanged(machine, before, directories)
        if found.problems:
            # A file that was changed twice in one tick of the clock looks unchanged.
            say("copying again, by contents: " + found.problems[0])
            for place in found.joined:
                os.unlink(place)
            for one in directories:
                _rsync(machine, one, sizes[one.path], say, "--checksum")
            found = _verify(machine, directories, claim, say)
            handover.require_unchanged(machine, before, directories)
        if found.problems:
            raise Trouble(
                "the copy is not the same as the data: " + "; ".join(found.problems),
                "look at the disks (dmesg), then run asha install again",
            )
        units.require_quiet(machine, [one.place for one in directories], seconds=0.0)
        _check_sqlite(machine, directories, say)
        _save_claim(machine, {
            **claim,
            "state": "copied",
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "entries": found.entries,
            "bytes": found.bytes,
            "checksums": found.digest.hexdigest(),
        })
        record.fingerprint = before
        record.stage = COPIED
        records.save(machine, record)
        say(f"verified: {found.entries} files and directories, {space.size(found.bytes)}")


def _fingerprint(places: list[str]) -> str:
    try:
        return tree.fingerprint(places)
    except OSError as problem:
        raise Trouble(f"{problem.filename}: {problem.strerror}",
                      "somebody is still writing there; run asha install again") from None


# Whose the store is.


def _claim(machine: Machine) -> dict[str, Any]:
    """This machine's mark on the store, made where the store is empty.

    Raises Trouble where a telephone system's data is in it that is not a copy of this
    machine's, or that a cluster has worked with since: it may be the newer one.
    """
    own, claim = _json(machine, COPY_ID), _json(machine, CLAIM)
    has_run = any(machine.path(CLAIM).parent.glob(PROBES))
    has_data = any(machine.exists(live.STORE + item) for item in ("/etc", "/var", "/opt", "/usr"))
    ours = bool(own.get("id")) and claim.get("id") == own.get("id")
    if has_run or (has_data and not ours):
        whose = f" of {claim['node']}" if claim.get("node") else ""
        raise Trouble(
            f"the store already has a telephone system's data{whose}, which may be newer than this"
            " machine's",
            f"look into {live.STORE}; if it is not wanted: umount {live.STORE} && mkfs.ext4 "
            f"{live.DEVICE}; if it is, copy it to its places here first; then run asha install "
            "again",
        )
    if not ours:
        claim = {"id": str(uuid.uuid4()), "node": os.uname().nodename, "begun": time.time()}
        machine.write(COPY_ID, json.dumps({"id": claim["id"]}) + "\n", 0o600)
    claim["state"] = "copying"
    _save_claim(machine, claim)
    return claim


def _save_claim(machine: Machine, claim: dict[str, Any]) -> None:
    place = machine.path(CLAIM).parent
    place.mkdir(mode=0o700, exist_ok=True)
    machine.write(CLAIM, json.dumps(claim, indent=1) + "\n", 0o600)


def _json(machine: Machine, path: str) -> dict[str, Any]:
    try:
        said = json.loads(machine.read(path) or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _wait_for_leftovers(machine: Machine) -> None:
    """A program of a killed installer may still be ending. Raises Trouble."""
    end = machine.now() + LEFTOVER_SECONDS
    store = str(machine.path(live.STORE))
    while True:
        try:
            found = in_child(
                lambda: "\n".join(str(one) for one in holders.find([store])),
                Deadline(LEFTOVER_SECONDS),
                f"looking for programs that use {live.STORE}",
            )
        except AgentError as problem:
            raise Trouble(problem.reason) from None
        if not found:
            return
        if machine.now() >= end:
            raise Trouble(found.replace("\n", "; "), f"leave {live.STORE}, or end it (kill PID)")
        machine.pause(0.5)


# Room, and what is left out.


def _require_room(machine: Machine, directories: list[Live], sizes: dict[str, tree.Size]) -> None:
    room = space.measure(str(machine.path(live.STORE)))
    there = [tree.measure(str(machine.path(one.copy)))
             for one in directories if machine.path(one.copy).is_dir()]
    need = sum(one.bytes + one.entries * BYTES_PER_ENTRY for one in sizes.values())
    have = room.free + sum(one.bytes + one.entries * BYTES_PER_ENTRY for one in there)
    if need > have:
        largest = sorted(directories, key=lambda one: -sizes[one.path].bytes)[:3]
        most = ", ".join(f"{one.path} {space.size(sizes[one.path].bytes)}" for one in largest)
        raise Trouble(
            f"the store is too small: the data takes {space.size(need)} ({most}), the store has "
            f"room for {space.size(have)}",
            "delete old recordings and logs, or use a larger partition on both nodes (DRBDDEV)",
        )


def _warn_of_links(machine: Machine, directories: list[Live], say: Say) -> None:
    """A link leads the other node to its own disk, which may have nothing there."""
    # A program's files are on both nodes.
    known = [str(machine.path(one)) for one in ("/usr", "/etc", "/dev")]
    known += [str(machine.path(one.place)) for one in directories]
    found = []
    for one in directories:
        top = str(machine.path(one.place))
        for folder, folders, files in os.walk(top):
            for place in (f"{folder}/{name}" for name in folders + files):
                target = os.path.realpath(place) if os.path.islink(place) else ""
                if target and os.path.exists(target) \
                        and not any(is_inside(target, path) for path in known):
                    found.append(f"warning: {place} leads to {target}, which is not replicated")
    for text in found[:LINKS_MOST]:
        say(text)
    if len(found) > LINKS_MOST:
        say(f"warning: and {len(found) - LINKS_MOST} more such links")


# rsync.


def _rsync(machine: Machine, one: Live, size: tree.Size, say: Say, *options: str,
           codes: tuple[int, ...] = (0,)) -> None:
    source, target = machine.path(one.place), machine.path(one.copy)
    _make_parents(machine, one)
    target.mkdir(exist_ok=True)
    what = f"{one.path} ({space.size(size.bytes)})"
    with _Progress(machine, f"copying {what}", say):
        done = machine.run(
            *RSYNC, *options, f"{source}/", f"{target}/",
            timeout=LEAST_SECONDS + size.bytes / BYTES_PER_SECOND,
            check=False,
            stdin="".join(f"/{_pattern(name)}\0" for name in size.sockets),
        )
    said = done.out + done.err
    if NO_ROOM in said:
        room = space.measure(str(machine.path(live.STORE)))
        raise Trouble(f"the store is full ({room}) while copying {what}",
                      "delete old recordings and logs, or use a larger partition on both nodes")
    if done.code not in codes:
        raise Trouble(f"copying {one.path}: rsync ended with {done.code}: {done.complaint}",
                      "look at the disks (dmesg), then run asha install again")


def _pattern(name: str) -> str:
    """A name as rsync's patterns take it: blackslashes count only beside a wildcard."""
    if not any(letter in name for letter in "*?["):
        return name
    return "".join("\\" + letter if letter in "*?[\\" else letter for letter in name)


def _make_parents(machine: Machine, one: Live) -> None:
    """The directories above, as they are on this machine."""
    for parent in reversed(PurePath(one.path).parents[:-1]):
        there = machine.path(live.STORE + str(parent))
        if not there.is_dir():
            there.mkdir()
            about = machine.path(str(parent)).stat()
            if os.geteuid() == 0:
                os.chown(there, about.st_uid, about.st_gid)
            there.chmod(stat.S_IMODE(about.st_mode))


class _Progress:
    """Says every few seconds how much the store has got."""

    def __init__(self, machine: Machine, what: str, say: Say) -> None:
        self._store = str(machine.path(live.STORE))
        self._what = what
        self._say = say
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> None:
        self._begun = self._used()
        self._say(self._what)
        self._thread.start()

    def __exit__(self, *problem: object) -> None:
        self._end.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._end.wait(SAY_SECONDS):
            done = self._used() - self._begun
            if done > 0:
                self._say(f"{self._what}: {space.size(done)} done")

    def _used(self) -> int:
        return shutil.disk_usage(self._store).used


# Is it the same?


def _verify(machine: Machine, directories: list[Live], claim: dict[str, Any],
            say: Say) -> tree.Comparison:
    machine.run("sync", "--file-system", str(machine.path(live.STORE)), timeout=LEAST_SECONDS)
    told = machine.now()

    def progress(read: int) -> None:
        nonlocal told
        if machine.now() - told >= SAY_SECONDS:
            told = machine.now()
            say(f"verifying: {space.size(read)} read")

    # What has changed since the first copy began. A minute for a clock that was set back.
    fresh = (float(claim.get("begun", 0.0)) - 60.0) * tree.NANO
    path = ""

    def by_content(inside: str, about: os.stat_result) -> bool:
        return (path.startswith(DATABASES) or inside.endswith(DATABASE_NAMES)
                or about.st_ctime_ns >= fresh)

    say("verifying the copy")
    comparison = tree.Comparison(by_content, progress)
    for one in directories:
        path = one.path
        try:
            comparison.add(str(machine.path(one.place)), str(machine.path(one.copy)))
        except OSError as problem:
            comparison.problems.append(f"{problem.filename}: {problem.strerror}")
    return comparison


def _check_sqlite(machine: Machine, directories: list[Live], say: Say) -> None:
    """Only warned of: it was so before, and calls go on without a panel."""
    for one in directories:
        for name in sqlite.PLACES.get(one.path, ()):
            for place in sorted(machine.path(one.copy).glob(f"*{name}")):
                try:
                    sqlite.check(str(place), Deadline(SQLITE_SECONDS))
                except AgentError as problem:
                    say(f"warning: {problem.reason}")
