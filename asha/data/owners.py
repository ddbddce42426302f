"""Whether the store's numeric owners are the accounts that this node means.

The replicated disk has numbers, and each node gave its accounts numbers of its own when the
programs were installed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from pwd import struct_passwd

# Below this Debian's ids are the same on every machine (base-passwd), as adm's,
# to whom /var/log/asterisk belongs.
FIRST_DYNAMIC_GID = 100


def account(user: str) -> struct_passwd | None:
    """The local account; None if there is none: its program is not installed here."""
    import pwd

    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def local_uids(users: Collection[str]) -> set[int]:
    """The uids of those that are in /etc/passwd, without root: a stop may not wait for a
    directory service."""
    from asha.rootwork import read

    try:
        lines = read("/etc/passwd").decode(errors="replace").split("\n")
    except OSError:
        return set()
    fields = [line.split(":") for line in lines]
    return {int(one[2]) for one in fields
            if len(one) > 2 and one[0] in users and one[2].isdecimal() and int(one[2])}


def uid_problem(source: str, about: os.stat_result, owner: struct_passwd) -> str:
    """Why the owner could not use the directory, "" if he can."""
    if about.st_uid in (0, owner.pw_uid):
        return ""
    return (
        f"{source} belongs to uid {about.st_uid}, but {owner.pw_name} is uid {owner.pw_uid}"
        f" on this node: give {owner.pw_name} one uid on both nodes"
        f" (here: usermod -u {about.st_uid} {owner.pw_name})"
    )


def gid_problem(source: str, about: os.stat_result, owner: struct_passwd) -> str:
    """Why members of the group could be refused, "" if they are not."""
    groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
    if about.st_gid < FIRST_DYNAMIC_GID or about.st_gid in groups:
        return ""
    return (
        f"{source} belongs to gid {about.st_gid}, which is no group of {owner.pw_name}"
        f" (gid {owner.pw_gid}) on this node: others of the group may be refused"
        f" (here: groupmod -g {about.st_gid} GROUP)"
    )
