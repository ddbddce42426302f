"""Asterisk in /proc: which processes it is, what its tasks do, where it listens."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from asha.asterisk.process import proc as proc_module
from asha.asterisk.process import unixdiag
from asha.asterisk.process.proc import Proc, Process
from asha.ocf import Failed
from asha.run.child import NoAnswer
from tests.fakes.asterisk import FakeProc

BINARY = "/usr/sbin/asterisk"
USERS = "user.slice/user-1000.slice/user@1000.service"


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    root = tmp_path / "proc"
    root.mkdir()
    return FakeProc(root)


def proc(fake: FakeProc) -> Proc:
    return Proc(str(fake.root))


def test_unix_sockets_on_which_it_listens(tmp_path: Path) -> None:
    me = Proc().process(os.getpid())
    assert me is not None
    before = set(me.listens_at().values())
    made = []
    for name in ("one", "with blank", "not listening"):
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(str(tmp_path / name))
    for one in made[:2]:
        one.listen()
    (tmp_path / "one").unlink()
    here = {inode: path for inode, path in me.listens_at().items() if path not in before}
    assert sorted(here.values()) == [f"{tmp_path}/one", f"{tmp_path}/with blank"]
    # By the file, and not by its name.
    assert unixdiag.is_one_of(str(tmp_path / "with blank"), here)
    made[2].close()
    (tmp_path / "not listening").rename(tmp_path / "one")
    assert unixdiag.is_one_of(str(tmp_path / "one"), here) is False
    assert unixdiag.is_one_of(str(tmp_path / "nothing"), here) is None
    assert unixdiag.is_one_of(str(tmp_path / "one"), ["1"]) is None
    for one in made:
        one.close()


def pids(processes: list[Process]) -> list[int]:
    return sorted(process.pid for process in processes)


@pytest.mark.parametrize(
    ("argv", "daemon"),
    [
        (("/usr/sbin/asterisk", "-g", "-f", "-p", "-U", "asterisk"), True),
        (("/usr/sbin/asterisk", "-fU", "rex"), True),
        (("asterisk", "-U", "-r"), True),
        (("asterisk", "-cvvv"), True),
        (("asterisk", "-C/etc/other.conf"), True),
        (("asterisk", "-r"), False),
        (("asterisk", "-vvvr"), False),
        (("asterisk", "-rx", "core show uptime"), False),
        (("asterisk", "-R"), False),
        (("asterisk", "-U", "asterisk", "-x", "help"), False),
        (("/usr/sbin/rasterisk",), False),
        (("asterisk", "-V"), False),
    ],
)
def test_daemon_is_told_from_console(fake: FakeProc, argv: tuple[str, ...], daemon: bool) -> None:
    fake.add(50, "asterisk", exe=BINARY, argv=argv)
    assert bool(proc(fake).daemons(BINARY)) is daemon


@pytest.mark.parametrize(
    ("name", "argv", "wrapper"),
    [
        ("safe_asterisk", ("/bin/sh", "/usr/sbin/safe_asterisk"), True),
        ("sh", ("sh", "/usr/sbin/safe_asterisk", "-U", "asterisk"), True),
        ("bash", ("bash", "-c", "less safe_asterisk"), False),
        ("vim", ("vim", "/usr/sbin/safe_asterisk"), False),
    ],
)
def test_wrapper_is_told_from_other_shells(
    fake: FakeProc, name: str, argv: tuple[str, ...], wrapper: bool
) -> None:
    fake.add(50, name, exe="/usr/bin/dash", argv=argv)
    assert bool(proc(fake).wrappers(lambda _: True)) is wrapper
    assert not proc(fake).wrappers(lambda _: False)


def test_a_command_line_that_does_not_come_is_a_daemons(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better to end a console too many than to leave an Asterisk that writes."""

    def never(*arguments: object) -> str:
        raise NoAnswer("reading it did not end", 1, True)

    monkeypatch.setattr(proc_module, "in_child", never)
    fake.add(50, "asterisk", exe=BINARY, argv=("asterisk", "-r"))
    assert pids(proc(fake).daemons(BINARY)) == [50]


