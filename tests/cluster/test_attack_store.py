"""What users of the PBX can do to the store and its places: nobody becomes root by it, and
the telephones run on, here and on the other node.

Attacked as www-data and asterisk, as their own programs could. Some states are made by
root, as an older version let them be made: the store was open then.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from asha.agents.sark_data import WARNING_ATTRIBUTE
from asha.data import PATHS
from tests.cluster import single
from tests.conftest import lab_or_skip
from tests.lab import Node, wait_for
from tests.lab.cluster import Cluster

ITEM = "/opt/sark/www/origrecs"
ABOVE = "/opt/sark/www"
SYSTEM = "/etc/systemd/system"
SPOOL = "/var/spool/asterisk"
STORE = "/drbd"

PANEL = ("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups")
PBX = ("setpriv", "--reuid=asterisk", "--regid=asterisk", "--clear-groups")

# What www-data puts where the item was; "$1" is its path.
KINDS = {
    "link": f'ln -s {SYSTEM} "$1"',
    "dangling-link": 'ln -s /no/such/place "$1"',
    "link-to-itself": 'ln -s origrecs "$1"',
    "link-into-the-store": f'ln -s {STORE}/etc/asterisk "$1"',
    "fifo": 'mkfifo "$1"',
    "file": 'echo x > "$1"',
    "hard-link": 'echo x > "$1.x"; ln "$1.x" "$1"',
    "socket": """cd "${1%/*}" && python3 -c 'import socket; socket.socket(1).bind("origrecs")'""",
    "other-directory": 'mkdir -p "$1/bait" && echo x > "$1/bait/evil.service"',
    "nothing": "true",
}

# Names that no terminal and no decoder likes.
NAMES = r"""
import os, sys
for name in (b"two\nlines", b"\x1b]0;title\x07\x1b[2J", b"\xe9\xff latin", b"-rf", b" x (deleted)"):
    open(os.path.join(os.fsencode(sys.argv[1]), name), "w").write("x")
"""

HELD_BY_NAME = """
import os, sys, time
held = [open(os.path.join(os.fsencode(sys.argv[1]), name)) for name in os.listdir(
    os.fsencode(sys.argv[1])) if name.startswith((b"two", b"\\x1b", b"\\xe9"))]
assert len(held) == 3
print("ready", flush=True)
time.sleep(1000)
"""

WRITE_ON = """
import sys
print("ready", flush=True)
while True:
    open(sys.argv[1] + "/still", "a").write("x")
"""

# open_tree(2) with OPEN_TREE_CLONE: a mount that is mounted nowhere.
DETACHED = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
tree = libc.syscall(ctypes.c_long(428), ctypes.c_long(-100), sys.argv[1].encode(),
                    ctypes.c_long(1))
assert tree >= 0, os.strerror(ctypes.get_errno())
print("ready", flush=True)
while True:
    file = os.open("still", os.O_CREAT | os.O_WRONLY | os.O_APPEND, dir_fd=tree)
    os.write(file, b"x")
    os.close(file)
"""

QUEUED = """
import array, os, socket, sys, time
left, right = socket.socketpair()
file = os.open(sys.argv[1] + "/still", os.O_CREAT | os.O_WRONLY)
left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
os.close(file)
print("ready", flush=True)
time.sleep(1000)
"""

BOUND_SOCKET = """
import os, socket, sys, time
os.chdir(sys.argv[1])
made = socket.socket(socket.AF_UNIX)
made.bind("still.socket")
os.chdir("/")
print("ready", flush=True)
time.sleep(1000)
"""

# More than can be looked at in the time of a stop: copies of a descriptor cost nothing.
FULL = """
import os, resource, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
for _ in range(4000000 // min(most, 500000)):
    if os.fork() == 0:
        break
null = os.open("/dev/null", os.O_RDONLY)
for number in range(null + 1, min(most, 500000)):
    os.dup2(null, number)
print("ready", flush=True)
time.sleep(1000)
"""

# One after the other has it, none for long. It gives up after two minutes.
HOPS = """
import os, sys, time
file = open(sys.argv[1] + "/still", "a")
print("ready", flush=True)
if os.fork() == 0:
    os.closerange(0, 3)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
    os._exit(0)
file.close()
time.sleep(1000)
"""

