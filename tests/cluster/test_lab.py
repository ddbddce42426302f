"""The lab itself: what it leaves behind (nothing), and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.customer import wait_in_sync
from tests.conftest import lab_or_skip
from tests.lab import Lab, LabError, Node, Result, cli, wait_for
from tests.lab.host import cgroup_root, run
from tests.lab.lab import BASE, REPOSITORY, remove_stale

COMMAND = [sys.executable, "-m", "tests.lab"]
NEVER, AT_ONCE = "1e9", "0.1"  # how long a sync takes
RESOURCE = """\
resource asha {
    net { protocol C; cram-hmac-alg sha256; shared-secret "of the test"; }
    disk { c-max-rate 100M; }
    device minor 0;
    disk /dev/sda5;
    meta-disk internal;
    on crm1 { node-id 0; address 10.0.3.251:7788; }
    on crm2 { node-id 1; address 10.0.3.252:7788; }
}
"""


def traces(name: str) -> list[str]:
    """Everything on this machine that carries the lab's name."""
    found = []
    if BASE.is_dir():
        found += [str(path) for path in BASE.iterdir() if path.name.split(".")[0] == name]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{name}/" in line
              or line.split()[1].endswith(f"/{name}")]
    spaces = run(["ip", "netns", "list"]).out
    found += [line for line in spaces.splitlines() if line.startswith(f"asha-{name}-")]
    loops = run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]).out
    found += [line for line in loops.splitlines() if f"/{name}/" in line]
    found += [str(path) for path in cgroup_root().glob(f"asha-lab-{name}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if f"asha-{name}-" in words or f"/{name}/" in words:
            found.append(words)
    found += [str(path) for path in Path("/run/systemd/nspawn").glob(f"*/asha-{name}-*")]
    return found


def is_removed(name: str) -> bool:
    remove_stale()
    return not traces(name)


@pytest.fixture
def name() -> str:
    return f"own{os.getpid()}"


def answers(node: Node, address: str) -> bool:
    return node.run("ping", "-c1", "-W2", address, check=False).ok


def test_nothing_outlives_a_lab() -> None:
    with lab_or_skip() as lab:
        node = lab.node("crm1")
        node.run("losetup", "--find", "/srv/lab-shared/store.img")
        assert traces(lab.name)
        assert node.run("uname", "-n").out.strip() == "crm1"
        second = lab.node("crm2")
        wait_for(lambda: answers(second, "10.0.3.251"), "the cable to carry packets")
        node.cut("eth1")
        assert not answers(second, "10.0.3.251")
        assert answers(second, "192.168.1.11")
        node.restore("eth1")
        # Not at once: a bridge forwards nothing before it has seen the carrier, and who was
        # not found in the meantime is not looked for again for a second.
        wait_for(lambda: answers(second, "10.0.3.251"), "the cable to carry packets again")
        node.freeze()
        with pytest.raises(LabError, match="did not end"):
            node.run("systemctl", "is-system-running", timeout=3)
        node.thaw()
        assert node.run("systemctl", "is-system-running", check=False, timeout=60).out
        node.reboot()
        second.crash()
        assert not second.is_up
        second.boot()
        assert second.run("systemctl", "is-system-running", check=False).out.strip() == "running"
    assert traces(lab.name) == []


def test_two_labs_side_by_side() -> None:
    with lab_or_skip("crm1", cluster=False) as one, lab_or_skip("crm1", cluster=False) as two:
        one.node("crm1").write("/root/mark", "one")
        assert not two.node("crm1").path("/root/mark").exists()
        # The same address twice, each in a world of its own.
        for lab in (one, two):
            assert "192.168.1.11/24" in lab.node("crm1").run("ip", "-4", "addr").out
        one.node("crm1").crash()
        assert two.node("crm1").run("true").ok


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_off_while_starting(name: str, signal_number: int) -> None:
    with lab_or_skip("crm1", cluster=False):
        pass  # the image is there, or this is skipped
    process = subprocess.Popen([*COMMAND, "up", "--name", name], cwd=REPOSITORY)
    try:
        wait_for(lambda: (BASE / name / "crm2/init").exists(), "the nodes' start", timeout=60)
        process.send_signal(signal_number)
        process.wait(timeout=60)
        if signal_number == signal.SIGKILL:
            # What the next `up` does first; another's, beside us, may have begun already.
            wait_for(lambda: is_removed(name), "the removal", timeout=60)
        assert traces(name) == []
    finally:
        process.kill()
        process.wait()
        Lab(name).down()


def test_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASHA_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert cli.main(["up"]) == 1
    assert capsys.readouterr().err == (
        "lab: the lab boots whole nodes and needs root: run it with sudo\n"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert cli.main(["up"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "apt-get install" in said
    assert "systemd-container" in said


def test_bad_names_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LabError, match="letters"):
        Lab("../escape")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["run", "--name", "nosuchlab", "crm1", "true"]) == 1
    assert "no lab called nosuchlab" in capsys.readouterr().err


@pytest.fixture(scope="module")
def boxes() -> Iterator[Lab]:
    with lab_or_skip(customer=True) as lab:
        yield lab


def test_a_box_as_a_customer_has_it(boxes: Lab) -> None:
    node = boxes.node("crm1")
    for again in (False, True):
        if again:
            node.reboot()
        for unit in ("asterisk", "mariadb", "apache2", "networking"):
            assert node.run("systemctl", "is-active", unit, check=False).out == "active\n"
        addresses = node.run("ip", "-4", "-o", "addr").out
        assert "192.168.1.11/24" in addresses
        assert "eth1" not in addresses
        assert "2014" in node.run("asterisk", "-rx", "database get customer since").out
        rows = node.run("mariadb", "-N", "-e", "SELECT COUNT(*) FROM asterisk.cdr").out
        assert rows == "500\n"
    for trace in ("/drbd", "/etc/asha", "/etc/corosync", "/usr/lib/ocf/resource.d/asha"):
        assert not node.path(trace).exists()
    assert not node.run("dpkg-query", "-W", "pacemaker", "drbd-utils", check=False).ok
    assert node.run("blockdev", "--getsize64", "/dev/sda5").out == f"{1536 << 20}\n"


def drbdadm(node: Node, *words: str) -> Result:
    return node.run("drbdadm", *words, "asha", check=False)


def set_up(node: Node) -> None:
    """What asha does before the disk is made: the package, the link, the configuration."""
    node.run("apt-get", "install", "-y", "drbd-utils", timeout=300)
    node.write("/etc/drbd.d/asha.res", RESOURCE)
    link_up(node)
    assert drbdadm(node, "create-md").ok


def link_up(node: Node) -> None:
    node.run("ip", "addr", "add", node.addresses["eth1"], "dev", "eth1")
    node.run("ip", "link", "set", "eth1", "up")


def wait_state(node: Node, question: str, answer: str) -> None:
    wait_for(lambda: drbdadm(node, question).out == answer + "\n", f"{question} {answer}")


def test_drbd_as_its_tools_see_it(boxes: Lab) -> None:
    """The true drbdadm and drbdmeta on the lab's own drbdsetup."""
    one, two = boxes.node("crm1"), boxes.node("crm2")
    pace = boxes.shared / "sync-seconds"
    pace.write_text(NEVER)
    set_up(one)
    assert drbdadm(one, "status").code == 10
    assert drbdadm(one, "up").ok
    assert drbdadm(one, "-d", "adjust").out == ""
    assert drbdadm(one, "status").out == (
        "asha role:Secondary\n  disk:Inconsistent\n  crm2 connection:Connecting\n\n"
    )
    refused = drbdadm(one, "primary")
    assert refused.code == 17
    assert "asha: State change failed: (-2) Need access to UpToDate data" in refused.err
    assert drbdadm(one, "primary", "--force").ok
    assert drbdadm(one, "dstate").out == "UpToDate/DUnknown\n"
    one.run("mkfs.ext4", "-q", "/dev/drbd0")
    one.run("mkdir", "/drbd")
    one.run("mount", "/dev/drbd0", "/drbd")
    one.write("/drbd/mark", "of crm1")
    refused = drbdadm(one, "secondary")
    assert refused.code == 11
    assert "(-12) Device is held open by someone" in refused.err

    set_up(two)
    two.write("/etc/drbd.d/asha.res", RESOURCE.replace("of the test", "another"))
    assert drbdadm(two, "up").ok
    wait_state(two, "cstate", "StandAlone")
    assert drbdadm(two, "down").ok
    two.write("/etc/drbd.d/asha.res", RESOURCE)
    drbdadm(one, "adjust")
    assert drbdadm(two, "up").ok
    wait_state(two, "dstate", "Inconsistent/UpToDate")
    said = two.run("drbdsetup", "status", "asha", "--json").out
    assert '"replication-state": "SyncTarget"' in said
    wait_for(lambda: "replication:SyncSource peer-disk:Inconsistent done:0.00"
             in drbdadm(one, "status").out, "the source to know")
    assert drbdadm(two, "primary").code == 17
    pace.write_text(AT_ONCE)
    wait_in_sync(two)
    wait_in_sync(one)
    refused = drbdadm(two, "primary")
    assert refused.code == 11
    assert "(-1) Multiple primaries not allowed by config" in refused.err

    pace.write_text(NEVER)
    one.cut("eth1")
    wait_state(two, "cstate", "Connecting")
    one.restore("eth1")
    wait_state(two, "cstate", "Connected")
    two.reboot()
    assert drbdadm(two, "status").code == 10
    link_up(two)
    assert drbdadm(two, "up").ok
    wait_state(two, "dstate", "UpToDate/UpToDate")
    one.run("umount", "/drbd")
    assert drbdadm(one, "secondary").ok
    assert not one.path("/dev/drbd0").exists()
    assert drbdadm(two, "primary").ok
    two.run("mkdir", "/drbd")
    two.run("mount", "/dev/drbd0", "/drbd")
    assert two.path("/drbd/mark").read_text() == "of crm1"

    one.replace()
    assert not one.path("/etc/drbd.d").exists()
    set_up(one)
    assert drbdadm(one, "up").ok
    wait_state(one, "dstate", "Inconsistent/UpToDate")
    pace.write_text(AT_ONCE)
    wait_in_sync(one)
