"""AstDB damaged while Asterisk does not run: it starts, with every key that can be read, and a
person is told what was lost and where the damaged one lies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.single import call, mount_store, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node, wait_for
from tests.lab.cluster import Cluster, asterisk
from tests.lab.injectors import ASTDB, damage_astdb, forget_damaged_astdb

AGENT = "asterisk-health"
PBX = ("setpriv", "--reuid=asterisk", "--regid=asterisk", "--clear-groups")
COUNT = 9000

# Some 900 kB, as asterisk: /lab/N is N.
FILL = f"""
import sqlite3
link = sqlite3.connect({ASTDB!r}, isolation_level=None)
link.execute("BEGIN")
link.execute("DELETE FROM astdb")
link.executemany("INSERT INTO astdb VALUES (?, ?)",
                 ((f"/lab/{{n:05}}", f"{{n}} " + "x" * 50) for n in range({COUNT})))
link.execute("COMMIT")
link.execute("VACUUM")
"""
# A power cut in a change that has reached the disk in part: each of its pages is another
# than before, and the old ones are in the journal.
CUT = f"""
import os, signal, sqlite3
link = sqlite3.connect({ASTDB!r}, isolation_level=None)
link.execute("PRAGMA cache_size=5")
link.execute("BEGIN")
link.execute("UPDATE astdb SET value = hex(randomblob(400))")
os.kill(os.getpid(), signal.SIGKILL)
"""
# Puts one thing after the other in its place.
SWAP = f"""
import os
os.chdir("/var/lib/asterisk")
open("garbage", "wb").write(b"garbage, " * 2000)
while True:
    for make in (lambda: os.symlink("/etc/shadow", "new"), lambda: os.mkfifo("new"),
                 lambda: os.link("garbage", "new")):
        make()
        os.rename("new", {ASTDB!r})
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
    idle.run(*PBX, "python3", "-c", FILL)
    shadow = about_shadow(idle)
    yield idle
    stop = call(idle, AGENT, "stop")
    assert stop.code == 0, stop.err
    assert about_shadow(idle) == shadow
    idle.run("sh", "-c", f"rm -rf {ASTDB}* /var/lib/asterisk/garbage /var/lib/asterisk/new")
    assert call(idle, AGENT, "start").code == 0
    assert call(idle, AGENT, "stop").code == 0


def about_shadow(node: Node) -> str:
    return node.run("sh", "-c", "stat -c '%u %g %a %h %s' /etc/shadow; md5sum /etc/shadow").out


def value(node: Node, number: int) -> str:
    said = asterisk(node, f"database get lab {number:05}")
    return said.partition("Value: ")[2].split(" ")[0]


def keys(node: Node) -> int:
    return int(asterisk(node, "database show lab").strip().splitlines()[-1].split()[0])


def kept(node: Node) -> list[str]:
    listed = node.run("sh", "-c", f"ls {ASTDB}.damaged-* 2>/dev/null", check=False).out.split()
    return [path for path in listed if not path.endswith(".txt")]


def require_told(node: Node, words: str) -> str:
    """A start, and a monitor that says so until the damaged one is removed. Returns its path."""
    start = call(node, AGENT, "start")
    assert start.code == 0, start.err
    assert words in start.err
    (path,) = kept(node)
    assert call(node, AGENT, "monitor", check_level=10).code == 0
    seen = call(node, AGENT, "monitor", check_level=20)
    assert seen.code == 190, seen.err
    assert words in seen.err
    assert f"rm {path}*" in seen.err
    owner = node.run("stat", "-c", "%U:%G", ASTDB, path, f"{path}.txt").out.split()
    assert set(owner) == {"asterisk:asterisk"}
    return path


def test_garbage_in_the_first_pages(node: Node) -> None:
    damage_astdb(node, 3)
    require_told(node, f"{COUNT} of at least {COUNT} keys are back (file is not a database)")
    assert keys(node) == COUNT
    assert [value(node, number) for number in (0, 4711, COUNT - 1)] == ["0", "4711", f"{COUNT - 1}"]
    asterisk(node, "database put lab 00001 new")
    forget_damaged_astdb(node)
    seen = call(node, AGENT, "monitor", check_level=20)
    assert seen.code == 0, seen.err


