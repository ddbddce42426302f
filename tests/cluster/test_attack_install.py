"""Users of the PBX race root while it installs: nothing of root's changes, nothing is read.

First the single races, many tries each, with the installer's own functions on a real
customer's box: `asha install` takes too long for that. Then whole installs. The attackers
are processes of asterisk's and of the panel's, outside the services, that outlive their
stop.

The same tests at 0da03a0: files of root's made through the store in 54 of 60 copies; a
file of root's changed in 60 of 60 hand-overs (with FIFOs one of two runs never ended),
and in 20 of 600 writes of manager.conf, with what only root may read in it 62 times; a
FIFO held the reader for ever, /dev/zero and a huge file ended it with MemoryError.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.cluster import customer
from tests.cluster.customer import FIRST, INSTALL_SECONDS
from tests.conftest import lab_or_skip
from tests.lab import Lab, Node, wait_for, wait_steady
from tests.lab.cluster import Cluster
from tests.lab.package import build_package

# What only root can read, and where it lies.
SENTINEL = "for-root-alone-7c1e"
SECRETS = "/etc/asha-attack"
TRIES = 60
DRIVER_SECONDS = 150.0

# Run as root in the node, with the product as it is installed there.
DRIVER = r'''
import json, os, resource, subprocess, sys, time
from asha.bootstrap.host import data_directories, services
from asha.bootstrap.steps import asterisk, data
from asha.bootstrap.takeover import state, takeover
from asha.cluster.site import site_of
from asha.machine import Machine

RACE, TRIES, SENTINEL = sys.argv[1], int(sys.argv[2]), sys.argv[3]
VICTIM = "/etc/asha-attack/victim"
machine = Machine()
site = site_of({"PRIMARY": "false", "CLUSTERIP": "192.168.1.90", "ANODENAME": "crm1",
    "ANODEIP": "10.0.3.251", "BNODENAME": "crm2", "BNODEIP": "10.0.3.252",
    "DRBDDEV": "/dev/sda5", "IP": "10.0.3.252"})
hits, refused, done = [], 0, 0
quiet = lambda text: None

def about(path):
    one = os.stat(path)
    with open(path) as file:
        return (one.st_uid, one.st_gid, one.st_mode, one.st_ctime_ns, file.read())

def spills(top):
    """Files with what only root can read, and that root does not own."""
    found = subprocess.run(["grep", "-rlsF", "--devices=skip", SENTINEL, top],
                           capture_output=True, text=True).stdout.split()
    return [path for path in found if os.lstat(path).st_uid or os.lstat(path).st_mode & 4]

def copying():
    data_directories.PATHS = "/var/spool/race:asterisk"
    data.first_pass(machine, quiet)

def moving():
    data_directories.PATHS = "/var/log/asterisk:asterisk"
    takeover.take_over(machine, site, quiet)
    takeover.recover(machine, quiet)

def account():
    from asha.cluster.secret import Secret
    from asha.rootwork import Directory

    with Directory.trusted("/etc/asterisk") as here:
        asterisk.add_account(here, Secret(bytes(32)), quiet)

before = about(VICTIM)
if RACE == "moving":
    services.require_quiet = lambda *more, **named: None
    services.stop_cluster = lambda *more: None
if RACE == "poison":
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
work = {"copying": copying, "moving": moving, "account": account, "poison": account}[RACE]
for number in range(TRIES):
    if RACE == "moving":
        state.save(machine, state.Record(owner=(*state.owner(), state.boot_id(machine))))
    try:
        work()
        done += 1
    except Exception as problem:
        refused += 1
        last = repr(problem)[:300]
        if RACE == "moving":
            takeover.recover(machine, quiet)
    if about(VICTIM) != before:
        hits.append("a file of root's was changed")
        before = about(VICTIM)
    if os.path.exists("/etc/asha-attack/zz"):
        hits.append("a file was made in a directory of root's")
        os.unlink("/etc/asha-attack/zz")
    if RACE == "copying":
        hits += spills("/drbd")
    if RACE in ("account", "poison"):
        hits += spills("/etc/asterisk")
print(json.dumps({"hits": hits, "refused": refused, "done": done, "last": globals().get("last")}))
'''

# Run as the user whose directories these are. They never end by themselves.
EXCHANGE = r'''
import ctypes, os, shutil, sys, time
libc = ctypes.CDLL(None)
def exchange(a, b):
    return libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2)
def attempt(work, *more, **named):
    try:
        return work(*more, **named)
    except OSError:
        return None
'''

# While root's rsync writes the large file, the directory beside becomes a link (the store);
# a directory and a link to root's own change names all the time (the source).
COPYING = EXCHANGE + r'''
top, copied = "/var/spool/race", "/drbd/var/spool/race"
os.makedirs(f"{top}/d", exist_ok=True)
os.makedirs(f"{top}/sub", exist_ok=True)
os.symlink("/etc/asha-attack", f"{top}/e")
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
n = 0
while True:
    n += 1
    with open(f"{top}/sub/aa", "wb") as big:
        big.write(b"%08d" % n * (1 << 20))
    with open(f"{top}/sub/zz", "w") as small:
        small.write(str(n))
    for own in ("d", "e"):
        if not os.path.islink(f"{top}/{own}"):
            attempt(write, f"{top}/{own}/secret", f"{n:019}\n")
    end = time.monotonic() + 0.15
    while time.monotonic() < end:
        for _ in range(50):
            exchange(f"{top}/d", f"{top}/e")
        if attempt(os.stat, f"{copied}/sub/aa") and not os.path.islink(f"{copied}/sub"):
            attempt(os.rename, f"{copied}/sub", f"{copied}/sub{n}")
            attempt(os.symlink, "/etc/asha-attack", f"{copied}/sub")
'''

# Every name of a log that root may make next is a link to root's file; and what is to be
# taken away again becomes a link, a FIFO or a directory.
MOVING = EXCHANGE + r'''
top = "/var/log/asterisk"
names = [f"log{n:03}" for n in range(200)]
for name in names:
    open(f"{top}/{name}", "a").close()
n = 0
while True:
    n += 1
    for name in (names[199], names[198], names[100]):
        attempt(os.symlink, "/etc/asha-attack/victim", f"{top}/{name}")
    if sys.argv[1] == "FIFOs" and os.path.islink(f"{top}/{names[199]}") and n % 3 == 0:
        attempt(os.unlink, f"{top}/{names[100]}")
        attempt(os.mkfifo, f"{top}/{names[100]}")
'''

# manager.conf without our line, then a link to root's file, and again.
ACCOUNT = EXCHANGE + r'''
top = "/etc/asterisk"
with open(f"{top}/manager.conf") as file:
    text = file.read()
n = 0
while True:
    n += 1
    with open(f"{top}/m", "w") as plain:
        plain.write(text)
    os.rename(f"{top}/m", f"{top}/manager.conf")
    end = time.monotonic() + 0.0005 * (n % 7)
    while time.monotonic() < end:
        pass
    attempt(os.symlink, "/etc/asha-attack/victim", f"{top}/l")
    os.rename(f"{top}/l", f"{top}/manager.conf")
    attempt(os.unlink, f"{top}/.manager.conf.asha-new")
    attempt(os.symlink, "/etc/asha-attack/victim", f"{top}/.manager.conf.asha-new")
    end = time.monotonic() + 0.0005 * (n % 5)
    while time.monotonic() < end:
        pass
'''

# Everything at once, in all that the user owns: during a whole install. It gives way only
# for the live data once the services stop, where "polite", so that the install can end.
ALL = EXCHANGE + r'''
user, polite = sys.argv[1], sys.argv[2] == "polite"
places = {"asterisk": ["/etc/asterisk", "/var/lib/asterisk", "/var/spool/asterisk",
                       "/var/log/asterisk"],
          "www-data": ["/opt/sark/db", "/opt/sark/media", "/opt/sark/www"]}[user]
def is_up():
    return os.path.exists("/run/asterisk/asterisk.ctl")
def prepare(top):
    for name in ("d", "f"):
        attempt(os.makedirs, f"{top}/race-{name}")
    for name in ("shadow", "secret"):
        if attempt(os.lstat, f"{top}/race-d/{name}") is None:
            with open(f"{top}/race-d/{name}", "w") as own:
                own.write("x" * 20)
    for target, name in (("/etc", "e"), ("/etc/asha-attack", "g")):
        attempt(os.symlink, target, f"{top}/race-{name}")
def once(top):
    exchange(f"{top}/race-d", f"{top}/race-e")
    exchange(f"{top}/race-f", f"{top}/race-g")
for top in places:
    attempt(prepare, top)
while True:
    for top in places:
        if is_up() or not polite:
            for _ in range(50):
                once(top)
        # The copy, should it be in reach; and the stand-ins.
        if attempt(os.listdir, f"/drbd{top}") is not None:
            attempt(prepare, f"/drbd{top}")
            once(f"/drbd{top}")
        for name in ("messages", "full", "queue_log"):
            if not is_up():
                attempt(os.symlink, "/etc/shadow", f"/var/log/asterisk/{name}")
        if user == "www-data":
            attempt(os.rename, "/opt/sark/www/origrecs", "/opt/sark/www/x")
            attempt(os.symlink, "/etc/systemd/system", "/opt/sark/www/origrecs")
'''


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_or_skip("crm1", customer=True) as lab:
        node = lab.node("crm1")
        customer.preseed(node, FIRST)
        customer.install_package(node, build_package(lab.release, print))
        node.run("install", "-d", "-m", "755", SECRETS)
        for name in ("secret", "victim"):
            node.write(f"{SECRETS}/{name}", f"{SENTINEL}\n", mode=0o600)
        node.write("/root/driver", DRIVER)
        yield lab


class Attacker:
    """A process of that user's outside every service, which no stop of them ends."""

    def __init__(self, node: Node, user: str, code: str, *words: str) -> None:
        self.node = node
        self.unit = f"attacker-{user}"
        node.write(f"/usr/local/lib/{self.unit}", code)
        node.run("systemd-run", "--quiet", f"--unit={self.unit}", f"--uid={user}",
                 "/usr/bin/python3", f"/usr/local/lib/{self.unit}", *words)

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.node.run("systemctl", "stop", self.unit, check=False)
        self.node.run("systemctl", "reset-failed", self.unit, check=False)

    def require_at_work(self) -> None:
        assert self.node.run("systemctl", "is-active", self.unit, check=False).ok, \
            self.node.run("journalctl", "--no-pager", "-u", self.unit).out


