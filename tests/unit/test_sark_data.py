"""The agent's policy, on a mount table that is only paper."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from asha.agents.sark_data import SPACE_ATTRIBUTE, WARNING_ATTRIBUTE, SarkData
from asha.data import space, sqlite
from asha.data.release import copies, holders, unmount
from asha.data.release.copies import Found
from asha.data.space import Space
from asha.ocf import Deadline, Exit
from asha.run.child import NoAnswer, is_alive, name_of, start_time
from tests.fakes.data import FakeKernel
from tests.fakes.ocf import CallQueue, Outcome, perform

NAMES = ("etc/asterisk", "var/lib/asterisk", "opt/sark/db")

PROBE = {"interval": "0"}
RECURRING = {"interval": "10000"}

GB = 10**9


def own_pids(me: int = os.getpid()) -> Iterator[int]:
    """This process, and all that it has started."""
    parents = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8") as file:
            parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    for pid in parents:
        ancestor = pid
        while ancestor not in (me, 0):
            ancestor = parents.get(ancestor, 0)
        if ancestor:
            yield pid


@pytest.fixture(autouse=True)
def nobody_elses_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mounts are made up, but the processes are this machine's: only those that a test has
    started are looked at, as a lab beside it has hundreds, and only who is seen to hold
    something of a test's may be ended. The rest is tried in test_sark_data_mounts.py, in a
    PID namespace."""

    def never(*_: object) -> None:
        raise AssertionError("all of a user's processes of this machine")

    monkeypatch.setattr(holders, "pids", own_pids)
    monkeypatch.setattr("asha.data.release.holders.signal_all", never)
    monkeypatch.setattr("asha.data.release.turns.restless", lambda limit: set())
    monkeypatch.setattr("asha.data.release.turns._still", lambda *_: True)
    monkeypatch.setattr(copies, "search", lambda *_, **__: Found())
    monkeypatch.setattr(copies, "of_users", lambda *_: [])
    monkeypatch.setattr("asha.data.release.unmount._unlisted", lambda *_: [])
    monkeypatch.setattr("asha.data.release.unmount._Others.next", lambda *_: [])


class BusyKernel(FakeKernel):
    """Mounts are busy while a process lives; 0 is none."""

    pid = 0
    started = ""

    def unmount(self, point: str, detach: bool = False, abort: bool = False) -> None:
        self.busy = [point] if self.pid and is_alive(self.pid, self.started) else ()
        super().unmount(point)


