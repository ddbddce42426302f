"""Node attributes that tell people something, sent only when it changes.

The cluster forgets them when the node leaves it. What was sent is remembered in
a file of the resource, so that a monitor every few seconds costs nothing.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.ocf.agent import Agent


# Seconds after which it is told again: an attribute manager that was restarted, while
# the resources ran on (maintenance-mode), has forgotten it.
TOLD_FOR = 300.0

# Characters of what is kept: as many databases can be corrupt as their users like.
TEXT_MOST = 1000


def tell(agent: Agent, name: str, state: str, text: str) -> None:
    """Set the attribute to ``text``, unless ``state`` is what it told last."""
    memory = agent.state_path(name)
    if _last(memory) == state and agent.state_age(name) < TOLD_FOR:
        return
    if not agent.set_node_attribute(name, text):
        return  # it has warned, and the next monitor tries again
    try:
        # by name: /run/resource-agents is root's alone
        with open(memory, "w", encoding="utf-8") as file:
            file.write(state)
    except OSError as problem:
        agent.warn(f"cannot remember that {name} was sent: {problem.strerror}")


def keep(agent: Agent, name: str, text: str) -> None:
    """Tell ``text`` and remember it for ``repeat``; "" is nothing to tell."""
    forget(agent, name)
    if not text:
        return
    if len(text) > TEXT_MOST:
        text = f"{text[:TEXT_MOST]} ... (see the log)"
    memory = agent.state_path(f"{name}.text")
    try:
        # by name: /run/resource-agents is root's alone
        with open(memory, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as problem:
        agent.warn(f"cannot remember what {name} says: {problem.strerror}")
    tell(agent, name, text, text)


def repeat(agent: Agent, name: str) -> None:
    """Tell again what is kept, where the cluster may have lost it."""
    text = _last(agent.state_path(f"{name}.text"))
    if text:
        tell(agent, name, text, text)


def withdraw(agent: Agent, name: str) -> None:
    """Remove the attribute if it says something, and forget what was told."""
    memory = agent.state_path(name)
    if _last(memory) not in ("", "ok"):
        agent.clear_node_attribute(name)
    forget(agent, name)


def forget(agent: Agent, name: str) -> None:
    """Send it again next time, whatever it is: the cluster may have lost it."""
    from contextlib import suppress  # late: not for a monitor

    for kind in (name, f"{name}.text"):
        with suppress(OSError):
            os.unlink(agent.state_path(kind))  # by name: the same


def _last(memory: str) -> str:
    try:
        # by name: /run/resource-agents is root's alone
        with open(memory, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):  # absent or damaged: tell it again
        return ""
