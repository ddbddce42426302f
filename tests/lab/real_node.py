"""One node with a kernel of its own, real DRBD and a real boot: User Mode Linux.

A program on this machine, whose processes are the node's. It boots Debian's disk, and an
agent in it (files/real/usr/lib/lab/agent) does what nsenter does for the fast nodes. Forking
costs ten times what it does on those: true about DRBD, boot and watchdog, not about speed.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from tests.lab import remote
from tests.lab.host import LabError, LabUnavailable, memory_available, run, start_time, wait_for
from tests.lab.network import LAB_NETWORK, LAB_NIC, TapNetwork
from tests.lab.node import ENTER_CGROUP, PATH, Node, copy_sparse

MEMORY = "1536M"
# Both nodes' memory, when they have used all of it, and their disks.
REAL_MEMORY_NEEDED = 6 << 30
BOOT_SECONDS = 240.0
SECTOR = 512
FIRST_SECTOR = 2048
TUN = Path("/dev/net/tun")

# Constant: the kernel's program, with the C library it wants at the place of this machine's,
# in a mount namespace of its own. To reboot, that kernel would become argv[0]: there is no
# such program, so it ends, having said what it wanted, and is started again from here. The
# watchdog's reset looks the same.
SUPERVISE = """\
usr=$1 console=$2
shift 2
while :; do
    seen=$(stat -c %s "$console")
    unshare --mount --propagation private bash -c \
        'mount --bind "$1" /usr && shift && exec -a /no/reboot /usr/bin/linux.uml "$@"' \
        kernel "$usr" "$@" >>"$console" 2>&1 </dev/null
    tail -c "+$((seen + 1))" "$console" |
        grep -aqE 'reboot: Restarting system|Failed to exec kernel' || exit 0
