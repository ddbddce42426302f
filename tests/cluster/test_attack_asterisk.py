"""What Asterisk's user can leave where Asterisk wants a file, on a node or on the store: the
telephones run wherever they would without a cluster, and else a person is told why not.

Made as asterisk, while it runs; then it is stopped and started.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.single import call, mount_store, reason, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node
from tests.lab.cluster import Cluster

AGENT = "asterisk-health"
PBX = ("setpriv", "--reuid=asterisk", "--regid=asterisk", "--clear-groups")
CONF = "/etc/asterisk/asterisk.conf"
CTL = "/run/asterisk/asterisk.ctl"
PID = "/run/asterisk/asterisk.pid"
LOG = "/var/log/asterisk/messages"
DB = "/var/lib/asterisk/astdb.sqlite3"

# Debian's own is a template that counts for nothing.
DIRECTORIES = f"sed -i 's/^.directories..!.$/[directories]/' {CONF}; "

# What is put there; what a monitor says of it while Asterisk runs, and after the next start,
# "" for nothing.
HARMLESS = {
    "control socket: FIFO": (f"rm {CTL}; mkfifo {CTL}", "is a FIFO and no socket", ""),
    "control socket: link": (f"rm {CTL}; ln -s /run/systemd/private {CTL}", "process 1 holds it",
                             ""),
    "control socket: directory": (f"rm {CTL}; mkdir -p {CTL}/x", "is a directory and no socket",
                                  "is a directory and no socket"),
    "pid file: FIFO": (f"rm {PID}; mkfifo {PID}", "does not name", ""),
    "pid file: huge": (f"rm {PID}; truncate -s 1T {PID}", "does not name", ""),
    "pid file: link": (f"rm {PID}; ln -s /dev/zero {PID}", "does not name", ""),
    "pid file: directory": (f"rm {PID}; mkdir -p {PID}/x", "does not name", "does not name"),
    "astrundir: elsewhere": (
        f"{DIRECTORIES} mkdir -p /tmp/run; sed -i 's,^astrundir.*,astrundir=>/tmp/run,' {CONF}",
        "", "is it astrundir"),
    "astrundir: nowhere": (f"{DIRECTORIES} sed -i 's,^astrundir.*,astrundir=>/no/run,' {CONF}",
                           "", "asterisk.ctl is gone"),
    "astctl: another": (f"printf '[files]\\nastctl=other.ctl\\n' >> {CONF}", "", ""),
    "astlogdir: nowhere": (f"{DIRECTORIES} sed -i 's,^astlogdir.*,astlogdir=>/no/log,' {CONF}",
                           "", ""),
    "asterisk.conf: itself": (f"echo '#include asterisk.conf' >> {CONF}", "", ""),
    "asterisk.conf: FIFO": (f"rm {CONF}; mkfifo {CONF}", "", ""),
    "asterisk.conf: huge": (f"yes ';;;;;;;;;;;;;;;;;;;;;;;' | head -c 100000000 >> {CONF}", "",
                            ""),
    "log: directory": (f"rm -f {LOG}; mkdir {LOG}", "", ""),
}

# What a plain Asterisk does not start with either, and the reason.
HARMFUL = {
    "log: FIFO": (f"rm -f {LOG}; mkfifo {LOG}", f"{LOG} is a FIFO"),
    "AstDB: FIFO": (f"rm {DB}; mkfifo {DB}", f"{DB} is a FIFO"),
    "AstDB: directory": (f"rm {DB}; mkdir {DB}", f"{DB} is a directory"),
    "AstDB: link": (f"rm {DB}; ln -s /etc/shadow {DB}", f"{DB}: it is a link to /etc/shadow"),
    "astdbdir: nowhere": (f"{DIRECTORIES} sed -i 's,^astdbdir.*,astdbdir=>/no/db,' {CONF}",
                          "Unable to open Asterisk database '/no/db/astdb.sqlite3'"),
    "alwaysfork": (f"sed -i 's/^.options..*/&\\nalwaysfork=yes/' {CONF}", "is alwaysfork on"),
    "#exec": (f"sed -i 's/^.options..*/&\\nexecincludes=yes/' {CONF};"
              " echo '#exec /usr/bin/sleep 1000' >> /etc/asterisk/modules.conf",
              "it has started "),
}

# Pacemaker's words for it.
DEGRADED = "might fail soon"

KEEP = f"""
rm -rf /root/kept; mkdir /root/kept
cp -a {CONF} /etc/asterisk/modules.conf {DB} /root/kept
"""
PUT_BACK = f"""
rm -rf {CONF} {DB} {CTL} {PID} {LOG} /tmp/run
cp -a /root/kept/*.conf /etc/asterisk
cp -a /root/kept/astdb.sqlite3 {DB}
"""


@pytest.fixture(scope="module")
def idle() -> Iterator[Node]:
    with lab_or_skip("crm1", cluster=False) as lab:
        node = lab.node("crm1")
        mount_store(node)
        without_judge(node)
        assert call(node, "sark-data", "start").code == 0
        assert call(node, AGENT, "start").code == 0
        assert call(node, AGENT, "stop").code == 0
        yield node


@pytest.fixture
def node(idle: Node) -> Iterator[Node]:
    idle.run("sh", "-c", KEEP)
    yield idle
    stop = call(idle, AGENT, "stop")
    assert stop.code == 0, stop.err
    idle.run("sh", "-c", PUT_BACK)


def require(node: Node, said: str) -> None:
    for depth in (0, 10, 20):
        seen = call(node, AGENT, "monitor", check_level=depth, timeout=30)
        assert seen.code == (190 if said else 0), seen.err
        assert said in seen.err


@pytest.mark.parametrize("what", HARMLESS)
def test_what_keeps_nobody_from_telephoning(node: Node, what: str) -> None:
    script, at_once, later = HARMLESS[what]
    assert call(node, AGENT, "start").code == 0
    node.run(*PBX, "sh", "-ec", script)
    require(node, at_once)
    stop = call(node, AGENT, "stop", timeout=30)
    assert stop.code == 0, stop.err
    assert node.pids("asterisk") == []
    start = call(node, AGENT, "start", timeout=30)
    assert start.code == 0, start.err
    require(node, later)


@pytest.mark.parametrize("what", HARMFUL)
def test_what_no_asterisk_starts_with_is_named(node: Node, what: str) -> None:
    script, why = HARMFUL[what]
    node.run(*PBX, "sh", "-ec", script)
    start = call(node, AGENT, "start", timeout=20)
    assert start.code == 1
    assert why in start.err
    assert reason(start)


@pytest.mark.parametrize("option", ["nofork", "console"])
def test_one_that_stays_in_the_foreground_is_left_there(node: Node, option: str) -> None:
    """Started directly, where its configuration has it be no daemon."""
    given = {"unit": "none"}
    node.run(*PBX, "sed", "-i", f"s/^.options..*/&\\n{option}=yes/", CONF)
    start = call(node, AGENT, "start", given, timeout=20)
    assert start.code == 0, start.err
    seen = call(node, AGENT, "monitor", given, check_level=10)
    assert seen.code == 0, seen.err
    stop = call(node, AGENT, "stop", given)
    assert stop.code == 0, stop.err
    assert node.pids("asterisk") == []


def test_the_other_node_comes_up() -> None:
    """With all that is harmless left on both nodes and on the store."""
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.load()
        source, target = cluster.active(), cluster.passive()
        for one in (source, target):
            one.run("install", "-d", "-o", "asterisk", "/run/asterisk")
            one.run(*PBX, "sh", "-ec", f"rm -rf {CTL} {PID}; mkdir -p {CTL}/x {PID}/x")
        source.run(*PBX, "sh", "-ec", HARMLESS["asterisk.conf: itself"][0])
        source.run(*PBX, "sh", "-ec", HARMLESS["log: directory"][0])
        for _ in range(2):
            source, target = cluster.active(), cluster.passive()
            cluster.standby(source)
            cluster.wait_ready(target.name)
            cluster.online(source)
            cluster.wait_settled()
        assert cluster.audit() == []
        assert [one for one in cluster.state().failures if DEGRADED not in str(one)] == []
