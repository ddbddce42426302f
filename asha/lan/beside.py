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

PROC = "/proc"


def end(proc: str = PROC, data: str = DATA) -> list[str]:
    """Ask each to end; returns whom, as "name pid". Never raises: Pacemaker's stop does what
    remains to do.

    By name and user, in our own PID namespace: not by their pid files, which name what their
    writer likes. Of Apache's processes only root's; that one ends the others.
    """
    asked = []
    for pid, name in _running(proc, data):
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError:
            continue  # it has ended
        asked.append(f"{name} {pid}")
    return asked


def _running(proc: str, data: str) -> Iterator[tuple[int, str]]:
    users = {APACHE: "0"}
    try:
        owner = str(os.stat(data).st_uid)
    except OSError:
        owner = ""
    users |= dict.fromkeys(MARIADB, owner)
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/comm", "rb") as file:
                name = os.fsdecode(file.read(64)).rstrip("\n")
            if name not in users:
                continue
            with open(f"{proc}/{entry}/status", "rb") as file:
                lines = os.fsdecode(file.read(4096)).splitlines()
        except OSError:
            continue  # it has ended
        fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        is_ours = len(fields.get("NSpid", ())) == 1
        if is_ours and fields.get("Uid", [""])[0] == users[name]:
            yield int(entry), name
