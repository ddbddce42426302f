"""The judge: the agent's own monitor, for an Asterisk in which the watcher finds a part silent.

    python3 -m asha.agents.watch.judge FILES

FILES is how the state files of the resource begin. Run by asha-asterisk-silent@.service, which
the watcher starts. It examines Asterisk as Pacemaker's monitor at depth 10 does, with the same
parameters. What owes the watcher an answer all the while is asked once instead of twice: the
watcher's question was the first. Only if that is a failure Pacemaker is told. Where this goes
wrong, the monitor finds the same a little later.
"""

from __future__ import annotations

import os
import sys

from asha import gate

gate.enter()  # before the rest is imported: an upgrade may just be replacing it

from asha.agents.asterisk_base import SERVING, TOLD  # noqa: E402
from asha.agents.asterisk_health import AsteriskHealth  # noqa: E402
from asha.agents.watch import beat, silence  # noqa: E402
from asha.agents.watch.begin import GIVEN, given  # noqa: E402
from asha.asterisk import HANG_ATTRIBUTE  # noqa: E402
from asha.asterisk.process import death_notice  # noqa: E402
from asha.ocf import AgentError, Context, Degraded, Expired, Failed, NotRunning  # noqa: E402
from asha.ocf.state import StateFile  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.asterisk.process.proc import Process

# Seconds for the examination (the monitor's timeout in cib/asha.crm), and to tell of its result.
SECONDS = 30.0
ATTRIBUTE_SECONDS = 5.0

# Seconds after which what the watcher has said is old: it says it anew every half second.
NEWS_SECONDS = 2.0


class Judge(AsteriskHealth):
    """The agent's monitor, whose exit code nobody reads."""

    name = AsteriskHealth.name
    is_pacemakers = False

    def owes_another(self, key: str) -> bool:
        """As the watcher says now: what it says must be news."""
        now = self.context.clock()
        return beat.is_fresh(self.state_path(beat.KIND), now, NEWS_SECONDS) and (
            key in silence.due(self.read_state(silence.KIND), now, self.probe_timeout)
        )

    def judge(self) -> int:
        """0 unless there is a failure that Pacemaker should know of, and does not."""
        process = self.known()
        try:
            self.perform()
        except Degraded as problem:
            self.warn(problem.reason)  # as its monitor tells
        except NotRunning:
            if not self.launcher().control_group.endswith(".service"):
                # No systemd has seen it die.
                return death_notice.main([self.instance, self.state_path(SERVING)], self.runner)
        except Expired as problem:
            self.warn(f"not judged: {problem.reason}")
        except Failed as problem:
            if process is not None and not process.gone:
                return self._report(process, problem.reason)
        except AgentError as problem:
            self.warn(f"not judged: {problem.reason}")
        return 0

    def _report(self, process: Process, reason: str) -> int:
        """Have Pacemaker recover it, unless somebody else has told of it, or it is to stop."""
        said = self.read_state(SERVING)
        if not said.startswith(f"{process.identity} "):
            return 0
        if death_notice.is_unmanaged(self.instance, self.runner):
            self.warn(f"{reason}; Pacemaker does not manage it now")
            return 0
        # In this order: a monitor that fails to claim it looks for the other.
        self.write_state(TOLD, process.identity)
        try:
            beat.give(self.state_path(TOLD), self.context.clock())
        except OSError as problem:
            self.warn(f"cannot write {self.state_path(TOLD)}: {problem.strerror}")
        if not self.claim():
            self.forget(TOLD)
            return 0
        self.error(f"{reason}: Pacemaker is told")
        if not self._fail():
            self._give_back(said, process)
            return 1
        from time import time

        self.set_node_attribute(HANG_ATTRIBUTE, f"{time():.0f} {reason}", ATTRIBUTE_SECONDS)
        return 0

    def _give_back(self, said: str, process: Process) -> None:
        """The right to tell; not once a stop has begun, which removes TOLD before SERVING. With
        the file its kill would be told as a death, and the watcher would watch on."""
        if self.read_state(TOLD) != process.identity:
            return
        self.write_state(SERVING, said)
        if self.read_state(TOLD) != process.identity:
            self.forget(SERVING)
        self.forget(TOLD)

    def _fail(self) -> bool:
        try:
            done = self.runner.run(
                ("crm_resource", "--fail", "--resource", self.instance, "--node", self.node),
                self.deadline.at_least(death_notice.TELLING_SECONDS),
            )
        except AgentError as problem:
            self.warn(f"{problem.reason}: the monitor will notice")
            return False
        if not done.ok:
            self.warn(f"crm_resource: {done.complaint}: the monitor will notice")
        return done.ok


def main(arguments: Sequence[str]) -> int:
    (files,) = arguments
    try:
        return _judge(files)
    finally:
        # The watcher waits for our end.
        StateFile(f"{files}.{silence.JUDGING}").remove()


def _judge(files: str) -> int:
    environ = given(StateFile(f"{files}.{GIVEN}").read())
    if not environ:
        return 0  # it has been stopped
    context = Context({
        **os.environ, **environ, "OCF_CHECK_LEVEL": "10", "OCF_RESKEY_CRM_meta_interval": "1",
        "OCF_RESKEY_CRM_meta_timeout": str(int(SECONDS * 1000)),
    })
    return Judge("monitor", context).judge()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
