"""Node attributes that show people the state of a resource (crm_mon -A), sent only on a change.

The cluster forgets them when the node leaves it. A state file of the resource remembers what
was sent, so a monitor every few seconds costs nothing. Imported only where there is something
to tell.
"""

from __future__ import annotations

from asha.ocf.agent import TELL_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.ocf.agent import Agent

    # The depth of monitor (OCF_CHECK_LEVEL) that has found it, and what it is.
    Remark = tuple[int, str]

# How the attribute begins that tells what is degraded.
DEGRADED = "degraded: "

# The state of a resource that has nothing to tell.
OK = "ok"

# Seconds after which it is told again: an attribute manager that was restarted, while
# the resource ran on (maintenance-mode), has forgotten it.
TOLD_FOR = 300.0

# Characters of a text that is kept: as many databases can be corrupt as their users like.
TEXT_MOST = 1000

# A figure that is another at each look is no news.
DIGITS = dict.fromkeys(map(ord, "0123456789"))


class NodeAttribute:
    """One attribute, which one resource sets on its node.

    ``memory`` is the kind of the state file where that is not the attribute's name. ``cap``:
    the seconds that the cluster may take.
    """

    def __init__(
        self, agent: Agent, name: str, *, memory: str = "", cap: float = TELL_SECONDS
    ) -> None:
        self.agent = agent
        self.name = name
        self.cap = cap
        self.memory = agent.state_file(memory or name)
        self.text = agent.state_file(f"{memory or name}.text")

    # A state and its text: the newest counts.

    def tell(self, state: str, text: str) -> None:
        """Set the attribute to ``text``, unless ``state`` is the last state that was told."""
        if self.memory.read() == state and self.memory.age() < TOLD_FOR:
            return
        if not self.agent.set_node_attribute(self.name, text, self.cap):
            return  # it has warned, and the next monitor tries again
        try:
            self.memory.write(state)
        except OSError as problem:
            self.agent.warn(f"cannot remember that {self.name} was sent: {problem.strerror}")

    def keep(self, text: str) -> None:
        """Set the attribute to ``text`` and keep it for ``repeat``; "" is nothing to tell."""
        self.forget()
        if not text:
            return
        from asha.run.text import plain

        text = plain(text)
        text = _cut(text)
        try:
            self.text.write(text)
        except OSError as problem:
            self.agent.warn(f"cannot remember what {self.name} says: {problem.strerror}")
        self.tell(text, text)

    def repeat(self) -> None:
        """Set the kept text again, where the cluster may have lost it."""
        text = self.text.read()
        if text:
            self.tell(text, text)

    def withdraw(self) -> None:
        """Clear the attribute if it is set, and forget what was told, whether the cluster took
        it or not."""
        if self.memory.read() not in ("", OK):
            self.agent.clear_node_attribute(self.name, self.cap)
        self.forget()

    def forget(self) -> None:
        """Send the next text in any case: the cluster may have lost the last one."""
        for file in (self.memory, self.text):
            try:
                file.remove()
            except OSError:
                pass

    # What monitors of several depths have found: each looks at other things, so what one
    # has found stays until that depth has looked again.

    def tell_degraded(self, found: Sequence[Remark], looked: int) -> None:
        """Say what is degraded, for as long as it is; ``looked``: the depth of the deepest
        monitor.

        It is told once and not again: a missing attribute manager costs one monitor a moment,
        and not each. That all is well is told until the cluster has taken it.
        """
        before = self.memory.read()
        now = merged(before, found, looked)
        if not is_news(now, before) and self.memory.age() < TOLD_FOR:
            return
        if not now:
            self.tell_all_is_well()
            return
        try:
            self.memory.write(now)
        except OSError as problem:
            self.agent.warn(f"cannot remember what {self.name} says: {problem.strerror}")
        self.agent.set_node_attribute(self.name, value(now), self.cap)

    def tell_all_is_well(self) -> None:
        """Clear the attribute, and forget it when the cluster took that: nobody else would ever
        clear it."""
        if self.agent.clear_node_attribute(self.name, self.cap):
            self.forget()


def merged(kept: str, found: Sequence[Remark], looked: int) -> str:
    """A line "DEPTH REASON" each: ``found`` for depths up to ``looked``, older ones beyond."""
    lines = [f"{depth} {_cut(' '.join(reason.split()))}" for depth, reason in found]
    for line in kept.splitlines():
        depth, _, reason = line.partition(" ")
        if reason and depth.isdecimal() and int(depth) > looked:
            lines.append(line)
    return "\n".join(lines).encode("ascii", "replace").decode("ascii")


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MOST else f"{text[:TEXT_MOST]} ... (see the log)"


def is_news(text: str, kept: str) -> bool:
    return text.translate(DIGITS) != kept.translate(DIGITS)


def value(text: str) -> str:
    """The attribute's value, from the lines of ``merged``."""
    return DEGRADED + "; ".join(line.partition(" ")[2] for line in text.splitlines())
