"""AstDB damaged while Asterisk does not run: it starts, with every key that can be read, and a
person is told what was lost and where the damaged one lies. Its configuration damaged: it
starts with the files that served last, and today's are left alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pytest

from tests.cluster.single import call, mount_store, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node, wait_for
from tests.lab.cluster import Cluster, asterisk
from tests.lab.faults import GENEROUS, by_name, told_of_asterisk
from tests.lab.injectors import (
    ASTDB,
    LAST_GOOD,
    PJSIP,
    damage_astdb,
    forget_damaged_astdb,
    kept_files,
)
from tests.lab.prober import Prober

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


# The configuration. The agent alone, on a node without another.

ETC = "/etc/asterisk"
SAFE = "/root/etc-before"
# When it was started, as the agent remembers it: it keeps what has served for half a minute.
WAS = f"/run/resource-agents/asterisk-health-p_{AGENT}.etc"
NO_UNIT = {"unit": "none"}
# chan_sip beside PJSIP, on a port of its own; the lab's modules.conf does not load it.
CHAN_SIP = f"""
sed -i s/^noload.=..chan_sip.so/load=chan_sip.so/ {ETC}/modules.conf
printf '[general]\\nudpbindaddr=0.0.0.0:5062\\n#include sip_more.conf\\n' > {ETC}/sip.conf
printf '; more\\n' > {ETC}/sip_more.conf
"""


@pytest.fixture
def etc(idle: Node) -> Iterator[Node]:
    """Its files are as they were before; nothing is kept."""
    idle.run("cp", "-a", f"{ETC}/.", SAFE)
    shadow = about_shadow(idle)
    yield idle
    stop = call(idle, AGENT, "stop")
    assert stop.code == 0, stop.err
    assert about_shadow(idle) == shadow
    idle.run("sh", "-ec", f"rm -rf {LAST_GOOD}; find {ETC} -mindepth 1 -delete;"
                          f" cp -a {SAFE}/. {ETC}; rm -r {SAFE}")


def serve(node: Node, given: Mapping[str, str] | None = None) -> str:
    """A start, and a monitor some time later. Returns the name of what it keeps."""
    before = kept_files(node)
    start = call(node, AGENT, "start", given)
    assert start.code == 0, start.err
    node.run("touch", "--no-create", "--date=-60 seconds", WAS)
    seen = call(node, AGENT, "monitor", given, check_level=10)
    assert seen.code == 0, seen.err
    (made,) = set(kept_files(node)) - set(before)
    return made


def stopped(node: Node, given: Mapping[str, str] | None = None) -> None:
    stop = call(node, AGENT, "stop", given)
    assert stop.code == 0, stop.err


def transports(node: Node) -> str:
    return asterisk(node, "pjsip show transports")


@pytest.mark.parametrize("given", [None, NO_UNIT], ids=["unit", "no-unit"])
def test_a_file_of_no_length(etc: Node, given: Mapping[str, str] | None) -> None:
    """Alone: there is no other node to fail first. Repaired, today's files are taken again."""
    serve(etc, given)
    stopped(etc, given)
    before = etc.path(PJSIP).read_text()
    etc.path(PJSIP).write_text("")
    first = call(etc, AGENT, "start", given)
    assert first.code == 1, first.err
    assert "no SIP socket" in first.err
    stopped(etc, given)
    start = call(etc, AGENT, "start", given)
    assert start.code == 0, start.err
    assert "pjsip.conf is empty" in start.err
    assert "0.0.0.0:5060" in transports(etc)
    assert etc.path(PJSIP).read_text() == ""
    # A reload reads the same; nobody writes what was kept.
    asterisk(etc, "core reload")
    assert "0.0.0.0:5060" in transports(etc)
    main = etc.run("pidof", "-s", "asterisk").out.strip()
    assert not etc.run("nsenter", "-t", main, "-m", *PBX, "touch", PJSIP, check=False).ok
    assert not etc.run("nsenter", "-t", main, "-m", *PBX, "unshare", "--user", "--map-root-user",
                       "--mount", "mount", "-o", "remount,bind,rw", ETC, check=False).ok
    assert not etc.run(*PBX, "ls", LAST_GOOD, check=False).ok
    assert call(etc, AGENT, "monitor", given, check_level=10).code == 0
    seen = call(etc, AGENT, "monitor", given, check_level=20)
    assert seen.code == 190, seen.err
    assert "crm resource restart" in seen.err
    event = etc.run("asha", "evidence", "show", "last", "--all").out
    assert "pjsip.conf is empty" in event
    assert "-[transport-udp]" in event
    # The next start need not fail to know.
    stopped(etc, given)
    assert call(etc, AGENT, "start", given).code == 0
    stopped(etc, given)
    # Who starts it by hand has today's files.
    etc.run("systemctl", "start", "asterisk")
    main = etc.run("systemctl", "show", "-P", "MainPID", "asterisk").out.strip()
    assert etc.run("nsenter", "-t", main, "-m", "cat", PJSIP).out == ""
    stopped(etc, given)
    etc.path(PJSIP).write_text(before + "; repaired\n")
    repaired = call(etc, AGENT, "start", given)
    assert repaired.code == 0, repaired.err
    assert "the last that served" not in repaired.err
    assert call(etc, AGENT, "monitor", given, check_level=20).code == 0


