"""Root's work in directories that others can write: nothing bends it, nothing holds it up."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from asha import rootwork
from asha.rootwork import Directory, Untrusted, View

STRANGER = 65534  # nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to another user")


@pytest.fixture
def hostile(tmp_path: Path) -> Directory:
    """A directory of a stranger's, inside one of root's."""
    place = tmp_path / "theirs"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, STRANGER, STRANGER)
    return Directory.trusted(str(place))


class TestTheWayThere:
    def test_a_directory_of_somebody_else_may_be_the_last(self, hostile: Directory) -> None:
        assert hostile.names() == []

    @needs_root
    def test_none_above_it_may_be_his(self, hostile: Directory, tmp_path: Path) -> None:
        (tmp_path / "theirs/inner").mkdir()
        with pytest.raises(Untrusted, match="could be replaced by others than root") as caught:
            Directory.trusted(str(tmp_path / "theirs/inner"))
        assert "chown root:root" in caught.value.hint

    @needs_root
    @pytest.mark.parametrize("mode", [0o775, 0o757])
    def test_nor_writable_for_others(self, tmp_path: Path, mode: int) -> None:
        (tmp_path / "open/inner").mkdir(parents=True)
        (tmp_path / "open").chmod(mode)
        with pytest.raises(Untrusted):
            Directory.trusted(str(tmp_path / "open/inner"))

    def test_a_sticky_one_holds_what_is_roots(self, tmp_path: Path) -> None:
        (tmp_path / "tmp/inner").mkdir(parents=True)
        (tmp_path / "tmp").chmod(0o1777)
        with Directory.trusted(str(tmp_path / "tmp/inner")) as found:
            assert found.path == str(tmp_path / "tmp/inner")

    def test_links_of_roots_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "c").symlink_to("a")
        (tmp_path / "a/up").symlink_to("../a/b")
        (tmp_path / "whole").symlink_to(tmp_path / "c/up")
        for name in ("c/b", "c/up", "whole"):
            with Directory.trusted(str(tmp_path / name)) as found:
                assert found.path == str(tmp_path / "a/b")

    def test_a_circle_of_links_ends(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(OSError, match="Too many levels"):
            Directory.trusted(str(tmp_path / "a"))

    def test_a_top_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "root/etc/real").mkdir(parents=True)
        (tmp_path / "root/etc/link").symlink_to("/etc/real")
        with Directory.trusted("/etc/link", top=str(tmp_path / "root")) as found:
            assert found.path == str(tmp_path / "root/etc/real")


class TestInside:
    def test_no_link_is_entered(self, hostile: Directory) -> None:
        os.symlink("/etc", "sub", dir_fd=hostile.fd)
        with pytest.raises(Untrusted, match="symbolic link"):
            hostile.enter("sub")
        with pytest.raises(OSError, match="sub"):
            hostile.below("sub/apt")

    def test_nor_left_by_dots(self, hostile: Directory) -> None:
        with pytest.raises(OSError, match=r"\.\."):
            hostile.below("../..")
        for name in ("", ".", "..", "a/b"):
            with pytest.raises(ValueError, match="not a name"):
                hostile.read(name)

    def test_below_without_openat2(
        self, hostile: Directory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> int:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(rootwork, "_syscall", refused)
        hostile.make("a").make("b").close()
        with hostile.below("a/b") as found:
            assert found.path.endswith("/theirs/a/b")
        os.symlink("/etc", "link", dir_fd=hostile.fd)
        with pytest.raises(Untrusted):
            hostile.below("link/apt")

    def test_reading_is_of_files_alone(self, hostile: Directory) -> None:
        os.mkfifo("fifo", dir_fd=hostile.fd)
        os.symlink("/etc/passwd", "link", dir_fd=hostile.fd)
        hostile.make("folder").close()
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{hostile.path}/socket")
        for name in ("fifo", "link", "folder", "socket"):
            with pytest.raises(Untrusted, match=name):
                hostile.read(name)

    def test_links_are_followed_that_stay_inside(self, hostile: Directory) -> None:
        hostile.make("sub").close()
        Path(hostile.path, "sub/file").write_text("text")
        for name, target in (("one", "sub/file"), ("two", "./sub/../one"), ("sub/up", "../two"),
                             ("way", "sub")):
            os.symlink(target, f"{hostile.path}/{name}")
        for name in ("sub/file", "one", "two", "sub/up", "way/file"):
            assert rootwork.read_within(hostile, name) == b"text"

    @pytest.mark.parametrize("target", ["/etc/passwd", "../roots", "sub/../../roots", ".", "link",
                                        "fifo", "/dev/zero"])
    def test_and_no_other(self, hostile: Directory, tmp_path: Path, target: str) -> None:
        (tmp_path / "roots").write_text("mine")
        hostile.make("sub").close()
        os.mkfifo("fifo", dir_fd=hostile.fd)
        os.symlink(target, "link", dir_fd=hostile.fd)
        with pytest.raises(Untrusted, match=r"link|fifo"):
            rootwork.read_within(hostile, "link")

    def test_a_device_is_none(self) -> None:
        with pytest.raises(Untrusted, match="ordinary file"):
            rootwork.read("/dev/zero")

    def test_a_huge_file_has_an_end(self, hostile: Directory) -> None:
        with open(f"{hostile.path}/huge", "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(Untrusted, match="more than 1000 bytes"):
            hostile.read("huge", most=1000)

    def test_a_write_replaces_a_link_and_not_its_target(
        self, hostile: Directory, tmp_path: Path
    ) -> None:
        target = tmp_path / "roots"
        target.write_text("mine")
        os.symlink(target, "file", dir_fd=hostile.fd)
        os.symlink(target, ".file.asha-new", dir_fd=hostile.fd)
        hostile.write("file", b"text", uid=os.geteuid(), gid=os.getegid(), mode=0o640)
        assert target.read_text() == "mine"
        assert hostile.read("file") == b"text"
        assert hostile.stat("file").st_mode & 0o7777 == 0o640
        assert hostile.names() == ["file"]

    def test_what_is_there_is_never_created_again(self, hostile: Directory) -> None:
        about = os.stat("/etc/passwd")
        os.symlink("/etc/shadow", "log", dir_fd=hostile.fd)
        with pytest.raises(FileExistsError):
            hostile.create("log", about)
        with pytest.raises(FileExistsError):
            hostile.make("log")

    @needs_root
    def test_a_directory_becomes_roots(self, hostile: Directory) -> None:
        hostile.own(0o700)
        assert (hostile.about().st_uid, hostile.about().st_mode & 0o7777) == (0, 0o700)

    def test_removal_takes_the_link(self, hostile: Directory, tmp_path: Path) -> None:
        (tmp_path / "roots").write_text("mine")
        os.symlink(tmp_path / "roots", "link", dir_fd=hostile.fd)
        hostile.remove("link")
        hostile.remove("link")
        assert (tmp_path / "roots").exists()
        assert not hostile.exists("link")


@needs_root
class TestView:
    def test_files_are_there_and_links_lead_nowhere(
        self, hostile: Directory, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret/file").write_text("roots")
        (tmp_path / "theirs/file").write_text("theirs")
        (tmp_path / "theirs/sub").symlink_to(tmp_path / "secret")
        (tmp_path / "theirs/link").symlink_to("file")
        with View(hostile) as view:
            assert Path(view.path, "file").read_text() == "theirs"
            assert Path(view.path, "link").readlink() == Path("file")
            for name in ("sub/file", "link"):
                with pytest.raises(OSError, match="Too many levels"):
                    Path(view.path, name).read_text()

    def test_it_is_read_only_and_gone_with_its_descriptor(self, hostile: Directory) -> None:
        with View(hostile) as view:
            with pytest.raises(OSError, match="Read-only"):
                Path(view.path, "new").write_text("")
            path = view.path
        assert not os.path.exists(path)


class TestAccessLists:
    """The owner of a directory says what new files in it get by themselves."""

    @needs_root
    @pytest.mark.parametrize("way", ["write", "create"])
    def test_nobody_gets_more_than_the_mode_says(self, hostile: Directory, way: str) -> None:
        os.setxattr(hostile.fd, "system.posix_acl_default", _list(STRANGER))
        about = os.stat_result((0o100640, *[0] * 9))
        if way == "write":
            hostile.write("kept", b"of root", mode=0o640)
        else:
            hostile.create("kept", about)
        assert os.stat("kept", dir_fd=hostile.fd).st_mode & 0o777 == 0o640
        assert "system.posix_acl_access" not in os.listxattr(f"{hostile.path}/kept")

    @needs_root
    def test_what_a_file_has_it_keeps(self, hostile: Directory) -> None:
        hostile.write("kept", b"", mode=0o640)
        os.setxattr(f"{hostile.path}/kept", "system.posix_acl_access", _list(7))
        descriptor = hostile.open("kept")
        acl = rootwork.access_list(descriptor)
        os.close(descriptor)
        hostile.write("kept", b"new", mode=0o640, acl=acl)
        assert os.getxattr(f"{hostile.path}/kept", "system.posix_acl_access") == acl == _list(7)


def _list(uid: int) -> bytes:
    """An access list with a user who may read and write (<linux/posix_acl_xattr.h>)."""
    entries = ((1, 6, -1), (2, 6, uid), (4, 4, -1), (16, 6, -1), (32, 0, -1))
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHi", *entry) for entry in entries
    )


class TestACopy:
    def test_a_tree_is_removed_and_no_link_is_followed(
        self, hostile: Directory, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "file").touch()
        (tmp_path / "theirs/tree/inner").mkdir(parents=True)
        (tmp_path / "theirs/tree/inner/file").touch()
        (tmp_path / "theirs/tree/link").symlink_to(other)
        hostile.remove_tree("tree")
        assert hostile.names() == []
        (tmp_path / "theirs/tree").symlink_to(other)
        hostile.remove_tree("tree")
        hostile.remove_tree("tree")  # there is none
        assert (hostile.names(), [one.name for one in other.iterdir()]) == ([], ["file"])

    def test_what_is_put_there_is_as_the_other(self, hostile: Directory, tmp_path: Path) -> None:
        model = tmp_path / "model"
        model.write_text("x")
        model.chmod(0o4751)
        about = model.stat()
        hostile.put("file", b"text", about)
        hostile.put_link("link", "/etc/shadow", about)
        made = (tmp_path / "theirs/file").stat()
        assert (made.st_mode & 0o7777, made.st_mtime_ns) == (0o751, about.st_mtime_ns)
        assert (tmp_path / "theirs/file").read_text() == "text"
        assert hostile.target("link") == "/etc/shadow"
        with pytest.raises(FileExistsError):
            hostile.put("link", b"", about)
        with pytest.raises(FileExistsError):
            hostile.put_link("file", "/", about)
        hostile.sync_all()
