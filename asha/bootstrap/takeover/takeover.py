"""The take-over of the services by the cluster, and the way back.

At any moment the telephone system is systemd's or the cluster's, or somebody is bringing it to
one of them: the installer; the guard, once the installer has ended; asha-recover.service, after
a power cut. One rule says whose it is: the cluster's if the marker is there and Pacemaker's
configuration has the telephone system, else systemd's.

Live data is renamed, never overwritten and never deleted. What is renamed is written down
before (see state.py).
"""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import asha
from asha.bootstrap.action import Call, Say
from asha.bootstrap.host import data_directories, file_tree, services
from asha.bootstrap.host.data_directories import DEVICE, DataDirectory
from asha.bootstrap.takeover import state as records
from asha.bootstrap.takeover.state import BEGUN, COPIED, MOVING, RECORD, TAKEN, Moved, Record
from asha.cluster import cib
from asha.cluster.cib import MARKER
from asha.cluster.site import Site
from asha.data import mountinfo
from asha.errors import UserError
from asha.machine import Machine, tell_ready
from asha.rootwork import Directory, is_roots_alone
from asha.run.child import is_alive

GUARD = "asha-guard"
GUARD_PROPERTIES = (
    # The unit counts as started when the guard watches (see ``watch``).
    "Type=notify",
    # A copy takes memory; who puts things back must be the last to be ended for it.
    "OOMScoreAdjust=-900",
)

UNMOUNT_SECONDS = 15.0

# Says which copy in the store is of this machine's data; see copy.py.
COPY_ID = "/var/lib/asha/copy.json"

MARKER_TEXT = """\
While this file is here the cluster starts and stops Asterisk, MariaDB, Apache and
slapd on this machine, and systemd does not. Written by asha install.
"""

# fail2ban does not start, and guards nothing, without the log files of its jails:
# also not on the passive node.
LOGS = "/var/log/asterisk"
# More than that have no jail.
LOGS_MOST = 1000


def is_taken_over(machine: Machine) -> bool:
    """Whether the cluster has the services."""
    return machine.exists(MARKER) and cib.is_loaded(machine)


def require_marker(machine: Machine) -> None:
    """Before the cluster gets anything to run here. Raises UserError.

    Only `asha step` can come here in the wrong order. The cluster would start what systemd runs
    a second time, or find it on two nodes and stop it on both.
    """
    if not machine.exists(MARKER):
        raise UserError("systemd still runs the telephone system here",
                      "asha install runs all steps in order; by hand: asha plan --scripts")


# The way there.


def begin(machine: Machine, say: Say) -> None:
    """Stop everything that writes to the live data, with the roll-back prepared.

    Raises UserError; the guard then rolls back, when the caller has ended.
    """
    settle(machine, say)
    with records.locked(machine, say):
        if is_taken_over(machine):
            return
        record = records.load(machine)
        is_new = record is None
        if record is None:
            if cib.is_loaded(machine):
                raise UserError(
                    "Pacemaker on this machine has a telephone system already, which asha install "
                    "did not set up",
                    "crm configure show; crm configure erase and cibadmin --erase --force remove it"
                    " (it must be stopped)",
                )
            directories = data_directories.directories(machine)
            record = Record(
                owner=(*records.owner(), records.boot_id(machine)),
                units=services.states(machine, services.MANAGED),
                paused=services.states(machine, services.PAUSED),
                runit=services.runit(machine),
            )
            records.save(machine, record)
        else:
            directories = data_directories.directories(machine)
        _start_guard(machine, record, is_new)
        services.stop(machine, [*record.paused, *record.units], record.runit, say)
        services.require_quiet(machine, [one.place for one in directories])


def settle(machine: Machine, say: Say) -> None:
    """Roll back what an earlier installer left behind. Called first of all.

    Raises UserError if one is still at work.
    """
    with records.locked(machine, say):
        record = records.load(machine)
        if record is None or record.is_ours:
            return
        if not record.is_orphaned(machine):
            raise UserError(
                f"another asha install (pid {record.owner[0]}) has stopped the services",
                "let it finish, or stop it: it rolls back",
            )
        say("the previous installation was interrupted: rolling it back first")
        _recover(machine, record, say)