class Site:
    """One node with its store mounted, and the agent on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drbd = str(folder / "drbd")
        self.run = str(folder / "run")
        self.points = [str(folder / "node" / name) for name in NAMES]
        for point in self.points:
            os.makedirs(point)
            os.makedirs(self.drbd + point)
        self.kernel = kernel = BusyKernel(str(folder))
        self.queue = CallQueue()

        class Agent(SarkData):
            pass

        Agent.kernel = kernel
        self.agent = Agent
        self.parameters = {"data_root": self.drbd, "paths": " ".join(self.points)}
        self.mount_store()

    def mount_store(self) -> None:
        self.kernel.mount(self.drbd, "147:0", "/")

    def reboot(self) -> None:
        """Without the wiping of /run, to make it harder."""
        self.kernel._write(["1 0 254:0 / / rw,relatime - ext4 /dev/vda rw"])

    def do(
        self,
        action: str,
        meta: Mapping[str, str] | None = None,
        timeout: float = 20,
        level: int | None = None,
        given: Mapping[str, str] | None = None,
        **other: str,
    ) -> Outcome:
        return perform(
            self.agent,
            action,
            self.run,
            runner=self.queue,
            clock=None,
            timeout=timeout,
            instance="p_data",
            meta=meta,
            check_level=level,
            **{**self.parameters, **(given or {}), **other},
        )

    def expect_attribute(self, name: str, value: str | None, code: int = 0) -> None:
        rest = ["--delete"] if value is None else ["--update", value]
        self.queue.expect("attrd_updater", "--name", name, *rest, code=code)

    def bound(self) -> list[str]:
        return [point for point in self.points if self.kernel.shown_at(point)]

    def everything(self) -> list[str]:
        """All files, and the mount table: what "nothing changed" means."""
        files = [str(path) for path in self.folder.rglob("*")]
        return sorted(files) + self.kernel._lines()

    def state_file(self, kind: str) -> Path:
        return Path(self.run, f"sark-data-p_data.{kind}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.queue.done()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[Space], None]:
    return lambda room: monkeypatch.setattr(space, "measure", lambda root: room)


@pytest.fixture
def started(site: Site) -> Site:
    outcome = site.do("start")
    assert (outcome.code, outcome.reason) == (Exit.SUCCESS, "")
    assert site.bound() == site.points
    return site


# Life.


def test_a_life(site: Site, room: Callable[[Space], None]) -> None:
    room(Space(GB, 2 * GB))
    assert site.do("monitor", PROBE).code == Exit.NOT_RUNNING
    for _ in range(2):
        assert site.do("start").code == Exit.SUCCESS
    assert len(site.kernel.table()) == 2 + len(site.points)
    for point in site.points:
        assert site.kernel.shown_at(point) == point
    site.expect_attribute(SPACE_ATTRIBUTE, "ok")
    for meta in (PROBE, RECURRING, RECURRING):
        assert site.do("monitor", meta).code == Exit.SUCCESS
    for _ in range(2):
        assert site.do("stop").code == Exit.SUCCESS
    assert site.bound() == []
    assert site.do("monitor", RECURRING).code == Exit.NOT_RUNNING
    assert os.listdir(site.run) == ["sark-data-p_data.lock"]


def test_a_probe_writes_nothing(started: Site) -> None:
    before = started.everything()
    assert started.do("monitor", PROBE).code == Exit.SUCCESS
    assert started.everything() == before


def test_a_probe_of_a_stopped_one_writes_nothing(site: Site) -> None:
    before = site.everything()
    outcome = site.do("monitor", PROBE)
    assert (outcome.code, outcome.err) == (Exit.NOT_RUNNING, "")
    assert site.everything() == before


@pytest.mark.parametrize("store", [False, True])
def test_a_rebooted_node_is_not_running_whatever_is_left_over(started: Site, store: bool) -> None:
    started.reboot()
    if store:
        started.mount_store()
    assert started.state_file("mounts").exists()
    assert started.do("monitor", PROBE).code == Exit.NOT_RUNNING
    assert started.do("stop").code == Exit.SUCCESS


def test_the_start_tells_what_it_leaves_out(site: Site) -> None:
    outcome = site.do("start", paths=f"{site.points[0]} /no/such/place")
    assert outcome.code == Exit.SUCCESS
    assert "/no/such/place is left out: this node has no such directory" in outcome.err


# Refusals.


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"paths": "etc"}, "must be an absolute path"),
        ({"data_root": "drbd"}, "must be an absolute path"),
        ({"data_root": "/"}, "must be the mount point"),
        ({"paths": "/drbd/etc", "data_root": "/drbd"}, "inside the store"),
        ({"paths": "/a/b", "data_root": "/a/b/c"}, "would hide it"),
        ({"low_space": "100"}, "from 0 to 99"),
        ({"sqlite_errors": "ignore"}, "warn, refuse"),
        ({"write_timeout": "soon"}, "must be a time"),
        ({"force_unmount": "maybe"}, "true or false"),
    ],
)
@pytest.mark.parametrize("action", ["start", "validate-all"])
def test_bad_parameters_change_nothing(
    site: Site, parameters: dict[str, str], said: str, action: str
) -> None:
    before = site.kernel._lines()
    outcome = site.do(action, given=parameters)
    assert outcome.code == Exit.ERR_CONFIGURED
    assert said in outcome.reason
    assert site.kernel._lines() == before
    assert not site.state_file("mounts").exists()


def test_validate_all_looks_at_the_node_only_at_level_10(site: Site) -> None:
    site.reboot()
    assert site.do("validate-all").code == Exit.SUCCESS
    outcome = site.do("validate-all", level=10)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == (
        f"nothing is mounted at {site.drbd}: is data_root the directory of the Filesystem "
        "resource, and is that started?"
    )
    site.mount_store()
    assert site.do("validate-all", level=10).code == Exit.SUCCESS
    assert site.bound() == []


def test_a_start_without_its_store(site: Site) -> None:
    site.reboot()
    outcome = site.do("start")
    assert outcome.code == Exit.ERR_GENERIC
    assert "nothing is mounted" in outcome.reason
    assert site.do("monitor", PROBE).code == Exit.NOT_RUNNING


def test_all_is_checked_before_the_first_mount(site: Site) -> None:
    os.rmdir(site.drbd + site.points[-1])
    outcome = site.do("start")
    assert outcome.code == Exit.ERR_GENERIC
    assert "copy the data there first" in outcome.reason
    assert site.bound() == []
    assert not site.state_file("mounts").exists()


def test_a_start_on_a_read_only_store(site: Site) -> None:
    site.kernel.change(site.drbd, "/dev/drbd0 rw", "/dev/drbd0 ro")
    outcome = site.do("start")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("read-only: ")
    assert site.bound() == []


def test_a_mount_that_fails_undoes_those_before_it(site: Site) -> None:
    site.kernel.refuses = site.points[2:]
    outcome = site.do("start")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == (
        f"cannot bind {site.drbd}{site.points[2]} to {site.points[2]}: Permission denied"
    )
    assert site.bound() == []
    assert not site.state_file("mounts").exists()


def test_the_undo_leaves_what_was_there_before(started: Site) -> None:
    for point in started.points[1:]:
        started.kernel.unmount(point)
    started.kernel.refuses = started.points[2:]
    assert started.do("start").code == Exit.ERR_GENERIC
    assert started.bound() == started.points[:1]
    assert started.state_file("mounts").exists()
    started.kernel.refuses = ()
    assert started.do("start").code == Exit.SUCCESS
    assert started.bound() == started.points


# What monitor sees.


def test_one_that_is_gone_is_a_failure_and_all_are_not_running(started: Site) -> None:
    started.kernel.unmount(started.points[1])
    for meta in (PROBE, RECURRING):
        outcome = started.do("monitor", meta)
        assert outcome.code == Exit.ERR_GENERIC
        assert outcome.reason.startswith(f"{started.points[1]} is not bound to the store")
    started.kernel.unmount(started.points[0])
    started.kernel.unmount(started.points[2])
    assert started.do("monitor", RECURRING).code == Exit.NOT_RUNNING


@pytest.mark.parametrize("where", ["mount", "store"])
def test_read_only(started: Site, where: str) -> None:
    if where == "mount":
        started.kernel.change(started.points[0], " rw shared", " ro shared")
    else:
        started.kernel.change(started.drbd, "/dev/drbd0 rw", "/dev/drbd0 rw,emergency_ro")
    outcome = started.do("monitor", PROBE)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("read-only: ")


def test_a_read_only_disk_below_ours_does_not_matter(site: Site) -> None:
    site.kernel.mount(site.points[0], "8:1", options="ro", source="/dev/sda1")
    assert site.do("start").code == Exit.SUCCESS
    assert site.do("monitor", PROBE).code == Exit.SUCCESS
    assert site.do("stop").code == Exit.SUCCESS
    assert [mount.device for mount in site.kernel.table()] == ["254:0", "147:0", "8:1"]


def test_another_disk_on_top(started: Site) -> None:
    started.kernel.mount(started.points[0], "0:50", source="tmpfs")
    assert started.do("monitor", RECURRING).code == Exit.ERR_GENERIC


def test_the_store_unmounted_under_its_binds(started: Site) -> None:
    started.kernel.unmount(started.drbd)
    outcome = started.do("monitor", RECURRING)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == (
        f"{started.drbd} is no longer mounted, though its directories are bound"
    )
    assert not os.path.exists(started.drbd + "/.asha"), "nothing was written to the local disk"
    assert started.do("stop").code == Exit.SUCCESS
    assert started.bound() == []


def test_the_disk_is_probed_by_recurring_monitors_only(
    started: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(root: str, node: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(space, "_write", write)
    assert started.do("monitor", PROBE).code == Exit.SUCCESS
    assert started.do("start").code == Exit.SUCCESS
    outcome = started.do("monitor", RECURRING)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("read-only: ")


def test_a_stalled_disk(started: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_write", lambda root, node: time.sleep(1000))
    outcome = started.do("monitor", RECURRING, write_timeout="200ms")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("stalled: ")


# The memory is lost.


def test_without_memory_the_parameters_tell(started: Site) -> None:
    started.state_file("mounts").unlink()
    assert started.do("monitor", PROBE).code == Exit.SUCCESS
    started.kernel.unmount(started.points[2])
    outcome = started.do("monitor", PROBE)
    assert outcome.code == Exit.ERR_GENERIC
    assert started.points[2] in outcome.reason
    assert started.do("stop").code == Exit.SUCCESS
    assert started.bound() == []


def test_no_place_for_the_memory_keeps_no_phone_down(site: Site) -> None:
    Path(site.run).write_text("a file where the directory should be")
    outcome = site.do("start")
    assert outcome.code == Exit.SUCCESS
    assert "goes without its state file" in outcome.err
    assert site.bound() == site.points
    assert site.do("monitor", PROBE).code == Exit.SUCCESS
    assert site.do("stop").code == Exit.SUCCESS
    assert site.bound() == []


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("bad", [{}, {"paths": "nonsense"}, {"force_unmount": "maybe"}])
def test_stop_with_little_to_go_by(
    started: Site, memory: bool, store: bool, bad: dict[str, str]
) -> None:
    if not memory:
        started.state_file("mounts").unlink()
    if not store:
        started.kernel.unmount(started.drbd)
    outcome = started.do("stop", given=bad)
    assert outcome.code == Exit.SUCCESS
    if memory or store or "paths" not in bad:
        assert started.bound() == []


def test_stop_with_a_bad_data_root(started: Site) -> None:
    assert started.do("stop", data_root="nonsense").code == Exit.SUCCESS
    assert started.bound() == []


def test_other_paths_after_the_start(started: Site, tmp_path: Path) -> None:
    (tmp_path / "node/other").mkdir()
    (Path(started.drbd + str(tmp_path)) / "node/other").mkdir()
    other = str(tmp_path / "node/other")
    assert started.do("stop", paths=other).code == Exit.SUCCESS
    assert started.bound() == []


def test_a_start_removes_what_another_store_left(started: Site) -> None:
    started.kernel.unmount(started.drbd)
    started.kernel.mount(started.drbd, "147:1")
    assert started.do("start").code == Exit.SUCCESS
    devices = {mount.device for mount in started.kernel.table() if mount.point in started.points}
    assert devices == {"147:1"}
    assert len(started.kernel.table()) == 2 + len(started.points)


# Stop against resistance.


def test_all_that_is_stacked_goes(started: Site) -> None:
    started.kernel.show(started.drbd + started.points[0], started.points[0])
    assert started.do("monitor", PROBE).code == Exit.SUCCESS
    assert started.do("stop").code == Exit.SUCCESS
    assert started.bound() == []


def test_what_others_mounted_on_top(started: Site) -> None:
    below = started.points[0] + "/recordings"
    started.kernel.mount(below, "0:50", source="nas:/recordings")
    outcome = started.do("stop", force_unmount="false")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == (
        f"nas:/recordings is mounted on {below}, on top of ours: unmount it first"
    )
    outcome = started.do("stop")
    assert outcome.code == Exit.SUCCESS
    assert "unmounts it too" in outcome.err
    assert len(started.kernel.table()) == 2


def test_busy_and_nobody_there(started: Site) -> None:
    started.kernel.pid = os.getpid()  # which holds nothing
    started.kernel.started = start_time(os.getpid())
    outcome = started.do("stop", timeout=2)
    assert outcome.code == Exit.ERR_GENERIC
    assert "is busy, though no process is seen to use it" in outcome.reason
    assert started.bound() == started.points


def test_what_stays_for_a_while_after_its_process(
    started: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An io_uring does. Nobody else may pay for it."""
    ended: list[float] = []

    def never(*_: object) -> None:
        raise AssertionError("ended another's processes")

    with subprocess.Popen(["sleep", "1000"]) as holder:

        def unlisted(*_: object) -> list[holders.Holder]:
            return holders.perhaps([holder.pid], started.points[0]) if not ended else []

        def unmount_each(*given: object) -> list[str]:
            if not ended and holder.poll() is not None:
                ended.append(time.monotonic())
            if not ended or time.monotonic() < ended[0] + 1.5:
                return started.points[:1]
            return genuine(*given)  # type: ignore[arg-type]

        genuine = unmount._unmount_each
        monkeypatch.setattr("asha.data.release.unmount._unlisted", unlisted)
        monkeypatch.setattr("asha.data.release.unmount._Others.next", never)
        monkeypatch.setattr("asha.data.release.unmount._unmount_each", unmount_each)
        outcome = started.do("stop")
        holder.kill()
    assert (outcome.code, started.bound(), len(ended)) == (Exit.SUCCESS, [], 1), outcome.err


