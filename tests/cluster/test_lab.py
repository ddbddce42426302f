"""The lab itself: what it leaves behind (nothing), and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lab_or_skip
from tests.lab import Lab, LabError, cli, wait_for
from tests.lab.host import cgroup_root, run
from tests.lab.lab import BASE, REPOSITORY, lab_names, remove_stale

COMMAND = [sys.executable, "-m", "tests.lab"]


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


@pytest.fixture
def name() -> str:
    return f"own{os.getpid()}"


def test_nothing_outlives_a_lab() -> None:
    with lab_or_skip() as lab:
        node = lab.node("crm1")
        node.run("losetup", "--find", "/srv/lab-shared/store.img")
        assert traces(lab.name)
        assert node.run("uname", "-n").out.strip() == "crm1"
        second = lab.node("crm2")
        assert second.run("ping", "-c1", "-W2", "10.0.3.251").ok
        node.cut("eth1")
        assert not second.run("ping", "-c1", "-W1", "10.0.3.251", check=False).ok
        assert second.run("ping", "-c1", "-W2", "192.168.1.11").ok
        node.restore("eth1")
        assert second.run("ping", "-c1", "-W2", "10.0.3.251").ok
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
            assert name in lab_names()
            remove_stale()  # what the next `up` does first
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
