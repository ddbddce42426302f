"""SARK's own switches for a cluster, set in the copy of its database.

Table ``globals``, one row. The manual's behaviour of the panel (no START button, no
host name field; the virtual address for telephones) hangs on them. Releases differ in
the columns that they have (SAIL 4.0 to 7): each is set only where it exists.
STATICIPV4 is never touched: SARK 6.2 takes that address at boot, on both nodes.
"""

from __future__ import annotations

import os
import sqlite3
import stat

from asha import rootwork
from asha.bootstrap.action import Action, Call, Say
from asha.bootstrap.host import data_directories
from asha.bootstrap.host.confined import in_directory
from asha.bootstrap.host.data_directories import STORE
from asha.bootstrap.steps import data as data_step
from asha.bootstrap.takeover import takeover
from asha.cluster.site import Site
from asha.data.sqlite import become_owner, is_roots_among_others
from asha.errors import UserError
from asha.machine import Machine
from asha.rootwork import Directory
from asha.run.deadline import Deadline
from asha.run.results import AgentError, Failed

DIRECTORY = "/opt/sark/db"
# The second is what provisioning reads; SARK makes it anew from the first with each
# commit, and the panel would wait for that.
DATABASES = ("sark.db", "sark.rdonly.db")
SECONDS = 30.0
# SARK's have some hundred kilobytes.
DATABASE_MOST = 1 << 28


def flags(site: Site) -> dict[str, str]:
    """Column and value, as the manual's scripts of 2014 set them."""
    return {
        "BINDADDR": "ON",
        "HACLUSTERIP": site.virtual_address,
        "HAUSECLUSTER": "YES",
        "RHINOSPF": "YES" if site.relay is not None else "NO",
    }


def actions(site: Site) -> list[Action]:
    """Nothing to do where there is no SARK."""

    def work(machine: Machine, say: Say) -> None:
        with data_directories.told(), _copy(machine) as directory:
            for name in DATABASES:
                if directory.exists(name):
                    set_flags(directory, name, flags(site))

    def done(machine: Machine) -> bool:
        if takeover.is_taken_over(machine) or not machine.exists(f"{DIRECTORY}/{DATABASES[0]}"):
            return True
        if not data_step.is_copied(machine):
            return False
        try:
            with _copy(machine) as directory:
                return all(is_set(directory, name, flags(site))
                           for name in DATABASES if directory.exists(name))
        except OSError:
            return False

    values = ", ".join(f"{column}='{value}'" for column, value in flags(site).items())
    return [
        Call(
            "sark",
            "tell SARK's copy that it is in a cluster",
            f"In {STORE}{DIRECTORY}: {' and '.join(DATABASES)}, table globals, of these\n"
            f"columns those that exist: {values}.",
            work,
            done,
        )
    ]


def _copy(machine: Machine) -> Directory:
    with data_directories.trusted(machine, STORE) as store:
        return store.below(DIRECTORY.strip("/"))


def set_flags(directory: Directory, name: str, wanted: dict[str, str]) -> None:
    """Set the flags, as the file's owner, as SARK would. Raises UserError."""
    path = directory.name(name)

    def work(top: str) -> str:
        inside = f"{top}/{name}"
        try:
            if is_roots_among_others(inside):
                _set_in_a_copy(directory, name, wanted)
                return ""
            become_owner(inside)
            link = _open(inside, "rw")
            try:
                _update(link, wanted)
            finally:
                link.close()
        except OSError as problem:
            raise Failed(problem.strerror or str(problem)) from None
        except sqlite3.Error as problem:
            raise Failed(str(problem)) from None
        return ""

    try:
        in_directory(directory, work, Deadline(SECONDS), f"changing {path}")
    except AgentError as problem:
        raise UserError(f"{path} cannot be changed: {problem.reason}",
                      "repair or restore SARK's database, then run asha install again") from None


def _update(link: sqlite3.Connection, wanted: dict[str, str]) -> None:
    there = _there(link, wanted)
    names = ", ".join(f'"{column}" = ?' for column in there)
    if there:
        with link:
            link.execute(f"UPDATE globals SET {names}", tuple(there.values()))


def _set_in_a_copy(directory: Directory, name: str, wanted: dict[str, str]) -> None:
    link, about, acl = _in_memory(directory, name)
    try:
        _update(link, wanted)
        data = link.serialize()
    finally:
        link.close()
    directory.write(name, data, uid=about.st_uid, gid=about.st_gid,
                    mode=stat.S_IMODE(about.st_mode) & 0o777, acl=acl)


def _in_memory(directory: Directory,
               name: str) -> tuple[sqlite3.Connection, os.stat_result, bytes]:
    """The bytes alone, with the access list: root reads no journal beside the file."""
    descriptor = directory.open(name)
    try:
        about = os.fstat(descriptor)
        acl = rootwork.access_list(descriptor)
        data = rootwork.read_open(descriptor, directory.name(name), DATABASE_MOST)
    finally:
        os.close(descriptor)
    link = sqlite3.connect(":memory:")
    link.deserialize(data)
    return link, about, acl


def is_set(directory: Directory, name: str, wanted: dict[str, str]) -> bool:
    def work(top: str) -> str:
        link = _to_read(directory, name, top)
        try:
            there = _there(link, wanted)
            names = ", ".join(f'"{column}"' for column in there) or "1"
            rows = link.execute(f"SELECT {names} FROM globals").fetchall() if there else []
            return str(all(row == tuple(there.values()) for row in rows))
        finally:
            link.close()

    try:
        return in_directory(directory, work, Deadline(SECONDS),
                            f"reading {directory.name(name)}") == str(True)
    except AgentError:
        return False


def static_address(machine: Machine) -> str:
    """STATICIPV4 of the live database: what SARK 6.2 takes at boot, and binds SIP to. ""
    where there is none, or no database that can be read."""

    def work(top: str) -> str:
        link = _to_read(directory, DATABASES[0], top)
        try:
            if not _there(link, {"STATICIPV4": ""}):
                return ""
            found = link.execute('SELECT "STATICIPV4" FROM globals').fetchone()
            return str(found[0] or "").strip() if found else ""
        finally:
            link.close()

    try:
        with data_directories.trusted(machine, DIRECTORY) as directory:
            return in_directory(directory, work, Deadline(SECONDS), f"reading {DIRECTORY}")
    except (OSError, AgentError):
        return ""


def _to_read(directory: Directory, name: str, top: str) -> sqlite3.Connection:
    """In the child: as the file's owner, or where that is root, of its bytes."""
    inside = f"{top}/{name}"
    if is_roots_among_others(inside):
        return _in_memory(directory, name)[0]
    become_owner(inside)
    return _open(inside, "ro")


def _open(path: str, mode: str) -> sqlite3.Connection:
    uri = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"{uri}?mode={mode}", uri=True, timeout=SECONDS / 2)


def _there(link: sqlite3.Connection, wanted: dict[str, str]) -> dict[str, str]:
    """The wanted columns that this release has."""
    columns = {str(row[1]).upper() for row in link.execute("PRAGMA table_info(globals)")}
    return {column: value for column, value in wanted.items() if column in columns}
