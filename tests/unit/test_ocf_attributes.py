"""Node attributes: what is told, when it is told again, and what each depth keeps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from asha.ocf import Context, Failed
from asha.ocf.attributes import TEXT_MOST, TOLD_FOR, NodeAttribute, is_news, merged, value
from tests.fakes.ocf import CallQueue
from tests.unit.ocf_sample import Plain

NAME = "asha-sample"


class Node:
    """An agent's attribute, and what the cluster's program is called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = CallQueue()
        environ = {
            "HA_RSCTMP": str(folder),
            "OCF_RESOURCE_INSTANCE": "p_test",
            "OCF_RESKEY_CRM_meta_interval": "10000",
        }
        agent = Plain("monitor", Context(environ, runner=self.queue))
        self.attribute = NodeAttribute(agent, NAME)

    def expect(self, text: str, *, heard: bool = True) -> None:
        """"" for its removal."""
        what = ("--update", text) if text else ("--delete",)
        raises = None if heard else Failed("attrd_updater did not end within 5.0 s")
        self.queue.expect("attrd_updater", "--name", NAME, *what, raises=raises)

    def age(self, seconds: float) -> None:
        before = time.time() - seconds
        for file in self.folder.iterdir():
            os.utime(file, (before, before))

    def files(self) -> list[str]:
        return sorted(file.name for file in self.folder.iterdir())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


# A state and its text


def test_a_state_is_told_once(node: Node) -> None:
    node.expect("low: 9 %")
    for _ in range(3):
        node.attribute.tell("low 9", "low: 9 %")
    node.expect("low: 8 %")
    node.attribute.tell("low 8", "low: 8 %")
    node.queue.done()


def test_it_is_told_again_for_a_manager_that_forgot_it(node: Node) -> None:
    for _ in range(2):
        node.expect("ok")
        node.attribute.tell("ok", "ok")
        node.age(TOLD_FOR + 1)
    node.queue.done()


def test_what_was_not_heard_is_told_again(node: Node) -> None:
    for heard in (False, True):
        node.expect("ok", heard=heard)
        node.attribute.tell("ok", "ok")
    node.attribute.tell("ok", "ok")
    node.queue.done()


def test_a_text_is_kept_and_repeated(node: Node) -> None:
    text = "x" * (TEXT_MOST + 1)
    shown = f"{text[:TEXT_MOST]} ... (see the log)"
    node.expect(shown)
    node.attribute.keep(text)
    node.attribute.repeat()
    node.age(TOLD_FOR + 1)
    node.expect(shown)
    node.attribute.repeat()
    node.queue.done()
    node.attribute.keep("")
    node.attribute.repeat()
    assert node.files() == []


@pytest.mark.parametrize("heard", [True, False])
def test_withdrawn_is_forgotten(node: Node, heard: bool) -> None:
    node.expect("a path is left out")
    node.attribute.keep("a path is left out")
    node.expect("", heard=heard)
    node.attribute.withdraw()
    assert node.files() == []
    # Nothing was told, or that all is well: there is nothing to take back.
    node.attribute.withdraw()
    node.expect("ok")
    node.attribute.tell("ok", "ok")
    node.attribute.withdraw()
    node.queue.done()


def test_without_a_place_for_the_memory_it_is_told_each_time(tmp_path: Path) -> None:
    node = Node(tmp_path / "absent")
    for _ in range(2):
        node.expect("full")
        node.attribute.tell("full", "full")
    node.queue.done()


# What each depth has found


def test_degraded_is_told_once_whether_heard_or_not(node: Node) -> None:
    node.expect("degraded: AMI is gone", heard=False)
    for _ in range(2):
        node.attribute.tell_degraded([(10, "AMI is gone")], 10)
    node.queue.done()


def test_all_is_well_is_told_until_it_is_heard(node: Node) -> None:
    node.expect("degraded: AMI is gone")
    node.attribute.tell_degraded([(10, "AMI is gone")], 10)
    for heard in (False, True):
        node.expect("", heard=heard)
        node.attribute.tell_degraded([], 10)
    node.queue.done()
    assert node.files() == []


def test_each_depth_keeps_its_own() -> None:
    text = merged("", [(10, "AstDB is full"), (20, "no call")], 20)
    assert value(text) == "degraded: AstDB is full; no call"
    # Depth 10 does not know of the call; depth 0 of neither.
    assert value(merged(text, [], 10)) == "degraded: no call"
    assert merged(text, [], 0).splitlines() == ["10 AstDB is full", "20 no call"]
    assert merged(text, [], 20) == ""


def test_a_reason_is_one_line_of_ascii() -> None:
    assert merged("", [(0, "caf\u00e9\nis full")], 0) == "0 caf? is full"


@pytest.mark.parametrize("torn", ["2", "x y", "\n"])
def test_a_torn_file_is_none(torn: str) -> None:
    assert merged(torn, [], 0) == ""


def test_other_figures_are_no_news() -> None:
    assert not is_news("10 600 tasks wait", "10 601 tasks wait")
    assert is_news("10 600 tasks wait", "")
    assert is_news("10 AMI is gone", "10 AstDB is full")