done
"""


def check_real() -> None:
    """Raise LabUnavailable, in one line with the fix, where no real node can run; host.py's
    check_host() says what any lab needs."""
    if os.geteuid() != 0:
        return  # that one says it
    if shutil.which("ethtool") is None:
        raise LabUnavailable("programs are missing: apt-get install ethtool")
    if os.uname().machine != "x86_64":
        raise LabUnavailable("real nodes run on an amd64 machine alone (User Mode Linux)")
    if not TUN.exists():
        subprocess.run(["modprobe", "tun"], capture_output=True, check=False)
        if " tun\n" not in Path("/proc/misc").read_text():
            raise LabUnavailable("the kernel has no tun device: modprobe tun")
        TUN.parent.mkdir(exist_ok=True)
        if not TUN.exists():
            os.mknod(TUN, 0o020666, os.makedev(10, 200))
    if memory_available() < REAL_MEMORY_NEEDED:
        raise LabUnavailable(
            f"{memory_available() >> 20} MB of memory are available and two real nodes need "
            f"{REAL_MEMORY_NEEDED >> 20} MB: stop something, or use a larger machine"
        )


class RealNode(Node):
    """As Node. Its pids are its own; the files of a node that is off are those of its disk."""

    @property
    def partition(self) -> str:
        return "/dev/ubdb1"

    # Being.

    def create(self, image: Path) -> None:
        """Copy the image's disk, sparse (1.1 GB of memory). The node is off."""
        self.root.mkdir(parents=True, exist_ok=True)
        copy_sparse(image / "root.img", self._root_disk)
        # 15 MB, since another version of the recipe may take the image's place meanwhile.
        shutil.copytree(image / "usr", self._directory / "usr", symlinks=True)
        self.write("/etc/hostname", self.name + "\n")
        with self._disk.open("wb") as disk:
            disk.truncate(self._partition)
            disk.write(partition_table(self._partition))

    def remove(self) -> None:
        self.crash()
        self._unmount()

    # Power.

    def boot(self, wait: bool = True) -> None:
        if self.is_up:
            raise LabError(f"{self.name} is on already")
        self._unmount()
        self.log.note(f"{self.name}: power on")
        for nic in self.addresses:
            self._network.plug(self.name, nic)
        self._cgroup.mkdir(parents=True, exist_ok=True)
        console = self._directory / "console"
        console.touch()
        self._nspawn = subprocess.Popen(
            [
                "sh", "-c", ENTER_CGROUP, "sh", str(self._cgroup),
                "nsenter", f"--net=/run/netns/{self._network.switchboard}",
                "bash", "-c", SUPERVISE, f"{self.machine}-power",
                str(self._directory / "usr"), str(console),
                f"mem={MEMORY}", f"umid={self.machine}", f"uml_dir={self._directory}/uml",
                "seccomp=on",
                f"ubd0={self._root_disk}", f"ubd1={self._disk}", "root=/dev/ubda", "rw",
                *self._vectors(), "con=null", "con0=null,fd:1",
                f"lab.host={self._host_number}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # The kernel's memory is a file there: not every machine's /dev/shm has room.
            env={"PATH": PATH, "TMPDIR": str(self._directory), "LC_ALL": "C"},
            start_new_session=True,
        )
        pid = self._nspawn.pid
        (self._directory / "init").write_text(f"{pid} {start_time(pid)}")
        self.power_listener(self, "on")
        if wait:
            self.wait_booted()

    def wait_booted(self) -> None:
        def up() -> bool:
            if not self.is_up:
                if "Linux version" not in self.console():
                    # It has looked at what this machine lets it do, and given up.
                    raise LabUnavailable(
                        f"User Mode Linux does not run here: {self.console()[-300:].strip()}")
                raise LabError(f"{self.name} went off while booting: {self.console()[-1000:]}")
            said = self.run("systemctl", "is-system-running", check=False)
            return said.out.strip() in ("running", "degraded")

        try:
            wait_for(up, f"the boot of {self.name}", timeout=BOOT_SECONDS, every=0.5)
        except LabUnavailable:
            raise
        except LabError as late:
            raise LabError(f"{late}: {self.console()[-1000:]}") from None

    def _vectors(self) -> list[str]:
        assert isinstance(self._network, TapNetwork)
        taps = [self._network.tap(self.name, nic) for nic in (*sorted(self.addresses), LAB_NIC)]
        return [f"vec{number}:transport=tap,ifname={tap},depth=64"
                for number, tap in enumerate(taps)]

    # Doing something in it.

    def command(self, *argv: str, env: Mapping[str, str] | None = None) -> list[str]:
        if not self.is_up:
            raise LabError(f"{self.name} is off")
        settings = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", **(env or {})}
        return [sys.executable, "-I", str(remote.__file__), *self._where, json.dumps(settings),
                *argv]

    def path(self, inside: str) -> Path:
        """Of a running node a RemotePath, which has those of Path's methods that are needed;
        else a file on its disk, which is mounted for that until it boots."""
        if self.is_up:
            return cast(Path, remote.RemotePath(*self._where, inside))
        if not os.path.ismount(self.root):
            run(["mount", "-o", "loop", str(self._root_disk), str(self.root)])
        return self.root / inside.lstrip("/")

    def proc(self, pid: int) -> Path:
        return self.path(f"/proc/{pid}")

    def send_signal(self, pid: int, number: int) -> None:
        remote.job(*self._where, "signal", pid, int(number))

    def start_time(self, pid: int) -> int:
        return int(remote.job(*self._where, "start_time", pid))

    def pids(self, comm: str) -> list[int]:
        return list(remote.job(*self._where, "pids", comm))

    @property
    def holds_disk(self) -> bool:
        said = self.run("drbdadm", "role", "asha", check=False)
        return said.out.startswith("Primary")

    @property
    def _where(self) -> tuple[str, str]:
        return (f"/run/netns/{self._network.switchboard}", f"{LAB_NETWORK}.{self._host_number}")

    @property
    def _host_number(self) -> int:
        return int(self.addresses["eth0"].split("/")[0].rsplit(".", 1)[1])

    @property
    def _root_disk(self) -> Path:
        return self._directory / "root.img"

    def _chown(self, place: Path, user: int, group: int) -> None:
        if self.is_up:
            cast(remote.RemotePath, place).chown(user, group)
        else:
            super()._chown(place, user, group)

    def _lose_cables(self) -> None:
        if os.path.exists(f"/run/netns/{self._network.switchboard}"):
            for nic in self.addresses:
                self._network.unplug(self.name, nic)

    def _open_store(self) -> int | None:
        """What it has frozen ends with its kernel."""
        return None

    def _unmount(self) -> None:
        if os.path.ismount(self.root):
            run(["umount", str(self.root)])


def partition_table(size: int) -> bytes:
    """An MBR with one partition, to the end of a disk of that many bytes."""
    table = bytearray(SECTOR)
    table[446:462] = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff",
                                 FIRST_SECTOR, size // SECTOR - FIRST_SECTOR)
    table[510:] = b"\x55\xaa"
    return bytes(table)
