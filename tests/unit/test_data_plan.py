"""What a node is to bind: every refusal, each with its code and its mend."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.data import owners, plan
from asha.data.mountinfo import Mount
from asha.data.paths import Item
from asha.data.plan import Plan
from asha.ocf import Failed

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
    assert bind.inode == node.source("always").stat().st_ino
    assert not bind.optional
    assert made.sources == [node.path("always")]
    assert (made.lasting, made.warnings, made.notes) == ([], [], [])


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
    with pytest.raises(Failed, match="install Asterisk first"):
        node.plan(node.item("absent"))


def test_data_that_was_never_copied_refuses(node: Node) -> None:
    node.local("etc/asterisk")
    with pytest.raises(Failed) as caught:
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


BAD: dict[str, Callable[[Path, Path], object]] = {
    "a link out of the store": lambda place, out: place.symlink_to(out),
    "a link to where nothing is": lambda place, out: place.symlink_to(out / "nothing"),
    "a link within the store": lambda place, out: place.symlink_to("always"),
    "a link to itself": lambda place, out: place.symlink_to(place),
    "a file": lambda place, out: place.write_text(""),
    "a FIFO": lambda place, out: os.mkfifo(place),
    "a socket": lambda place, out: _socket(place),
}


def _socket(place: Path) -> None:
    here = os.getcwd()
    os.chdir(place.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(place.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_directory_in_the_store(
    node: Node, tmp_path: Path, kind: str, depth: int
) -> None:
    """Left out where it is optional, and else a failure that is tried again."""
    node.local("deep/item")
    (tmp_path / "outside").mkdir()
    place = node.source("deep/item") if depth == 0 else node.source("deep")
    place.parent.mkdir(parents=True, exist_ok=True)
    BAD[kind](place, tmp_path / "outside")
    made = node.plan(node.item("always"), node.item("deep/item", optional=True))
    assert [bind.point for bind in made.binds] == [node.path("always")]
    [said] = made.lasting or made.warnings
    assert said.startswith(f"{node.path('deep/item')} is left out: ")
    with pytest.raises(Failed) as caught:
        node.plan(node.item("always"), node.item("deep/item"))
    assert type(caught.value) is Failed
    assert str(place) in caught.value.reason
    hint = caught.value.reason.partition("(")[2].rpartition(")")[0]
    assert os.system(hint) == 0, "the command that is told is the mend"
    assert len(node.plan(node.item("always"), node.item("deep/item")).binds) == 2


def test_the_link_of_an_older_cluster(node: Node) -> None:
    node.stored("etc")
    (node.root / "etc").symlink_to(node.source("etc"))
    with pytest.raises(Failed, match="as older clusters made it: replace it"):
        node.plan(node.item("etc"))
    assert len(node.plan(node.item("always"), node.item("etc", optional=True)).lasting) == 1


def test_a_link_of_roots_on_the_node_is_bound_where_it_leads(node: Node) -> None:
    node.local("home/mysql")
    (node.root / "mysql").symlink_to(node.root / "home/mysql")
    node.stored("mysql")
    assert node.plan(node.item("mysql")).binds[0].point == node.path("home/mysql")


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("kind", ["link", "directory"])
def test_a_place_that_others_can_replace_is_left_out(
    node: Node, mode: int, optional: bool, kind: str, tmp_path: Path
) -> None:
    node.both("www/records")
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        (node.root / "www/records").rmdir()
        (node.root / "www/records").symlink_to(tmp_path / "elsewhere")
    above = node.root / "www"
    above.chmod(mode)
    items = (node.item("always"), node.item("www/records", optional=optional))
    made = node.plan(*items)
    assert [bind.point for bind in made.binds] == [node.path("always")]
    [said] = made.lasting
    hint = f"chown root:root {above} && chmod go-w {above}"
    assert f"(hint, {plan.on_both(hint)}; then restart this resource)" in said
    assert os.system(hint) == 0, "the command that is told is the mend"
    assert len(node.plan(*items).binds) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a directory away")
def test_a_place_in_a_directory_of_another_is_left_out(node: Node) -> None:
    node.both("www/records")
    os.chown(node.root / "www", 12345, 12345)
    made = node.plan(node.item("always"), node.item("www/records"))
    assert len(made.binds) == 1
    assert "is theirs to write" in made.lasting[0]
    with pytest.raises(Failed, match="is theirs to write"):
        node.plan(node.item("www/records"))


@pytest.mark.parametrize(
    ("first", "second", "fails"),
    [(False, True, False), (True, False, False), (True, True, False), (False, False, True)],
)
def test_two_paths_that_links_make_one(
    node: Node, first: bool, second: bool, fails: bool
) -> None:
    node.stored("alias")
    (node.root / "alias").symlink_to(node.root / "always")
    items = (node.item("always", optional=first), node.item("alias", optional=second))
    if fails:
        with pytest.raises(Failed, match="named twice"):
            node.plan(*items)
        return
    made = node.plan(*items)
    assert [bind.optional for bind in made.binds] == [first and second]
    assert "named twice" in made.lasting[0]


def test_another_disk_inside_the_store(node: Node) -> None:
    node.both("media")
    node.mounts.append(Mount(f"3 2 8:1 / {node.source('media')} rw - ext4 /dev/sda1 rw"))
    with pytest.raises(Failed, match="another file system"):
        node.plan(node.item("always"), node.item("media"))
    made = node.plan(node.item("always"), node.item("media", optional=True))
    assert "another file system" in made.lasting[0]


def test_looking_changes_nothing(node: Node) -> None:
    node.drbd.chmod(0o755)
    node.source("always").parent.chmod(0o777)
    node.plan(node.item("always"))
    assert stat.S_IMODE(node.drbd.stat().st_mode) == 0o755
    assert stat.S_IMODE(node.source("always").parent.stat().st_mode) == 0o777


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
    if os.getuid() == 0:
        os.chown(node.source("always"), 12345, 0)
    fields = list(ME)
    fields[2] = STRANGER
    monkeypatch.setattr(owners, "account", lambda user: pwd.struct_passwd(fields))
    with pytest.raises(Failed, match=f"is uid {STRANGER} on this node"):
        node.plan(node.item("always", ME.pw_name))
    assert len(node.plan(node.item("always")).binds) == 1, "no user, no question"


def test_a_group_is_told_and_bound(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "gid_problem", lambda source, about, owner: "what a group")
    made = node.plan(node.item("always", ME.pw_name))
    assert made.warnings == ["what a group"]
    assert len(made.binds) == 1
