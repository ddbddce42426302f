"""One node: a whole Debian under systemd-nspawn, with a mains switch."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.lab.host import CommandFailed, LabError, Result, cgroup_root, run, start_time, wait_for
from tests.lab.log import LabLog
from tests.lab.network import Network

# Loop device nodes a node may use; the store takes one per primary.
LOOP_NODES = 64
# Where a customer's node has its empty partition.
PARTITION = "/dev/sda5"
BOOT_SECONDS = 90.0
FITHAW = 0xC0045878  # linux/fs.h
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Constant: moves itself into the cgroup, then becomes the program. Each node has
# a cgroup of its own, so that two of them do not share system.slice and a whole
# node can be frozen or killed in one write.
ENTER_CGROUP = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'


class Node:
    """Created by Lab. ``directory`` holds its overlay; ``shared`` is the store's.

    ``addresses`` has its NICs; ``configured``: the lab gives them their addresses, not
    the node itself. ``partition`` is the size of its empty partition in bytes, 0 for
    none.
    """

    def __init__(self, lab: str, name: str, directory: Path, shared: Path, network: Network,
                 addresses: dict[str, str], log: LabLog, *, configured: bool,
                 partition: int) -> None:
        self.name = name
        self.log = log
        self.addresses = addresses
        self.machine = f"asha-{lab}-{name}"
        self.root = directory / "root"
        # Told "on" and "off" when the mains switch is used; see Lab._power_changed.
        self.power_listener: Callable[[Node, str], None] = lambda node, event: None
        # Makes a new box of it; see Lab._make.
        self.maker: Callable[[Node], None] = lambda node: None
        self._directory = directory
        self._shared = shared
        self._network = network
        self._given = addresses if configured else {}
        self._partition = partition
        self._cgroup = cgroup_root() / f"asha-lab-{lab}" / name

    @property
    def partition(self) -> str:
        """The device of its empty partition, where it has one."""
        return PARTITION

    # Being.

    def create(self, image: Path) -> None:
        """Lay a writable layer over the image. The node is off."""
        for part in ("upper", "work", "root"):
            (self._directory / part).mkdir(parents=True, exist_ok=True)
        # redirect_dir: a directory of the image can be renamed, as on any disk.
        options = (
            f"lowerdir={image},upperdir={self._directory}/upper,workdir={self._directory}/work,"
            "redirect_dir=on"
        )
        run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)])
        self.write("/etc/hostname", self.name + "\n")
        if self._partition:
            with self._disk.open("wb") as disk:
                disk.truncate(self._partition)

    def connect(self) -> None:
        """Its NICs and cables."""
        self._network.build_node(self.name, self._given)

    def remove(self) -> None:
        """Cut the power and give everything back."""
        self.crash()
        if os.path.ismount(self.root):
            run(["umount", "--lazy", str(self.root)])

    def replace(self) -> None:
        """The box is destroyed, its disks with it; a new one of the same name is booted,
        as bare as this one was."""
        self.remove()
        shutil.rmtree(self._directory)
        (self._shared / f"{self.name}.drbd.json").unlink(missing_ok=True)
        self.maker(self)
        self.boot()

    # Power.

    @property
    def init(self) -> int:
        """The node's PID 1 as the host numbers it; 0 when the node is off."""
        try:
            pid, started = map(int, (self._directory / "init").read_text().split())
        except (OSError, ValueError):
            return 0
        return pid if start_time(pid) == started else 0

    @property
    def is_up(self) -> bool:
        return self.init != 0

    def boot(self, wait: bool = True) -> None:
        """Switch the node on; with ``wait``, until its systemd has finished."""
        if self.is_up:
            raise LabError(f"{self.name} is on already")
        self.log.note(f"{self.name}: power on")
        self._network.reset_node(self.name, self._given)
        for nic in self.addresses:
            self._network.plug(self.name, nic)
        self._cgroup.mkdir(parents=True, exist_ok=True)
        with (self._directory / "console").open("ab") as console:
            nspawn = subprocess.Popen(
                [
                    "sh", "-c", ENTER_CGROUP, "sh", str(self._cgroup),
                    "systemd-nspawn",
                    "--quiet",
                    "--register=no",
                    "--keep-unit",
                    "--boot",
                    "--console=passive",
                    f"--directory={self.root}",
                    f"--machine={self.machine}",
                    f"--hostname={self.name}",
                    f"--network-namespace-path={self._network.path(self.name)}",
                    "--capability=all",
                    "--resolv-conf=off",
                    "--bind=/dev/loop-control",
                    f"--bind={self._shared}:/srv/lab-shared",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
        self._nspawn = nspawn  # kept, so that its end is reaped
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

        def has_init() -> bool:
            if nspawn.poll() is not None:
                raise LabError(f"{self.name} did not start: {self.console()[-400:]}")
            try:
                found = children.read_text().split()
                if not found or Path(f"/proc/{found[0]}/comm").read_text().strip() != "systemd":
                    return False
            except OSError:
                return False  # has just ended
            pid = int(found[0])
            (self._directory / "init").write_text(f"{pid} {start_time(pid)}")
            return True

        wait_for(has_init, f"the start of {self.name}", timeout=BOOT_SECONDS)
        self._make_devices()
        self.power_listener(self, "on")
        if wait:
            self.wait_booted()

    def wait_booted(self) -> None:
        def up() -> bool:
            if not self.is_up:
                raise LabError(f"{self.name} went off while booting: {self.console()[-400:]}")
            said = self.run("systemctl", "is-system-running", check=False)
            return said.out.strip() in ("running", "degraded")

        wait_for(up, f"the boot of {self.name}", timeout=BOOT_SECONDS, every=0.2)

    def crash(self) -> None:
        """As if the power failed: every process gone at once, both cables dead."""
        if self.is_up:
            self.log.note(f"{self.name}: power off")
        self._lose_cables()
        if self._cgroup.is_dir():
            store = self._open_store()
            (self._cgroup / "cgroup.kill").write_text("1")
            if store is not None:
                thaw(store)
            wait_for(self._nothing_runs, f"the end of {self.name}'s processes")
        self._reap()
        self.power_listener(self, "off")

    def shut_down(self, warm: bool = False) -> None:
        """Switch off in an orderly way (systemctl poweroff).

        ``warm``: as before a reboot, what the USB sockets feed stays powered.
        """
        self.run("systemctl", "poweroff", "--no-block", check=False)
        wait_for(lambda: not self.is_up, f"{self.name} to switch itself off", timeout=90)
        wait_for(self._nothing_runs, f"the end of {self.name}'s processes")
        self._reap()
        if not warm:
            self.power_listener(self, "off")

    def reboot(self) -> None:
        self.shut_down(warm=True)
        self.boot()

    def freeze(self) -> None:
        """Stop every process of the node, as a hung kernel would look."""
        self.log.note(f"{self.name}: frozen")
        (self._cgroup / "cgroup.freeze").write_text("1")

    def thaw(self) -> None:
        self.log.note(f"{self.name}: thawed")
        (self._cgroup / "cgroup.freeze").write_text("0")

    # Cables: eth0 is the LAN, eth1 the cluster link.

    def cut(self, nic: str) -> None:
        self.log.note(f"{self.name}: {nic} unplugged")
        self._network.unplug(self.name, nic)

    def restore(self, nic: str) -> None:
        self.log.note(f"{self.name}: {nic} plugged in")
        self._network.plug(self.name, nic)

    # Doing something in it.

    def command(self, *argv: str, env: Mapping[str, str] | None = None) -> list[str]:
        """The host's command line that runs this one in the node."""
        init = self.init
        if not init:
            raise LabError(f"{self.name} is off")
        settings = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", **(env or {})}
        return [
            "nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid",
            "--cgroup", "--root", "--wd", "--",
            "env", "-i", *(f"{key}={value}" for key, value in settings.items()), *argv,
        ]

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Result:
        """Run a program in the node. CommandFailed on a non-zero code with ``check``."""
        begun = time.monotonic()
        try:
            done = run(self.command(*argv, env=env), timeout=timeout, check=False, stdin=stdin,
                       where=self.name)
        except CommandFailed as late:
            result = Result(argv, late.result.code, late.result.out, late.result.err)
            self.log.ran(self.name, result, time.monotonic() - begun)
            raise
        result = Result(argv, done.code, done.out, done.err)
        self.log.ran(self.name, result, time.monotonic() - begun)
        if check and not result.ok:
            raise CommandFailed(result, self.name)
        return result

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a program in the node and return at once; the caller ends it."""
        self.log.note(f"{self.name}: starting {shlex.join(argv)}")
        return subprocess.Popen(
            self.command(*argv, env=env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def path(self, inside: str) -> Path:
        """A file of the node as the host sees it: of the running node if it is on."""
        base = Path(f"/proc/{self.init}/root") if self.is_up else self.root
        return base / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        place = self.path(inside)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside it and renamed: others may be reading it, or running it.
        new = place.with_name(f"{place.name}.new")
        new.write_text(text)
        new.chmod(mode)
        if place.exists():
            owner = place.stat()
            self._chown(new, owner.st_uid, owner.st_gid)
        new.rename(place)

    # Processes, by the numbers that proc() knows them by: here those of the host.

    def proc(self, pid: int) -> Path:
        """The process's directory in /proc."""
        return Path(f"/proc/{pid}")

    def send_signal(self, pid: int, number: int) -> None:
        """ProcessLookupError if it is gone."""
        os.kill(pid, number)

    def start_time(self, pid: int) -> int:
        """See host.start_time()."""
        return start_time(pid)

    def pids(self, comm: str) -> list[int]:
        """The node's processes of that name, zombies left out."""
        found = []
        for word in self._all_pids():
            try:
                name = Path(f"/proc/{word}/comm").read_text().strip()
            except OSError:
                continue
            if name == comm and start_time(int(word)):
                found.append(int(word))
        return sorted(found)

    def _all_pids(self) -> list[str]:
        """Of every cgroup of the node. One may vanish, with its service, meanwhile:
        os.walk passes over it, where Path.rglob raises."""
        found = []
        for folder, _, _ in os.walk(self._cgroup):
            try:
                found += (Path(folder) / "cgroup.procs").read_text().split()
            except OSError:
                continue
        return found

    def kill(self, comm: str, signal_number: int = signal.SIGKILL) -> list[int]:
        """Signal every process of that name in the node; LabError if there is none."""
        pids = self.pids(comm)
        if not pids:
            raise LabError(f"no {comm} runs on {self.name}")
        for pid in pids:
            self.send_signal(pid, signal_number)
        return pids

    def console(self) -> str:
        """What the node printed while it booted."""
        try:
            return (self._directory / "console").read_text(errors="replace")
        except OSError:
            return ""

    def install(self, make: Path) -> None:
        """The agents and the library of this checkout, before the first boot."""
        run(["make", "--silent", f"--directory={make}", "install", f"DESTDIR={self.root}"])
        run(
            ["chroot", str(self.root), "/usr/bin/python3", "-m", "compileall", "-q",
             "/usr/lib/python3/dist-packages/asha"]
        )

    @property
    def holds_disk(self) -> bool:
        """Whether this node may write to the replicated disk, whoever says what of it."""
        return self.path("/dev/drbd0").exists()

    def _chown(self, place: Path, user: int, group: int) -> None:
        os.chown(place, user, group)

    def _lose_cables(self) -> None:
        if os.path.exists(self._network.path(self.name)):
            for nic in self.addresses:
                self._network.unplug(self.name, nic)

    def _open_store(self) -> int | None:
        """A handle on the file system at /drbd, None when none is mounted there."""
        try:
            mounted = " /drbd " in self.path("/proc/1/mounts").read_text()
            return os.open(self.path("/drbd"), os.O_RDONLY) if mounted else None
        except OSError:
            return None  # it is off, or just ending

    @property
    def _disk(self) -> Path:
        return self._directory / "sda5.img"

    def _make_devices(self) -> None:
        for number in range(LOOP_NODES):
            place = self.path(f"/dev/loop{number}")
            if not place.exists():
                os.mknod(place, stat.S_IFBLK | 0o660, os.makedev(7, number))
        if self._partition:
            loop = run(["losetup", "--find", "--show", str(self._disk)]).out.strip()
            os.mknod(self.path(PARTITION), stat.S_IFBLK | 0o660, os.stat(loop).st_rdev)

    def _nothing_runs(self) -> bool:
        return not self._all_pids()

    def _reap(self) -> None:
        nspawn = getattr(self, "_nspawn", None)
        if nspawn is not None:
            nspawn.wait(timeout=30)
        # Not to be used again: in a cgroup that was once killed, kernels of 6.x
        # kill what systemd starts later.
        remove_cgroup(self._cgroup)
        detach_loops(self._disk)
        (self._directory / "init").unlink(missing_ok=True)


def thaw(store: int) -> None:
    """End a freeze of the file system (fsfreeze), and close the handle.

    The kernel is the host's: what a node has frozen would outlive it, hold its killed
    processes and keep the store mounted. A machine that is off has no frozen disk.
    """
    try:
        fcntl.ioctl(store, FITHAW, 0)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # it was not frozen
            raise
    finally:
        os.close(store)


def remove_cgroup(top: Path) -> None:
    """Remove an empty cgroup tree, leaves first."""

    def removed() -> bool:
        try:
            for folder, _, _ in os.walk(top, topdown=False):
                os.rmdir(folder)
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            return False  # what was killed in it is no longer listed, and not yet gone
        return True

    wait_for(removed, f"the end of all in {top}")


def detach_loops(image: Path) -> None:
    """A loop device is the kernel's: it outlives the node that attached it."""
    if not image.exists():
        return

    def detached() -> bool:
        listed = run(["losetup", "--noheadings", "--output", "NAME", "-j", str(image)],
                     check=False)
        for device in listed.out.split():
            run(["losetup", "--detach", device], check=False)
        return not listed.out.split()

    wait_for(detached, f"the loop devices of {image}")


def copy_sparse(source: Path, target: Path) -> None:
    run(["cp", "--sparse=always", str(source), str(target)])
