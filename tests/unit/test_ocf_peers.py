"""Whether another node can take over: what Pacemaker's XML says of it."""

from __future__ import annotations

import pytest

from asha.ocf import Failed
from asha.ocf.peers import COMMAND, peer_available
from asha.run.deadline import Deadline
from asha.run.runner import Completed
from tests.fakes.ocf import CallQueue

HERE = '<node name="crm1" online="true" standby="false" type="member"/>'


def ask(queue: CallQueue) -> bool:
    def run(*argv: str, cap: float) -> Completed:
        return queue.run(argv, Deadline(10), cap=cap)

    found = peer_available(run, "crm1", 2.0)
    queue.done()
    return found


@pytest.mark.parametrize(
    ("other", "company"),
    [
        ('online="true" standby="false" maintenance="false" type="member"', True),
        ('online="true"', True),
        ('online="false"', False),
        *((f'online="true" {flag}="true"', False)
          for flag in ("standby", "standby_onfail", "maintenance", "pending", "unclean",
                       "shutdown")),
        ('online="true" type="remote"', False),
    ],
)
@pytest.mark.parametrize("root", ["crm_mon", "pacemaker-result"])
def test_only_one_that_may_run_something_counts(root: str, other: str, company: bool) -> None:
    queue = CallQueue()
    xml = f'<{root}><nodes>{HERE}<node name="crm2" {other}/></nodes></{root}>'
    queue.expect(*COMMAND, out=xml)
    assert ask(queue) == company


def test_alone() -> None:
    queue = CallQueue()
    queue.expect(*COMMAND, out=f"<crm_mon><nodes>{HERE}</nodes></crm_mon>")
    assert not ask(queue)


def test_not_known_is_no() -> None:
    queue = CallQueue()
    queue.expect(*COMMAND, raises=Failed("crm_mon did not end within 2.0 s"))
    assert not ask(queue)
    queue.expect(*COMMAND, code=102, out="Not connected")
    assert not ask(queue)
    queue.expect(*COMMAND, out="<crm_mon><nodes>")
    assert not ask(queue)
