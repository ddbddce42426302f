"""What a node is to bind: every refusal, each with its code and its mend."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from asha.data import owners, plan
from asha.data.mountinfo import Mount
from asha.data.paths import Item
from asha.data.plan import Plan
from asha.ocf import BadConfig, BadHere, NotInstalled

ME = pwd.getpwuid(os.getuid())
STRANGER = ME.pw_uid + 1


class Node:
    """A node's directories and a store, below a temporary directory."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "node"
        self.drbd = folder / "drbd"
        self.root.mkdir()
        self.drbd.mkdir()
        self.mounts = [
            Mount("1 0 254:0 / / rw - ext4 /dev/vda rw"),
            Mount(f"2 1 147:0 /pbx {self.drbd} rw - ext4 /dev/drbd0 rw"),
        ]

    def path(self, name: str) -> str:
        return str(self.root / name)

    def local(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def source(self, name: str) -> Path:
        return self.drbd / self.path(name).lstrip("/")

    def stored(self, name: str) -> Path:
        folder = self.source(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def both(self, name: str) -> None:
        self.local(name)
        self.stored(name)

    def plan(self, *items: Item) -> Plan:
        return plan.make(items, self.mounts, self.mounts[1])

    def item(self, name: str, user: str = "", optional: bool = False) -> Item:
        return Item(self.path(name), user, optional)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path)
    node.both("always")
    return node


def test_a_bind_is_the_same_path_in_the_store(node: Node) -> None:
    made = node.plan(node.item("always", ME.pw_name))
    (bind,) = made.binds
    assert bind.point == node.path("always")
    assert bind.device == "147:0"
    assert bind.root == "/pbx" + node.path("always")
    assert made.sources == [str(node.source("always"))]
    assert (made.warnings, made.notes) == ([], [])


def test_the_way_from_the_child(node: Node) -> None:
    node.both("with blank\x85")
    node.stored("data")
    made = node.plan(
        node.item("with blank\x85"),
        node.item("always"),
        node.item("absent"),
        node.item("data"),
    )
    again = Plan.from_text(made.to_text())
    assert [bind.to_line() for bind in again.binds] == [bind.to_line() for bind in made.binds]
    assert again.sources == made.sources
    assert (again.warnings, again.notes) == (made.warnings, made.notes)
    assert len(made.binds) == 2
    assert len(made.warnings) == len(made.notes) == 1


@pytest.mark.parametrize("missing", ["directory", "user"])
@pytest.mark.parametrize("data", [False, True])
def test_a_program_that_is_not_installed_is_left_out(node: Node, missing: str, data: bool) -> None:
    if missing == "user":
        node.local("mysql")
    if data:
        node.stored("mysql")
    made = node.plan(node.item("always"), node.item("mysql", "no-such-user"))
    assert len(made.binds) == 1
    (said,) = made.warnings if data else made.notes
    assert f"{node.path('mysql')} is left out: this node has no " in said
    assert (str(node.source("mysql")) in said) is data


def test_nothing_to_bind_at_all(node: Node) -> None:
    with pytest.raises(NotInstalled, match="install Asterisk first"):
        node.plan(node.item("absent"))


def test_data_that_was_never_copied_refuses(node: Node) -> None:
    node.local("etc/asterisk")
    with pytest.raises(NotInstalled) as caught:
        node.plan(node.item("always"), node.item("etc/asterisk"))
    source = node.source("etc/asterisk")
    assert f"the store has no {source}" in caught.value.reason
    command = f"mkdir -p {source.parent} && cp -a {node.path('etc/asterisk')} {source.parent}/"
    assert command in caught.value.reason
    assert os.system(command) == 0, "the command that the reason names is the mend"
    assert len(node.plan(node.item("etc/asterisk")).binds) == 1


def test_what_is_optional_is_only_warned_of(node: Node) -> None:
    node.local("media")
    made = node.plan(node.item("always"), node.item("media", optional=True))
    assert len(made.binds) == 1
    assert "is not replicated" in made.warnings[0]


def test_a_file_in_the_place_of_the_directory(node: Node) -> None:
    node.local("etc")
    node.source("etc").parent.mkdir(parents=True, exist_ok=True)
    node.source("etc").write_text("")
    with pytest.raises(NotInstalled, match="is not a directory"):
        node.plan(node.item("etc", optional=True))


def test_a_link_out_of_the_store_is_wrong_everywhere(node: Node, tmp_path: Path) -> None:
    node.local("etc")
    (tmp_path / "outside").mkdir()
    node.source("etc").symlink_to(tmp_path / "outside")
    with pytest.raises(BadConfig, match="out of the store"):
        node.plan(node.item("etc"))


def test_a_link_within_the_store_is_followed(node: Node) -> None:
    node.local("etc")
    (node.drbd / "moved").mkdir()
    node.source("etc").symlink_to(node.drbd / "moved")
    assert node.plan(node.item("etc")).binds[0].root == "/pbx/moved"


def test_a_link_to_nowhere_within_the_store(node: Node) -> None:
    node.local("etc")
    node.source("etc").symlink_to(node.drbd / "gone")
    with pytest.raises(NotInstalled, match="the store has no"):
        node.plan(node.item("etc"))


def test_the_link_of_an_older_cluster(node: Node) -> None:
    node.stored("etc")
    (node.root / "etc").symlink_to(node.source("etc"))
    with pytest.raises(BadHere, match="as older clusters made it: replace it"):
        node.plan(node.item("etc"))


def test_a_link_on_the_node_is_bound_where_it_leads(node: Node) -> None:
    node.local("home/mysql")
    (node.root / "mysql").symlink_to(node.root / "home/mysql")
    node.stored("mysql")
    assert node.plan(node.item("mysql")).binds[0].point == node.path("home/mysql")


def test_two_paths_that_links_make_one(node: Node) -> None:
    node.stored("alias")
    (node.root / "alias").symlink_to(node.root / "always")
    with pytest.raises(BadHere, match="named twice"):
        node.plan(node.item("always"), node.item("alias"))


def test_another_disk_inside_the_store(node: Node) -> None:
    node.mounts.append(Mount(f"3 2 8:1 / {node.source('always')} rw - ext4 /dev/sda1 rw"))
    with pytest.raises(BadHere, match="another file system"):
        node.plan(node.item("always"))


def about(uid: int, gid: int) -> os.stat_result:
    return os.stat_result((0o40755, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def test_the_owner_of_another_number_refuses_and_names_both() -> None:
    assert owners.uid_problem("/drbd/x", about(ME.pw_uid, 0), ME) == ""
    assert owners.uid_problem("/drbd/x", about(0, 0), ME) == ""
    problem = owners.uid_problem("/drbd/x", about(STRANGER, 0), ME)
    assert f"/drbd/x belongs to uid {STRANGER}" in problem
    assert f"{ME.pw_name} is uid {ME.pw_uid} on this node" in problem
    assert f"usermod -u {STRANGER} {ME.pw_name}" in problem


def test_a_group_of_another_number_is_only_a_warning() -> None:
    for gid in (ME.pw_gid, 0, 4, *os.getgrouplist(ME.pw_name, ME.pw_gid)):
        assert owners.gid_problem("/drbd/x", about(0, gid), ME) == ""
    problem = owners.gid_problem("/drbd/x", about(0, 64321), ME)
    assert "belongs to gid 64321" in problem
    assert f"(gid {ME.pw_gid})" in problem


def test_the_plan_asks_for_the_owner(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = list(ME)
    fields[2] = STRANGER
    monkeypatch.setattr(owners, "account", lambda user: pwd.struct_passwd(fields))
    if os.getuid() == 0:
        os.chown(node.source("always"), 12345, 0)
    with pytest.raises(NotInstalled, match=f"is uid {STRANGER} on this node"):
        node.plan(node.item("always", ME.pw_name))
    assert len(node.plan(node.item("always")).binds) == 1, "no user, no question"


def test_a_group_is_told_and_bound(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "gid_problem", lambda source, about, owner: "what a group")
    made = node.plan(node.item("always", ME.pw_name))
    assert made.warnings == ["what a group"]
    assert len(made.binds) == 1
