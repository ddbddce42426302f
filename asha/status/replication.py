"""The two disks: from DRBD's words to ours, with a speed where DRBD reports none."""

from __future__ import annotations

import time
from collections.abc import Callable

from asha.cluster import drbd
from asha.cluster.drbd import Replication
from asha.machine import Machine
from asha.status.model import Disks

# Between two looks: long enough for some MB, short enough for somebody who waits.
SAMPLE_SECONDS = 1.0

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class DiskSight:
    """Looks at the disks, once or repeatedly, and remembers the last look.

    ``here`` and ``there`` are the nodes' names.
    """

    def __init__(self, machine: Machine, here: str, there: str,
                 clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> None:
        self._machine = machine
        self._names = (here, there)
        self._clock = clock
        self._sleep = sleep
        self._before: tuple[float, int] | None = None

    def look(self) -> Disks | None:
        """The state now; None where DRBD's resource is not up here."""
        found = drbd.status(self._machine)
        if not found.is_up:
            return None
        speed = found.speed
        if found.is_syncing and not speed and found.out_of_sync is not None:
            speed = self._speed(found.out_of_sync)
        return _disks(found, self._names, speed)

    def look_closely(self) -> Disks | None:
        """The same; during a sync of unknown speed it looks twice, a second apart."""
        disks = self.look()
        if disks is None or not disks.syncing or disks.speed or disks.out_of_sync is None:
            return disks
        self._sleep(SAMPLE_SECONDS)
        return self.look()

    def _speed(self, out_of_sync: int) -> int | None:
        """KiB/s since the last look, None at the first."""
        now, before = self._clock(), self._before
        self._before = now, out_of_sync
        if before is None or now <= before[0]:
            return None
        return max(0, round((before[1] - out_of_sync) / (now - before[0])))


def _disks(found: Replication, names: tuple[str, str], speed: int | None) -> Disks:
    left = found.seconds_left
    if left is None and found.is_syncing and speed and found.out_of_sync is not None:
        left = found.out_of_sync // speed
    return Disks(
        node=names[0],
        role=found.role,
        disk=found.disk,
        peer=names[1],
        peer_role=found.peer_role,
        peer_disk=found.peer_disk,
        connection=found.connection,
        syncing=found.is_syncing,
        in_sync=found.is_whole,
        percent=found.percent if found.is_syncing else None,
        out_of_sync=found.out_of_sync,
        speed=speed if found.is_syncing else None,
        seconds_left=left if found.is_syncing else None,
    )
