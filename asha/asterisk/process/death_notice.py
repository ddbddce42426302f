"""Asterisk has died: Pacemaker is told now, and not asked about it seconds later.

Run by asha-asterisk-died@.service, which systemd starts when Asterisk's unit has
failed. The monitor finds the same a little later; this only saves the wait for it,
so whatever goes wrong here is left to the monitor.

    python3 -m asha.asterisk.process.death_notice RESOURCE FILE

FILE is what the agent wrote when it had started Asterisk: the process's identity, the
node's name in the cluster, Asterisk's unit, its user, and its program.
"""

from __future__ import annotations

import os
import sys

from asha.asterisk.process import deaths
from asha.asterisk.process.ours import Ours
from asha.asterisk.process.proc import Proc
from asha.asterisk.process.unit import account_number
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.run.runner import Runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds for crm_resource, which waits until Pacemaker has taken note, and for crm_mon.
TELLING_SECONDS = 20.0
ASKING_SECONDS = 5.0

# Of a file that an older version wrote, which has only the program there.
USUAL = ("asterisk.service", "asterisk")


def main(arguments: Sequence[str], runner: Runner | None = None, proc: Proc | None = None) -> int:
    """0 if Pacemaker knows, or need not be told."""
    resource, path = arguments
    runner = runner or Runner()
    try:
        said = _read(path)
        number, started, node, *what = said.split(None, 3)
        pid = int(number)
        proc = proc or Proc()
        process = proc.process(pid)
        if process is not None and process.started == started and not process.gone:
            print(f"{process} lives: Pacemaker is not told", file=sys.stderr)
            return 0
        if is_unmanaged(resource, runner):
            print(f"Asterisk, process {pid}, has died, and Pacemaker does not manage it now")
            return 0
        if what and _another_runs(proc, what[0]):
            print(f"Asterisk, process {pid}, has died, and somebody has started another")
            return 0
        # Each death is announced once: whoever takes the file away has done so.
        mine = f"{path}.{os.getpid()}"
        os.rename(path, mine)
        if _read(mine) != said:
            os.rename(mine, path)
            return 0  # the monitor was first, and the next Asterisk serves
        os.unlink(mine)
    except FileNotFoundError:
        return 0
    except AgentError as problem:
        print(f"{problem.reason}: the monitor will notice", file=sys.stderr)
        return 1
    except (OSError, ValueError) as problem:
        print(f"cannot read {path}: {problem}", file=sys.stderr)
        return 1
    print(f"Asterisk, process {pid}, has died: Pacemaker is told")
    try:
        return _tell(resource, node, runner)
    finally:
        _count(path, runner)


def _tell(resource: str, node: str, runner: Runner) -> int:
    try:
        done = runner.run(
            ("crm_resource", "--fail", "--resource", resource, "--node", node),
            Deadline(TELLING_SECONDS),
        )
    except AgentError as problem:
        print(f"{problem.reason}: the monitor will notice", file=sys.stderr)
        return 1
    if not done.ok:
        print(f"crm_resource: {done.complaint}: the monitor will notice", file=sys.stderr)
        return 1
    return 0


def _count(path: str, runner: Runner) -> None:
    """Write it down, and let the cluster know of a crash loop: `asha status` names it."""
    try:
        found = deaths.count(f"{path.removesuffix('.serving')}.deaths", os.environ)
        if not found.is_loop:
            return
        runner.run(("attrd_updater", "--name", deaths.ATTRIBUTE, "--update", str(found)),
                   Deadline(ASKING_SECONDS))
    except OSError as problem:
        print(f"cannot write the death down: {problem.strerror}", file=sys.stderr)
    except AgentError as problem:
        print(problem.reason, file=sys.stderr)


def _another_runs(proc: Proc, what: str) -> bool:
    """Whether another Asterisk of ours runs: a stranger's is no reason to keep quiet."""
    unit, user, program = (*USUAL, what) if what.startswith("/") else what.split(None, 2)
    ours = Ours(proc, program, "", unit, lambda: account_number(user, Deadline(ASKING_SECONDS)))
    return bool(ours.running())


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def is_unmanaged(resource: str, runner: Runner) -> bool:
    """Whether somebody has told Pacemaker not to manage it (maintenance, unmanage).

    Pacemaker would keep the failure and, once it manages again, restart the healthy Asterisk
    that was started by hand meanwhile (seen with 3.0). Unknown means no.
    """
    try:
        shown = runner.run(
            ("crm_mon", "-1", "--output-as=xml", "--resource", resource), Deadline(ASKING_SECONDS)
        )
    except AgentError:
        return False
    return shown.ok and ' managed="false"' in shown.out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
