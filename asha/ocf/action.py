"""What an agent declares of its actions: beside each method, and in the metadata."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Method = TypeVar("Method", bound=Callable[..., object])

# Seconds an action gets when neither Pacemaker nor the class says: what
# Pacemaker itself gives an operation without a timeout.
UNDECLARED_TIMEOUT = 20
# Seconds for actions that only print.
PLAIN_TIMEOUT = 5


class ActionSpec:
    """One advertised operation. Times are in seconds."""

    def __init__(
        self,
        name: str,
        timeout: int,
        interval: int | None = None,
        depth: int | None = None,
        role: str | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.interval = interval
        self.depth = depth
        self.role = role


def action(
    *,
    timeout: int,
    interval: int | None = None,
    depth: int | None = None,
    role: str | None = None,
) -> Callable[[Method], Method]:
    """Declare a method as an action of the agent. Stack it for several monitors."""

    def mark(method: Method) -> Method:
        specs = getattr(method, "ocf_actions", ())
        name = method.__name__.replace("_", "-")
        spec = ActionSpec(name, timeout, interval, depth, role)
        method.ocf_actions = (spec, *specs)  # type: ignore[attr-defined]
        return method

    return mark