def require_own(machine: Machine, stage: str) -> Record:
    """The record, if this installation has come this far. Raises UserError."""
    record = records.load(machine)
    if record is None or not record.is_ours or not record.reached(stage):
        raise UserError(
            "the services are not stopped for this installation (any more)",
            "run asha install again: it resumes",
        )
    return record


def take_over(machine: Machine, site: Site, say: Say) -> None:
    """Move the live data aside and mark the services as the cluster's.

    Until now a mere start of the services would have been the way back. Raises UserError; the
    guard then rolls back, when the caller has ended.
    """
    with records.locked(machine, say):
        if is_taken_over(machine):
            return
        record = require_own(machine, COPIED if site.is_first else BEGUN)
        if not record.reached(MOVING):
            directories = data_directories.directories(machine)
            places = [one.place for one in directories]
            services.require_quiet(machine, places)
            if site.is_first:
                require_unchanged(machine, record.fingerprint, directories)
                data_directories.unmount_store(machine)
            record.stage = MOVING
            records.save(machine, record)
        if record.stage == MOVING:
            services.disable(machine, record.units)
            _move_all_aside(machine, record, say)
            record.stage = TAKEN
            records.save(machine, record)
        machine.write(MARKER, MARKER_TEXT)


def require_unchanged(machine: Machine, fingerprint: str, directories: list[DataDirectory]) -> None:
    """Raises UserError if the live data is no longer as it was copied."""
    with data_directories.views(machine, directories) as trees:
        try:
            same = file_tree.fingerprint(trees) == fingerprint
            name = "" if same else file_tree.newest(trees)
        except OSError as problem:
            same, name = False, data_directories.complaint(problem, trees)
    if not same:
        raise UserError(
            f"{name} was changed while the data was copied: the copy is not complete",
            "find out who writes there (a job of cron's, a person) and stop it, then run asha "
            "install again",
        )


def _move_all_aside(machine: Machine, record: Record, say: Say) -> None:
    # A step of the scripts may have been killed in here, and be run again.
    with data_directories.told():
        for moved in list(record.moved):
            with data_directories.parent(machine, moved.path) as above:
                if above.exists(_name(moved.aside)):
                    _placeholder(above, moved)
                else:
                    record.moved.remove(moved)
        for directory in data_directories.directories(machine):
            is_moved = any(one.path == directory.place for one in record.moved)
            if directory.mount is None and not is_moved:
                _move_aside(machine, record, directory, say)


def _move_aside(machine: Machine, record: Record, directory: DataDirectory, say: Say) -> None:
    path = directory.place
    with data_directories.parent(machine, path) as above:
        moved = Moved(path, _free_name(above, path, f"asha-{_date()}"), directory.path == LOGS)
        record.moved.append(moved)
        records.save(machine, record)
        try:
            above.rename(_name(path), _name(moved.aside))
        except OSError as problem:
            raise UserError(
                f"{path} cannot be renamed to {moved.aside}: {problem.strerror}",
                "lsattr -d and findmnt tell whether it is immutable or mounted",
            ) from None
        _placeholder(above, moved)
    say(f"{path} is kept as {moved.aside}")


def _placeholder(above: Directory, moved: Moved) -> None:
    """An empty directory where the data was, on which sark-data binds the store's.

    It is root's alone until everything in it is done: only then may its user enter.
    """
    with above.enter(_name(moved.aside)) as old, above.ensure(_name(moved.path)) as made:
        # Otherwise it is its user's already: of a run that was cut off after that.
        if moved.logs and is_roots_alone(made.about()):
            _make_logs(old, made)
        made.sync()
        made.copy_ownership(old.about())
    above.sync()


def _make_logs(old: Directory, made: Directory) -> None:
    """Names that exist already are from a run that was interrupted here."""
    for name in old.names()[:LOGS_MOST]:
        try:
            about = old.stat(name)
        except OSError:
            continue  # taken away meanwhile
        if stat.S_ISREG(about.st_mode):
            made.remove(name)
            made.create(name, about)


def _name(path: str) -> str:
    return os.path.basename(path)


def _date() -> str:
    return time.strftime("%Y%m%d")


def _free_name(above: Directory, path: str, suffix: str) -> str:
    number = 1
    found = f"{path}.{suffix}"
    while above.exists(_name(found)):
        number += 1
        found = f"{path}.{suffix}-{number}"
    return found


