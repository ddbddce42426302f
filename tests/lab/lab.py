"""A lab: the nodes of one cluster on this machine, and its complete removal.

Everything a lab has is named after it and lies below one directory, so that
any later process can remove what a killed one left: the directory's lock is
held by the owner for as long as it lives, and a lab without an owner that was
not asked to stay (``up`` on the command line, ``--keep``) is removed by the next.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from asha.bootstrap.steps import systemd
from tests.lab.host import LabError, cgroup_root, run, start_time, wait_for
from tests.lab.image import (
    FILES,
    REAL_RELEASE,
    Say,
    ensure_image,
    image_path,
    recipe_hash,
)
from tests.lab.lineswitch import LineSwitchClient, start_line_switch
from tests.lab.log import FAILED, LabLog
from tests.lab.log import begin as begin_log
from tests.lab.network import SWITCHBOARD_ADDRESS, Network, TapNetwork
from tests.lab.node import Node, copy_sparse, detach_loops, remove_cgroup
from tests.lab.real_node import RealNode, check_real

BASE = Path("/run/asha-lab")
REPOSITORY = Path(__file__).parents[2]
# The nodes' changed files and the store live in memory: a lab leaves no wear and
# its removal is one unmount. Used only as far as written.
MEMORY_DISK = "4G"
# Of real nodes: two disks of 1.1 GB, and the nodes' memory.
REAL_MEMORY_DISK = "12G"

# Of the nodes' journals, in the report of a test that failed: the last lines of these, cut off.
CLUSTER_WORDS = re.compile(r" (pacemaker-\S+|asha-\S+|python3|asterisk-health\S*)\[\d+\]: ")
LAST_LINES, LAST_WIDTH = 20, 180

# The kinds of nodes.
FAST, REAL = "fast", "real"

NODES = ("crm1", "crm2")
VIRTUAL_ADDRESS = "192.168.1.90"
ADDRESSES = {
    "crm1": {"eth0": "192.168.1.11/24", "eth1": "10.0.3.251/24"},
    "crm2": {"eth0": "192.168.1.12/24", "eth1": "10.0.3.252/24"},
}
CARD_NODE = "crm1"
# Whoever looks for labs without an owner has a lab's lock for a moment.
OWNERSHIP_SECONDS = 10.0
# Of a customer's node: what DRBD will have. Real DRBD copies all of it at the first sync.
PARTITION_SIZE = 1536 << 20
REAL_PARTITION_SIZE = 400 << 20

# How a customer's Debian has its LAN; the second NIC is not set up.
INTERFACES = """\
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
    address {address}
    gateway {gateway}
