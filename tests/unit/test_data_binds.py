"""The state file, and telling our mounts from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.data import binds
from asha.data.binds import Bind
from asha.data.mountinfo import Mount
from asha.ocf.state import StateFile

ROOT = Mount("1 0 254:0 / / rw - ext4 /dev/vda rw")
STORE = Mount("10 1 147:0 / /drbd rw - ext4 /dev/drbd0 rw")
ETC = Mount("11 1 147:0 /etc/asterisk /etc/asterisk rw - ext4 /dev/drbd0 rw")
TWICE = Mount("12 11 147:0 /etc/asterisk /etc/asterisk rw - ext4 /dev/drbd0 rw")
MOVED = Mount("13 1 147:0 /elsewhere /var/lib/mysql rw - ext4 /dev/drbd0 rw")
FOREIGN = Mount("14 1 147:0 /srv/web /srv/web rw - ext4 /dev/drbd0 rw")
LOCAL = Mount("15 1 8:1 / /var/spool/asterisk rw - ext4 /dev/sda1 rw")
SANDBOX = Mount("16 1 254:0 /var/lib/mysql /var/lib/mysql rw - ext4 /dev/vda rw")
ALL = [ROOT, STORE, ETC, TWICE, MOVED, FOREIGN, LOCAL, SANDBOX]
POINTS = {"/etc/asterisk", "/var/lib/mysql", "/var/spool/asterisk"}


def test_saved_and_loaded(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "state"))
    binds.save(file, [Bind("147:0", "/a b", "/x\ny"), Bind("147:0", "/c", "/c")])
    loaded = binds.load(file)
    assert [(one.device, one.root, one.point) for one in loaded] == [
        ("147:0", "/a b", "/x\ny"),
        ("147:0", "/c", "/c"),
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_absent_or_damaged_is_nothing(tmp_path: Path) -> None:
    assert binds.load(StateFile(str(tmp_path / "absent"))) == []
    (tmp_path / "damaged").write_text("147:0 /etc")
    assert binds.load(StateFile(str(tmp_path / "damaged"))) == []


def test_made_means_what_a_program_meets() -> None:
    bind = Bind("147:0", "/etc/asterisk", "/etc/asterisk")
    assert bind.is_made([ROOT, ETC])
    assert bind.is_made([ROOT, ETC, TWICE])
    cover = Mount("20 11 0:50 / /etc/asterisk rw - tmpfs tmpfs rw")
    assert not bind.is_made([ROOT, ETC, cover])
    deleted = Mount("11 1 147:0 /etc/asterisk//deleted /etc/asterisk rw - ext4 /dev/drbd0 rw")
    assert not bind.is_made([ROOT, deleted])
    assert not bind.is_made([ROOT])


def ours(
    mounts: list[Mount], remembered: list[Bind], points: set[str] | None, store: Mount | None
) -> list[int]:
    return [mount.id for mount in binds.ours(mounts, remembered, points, store)]


def test_what_the_store_shows_on_the_paths_is_ours() -> None:
    assert ours(ALL, [], POINTS, STORE) == [11, 12, 13]


def test_what_was_remembered_is_ours_whatever_the_parameters_say() -> None:
    old = [Bind("147:0", "/srv/web", "/srv/web"), Bind("8:9", "/x", "/etc/asterisk")]
    assert ours(ALL, old, {"/nothing"}, STORE) == [14]


def test_without_memory_and_paths_all_that_mirrors_the_store_is_ours() -> None:
    assert ours(ALL, [], None, STORE) == [11, 12, 14]


def test_without_memory_and_store_a_foreign_disk_of_the_same_name_is_ours() -> None:
    assert ours([ROOT, ETC, LOCAL, SANDBOX], [], POINTS, None) == [11]


def test_with_nothing_to_go_by_nothing_is_ours() -> None:
    assert ours(ALL, [], None, None) == []


@pytest.mark.parametrize("point", ["/drbd", "/"])
def test_the_store_itself_is_never_ours(point: str) -> None:
    assert 10 not in ours(ALL, [], {point}, STORE)