def finish(machine: Machine, say: Say) -> None:
    """The cluster runs everything: nothing is to be rolled back any more."""
    with records.locked(machine, say):
        record = records.load(machine)
        if record is not None:
            if not is_taken_over(machine):
                raise UserError("the cluster does not have the services yet", "run asha install")
            _finish(machine, record, say)
    machine.run("systemctl", "stop", GUARD, check=False)


def _finish(machine: Machine, record: Record, say: Say, *, boot: bool = False) -> None:
    if not boot:  # there systemd does this, and waits for us with it
        for problem in services.start(machine, record.paused, record.runit, lambda text: None):
            say(problem)
        # It reads the logs in another place now.
        machine.run("systemctl", "try-restart", "fail2ban.service", check=False)
    # From now on the store is newer than anything here: never to be copied over again.
    machine.remove(COPY_ID)
    machine.remove(RECORD)


# The way back.


def recover(machine: Machine, say: Say, *, boot: bool = False) -> bool:
    """Roll everything back, unless the cluster has the services by now.

    True if there was something to do. Raises UserError with what could not be rolled back;
    called again, it continues from there. ``boot``: systemd starts what is enabled.
    """
    with records.locked(machine, say):
        record = records.load(machine)
        if record is None:
            return False
        if not record.is_ours and not record.is_orphaned(machine):
            raise UserError(f"asha install (pid {record.owner[0]}) is at work",
                          "stop it: then everything is rolled back")
        _recover(machine, record, say, boot=boot)
        return True


def _recover(machine: Machine, record: Record, say: Say, *, boot: bool = False) -> None:
    if is_taken_over(machine):
        say("the cluster has the services: nothing to roll back")
        _finish(machine, record, say, boot=boot)
        return
    if record.reached(MOVING):
        # A crm that outlived its installer could be loading the configuration now, and
        # a second node gets it from the first as soon as it is a member.
        services.stop_cluster(machine)
        if is_taken_over(machine):
            say("the cluster has the services: nothing to roll back")
            services.start_cluster(machine)
            _finish(machine, record, say, boot=boot)
            return
    say("rolling back: the services start again")
    _unmount_all(machine, say)
    problems: list[str] = []
    for moved in list(record.moved):
        problem = _move_back(machine, moved, say)
        if problem:
            problems.append(problem)
        else:
            record.moved.remove(moved)
            records.save(machine, record)
    if problems:
        # Not with half of their data.
        raise UserError("; ".join(problems), "fix that, then: asha recover")
    machine.remove(MARKER)
    wait = not boot
    problems = [
        *services.enable(machine, record.units),
        *services.start(machine, record.units, record.runit, say, wait=wait),
        *services.start(machine, record.paused, [], lambda text: None, wait=wait),
    ]
    if problems:
        raise UserError("; ".join(problems), "systemctl status tells why; then: asha recover")
    machine.remove(RECORD)
    say("rolled back: everything is as before the installation")


def _unmount_all(machine: Machine, say: Say) -> None:
    """Unmount the store and every bind of it.

    No error where one stays: it keeps the services from coming back only if it covers a
    directory of theirs, and that is seen then.
    """
    device = os.path.realpath(DEVICE)

    def unmount() -> list[tuple[str, str]]:
        return [
            (mount.point, done.complaint)
            for mount in reversed(data_directories.mounts(machine))
            if os.path.realpath(mount.source) == device
            and not (done := machine.run("umount", mount.point, check=False)).ok
        ]

    # What the installer had started ends a moment after it.
    for point, complaint in machine.wait_while(unmount, UNMOUNT_SECONDS, 0.2):
        say(f"warning: {point} stays mounted: {complaint}")


def _move_back(machine: Machine, moved: Moved, say: Say) -> str:
    """Returns why it failed, or ""."""
    try:
        with data_directories.parent(machine, moved.path) as above:
            place, aside = _name(moved.path), _name(moved.aside)
            if not above.exists(aside):
                # Not moved yet, or back already.
                return "" if above.exists(place) \
                    else f"both {moved.path} and {moved.aside} are gone"
            if mountinfo.visible(data_directories.mounts(machine), moved.path) is not None:
                return f"{moved.path} cannot be moved back: something is mounted there"
            if above.exists(place) and not _remove_stand_in(above, place):
                kept = _free_name(above, moved.path, f"asha-written-{_date()}")
                above.rename(place, _name(kept))
                say(f"somebody wrote to {moved.path} meanwhile: that is kept as {kept}")
            above.rename(aside, place)
            above.sync()
    except OSError as problem:
        why = data_directories.complaint(problem)
        return f"{moved.aside} cannot be renamed to {moved.path}: {why}"
    return ""