def drive(node: Node, race: str, tries: int) -> dict[str, object]:
    said = node.run("python3", "/root/driver", race, str(tries), SENTINEL,
                    timeout=DRIVER_SECONDS)
    found: dict[str, object] = json.loads(said.out.splitlines()[-1])
    print(race, found)
    return found


@pytest.fixture
def stopped(lab: Lab) -> Iterator[Node]:
    """The box with Asterisk stopped; as it was when the test ends."""
    node = lab.node("crm1")
    node.run("systemctl", "stop", "asterisk")
    node.run("cp", "-a", "/etc/asterisk", "/root/kept")
    yield node
    node.run("rm", "-rf", "/etc/asterisk")
    node.run("mv", "/root/kept", "/etc/asterisk")
    node.run("sh", "-c", "rm -rf /var/log/asterisk/log* /var/log/asterisk.asha* "
             "/var/spool/race /var/lib/asha/copy.json /etc/asha/cluster-owns-services")
    node.run("systemctl", "reset-failed", "asterisk", check=False)
    node.run("systemctl", "start", "asterisk")


def test_the_copy(stopped: Node) -> None:
    """Names swapped in the live data and in the store, while rsync goes through them."""
    node = stopped
    node.run("install", "-d", "-o", "asterisk", "-g", "asterisk", "/var/spool/race")
    # The store, as far as the installer can tell; open to all when it comes.
    node.run("mkdir", "-p", "/drbd")
    node.run("mount", "-t", "tmpfs", "-o", "mode=755", "/dev/drbd0", "/drbd")
    try:
        with Attacker(node, "asterisk", COPYING) as attacker:
            found = drive(node, "copying", TRIES)
            attacker.require_at_work()
    finally:
        node.run("umount", "/drbd")
    assert found["hits"] == []
    assert found["done"] == TRIES


