"""A DHCP server on the LAN: dnsmasq out of the nodes' image, in the switchboard's namespace."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.image import program
from tests.lab.lab import Lab
from tests.lab.network import LAN, SWITCHBOARD_ADDRESS

# Of no node. The shortest lease that dnsmasq gives; it is renewed after RENEWAL seconds (T1).
FIRST, LAST, LEASE, RENEWAL = "192.168.1.100", "192.168.1.110", "2m", 3


@contextmanager
def server(lab: Lab) -> Iterator[Callable[[], int]]:
    """It gives addresses, with the switchboard as the router (dnsmasq(8)). Yields who tells
    how often it has given or renewed one."""
    with tempfile.TemporaryDirectory(prefix="asha-dhcp-") as folder, \
            (Path(folder) / "log").open("w") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", lab.network.switchboard,
             *program(lab.release, "/usr/sbin/dnsmasq"), "--no-daemon", "--conf-file=/dev/null",
             "--port=0", "--user=root", "--pid-file=", f"--interface={LAN}", "--bind-interfaces",
             f"--dhcp-range={FIRST},{LAST},255.255.255.0,{LEASE}", "--dhcp-authoritative",
             f"--dhcp-option=option:router,{SWITCHBOARD_ADDRESS}", "--no-ping",
             f"--dhcp-option=option:T1,{RENEWAL}", f"--dhcp-leasefile={folder}/leases"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        try:
            yield lambda: (Path(folder) / "log").read_text().count(" DHCPACK(")
        finally:
            process.terminate()
            process.wait()
