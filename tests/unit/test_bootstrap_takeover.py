"""The take-over and the way back, cut off at every single step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.bootstrap.host import data_directories, processes, services
from asha.bootstrap.steps import data
from asha.bootstrap.takeover import state as records
from asha.bootstrap.takeover import takeover
from asha.bootstrap.takeover.state import Record
from asha.cluster.cib import MARKER
from asha.errors import UserError
from asha.rootwork import Directory
from asha.run.child import start_time
from tests.fakes.machine import Outcome
from tests.unit.bootstrap_customer import (
    FILES,
    ROOT_MOUNT,
    SERVICES,
    Customer,
    customer,
    site,
)

__all__ = ["customer"]


class Cut(BaseException):
    """The power failed, or the installer was killed."""


def copied(machine: Customer) -> None:
    for action in data.actions(site(), data.look(machine)):
        action.do(machine, machine.say)


def orphan(machine: Customer) -> None:
    """The installer has ended: its record is another's now."""
    record = records.load(machine)
    if record is not None:
        record.owner = (record.owner[0], "gone", record.owner[2])
        records.save(machine, record)


def test_before_the_first_service_stops_it_is_written_down_and_guarded(
    customer: Customer,
) -> None:
    takeover.begin(customer, customer.say)
    lines = customer.lines
    guard = next(i for i, line in enumerate(lines) if line.startswith("systemd-run"))
    stop = next(i for i, line in enumerate(lines) if line == "systemctl stop asterisk.service")
    assert guard < stop
    assert lines[guard].endswith(f"-m asha recover --watch {os.getpid()}")
    record = records.load(customer)
    assert record is not None
    assert {unit.name for unit in record.units if unit.enabled} == set(SERVICES)
    assert {unit.name for unit in record.paused if unit.active} == {"cron.service"}


