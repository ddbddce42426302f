"""sark-data on real mounts: real disks that fill, freeze and break, real kills.

Each test runs again in a mount namespace of its own, by itself: this host's mounts
are never touched, and all that a test mounts is gone with it.
"""

from __future__ import annotations

import itertools
import os
import platform
import pwd
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.data import mountinfo
from asha.ocf import Deadline, Exit
from asha.run.child import stat_of
from tests.fakes.ocf import Outcome

REPOSITORY = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
INSIDE = "ASHA_TEST_IN_NAMESPACE"
# A stop ends processes: it shall see those of the test only.
UNSHARE = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"]

# How often start and stop are killed half way; more often until the moments have differed.
KILLS = 50
PATIENCE = 10

AGENT = f"""#!{PYTHON} -I
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from asha.agents.sark_data import SarkData
# more
from asha.ocf import main
sys.exit(main(SarkData))
"""

# Stands in for Pacemaker's program of that name.
ATTRD_UPDATER = """#!/bin/sh
echo "$@" >> "$HA_RSCTMP/attributes"
"""

NAMES = ("etc/asterisk", "var/lib/asterisk", "var/spool/asterisk", "opt/sark/db")


def cannot_run() -> str:
    if os.geteuid() != 0:
        return "needs root: it mounts"
    if not os.access(PYTHON, os.X_OK):
        return f"needs {PYTHON}"
    for program in ("unshare", "mkfs.ext4", "fsfreeze", "losetup"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        return "needs the right to make a mount namespace"
    if subprocess.run(["losetup", "--find"], capture_output=True).returncode:
        return "needs a loop device"
    return ""


pytestmark = pytest.mark.skipif(bool(cannot_run()), reason=cannot_run() or "-")


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


class Site:
    """A node in a mount namespace: a store on a loop device, and the agent's program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drbd = folder / "drbd"
        self.run_directory = folder / "run"
        self.agent = folder / "sark-data"
        self.points = [str(folder / "node" / name) for name in NAMES]
        for directory in (self.drbd, self.run_directory, *map(Path, self.points)):
            directory.mkdir(parents=True)
        for name, text in (("sark-data", AGENT), ("attrd_updater", ATTRD_UPDATER)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        image = folder / "store.img"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        run("mkfs.ext4", "-q", "-F", str(image))
        run("mount", "-o", "loop,errors=remount-ro", str(image), str(self.drbd))
        for point in self.points:
            Path(f"{self.drbd}{point}").mkdir(parents=True)
        self.parameters = {"data_root": str(self.drbd), "paths": " ".join(self.points)}

    def environ(self, meta: str, **parameters: str) -> dict[str, str]:
        given = {**self.parameters, **parameters}
        return {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "HA_RSCTMP": str(self.run_directory),
            "OCF_RESOURCE_INSTANCE": "p_data",
            "OCF_RESKEY_CRM_meta_timeout": "20000",
            "OCF_RESKEY_CRM_meta_interval": meta,
            "OCF_RESKEY_CRM_meta_on_node": "crm1",
            **{f"OCF_RESKEY_{name}": value for name, value in given.items()},
        }

    def begin(self, action: str, interval: str = "0", **parameters: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.agent), action],
            env=self.environ(interval, **parameters),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def do(self, action: str, interval: str = "0", **parameters: str) -> tuple[int, str]:
        """The exit code, and everything that the agent said."""
        process = self.begin(action, interval, **parameters)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def must(self, action: str, code: Exit = Exit.SUCCESS, interval: str = "0") -> str:
        got, said = self.do(action, interval)
        assert got == code, said
        return said

    def monitor(self, **parameters: str) -> tuple[int, str]:
        """As Pacemaker repeats it: the code and the reason."""
        code, said = self.do("monitor", "10000", **parameters)
        return code, Outcome(code, "", said).reason

    def bound(self) -> list[str]:
        return [mount.point for mount in mountinfo.read() if mount.point in self.points]

    def attributes(self) -> list[str]:
        file = self.run_directory / "attributes"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def loop(self) -> str:
        """The name of the store's block device."""
        store = mountinfo.visible(mountinfo.read(), str(self.drbd))
        assert store is not None
        return store.source.rpartition("/")[2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    assert INSIDE in os.environ
    site = Site(tmp_path)
    yield site
    site.do("stop")


@pytest.fixture
def started(site: Site) -> Site:
    site.must("start")
    assert site.bound() == site.points
    return site


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs Python code that prints a line when it is ready, and waits."""
    running: list[subprocess.Popen[str]] = []

    def begin(code: str, *before: str, cwd: str = "/") -> subprocess.Popen[str]:
        ready = f"import os, signal, time\n{code}\nprint(flush=True)\ntime.sleep(1000)"
        process = subprocess.Popen(
            [*before, PYTHON, "-c", ready],
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def frozen(started: Site, start: Start) -> Iterator[Site]:
    """The store takes no writes, and who tries sleeps in the kernel.

    Thawed before ``start`` waits for the end of its processes, and also when this
    process is killed: its guard then reads the end of the pipe.
    """
    thaw = f"read line; fsfreeze --unfreeze {started.drbd}"
    guard = subprocess.Popen(["sh", "-c", thaw], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert guard.stdin is not None
    try:
        run("fsfreeze", "--freeze", str(started.drbd))
        yield started
    finally:
        guard.stdin.close()
        guard.wait()


def inside_life(site: Site) -> None:
    assert site.do("monitor")[0] == Exit.NOT_RUNNING
    for _ in range(2):
        site.must("start")
        assert site.bound() == site.points
    Path(site.points[0], "sip.conf").write_text("x")
    assert Path(f"{site.drbd}{site.points[0]}", "sip.conf").read_text() == "x"
    assert site.monitor() == (Exit.SUCCESS, "")
    assert site.attributes() == ["--name asha-data-space --update ok"]
    for _ in range(2):
        site.must("stop")
        assert site.bound() == []
    assert os.listdir(site.points[0]) == []
    run("umount", str(site.drbd))
    assert site.do("monitor")[0] == Exit.NOT_RUNNING


def inside_the_store_can_be_unmounted_after_a_stop(started: Site) -> None:
    """What the Filesystem resource does next; nothing of ours is left on it."""
    started.monitor()
    started.must("stop")
    run("umount", str(started.drbd))


# Disks.


def inside_full_for_users_while_root_still_writes(started: Site) -> None:
    with Path(started.drbd, "filler").open("wb") as filler:
        subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "cat", "/dev/zero"],
            stdout=filler,
            stderr=subprocess.DEVNULL,
        )
    Path(started.drbd, "by-root").write_bytes(b"x" * 65536)
    code, reason = started.monitor()
    assert code == Exit.DEGRADED
    assert reason.startswith(f"full: {started.drbd} has ")
    assert started.attributes()[-1].startswith("--name asha-data-space --update full: ")
    os.unlink(started.drbd / "filler")
    assert started.monitor() == (Exit.SUCCESS, "")
    assert started.attributes()[-1] == "--name asha-data-space --update ok"


@pytest.mark.parametrize("before", [False, True])
def inside_full_to_the_last_block(started: Site, before: bool) -> None:
    if before:
        assert started.monitor() == (Exit.SUCCESS, "")
    subprocess.run(
        ["sh", "-c", f"cat /dev/zero > {started.drbd}/filler"], stderr=subprocess.DEVNULL
    )
    for _ in range(2):
        code, reason = started.monitor()
        assert code == Exit.DEGRADED
        assert reason.startswith(f"full: {started.drbd} has 0 kB free")


def inside_low(started: Site) -> None:
    started.monitor()
    Path(started.drbd, "filler").write_bytes(b"x" * (16 << 20))
    assert started.monitor(low_space="50") == (Exit.SUCCESS, "")
    assert started.attributes()[-1].startswith("--name asha-data-space --update low: ")
    told = len(started.attributes())
    started.monitor(low_space="50")
    assert len(started.attributes()) == told
    started.must("stop")
    assert started.attributes()[told:] == ["--name asha-data-space --delete"]


def inside_remounted_read_only(started: Site) -> None:
    run("mount", "-o", "remount,ro", str(started.drbd))
    code, reason = started.monitor()
    assert code == Exit.ERR_GENERIC
    assert reason.startswith("read-only: ")
    started.must("stop")


def inside_read_only_by_an_error_of_the_disk(started: Site) -> None:
    trigger = Path(f"/sys/fs/ext4/{started.loop}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel cannot be told to find an error")
    trigger.write_text("sark-data's test")
    code, reason = started.monitor()
    assert code == Exit.ERR_GENERIC
    assert reason.startswith("read-only: ")
    started.must("stop")


def inside_stalled(frozen: Site) -> None:
    before = time.monotonic()
    code, reason = frozen.monitor(write_timeout="500ms")
    assert code == Exit.ERR_GENERIC
    assert reason.startswith(f"stalled: a write to {frozen.drbd} did not return within 0.5 s")
    assert time.monotonic() - before < 10

    pid, started = (frozen.run_directory / "sark-data-p_data.stuck").read_text().split(" ")
    code, reason = frozen.monitor(write_timeout="15s")
    assert code == Exit.ERR_GENERIC
    assert reason.startswith("stalled: a write to ")
    assert f"(pid {pid})" in reason, "at once, and with no second child"
    assert time.monotonic() - before < 10

    run("fsfreeze", "--unfreeze", str(frozen.drbd))

    def gone() -> bool:
        about = stat_of(int(pid))
        return about is None or about[19] != started or about[0] == "Z"

    assert Deadline(20).poll(gone)
    assert frozen.monitor() == (Exit.SUCCESS, "")


def inside_stalled_and_stopped(frozen: Site) -> None:
    """Nothing that a stop does needs the disk."""
    frozen.monitor(write_timeout="300ms")
    frozen.must("stop")
    assert frozen.bound() == []


def inside_stalled_and_held(frozen: Site, start: Start) -> None:
    """A writer that no signal ends: the stop says who, and does not lie."""
    file = frozen.points[0] + "/sip.conf"
    holder = start(
        f"import threading\n"
        f"fd = os.open({frozen.points[0]!r}, os.O_RDONLY)\n"
        f"threading.Thread(target=lambda: open({file!r}, 'w'), daemon=True).start()\n"
    )
    code, said = frozen.do("stop", CRM_meta_timeout="8000")
    assert code == Exit.ERR_GENERIC, said
    assert f"{frozen.points[0]} is held by " in said
    assert f"(pid {holder.pid}, waiting for the disk)" in said.splitlines()[-1]
    assert said.count("sends it") == 2, "once each"
    assert frozen.bound() == frozen.points[:1]
    run("fsfreeze", "--unfreeze", str(frozen.drbd))
    frozen.must("stop")
    assert frozen.bound() == []


# Holders.

HELD_BY = {
    "cwd": "os.chdir({point!r})",
    "descriptor": "f = open({point!r} + '/file')",
    "deleted": "f = open({point!r} + '/file'); os.unlink(f.name)",
    "map": "import mmap; f = os.open({point!r} + '/file', os.O_RDONLY);"
    " m = mmap.mmap(f, 0, prot=mmap.PROT_READ); os.closerange(3, 99)",
    "root": "os.chroot({point!r})",
    "stubborn": "os.chdir({point!r}); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "family": "os.chdir({point!r})\nfor _ in range(3): os.fork() or time.sleep(1000)",
}


@pytest.mark.parametrize("how", HELD_BY)
def inside_held(started: Site, start: Start, how: str) -> None:
    point = started.points[1]
    Path(point, "file").write_bytes(b"x" * 5000)
    holder = start(HELD_BY[how].format(point=point))

    code, said = started.do("stop", force_unmount="false")
    assert code == Exit.ERR_GENERIC
    assert f"{point} is held by python3 (pid {holder.pid})" in said
    assert holder.poll() is None

    said = started.must("stop")
    assert f"{point} is held by python3 (pid {holder.pid}): sends it SIGTERM" in said
    assert holder.wait(timeout=20) == -(signal.SIGKILL if how == "stubborn" else signal.SIGTERM)
    assert started.bound() == []


def inside_held_before_the_mount_is_not_held(site: Site, start: Start) -> None:
    Path(site.points[0], "old").write_text("below the mount")
    bystander = start(f"f = open({site.points[0] + '/old'!r})")
    site.must("start")
    holder = start("", cwd=site.points[0])
    said = site.must("stop")
    assert f"(pid {holder.pid})" in said
    assert f"(pid {bystander.pid})" not in said
    assert bystander.poll() is None


# Other mount namespaces.


@pytest.fixture
def shared(site: Site) -> Site:
    """As systemd has it: what the node mounts is passed on."""
    run("mount", "--make-rshared", "/")
    return site


SERVICE = ("unshare", "--mount", "--propagation", "slave")
CONTAINER = ("unshare", "--mount", "--propagation", "private")


@pytest.mark.parametrize("when", ["before", "after"])
def inside_a_service_with_a_namespace_sees_and_lets_go(
    shared: Site, start: Start, when: str
) -> None:
    if when == "after":
        shared.must("start")
    service = start("", *SERVICE)
    if when == "before":
        shared.must("start")
    table = f"/proc/{service.pid}/mountinfo"
    assert [m.point for m in mountinfo.read(table) if m.point in shared.points] == shared.points
    shared.must("stop")
    assert [m.point for m in mountinfo.read(table) if m.point in shared.points] == []
    assert service.poll() is None


def inside_a_file_that_a_service_holds(shared: Site, start: Start) -> None:
    shared.must("start")
    Path(shared.points[0], "file").write_text("x")
    service = start(f"f = open({shared.points[0] + '/file'!r})", *SERVICE)
    said = shared.must("stop")
    assert f"{shared.points[0]} is held by python3 (pid {service.pid})" in said
    assert service.wait(timeout=20) == -signal.SIGTERM


def gone(site: Site) -> None:
    """Nobody holds the disk once the store itself is unmounted: the loop device is free."""
    site.must("monitor", Exit.NOT_RUNNING)
    site.must("stop")
    loop = Path(f"/sys/block/{site.loop}/loop/backing_file")
    run("umount", str(site.drbd))
    # The kernel lets go of the disk when the last mount of it is gone.
    assert Deadline(20).poll(lambda: not loop.exists())


def inside_a_container_is_left_alone_but_for_its_copy(started: Site, start: Start) -> None:
    container = start("", *CONTAINER)
    said = started.must("stop")
    assert f"in the mount namespace of python3 (pid {container.pid})" in said
    gone(started)
    assert container.poll() is None


# What is told to be a writer writes again and again, from where our mounts are not.
WRITER = """
import sys
def write(path):
    print(flush=True)
    while True:
        open(path, "a").write("x")
        time.sleep(0.02)
"""
USER = 65534
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
OWN_SPACE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation")

# open_tree(2), with OPEN_TREE_CLONE, of a directory.
DETACH = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def detach(path):
    tree = libc.syscall(ctypes.c_long(428), ctypes.c_long(-100), path.encode(), ctypes.c_long(1))
    assert tree >= 0, os.strerror(ctypes.get_errno())
    return tree
"""


@pytest.fixture
def users(shared: Site) -> Site:
    """Started, with a directory that belongs to a user who makes namespaces."""
    os.chown(f"{shared.drbd}{shared.points[2]}", USER, USER)
    for folder in Path(shared.points[2]).parents:
        if folder != Path("/") and not folder.stat().st_mode & 1:
            folder.chmod(0o711)
    name = pwd.getpwuid(USER).pw_name
    words = [f"{point}:{name}" if point == shared.points[2] else point for point in shared.points]
    shared.parameters["paths"] = " ".join(words)
    shared.must("start")
    return shared


def writer(where: str) -> str:
    return f"{WRITER}\nwrite({where + '/still'!r})"


def refuses_without_force(site: Site, pid: int) -> None:
    code, said = site.do("stop", force_unmount="false")
    assert code == Exit.ERR_GENERIC
    assert f"(pid {pid})" in said


def inside_a_user_with_a_namespace_of_his_own_is_ended(users: Site, start: Start) -> None:
    process = start(writer(users.points[2]), *AS_USER, *OWN_SPACE, "private")
    still = Path(users.drbd, users.points[2].lstrip("/"), "still")
    assert Deadline(20).poll(still.exists)
    refuses_without_force(users, process.pid)
    assert process.poll() is None
    said = users.must("stop")
    assert f"held by python3 (pid {process.pid}): sends it SIGTERM" in said
    assert process.wait(timeout=20) == -signal.SIGTERM
    gone(users)


def inside_a_user_who_hides_his_mounts_is_ended(users: Site, start: Start) -> None:
    """What lies below another root no list of mounts shows."""
    code = f"""
os.chdir({users.points[2]!r})
libc = __import__("ctypes").CDLL(None)
assert libc.mount(b"tmpfs", b"/", b"tmpfs", 0, None) == 0
os.chdir("/")
"""
    process = start(code, *AS_USER, *OWN_SPACE, "private")
    users.must("stop")
    assert process.wait(timeout=20) == -signal.SIGTERM
    gone(users)


def inside_a_sandbox_of_a_stranger_is_left_alone(users: Site, start: Start) -> None:
    """The kernel takes the copies in it away together with ours."""
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    stranger = start("", *before, *OWN_SPACE, "slave")
    users.must("stop")
    gone(users)
    assert stranger.poll() is None


# In a namespace of a user's: it keeps a second one without a process, and lays a FIFO over
# the place where that can be opened.
COVERED = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, place, kind, flags):
    done = libc.mount(source.encode(), place.encode(), kind, flags, None)
    assert done == 0, os.strerror(ctypes.get_errno())
mount("none", "/mnt", b"tmpfs", 0)
open("/mnt/space", "w").close()
os.mkfifo("/mnt/fifo")
for processor in os.sched_getaffinity(0):
    # The kernel keeps a namespace by a mount of an older one only, and goes by numbers
    # that each processor gives out by itself: that of this namespace's own will do.
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(1)
        os.sched_setaffinity(0, {processor})
        assert libc.unshare(0x20000) == 0
        os.write(tell, b"x")
        time.sleep(1000)
    os.read(told, 1)
    source = f"/proc/{child}/ns/mnt".encode()
    done = libc.mount(source, b"/mnt/space", None, 0x1000, None)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if done == 0:
        break
assert done == 0
mount("/mnt/fifo", "/mnt/space", None, 0x1000)
"""


def inside_a_stranger_who_covers_a_namespace_that_he_keeps(users: Site, start: Start) -> None:
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    stranger = start(COVERED, *before, *OWN_SPACE, "private")
    users.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM, "what he hides holds the store"
    gone(users)


# More than can be looked at in the time: descriptors cost their owner nothing.
FULL = """
import resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
os.setresuid(65533, 65533, 65533)
for number in range(3, min(most, 300000)):
    os.dup2(0, number)
"""

# Who has it is never there for long: it has made another and ended.
HOPS = """
file = open({file!r}, "w")
if os.fork() == 0:
    os.close(1)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
    os._exit(0)
file.close()
"""


# The first thread ends, or looks harmless; what it has made has it.
THREAD = """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
def hold():
    {own}
    global file
    file = open({file!r}, "w")
    print(flush=True)
    time.sleep(1000)
threading.Thread(target=hold).start()
if {ends}:
    libc.syscall(ctypes.c_long(60))
time.sleep(1000)
"""
OWN_FILES = "assert libc.unshare(0x400) == 0"


def hurry(site: Site) -> None:
    """The time for a search is short, so that less is needed to use it up."""
    site.agent.write_text(
        AGENT.replace(
            "# more",
            "import asha.data.release.unmount; asha.data.release.unmount.SEARCH_SECONDS = 1.0",
        )
    )


@pytest.mark.parametrize("way", ["ended", "files", "namespace"])
def inside_what_one_thread_has(users: Site, start: Start, way: str) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("exit(2) is called by its number on x86_64")
    file = users.points[2] + "/still"
    own = {"files": OWN_FILES, "namespace": "assert libc.unshare(0x20000) == 0"}.get(way, "pass")
    code = THREAD.format(own=own, file=file, ends=way == "ended")
    process = start(code, *AS_USER, *OWN_SPACE, "private")
    refuses_without_force(users, process.pid)
    users.must("stop")
    process.wait(timeout=20)
    gone(users)


# Nothing is mounted and nothing is open: the file system itself is kept (fspick(2)).
CONTEXT = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
context = libc.syscall(ctypes.c_long(433), ctypes.c_long(-100), {point!r}.encode(),
                       ctypes.c_long(0))
assert context >= 0, os.strerror(ctypes.get_errno())
"""

# A detached mount, of which only the queue of a socket has a descriptor.
QUEUED = """
import array, socket
tree = detach({point!r})
left, right = socket.socketpair()
left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tree]))])
os.close(tree)
"""


@pytest.mark.parametrize("what", [CONTEXT, DETACH + QUEUED])
def inside_what_no_list_shows(users: Site, start: Start, what: str) -> None:
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    stranger = start(what.format(point=users.points[0]), *before, *OWN_SPACE, "slave")
    neighbour = start("import socket; pair = socket.socketpair()", *before)
    users.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM
    gone(users)
    assert neighbour.poll() is None


def inside_a_directory_that_lies_in_a_queue(users: Site, start: Start) -> None:
    """Of somebody who is no user of the data."""
    code = QUEUED.replace("detach(", "os.open(").replace("!r})", "!r}, os.O_RDONLY)")
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    stranger = start(code.format(point=users.points[0]), *before)
    users.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM
    gone(users)


# A file system of a user's that never answers, as fusermount3(1) mounts it for him.
FUSE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={{device}},rootmode=40000,user_id=65533,group_id=65533{more}"
done = libc.mount(b"evil", {point!r}.encode(), b"fuse", 6, options.encode())
assert done == 0, os.strerror(ctypes.get_errno())
"""


@pytest.mark.parametrize("more", ["", ",allow_other"])
@pytest.mark.parametrize("below", ["", "/sub"])
def inside_what_a_user_has_laid_over_a_place(
    shared: Site, start: Start, more: str, below: str
) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    place = shared.points[2] + below
    Path(place).mkdir(exist_ok=True)
    for _ in range(2):
        start(FUSE.format(point=place, more=more))
    assert "unmounts it" in shared.must("start")
    assert shared.bound() == shared.points
    assert shared.monitor()[0] == Exit.SUCCESS
    start(FUSE.format(point=shared.points[1], more=more))
    shared.must("stop")
    gone(shared)


@pytest.mark.parametrize("more", ["", ",allow_other"])
def inside_what_a_user_lays_over_a_place_while_it_runs(
    shared: Site, start: Start, more: str
) -> None:
    """No failure, or he could end all calls on one node after the other."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    shared.must("start")
    sub = Path(shared.points[1], "sub")
    sub.mkdir()
    start(FUSE.format(point=str(sub), more=more))
    for _ in range(2):
        start(FUSE.format(point=shared.points[0], more=more))
    before = len(mountinfo.read())
    shared.must("monitor")  # a probe, which changes nothing
    assert len(mountinfo.read()) == before
    said = shared.must("monitor", interval="10000")
    assert f"evil of uid 65533 is mounted on {shared.points[0]}: unmounts it" in said
    # What lies in a directory of his hides nothing that we have bound.
    assert [one.point for one in mountinfo.read() if one.user] == [str(sub)]
    assert "unmounts" not in shared.must("monitor", interval="10000")
    shared.must("stop")
    gone(shared)


# What root has made of a file in the store.


@pytest.mark.parametrize("where", ["place", "store", "copy"])
def inside_a_loop_device_on_a_file_of_the_store(site: Site, tmp_path: Path, where: str) -> None:
    site.must("start")
    point = site.points[2]
    image = Path(point, "image")
    image.write_bytes(bytes(1 << 20))
    folder = {"place": point, "store": f"{site.drbd}{point}", "copy": str(tmp_path / "copy")}[where]
    if where == "copy":
        Path(folder).mkdir()
        run("mount", "--bind", point, folder)
    made = subprocess.run(["losetup", "--find", "--show", f"{folder}/image"], check=True,
                          capture_output=True, text=True)
    loop = made.stdout.strip()
    try:
        before = time.monotonic()
        code, said = site.do("stop")
        assert code == Exit.ERR_GENERIC
        reason = Outcome(code, "", said).reason
        assert "is held by loop device" in reason
        assert f"losetup -d {loop}" in said
        assert time.monotonic() - before < 10
    finally:
        run("losetup", "--detach", loop)
    site.must("stop")
    run("umount", str(site.drbd))


# What a thread sleeps with is in no list once another has closed it, and an io_uring in none
# where it is only mapped, or only registered with itself.
THREADED = """
import threading
def asleep(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()
    time.sleep(0.3)
"""
SENDS = THREADED + """
out, into = os.pipe()
os.set_blocking(into, False)
try:
    while True:
        os.write(into, bytes(4096))
except BlockingIOError:
    os.set_blocking(into, True)
def send(file):
    asleep(os.sendfile, into, file, 0, 65536)
    os.close(file)
"""
URING = """
import ctypes, mmap, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    done = libc.syscall(*(ctypes.c_long(one) if isinstance(one, int) else one
                          for one in arguments))
    assert done >= 0, os.strerror(ctypes.get_errno())
    return done
ring = call(425, 8, ctypes.create_string_buffer(120))
def keep(file):
    call(427, ring, 2, (ctypes.c_int * 1)(file), 1)
    os.close(file)
"""
MAPPED = """
held = mmap.mmap(ring, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
os.closerange(3, 100)
"""
REGISTERED = """
call(427, ring, 20, ctypes.create_string_buffer(struct.pack("IIQ", 0xffffffff, 0, ring)), 1)
os.close(ring)
"""
ASLEEP = {
    "sends": SENDS + "send(os.open({point!r} + '/file', os.O_RDONLY))",
    "reads": THREADED + "fifo = os.open({point!r} + '/fifo', os.O_RDWR)\n"
    "asleep(os.read, fifo, 1)\nos.close(fifo)",
    "opens": THREADED + "asleep(os.open, {point!r} + '/fifo', os.O_RDONLY)",
    "ring": URING + "keep(os.open({point!r} + '/file', os.O_RDONLY))" + MAPPED,
    "registered": URING + "keep(os.open({point!r} + '/file', os.O_RDONLY))" + REGISTERED,
}


@pytest.fixture
def readable(users: Site) -> Site:
    """What any local user may read is in the store."""
    point = Path(users.points[0])
    point.chmod(0o755)
    (point / "file").write_bytes(bytes(65536))
    os.mkfifo(point / "fifo")
    (point / "fifo").chmod(0o666)
    return users


@pytest.mark.parametrize("how", ASLEEP)
def inside_a_stranger_whom_no_list_shows(readable: Site, start: Start, how: str) -> None:
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    stranger = start(ASLEEP[how].format(point=readable.points[0]), *before)
    bystander = start("", "setpriv", "--reuid=65532", "--regid=65532", "--clear-groups")
    code, said = readable.do("stop", force_unmount="false", CRM_meta_timeout="5000")
    assert code == Exit.ERR_GENERIC
    assert "no process is seen to use it" in said
    assert stranger.poll() is None
    readable.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM
    assert bystander.poll() is None
    gone(readable)


@pytest.mark.parametrize("how", ["sends", "ring"])
def inside_a_detached_mount_that_no_list_shows(readable: Site, start: Start, how: str) -> None:
    """No bind is busy for it: the disk is."""
    code = DETACH + ASLEEP[how].partition("os.open(")[0].rpartition("\n")[0] + """
tree = detach({point!r})
file = os.open("file", os.O_RDONLY, dir_fd=tree)
os.close(tree)
""" + {"sends": "send(file)", "ring": "keep(file)" + MAPPED}[how]
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    stranger = start(code.format(point=readable.points[0]), *before, *OWN_SPACE, "slave")
    bystander = start(THREADED + "read, write = os.pipe()\nasleep(os.read, read, 1)", *before)
    readable.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM
    assert bystander.poll() is None
    gone(readable)


def inside_a_program_of_roots_that_meets_a_fifo(readable: Site, start: Start) -> None:
    """As a backup does: the panel may put one where root reads."""
    program = start(ASLEEP["opens"].format(point=readable.points[0]))
    other = start(THREADED + "os.mkfifo({0!r})\nasleep(os.open, {0!r}, os.O_RDONLY)".format(
        str(readable.folder / "fifo")))
    readable.must("stop")
    assert program.wait(timeout=20) == -signal.SIGTERM
    assert other.poll() is None
    gone(readable)


# A file system on a directory of the store: what it lies on is in no list of mounts.
LAYERS = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
def done(code):
    assert code == 0, os.strerror(ctypes.get_errno())
done(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
for name in ("upper", "work", "all"):
    os.mkdir("/mnt/" + name)
options = "lowerdir=" + {point!r} + ",upperdir=/mnt/upper,workdir=/mnt/work,userxattr"
done(libc.mount(b"overlay", b"/mnt/all", b"overlay", 0, options.encode()))
"""
LAID = {
    "mounted": "",
    "kept": "os.open('/proc/self/ns/mnt', os.O_RDONLY)\ndone(libc.unshare(0x20000))\n"
    "done(libc.umount2(b'/mnt/all', 2))",
    "open": "file = open('/mnt/all/file')\ndone(libc.umount2(b'/mnt/all', 2))",
    "mapped": "file = open('/mnt/all/file')\n"
    "held = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)\nfile.close()\n"
    "os.closerange(3, 99)\ndone(libc.umount2(b'/mnt/all', 2))",
    "detached": DETACH + "tree = detach('/mnt/all')\ndone(libc.umount2(b'/mnt/all', 2))",
}


@pytest.mark.parametrize("how", LAID)
def inside_a_file_system_on_top_of_the_store(readable: Site, start: Start, how: str) -> None:
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", *OWN_SPACE, "slave")
    # Nobody's file is there: what all have mapped without one costs nobody anything.
    bystander = start("import mmap, ctypes\nshared = mmap.mmap(-1, 4096)\n"
                      "ctypes.CDLL(None).syscall(ctypes.c_long(206), ctypes.c_long(8),"
                      " ctypes.byref(ctypes.c_ulong(0)))\nmemory = os.memfd_create('x')", *before)
    stranger = start(LAYERS.format(point=readable.points[0]) + LAID[how], *before)
    readable.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM
    gone(readable)
    assert bystander.poll() is None


# A namespace ends, and a program that was begun in it keeps what it had below its root.
LEFT = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
"""


def inside_a_namespace_that_was_left(readable: Site, start: Start) -> None:
    before = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    bystanders = [start("", *before), start("", *before, *OWN_SPACE, "slave"),
                  start("", *SERVICE, *before)]
    stranger = start(LEFT, *before, *OWN_SPACE, "slave")
    readable.must("stop")
    assert stranger.wait(timeout=20) == -signal.SIGTERM
    gone(readable)
    assert [one.poll() for one in bystanders] == [None] * 3


def inside_open_files_without_end(users: Site, start: Start) -> None:
    hurry(users)
    holder = start(writer(users.points[2]), *AS_USER, *OWN_SPACE, "private")
    full = [start(FULL) for _ in range(4)]
    begun = time.monotonic()
    said = users.must("stop")
    assert time.monotonic() - begun < 15
    assert holder.wait(timeout=20) == -signal.SIGTERM
    # He holds nothing, but nobody could know.
    assert "is perhaps held by" in said
    assert {one.wait(timeout=20) for one in full} <= {-signal.SIGTERM, -signal.SIGKILL}
    gone(users)


def inside_a_holder_who_hops_from_process_to_process(users: Site, start: Start) -> None:
    start(HOPS.format(file=users.points[2] + "/still"), *AS_USER, *OWN_SPACE, "private")
    users.must("stop")
    gone(users)


@pytest.mark.parametrize("whose", ["root", "user"])
def inside_a_detached_mount(users: Site, start: Start, whose: str) -> None:
    code = f"{DETACH}\ntree = detach({users.points[2]!r})"
    # Out of the namespace it came from, where a user cannot be back; root never left.
    before = (*AS_USER, *OWN_SPACE, "private") if whose == "user" else ()
    process = start(code, *before)
    refuses_without_force(users, process.pid)
    users.must("stop")
    assert process.wait(timeout=20) == -signal.SIGTERM
    gone(users)


def inside_a_detached_mount_that_is_only_mapped(users: Site, start: Start) -> None:
    Path(users.points[2], "file").write_bytes(b"x" * 8192)
    code = f"""{DETACH}
import mmap
tree = detach({users.points[2]!r})
file = os.open("file", os.O_RDWR, dir_fd=tree)
held = mmap.mmap(file, 4096)
os.closerange(3, 100)
"""
    process = start(code)
    users.must("stop")
    assert process.wait(timeout=20) == -signal.SIGTERM
    gone(users)


def inside_a_descriptor_in_the_queue_of_a_socket(users: Site, start: Start) -> None:
    """In no list of what a process has open; the users of the data are ended for it."""
    code = f"""
import array, socket
left, right = socket.socketpair()
file = os.open({users.points[2] + '/hidden'!r}, os.O_CREAT | os.O_WRONLY)
passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
left.sendmsg([b"x"], [passed])
os.close(file)
"""
    process = start(code, *AS_USER)
    bystander = start("", "setpriv", "--reuid=65533", "--clear-groups", "--regid=65533")
    code_, said = users.do("stop", force_unmount="false")
    assert code_ == Exit.ERR_GENERIC
    assert "no process is seen to use it" in said
    assert process.poll() is None
    users.must("stop")
    assert process.wait(timeout=20) == -signal.SIGTERM
    assert bystander.poll() is None
    gone(users)


def inside_a_socket_that_is_bound_there(users: Site, start: Start) -> None:
    code = f"""
import socket
os.chdir({users.points[2]!r})
made = socket.socket(socket.AF_UNIX)
made.bind("here")
os.chdir("/")
"""
    process = start(code, *AS_USER)
    users.must("stop")
    assert process.wait(timeout=20) == -signal.SIGTERM
    gone(users)


def inside_a_namespace_that_only_a_descriptor_keeps(users: Site, start: Start) -> None:
    code = """
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    import ctypes
    libc = ctypes.CDLL(None)
    assert libc.unshare(0x20000) == 0
    assert libc.mount(None, b"/", None, 0x44000, None) == 0
    os.write(writer, b"x")
    time.sleep(1000)
os.read(reader, 1)
space = os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
    process = start(code)
    users.must("stop")
    gone(users)
    assert process.poll() is None, "what it kept was unmounted there"


# Of another user namespace, and nobody lives in it any more.
KEPT = """
import ctypes
libc = ctypes.CDLL(None)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    assert libc.unshare(0x10020000) == 0
    assert libc.mount(None, b"/", None, 0x44000, None) == 0
    os.write(writer, b"x")
    time.sleep(1000)
os.read(reader, 1)
space = os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


def inside_a_namespace_of_many_mounts_that_only_a_descriptor_keeps(
    users: Site, start: Start
) -> None:
    users.agent.write_text(AGENT.replace(
        "# more", "import asha.data.release.copies; asha.data.release.copies.FOREIGN_MOST = 100"))
    process = start(KEPT, "setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    users.must("stop")
    assert process.wait(timeout=20) == -signal.SIGTERM
    gone(users)


def inside_a_service_that_binds_a_directory_of_its_own(users: Site, start: Start) -> None:
    """ReadWritePaths= of systemd: the directory is mounted on itself, in a slave."""
    point = users.points[2]
    code = f"import subprocess; subprocess.run(['mount', '--bind', {point!r}, {point!r}])"
    service = start(code, *SERVICE)
    users.must("stop")
    gone(users)
    assert service.poll() is None


def inside_what_root_has_bound_elsewhere_is_unmounted(users: Site, tmp_path: Path) -> None:
    (tmp_path / "also").mkdir()
    run("mount", "--bind", f"{users.drbd}{users.points[0]}", str(tmp_path / "also"))
    code, said = users.do("stop", force_unmount="false")
    assert code == Exit.ERR_GENERIC
    assert f"is mounted on {tmp_path / 'also'} too: unmount it first" in said
    assert "unmounts it" in users.must("stop")
    gone(users)


def inside_a_quiet_stop_ends_nobody_and_takes_little(users: Site, start: Start) -> None:
    services = [start("", *SERVICE) for _ in range(5)]
    before = time.monotonic()
    users.must("stop")
    took = time.monotonic() - before
    print(f"stop: {took * 1000:.0f} ms")
    assert all(one.poll() is None for one in services)
    assert took < 5


# The store is root's alone, and so are the ways to it.


def inside_the_root_is_closed_and_closed_again(site: Site) -> None:
    site.drbd.chmod(0o755)
    site.must("start")
    assert stat.S_IMODE(site.drbd.stat().st_mode) == 0o700
    site.drbd.chmod(0o777)
    assert site.do("monitor")[0] == Exit.SUCCESS
    assert stat.S_IMODE(site.drbd.stat().st_mode) == 0o777, "a probe changes nothing"
    assert site.monitor() == (Exit.SUCCESS, "")
    assert stat.S_IMODE(site.drbd.stat().st_mode) == 0o700
    site.drbd.chmod(0o755)
    os.chown(site.drbd, USER, USER)
    site.must("start")
    about = site.drbd.stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (0, 0o700)


def inside_directories_above_an_item_become_roots(site: Site) -> None:
    above = Path(f"{site.drbd}{site.points[0]}").parent
    above.chmod(0o777)
    os.chown(above, USER, USER)
    mode = Path(site.drbd, site.points[0].lstrip("/")).stat().st_mode
    site.must("start")
    assert (above.stat().st_uid, stat.S_IMODE(above.stat().st_mode)) == (0, 0o755)
    assert Path(site.points[0]).stat().st_mode == mode


def inside_no_rights_and_no_devices(site: Site) -> None:
    """Also where the store itself is mounted without, or without links."""
    run("mount", "-o", "remount,bind,nosymfollow", str(site.drbd))
    site.must("start")
    Path(site.points[0], "data").write_text("x")
    os.mknod(f"{site.points[0]}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.symlink("data", f"{site.points[0]}/link")
    assert Path(site.points[0], "link").read_text() == "x"
    with pytest.raises(PermissionError):
        os.open(f"{site.points[0]}/null", os.O_RDONLY)
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = mount.split(" ")
        if fields[4] in site.points:
            assert {"nosuid", "nodev"} <= set(fields[5].split(","))


def inside_a_link_in_the_place_is_not_followed(site: Site, tmp_path: Path) -> None:
    point, target = Path(site.points[3]), tmp_path / "system"
    target.mkdir()
    os.chown(point.parent, USER, USER)
    point.rmdir()
    point.symlink_to(target)
    said = site.must("start")
    assert f"{point} is left out" in said
    assert [mount.point for mount in mountinfo.read()].count(str(target)) == 0
    assert f"--name asha-data-warning --update {point} is left out" in site.attributes()[0]
    site.monitor()
    site.must("stop")
    assert "--name asha-data-warning --delete" in site.attributes()


@pytest.mark.parametrize("optional", [False, True])
def inside_another_name_in_the_store(site: Site, optional: bool) -> None:
    """Renamed by somebody below it: what is shown is the same."""
    if optional:
        site.parameters["paths"] = " ".join([*site.points[:3], site.points[3] + "?"])
    site.must("start")
    stored = Path(f"{site.drbd}{site.points[3]}")
    stored.rename(stored.with_name("moved"))
    code, reason = site.monitor()
    assert code == Exit.DEGRADED
    assert reason.startswith(f"{site.points[3]} is not bound as it was")
    site.must("stop")
    assert site.bound() == []


def inside_an_optional_one_that_is_gone_is_degraded(site: Site) -> None:
    site.parameters["paths"] = " ".join([*site.points[:3], site.points[3] + "?"])
    site.must("start")
    run("umount", site.points[3])
    code, reason = site.monitor()
    assert code == Exit.DEGRADED
    assert reason.startswith(f"{site.points[3]} is not bound")
    site.must("start")
    assert site.monitor() == (Exit.SUCCESS, "")


def inside_a_place_that_is_swapped_while_it_stops(started: Site) -> None:
    """What lies on ours is unmounted where the table says, not where a link leads."""
    inner, elsewhere = Path(started.points[0], "inner"), Path(started.folder, "elsewhere")
    for folder in (inner / "disk", elsewhere / "disk"):
        folder.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "tmpfs", str(folder))
    inner.rename(inner.with_name("away"))
    inner.symlink_to(elsewhere)
    started.must("stop")
    assert started.bound() == []
    assert os.path.ismount(elsewhere / "disk")


def inside_what_is_mounted_in_the_store_later_does_not_show(shared: Site) -> None:
    shared.must("start")
    inner = Path(shared.points[0], "inner")
    inner.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", f"{shared.drbd}{inner}")
    assert [mount.point for mount in mountinfo.read()].count(str(inner)) == 0
    shared.must("stop")


# Databases, at the path where the programs see them.


def inside_a_database_with_a_journal_is_rolled_back_by_its_owner(site: Site) -> None:
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/opt")
    crashed, stored = Path("/opt/crashed"), Path(f"{site.drbd}/opt/sark/db")
    for folder in (Path("/opt/sark/db"), crashed, stored):
        folder.mkdir(parents=True)
    for folder in (crashed, stored):
        os.chown(folder, 65534, 65534)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        link = sqlite3.connect(crashed / "sark.db", isolation_level=None)
        link.execute("PRAGMA cache_size=5")
        link.execute("CREATE TABLE t (b)")
        link.execute("BEGIN")
        link.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(300)])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert sorted(os.listdir(crashed)) == ["sark.db", "sark.db-journal"]
    for name in os.listdir(crashed):
        shutil.copy(crashed / name, stored)
        os.chown(stored / name, 65534, 65534)
    code, said = site.do("start", paths="/opt/sark/db")
    assert code == Exit.SUCCESS
    assert "WARNING" not in said
    assert os.listdir("/opt/sark/db") == ["sark.db"]
    assert os.stat("/opt/sark/db/sark.db").st_uid == 65534
    assert site.do("stop", paths="/opt/sark/db")[0] == Exit.SUCCESS


# Kills.


def kill_half_way(site: Site, action: str, takes: float, dice: random.Random) -> None:
    """SIGKILL to the agent, or to all of its children too, as Pacemaker does; at any moment of
    what it ``takes``, or a little later."""
    process = site.begin(action)
    time.sleep(dice.uniform(0, takes * 1.2))
    with_children = dice.random() < 0.5
    (os.killpg if with_children else os.kill)(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def duration(site: Site, action: str) -> float:
    before = time.monotonic()
    site.must(action)
    return time.monotonic() - before


@pytest.mark.parametrize("action", ["start", "stop"])
def inside_killed(site: Site, action: str) -> None:
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    takes = {"start": duration(site, "start"), "stop": duration(site, "stop")}
    seen: set[int] = set()
    for turn in itertools.count():
        if (turn >= KILLS and len(seen) > 1) or turn == PATIENCE * KILLS:
            break
        told = f"seed {seed}, turn {turn}"
        site.must("start" if action == "stop" else "stop")
        kill_half_way(site, action, takes[action], dice)
        # A child that outlived its agent is still at work; the next action waits.
        following = dice.choice(["start", "stop"])
        code, said = site.do("monitor")
        assert code in (Exit.SUCCESS, Exit.ERR_GENERIC, Exit.NOT_RUNNING), f"{told}: {said}"
        seen.add(code)
        code, said = site.do(following)
        assert code == Exit.SUCCESS, f"{told}: {following}: {said}"
        wanted = site.points if following == "start" else []
        assert site.bound() == wanted, f"{told}: {following}"
        code, said = site.do("monitor")
        assert code == (Exit.SUCCESS if wanted else Exit.NOT_RUNNING), f"{told}: {said}"
    assert len(seen) > 1, "the kills came at moments that differ"


@pytest.mark.parametrize("name", [name for name in globals() if name.startswith("inside_")])
def test_in_a_mount_namespace(name: str, common: Path) -> None:
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-o", "python_functions=inside_*",
               f"--basetemp={common / 't'}"]
    outer = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "pytest", *options, f"{Path(__file__)}::{name}"],
        cwd=REPOSITORY,
        env={**outer, INSIDE: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)
    if " passed" not in done.stdout:
        pytest.skip(done.stdout.strip().splitlines()[-2])