@pytest.mark.parametrize("what", ["links", "FIFOs"])
def test_the_hand_over_and_the_way_back(stopped: Node, what: str) -> None:
    """Put where root makes the stand-in's logs, and where it takes them away again."""
    with Attacker(stopped, "asterisk", MOVING, what) as attacker:
        wait_for(lambda: stopped.path("/var/log/asterisk/log199").exists(), "the attacker's logs")
        found = drive(stopped, "moving", TRIES)
        attacker.require_at_work()
    assert found["hits"] == []
    assert found["done"] == TRIES
    assert stopped.path("/var/log/asterisk/cdr-csv/Master.csv").exists()


def test_the_monitors_account_where_asterisk_writes(stopped: Node) -> None:
    """As `asha secret rotate` writes it: into the live directory."""
    with Attacker(stopped, "asterisk", ACCOUNT) as attacker:
        found = drive(stopped, "account", 10 * TRIES)
        attacker.require_at_work()
    assert found["hits"] == []
    assert found["refused"] != 0
    assert found["done"] != 0


@pytest.mark.parametrize(
    "poison",
    ["mkfifo x.conf", "ln -s /dev/zero x.conf", "truncate -s 1T x.conf", "mkdir x.conf",
     "ln -s /etc/asha-attack/secret x.conf", "ln -s x.conf x.conf",
     "echo '#include x.conf' >x.conf; echo '#include x*.conf' >>x.conf",
     "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"x.conf\")'",
     "for n in $(seq 5000); do echo '#include x*.conf' >x$n.conf; done; cp x1.conf x.conf"],
)
def test_what_managers_file_includes_has_an_end(stopped: Node, poison: str) -> None:
    stopped.run("runuser", "-u", "asterisk", "--", "sh", "-c", f"cd /etc/asterisk && {poison} && "
                "echo '#include x.conf' >>manager.conf", timeout=60)
    begun = time.monotonic()
    found = drive(stopped, "poison", 1)
    assert time.monotonic() - begun < 20
    assert (found["hits"], found["done"]) == ([], 1)
    assert "#include asha_manager.conf" in stopped.path("/etc/asterisk/manager.conf").read_text()