def test_the_database_stops_last_and_its_socket_right_before(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    stopped = [line.split()[-1] for line in customer.lines if line.startswith("systemctl stop ")]
    assert stopped[0] == "cron.service"
    assert stopped[-2:] == ["mariadb.socket", "mariadb.service"]


def test_without_a_guard_nothing_is_stopped(customer: Customer) -> None:
    customer.on("systemd-run", Outcome(code=1, err="no"))
    with pytest.raises(UserError):
        takeover.begin(customer, customer.say)
    assert customer.running >= set(SERVICES)
    assert not customer.exists(records.RECORD)


def test_a_guard_that_cannot_be_renewed_is_no_reason_to_forget(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    customer.on("systemd-run", Outcome(code=1, err="no"))
    with pytest.raises(UserError):
        takeover.begin(customer, customer.say)
    orphan(customer)
    assert takeover.recover(customer, customer.say)
    assert customer.is_as_before()


def test_taken_over_means_aside_disabled_and_marked(customer: Customer) -> None:
    copied(customer)
    takeover.take_over(customer, site(), customer.say)
    assert customer.exists(MARKER)
    assert not customer.enabled & set(SERVICES)
    assert "cron.service" in customer.enabled
    aside = next(customer.path("/var/lib").glob("mysql.asha-2*"))
    assert (aside / "ibdata1").read_text() == FILES["/var/lib/mysql/ibdata1"]
    assert not list(customer.path("/var/lib/mysql").iterdir())
    assert not customer.is_mounted
    assert customer.ran("drbdadm secondary asha")


def test_fail2ban_finds_its_logs_on_the_passive_node(customer: Customer) -> None:
    copied(customer)
    takeover.take_over(customer, site(), customer.say)
    assert customer.read("/var/log/asterisk/messages") == ""


def test_a_name_that_is_taken_gets_a_number(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "_date", lambda: "20260102")
    customer.put("/etc/asterisk.asha-20260102/x")
    customer.put("/etc/asterisk.asha-20260102-2/x")
    copied(customer)
    takeover.take_over(customer, site(), customer.say)
    assert customer.exists("/etc/asterisk.asha-20260102-3/manager.conf")


def test_a_disk_of_its_own_is_not_renamed(customer: Customer) -> None:
    own_disk = "3 1 8:7 / /var/lib/mysql rw - ext4 /dev/sda7 rw\n"
    customer.put("/proc/self/mountinfo", ROOT_MOUNT + own_disk)
    takeover.begin(customer, customer.say)
    takeover.take_over(customer, site(first=False), customer.say)
    assert not list(customer.path("/var/lib").glob("mysql.asha*"))
    assert list(customer.path("/etc").glob("asterisk.asha*"))


def test_without_a_verified_copy_the_first_node_is_not_taken_over(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    with pytest.raises(UserError):
        takeover.take_over(customer, site(), customer.say)
    assert not customer.exists(MARKER)


def test_what_was_written_after_the_copy_is_not_left_behind(customer: Customer) -> None:
    copied(customer)
    customer.put("/etc/asterisk/late")
    with pytest.raises(UserError, match="etc/asterisk/late was changed"):
        takeover.take_over(customer, site(), customer.say)
    assert customer.exists("/etc/asterisk/late")
    assert not customer.exists(MARKER)


def test_the_second_node_copies_nothing(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    takeover.take_over(customer, site(first=False), customer.say)
    assert customer.exists(MARKER)
    assert not customer.ran("mount")
    assert not customer.ran("drbdadm")


def test_everything_is_done_once_the_cluster_has_the_services(customer: Customer) -> None:
    actions = [takeover.begin_action(), takeover.take_over_action(site()),
               takeover.finish_action()]
    assert not any(action.is_done(customer) for action in actions)
    copied(customer)
    actions[1].do(customer, customer.say)
    assert actions[0].is_done(customer)
    assert actions[1].is_done(customer)
    with pytest.raises(UserError, match="does not have the services"):
        actions[2].do(customer, customer.say)
    customer.load_cib()
    assert not actions[2].is_done(customer)
    actions[2].do(customer, customer.say)
    assert all(action.is_done(customer) for action in actions)
    assert "cron.service" in customer.running
    assert not customer.running & set(SERVICES)


def cut_at(machine: Customer, monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], bool]:
    """Cut the machine off at its n-th change. Tells whether it came to that."""
    count = 0

    def guarded(function: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise Cut
            return function(*arguments, **named)

        return wrapper

    for owner, name in ((machine, "write"), (machine, "run"), (machine, "remove"),
                        *((Directory, name) for name in (
                            "rename", "make", "create", "copy_ownership", "remove",
                            "remove_directory"))):
        monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))
    return lambda: count >= step


@pytest.mark.parametrize("back", [0, 3, 12])
def test_cut_off_anywhere_and_recovered_nothing_is_lost(
    tmp_path: Path, customer: Customer, back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every change on the way there; and (``back``) once on the way back too."""
    monkeypatch.setattr(processes, "find", lambda places: [])
    step = 0
    while True:
        step += 1
        machine = Customer(tmp_path / str(step))
        copied(machine)
        with pytest.MonkeyPatch.context() as patch:
            came = cut_at(machine, patch, step)
            try:
                takeover.take_over(machine, site(), machine.say)
            except Cut:
                pass
        assert came() or machine.exists(MARKER)
        orphan(machine)
        if back:
            with pytest.MonkeyPatch.context() as patch:
                cut_at(machine, patch, back)
                try:
                    takeover.recover(machine, machine.say)
                except Cut:
                    pass
        takeover.recover(machine, machine.say)
        assert machine.is_as_before(), step
        assert not machine.exists(MARKER)
        assert not list(machine.root.rglob("*.asha-*")), step
        if not came():
            assert step > 20
            return


def test_cut_off_anywhere_and_gone_on_with_nothing_is_left_out(
    tmp_path: Path, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripts' owner is their shell, which lives on when a step is killed."""
    monkeypatch.setattr(processes, "find", lambda places: [])
    step = 0
    came = True
    while came:
        step += 1
        machine = Customer(tmp_path / str(step))
        copied(machine)
        with pytest.MonkeyPatch.context() as patch:
            cut = cut_at(machine, patch, step)
            try:
                takeover.take_over(machine, site(), machine.say)
            except Cut:
                pass
        came = cut()
        takeover.take_over(machine, site(), machine.say)
        assert machine.exists(MARKER), step
        assert not machine.enabled & set(SERVICES), step
        record = records.load(machine)
        assert record is not None
        for moved in record.moved:
            assert machine.path(moved.path).is_dir(), (step, moved.path)
            assert machine.path(moved.aside).is_dir(), (step, moved.path)
        assert len(record.moved) == len(list(machine.root.rglob("*.asha-*"))), step
    assert step > 20


def test_killed_while_it_stopped_them_the_services_come_back(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    assert not customer.running & set(SERVICES)
    orphan(customer)
    assert takeover.recover(customer, customer.say)
    assert customer.is_as_before()
    assert "cron.service" in customer.running
    assert not takeover.recover(customer, customer.say)


def test_what_was_off_before_stays_off(customer: Customer) -> None:
    customer.running.discard("apache2.service")
    customer.enabled.discard("asterisk.service")
    takeover.begin(customer, customer.say)
    takeover.take_over(customer, site(first=False), customer.say)
    orphan(customer)
    takeover.recover(customer, customer.say)
    assert "apache2.service" not in customer.running
    assert "apache2.service" in customer.enabled
    assert "asterisk.service" in customer.running
    assert "asterisk.service" not in customer.enabled


def test_what_the_cluster_has_is_not_taken_from_it(customer: Customer) -> None:
    copied(customer)
    takeover.take_over(customer, site(), customer.say)
    customer.load_cib()
    orphan(customer)
    takeover.recover(customer, customer.say)
    assert customer.exists(MARKER)
    assert not customer.running & set(SERVICES)
    assert not customer.exists(records.RECORD)
    assert list(customer.path("/etc").glob("asterisk.asha*"))


def test_a_configuration_loaded_in_the_last_moment_counts(customer: Customer) -> None:
    copied(customer)
    takeover.take_over(customer, site(), customer.say)
    orphan(customer)

    def stop(argv: tuple[str, ...], stdin: str | None) -> Outcome:
        customer.load_cib()  # by a crm that had outlived its installer
        return Outcome()

    customer.on("systemctl stop pacemaker.service", stop)
    takeover.recover(customer, customer.say)
    assert customer.exists(MARKER)
    assert customer.ran("systemctl start --no-block corosync.service pacemaker.service")


def test_pacemaker_is_off_before_anything_is_put_back(customer: Customer) -> None:
    customer.running |= set(services.CLUSTER)
    customer.enabled |= set(services.CLUSTER)
    takeover.begin(customer, customer.say)
    takeover.take_over(customer, site(first=False), customer.say)
    orphan(customer)
    takeover.recover(customer, customer.say)
    assert not (customer.running | customer.enabled) & set(services.CLUSTER)


def test_what_somebody_wrote_meanwhile_is_kept_too(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    takeover.take_over(customer, site(first=False), customer.say)
    customer.put("/opt/sark/db/new.db", "new")
    orphan(customer)
    takeover.recover(customer, customer.say)
    assert customer.exists("/opt/sark/db/sark.db")
    assert (next(customer.path("/opt/sark").glob("db.asha-written-*")) / "new.db").exists()
    assert any("somebody wrote" in text for text in customer.said)


def test_services_do_not_start_with_half_of_their_data(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    takeover.take_over(customer, site(first=False), customer.say)
    orphan(customer)
    bind = "7 1 147:0 /etc/asterisk /etc/asterisk rw - ext4 /dev/other rw\n"
    customer.put("/proc/self/mountinfo", ROOT_MOUNT + bind)
    with pytest.raises(UserError, match="something is mounted there"):
        takeover.recover(customer, customer.say)
    assert not customer.running & set(SERVICES)
    customer.put("/proc/self/mountinfo", ROOT_MOUNT)
    takeover.recover(customer, customer.say)
    assert customer.running >= set(SERVICES)


def test_a_store_that_stays_busy_does_not_keep_the_services_off(customer: Customer) -> None:
    copied(customer)
    orphan(customer)
    customer.store_busy = True
    takeover.recover(customer, customer.say)
    assert customer.running >= set(SERVICES)
    assert any("/drbd stays mounted" in text for text in customer.said)


def test_a_service_that_does_not_start_is_told_and_tried_again(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    orphan(customer)
    customer.broken = {"asterisk.service"}
    with pytest.raises(UserError, match=r"asterisk\.service does not start"):
        takeover.recover(customer, customer.say)
    assert "mariadb.service" in customer.running
    customer.broken = set()
    takeover.recover(customer, customer.say)
    assert customer.is_as_before()


def test_the_telephones_do_not_wait_for_a_database_that_hangs(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    orphan(customer)
    asked: list[bool] = []

    def start(argv: tuple[str, ...], stdin: str | None) -> Outcome:
        asked.append("asterisk.service" in customer.running)
        if len(asked) == 1:
            raise UserError("systemctl start mariadb.service did not end within 60.0 s")
        customer.running.add("mariadb.service")
        return Outcome()

    customer.on("systemctl start mariadb.service", start)
    takeover.recover(customer, customer.say)
    assert asked == [False, True]
    assert customer.is_as_before()


def test_at_boot_systemd_is_not_waited_for(customer: Customer) -> None:
    """It waits for us with these very services."""
    takeover.begin(customer, customer.say)
    customer.put(records.BOOT, "boot-2\n")
    takeover.recover(customer, customer.say, boot=True)
    starts = [line for line in customer.lines if line.startswith("systemctl start")]
    assert starts
    assert all("--no-block" in line for line in starts)


def test_a_socket_is_started_before_its_service_and_never_after(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    customer.running.add("mariadb.service")  # killed between the two
    orphan(customer)
    takeover.recover(customer, customer.say)
    assert not customer.ran("systemctl start mariadb.socket")
    assert not customer.exists(records.RECORD)


def test_a_new_installer_first_puts_back_what_the_old_one_left(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    orphan(customer)
    takeover.settle(customer, customer.say)
    assert customer.is_as_before()


def test_two_installers_at_once_are_refused(customer: Customer) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = start_time(child.pid)
        records.save(customer, Record(owner=(child.pid, started, "boot-1")))
        with pytest.raises(UserError, match=f"pid {child.pid}"):
            takeover.settle(customer, customer.say)
        with pytest.raises(UserError, match="at work"):
            takeover.recover(customer, customer.say)
    finally:
        child.communicate(b"\n")


def test_the_guard_waits_for_the_end_and_then_puts_back(customer: Customer) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    takeover.begin(customer, customer.say)
    record = records.load(customer)
    assert record is not None
    record.owner = (child.pid, start_time(child.pid), "boot-1")
    records.save(customer, record)
    guard = os.fork()
    if guard == 0:
        takeover.watch(customer, child.pid, customer.say)
        os._exit(0 if customer.is_as_before() else 1)
    assert os.waitpid(guard, os.WNOHANG) == (0, 0)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert os.waitpid(guard, 0)[1] == 0


def test_the_guard_leaves_another_installers_record_alone(customer: Customer) -> None:
    takeover.begin(customer, customer.say)
    takeover.watch(customer, 1, customer.say)
    assert customer.exists(records.RECORD)


def test_a_shell_can_be_the_owner(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(records.OWNER_VARIABLE, str(os.getppid()))
    takeover.begin(customer, customer.say)
    record = records.load(customer)
    assert record is not None
    assert record.owner[0] == os.getppid()


def test_a_damaged_record_is_not_guessed_at(customer: Customer) -> None:
    customer.put(records.RECORD, "{")
    with pytest.raises(UserError, match="damaged"):
        takeover.recover(customer, customer.say)
    customer.put(records.RECORD, json.dumps({"stage": "far"}))
    with pytest.raises(UserError, match="damaged"):
        takeover.recover(customer, customer.say)


# Who writes.


def test_who_has_a_file_open_for_writing_is_found(tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    (place / "read").write_text("x")
    with (place / "read").open() as reading:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'a'); print(flush=True);"
             "input()", str(place / "held")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            child.stdout.readline()
            found = processes.find([str(place)])
            assert [(one.pid, one.path) for one in found] == [(child.pid, str(place / "held"))]
            assert "open for writing" in str(found[0])
        finally:
            child.communicate(b"\n")
        assert not reading.closed
    assert processes.find([str(place)]) == []


def test_a_shared_mapping_counts_as_open(tmp_path: Path) -> None:
    place = tmp_path / "mapped\nwith two lines"
    place.write_bytes(b"x" * 4096)
    code = ("import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(f, 4096);"
            "[os.close(n) for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{n}')];"
            "print(flush=True); input()")
    child = subprocess.Popen([sys.executable, "-c", code, str(place)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert [one.pid for one in processes.find([str(tmp_path)])] == [child.pid]
    finally:
        child.communicate(b"\n")


def test_data_in_use_is_refused_after_a_while(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = [processes.Writer(7, "rsync", "/var/spool/asterisk/x")]
    monkeypatch.setattr(processes, "find", lambda places: busy)
    with pytest.raises(UserError, match=r"rsync \(pid 7\)"):
        takeover.begin(customer, customer.say)
    assert customer.clock >= services.QUIET_SECONDS


def test_a_stranger_at_the_mount_point_is_refused(customer: Customer) -> None:
    customer.put("/proc/self/mountinfo", ROOT_MOUNT + "2 1 8:9 / /drbd rw - ext4 /dev/sdb1 rw\n")
    with pytest.raises(UserError, match="/dev/sdb1 is mounted at /drbd"):
        data_directories.mount_store(customer)
