"""The result of an action: the OCF exit codes, and the errors that carry one.

Codes: OCF Resource Agent API 1.1, section "Return codes", and Pacemaker Explained, "How are OCF
return codes interpreted" for 8, 9, 190 and 191.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class Exit(int):
    """OCF exit code of an action: a number that knows its name.

    Not an IntEnum, because importing enum takes half of the time that a shallow
    monitor spends in ASHA.
    """

    SUCCESS: ClassVar[Exit]
    ERR_GENERIC: ClassVar[Exit]
    ERR_ARGS: ClassVar[Exit]
    ERR_UNIMPLEMENTED: ClassVar[Exit]
    ERR_PERM: ClassVar[Exit]
    ERR_INSTALLED: ClassVar[Exit]
    ERR_CONFIGURED: ClassVar[Exit]
    NOT_RUNNING: ClassVar[Exit]
    RUNNING_PROMOTED: ClassVar[Exit]
    FAILED_PROMOTED: ClassVar[Exit]
    # Running, but an operator should look. Pacemaker treats these two as
    # success and shows them, so nothing is restarted.
    DEGRADED: ClassVar[Exit]
    DEGRADED_PROMOTED: ClassVar[Exit]

    @property
    def name(self) -> str:
        return NAMES[self]

    def __repr__(self) -> str:
        return f"Exit.{self.name}"

    __str__ = int.__repr__


NAMES = {
    0: "SUCCESS",
    1: "ERR_GENERIC",
    2: "ERR_ARGS",
    3: "ERR_UNIMPLEMENTED",
    4: "ERR_PERM",
    5: "ERR_INSTALLED",
    6: "ERR_CONFIGURED",
    7: "NOT_RUNNING",
    8: "RUNNING_PROMOTED",
    9: "FAILED_PROMOTED",
    190: "DEGRADED",
    191: "DEGRADED_PROMOTED",
}
for _code, _name in NAMES.items():
    setattr(Exit, _name, Exit(_code))


class AgentError(Exception):
    """The end of an action: an exit code, and one reason that a person can act on."""

    code = Exit.ERR_GENERIC

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Failed(AgentError):
    """The resource does not work and should: Pacemaker recovers it (stop, start)."""


class Expired(Failed):
    """Our own deadline passed before Pacemaker's, so that we can say where.

    ``out`` is what a program that did not end had printed by then.
    """

    def __init__(self, reason: str, out: str = "") -> None:
        super().__init__(reason)
        self.out = out


class NotRunning(AgentError):
    """The resource is cleanly stopped, or gone."""

    code = Exit.NOT_RUNNING


class NotInstalled(AgentError):
    """This node lacks a program, device or account: other nodes may run the resource."""

    code = Exit.ERR_INSTALLED


class BadHere(AgentError):
    """A parameter that is valid and does not fit this node."""

    code = Exit.ERR_ARGS


class BadConfig(AgentError):
    """A parameter that is invalid on every node."""

    code = Exit.ERR_CONFIGURED


class FailedPromoted(AgentError):
    """The resource is promoted and failed: Pacemaker demotes it before it recovers it."""

    code = Exit.FAILED_PROMOTED


class Degraded(AgentError):
    """The resource works, and somebody should look."""

    code = Exit.DEGRADED


class DegradedPromoted(AgentError):
    """The resource works promoted, and somebody should look."""

    code = Exit.DEGRADED_PROMOTED