def test_one_user_does_not_make_us_wait_for_each_of_his(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def never(work: object, deadline: object, doing: str) -> str:
        asked.append(doing)
        raise NoAnswer("reading it did not end", 1, True)

    monkeypatch.setattr(proc_module, "in_child", never)
    for pid in range(50, 80):
        fake.add(pid, "sh", exe="/usr/bin/dash")
    assert proc(fake).wrappers(lambda _: True) == []
    assert len(asked) == proc_module.SILENT_MOST


def test_daemons(fake: FakeProc) -> None:
    argv = ("asterisk",)
    fake.add(50, "asterisk", exe=BINARY, argv=argv)
    fake.add(51, "asterisk", exe=f"{BINARY} (deleted)", argv=argv)
    fake.add(52, "asterisk", exe="/opt/other/asterisk", argv=argv)
    fake.add(53, "asterisk", exe=BINARY, argv=argv, space="pid:[2]")  # a container's
    fake.add(54, "bash", exe="/bin/bash")
    fake.add(55, "asterisk", "Z")  # dead, only not reaped
    fake.add(56, "asterisk", "Z")  # dead, but held by a thread in the kernel
    fake.task(56, 57, "D")
    fake.add(58, "asterisk", "R")  # ending: its memory and so its program are gone
    assert pids(proc(fake).daemons(BINARY)) == [50, 51, 56, 58]


def test_binary_may_be_a_link(fake: FakeProc, tmp_path: Path) -> None:
    true = tmp_path / "asterisk-16"
    true.touch()
    (tmp_path / "asterisk").symlink_to(true)
    fake.add(50, "asterisk", exe=str(true), argv=("asterisk",))
    assert pids(proc(fake).daemons(str(tmp_path / "asterisk"))) == [50]


def test_pid_file(fake: FakeProc, tmp_path: Path) -> None:
    path = tmp_path / "asterisk.pid"
    look = proc(fake)
    assert look.from_pid_file(str(path), BINARY) is None
    fake.add(50, "asterisk", exe=BINARY)
    fake.add(51, "cron", exe="/usr/sbin/cron")
    fake.add(52, "asterisk", "Z")
    for text, pid in (("50\n", 50), ("51\n", None), ("99\n", None), ("", None), ("x", None)):
        path.write_text(text)
        found = look.from_pid_file(str(path), BINARY)
        assert (found.pid if found else None) == pid
    path.write_text("52")
    dead = look.from_pid_file(str(path), BINARY)
    assert dead is not None
    assert dead.gone


def test_gone(fake: FakeProc) -> None:
    fake.add(50, "asterisk", exe=BINARY, started=100)
    process = proc(fake).process(50)
    assert process is not None
    seen = [process.gone]
    fake.task(50, 60, "D")
    fake.task(50, 50, "Z")
    seen.append(process.gone)  # a thread lives
    fake.task(50, 60, "Z")
    seen.append(process.gone)
    fake.add(50, "asterisk", exe=BINARY, started=200)  # the number, taken by another
    seen.append(process.gone)
    fake.remove(50)
    seen.append(process.gone)
    assert seen == [False, False, True, True, True]


def test_name_with_brackets_and_spaces(fake: FakeProc) -> None:
    fake.add(50, "a) S 1 (b", "T", parent=7)
    process = proc(fake).process(50)
    assert process is not None
    assert (process.name, process.state, process.parent) == ("a) S 1 (b", "T", 7)


def test_unit_members(fake: FakeProc) -> None:
    fake.add(50, "asterisk", cgroup="/system.slice/asterisk.service")
    fake.add(51, "astcanary", cgroup="/system.slice/asterisk.service/sub", space="pid:[2]")
    fake.add(52, "pacemaker-execd", cgroup="/system.slice/pacemaker.service")
    fake.add(53, "other", cgroup="/system.slice/not-asterisk.service")
    # Names that others give in groups of their own.
    fake.add(54, "asterisk", cgroup=f"/{USERS}/app.slice/asterisk.service", uid=1000)
    fake.add(55, "asterisk", cgroup="/system.slice/web.service/asterisk.service", uid=33)
    fake.add(56, "asterisk", cgroup="/machine.slice/m.scope/system.slice/asterisk.service")
    assert pids(proc(fake).members("asterisk.service")) == [50, 51]


def test_unit_members_in_control_groups_of_version_1(fake: FakeProc) -> None:
    for pid, path in ((1, "/init.scope"), (50, "/system.slice/asterisk.service")):
        fake.add(pid, "asterisk")
        text = f"9:name=systemd:{path}\n4:memory:/\n0::/\n"
        (fake.root / str(pid) / "cgroup").write_text(text)
    assert pids(proc(fake).members("asterisk.service")) == [50]


def test_unit_members_in_a_container_that_sees_its_hosts_groups(fake: FakeProc) -> None:
    fake.add(1, "systemd", cgroup="/lxc/pbx/init.scope")
    fake.add(50, "asterisk", cgroup="/lxc/pbx/system.slice/asterisk.service")
    fake.add(51, "asterisk", cgroup="/lxc/other/system.slice/asterisk.service")
    assert pids(proc(fake).members("asterisk.service")) == [50]


def test_names_that_anybody_chooses_are_printable(fake: FakeProc) -> None:
    fake.add(50, "a\x1b[2Jb\nc")
    process = proc(fake).process(50)
    assert process is not None
    assert str(process) == "a\\x1b[2Jb\\nc (50)"
    assert str(process.tasks()[0]) == "thread 50 (a\\x1b[2Jb\\nc)"


def test_a_signal_never_reaches_the_next_with_its_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Proc().process(child.pid)
        assert process is not None
        started, process.started = process.started, "1"
        process.send(signal.SIGKILL)
        assert child.poll() is None
        process.started = started
        process.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        process.send(signal.SIGKILL)  # gone is no error


def test_descendants(fake: FakeProc) -> None:
    fake.add(50, "asterisk")
    fake.add(51, "sh", parent=50)
    fake.add(52, "php", parent=51)
    fake.add(53, "bystander")
    process = proc(fake).process(50)
    assert process is not None
    assert pids(proc(fake).descendants([process])) == [51, 52]


def test_descendants_whose_parents_have_ended(fake: FakeProc) -> None:
    fake.add(50, "asterisk", session=50)
    fake.add(52, "sox", parent=1, session=50)
    fake.add(53, "php", parent=52, session=53)
    fake.add(54, "bystander", parent=1, session=1)
    process = proc(fake).process(50)
    assert process is not None
    assert pids(proc(fake).descendants([process])) == [52, 53]
    shutil.rmtree(fake.root / "50")
    assert pids(proc(fake).descendants([process])) == [52, 53]
    fake.add(50, "another", started=101, session=50)
    fake.add(55, "its child", parent=50, session=50)
    assert pids(proc(fake).descendants([process])) == []


def test_a_session_that_it_does_not_lead_is_not_its_own(fake: FakeProc) -> None:
    fake.add(49, "bash", session=49)
    fake.add(50, "asterisk", parent=49, session=49)
    fake.add(51, "vi", parent=49, session=49)
    process = proc(fake).process(50)
    assert process is not None
    assert proc(fake).descendants([process]) == []


@pytest.mark.parametrize("kind", ["fifo", "link", "long"])
def test_a_pid_file_that_cannot_be_one(fake: FakeProc, tmp_path: Path, kind: str) -> None:
    """Asterisk's user may put there what he likes, and root reads it."""
    fake.add(50, "asterisk", exe="/usr/sbin/asterisk")
    file = tmp_path / "asterisk.pid"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to("/dev/zero")
    else:
        file.write_text("5" * 5000)
    assert proc(fake).from_pid_file(str(file), "/usr/sbin/asterisk") is None


def test_what_cannot_be_seen_is_not_gone(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of files or memory, ours, a stop must not say that Asterisk has ended."""
    fake.add(50, "asterisk", exe="/usr/sbin/asterisk")
    process = proc(fake).process(50)
    assert process is not None

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Failed, match="Too many open files"):
        _ = process.gone
    with pytest.raises(Failed, match="Too many open files"):
        proc(fake).daemons("/usr/sbin/asterisk")
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(Failed, match="Too many open files"):
        proc(fake).daemons("/usr/sbin/asterisk")


def test_tasks(fake: FakeProc) -> None:
    fake.add(50, "asterisk")
    fake.task(50, 51, "D", switches=8, where="jbd2_log_wait_commit")
    fake.task(50, 52, "t", tracer=77)
    process = proc(fake).process(50)
    assert process is not None
    assert sorted(task.tid for task in process.tasks()) == [50, 51, 52]
    (blocked,) = process.tasks_in("D")
    assert (str(blocked), blocked.where) == ("thread 51 (asterisk)", "jbd2_log_wait_commit")
    before = blocked.switches
    fake.task(50, 51, "D", switches=9)
    assert blocked.switches != before
    (traced,) = process.tasks_in("t")
    assert traced.tracer == 77


def test_sockets(fake: FakeProc) -> None:
    fake.add(50, "asterisk")
    fake.add(51, "kamailio")
    fake.socket(50, "udp", "00000000:13C4", queue=1280)
    fake.socket(50, "udp", "00000000:13C5")
    fake.socket(50, "udp6", "00000000000000000000000001000000:13C4")
    fake.socket(50, "tcp", "0100007F:13C4", state="0A")
    fake.socket(50, "tcp", "0100007F:13C4", state="01")  # a connection, not a listener
    fake.socket(51, "udp", "0A00000A:13C4")
    table = fake.root / "50" / "net" / "udp"
    others = (fake.root / "51" / "net" / "udp").read_text().splitlines()[1]
    table.write_text(table.read_text() + others.replace(" 7000 ", " 9999 ") + "\n")
    process = proc(fake).process(50)
    assert process is not None
    found = {str(one): one.queue for one in process.listening(5060, ("udp", "tcp"))}
    assert found == {
        "UDP 127.0.0.1 port 5060": 1280,
        "UDP ::1 port 5060": 0,
        "TCP 127.0.0.1 port 5060": 0,
    }


# The real thing


def test_a_socket_for_all_addresses_where_ipv6_is_off(fake: FakeProc) -> None:
    fake.add(50, "asterisk")
    fake.socket(50, "udp6", "0" * 32 + ":13C4")
    process = proc(fake).process(50)
    assert process is not None
    assert [one.address for one in process.listening(5060, ("udp",))] == ["::1"]
    (fake.root / "50/net/if_inet6").write_text("")
    assert [one.address for one in process.listening(5060, ("udp",))] == ["127.0.0.1"]


def test_own_sockets_are_found() -> None:
    me = Proc().process(os.getpid())
    assert me is not None
    with socket.socket() as listener, socket.socket(type=socket.SOCK_DGRAM) as udp:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert [str(one) for one in me.listening(port, ("tcp",))] == [f"TCP 127.0.0.1 port {port}"]
        udp.bind(("0.0.0.0", 0))
        port = udp.getsockname()[1]
        assert [one.bound for one in me.listening(port, ("udp",))] == ["0.0.0.0"]
    assert me.listening(port, ("udp",)) == []


def test_own_child_until_it_is_reaped() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = Proc().process(child.pid)
    assert process is not None
    seen = [process.gone]
    me = Proc().process(os.getpid())
    assert me is not None
    assert child.pid in pids(Proc().descendants([me]))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    seen.append(process.gone)  # a zombie alone holds nothing
    child.wait()
    seen.append(process.gone)
    assert seen == [False, True, True]


@pytest.mark.parametrize(
    ("cgroup", "file", "text", "by"),
    [
        ("0::/a/b", "a/b/cgroup.events", "populated 1\nfrozen 1\n", "a/b/cgroup.freeze"),
        ("0::/a/b", "a/b/cgroup.events", "populated 1\nfrozen 0\n", ""),
        ("0::/a", "unified/a/cgroup.events", "frozen 1\n", "unified/a/cgroup.freeze"),
        ("3:freezer:/a", "freezer/a/freezer.state", "FROZEN\n", "freezer/a/freezer.state"),
        ("3:freezer:/a", "freezer/a/freezer.state", "THAWED\n", ""),
        ("3:cpu,cpuacct:/a", "freezer/a/freezer.state", "FROZEN\n", ""),
    ],
)
def test_frozen_cgroup(
    fake: FakeProc, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    cgroup: str, file: str, text: str, by: str,
) -> None:
    groups = tmp_path_factory.mktemp("cgroup")
    monkeypatch.setattr(proc_module, "CGROUPS", str(groups))
    fake.add(50, "asterisk")
    (fake.root / "50/cgroup").write_text(cgroup + "\n")
    state = groups / file
    state.parent.mkdir(parents=True)
    state.write_text(text)
    process = Proc(str(fake.root)).process(50)
    assert process is not None
    assert process.frozen_by() == (str(groups / by) if by else "")
    process.thaw()
    # Only the old freezer keeps SIGKILL from its processes.
    assert state.read_text() == ("THAWED" if by.startswith("freezer") else text)


def test_no_command_line_is_read_without_end(tmp_path: Path) -> None:
    """Its process says where it begins and ends: prctl(2), PR_SET_MM. Gigabytes, seen."""
    fake = FakeProc(tmp_path)
    fake.add(5, "asterisk", argv=("asterisk", "x" * (1 << 20), "-r"))
    proc = Proc(str(tmp_path))
    process = proc.process(5)
    assert process is not None
    assert sum(map(len, proc._words(process))) < 1 << 18
