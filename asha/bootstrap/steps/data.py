"""Copies the live data into the store: twice with rsync, then verified.

The first pass runs while the telephone system does, and takes as long as it takes. Then the
services stop, and the second pass copies what has changed since. If anybody writes during the
second pass or after it, that is seen (file_tree.fingerprint) and refused.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, Self

from asha.bootstrap.action import Action, Call, Say
from asha.bootstrap.host import data_directories, file_tree, services
from asha.bootstrap.host.confined import in_directory
from asha.bootstrap.host.data_directories import DEVICE, STORE, DataDirectory
from asha.bootstrap.host.file_tree import Tree
from asha.bootstrap.takeover import state as records
from asha.bootstrap.takeover import takeover
from asha.bootstrap.takeover.state import BEGUN, COPIED
from asha.bootstrap.takeover.takeover import COPY_ID
from asha.cluster.site import Site
from asha.data import space, sqlite
from asha.data.paths import is_inside
from asha.data.release import holders
from asha.errors import UserError
from asha.machine import Machine
from asha.rootwork import Directory
from asha.run.child import in_child, name_of, stat_of
from asha.run.deadline import Deadline
from asha.run.results import AgentError

# Whose copy the store has, and what of. In sark-data's own directory of the store.
CLAIM = f"{STORE}/{space.PROBE_DIRECTORY}/copy.json"
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
# For all of them; a database of 1 GB takes some ten.
SQLITE_SECONDS = 60.0
LEFTOVER_SECONDS = 30.0
SAY_SECONDS = 5.0
# Without work of rsync's, on the processor or with a file, before it counts as stuck.
IDLE_SECONDS = 60.0
LINKS_MOST = 10


def actions(site: Site, copied: Sequence[str] = ()) -> list[Action]:
    """Everything of step 30 up to a verified copy; then the services are stopped.

    ``copied``: what is copied, for a person to read (``look``).
    """

    def pass_done(machine: Machine) -> bool:
        # Whoever comes later does it again: the more is copied now, the shorter the stop.
        by_us = _json(machine, CLAIM).get("passed") == list(records.owner())
        return takeover.is_taken_over(machine) or by_us or takeover.has_reached(machine, BEGUN)

    def all_done(machine: Machine) -> bool:
        return takeover.is_taken_over(machine) or is_copied(machine)

    return [
        Call(
            "first-copy",
            "copy the live data while the telephone system runs",
            f"Mount {DEVICE} on {STORE}. Make sure that the store has nobody else's data,"
            "\nand room. Copy with rsync, from where sark-data will bind it later:\n"
            + "\n".join(copied),
            first_pass,
            pass_done,
        ),
        takeover.begin_action(),
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
    if not takeover.has_reached(machine, COPIED):
        return False
    claim, own = _json(machine, CLAIM), _json(machine, COPY_ID)
    # Handed to the cluster already, it is not mounted by us.
    return not machine.exists(CLAIM) or (
        claim.get("id") == own.get("id") and claim.get("state") == "copied"
    )


def look(machine: Machine) -> list[str]:
    """From where to where each directory is copied, for a person to read."""
    try:
        found = data_directories.directories(machine)
    except UserError as trouble:
        return [str(trouble)]
    return [f"  {one.path} to {one.copy}" for one in found]


def first_pass(machine: Machine, say: Say) -> None:
    """Copy while the services run. Raises UserError, with nothing changed but the store."""
    takeover.settle(machine, say)
    directories = data_directories.directories(machine)
    for what, hint in data_directories.survey(machine).left_out:
        say(f"warning: {what} ({hint})")
    data_directories.mount_store(machine)
    _wait_for_leftovers(machine)
    claim = _claim(machine)
    with data_directories.views(machine, directories) as trees:
        sizes = [file_tree.measure(one.path) for one in trees]
        _require_room(machine, directories, sizes)
        _warn_of_links(machine, trees, say)
        for one, source, size in zip(directories, trees, sizes, strict=True):
            _rsync(machine, one, source, size, say, codes=LIVE_CODES)
    _save_claim(machine, {**claim, "passed": list(records.owner())})


def last_pass(machine: Machine, say: Say) -> None:
    """Copy what has changed since, and verify. Raises UserError; the guard then rolls back."""
    with records.locked(machine, say):
        record = takeover.require_own(machine, BEGUN)
        directories = data_directories.directories(machine)
        data_directories.mount_store(machine)
        claim = _claim(machine)
        services.require_quiet(machine, [one.place for one in directories])
        with data_directories.views(machine, directories) as trees:
            before, found = _copy_quiet(machine, directories, trees, claim, say)
        services.require_quiet(machine, [one.place for one in directories], seconds=0.0)
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


def _copy_quiet(machine: Machine, directories: list[DataDirectory], trees: list[Tree],
                claim: dict[str, Any], say: Say) -> tuple[str, file_tree.Comparison]:
    """Copy what nobody changes any more. Returns its fingerprint, and what was verified.

    Raises UserError where the copy differs, or somebody has written meanwhile.
    """
    before = _fingerprint(trees)
    sizes = [file_tree.measure(one.path) for one in trees]
    found = file_tree.Comparison(lambda inside, about: False)
    for options in ((), ("--checksum",)):
        for one, source, size in zip(directories, trees, sizes, strict=True):
            _rsync(machine, one, source, size, say, *options)
        found = _verify(machine, directories, trees, sizes, claim, say)
        takeover.require_unchanged(machine, before, directories)
        if not found.problems:
            return before, found
        if not options:
            # A file that was changed twice in one tick of the clock looks unchanged.
            say("copying again, by contents: " + found.problems[0])
            for place in found.joined:
                _unlink(machine, place)
    raise UserError(
        "the copy differs from the data: " + "; ".join(found.problems),
        "check the disks (dmesg), then run asha install again",
    )


def _unlink(machine: Machine, place: str) -> None:
    """Remove a file of the store."""
    folder, name = os.path.split(place)
    with data_directories.trusted(machine, STORE) as store, \
            store.below(os.path.relpath(folder, store.path)) as above:
        above.remove(name)


def _fingerprint(trees: list[Tree]) -> str:
    try:
        return file_tree.fingerprint(trees)
    except OSError as problem:
        raise UserError(data_directories.complaint(problem, trees),
                      "somebody is still writing there; run asha install again") from None


# Whose the store is.


def _claim(machine: Machine) -> dict[str, Any]:
    """Mark an empty store as this machine's.

    Raises UserError where the store has a telephone system's data that is not a copy of this
    machine's, or that a cluster has worked with since: it may be newer.
    """
    own, claim = _json(machine, COPY_ID), _json(machine, CLAIM)
    # by name: root's own directory of the store
    has_run = any(machine.path(CLAIM).parent.glob(PROBES))
    has_data = any(
        machine.exists(STORE + item) for item in ("/etc", "/var", "/opt", "/usr")
    )
    ours = bool(own.get("id")) and claim.get("id") == own.get("id")
    if has_run or (has_data and not ours):
        whose = f" of {claim['node']}" if claim.get("node") else ""
        raise UserError(
            f"the store already has a telephone system's data{whose}, which may be newer than this"
            " machine's",
            f"look into {STORE}; if it is not wanted: umount {STORE} && mkfs.ext4 "
            f"{DEVICE}; if it is, copy it to its places here first; then run asha install "
            "again",
        )
    if not ours:
        claim = {"id": str(uuid.uuid4()), "node": os.uname().nodename, "begun": time.time()}
        machine.write(COPY_ID, json.dumps({"id": claim["id"]}) + "\n", 0o600)
    claim["state"] = "copying"
    _save_claim(machine, claim)
    return claim


def _save_claim(machine: Machine, claim: dict[str, Any]) -> None:
    with (
        data_directories.told(),
        data_directories.trusted(machine, STORE) as store,
    ):
        store.ensure(space.PROBE_DIRECTORY, 0o700).close()
    machine.write(CLAIM, json.dumps(claim, indent=1) + "\n", 0o600)


def _json(machine: Machine, path: str) -> dict[str, Any]:
    try:
        said = json.loads(machine.read(path) or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _wait_for_leftovers(machine: Machine) -> None:
    """Wait for a program of a killed installer that still runs. Raises UserError."""
    store = str(machine.path(STORE))

    def users() -> str:
        try:
            return in_child(
                lambda: "\n".join(str(one) for one in holders.find([store])),
                Deadline(LEFTOVER_SECONDS),
                f"looking for programs that use {STORE}",
            )
        except AgentError as problem:
            raise UserError(problem.reason) from None

    if found := machine.wait_while(users, LEFTOVER_SECONDS):
        raise UserError(found.replace("\n", "; "), f"leave {STORE}, or end it (kill PID)")


# Room, and what is left out.


def _require_room(
    machine: Machine, directories: list[DataDirectory], sizes: list[file_tree.Size]
) -> None:
    room = space.measure(str(machine.path(STORE)))
    there = [file_tree.measure(str(machine.path(one.copy)))
             for one in directories if machine.path(one.copy).is_dir()]
    need = sum(one.bytes + one.entries * BYTES_PER_ENTRY for one in sizes)
    have = room.free + sum(one.bytes + one.entries * BYTES_PER_ENTRY for one in there)
    if need > have:
        largest = sorted(zip(directories, sizes, strict=True), key=lambda pair: -pair[1].bytes)[:3]
        most = ", ".join(f"{one.path} {space.size(size.bytes)}" for one, size in largest)
        raise UserError(
            f"the store is too small: the data takes {space.size(need)} ({most}), the store has "
            f"room for {space.size(have)}",
            "delete old recordings and logs, or use a larger partition on both nodes (DRBDDEV)",
        )


def _warn_of_links(machine: Machine, trees: list[Tree], say: Say) -> None:
    """On the other node a link leads to that node's own disk, which may have nothing there."""
    # A program's files are on both nodes.
    known = [str(machine.path(one)) for one in ("/usr", "/etc", "/dev")]
    known += [one.name for one in trees]
    found = []
    for one in trees:
        for inside, about in _entries(one.path):
            place = f"{one.name}/{inside}"
            # Only looked at: what somebody puts there meanwhile makes a wrong warning.
            target = os.path.realpath(place) if stat.S_ISLNK(about.st_mode) else ""
            if target and os.path.exists(target) \
                    and not any(is_inside(target, path) for path in known):
                found.append(f"warning: {place} leads to {target}, which is not replicated")
    for text in found[:LINKS_MOST]:
        say(text)
    if len(found) > LINKS_MOST:
        say(f"warning: and {len(found) - LINKS_MOST} more such links")


