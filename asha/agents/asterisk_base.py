"""What asterisk-health builds on: its parameters, its one Asterisk, its memory, its peer.

The agent itself, the diagnosis and the SIP sockets all use this; it imports none of them.
"""

from __future__ import annotations

import os

from asha.agents.asterisk_parameters import AsteriskParameters
from asha.asterisk.process.proc import ENDED, Proc
from asha.ocf import Agent, AgentError, Failed, NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.asterisk.process.ours import Ours
    from asha.asterisk.process.proc import Process
    from asha.asterisk.process.unit import Launcher

# The state file whose presence says: a death is news. asha-asterisk-died@.service
# knows its name too.
SERVING = "serving"

# The state file that names the Asterisk that was found or started here, once it was
# known for ours: that is asked of one Asterisk, and not by each monitor.
KNOWN = "known"

# The state file of an AstDB that was damaged: the path of the one that is kept, and what
# people are told.
ASTDB = "astdb"

# The state file of a failure that the judge (asha/agents/watch/judge.py) has told Pacemaker:
# which Asterisk. Its time is the monotonic clock's, as the watcher's sign of life. And the
# seconds in which Pacemaker acts on it.
TOLD = "told"
TOLD_SECONDS = 30.0

# Seconds between two looks at an Asterisk that starts or ends: short beside the
# 0.25 s that it takes to end and the 0.7 s to start.
LOOK_EVERY = 0.02

# Seconds that a process may take to be gone when it has given back its memory.
ENDING_SECONDS = 1.0

# Seconds that Pacemaker may take to say whether there is fencing, and who is there.
FENCING_SECONDS = 5.0

PID_FILE = "asterisk.pid"


class AsteriskAgent(AsteriskParameters, Agent, is_base=True):
    """An agent of the one Asterisk that may run on a node."""

    proc = Proc()

    # Whether a failure is Pacemaker's to see in the exit code; the watcher and its judge tell
    # of it otherwise.
    is_pacemakers = True

    # The process

    def find(self) -> tuple[Process, list[str]]:
        """The running Asterisk, and what is odd about it. Raises NotRunning, Failed."""
        process = self.known() or self._search()
        if process.state in ENDED:
            raise self._does_not_end([process])
        if self.proc.pid_in(self.pid_file) == process.pid:
            return process, []
        try:
            os.lstat(self.pid_file)
        except FileNotFoundError:
            return process, [f"there is no {self.pid_file}: is it astrundir of asterisk.conf?"]
        except OSError as problem:
            # Root may not look: a user's file system lies on it.
            return process, [f"{self.pid_file} cannot be looked at ({problem.strerror}): is"
                             f" something mounted on {self.run_directory}?"]
        return process, [f"{self.pid_file} does not name the Asterisk that runs, {process}"]

    def present(self) -> Process | None:
        """The running Asterisk, or None."""
        try:
            return self.find()[0]
        except AgentError:
            return None

    def known(self) -> Process | None:
        """The Asterisk that was found to be ours, while it runs."""
        identity = self.read_state(KNOWN)
        number, _, _ = identity.partition(" ")
        process = self.proc.process(int(number)) if number.isdecimal() else None
        if process is None or process.identity != identity:
            return None
        return process if self.proc.runs(process, self.binary) and not process.gone else None

    def _search(self) -> Process:
        """Search all processes. Raises NotRunning, Failed."""
        daemons = self.ours(self.launcher()).running()
        running = [one for one in daemons if self.proc.has_program(one)]
        if running:
            if not self.is_probe:
                self.write_state(KNOWN, running[0].identity)
            return running[0]
        # On its way out, be it Asterisk or only somebody's console (asterisk -rx).
        if not self.deadline.within(ENDING_SECONDS).poll(
            lambda: all(one.gone for one in daemons), LOOK_EVERY
        ):
            raise self._does_not_end(daemons)
        if os.path.lexists(self.pid_file):
            # Asterisk removes it when it ends in the ordinary way.
            raise NotRunning(
                f"Asterisk is dead: it crashed or was killed and left {self.pid_file}"
            )
        raise NotRunning("Asterisk is not running")

    @staticmethod
    def _does_not_end(processes: Sequence[Process]) -> Failed:
        from asha.asterisk.process.termination import survivors

        return Failed(f"Asterisk has died but does not end: {survivors(processes)}")

    @property
    def pid_file(self) -> str:
        return f"{self.run_directory}/{PID_FILE}"

    def ours(self, launcher: Launcher) -> Ours:
        """Which processes count as our Asterisk."""
        from asha.asterisk.process.ours import Ours

        return Ours(
            self.proc,
            self.binary,
            self.pid_file,
            launcher.control_group,
            self._account,
            launcher.main,
        )

    def _account(self) -> int:
        from asha.asterisk.process.ours import NO_ACCOUNT
        from asha.asterisk.process.unit import account_number

        try:
            return account_number(self.user, self.deadline)
        except AgentError as problem:
            self.warn(problem.reason)
            return NO_ACCOUNT

    def launcher(self) -> Launcher:
        """What starts Asterisk, and ends it in the ordinary way."""
        from asha.asterisk.process.unit import Direct, SystemdUnit, has_unit

        if self.unit != "none" and has_unit(self.unit):
            return SystemdUnit(self, self.proc, self.unit)
        return Direct(self, self.proc, self.binary, self.user, self.group)

    # The memory: what cannot be kept is asked again, and fails no action

    def read_state(self, kind: str) -> str:
        return self.state_file(kind).read()

    def write_state(self, kind: str, text: str) -> None:
        file = self.state_file(kind)
        try:
            file.write(text)
        except OSError as problem:
            self.warn(f"cannot write {file.path}: {problem.strerror}")

    def forget(self, kind: str) -> None:
        try:
            self.state_file(kind).remove()
        except OSError:
            pass

    def owes_another(self, key: str) -> bool:
        """Whether the probe of this key owes the watcher an answer (asha.asterisk.probes.ask)."""
        return False

    def claim(self) -> bool:
        """Take the right to tell Pacemaker of a failure: one failure is told once.

        True for the first; then nobody tells of a death either (death_notice.py).
        """
        path = self.state_path(SERVING)
        mine = f"{path}.{os.getpid()}"
        try:
            os.rename(path, mine)
            os.unlink(mine)
        except OSError:
            return False
        return True

    # The peer

    def peer_available(self) -> bool:
        """Whether another node is there to go on. Unknown means no."""
        from asha.ocf.peers import peer_available

        return peer_available(self.run, self.node, FENCING_SECONDS)