def test_a_stack_is_lost_by_damage_and_not_by_intent(etc: Node) -> None:
    etc.run("sh", "-ec", CHAN_SIP)
    serve(etc)
    stopped(etc)
    sip = etc.path(f"{ETC}/sip.conf").read_text()
    for line in ("[general", "#include gone.conf"):
        etc.path(f"{ETC}/sip.conf").write_text(sip + line + "\n")
        first = call(etc, AGENT, "start")
        assert first.code == 1, first.err
        assert "Asterisk has lost SIP: sip.conf" in first.err
        assert "chan_sip on udp port 5062" in first.err
        stopped(etc)
        start = call(etc, AGENT, "start")
        assert start.code == 0, start.err
        assert "UDP Bindaddress" in asterisk(etc, "sip show settings")
        assert "0.0.0.0:5060" in transports(etc)
        stopped(etc)
    # Somebody wants it so: no start fails.
    etc.path(f"{ETC}/sip.conf").write_text(sip)
    etc.run("sed", "-i", "s/^load=chan_sip.so/noload=chan_sip.so/", f"{ETC}/modules.conf")
    made = serve(etc)
    assert "chan_sip" not in etc.run("cat", f"{LAST_GOOD}/{made}/about").out
    assert "No such command" in asterisk(etc, "sip show settings")


def test_what_is_kept_does_not_start_either(etc: Node) -> None:
    """It is tried in turns with today's files, and nothing is lost."""
    made = serve(etc)
    stopped(etc)
    for path in (PJSIP, f"{LAST_GOOD}/{made}/files/pjsip.conf"):
        etc.path(path).write_text("")
    for words in ("no SIP socket", "does not start either", "no SIP socket", "either"):
        start = call(etc, AGENT, "start")
        assert start.code == 1, start.err
        assert words in start.err
        stopped(etc)


# Puts one thing after the other into the directory, as asterisk.
CHURN = f"""
import os
os.chdir({ETC!r})
while True:
    for make in (lambda: os.symlink("/etc/shadow", "churn"), lambda: os.mkfifo("churn"),
                 lambda: os.mkdir("churn"), lambda: open("churn", "w").close()):
        make()
        os.rename("churn", "churned")
        (os.rmdir if os.path.isdir("churned") and not os.path.islink("churned")
         else os.unlink)("churned")
"""


@pytest.mark.parametrize(("script", "words"), [
    (f"ln -s /etc/shadow {ETC}/x.conf; mkfifo {ETC}/y.conf; mkdir -m 0 {ETC}/z", ""),
    (f"truncate --size=1T {ETC}/x.conf", "x.conf has more than 16 MB"),
    (f"seq -f {ETC}/%.0f.conf 6000 | xargs touch", "has more than 5000 files"),
    (f"d={ETC}; for n in 1 2 3 4 5 6 7 8 9 10 11; do d=$d/d; mkdir $d; done",
     "more than 10 directories"),
])
def test_what_asterisks_user_can_put_there(etc: Node, script: str, words: str) -> None:
    """Nothing that is not his is read, Asterisk starts, and where nothing is kept it is told."""
    etc.run(*PBX, "sh", "-ec", script)
    start = call(etc, AGENT, "start")
    assert start.code == 0, start.err
    etc.run("touch", "--no-create", "--date=-60 seconds", WAS)
    assert call(etc, AGENT, "monitor", check_level=10).code == 0
    seen = call(etc, AGENT, "monitor", check_level=20)
    assert (seen.code, words in seen.err) == (190 if words else 0, True), seen.err
    assert len(kept_files(etc)) == (0 if words else 1)
    found = etc.run("find", LAST_GOOD, "!", "-type", "f", "!", "-type", "d", "-printf", "%y %l\n",
                    check=False).out
    assert found.split() == ([] if words else ["l", "/etc/shadow"])


def test_files_that_change_while_they_are_kept(etc: Node) -> None:
    start = call(etc, AGENT, "start")
    assert start.code == 0, start.err
    unit = "lab-churn"
    etc.run("systemd-run", f"--unit={unit}", "--uid=asterisk", "python3", "-c", CHURN)
    try:
        for _ in range(5):
            etc.run("touch", "--no-create", "--date=-60 seconds", WAS)
            assert call(etc, AGENT, "monitor", check_level=10).code == 0
            stopped(etc)
            assert call(etc, AGENT, "start").code == 0
    finally:
        etc.run("systemctl", "stop", unit)
    assert etc.run("find", LAST_GOOD, "-name", ".asha-new", check=False).out == ""


# With a cluster.

@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab_or_skip() as lab:
        running = Cluster(lab)
        running.load()
        yield running


def test_no_node_can_start_it_with_todays_files(cluster: Cluster) -> None:
    """The telephones are back by themselves, people are told, and the repaired files count."""
    fault = by_name("pjsip-emptied")
    fault.prepare(cluster)
    with Prober(cluster.lab) as prober:
        prober.wait_answering(time.monotonic())
        begun = time.monotonic()
        with fault.inject(cluster):
            wait_for(lambda: "pjsip.conf is empty" in told_of_asterisk(cluster),
                     "a start with the files that served", timeout=150)
            cluster.wait_ready()
            prober.wait_answering(time.monotonic(), timeout=150)
            assert prober.outage(begun) <= fault.limit * GENEROUS
            node = cluster.active()
            assert node.path(PJSIP).read_text() == ""
            said = node.run("asha", "status", check=False)
            assert said.code == 1, said.out
            text = " ".join(said.out.split())
            assert "pjsip.conf is empty" in text
            assert "crm resource restart p_asterisk" in text
        # It has taken them, and nothing is told any more.
        assert "0.0.0.0:5060" in transports(cluster.active())
        assert cluster.active().path(PJSIP).read_text() != ""
        assert cluster.audit() == []


def test_status_says_so_on_either_node(cluster: Cluster) -> None:
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
