"""What the commands share."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from asha import cli, terminal
from asha.cluster import cib, corosync
from asha.cluster.secret import Secret
from asha.cluster.site import parse
from asha.commands import common, status
from asha.errors import UserError
from tests.fakes.machine import FakeMachine, Outcome


def test_one_at_a_time_and_nobody_else_can_keep_us_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    monkeypatch.setattr(common, "LOCK", str(lock))
    old = os.umask(0o022)
    try:
        with common.only_one():
            assert lock.stat().st_mode & 0o777 == 0o600
            with pytest.raises(UserError, match="another asha install"), common.only_one(0.3):
                pass
        with common.only_one():
            pass
    finally:
        os.umask(old)


FIRST = """\
PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
BNODENAME=crm2
BNODEIP=10.0.3.252
DRBDDEV=/dev/sda5
"""


@pytest.fixture
def nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


@pytest.mark.usefixtures("nobody_types")
def test_the_first_node_makes_the_secret_once(tmp_path: Path) -> None:
    machine, site = FakeMachine(tmp_path), parse(FIRST)
    made = common.cluster_secret(site, machine)
    common.keep(made, machine)
    assert machine.path(common.SECRET).stat().st_mode & 0o777 == 0o600
    assert common.cluster_secret(site, machine).typed == made.typed


@pytest.mark.usefixtures("nobody_types")
def test_the_second_node_does_not_make_one(tmp_path: Path) -> None:
    site = parse(FIRST.replace("true", "false"))
    with pytest.raises(UserError, match="needs the cluster secret of crm1"):
        common.cluster_secret(site, FakeMachine(tmp_path))


def test_a_file_with_a_mistyped_secret(tmp_path: Path) -> None:
    typed = Secret.generate().typed
    wrong = tmp_path / "typed"
    wrong.write_text(("1" if typed[0] != "1" else "2") + typed[1:])
    with pytest.raises(UserError, match="--secret-file"):
        common.cluster_secret(parse(FIRST), FakeMachine(tmp_path), str(wrong))


def test_status_of_no_node_is_not_taken_for_telephones_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "Machine", lambda: FakeMachine(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["status"]) == 2
    assert "not a node of a cluster yet" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_fits_a_terminal(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*filter(None, [command]), "--help"])
    said = capsys.readouterr().out
    assert command in said
    assert [line for line in said.splitlines() if len(line) > 80] == []


def test_what_a_purge_left_makes_no_node(tmp_path: Path) -> None:
    """Or "asha secret rotate" would be offered for it, and asha install refuse what it made."""
    machine = FakeMachine(tmp_path, {"systemctl is-active": Outcome("inactive\n", 3)})
    machine.put(cib.ON_DISK, f'<cib><primitive id="{cib.OURS}"/></cib>')
    machine.put(corosync.CONF, corosync.render(parse(FIRST), joined=True))
    machine.put(corosync.AUTHKEY, Secret.generate().corosync_authkey())
    with pytest.raises(UserError, match="not a node of a cluster yet"):
        common.need_installed(machine)
    machine.on("systemctl is-active", "active\n")
    common.need_installed(machine)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_trouble_in_the_lines_of_a_terminal(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a log or a program it stays one line; what to do is to be copied, and stays too."""
    told = stream()
    monkeypatch.setattr("sys.stderr", told)
    hint = "chown root:root /opt/sark/www && chmod go-w /opt/sark/www; " * 2
    trouble = UserError("the secret is not the one of crm1 " * 5, hint, points=["a point " * 15])
    terminal.report(trouble)
    said = told.getvalue()
    assert hint in said
    others = [line for line in said.splitlines() if "chown" not in line]
    if stream is Terminal:
        assert all(len(line) < 80 for line in others)
        assert len(others) == 5
    else:
        assert len(others) == 2
