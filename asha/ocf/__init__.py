"""What a resource agent is: parameters, actions, results, one deadline.

Knows nothing of telephony. The import has no side effect, and loads only what every action
needs; metadata and the runner are loaded when they are used.
"""

from asha.ocf.action import action
from asha.ocf.agent import Agent, Context, main
from asha.ocf.params import Boolean, Choice, Duration, Integer, Path, String
from asha.run.deadline import Deadline
from asha.run.results import (
    AgentError,
    BadConfig,
    BadHere,
    Degraded,
    DegradedPromoted,
    Exit,
    Expired,
    Failed,
    FailedPromoted,
    NotInstalled,
    NotRunning,
)

__all__ = [
    "Agent",
    "AgentError",
    "BadConfig",
    "BadHere",
    "Boolean",
    "Choice",
    "Context",
    "Deadline",
    "Degraded",
    "DegradedPromoted",
    "Duration",
    "Exit",
    "Expired",
    "Failed",
    "FailedPromoted",
    "Integer",
    "NotInstalled",
    "NotRunning",
    "Path",
    "String",
    "action",
    "main",
]
