"""``python3 -m asha.lan``: what asha-lan.service runs on each node.

``python3 -m asha.lan --ended``: its ExecStopPost, see systemd.service(5).
"""

from __future__ import annotations

import os
import sys
import time

from asha.cluster import site as conf
from asha.cluster.site import SiteError
from asha.lan.report import Cluster
from asha.lan.watcher import Watcher
from asha.run.text import printable
from asha.terminal import warn

# Seconds between two looks whether asha.conf has changed, where there is nothing to watch.
WAIT = 10.0
# For the last word, which nothing else waits for: less than TimeoutStopSec in asha-lan.service.
LAST_SECONDS = 8.0


def main(path: str = conf.CONF) -> int:
    """0 when asha.conf has changed: systemd starts it again. SIGTERM ends it at any moment."""
    begun = stamp(path)

    def goes_on() -> bool:
        return stamp(path) == begun

    try:
        site = conf.read(path)
    except (OSError, SiteError) as problem:
        warn(printable(f"the LAN is not watched: {path}: {problem}"))
        site = None
    cluster = Cluster(site.here.name) if site else None
    if site is None or cluster is None or not site.watches_lan:
        if cluster is not None:
            warn("the LAN is not watched: LANWATCH or USENIC1 is false in asha.conf")
            cluster.withdraw()
        while goes_on():
            time.sleep(WAIT)
        return 0
    Watcher(site.lan_nic, site.virtual_address, site.there.lan, cluster).run(goes_on)
    return 0


def ended() -> int:
    """After a stop in order the cluster knows nothing any more of this node's LAN. What was
    told by one that died stays: it is started again at once, and with both LANs dead a node of
    which nothing is known would look like the better one."""
    if os.environ.get("EXIT_STATUS") == "TERM":
        Cluster(os.uname().nodename).withdraw(LAST_SECONDS)
    return 0


def stamp(path: str) -> tuple[int, int]:
    """Which file it is, and when it was written; (0, 0) without it."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


if __name__ == "__main__":
    sys.exit(ended() if sys.argv[1:] == ["--ended"] else main())