OWN_SPACE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation")

SERVICE = ("systemd-run", "--quiet", "--pipe", "-p", "PrivateMounts=yes", "-p",
           "MountFlags=private", "-p", "User=asterisk")

# Programs that keep the disk, each as its user starts it: what can be found, and what
# cannot, so that all processes of the users of the data are ended for it.
HOLDERS = {
    "seen": (
        (*PBX, *OWN_SPACE, "private", "python3", "-c", WRITE_ON, SPOOL),
        (*PBX, *OWN_SPACE, "private", "python3", "-c", DETACHED, SPOOL),
        ("unshare", "--mount", "--propagation", "private", *PBX, "python3", "-c", WRITE_ON, SPOOL),
        (*SERVICE, "python3", "-c", WRITE_ON, SPOOL),
        (*PBX, "python3", "-c", HELD_BY_NAME, SPOOL),
    ),
    "hidden": (
        (*PBX, "python3", "-c", QUEUED, SPOOL),
        (*PBX, "python3", "-c", BOUND_SOCKET, SPOOL),
    ),
    "crowd": (
        ("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "python3", "-c", FULL),
        (*PBX, *OWN_SPACE, "private", "python3", "-c", HOPS, SPOOL),
        (*PBX, "python3", "-c", HOPS, SPOOL),
    ),
}


@dataclass
class Scene:
    cluster: Cluster

    def switch(self) -> Node:
        """To the other node, by standby; returns the one that is active then."""
        source, target = self.cluster.active(), self.cluster.passive()
        self.cluster.standby(source)
        self.cluster.wait_ready(target.name)
        self.cluster.online(source)
        self.cluster.wait_settled()
        return target

    def require_well(self) -> None:
        """Every invariant, and no action that failed."""
        assert self.cluster.audit() == []
        assert self.cluster.state().failures == []


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.load()
        yield Scene(cluster)


@pytest.fixture
def mended(scene: Scene) -> Iterator[Scene]:
    """Leaves the places as they were: www-data's, and so left out."""
    yield scene
    for node in scene.cluster.lab.nodes.values():
        node.run("sh", "-c", f"rm -rf {ITEM} {ITEM}.x; mkdir -p {ITEM};"
                 f" chown -R www-data:www-data {ABOVE}; chmod 755 {ABOVE}")
    store = f"{STORE}{ITEM}"
    scene.cluster.active().run(
        "sh", "-c", f"rm -rf {store} {store}.x; mkdir -p {store}; chown www-data {store}"
    )


def put(node: Node, place: str, kind: str, *user: str) -> None:
    """Instead of what is there."""
    script = f'rm -rf "$1" "$1.x"; {KINDS[kind]}'
    node.run(*user, "sh", "-c", script, "sh", place)


def data(node: Node, action: str, **parameters: str) -> tuple[int, str]:
    """What the agent says, asked by hand."""
    done = single.call(node, "sark-data", action, {"paths": " ".join(PATHS.split()), **parameters},
                       check_level=10, probe=True)
    return done.code, done.err


def mounted_at(node: Node, point: str) -> list[str]:
    table = node.path("/proc/1/mountinfo").read_text().splitlines()
    return [line for line in table if line.split(" ")[4] == point]


def warning(node: Node) -> str:
    said = node.run("attrd_updater", "--query", "--name", WARNING_ATTRIBUTE, "--node", node.name,
                    check=False).out
    return said.partition("value=")[2].strip().strip('"')


def test_the_store_is_roots_alone(scene: Scene) -> None:
    node = scene.cluster.active()
    assert node.run("stat", "-c", "%U %a", STORE).out.strip() == "root 700"
    for user in (PANEL, PBX):
        for path in (f"{STORE}{ITEM}", f"{STORE}{SPOOL}", f"{STORE}/.asha"):
            assert not node.run(*user, "ls", path, check=False).ok
            assert not node.run(*user, "mv", path, f"{path}.x", check=False).ok
    for line in node.path("/proc/1/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if "/dev/drbd0" in fields:
            assert {"nosuid", "nodev"} <= set(fields[5].split(",")), line


def test_a_place_that_the_panel_can_replace_is_told_and_left_out(scene: Scene) -> None:
    node = scene.cluster.active()
    assert mounted_at(node, ITEM) == []
    wait_for(lambda: f"{ITEM} is left out" in warning(node), "the warning to be told", timeout=60)
    assert f"chown root:root {ABOVE} && chmod go-w {ABOVE}" in warning(node)
    scene.require_well()


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_of_a_place_is_a_refusal(mended: Scene, kind: str) -> None:
    """Of the place on the node, then of the data in the store."""
    node = mended.cluster.active()
    put(node, ITEM, kind, *PANEL)
    for action in ("validate-all", "monitor"):
        code, said = data(node, action)
        assert code == 0, said
    # And where the place is root's, and the data in the store is not what it was.
    node.run("sh", "-c", f"rm -rf {ITEM}; mkdir -p {ITEM}; chown root:root {ABOVE}")
    put(node, f"{STORE}{ITEM}", kind)
    code, said = data(node, "validate-all")
    assert code == 0, said
    # Degraded at most: now it could be bound. (By hand it has no memory of the start.)
    code, said = data(node, "monitor")
    assert code == (190 if kind == "other-directory" else 0), said
    required = " ".join(PATHS.split()).replace(f"{ITEM}?", ITEM)
    code, said = data(node, "validate-all", paths=required)
    assert code == (0 if kind == "other-directory" else 1), said


def test_the_panel_swaps_its_directory_and_the_node_is_switched(mended: Scene) -> None:
    cluster = mended.cluster
    stored = cluster.write_data()
    source, target = cluster.active(), cluster.passive()
    bait = f"{ITEM}/asha-bait.service"
    source.run(*PANEL, "sh", "-c", f"echo '[Service]' > {bait}")
    put(target, ITEM, "link", *PANEL)
    put(source, ITEM, "link", *PANEL)
    assert data(source, "monitor")[0] == 0
    assert mended.switch() is target
    mended.require_well()
    assert cluster.lost_data(stored) == []
    for node in (source, target):
        assert mounted_at(node, SYSTEM) == []
        assert not node.path(f"{SYSTEM}/asha-bait.service").exists()
    assert f"{ITEM} is left out" in warning(target)


@pytest.mark.parametrize("how", HOLDERS)
def test_who_keeps_the_disk_does_not_keep_the_telephones(scene: Scene, how: str) -> None:
    cluster = scene.cluster
    source = cluster.active()
    stored = cluster.write_data()
    source.run(*PBX, "python3", "-c", NAMES, SPOOL)
    attackers = [source.start(*argv) for argv in HOLDERS[how]]
    try:
        for one in attackers:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n", one.communicate()
        target = scene.switch()
        assert target is not source
        scene.require_well()
        assert cluster.lost_data(stored) == []
        # The audit has seen the disk on one node only: nothing writes to the other's.
        def ended(one: subprocess.Popen[str]) -> bool:
            # nsenter(1) halts when its child does, and no process of the node can wake it.
            one.send_signal(signal.SIGCONT)
            return one.poll() is not None

        wait_for(lambda: all(map(ended, attackers)), "the attackers to be ended")
        assert not mounted_at(source, SPOOL)
    finally:
        for one in attackers:
            one.kill()
            one.communicate()
    log = source.run("journalctl", "--quiet", "-t", "sark-data", "-o", "cat", "-n", "50").out
    assert "sends it SIGTERM" in log
    assert "\x1b" not in log


def test_a_link_in_the_store_of_an_older_version(mended: Scene) -> None:
    """The place is root's by now: only the disk has what the panel left there."""
    cluster = mended.cluster
    source = cluster.active()
    for node in cluster.lab.nodes.values():
        node.run("chown", "root:root", ABOVE)
    source.run("chown", "www-data", f"{STORE}{ABOVE}")
    put(source, f"{STORE}{ITEM}", "link")
    target = mended.switch()
    mended.require_well()
    assert mounted_at(target, ITEM) == mounted_at(target, SYSTEM) == []
    assert f"{STORE}{ITEM} is a symbolic link or something else" in warning(target)
    put(target, f"{STORE}{ITEM}", "other-directory")
    code, said = data(target, "validate-all")
    assert (code, "is left out" in said) == (0, False), said
