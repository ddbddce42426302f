"""Whole nodes on one machine: a network, two Debians with a mains switch, a line."""

from tests.lab.host import CommandFailed, LabError, LabUnavailable, Result, wait_for, wait_steady
from tests.lab.lab import Lab
from tests.lab.node import Node

__all__ = [
    "CommandFailed",
    "Lab",
    "LabError",
    "LabUnavailable",
    "Node",
    "Result",
    "wait_for",
    "wait_steady",
]