def roots_files(node: Node) -> dict[str, str]:
    """Of all that is root's: path to kind, owner, mode and contents."""
    tops = ("/etc", "/root", "/usr")
    listed = node.run("find", *tops, "-xdev", "-path", "/etc/asterisk*", "-prune", "-o",
                      "-path", "/usr/share/asterisk*", "-prune", "-o",
                      "-printf", "%p\\t%y %U:%G %m\\n", timeout=120).out
    found = dict(line.split("\t", 1) for line in listed.splitlines())
    sums = node.run("sh", "-c", "find /etc /root /usr -xdev -type f -not -path '/etc/asterisk*' "
                    "-not -path '/usr/share/asterisk*' -exec sha1sum {} +", timeout=120).out
    for line in sums.splitlines():
        checksum, path = line.split(None, 1)
        found[path] = f"{found.get(path, '')} {checksum}"
    return found


# What an install makes or changes there; see test_install.py for how little that is.
INSTALLS = ("/etc/asha/", "/etc/corosync", "/etc/drbd.d", "/etc/network", "/etc/systemd/system",
            "/etc/hosts", "/etc/fail2ban", "/etc/rc", "/etc/sysctl.d", "/etc/default",
            "/etc/nftables", "/etc/shorewall", "/etc/logrotate", "/usr/local/lib/att",
            # crmsh's own.
            "/root/.cache", "/root/.config")


def wait_in_service(lab: Lab, node: Node) -> None:
    def serves() -> bool:
        state = node.run("systemctl", "is-active", "asterisk", "mariadb", "apache2",
                         check=False).out.split()
        if not node.path("/etc/asha/cluster-owns-services").exists():
            return state == ["active"] * 3
        started = Cluster(lab, members=["crm1"]).state().started
        return all(started.get(name) for name in ("p_asterisk", "p_mysql", "p_apache"))

    wait_steady(serves, "the telephone system", timeout=90)


@pytest.mark.parametrize("manner", ["always", "polite"])
def test_a_whole_install(lab: Lab, manner: str) -> None:
    node = lab.node("crm1")
    before = roots_files(node)
    with Attacker(node, "asterisk", ALL, "asterisk", manner) as one, \
            Attacker(node, "www-data", ALL, "www-data", manner) as other:
        seconds, said = customer.install_node(node, check=False, timeout=300)
        one.require_at_work()
        other.require_at_work()
    print(manner, seconds, said.code, said.out[-2000:], said.err[-500:])
    wait_in_service(lab, node)
    assert "Traceback" not in said.out + said.err
    assert "/opt/sark/www/origrecs is left out" in " ".join(said.out.split())
    if manner == "polite":
        assert said.code == 0
        assert seconds < INSTALL_SECONDS
        panel = node.run("sqlite3", "/opt/sark/db/sark.db", "SELECT HAUSECLUSTER FROM globals")
        assert panel.out.strip() == "YES"
        assert node.run("stat", "-c", "%U %a", "/drbd").out.split() == ["root", "700"]
    else:
        # Who writes to the live data while it is copied for the last time is refused.
        assert said.code == 1
        assert "run asha install again" in said.out + said.err
    after = roots_files(node)
    changed = {path for path in before | after if before.get(path) != after.get(path)
               and not path.startswith(INSTALLS)}
    assert changed == set()
    assert spilt(node) == []


def spilt(node: Node) -> list[str]:
    """What of root's secrets lies where somebody else could read it."""
    shadow = node.path("/etc/shadow").read_text().splitlines()[0]
    found: list[str] = []
    for text in (SENTINEL, shadow):
        found += node.run(
            "grep", "-rlsF", "--devices=skip", "-e", text, "/drbd", "/etc/asterisk", "/opt/sark",
            "/var/lib/asterisk", "/var/spool/asterisk", "/var/log/asterisk", "/usr/share/asterisk",
            check=False, timeout=60,
        ).out.split()
    return found
