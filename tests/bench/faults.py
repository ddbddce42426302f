"""The faults of the bench, and which stacks live through each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.stacks import OURS, STOCK, STOCK_SIP
from tests.lab.cluster import Cluster
from tests.lab.hangs import FENCED, Hang, hang
from tests.lab.host import cgroup_root
from tests.lab.injectors import daemon

PLANNED, KILLED, SIGSTOP, CRASHED, RETURNED = "planned", "killed", "sigstop", "crash", "return"


@dataclass(frozen=True)
class Fault:
    """``inject`` is None where the turn is of its own kind (see rounds.py).

    ``seconds``: about how long a turn takes on each stack that plays it, healing
    included; those that are not named do not play it. ``fenced``: ours may need the
    fence device for it.
    """

    name: str
    title: str
    seconds: dict[str, float]
    inject: Callable[[Cluster], AbstractContextManager[object]] | None = None
    prepare: Callable[[Cluster], object] = lambda cluster: None
    is_hang: bool = False
    fenced: bool = False


@contextmanager
def kill(cluster: Cluster) -> Iterator[None]:
    os.kill(daemon(cluster.active()).pid, signal.SIGKILL)
    yield


def apart(cluster: Cluster) -> None:
    """Give Asterisk a control group of its own, where it has none.

    An agent that starts it itself leaves it in Pacemaker's, which would be frozen with it.
    """
    pid = daemon(cluster.active()).pid
    text = Path(f"/proc/{pid}/cgroup").read_text()
    path = next(line[3:] for line in text.splitlines() if line.startswith("0::"))
    if not path.endswith("/asterisk.service"):
        own = cgroup_root() / path.lstrip("/") / "asterisk"
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text(str(pid))


def of_table(one: Hang, seconds: dict[str, float]) -> Fault:
    def prepare(cluster: Cluster) -> None:
        one.prepare(cluster)
        if one.name == "cgroup-frozen":
            apart(cluster)

    return Fault(one.name, one.title, seconds, one.inject, prepare, is_hang=True,
                 fenced=one.outcome == FENCED)


# A stack whose monitor asks the console first waits there in vain when all of Asterisk
# stands still, whatever it would ask after that: such a hang is not played twice.
FAULTS = (
    Fault(PLANNED, "planned switch (crm node standby)", {STOCK: 18, OURS: 15}),
    Fault(KILLED, "kill -9", {STOCK: 18, STOCK_SIP: 18, OURS: 9}, kill),
    of_table(hang("sigstop"), {STOCK: 62, OURS: 13}),
    of_table(hang("cgroup-frozen"), {STOCK: 62, OURS: 13}),
    of_table(hang("dialplan-lock"), {STOCK: 30, STOCK_SIP: 48, OURS: 16}),
    of_table(hang("channel-lock"), {STOCK: 30, STOCK_SIP: 30, OURS: 18}),
    of_table(hang("sip-thread"), {STOCK: 32, STOCK_SIP: 48, OURS: 16}),
    of_table(hang("store-frozen"), {STOCK: 35, STOCK_SIP: 30, OURS: 50}),
    # Last: it ends with a node that has just booted.
    Fault(CRASHED, "active node loses power", {STOCK: 48, OURS: 20}),
)
