"""Whether Pacemaker sees another node that could take over.

Imported only where an agent's answer depends on it. Corosync's membership does not suffice: a
node in standby, or with a stopped Pacemaker, is a member and takes nothing over.
"""

from __future__ import annotations

from asha.run.results import AgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.run.runner import Completed

COMMAND = ("crm_mon", "-1", "--output-as=xml")
# What keeps a node from running anything (the same in Pacemaker 2.1 and 3.0:
# /usr/share/pacemaker/api/crm_mon-*.rng).
UNFIT = ("standby", "standby_onfail", "maintenance", "pending", "unclean", "shutdown")


def peer_available(run: Callable[..., Completed], here: str, seconds: float) -> bool:
    """False if that is not known within ``seconds``. ``run`` is the agent's."""
    from xml.etree import ElementTree

    try:
        shown = run(*COMMAND, cap=seconds)
        top = ElementTree.fromstring(shown.out if shown.ok else "<none/>")
    except (AgentError, ElementTree.ParseError, ValueError):
        return False
    return any(
        node.get("name") != here
        and node.get("online") == "true"
        and node.get("type", "member") == "member"
        and not any(node.get(flag) == "true" for flag in UNFIT)
        for node in top.iterfind("nodes/node")
    )
