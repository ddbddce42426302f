"""What runs beside the telephones ends at once, where these are about to leave a dead LAN.

Pacemaker stops MariaDB and Apache before Asterisk, so that a planned switch is not heard while
they end. On a dead LAN that is silence: two seconds and more, as their agents (Debian's shell)
look once a second whether they have ended, and ask Apache to serve its last visitors first.
Both end within 50 ms when they are asked (SIGTERM, measured in the lab). So they are asked when
the loss is told: Pacemaker's stops then find them gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

# Where MariaDB's data is (cib/asha.crm): whose that is, is its user.
DATA = "/var/lib/mysql"
MARIADB, APACHE = ("mariadbd", "mysqld"), "apache2"

# What an agent has started is in its control group (cgroups(7)).
PACEMAKER = "/pacemaker.service/"

PROC = "/proc"


def end(proc: str = PROC, data: str = DATA) -> list[str]:
    """Ask each to end; returns whom, as "name pid". Never raises: Pacemaker's stop does what
    remains to do.

    By name and user, in our own PID namespace, and by whose it is: Pacemaker's, as another
    database or web server of this machine would stay down. Not by their pid files, which name
    what their writer likes. Of Apache's processes only root's; that one ends the others.
    """
    asked = []
    for pid, name in _running(proc, data):
        if _ask(pid, name, proc, data):
            asked.append(f"{name} {pid}")
    return asked


def _ask(pid: int, name: str, proc: str, data: str) -> bool:
    """Whether it was asked: the number may be another's since we looked, so what is held is
    looked at once more."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False  # it has ended
    try:
        if (pid, name) not in _running(proc, data, str(pid)):
            return False
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except OSError:
        return False
    finally:
        os.close(process)
    return True


def _running(proc: str, data: str, only: str = "") -> Iterator[tuple[int, str]]:
    users = {APACHE: "0"}
    try:
        owner = str(os.stat(data).st_uid)
    except OSError:
        owner = ""
    users |= dict.fromkeys(MARIADB, owner)
    for entry in [only] if only else os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/comm", "rb") as file:
                name = os.fsdecode(file.read(64)).rstrip("\n")
            if name not in users:
                continue
            with open(f"{proc}/{entry}/status", "rb") as file:
                lines = os.fsdecode(file.read(4096)).splitlines()
            with open(f"{proc}/{entry}/cgroup", "rb") as file:
                groups = os.fsdecode(file.read(4096)).splitlines()
        except OSError:
            continue  # it has ended
        fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        is_ours = len(fields.get("NSpid", ())) == 1
        is_ours &= any(PACEMAKER in f"{group}/" for group in groups)
        if is_ours and fields.get("Uid", [""])[0] == users[name]:
            yield int(entry), name
