"""What is told of a LAN: lost at once, good again only after it has held.

The two nodes are told apart, so that what both feel (a switch without power) moves nothing:

- The passive node tells a loss first and the active one a moment later: both are lost by
  the time that the active one is judged.
- When both work again the active one counts first.
- A cable in and out makes the passive node wait longer and longer. The active one does not:
  where it is still active there was no better node. It waits at all so that a move that has
  begun is not broken off.
- A node that becomes active is trusted at once: the other was worse, or a person wants it.
"""

from __future__ import annotations

from collections import deque

from asha.lan import NO_ANSWER, NO_CARRIER, OK, UNSTEADY

# Seconds that the active node's loss waits for the other's. ARP is asked once a second, and
# not by both nodes at the same moment.
AFTER_PASSIVE = {NO_CARRIER: 0.3, NO_ANSWER: 2.0}
# So many losses within so many seconds need not last: that is a flapping cable.
FLAPS, FLAP_SECONDS = 3, 10.0

# Seconds that a LAN must hold before it is trusted again, on the passive node that much
# more, and twice as long with each loss, to a limit.
STEADY = 30.0
AFTER_ACTIVE = 2.0
STEADY_MOST = 600.0
# Losses so close together are one: the cable was not pushed in at once.
ONE_LOSS = 5.0
# A loss is forgotten after an hour.
FORGOTTEN = 3600.0


class Health:
    """``verdict`` is what the cluster is to know, "" before the first look."""

    def __init__(self) -> None:
        self.verdict = ""
        self._bad_since: float | None = None
        self._good_since: float | None = None
        self._was_active = False
        self._losses: deque[float] = deque()
        self._flaps: deque[float] = deque(maxlen=FLAPS)

    def judge(self, now: float, seen: str, active: bool) -> str:
        """The verdict at ``now`` (seconds, monotonic). ``seen``: OK, NO_CARRIER or NO_ANSWER;
        ``active``: this node has the virtual address."""
        if seen != OK:
            self._bad(now, seen, active)
        else:
            self._good(now, active)
        self._was_active = active
        return self.verdict

    @property
    def is_pending(self) -> bool:
        """Whether it is to be judged again within a moment, although nothing happens."""
        return self._bad_since is not None and self.verdict in ("", OK)

    def _bad(self, now: float, seen: str, active: bool) -> None:
        self._good_since = None
        if self._bad_since is None:
            self._bad_since = now
            self._flaps.append(now)
            if not self._losses or now - self._losses[-1] >= ONE_LOSS:
                self._losses.append(now)
        flaps = len(self._flaps) == FLAPS and now - self._flaps[0] < FLAP_SECONDS
        patience = AFTER_PASSIVE[seen] if active and not flaps else 0.0
        if self.verdict not in ("", OK) or now - self._bad_since >= patience:
            self.verdict = seen

    def _good(self, now: float, active: bool) -> None:
        self._bad_since = None
        if self._good_since is None:
            self._good_since = now
        if self.verdict == OK:
            return
        begins = active and not self._was_active
        if begins or now - self._good_since >= self._patience(now, active):
            self.verdict = OK
        else:
            self.verdict = UNSTEADY

    def _patience(self, now: float, active: bool) -> float:
        """Seconds that it must hold before it is good. The passive node waits also after a
        boot: the active one may just be getting well again."""
        if active:
            return STEADY
        while self._losses and now - self._losses[0] > FORGOTTEN:
            self._losses.popleft()
        doublings = max(0, min(len(self._losses), 10) - 1)
        return min(STEADY * (1 << doublings), STEADY_MOST) + AFTER_ACTIVE