def _entries(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """The entries of a tree in use; what is removed meanwhile is left out."""
    for folder, folders, files in os.walk(top):  # by name: in a view
        for name in folders + files:
            try:
                yield os.path.relpath(f"{folder}/{name}", top), os.lstat(f"{folder}/{name}")
            except OSError:
                continue


# rsync.


def _rsync(
    machine: Machine,
    one: DataDirectory,
    source: Tree,
    size: file_tree.Size,
    say: Say,
    *options: str,
    codes: tuple[int, ...] = (0,),
) -> None:
    what = f"{one.path} ({space.size(size.bytes)})"
    with data_directories.told(), _copy_of(machine, one) as target, \
            _Watch(machine, f"copying {what}", say) as watch:
        done = machine.run(
            *RSYNC, *options, f"/proc/self/fd/{source.fd}/", f"{target.proc_path}/",
            timeout=LEAST_SECONDS + size.bytes / BYTES_PER_SECOND,
            check=False,
            stdin="".join(f"/{_pattern(name)}\0" for name in size.sockets),
            keep_open=(source.fd, target.fd),
        )
    said = done.out + done.err
    if watch.stood_still:
        raise UserError(
            f"copying {one.path}: rsync made no progress for {IDLE_SECONDS:.0f} s and was stopped",
            "either somebody has put a FIFO in the place of a file meanwhile (find "
            f"{one.path} -type p shows them), or a disk does not answer (dmesg); then run asha "
            "install again",
        )
    if NO_ROOM in said:
        room = space.measure(str(machine.path(STORE)))
        raise UserError(f"the store is full ({room}) while copying {what}",
                      "delete old recordings and logs, or use a larger partition on both nodes")
    if done.code not in codes:
        complaint = source.named(done.complaint).replace(target.proc_path, one.copy)
        raise UserError(f"copying {one.path}: rsync ended with {done.code}: {complaint}",
                      "check the disks (dmesg), then run asha install again")


def _pattern(name: str) -> str:
    """A name as an rsync pattern: backslashes count only beside a wildcard."""
    if not any(letter in name for letter in "*?["):
        return name
    return "".join("\\" + letter if letter in "*?[\\" else letter for letter in name)


def _copy_of(machine: Machine, one: DataDirectory) -> Directory:
    """Its directory in the store; those above it are root's, mode 0755, as in the live system.

    Raises OSError.
    """
    here = data_directories.trusted(machine, STORE)
    *above, last = PurePath(one.path).parts[1:]
    for name in above:
        with here as outer:
            here = outer.ensure(name, 0o755)
        here.own(0o755)
    with here as outer:
        return outer.ensure(last)


class _Watch:
    """Prints every few seconds how much the store has, and ends an rsync that stands still.

    rsync opens what was a file when it looked. A FIFO that somebody has put there since would
    hold it without end, and its own --timeout does not see that.
    """

    def __init__(self, machine: Machine, what: str, say: Say) -> None:
        self.stood_still = False
        self._store = str(machine.path(STORE))
        self._what = what
        self._say = say
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        self._begun = self._used()
        self._say(self._what)
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._end.set()
        self._thread.join()

    def _tell(self) -> None:
        last: set[tuple[str, ...]] = set()
        since = time.monotonic()
        while not self._end.wait(SAY_SECONDS):
            done = self._used() - self._begun
            if done > 0:
                self._say(f"{self._what}: {space.size(done)} done")
            now = {work for pid in _children() for work in _work(pid)}
            if now != last or not now:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= IDLE_SECONDS:
                self.stood_still = True
                for pid in _children():
                    _kill(pid)

    def _used(self) -> int:
        return shutil.disk_usage(self._store).used  # by name: how full the store is


def _children() -> list[int]:
    """The rsync that this process has started, if it runs."""
    return [pid for pid in holders.pids() if (about := stat_of(pid)) is not None
            and int(about[1]) == os.getpid() and name_of(pid) == "rsync"]


def _work(leader: int) -> list[tuple[str, ...]]:
    """What each process of its session has done so far: processor time and bytes.

    Fields 6, 14 and 15 of proc_pid_stat(5).
    """
    found: list[tuple[str, ...]] = []
    for pid in holders.pids():
        about = stat_of(pid)
        if about is not None and int(about[3]) == leader:
            try:
                with open(f"/proc/{pid}/io", encoding="ascii") as file:  # by name: the kernel's
                    found.append((str(pid), about[11], about[12], file.read()))
            except OSError:
                continue  # it has ended
    return found


def _kill(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if pid in _children():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


# Is it the same?


def _verify(
    machine: Machine,
    directories: list[DataDirectory],
    trees: list[Tree],
    sizes: list[file_tree.Size],
    claim: dict[str, Any],
    say: Say,
) -> file_tree.Comparison:
    machine.run(
        "sync", "--file-system", str(machine.path(STORE)), timeout=LEAST_SECONDS
    )
    told = machine.now()

    def progress(read: int) -> None:
        nonlocal told
        if machine.now() - told >= SAY_SECONDS:
            told = machine.now()
            say(f"verifying: {space.size(read)} read")

    # What has changed since the first copy began. A minute for a clock that was set back.
    fresh = (float(claim.get("begun", 0.0)) - 60.0) * file_tree.NANO
    path = ""
    # Of all trees: with two that are his, somebody may move a file from one to the other.
    guarded = set[int]().union(*(size.guarded for size in sizes))

    def by_content(inside: str, about: os.stat_result) -> bool:
        return (path.startswith(DATABASES) or inside.endswith(DATABASE_NAMES)
                or about.st_ctime_ns >= fresh or about.st_size in guarded)

    say("verifying the copy")
    comparison = file_tree.Comparison(by_content, progress)
    for one, source in zip(directories, trees, strict=True):
        path = one.path
        with data_directories.told(), _copy_of(machine, one) as target, \
                data_directories.view(target, target.path) as copied:
            try:
                comparison.add(source, copied)
            except OSError as problem:
                comparison.problems.append(data_directories.complaint(problem, [source, copied]))
    return comparison


def _check_sqlite(machine: Machine, directories: list[DataDirectory], say: Say) -> None:
    """Only a warning: the database was corrupt before, and calls go on without a panel.

    All checks together have a time limit: the services are stopped, and who may write there can
    make any number of databases.
    """
    deadline = Deadline(SQLITE_SECONDS)
    for one in directories:
        endings = sqlite.PLACES.get(one.path, ())
        if not endings:
            continue
        with data_directories.told(), _copy_of(machine, one) as target:
            for name in target.names():
                if name.endswith(endings) and not deadline.expired:
                    _check_one(target, one, name, deadline, say)
    if deadline.expired:
        say(f"warning: not all databases were checked within {SQLITE_SECONDS:.0f} s")


def _check_one(
    target: Directory, one: DataDirectory, name: str, deadline: Deadline, say: Say
) -> None:
    path = f"{one.copy}/{name}"
    try:
        sqlite.require_whole(path, in_directory(
            target, lambda top: sqlite.verdict(f"{top}/{name}", deadline), deadline,
            f"checking {path}"))
    except AgentError as problem:
        say(f"warning: {problem.reason}")
