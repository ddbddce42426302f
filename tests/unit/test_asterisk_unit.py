"""Starting by systemd or directly: what is run, and what its words mean."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from asha.agents.asterisk_health import AsteriskHealth
from asha.asterisk.process.proc import Proc
from asha.asterisk.process.unit import (
    WITH_FILES,
    Direct,
    SystemdUnit,
    has_unit,
    starts_at_boot,
    telling_line,
)
from asha.ocf import Context, Deadline, Expired, Failed, NotInstalled
from asha.run.runner import Completed
from tests.fakes.asterisk import FakeProc
from tests.fakes.ocf import CallQueue, FakeClock

UNIT = "asterisk.service"
SYNC = ("journalctl", "--sync")
SHOW = ("systemctl", "show", "-p")


class Scene:
    """A unit, with systemctl in a queue and a clock that only moves when told."""

    def __init__(self, root: Path) -> None:
        self.queue = CallQueue()
        self.err = io.StringIO()
        clock = FakeClock()
        context = Context(
            {"OCF_RESOURCE_INSTANCE": "p_asterisk"},
            clock=clock,
            sleep=clock.sleep,
            runner=self.queue,
            out=io.StringIO(),
            err=self.err,
        )
        self.agent = AsteriskHealth("stop", context)
        self.unit = SystemdUnit(self.agent, Proc(), UNIT, str(root))
        self.drop_in = root / "run/systemd/system/asterisk.service.d/50-asha.conf"

    def show(self, names: str, **values: str) -> None:
        out = "".join(f"{name}={value}\n" for name, value in values.items())
        self.queue.expect(*SHOW, names, UNIT, out=out)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_launch_writes_the_drop_in_and_does_not_wait(scene: Scene) -> None:
    scene.queue.expect("systemctl", "restart", "--no-block", UNIT)
    scene.unit.launch()
    scene.queue.done()
    assert scene.drop_in.stat().st_mode & 0o777 == 0o644
    said = scene.drop_in.read_text().splitlines()
    assert "Restart=no" in said
    assert "Before=pacemaker.service" in said
    assert "OnFailure=asha-asterisk-died@p_asterisk.service" in said
    assert 'Environment="RES_OPTIONS=timeout:1 attempts:2"' in said


@pytest.mark.parametrize(
    ("kind", "main", "active", "ready"),
    [
        ("notify", "50", "active", True),
        ("notify-reload", "50", "reloading", True),
        ("notify", "50", "activating", False),
        ("notify", "51", "active", False),
        ("simple", "50", "active", False),  # it is so from the first moment
    ],
)
def test_ready_is_what_asterisk_has_said(
    scene: Scene, tmp_path: Path, kind: str, main: str, active: str, ready: bool
) -> None:
    (tmp_path / "proc").mkdir()
    fake = FakeProc(tmp_path / "proc")
    fake.add(50, "asterisk")
    process = Proc(str(fake.root)).process(50)
    assert process is not None
    scene.show("Type,MainPID,ActiveState", Type=kind, MainPID=main, ActiveState=active)
    assert scene.unit.is_ready(process) == ready
    scene.queue.expect(*SHOW, "Type,MainPID,ActiveState", UNIT, raises=Expired("no answer"))
    assert not scene.unit.is_ready(process)


JOBS = ("systemctl", "list-jobs", "--no-legend", "--plain", UNIT)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("", False),
        ("No jobs running.\n", False),
        (f"1234 {UNIT} restart running\n", True),
        (f"1234 {UNIT} start   waiting\n", True),
        (f"1234 {UNIT} stop    running\n", False),
        (f"1234 {UNIT} reload  running\n", False),
        ("1234 other.service start running\n", False),
    ],
)
def test_a_start_of_somebody_elses_is_known(scene: Scene, out: str, expected: bool) -> None:
    scene.queue.expect(*JOBS, out=out)
    assert scene.unit.is_being_started() is expected
    scene.queue.expect(*JOBS, raises=Expired("no answer"))
    assert not scene.unit.is_being_started()
    scene.queue.expect(*JOBS, code=1, out=f"1 {UNIT} start running\n")
    assert not scene.unit.is_being_started()


def test_refused_launch_gives_the_first_line(scene: Scene) -> None:
    scene.queue.expect(
        "systemctl",
        "restart",
        "--no-block",
        UNIT,
        code=1,
        err="Failed to restart asterisk.service: destructive\nSee system logs for details.\n",
    )
    with pytest.raises(Failed, match=r"destructive$"):
        scene.unit.launch()


def test_systemd_is_not_reloaded_when_it_knows_the_drop_in(scene: Scene) -> None:
    scene.show(
        "DropInPaths,NeedDaemonReload", DropInPaths=str(scene.drop_in), NeedDaemonReload="no"
    )
    scene.unit.while_it_loads()
    scene.queue.done()


@pytest.mark.parametrize(("known", "stale"), [(False, "no"), (True, "yes")])
def test_systemd_is_reloaded_otherwise(scene: Scene, known: bool, stale: str) -> None:
    paths = f"/etc/other.conf {scene.drop_in if known else ''}"
    scene.show("DropInPaths,NeedDaemonReload", DropInPaths=paths, NeedDaemonReload=stale)
    scene.queue.expect("systemctl", "daemon-reload")
    scene.unit.while_it_loads()
    scene.queue.done()


def test_silent_systemd_does_not_fail_the_start(scene: Scene) -> None:
    scene.queue.expect(*SHOW, "DropInPaths,NeedDaemonReload", UNIT, raises=Expired("no answer"))
    scene.unit.while_it_loads()
    assert "no answer" in scene.err.getvalue()


DEATH = "ActiveState,SubState,Result,Job"


@pytest.mark.parametrize(
    ("active", "sub", "job"),
    [
        ("inactive", "dead", "12"),
        ("activating", "start", ""),
        ("deactivating", "stop-sigterm", "12"),
        ("active", "running", ""),
        ("failed", "failed", "77"),  # that was the run before
    ],
)
def test_a_process_may_yet_come(scene: Scene, active: str, sub: str, job: str) -> None:
    scene.show(DEATH, ActiveState=active, SubState=sub, Result="success", Job=job)
    assert scene.unit.verdict_on_death() is None


@pytest.mark.parametrize(
    ("active", "sub"),
    [
        ("failed", "failed"),
        ("inactive", "dead"),
        ("active", "exited"),
        ("activating", "auto-restart"),
    ],
)
def test_early_death_quotes_the_journal(scene: Scene, active: str, sub: str) -> None:
    scene.show(DEATH, ActiveState=active, SubState=sub, Result="exit-code", Job="")
    scene.show("InvocationID", InvocationID="ab12")
    scene.queue.expect(*SYNC)
    scene.queue.expect(
        *("journalctl", "-q", "-o", "cat", "-n", "50", "_SYSTEMD_INVOCATION_ID=ab12"),
        out="Asterisk 16\nNo such user 'x'!\n\x1b[1;31mNothing for seeding global EID\n",
    )
    assert scene.unit.verdict_on_death() == "asterisk.service: No such user 'x'!"


def test_slow_systemd_is_no_death(scene: Scene) -> None:
    scene.queue.expect(*SHOW, DEATH, UNIT, raises=Expired("no answer"))
    assert scene.unit.verdict_on_death() is None


def test_early_death_without_a_word(scene: Scene) -> None:
    scene.show(DEATH, ActiveState="failed", SubState="failed", Result="core-dump", Job="")
    scene.show("InvocationID", InvocationID="")
    scene.queue.expect(*SYNC)
    scene.queue.expect(
        "journalctl", "-q", "-o", "cat", "-n", "50", f"--unit={UNIT}", raises=NotInstalled("none")
    )
    assert scene.unit.verdict_on_death() == "asterisk.service: result core-dump"


@pytest.mark.parametrize(("code", "status", "how"), [
    ("2", "9", ("killed", "KILL")), ("3", "11", ("dumped", "SEGV")), ("1", "1", ("exited", "1")),
    ("0", "0", None), ("2", "999", None), ("", "", None),
])
def test_how_it_ended_is_told_as_systemd_tells_the_notice(
    scene: Scene, code: str, status: str, how: tuple[str, str] | None
) -> None:
    scene.show("ExecMainCode,ExecMainStatus", ExecMainCode=code, ExecMainStatus=status)
    said = scene.unit.last_end()
    if how is None:
        assert not said.get("MONITOR_EXIT_CODE")
    else:
        assert said == {"MONITOR_EXIT_CODE": how[0], "MONITOR_EXIT_STATUS": how[1]}


def test_unit_at_rest_is_left_alone(scene: Scene) -> None:
    scene.show("ActiveState,Job", ActiveState="inactive", Job="")
    scene.unit.settle()
    scene.queue.done()


def test_start_of_a_killed_action_is_taken_back(scene: Scene) -> None:
    scene.show("ActiveState,Job", ActiveState="inactive", Job="77")
    scene.queue.expect("systemctl", "stop", "--no-block", UNIT)
    scene.show("ActiveState,Job", ActiveState="deactivating", Job="78")
    scene.queue.expect("systemctl", "stop", "--no-block", UNIT)
    scene.show("ActiveState,Job", ActiveState="failed", Job="")
    scene.queue.expect("systemctl", "reset-failed", UNIT)
    scene.unit.settle()
    scene.queue.done()


def test_unit_that_does_not_come_to_rest_fails_the_stop(scene: Scene) -> None:
    scene.agent.deadline = Deadline(0, FakeClock())
    scene.show("ActiveState,Job", ActiveState="activating", Job="")
    with pytest.raises(Failed, match="activating"):
        scene.unit.settle()


def test_slow_systemd_is_waited_for(scene: Scene) -> None:
    """It may have a start in its queue that a killed action asked for."""
    scene.queue.expect(*SHOW, "ActiveState,Job", UNIT, raises=Expired("no answer"))
    scene.show("ActiveState,Job", ActiveState="inactive", Job="77")
    scene.queue.expect("systemctl", "stop", "--no-block", UNIT)
    scene.show("ActiveState,Job", ActiveState="inactive", Job="")
    scene.unit.settle()
    scene.queue.done()


def test_silent_systemd_fails_the_stop(scene: Scene) -> None:
    scene.agent.deadline = Deadline(0, FakeClock())
    scene.queue.expect(*SHOW, "ActiveState,Job", UNIT, raises=Expired("no answer"))
    with pytest.raises(Failed, match="systemd may start it: no answer"):
        scene.unit.settle()


def test_without_systemctl_nothing_is_queued(scene: Scene) -> None:
    scene.queue.expect(*SHOW, "ActiveState,Job", UNIT, raises=NotInstalled("no systemctl"))
    scene.unit.settle()
    assert "no systemctl" in scene.err.getvalue()


# Is there a unit?


def test_unit_file_is_found_only_under_systemd(tmp_path: Path) -> None:
    root = str(tmp_path)
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / UNIT).touch()
    assert not has_unit(UNIT, root)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert has_unit(UNIT, root)
    assert not has_unit("other.service", root)


def test_masked_unit_is_no_unit(tmp_path: Path) -> None:
    for folder in ("usr/lib/systemd/system", "etc/systemd/system", "run/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system" / UNIT).touch()
    (tmp_path / "etc/systemd/system" / UNIT).symlink_to("/dev/null")
    assert not has_unit(UNIT, str(tmp_path))


def test_enabled_unit_is_warned_of(scene: Scene, tmp_path: Path) -> None:
    assert scene.unit.warning() == ""
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / UNIT).symlink_to("/usr/lib/systemd/system/asterisk.service")
    assert starts_at_boot(UNIT, str(tmp_path))
    assert "systemctl disable asterisk.service" in scene.unit.warning()


def test_a_unit_whose_process_has_left_it(scene: Scene) -> None:
    scene.show(DEATH, ActiveState="failed", SubState="failed", Result="protocol", Job="")
    scene.show("InvocationID", InvocationID="")
    scene.queue.expect(*SYNC)
    scene.queue.expect("journalctl", "-q", "-o", "cat", "-n", "50", f"--unit={UNIT}")
    assert (scene.unit.verdict_on_death() or "").endswith("is alwaysfork on in asterisk.conf?")


def test_what_the_one_that_was_left_says_hides_nothing(scene: Scene) -> None:
    scene.show(DEATH, ActiveState="failed", SubState="failed", Result="protocol", Job="")
    scene.show("InvocationID", InvocationID="abc")
    scene.queue.expect(*SYNC, raises=Expired("slow"))
    scene.queue.expect(
        "journalctl", "-q", "-o", "cat", "-n", "50", "_SYSTEMD_INVOCATION_ID=abc",
        out="radcli: can't open a file\n",
    )
    said = scene.unit.verdict_on_death() or ""
    assert "is alwaysfork on in asterisk.conf?" in said
    assert said.endswith("radcli: can't open a file")


# Without systemd


class Starter(CallQueue):
    """Remembers what a daemon would inherit."""

    environ: Mapping[str, str] | None = None
    shared = True

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        cap: float | None = None,
        environ: Mapping[str, str] | None = None,
        stdin: str | None = None,
        share_lock: bool = True,
        leave: Callable[[], bool] | None = None,
    ) -> Completed:
        assert leave is not None
        assert not leave()
        self.environ, self.shared = environ, share_lock
        return super().run(argv, deadline)


def direct(scene: Scene, root: Path, runner: CallQueue) -> Direct:
    scene.agent.context.runner = runner
    return Direct(scene.agent, Proc(), "/usr/sbin/asterisk", "asterisk", "phones", str(root))


KEPT = "/drbd/last-good/0001-20261129T180355/files"
RELOAD = ("systemctl", "daemon-reload")


def test_other_files_are_the_units_from_the_next_start_on(scene: Scene) -> None:
    drop_in = scene.drop_in.with_name("60-asha-last-good.conf")
    scene.unit.use("")  # as nearly always: nothing is asked
    scene.queue.expect(*RELOAD)
    scene.unit.use(KEPT)
    link = Path(scene.unit.kept_link)
    assert f"BindReadOnlyPaths=-{link}:/etc/asterisk" in drop_in.read_text().splitlines()
    assert os.readlink(link) == KEPT
    assert drop_in.stat().st_mode & 0o777 == 0o644
    # systemd may not have read it when the last action was killed.
    scene.queue.expect(*RELOAD)
    scene.unit.use(KEPT)
    # Who stops it, or wants today's files, waits for nobody: without the link they are today's.
    scene.unit.use("")
    assert not drop_in.exists()
    assert not link.is_symlink()
    scene.unit.use("")
    scene.queue.done()


def test_a_start_with_files_that_systemd_does_not_know_is_none(scene: Scene) -> None:
    drop_in = scene.drop_in.with_name("60-asha-last-good.conf")
    scene.queue.expect(*RELOAD, code=1, err="no memory\n")
    with pytest.raises(Failed, match=r"other files for asterisk\.service: no memory"):
        scene.unit.use(KEPT)
    # The next start sees what systemd still has.
    assert not drop_in.exists()
    scene.queue.done()


def test_direct_start_with_other_files(scene: Scene, tmp_path: Path) -> None:
    """In a mount namespace of its own; the script is always the same."""
    starter = Starter()
    (script,) = [word for word in WITH_FILES if "mount" in word and " " in word]
    starter.expect(
        *("unshare", "--mount", "--propagation=slave", "--", "sh", "-c", script, "sh"),
        *(KEPT, "/etc/asterisk", "/usr/sbin/asterisk", "-g", "-U", "asterisk", "-G", "phones"),
    )
    launcher = direct(scene, tmp_path, starter)
    launcher.use(KEPT)
    launcher.launch()
    starter.done()


def test_direct_start_gives_asterisk_nothing_of_ours(scene: Scene, tmp_path: Path) -> None:
    starter = Starter()
    starter.expect("/usr/sbin/asterisk", "-g", "-U", "asterisk", "-G", "phones")
    direct(scene, tmp_path, starter).launch()
    starter.done()
    assert starter.environ is not None
    assert set(starter.environ) == {"PATH", "RES_OPTIONS"}
    assert not starter.shared


def test_direct_start_under_systemd_is_in_a_slice_of_its_own(
    scene: Scene, tmp_path: Path
) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    starter = Starter()
    starter.expect(
        *("systemd-run", "--quiet", "--scope", "--collect", "--slice=asha-p_asterisk.slice"),
        *("--property=Before=pacemaker.service", "--"),
        *("/usr/sbin/asterisk", "-g", "-U", "asterisk", "-G", "phones"),
    )
    launcher = direct(scene, tmp_path, starter)
    launcher.launch()
    starter.done()
    assert launcher.control_group == "asha-p_asterisk.slice"
    launcher.settle()
    assert scene.err.getvalue() == ""


def test_without_systemd_a_stop_names_what_it_cannot_tell(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asha.asterisk.process.unit.account_number", lambda name, deadline: 107)
    (tmp_path / "proc").mkdir()
    fake = FakeProc(tmp_path / "proc")
    fake.add(50, "agi.php", uid=107)
    fake.add(51, "cron", uid=0)
    fake.add(52, "php", uid=107, parent=51)
    launcher = direct(scene, tmp_path, Starter())
    launcher.proc = Proc(str(fake.root))
    launcher.settle()
    assert "still run: agi.php (50)\n" in scene.err.getvalue()


MAIN = "MainPID,ActiveState"


@pytest.mark.parametrize(
    ("pid", "active", "main"),
    [
        ("50", "active", 50),
        ("50", "deactivating", 50),
        ("0", "deactivating", 0),
        ("0", "failed", 0),
        ("0", "active", None),  # a start script of System V
        ("", "", None),
    ],
)
def test_main_process(scene: Scene, pid: str, active: str, main: int | None) -> None:
    scene.show(MAIN, MainPID=pid, ActiveState=active)
    assert scene.unit.main() == main


def test_main_process_where_systemd_does_not_answer(scene: Scene) -> None:
    scene.queue.expect(*SHOW, MAIN, UNIT, raises=Expired("no answer"))
    assert scene.unit.main() is None


def test_direct_start_that_fails_at_once(scene: Scene, tmp_path: Path) -> None:
    starter = Starter()
    starter.expect(
        *("/usr/sbin/asterisk", "-g", "-U", "asterisk", "-G", "phones"),
        code=1,
        err="No such user\n",
    )
    with pytest.raises(Failed, match="No such user"):
        direct(scene, tmp_path, starter).launch()


def test_direct_death_quotes_the_log(scene: Scene, tmp_path: Path) -> None:
    starter = Starter()
    starter.expect("/usr/sbin/asterisk", "-g", "-U", "asterisk", "-G", "phones")
    launcher = direct(scene, tmp_path, starter)
    launcher.launch()
    assert "-f -U asterisk shows why" in (launcher.verdict_on_death() or "")
    log = tmp_path / "var/log/asterisk/messages"
    log.parent.mkdir(parents=True)
    log.write_text("ERROR[1] db.c: cannot open the database\nNOTICE[1] bye\n")
    assert "cannot open the database" in (launcher.verdict_on_death() or "")


def test_missing_user_is_told_before_the_start(scene: Scene, tmp_path: Path) -> None:
    launcher = Direct(scene.agent, Proc(), "/x", "no-such-user-here", "root", str(tmp_path))
    with pytest.raises(NotInstalled, match="no-such-user-here"):
        launcher.validate()


def test_telling_line() -> None:
    assert telling_line([]) == ""
    assert telling_line(["a", "", "b"]) == "b"
    assert telling_line(["\x1b[1;31mERROR\x1b[0m[1]: x", "b"]) == "ERROR[1]: x"
    assert telling_line(["a", "ERROR: chan_x declined to load."]) == "a"
