"""One monotonic deadline per action, from which every wait takes its time."""

from __future__ import annotations

import time

from asha.run.results import Expired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Deadline:
    """A moment by which all work must be done. Times are seconds.

    The clock is monotonic: a stepped wall clock neither shortens nor extends it.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._end = clock() + seconds

    def remaining(self, cap: float | None = None) -> float:
        """Seconds left, never negative, at most ``cap``."""
        left = max(0.0, self._end - self._clock())
        return left if cap is None else min(left, cap)

    @property
    def expired(self) -> bool:
        return self._clock() >= self._end

    def within(self, cap: float) -> Deadline:
        """A deadline of at most ``cap`` seconds that never outlasts this one."""
        return Deadline(self.remaining(cap), self._clock, self._sleep)

    def at_least(self, seconds: float) -> Deadline:
        """A deadline that does not pass before ``seconds`` are over.

        Only to verify a last measure: after its own end an action uses the reserve that it
        keeps.
        """
        return Deadline(max(self.remaining(), seconds), self._clock, self._sleep)

    def require(self, doing: str) -> None:
        """Raise Expired, with what was being done, if the time is over."""
        if self.expired:
            raise Expired(f"ran out of time while {doing}")

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the deadline."""
        self._sleep(self.remaining(seconds))

    def poll(self, condition: Callable[[], bool], every: float = 0.05) -> bool:
        """Ask until the condition holds (True) or the time is over (False).

        The condition is asked at least once, and once more at the very end.
        """
        while True:
            if condition():
                return True
            if self.expired:
                return False
            self.pause(every)
