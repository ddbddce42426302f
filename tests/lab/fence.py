"""The lab's fence device: it cuts a node's power when the other node asks for it.

A stand-in for hardware, such as a switched power socket. The nodes' end is the fence
agent fence_lab, which asks here by a Unix socket in the directory that all nodes
share; a real one asks a device that no node can take with it when it falls.
"""

from __future__ import annotations

import socketserver
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from tests.lab.cluster import Cluster
from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.node import Node

SOCKET = "fence.sock"

# Seconds from power to the boot of the kernel: a server's firmware takes half a minute
# and more. A node of the lab is up again in 3 s, before the other has taken over.
FIRMWARE_SECONDS = 20.0

# pcmk_reboot_timeout and stonith-timeout are ample: off takes about a second.
CONFIGURATION = """\
primitive fence_lab stonith:fence_lab \\
    params pcmk_host_list="{nodes}" \\
    op monitor interval=60s timeout=20s
property cib-bootstrap-options: \\
    stonith-enabled=true \\
    stonith-timeout=30s
"""


@dataclass(frozen=True)
class Fencing:
    """One that was done: which node, how, and when (time.monotonic)."""

    node: str
    action: str
    moment: float


class FenceDevice:
    """``with FenceDevice(lab) as device:`` fences when asked; ``device.done`` tells.

    A node that waits for its firmware when the device is left stays off.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.done: list[Fencing] = []
        self._path = lab.shared / SOCKET
        self._booting: list[threading.Timer] = []

    def __enter__(self) -> FenceDevice:
        device = self

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                action, _, name = self.rfile.readline().decode().strip().partition(" ")
                # Only then is it off: whoever asked takes the data at this word.
                self.wfile.write(f"{device.perform(action, name)}\n".encode())

        self._path.unlink(missing_ok=True)
        # One at a time, as a socket has one switch.
        self._server = socketserver.UnixStreamServer(str(self._path), Connection)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for timer in self._booting:
            timer.cancel()
            timer.join()
        self._path.unlink(missing_ok=True)

    def perform(self, action: str, name: str) -> str:
        """The answer: "done", "on", "off", a list, or "failed: ..."."""
        if action == "list":
            return "\n".join(f"{node}," for node in self.lab.nodes)
        if action == "monitor":
            return "done"
        try:
            node = self.lab.node(name)
            if action == "status":
                return "on" if node.is_up else "off"
            self._switch(node, action)
        except LabError as problem:
            return f"failed: {problem}"
        return "done"

    def _switch(self, node: Node, action: str) -> None:
        if action in ("off", "reboot"):
            node.crash()
            self.done.append(Fencing(node.name, action, time.monotonic()))
        if action in ("on", "reboot"):
            timer = threading.Timer(FIRMWARE_SECONDS, self._boot, (node,))
            self._booting.append(timer)
            timer.start()

    def _boot(self, node: Node) -> None:
        if not node.is_up:  # somebody may have pressed its button meanwhile
            node.boot(wait=False)


def fencing(cluster: Cluster) -> None:
    """Have the cluster use the device, which must be there. Raises CommandFailed."""
    node = cluster.running[0]
    node.write("/root/fencing.crm", CONFIGURATION.format(nodes=" ".join(cluster.members)))
    node.run("crm", "configure", "load", "update", "/root/fencing.crm", timeout=60)
