"""Which processes are our Asterisk, and which somebody only calls so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.asterisk.process.ours import Ours
from asha.asterisk.process.port_owner import strangers_at
from asha.asterisk.process.proc import Proc, Process
from tests.fakes.asterisk import FakeProc

BINARY = "/usr/sbin/asterisk"
UNIT = "asterisk.service"
IN_UNIT = f"/system.slice/{UNIT}"
CRON = "/system.slice/cron.service"
ACCOUNT, NOBODY, ADMIN = 107, 65534, 1000


class Scene:
    def __init__(self, folder: Path) -> None:
        (folder / "proc").mkdir()
        self.fake = FakeProc(folder / "proc")
        self.pid_file = folder / "asterisk.pid"
        self.main: int | None = None
        self.asked = 0

    def add(self, pid: int, uid: int, cgroup: str, *, state: str = "S", parent: int = 1,
            exe: str = BINARY, argv: tuple[str, ...] = ("asterisk", "-f")) -> None:
        self.fake.add(pid, "asterisk", state, exe=exe, argv=argv, uid=uid, cgroup=cgroup,
                      parent=parent, started=pid)

    def account(self) -> int:
        self.asked += 1
        return ACCOUNT

    def ours(self, group: str = UNIT) -> Ours:
        proc = Proc(str(self.fake.root))
        return Ours(proc, BINARY, str(self.pid_file), group, self.account, lambda: self.main)

    def running(self, group: str = UNIT) -> list[int]:
        return pids(self.ours(group).running())

    def all(self, group: str = UNIT) -> list[int]:
        return sorted(pids(self.ours(group).all()))


def pids(processes: list[Process]) -> list[int]:
    return [one.pid for one in processes]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("state", ["S", "T", "R"])
@pytest.mark.parametrize("uid", [NOBODY, 33, ADMIN])
@pytest.mark.parametrize(
    "cgroup", ["/", CRON, "/user.slice/user-0.slice/session-1.scope",
               "/user.slice/user-1000.slice/user@1000.service/app.slice/asterisk.service"],
)
def test_a_strangers_is_never_ours(scene: Scene, uid: int, cgroup: str, state: str) -> None:
    scene.add(50, uid, cgroup, state=state)
    scene.pid_file.write_text("50")
    for group in (UNIT, ""):
        assert scene.running(group) == []
        assert scene.all(group) == []


def test_a_strangers_that_is_on_its_way_out_for_ever(scene: Scene) -> None:
    """Its leader has ended, a thread has not, and it calls itself asterisk."""
    scene.fake.add(50, "asterisk", "Z", uid=NOBODY)
    scene.fake.task(50, 51, "S")
    assert scene.running() == []
    assert scene.all() == []


@pytest.mark.parametrize(
    ("cgroup", "counts"),
    [
        (IN_UNIT, True),
        (f"{IN_UNIT}/below", True),
        ("/system.slice/pacemaker.service", True),
        ("/", True),
        ("/..", True),
        ("/../../somewhere", True),  # entered from the host, by nsenter(1)
        ("/user.slice/user-0.slice/session-3.scope", True),
        ("/user.slice/user-1000.slice/session-3.scope", True),
        (CRON, False),
        ("/system.slice/atd.service", False),
        ("/system.slice/run-u7.service", False),
        ("/user.slice/user-107.slice/session-3.scope", False),
        ("/user.slice/user-107.slice/user@107.service/app.slice/asterisk.service", False),
        ("/user.slice", False),
        ("/machine.slice/machine-x.scope/system.slice/asterisk.service", False),
    ],
)
def test_the_accounts_counts_where_another_has_put_it(
    scene: Scene, cgroup: str, counts: bool
) -> None:
    scene.add(50, ACCOUNT, cgroup)
    assert scene.running() == ([50] if counts else [])
    assert scene.all() == [50]  # but a stop ends it
    assert scene.running("") == [50]  # where nothing else can tell


def test_an_account_that_has_ended_in_the_topmost_group_is_no_pbx(scene: Scene) -> None:
    """Version 1 shows every dead process there."""
    scene.fake.add(50, "asterisk", "Z", uid=ACCOUNT, cgroup="/")
    scene.fake.task(50, 51, "S")
    assert scene.running() == []


@pytest.mark.parametrize("cgroup", ["/", CRON, "/user.slice/user-107.slice/session-3.scope"])
def test_roots_counts_wherever_it_is(scene: Scene, cgroup: str) -> None:
    scene.add(50, 0, cgroup)
    assert scene.running() == [50]


def test_children_in_the_unit_come_after_asterisk(scene: Scene) -> None:
    scene.add(60, ACCOUNT, IN_UNIT)
    scene.add(50, ACCOUNT, IN_UNIT, parent=60)
    scene.add(70, ACCOUNT, IN_UNIT)  # its parents have ended
    scene.add(40, 0, "/")
    scene.pid_file.write_text("70")
    assert scene.running() == [60, 70, 50, 40]
    scene.main = 70  # systemd knows better
    assert scene.running()[0] == 70
    scene.main = 12  # a shell that starts Asterisk
    assert scene.running()[0] == 60
    scene.main = 0  # what it has left
    assert scene.running() == [40]
    assert scene.all() == [40, 50, 60, 70]
    scene.fake.add(80, "asterisk", "Z", uid=ACCOUNT, cgroup=IN_UNIT)
    scene.fake.task(80, 81, "D")
    assert scene.running() == [80, 40]  # that is no leftover: it does not end


def test_the_account_is_not_looked_up_for_nothing(scene: Scene) -> None:
    scene.add(50, ACCOUNT, IN_UNIT)
    scene.add(51, 0, "/")
    assert scene.running() == [50, 51]
    assert scene.asked == 0


def test_a_pid_file_names_a_console_of_roots(scene: Scene) -> None:
    """Whoever runs Asterisk writes it, also where Asterisk does not run."""
    scene.add(50, 0, "/", argv=("asterisk", "-rvvv"), exe="/opt/asterisk/sbin/asterisk")
    scene.pid_file.write_text("50")
    assert scene.running() == []


def test_a_pid_file_names_another_copy_of_roots(scene: Scene) -> None:
    scene.add(50, 0, "/", exe="/opt/asterisk/sbin/asterisk")
    scene.add(51, NOBODY, "/", exe="/opt/asterisk/sbin/asterisk")
    scene.pid_file.write_text("51")
    assert scene.running() == []
    scene.pid_file.write_text("50")
    assert scene.running() == [50]


def test_who_holds_a_port_is_named(scene: Scene) -> None:
    scene.add(50, ACCOUNT, IN_UNIT)
    scene.fake.add(60, "sip\x1b[31m", uid=NOBODY)
    scene.fake.socket(60, "udp", "00000000:13C4")
    scene.fake.socket(50, "udp", "00000000:13C5")
    table = scene.fake.root / "60/net/udp"
    (scene.fake.root / "50/net/udp").write_text(table.read_text())
    proc = Proc(str(scene.fake.root))
    process = proc.process(50)
    assert process is not None
    (said,) = strangers_at(proc, process, [5060])
    assert said == "sip\\x1b[31m (60) of user nobody holds UDP 127.0.0.1 port 5060"
    assert strangers_at(proc, process, [5080]) == []


def test_users_of_a_real_process() -> None:
    own = Proc().process(os.getpid())
    assert own is not None
    assert own.users[:2] == (os.getuid(), os.geteuid())
