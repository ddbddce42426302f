"""What could still write to the live data: checked before it is copied and moved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from asha.data.paths import is_inside
from asha.data.release.holders import entries, pids
from asha.errors import UserError
from asha.run.child import in_child, name_of
from asha.run.deadline import Deadline
from asha.run.results import AgentError

# A look at every process. One that hangs in the kernel can hang the look too.
SEARCH_SECONDS = 30.0

# Programs that write to the data without a file open all the time, and as whom. What
# another user calls so is no matter of ours: anybody may choose his program's name.
DAEMONS = {
    "asterisk": "asterisk",
    "mariadbd": "mysql",
    "mysqld": "mysql",
    "apache2": "www-data",
    "slapd": "openldap",
}
ASTERISK = "/usr/sbin/asterisk"


@dataclass(frozen=True)
class Writer:
    """A process, and the file that it has open for writing ("" for a daemon that only runs)."""

    pid: int
    name: str
    path: str

    def __str__(self) -> str:
        does = f" has {self.path} open for writing" if self.path else " still runs"
        return f"{self.name} (pid {self.pid}){does}"


def find(places: Sequence[str]) -> list[Writer]:
    """Every process that has something below these directories open for writing.

    Raises UserError when the search itself hangs.
    """
    return _in_child(lambda: list(_holders(places)))


def daemons() -> list[Writer]:
    """The PBX's own programs that still run, without Asterisk's consoles."""
    from asha.asterisk.process.proc import Proc

    def work() -> list[Writer]:
        proc = Proc()
        users = {name: {0, _number(account)} for name, account in DAEMONS.items()}
        found = [Writer(one.pid, "asterisk", "") for one in proc.daemons(
            ASTERISK, lambda one: not users["asterisk"].isdisjoint(one.users) and _is_near(one.pid)
        )]
        for one in proc.all():
            if one.name == "asterisk" or one.name not in DAEMONS or one.gone:
                continue
            if not users[one.name].isdisjoint(one.users) and _is_near(one.pid):
                found.append(Writer(one.pid, one.name, ""))
        return found

    return _in_child(work)


def _number(account: str) -> int:
    from pwd import getpwnam

    try:
        return getpwnam(account).pw_uid
    except KeyError:
        return 0  # root's alone


def _in_child(work: Callable[[], list[Writer]]) -> list[Writer]:
    try:
        answer = in_child(
            lambda: json.dumps([(one.pid, one.name, one.path) for one in work()]),
            Deadline(SEARCH_SECONDS),
            "looking for programs that use the data",
        )
    except AgentError as problem:
        raise UserError(
            problem.reason, "look for a process in state D: ps -eo pid,stat,comm"
        ) from None
    return [Writer(*fields) for fields in json.loads(answer)]


def _holders(places: Sequence[str]) -> Iterator[Writer]:
    family = (os.getpid(), os.getppid())
    for pid in pids():
        path = next((one for one in _written(pid)
                     if any(is_inside(one, place) for place in places)), "")
        if path and pid not in family:
            yield Writer(pid, name_of(pid), path)


def _written(pid: int) -> Iterator[str]:
    """The files that a process could write to: open, or mapped and shared.

    Deleted files are left out: nobody misses what is written there.
    """
    folder = f"/proc/{pid}"
    for name in entries(f"{folder}/fd"):
        if int(_field(f"{folder}/fdinfo/{name}", "flags:") or "0", 8) & os.O_ACCMODE:
            try:
                path = os.readlink(f"{folder}/fd/{name}")
                # A container may have another file under this name.
                if os.path.samestat(os.stat(f"{folder}/fd/{name}"), os.lstat(path)):
                    yield path
            except OSError:
                continue  # closed or deleted meanwhile
    if not _is_near(pid):
        return
    try:
        # by name: the kernel's own
        with open(f"{folder}/maps", encoding="utf-8", errors="surrogateescape",
                  newline="\n") as maps:
            for line in maps:
                # address perms offset dev inode path; see proc_pid_maps(5)
                fields = line.rstrip("\n").split(" ", 5)
                if len(fields) == 6 and fields[1][1] == "w" and fields[1][3] == "s":
                    path = fields[5].lstrip(" ")
                    # Of what a path can hold only a newline is escaped there.
                    yield from (one for one in {path, path.replace("\\012", "\n")}
                                if os.path.lexists(one))
    except OSError:
        return


def _field(path: str, key: str) -> str:
    try:
        # by name: the kernel's own
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(key):
                    return line.removeprefix(key).strip()
    except OSError:
        pass  # closed meanwhile
    return ""


def _is_near(pid: int) -> bool:
    """Whether the process sees our files: one in a container belongs to another machine."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/"))
    except OSError:
        return False