def test_one_that_is_cut_off(node: Node) -> None:
    node.run("truncate", "--size=300001", ASTDB)
    path = require_told(node, "AstDB was damaged: ")
    assert 2000 < keys(node) < COUNT
    assert value(node, 0) == "0"
    assert "keys are known by name only" in node.run("cat", f"{path}.txt").out


@pytest.mark.parametrize("script", [f"truncate --size=0 {ASTDB}", f"echo garbage > {ASTDB}.x; "
                                    f"cat {ASTDB}.x {ASTDB}.x > {ASTDB}; rm {ASTDB}.x; "
                                    f"truncate --size=1T {ASTDB}"])
def test_nothing_is_left_of_it(node: Node, script: str) -> None:
    node.run(*PBX, "sh", "-ec", script)
    require_told(node, "no key could be read")
    assert keys(node) == 0
    asterisk(node, "database put lab 00001 new")
    assert value(node, 1).split() == ["new"]


def test_a_power_cut_is_no_damage(node: Node) -> None:
    node.run(*PBX, "python3", "-c", CUT, check=False)
    assert node.run("stat", "-c", "%s", f"{ASTDB}-journal").out.strip() != "0"
    start = call(node, AGENT, "start")
    assert start.code == 0, start.err
    assert "AstDB" not in start.err
    assert kept(node) == []
    assert (keys(node), value(node, 4711)) == (COUNT, "4711")


def test_names_that_lead_to_others_files(node: Node) -> None:
    """Where the new one is written first, and where the damaged one would go."""
    damage_astdb(node)
    node.run(*PBX, "sh", "-ec", f"for end in '' -journal -wal; do ln -s /etc/shadow"
                                f" {ASTDB}.asha-new$end; done;"
                                f" mkdir {ASTDB}.damaged-20000101T000000")
    start = call(node, AGENT, "start")
    assert start.code == 0, start.err
    assert keys(node) == COUNT


def test_another_name_of_roots_file(node: Node) -> None:
    """No Asterisk starts with it; it is neither read out nor changed."""
    node.run("sh", "-ec", f"rm {ASTDB}; ln /etc/shadow /var/lib/asterisk/x 2>/dev/null ||"
                          f" cp -p /etc/shadow /var/lib/asterisk/x; mv /var/lib/asterisk/x {ASTDB}")
    before = node.run("stat", "-c", "%U %a %s", ASTDB).out
    start = call(node, AGENT, "start", timeout=20)
    assert start.code == 1
    assert "Asterisk may not write" in start.err
    assert node.run("stat", "-c", "%U %a %s", ASTDB).out == before
    assert kept(node) == []


def test_one_thing_after_the_other_in_its_place(node: Node) -> None:
    """While it is looked at: who does that has no AstDB, and gets nobody's file."""
    unit = "lab-swap"
    node.run("systemd-run", f"--unit={unit}", "--uid=asterisk", "python3", "-c", SWAP)
    try:
        wait_for(lambda: node.run("test", "-e", "/var/lib/asterisk/garbage", check=False).ok,
                 "the first swap")
        for _ in range(5):
            call(node, AGENT, "start", timeout=20)
            assert call(node, AGENT, "stop", timeout=20).code == 0
    finally:
        node.run("systemctl", "stop", unit)
    assert len(kept(node)) <= 3


def test_status_says_so_on_either_node() -> None:
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.load()
        node = cluster.active()
        asterisk(node, "database put lab 00001 one")
        damage_astdb(node)
        for told in ("keys are back", ".txt says what was lost"):
            source, target = cluster.active(), cluster.passive()
            cluster.standby(source)
            cluster.wait_ready(target.name)
            cluster.online(source)
            cluster.wait_settled()
            said = target.run("asha", "status", check=False)
            assert said.code == 1, said.out
            assert "AstDB was damaged" in said.out
            assert told in " ".join(said.out.split())
            assert value(target, 1).split() == ["one"]
        forget_damaged_astdb(cluster.active())
        assert cluster.audit() == []