def test_a_mount_that_somebody_else_removes_is_looked_for_again(
    started: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = started.kernel.unmount

    def unmount(point: str) -> None:
        genuine(point)  # by the other
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(started.kernel, "unmount", unmount)
    assert started.do("stop").code == Exit.SUCCESS
    assert started.bound() == []


def test_the_error_of_an_umount_is_told(started: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def unmount(point: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(started.kernel, "unmount", unmount)
    outcome = started.do("stop")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == f"cannot unmount {started.points[2]}: Operation not permitted"


class Holding:
    """A process that has a file open below the first point."""

    def __init__(self, site: Site, ignores_term: bool) -> None:
        code = "import signal, sys, time; f = open(sys.argv[1], 'w')\n"
        if ignores_term:
            code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code + "print(flush=True); time.sleep(1000)",
                site.points[0] + "/file",
            ],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        site.kernel.pid = self.process.pid
        site.kernel.started = start_time(self.process.pid)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("ignores_term", [False, True])
def test_a_holder_is_named_and_ended(
    started: Site, ignores_term: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asha.data.release.unmount.TERM_SECONDS", 0.5)
    holding = Holding(started, ignores_term)
    try:
        outcome = started.do("stop")
        assert outcome.code == Exit.SUCCESS
        assert f"{started.points[0]} is held by " in outcome.err
        assert f"(pid {holding.process.pid}): sends it SIGTERM" in outcome.err
        assert ("sends it SIGKILL" in outcome.err) is ignores_term
        assert started.bound() == []
    finally:
        holding.end()


def test_a_holder_is_only_named(started: Site) -> None:
    holding = Holding(started, ignores_term=False)
    try:
        outcome = started.do("stop", force_unmount="false")
        assert outcome.code == Exit.ERR_GENERIC
        assert outcome.reason.startswith(f"{started.points[0]} is held by ")
        assert f"(pid {holding.process.pid})" in outcome.reason
        assert holding.process.poll() is None
    finally:
        holding.end()


def test_those_who_started_us_are_not_killed(started: Site) -> None:
    started.kernel.pid = os.getpid()
    started.kernel.started = start_time(os.getpid())
    before = time.monotonic()
    with open(started.points[0] + "/file", "w"):
        outcome = started.do("stop")
    assert outcome.code == Exit.ERR_GENERIC
    assert f"(pid {os.getpid()}), which may not be killed" in outcome.reason
    assert time.monotonic() - before < 10, "nothing to wait for"


# Stop against what has the disk elsewhere.


def elsewhere(site: Site, monkeypatch: pytest.MonkeyPatch, *, maps_hang: bool = False) -> None:
    """A process that has the store somewhere, for as long as it lives."""

    def find(device: str, point: str, users: Callable[[], Collection[int]], *,
             release: bool, maps: bool, limit: Deadline) -> Found:
        if maps and maps_hang:
            raise NoAnswer("a look did not end within 5 s", 0, False)
        found = Found()
        holder = holders.describe(site.kernel.pid, f"{point}, elsewhere,", {1})
        if device == "147:0" and holder is not None and not holder.is_gone:
            found.holders.append(holder)
        return found

    monkeypatch.setattr(copies, "search", find)


@pytest.mark.parametrize("maps_hang", [False, True])
def test_who_has_the_store_elsewhere_is_ended(
    started: Site, monkeypatch: pytest.MonkeyPatch, maps_hang: bool
) -> None:
    holding = Holding(started, ignores_term=False)
    pid, started.kernel.pid = started.kernel.pid, 0  # it keeps no mount of ours busy
    try:
        assert started.do("stop", force_unmount="false").code == Exit.SUCCESS
        assert started.do("start").code == Exit.SUCCESS
        elsewhere(started, monkeypatch, maps_hang=maps_hang)
        started.kernel.unmount = FakeKernel.unmount.__get__(started.kernel)  # type: ignore[method-assign]
        started.kernel.pid = pid
        for _ in range(2):
            outcome = started.do("stop", force_unmount="false")
            assert outcome.code == Exit.ERR_GENERIC
            assert f"elsewhere, is held by {name_of(pid)} (pid {pid})" in outcome.reason
        assert holding.process.poll() is None
        outcome = started.do("stop")
        assert outcome.code == Exit.SUCCESS
        assert "sends it SIGTERM" in outcome.err
        assert ("did not end within" in outcome.err) is maps_hang
        assert started.do("stop").code == Exit.SUCCESS
    finally:
        holding.end()


def test_a_mount_that_no_process_has_fails_the_stop(
    started: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_: object, **__: object) -> Found:
        found = Found()
        found.rest.append("the store is still mounted somewhere")
        return found

    monkeypatch.setattr(copies, "search", find)
    outcome = started.do("stop")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("the store is still mounted somewhere: end what keeps it")


def test_the_disk_of_the_whole_node_is_never_asked_for(
    started: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "asha.data.release.unmount.end_copies",
        lambda agent, devices, *_, **__: asked.append(list(devices)),
    )
    assert started.do("stop").code == Exit.SUCCESS
    started.kernel.mount("/elsewhere", "254:0")
    assert started.do("stop", data_root="/elsewhere").code == Exit.SUCCESS
    assert started.do("stop", data_root="/").code == Exit.SUCCESS
    assert asked == [["147:0"], [], []]


# Room.


def test_room_is_told_when_it_changes(started: Site, room: Callable[[Space], None]) -> None:
    for free, text in (
        (GB, "ok"),
        (GB, None),
        (GB // 20, "low: 50 MB free of 1.0 GB (5 %)"),
        (GB // 25, "low: 40 MB free of 1.0 GB (4 %)"),
        (GB // 25 + 1_000_000, None),
        (GB // 2, "ok"),
    ):
        room(Space(free, GB))
        if text is not None:
            started.expect_attribute(SPACE_ATTRIBUTE, text)
        assert started.do("monitor", RECURRING).code == Exit.SUCCESS
        started.queue.done()


def test_a_full_disk_is_degraded_and_never_moves_the_phones(
    started: Site, room: Callable[[Space], None]
) -> None:
    room(Space(0, GB))
    started.expect_attribute(SPACE_ATTRIBUTE, "full: 0 kB free of 1.0 GB (0 %)")
    for _ in range(2):
        outcome = started.do("monitor", RECURRING)
        assert outcome.code == Exit.DEGRADED
        assert outcome.reason.startswith(f"full: {started.drbd} has 0 kB free")
    assert started.do("start").code == Exit.SUCCESS
    started.expect_attribute(SPACE_ATTRIBUTE, None)
    assert started.do("stop").code == Exit.SUCCESS


def test_what_the_cluster_did_not_take_is_told_again(
    started: Site, room: Callable[[Space], None]
) -> None:
    room(Space(GB, GB))
    started.expect_attribute(SPACE_ATTRIBUTE, "ok", code=1)
    started.expect_attribute(SPACE_ATTRIBUTE, "ok")
    for _ in range(3):
        assert started.do("monitor", RECURRING).code == Exit.SUCCESS


def test_a_start_tells_the_room_anew(started: Site, room: Callable[[Space], None]) -> None:
    room(Space(GB, GB))
    for _ in range(2):
        started.expect_attribute(SPACE_ATTRIBUTE, "ok")
        assert started.do("monitor", RECURRING).code == Exit.SUCCESS
        started.reboot()  # the node left the cluster, and /run was not wiped
        started.mount_store()
        assert started.do("start").code == Exit.SUCCESS


# Databases.


@pytest.fixture
def corrupt(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sqlite, "PLACES", {site.points[2]: (".db",)})
    path = site.points[2] + "/sark.db"
    Path(path).write_bytes(b"not a database, " * 300)
    return path


def test_a_corrupt_database_keeps_no_phone_down(site: Site, corrupt: str) -> None:
    reason = f"{corrupt} is corrupt (file is not a database): restore it from a backup"
    site.expect_attribute(WARNING_ATTRIBUTE, reason)
    outcome = site.do("start")
    assert outcome.code == Exit.SUCCESS
    assert f"WARNING: sark-data(p_data): {reason}" in outcome.err
    assert site.bound() == site.points
    site.expect_attribute(WARNING_ATTRIBUTE, None)
    assert site.do("stop").code == Exit.SUCCESS
    os.unlink(corrupt)
    assert site.do("start").code == Exit.SUCCESS


def test_unless_it_is_told_to_refuse(site: Site, corrupt: str) -> None:
    outcome = site.do("start", sqlite_errors="refuse")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"{corrupt} is corrupt")
    assert site.bound() == []


@pytest.mark.parametrize("errors", ["warn", "refuse"])
def test_what_could_not_be_checked_never_refuses(
    site: Site, corrupt: str, errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "become_owner", lambda path: time.sleep(1000))
    outcome = site.do("start", sqlite_errors=errors, sqlite_timeout="300ms")
    assert outcome.code == Exit.SUCCESS
    assert f"{corrupt} was not checked: " in outcome.err
    assert site.bound() == site.points
