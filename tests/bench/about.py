"""On what a run was made: versions and machine."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from tests.lab import Node

PACKAGES = ("pacemaker", "corosync", "resource-agents", "asterisk", "mariadb-server", "apache2")


def about(node: Node, release: str) -> dict[str, str]:
    """What a reader needs to know, by name."""
    said = node.run("dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *PACKAGES).out
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "Debian": f"{node.path('/etc/debian_version').read_text().strip()} ({release})",
        "kernel": platform.release(),
        **dict(line.split(" ", 1) for line in said.splitlines()),
        "machine": f"{os.cpu_count()} cores, {cpu_model()}, {memory() >> 30} GiB",
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory() -> int:
    """Bytes of RAM."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
