"""AstDB before Asterisk starts: a damaged one is recovered, and people are told.

Asterisk does not start with an AstDB that is no database any more, on either node, as they
share it. Imported by a start, and by a monitor while there is something to tell.
"""

from __future__ import annotations

from asha.agents.asterisk_base import ASTDB
from asha.asterisk import astdb
from asha.data.salvage import recovery
from asha.ocf import AgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.agents.asterisk_base import AsteriskAgent
    from asha.ocf.attributes import Remark

# Seconds for the check of one that is well; 50 MB take a quarter of one. What takes longer
# is not checked.
CHECK_SECONDS = 2.0

# The shares of a start's time for what can be read of a damaged one, and for putting it
# aside unread where that takes too long.
RECOVER_SHARE = 0.4
ASIDE_SHARE = 0.2

LOOK_SECONDS = 1.0

# The depth of the monitor that looks whether the damaged one is still kept.
DEPTH = 20


def make_usable(agent: AsteriskAgent) -> list[Remark]:
    """What people must know of AstDB. Never raises an AgentError: what cannot be done here
    Asterisk itself may still be able to do, or to name."""
    try:
        path = f"{astdb.folder(agent.deadline)}/{recovery.FILE}"
        why, newest = recovery.check(path, agent.deadline.within(CHECK_SECONDS))
    except AgentError as problem:
        agent.warn(f"AstDB was not checked: {problem.reason}")
        return []
    if why:
        return _recover(agent, path, why)
    kept, _, text = agent.read_state(ASTDB).partition("\n")
    if not newest:
        agent.forget(ASTDB)
        return []
    if kept != newest:
        # On the other node, or before this one was booted.
        stamp = newest.rpartition(recovery.KEPT)[2]
        text = f"AstDB was damaged on {stamp}: {newest}{recovery.NOTE} says what was lost" + (
            _until(newest))
        agent.write_state(ASTDB, f"{newest}\n{text}")
    return [(DEPTH, text)]


def remarks(agent: AsteriskAgent) -> list[Remark]:
    """Of a monitor: until the damaged one is removed."""
    kept, _, text = agent.read_state(ASTDB).partition("\n")
    if recovery.is_kept(kept, agent.deadline.within(LOOK_SECONDS)):
        return [(DEPTH, text)]
    agent.forget(ASTDB)
    return []


def _recover(agent: AsteriskAgent, path: str, why: str) -> list[Remark]:
    agent.warn(f"{path} is damaged: {why}")
    for share, anew in ((RECOVER_SHARE, False), (ASIDE_SHARE, True)):
        limit = agent.deadline.within(agent.deadline.remaining() * share)
        try:
            done = recovery.recover(path, limit, anew=anew)
        except AgentError as problem:
            agent.warn(f"{path} is not recovered: {problem.reason}")
            continue
        if done is None:
            return []
        text = f"AstDB was damaged: {done}; it is {done.kept}{_until(done.kept)}"
        agent.warn(text)
        agent.write_state(ASTDB, f"{done.kept}\n{text}")
        return [(DEPTH, text)]
    return [(DEPTH, f"{path} is damaged: {why}")]


def _until(kept: str) -> str:
    from shlex import quote

    # Asterisk's user chooses the path (astdbdir), and somebody copies the command.
    return f"; once you have looked at it: rm {quote(kept)}*"
