"""The agent starts its watcher: at its own start, and from a monitor that finds it gone.

The watcher ends by itself as soon as the state file ``serving`` is gone, with which each stop
begins: no switch has to wait for systemd.
"""

from __future__ import annotations

from asha.agents.watch import beat
from asha.ocf import AgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.agents.asterisk_base import AsteriskAgent
    from asha.ocf.attributes import Remark

UNIT = "asha-asterisk-watch@{}.service"

# The state file with what the agent was given: NAME=VALUE, each ended by a zero byte.
GIVEN = "given"
# And of a watcher that was found gone: the watcher removes it once it works.
GONE = "unwatched"

# Seconds for systemd, which is only told.
TELL_SECONDS = 2.0


def begin(agent: AsteriskAgent) -> bool:
    """Start the watcher, anew if one runs. False if that cannot be; calls do not need it."""
    if not agent.launcher().control_group:
        return False  # no systemd to run it
    given = "".join(f"{name}={value}\0" for name, value in agent.environ.items()
                    if name.startswith("OCF_") or name == "HA_RSCTMP")
    agent.write_state(GIVEN, given)
    unit = UNIT.format(agent.instance)
    try:
        done = agent.run("systemctl", "restart", "--no-block", unit, cap=TELL_SECONDS)
    except AgentError as problem:
        agent.warn(f"hangs are found later: {problem.reason}")
        return False
    if not done.ok:
        agent.warn(f"hangs are found later: systemd does not start {unit}: {done.complaint}")
        return False
    try:
        beat.give(agent.state_path(beat.KIND), agent.context.clock())
    except OSError as problem:
        agent.warn(f"cannot write {agent.state_path(beat.KIND)}: {problem.strerror}")
    return True


def again(agent: AsteriskAgent) -> list[Remark]:
    """Start one that is gone; what to say if that was tried before and has not helped."""
    if not agent.launcher().control_group:
        return []
    unit = UNIT.format(agent.instance)
    has_tried = bool(agent.read_state(GONE))
    agent.warn(f"the watcher is gone: {unit} is started again")
    agent.write_state(GONE, unit)
    is_begun = begin(agent)
    if is_begun and not has_tried:
        return []
    return [(10, f"hangs are found later, by the monitor alone: systemctl status {unit}")]


def given(text: str) -> dict[str, str]:
    """Parse GIVEN."""
    pairs = (line.partition("=") for line in text.split("\0") if line)
    return {name: value for name, _, value in pairs}
