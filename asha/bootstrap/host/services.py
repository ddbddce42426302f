"""systemd's services: those that the cluster takes over, and what must not run meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from asha.bootstrap.host import processes
from asha.errors import UserError
from asha.machine import Machine, Say

# In the order in which they are stopped. The databases go last, as others write to
# them; before them systemd's sockets, which would start them again.
MANAGED = (
    "asterisk.service",
    "apache2.service",
    "slapd.service",
    "mariadb.socket",
    "mariadb-extra.socket",
    "mariadb.service",
)

SOCKET = ".socket"

# What starts other things that write to the data: SARK's jobs run every minute, and
# log rotation renames files in /var/log/asterisk. Stopped for some minutes, and then
# as before: on both nodes they are of use, and in the empty directories of the
# passive one they find nothing to do.
PAUSED = ("cron.service", "anacron.timer", "logrotate.timer")

# SARK's helpers are not systemd's.
RUNIT = "/etc/service"
RUNIT_NAMES = "srk-ua-*"

CLUSTER = ("pacemaker.service", "corosync.service")

# MariaDB's own limit is 900 s, for a stop and for a start.
UNIT_SECONDS = 930.0
# How long the others wait for one that starts, such as Asterisk for MariaDB: calls are
# worth more than their records. After that it is waited for as the last.
TURN_SECONDS = 60.0
# A job of cron's that was running when cron was stopped.
QUIET_SECONDS = 60.0


@dataclass
class Unit:
    """A systemd unit as it was before the take-over."""

    name: str
    enabled: bool
    active: bool


def is_active(machine: Machine, unit: str) -> bool:
    """Whether the unit runs."""
    return machine.output("systemctl", "is-active", unit).strip() == "active"


def is_enabled(machine: Machine, unit: str) -> bool:
    """Whether the unit starts at each boot."""
    return _enablement(machine, unit) == "enabled"


def _enablement(machine: Machine, unit: str) -> str:
    # Not UnitFileState, which is "generated" for a script of SysV's.
    return machine.output("systemctl", "is-enabled", unit).strip()


def states(machine: Machine, names: tuple[str, ...]) -> list[Unit]:
    """The units of these that this machine has."""
    found = []
    for name in names:
        said = machine.output("systemctl", "show", "--property=LoadState,ActiveState", name)
        about = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        if about.get("LoadState") in ("loaded", "masked"):
            active = about.get("ActiveState") in ("active", "activating", "reloading")
            enabled = _enablement(machine, name) in ("enabled", "enabled-runtime")
            found.append(Unit(name, enabled, active))
    return found


def runit(machine: Machine) -> list[str]:
    """SARK's helpers that run, as paths for sv(8)."""
    if not machine.has("sv"):
        return []
    # by name: in root's /etc
    places = sorted(machine.path(RUNIT).glob(RUNIT_NAMES))
    services = [str(PurePath(RUNIT) / place.name) for place in places]
    return [one for one in services if machine.output("sv", "status", one).startswith("run:")]


def stop(machine: Machine, units: list[Unit], services: list[str], say: Say) -> None:
    """Stop the units. Raises UserError if one does not stop."""
    for service in services:
        machine.run("sv", "stop", service, check=False)
    for unit in units:
        # Also one that was not running: it may have been started since.
        if unit.active:
            say(f"stopping {unit.name}")
        machine.run("systemctl", "stop", unit.name, timeout=UNIT_SECONDS)


def start(machine: Machine, units: list[Unit], services: list[str], say: Say,
          *, wait: bool = True) -> list[str]:
    """Start those that ran, in reverse order. Returns what does not start, with the reason.

    ``wait`` is False at boot, where systemd has other jobs to do first.
    """
    problems, slow = [], []
    how = () if wait else ("--no-block",)
    backwards = list(reversed(units))
    # A socket first: it cannot be started when its service runs already. One that was
    # stopped when its service was not yet is on again at the next boot.
    for unit in sorted(backwards, key=lambda one: not one.name.endswith(SOCKET)):
        if unit.active and states(machine, (unit.name,)) and not _serves_already(machine, unit):
            say(f"starting {unit.name}")
            try:
                done = machine.run("systemctl", "start", *how, unit.name,
                                   timeout=TURN_SECONDS, check=False)
            except UserError:
                slow.append(unit.name)  # systemd goes on with it
                continue
            if not done.ok:
                problems.append(f"{unit.name} does not start: {done.complaint}")
    for service in services:
        _try(machine, "sv", "start", service)
    for name in slow:
        problem = _try(machine, "systemctl", "start", *how, name)
        if problem:
            problems.append(f"{name} does not start: {problem}")
    return problems


def _serves_already(machine: Machine, unit: Unit) -> bool:
    service = unit.name.removesuffix(SOCKET).removesuffix("-extra") + ".service"
    return unit.name.endswith(SOCKET) and any(
        one.active for one in states(machine, (service,))
    )


def _try(machine: Machine, *argv: str) -> str:
    """Run it and return what went wrong, "" if nothing did."""
    try:
        done = machine.run(*argv, timeout=UNIT_SECONDS, check=False)
    except UserError as problem:
        return str(problem)
    return "" if done.ok else done.complaint


def disable(machine: Machine, units: list[Unit]) -> None:
    names = [unit.name for unit in units if unit.enabled]
    if names:
        machine.run("systemctl", "disable", *names, timeout=UNIT_SECONDS)


def enable(machine: Machine, units: list[Unit]) -> list[str]:
    """Enable those that were enabled. Returns what cannot be."""
    problems = []
    for unit in units:
        if unit.enabled:
            done = _try(machine, "systemctl", "enable", unit.name)
            if done:
                problems.append(f"{unit.name} cannot be enabled: {done}")
    return problems


def stop_cluster(machine: Machine) -> None:
    """Stop and disable the cluster's daemons. Raises UserError."""
    there = [unit.name for unit in states(machine, CLUSTER)]
    if there:
        machine.run("systemctl", "disable", *there, timeout=UNIT_SECONDS)
        machine.run("systemctl", "stop", *there, timeout=UNIT_SECONDS)


def start_cluster(machine: Machine) -> None:
    """Enable and start the cluster's daemons. Raises UserError."""
    there = [unit.name for unit in reversed(states(machine, CLUSTER))]
    if there:
        machine.run("systemctl", "enable", *there, timeout=UNIT_SECONDS)
        machine.run("systemctl", "start", "--no-block", *there)


def require_quiet(machine: Machine, places: list[str], seconds: float = QUIET_SECONDS) -> None:
    """Make sure that nothing of the PBX runs, and nobody has a file of the data open for
    writing.

    A process gets some time to end. Raises UserError with its name.
    """
    paths = [str(machine.path(one)) for one in places]
    busy = machine.wait_while(lambda: [*processes.daemons(), *processes.find(paths)], seconds)
    if busy:
        raise UserError(
            "the live data is still in use: " + ", ".join(str(one) for one in busy),
            "end that (kill PID), then run asha install again",
        )
