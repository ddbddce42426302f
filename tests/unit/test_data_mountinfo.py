"""Reading the kernel's mount table."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.data import mountinfo
from asha.data.mountinfo import Mount, escape, unescape

TABLE = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
90 27 147:0 / /drbd rw,noatime shared:40 - ext4 /dev/drbd0 rw
91 27 147:0 /etc/asterisk /etc/asterisk rw,noatime - ext4 /dev/drbd0 rw
92 27 147:0 /var/my\040sounds /srv/my\040sounds rw shared:5 master:2 - ext4 /dev/drbd0 rw
93 27 8:1 / /var/spool ro,nosuid - ext4 /dev/sda1 rw
94 27 8:2 / /opt rw - ext4 /dev/sda2 ro,errors=remount-ro
95 27 7:0 / /mnt rw - ext4 /dev/loop0 rw,errors=remount-ro,emergency_ro
96 91 0:50 / /etc/asterisk/keys rw - tmpfs tmpfs rw
97 91 147:0 /etc/asterisk /etc/asterisk rw,noatime - ext4 /dev/drbd0 rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> list[Mount]:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    return mountinfo.read(str(table))


def at(mounts: list[Mount], number: int) -> Mount:
    return next(mount for mount in mounts if mount.id == number)


def test_fields_with_and_without_optional_ones(mounts: list[Mount]) -> None:
    bind = at(mounts, 91)
    assert (bind.device, bind.root, bind.point) == ("147:0", "/etc/asterisk", "/etc/asterisk")
    assert (bind.parent, bind.kind, bind.source) == (27, "ext4", "/dev/drbd0")
    assert (at(mounts, 92).root, at(mounts, 92).point) == ("/var/my sounds", "/srv/my sounds")


@pytest.mark.parametrize(("number", "read_only"), [(91, False), (93, True), (94, True), (95, True)])
def test_read_only_by_mount_by_disk_and_by_error(
    mounts: list[Mount], number: int, read_only: bool
) -> None:
    assert at(mounts, number).read_only is read_only


def test_the_own_table_of_this_process_is_readable() -> None:
    assert mountinfo.visible(mountinfo.read(), "/proc") is not None


def test_a_line_end_inside_a_path_is_part_of_it(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    point = "/mnt/a\r\x0b\x85b"
    table.write_bytes(f"5 1 8:1 / {point} rw - ext4 /dev/sda1 rw\n".encode())
    assert [mount.point for mount in mountinfo.read(str(table))] == [point]


def test_visible_is_the_top_of_the_stack(mounts: list[Mount]) -> None:
    top = mountinfo.visible(mounts, "/etc/asterisk")
    assert top is not None
    assert top.id == 97
    assert mountinfo.visible(mounts, "/etc") is None


def test_below_unmounts_children_first_and_by_the_tree(mounts: list[Mount]) -> None:
    order = [mount.id for mount in mountinfo.below(mounts, [at(mounts, 91), at(mounts, 97)])]
    assert sorted(order) == [91, 96, 97]
    assert order[-1] == 91


def test_below_takes_the_last_mounted_first(mounts: list[Mount]) -> None:
    order = [mount.id for mount in mountinfo.below(mounts, [at(mounts, 93), at(mounts, 94)])]
    assert order == [94, 93]


def test_below_leaves_what_ours_hides() -> None:
    hidden = Mount("50 27 0:50 / /etc/asterisk/keys rw - tmpfs tmpfs rw")
    ours = Mount("51 27 147:0 /etc/asterisk /etc/asterisk rw - ext4 /dev/drbd0 rw")
    assert mountinfo.below([hidden, ours], [ours]) == [ours]


@pytest.mark.parametrize(
    ("path", "number"),
    [("/drbd/etc", 90), ("/drbd", 90), ("/drbd2", 27), ("/etc/asterisk/a", 97), ("/", 27)],
)
def test_holding(mounts: list[Mount], path: str, number: int) -> None:
    mount = mountinfo.holding(mounts, path)
    assert mount is not None
    assert mount.id == number


@pytest.mark.parametrize("path", ["/a b", "/a\tb", "/a\nb", "/a\\b", "/a\\040b", "/plain", "/ü"])
def test_escape_and_back(path: str) -> None:
    assert " " not in escape(path)
    assert "\n" not in escape(path)
    assert unescape(escape(path)) == path
