"""Looking in a hurry: everything together ends by one deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asha.machine import Machine
from asha.run.deadline import Deadline
from asha.run.runner import Completed


class DeadlineMachine(Machine):
    """A machine all of whose programs end by the deadline, whatever time they are given.

    ``cap`` is the most that any one of them gets, so that one which hangs leaves
    time for the others. Both in seconds.
    """

    def __init__(self, machine: Machine, deadline: Deadline, cap: float) -> None:
        super().__init__(str(machine.root))
        self.deadline = deadline
        self._machine = machine
        self._cap = cap

    def has(self, program: str) -> bool:
        return self._machine.has(program)

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
        environ: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        patience = self.deadline.remaining(min(timeout, self._cap))
        return self._machine.run(*argv, timeout=patience, check=check, stdin=stdin,
                                 environ=environ, keep_open=keep_open)