def _remove_stand_in(above: Directory, name: str) -> bool:
    """Remove what ``_move_aside`` left in the place; False if there is more in it.

    By now it is its user's, who may put anything there at any moment.
    """
    try:
        with above.enter(name) as inside:
            names = inside.names()
            if len(names) > LOGS_MOST or not all(_is_empty(inside.stat(one)) for one in names):
                return False
            for one in names:
                inside.remove(one)
        above.remove_directory(name)
    except OSError:
        return False
    return True


def _is_empty(about: os.stat_result) -> bool:
    return stat.S_ISREG(about.st_mode) and not about.st_size


# The guard.


def _start_guard(machine: Machine, record: Record, is_new: bool) -> None:
    """Have systemd run ``asha recover --watch``, which outlives this session."""
    if services.is_active(machine, GUARD):
        # Of an installer before: this one has settled what that one left.
        machine.run("systemctl", "stop", GUARD)
    library = Path(asha.__file__).resolve().parent.parent
    try:
        machine.run(
            "systemd-run", "--quiet", "--collect", f"--unit={GUARD}",
            "--description=ASHA: rolls back if the installation is interrupted",
            *(f"--property={one}" for one in GUARD_PROPERTIES),
            f"--setenv=PYTHONPATH={library}",
            sys.executable, "-m", "asha", "recover", "--watch", str(record.owner[0]),
        )
    except UserError:
        if is_new:
            machine.remove(RECORD)  # nothing is stopped without it
        raise


def watch(machine: Machine, pid: int, say: Say) -> None:
    """Wait for the end of the installer, then roll back what it has left unfinished."""
    import select

    record = records.load(machine)
    if record is None or record.owner[0] != pid:
        tell_ready()
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        handle = -1
    # Only now: the number could have gone to another process before.
    alive = handle >= 0 and is_alive(pid, record.owner[1])
    tell_ready()
    if alive:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
    with records.locked(machine, say):
        record = records.load(machine)
        if record is not None and record.is_orphaned(machine):
            say(f"the installer (pid {pid}) has ended without finishing")
            _recover(machine, record, say)


# For the plan.


def begin_action() -> Call:
    """Stop the services. Done while this very installation has stopped them."""

    def done(machine: Machine) -> bool:
        return is_taken_over(machine) or has_reached(machine, BEGUN)

    return Call(
        "stop-services",
        "stop the telephone system",
        "Write down which of these services run and are enabled, start a guard that rolls\n"
        "back if the installation is interrupted, then stop them: cron, log rotation, Asterisk,\n"
        "Apache, slapd, MariaDB. Make sure that nothing writes to their data any more.",
        begin,
        done,
    )


def take_over_action(site: Site) -> Call:
    """Move the live data aside. Done when the cluster has the services."""

    def work(machine: Machine, say: Say) -> None:
        take_over(machine, site, say)

    def done(machine: Machine) -> bool:
        return is_taken_over(machine) or (has_reached(machine, TAKEN) and machine.exists(MARKER))

    check = "Make sure that the data is as it was copied; unmount the store.\n"
    return Call(
        "take-over",
        "let the cluster take the telephone system over",
        f"{check if site.is_first else ''}"
        "Disable the services at boot. Rename each directory of live data to NAME.asha-DATE, an\n"
        f"empty one in its place. Write {MARKER}.",
        work,
        done,
    )


def finish_action() -> Call:
    """End the guard. Done when there is no record any more."""

    def done(machine: Machine) -> bool:
        return is_taken_over(machine) and not machine.exists(RECORD)

    return Call(
        "finish",
        "end the guard",
        "The cluster runs everything: start cron and log rotation again, delete the roll-back "
        "data.",
        finish,
        done,
    )


def has_reached(machine: Machine, stage: str) -> bool:
    """Whether this very installation has come this far."""
    try:
        record = records.load(machine)
    except UserError:
        return False
    return record is not None and record.is_ours and record.reached(stage)