"""
# What asha install would have been told; of the second ring and the LAN too.
CONF = """\
PRIMARY={primary}
CLUSTERIP={virtual}
{nodes}DRBDDEV=/dev/sda5
{relay}
RHINOUSB=/dev/ttyUSB0
"""
HOSTS = "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n"


class Lab:
    """``with Lab() as lab:`` boots the nodes; leaving it removes everything.

    ``cluster=False`` boots them without Pacemaker. ``customer=True`` boots them as a
    customer has them: a PBX in service, nothing of the cluster, and an empty
    partition, whose size in bytes ``partitions`` may give by node. ``persistent`` labs
    outlive the process that made them. Raises LabUnavailable where none can run.

    ``kind=REAL``: nodes with a kernel of their own, real DRBD and no relay card, as a
    customer has them (tests/lab/real_node.py).
    """

    def __init__(
        self,
        name: str = "",
        *,
        nodes: Iterable[str] = NODES,
        release: str = "",
        cluster: bool = True,
        customer: bool = False,
        partitions: Mapping[str, int] | None = None,
        persistent: bool = False,
        kind: str = FAST,
        say: Say = lambda text: None,
    ) -> None:
        self.name = name or f"t{os.getpid()}-{secrets.token_hex(2)}"
        if not self.name.replace("-", "").isalnum() or len(self.name) > 20:
            raise LabError(f"lab name {self.name!r}: letters, digits and -, at most 20")
        if kind not in (FAST, REAL):
            raise LabError(f"nodes are {FAST} or {REAL}, not {kind!r}")
        self.kind = kind
        is_real = kind == REAL
        customer = customer or is_real
        self.release = release or (
            REAL_RELEASE if is_real else os.environ.get("ASHA_LAB_RELEASE", "trixie"))
        self.directory = BASE / self.name
        self.shared = self.directory / "shared"
        self.network = TapNetwork(self.name) if is_real else Network(self.name)
        # Of what runs on the nodes; stays when the lab is removed.
        self.log = LabLog(self.name)
        size = REAL_PARTITION_SIZE if is_real else PARTITION_SIZE
        self.nodes = {
            node: (RealNode if is_real else Node)(
                self.name, node, self.directory / node, self.shared, self.network,
                ADDRESSES[node], self.log, configured=not customer,
                partition=(partitions or {}).get(node, size) if customer else 0,
            )
            for node in nodes
        }
        for each in self.nodes.values():
            each.maker = self._make
        self._cluster = cluster and not customer
        self._customer = customer
        self._persistent = persistent
        self._say = say
        self._lock: IO[str] | None = None

    # The lab as a whole.

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._say(f"what ran on the nodes: {self.log.path}")
            # Ctrl-C is no failure, and nobody waits for journals then.
            if isinstance(error, Exception):
                self.tell_failure(str(error))
        finally:
            self.down()

    @classmethod
    def attach(cls, name: str) -> Lab:
        """A lab that another process made and that is up."""
        try:
            record = json.loads((BASE / name / "lab.json").read_text())
        except OSError as error:
            known = ", ".join(lab_names()) or "none"
            raise LabError(f"no lab called {name} is up (there are: {known})") from error
        return cls(
            name,
            nodes=record["nodes"],
            release=record["release"],
            cluster=record["cluster"],
            customer=record["customer"],
            persistent=record["persistent"],
            kind=record["kind"],
        )

    def up(self) -> None:
        """Build the image if need be, and boot every node to the end."""
        if self.kind == REAL:
            check_real()
        ensure_image(self.release, self._say, self._variant)
        remove_stale(self._say)
        BASE.mkdir(parents=True, exist_ok=True)
        self._take_ownership()
        if self.directory.exists():
            self._give_up_ownership()
            raise LabError(
                f"a lab called {self.name} is up: python3 -m tests.lab down --name {self.name}"
            )
        try:
            self._build()
        except BaseException:
            self.down()
            raise

    def _build(self) -> None:
        begin_log(self.name)
        self.directory.mkdir()
        size = REAL_MEMORY_DISK if self.kind == REAL else MEMORY_DISK
        run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "asha-lab",
             str(self.directory)])
        self._record(persistent=False)
        self.shared.mkdir()
        if not self._customer:
            copy_sparse(self._image / "srv/store.img", self.shared / "store.img")
        (self.directory / "authkey").write_bytes(secrets.token_bytes(256))
        self.network.build_switchboard()
        for node in self.nodes.values():
            node.connect()
            self._make(node)
        if self.kind == FAST:
            self._start_line_switch()
        self._say(f"booting {' and '.join(self.nodes)}")
        for node in self.nodes.values():
            node.power_listener = self._power_changed
            node.boot(wait=False)
        for node in self.nodes.values():
            node.wait_booted()
        # Only now: a lab that is cut off half made is nobody's wish to keep.
        self._record(persistent=self._persistent)

    def tell_failure(self, what: str) -> str:
        """Keep what the nodes said with the log, which is kept longer: ``what`` has failed.
        Returns where that is, and the cluster's last words."""
        self.log.keep(FAILED, what)
        words = []
        for node in self.running:
            try:
                said = node.run("journalctl", "-b", "--no-pager", "-o", "short-precise",
                                check=False).out
            except LabError as problem:
                said = str(problem)
            self.log.keep(f"{node.name}.journal", said)
            told = [line for line in said.splitlines() if CLUSTER_WORDS.search(line)]
            words += [line[:LAST_WIDTH] for line in told[-LAST_LINES:]]
        return "\n".join([str(self.log.path), *words])

    def down(self) -> None:
        """Remove everything, whatever state it is in. Safe to repeat."""
        for node in self.nodes.values():
            node.power_listener = lambda node, event: None
            if self.kind == REAL:
                self.log.keep(f"{node.name}.console", node.console())
            node.remove()
        self._stop_line_switch()
        for pid in self.network.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        detach_loops(self.shared / "store.img")
        self.network.remove()
        remove_cgroup(cgroup_root() / f"asha-lab-{self.name}")
        for node in self.nodes.values():
            # Left by an nspawn that was killed rather than ended.
            for kind in ("propagate", "unix-export"):
                shutil.rmtree(f"/run/systemd/nspawn/{kind}/{node.machine}", ignore_errors=True)
        if os.path.ismount(self.directory):
            run(["umount", "--lazy", str(self.directory)])
        if self.directory.is_dir():
            self.directory.rmdir()
        lock_path(self.name).unlink(missing_ok=True)
        self._give_up_ownership()
        self.log.finish("removed")

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise LabError(f"no node {name} here: one of {', '.join(self.nodes)}")
        node = self.nodes[name]
        node.power_listener = self._power_changed
        return node

    @property
    def running(self) -> list[Node]:
        return [self.node(name) for name in self.nodes if self.nodes[name].is_up]

    # The telephone line.

    @property
    def has_line(self) -> bool:
        """Whether there is a relay card."""
        return self.kind == FAST

    def line_goes_to(self) -> str:
        """The node that the line goes to, "" where there is none."""
        return self.line_switch.line_goes_to() if self.has_line else ""

    @property
    def line_switch(self) -> LineSwitchClient:
        """The relay card on crm1, to be asked where the line goes. LabError without one."""
        if not self.has_line:
            raise LabError(f"{self.kind} nodes have no relay card")
        return LineSwitchClient(str(self.directory / "lineswitch.sock"))

    def _power_changed(self, node: Node, event: str) -> None:
        if node.name != CARD_NODE or not self.has_line:
            return
        if event == "on":
            self.line_switch.power_on(node.init)
        elif event == "off":
            self.line_switch.power_off()

    def _start_line_switch(self) -> None:
        pid = start_line_switch(
            str(self.directory / "lineswitch.sock"), card_node=CARD_NODE, other_node="crm2"
        )
        (self.directory / "lineswitch.pid").write_text(f"{pid} {start_time(pid)}")

    def _stop_line_switch(self) -> None:
        try:
            pid, started = map(int, (self.directory / "lineswitch.pid").read_text().split())
        except (OSError, ValueError):
            return
        if start_time(pid) == started:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: start_time(pid) != started, "the end of the line switch")

    # Making and removing.

    @property
    def _variant(self) -> str:
        if self.kind == REAL:
            return "real"
        return "customer" if self._customer else "cluster"

    @property
    def _image(self) -> Path:
        return image_path(self.release, self._variant)

    def _make(self, node: Node) -> None:
        """The node's disks, as they are before its first boot."""
        node.create(self._image)
        if self.kind == FAST:
            # The lab's stand-ins, and the program of the card's vendor, or what it is here.
            shutil.copytree(FILES / "node", node.root, symlinks=True, dirs_exist_ok=True)
        if self._customer:
            node.write("/etc/hosts", HOSTS.format(name=node.name))
            node.write("/etc/network/interfaces", INTERFACES.format(
                address=node.addresses["eth0"], gateway=SWITCHBOARD_ADDRESS))
            return
        node.install(REPOSITORY)
        has_card = node.name == CARD_NODE
        node.write("/etc/asha/asha.conf", CONF.format(
            primary=str(node.name == NODES[0]).lower(), virtual=VIRTUAL_ADDRESS,
            relay="RHINOSPF=YES" if has_card else f"RELAYNODE={CARD_NODE}",
            nodes="".join(f"{side}NODENAME={name}\n{side}NODEIP={address('eth1', name)}\n"
                          f"{side}NODELAN={address('eth0', name)}\n"
                          for side, name in zip("AB", NODES, strict=True))))
        if has_card:
            run(["systemctl", f"--root={node.root}", "enable", "asha-relay-park"])
        if self._cluster:
            self._configure_cluster(node)

    def _configure_cluster(self, node: Node) -> None:
        entries = []
        for number, name in enumerate(self.nodes, start=1):
            ring = [address(nic, name) for nic in ("eth1", "eth0")]
            entries.append(
                f"    node {{\n        name: {name}\n        nodeid: {number}\n"
                f"        ring0_addr: {ring[0]}\n        ring1_addr: {ring[1]}\n    }}"
            )
        text = (FILES / "corosync.conf").read_text().replace("@NODES@", "\n".join(entries))
        node.write("/etc/corosync/corosync.conf", text)
        authkey = node.path("/etc/corosync/authkey")
        authkey.write_bytes((self.directory / "authkey").read_bytes())
        authkey.chmod(0o400)
        for unit, text in systemd.COME_BACK.items():
            node.write(systemd.drop_in_path(unit), text)
        run(["systemctl", f"--root={node.root}", "enable", "corosync", "pacemaker", "asha-lan"])

    def _record(self, persistent: bool) -> None:
        record = {
            "nodes": list(self.nodes),
            "release": self.release,
            "recipe": recipe_hash(self.release, self._variant),
            "cluster": self._cluster,
            "customer": self._customer,
            "persistent": persistent,
            "kind": self.kind,
        }
        (self.directory / "lab.json").write_text(json.dumps(record))

    def _take_ownership(self) -> None:
        def taken() -> bool:
            self._lock = take_lock(self.name, "w")
            return self._lock is not None

        try:
            wait_for(taken, f"the lock of {self.name}", timeout=OWNERSHIP_SECONDS, every=0.05)
        except LabError:
            raise LabError(f"a lab called {self.name} is in use by another process") from None

    def _give_up_ownership(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def address(nic: str, node: str) -> str:
    """Without its prefix."""
    return ADDRESSES[node][nic].split("/")[0]


def lock_path(name: str) -> Path:
    return BASE / f"{name}.lock"


def lab_names() -> list[str]:
    """Every lab there is anything of, dead or alive."""
    if not BASE.is_dir():
        return []
    return sorted({path.stem if path.suffix == ".lock" else path.name for path in BASE.iterdir()})


def remove_stale(say: Say = lambda text: None) -> None:
    """Remove the labs whose owner is gone and which were not made to stay."""
    for name in lab_names():
        # To the end: whoever finds the lock taken leaves the lab to us.
        lock = take_lock(name, "r")
        if lock is None:
            continue
        with lock:
            try:
                known = json.loads((BASE / name / "lab.json").read_text())
            except (OSError, ValueError):
                known = {"nodes": list(NODES), "persistent": False}
            if known["persistent"]:
                continue
            say(f"removing lab {name}, which a killed process left")
            Lab(name, nodes=known["nodes"], kind=known.get("kind", FAST)).down()


def take_lock(name: str, mode: str) -> IO[str] | None:
    """The lab's lock file, opened with ``mode`` and locked; None where somebody else has
    the lock, or has just removed the lab and this file with it."""
    try:
        lock = lock_path(name).open(mode)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), lock_path(name).stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None
