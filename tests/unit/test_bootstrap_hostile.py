"""The installer in directories that others can write: what they leave there, and swap."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from asha.asterisk import configuration
from asha.bootstrap.facts import Facts
from asha.bootstrap.host import data_directories, file_tree
from asha.bootstrap.preflight import storage
from asha.bootstrap.preflight.report import CheckContext
from asha.bootstrap.steps import asterisk, data
from asha.bootstrap.takeover import takeover
from asha.bootstrap.takeover.state import Moved
from asha.cluster.secret import Secret
from asha.data import owners
from asha.data.plan import on_both
from asha.errors import UserError
from asha.machine import Machine
from asha.rootwork import Directory, Untrusted
from tests.unit.bootstrap_customer import Customer, customer, site

__all__ = ["customer"]

STRANGER = 65534  # nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to another user")


def findings(machine: Customer) -> list[tuple[str, str]]:
    look = CheckContext(machine, site(), Facts("crm1"))
    return [(one.severity, f"{one.what} {one.hint}") for one in storage.places(look)]


# Which directories count.


@needs_root
def test_what_may_be_missing_is_left_out_where_others_choose_what_it_is(
    customer: Customer,
) -> None:
    customer.put("/opt/sark/www/origrecs/a")
    os.chown(customer.path("/opt/sark/www"), STRANGER, STRANGER)
    ((severity, text),) = findings(customer)
    assert severity == "warning"
    assert text.startswith("/opt/sark/www/origrecs is left out")
    # The command ends the line, to be copied, and the node's agent tells the same.
    place = customer.path("/opt/sark/www")
    assert text.endswith(on_both(f"chown root:root {place} && chmod go-w {place}"))
    for action in data.actions(site(), data.look(customer)):
        action.do(customer, customer.say)
    assert any("origrecs is left out" in one for one in customer.said)
    assert not customer.exists("/drbd/opt/sark/www")


@needs_root
@pytest.mark.parametrize("link", ["/etc/systemd/system", "nowhere", "origrecs"])
def test_a_link_of_theirs_is_not_even_followed(customer: Customer, link: str) -> None:
    customer.put("/etc/systemd/system/ours.service")
    customer.path("/opt/sark/www").mkdir()
    customer.path("/opt/sark/www/origrecs").symlink_to(link)
    os.chown(customer.path("/opt/sark/www"), STRANGER, STRANGER)
    assert [severity for severity, _ in findings(customer)] == ["warning"]
    assert "/etc/systemd/system" not in [
        one.place for one in data_directories.directories(customer)
    ]


@needs_root
def test_what_must_be_there_is_an_error(customer: Customer) -> None:
    os.chown(customer.path("/opt/sark"), STRANGER, STRANGER)
    with pytest.raises(UserError, match="/opt/sark/db could be replaced") as caught:
        data_directories.directories(customer)
    assert "chown root:root" in caught.value.hint
    assert "error" in [severity for severity, _ in findings(customer)]


@needs_root
def test_not_where_its_user_is_none(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(customer.path("/opt/sark"), STRANGER, STRANGER)
    known = owners.account("root")
    monkeypatch.setattr(owners, "account", lambda user: None if user == "www-data" else known)
    assert [severity for severity, _ in findings(customer)] == []


@needs_root
def test_directories_above_are_roots_in_the_store(customer: Customer) -> None:
    customer.path("/drbd/opt").mkdir(parents=True)
    os.chown(customer.path("/drbd/opt"), STRANGER, STRANGER)
    data_directories.mount_store(customer)
    with data._copy_of(
        customer, data_directories.DataDirectory("/opt/sark/db", "/opt/sark/db", None)
    ):
        for place in ("/drbd/opt", "/drbd/opt/sark"):
            about = customer.path(place).stat()
            assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (0, 0, 0o755)
    assert customer.path("/drbd").stat().st_mode & 0o7777 == 0o700


def test_hard_links_to_roots_files_are_an_error(customer: Customer) -> None:
    customer.put(storage.PROTECTED_HARDLINKS, "0\n")
    ((severity, text),) = findings(customer)
    assert severity == "error"
    assert "sysctl -w fs.protected_hardlinks=1" in text
    customer.put(storage.PROTECTED_HARDLINKS, "1\n")
    assert not findings(customer)


# The copy.


def test_a_message_names_what_a_person_knows() -> None:
    one = file_tree.Tree("/var/lib/x", "/proc/self/fd/5/.", 5)
    for said in ("/proc/self/fd/5/./a/b", "/proc/self/fd/5/a/b"):
        assert one.named(f"readlink(\"{said}\")") == "readlink(\"/var/lib/x/a/b\")"
    assert one.named("/proc/self/fd/51/a") == "/proc/self/fd/51/a"


@needs_root
def test_of_files_that_their_directorys_owner_may_not_read_the_sizes_are_known(
    tmp_path: Path,
) -> None:
    """With their directory's name he could have given one's contents a name of his own."""
    for name, size in (("theirs/roots", 7), ("theirs/open", 8), ("theirs/own", 9),
                       ("roots/roots", 10)):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"x" * size)
        place.chmod(0o644 if name.endswith("open") else 0o600)
    os.chown(tmp_path / "theirs", STRANGER, STRANGER)
    os.chown(tmp_path / "theirs/own", STRANGER, STRANGER)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    os.chown(shared, 0, STRANGER)
    for number, (size, mode) in enumerate(((11, 0o640), (12, 0o600))):
        (shared / str(number)).write_bytes(b"x" * size)
        os.chown(shared / str(number), 0, STRANGER)
        (shared / str(number)).chmod(mode)
    # Readable for all, where not all may come.
    (tmp_path / "theirs/closed").mkdir(0o700)
    (tmp_path / "theirs/closed/open").write_bytes(b"x" * 13)
    assert file_tree.measure(str(tmp_path)).guarded == {7, 12, 13}


@pytest.mark.parametrize(("kept", "folder_mode", "mode"), [
    ("/etc/asterisk/kept", 0o777, 0o600),
    ("/etc/asterisk/kept", 0o700, 0o644),
    ("/var/spool/asterisk/kept", 0o777, 0o600),
])
def test_contents_that_came_in_under_another_name_are_seen(
    customer: Customer, kept: str, folder_mode: int, mode: int
) -> None:
    """Two directories were swapped for a moment: size, time and owner are as they should."""
    for folder, text in (("/etc/asterisk/mine", "harmless"), (kept, "a secret")):
        customer.put(f"{folder}/x", text)
        customer.path(folder).chmod(0o777)
        customer.path(folder).parent.chmod(0o777)
    customer.path(kept).chmod(folder_mode)
    customer.path(f"{kept}/x").chmod(mode)
    first, begin, last = data.actions(site(), data.look(customer))
    first.do(customer, customer.say)
    stolen = customer.path("/drbd/etc/asterisk/mine/x")
    about = stolen.stat()
    stolen.write_text("a secret")
    os.utime(stolen, ns=(about.st_atime_ns, about.st_mtime_ns))
    claim = data._json(customer, data.CLAIM)
    # As if all had been prepared long before: no ctime tells of it.
    data._save_claim(customer, {**claim, "begun": time.time() + 3600})
    begin.do(customer, customer.say)
    last.do(customer, customer.say)
    assert stolen.read_text() == "harmless"


def test_an_rsync_that_a_fifo_holds_up_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rsync opens what was a file when it looked."""
    monkeypatch.setattr(data, "IDLE_SECONDS", 0.4)
    monkeypatch.setattr(data, "SAY_SECONDS", 0.1)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "drbd").mkdir()
    program = shutil.which("cat")
    assert program is not None
    (tmp_path / "rsync").symlink_to(program)
    machine = Machine(str(tmp_path))
    said: list[str] = []
    with data._Watch(machine, "copying x", said.append) as watch:
        done = machine.run(str(tmp_path / "rsync"), str(tmp_path / "fifo"), check=False)
    assert watch.stood_still
    assert done.code == -9


def test_a_file_that_became_a_fifo_is_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(OSError, match="ordinary file"):
        file_tree.Comparison(lambda inside, about: True)._checksum(str(tmp_path / "x"))


def test_a_kernel_that_has_no_views_is_told(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(directory: Directory) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(data_directories, "View", refused)
    with pytest.raises(UserError, match=r"Linux 5\.14") as caught:
        data.first_pass(customer, customer.say)
    assert "upgrade" in caught.value.hint
    assert customer.rsyncs == 0


# The stand-ins.


@needs_root
def test_a_stand_in_that_was_cut_off_is_finished(customer: Customer) -> None:
    """Root's still: whatever log is there was not dressed yet."""
    old, made = (customer.path(f"/var/log/{name}") for name in ("asterisk.old", "asterisk"))
    made.rename(old)
    os.chown(old, STRANGER, STRANGER)
    os.chown(old / "messages", STRANGER, STRANGER)
    (old / "link").symlink_to("/etc/shadow")
    os.mkfifo(old / "fifo")
    (old / "folder").mkdir()
    made.mkdir(0o700)
    (made / "messages").write_text("")
    with data_directories.parent(customer, "/var/log/asterisk") as above:
        takeover._placeholder(above, Moved("/var/log/asterisk", "/var/log/asterisk.old",
                                                 logs=True))
    assert os.listdir(made) == ["messages"]
    assert made.stat().st_uid == (made / "messages").stat().st_uid == STRANGER


@pytest.mark.parametrize("what", ["ln -s /etc/passwd theirs", "mkdir theirs",
                                  "mkfifo theirs", "echo x >theirs"])
def test_what_they_put_into_a_stand_in_stays(customer: Customer, what: str) -> None:
    place = customer.path("/var/log/asterisk")
    shutil.rmtree(place)
    place.mkdir()
    (place / "empty").touch()
    assert os.system(f"cd {place} && {what}") == 0
    with data_directories.parent(customer, "/var/log/asterisk") as above:
        assert not takeover._remove_stand_in(above, "asterisk")
        assert (place / "theirs").is_symlink() or (place / "theirs").exists()
        assert not takeover._remove_stand_in(above, "none")


# Asterisk's files.


@pytest.fixture
def etc(tmp_path: Path) -> Directory:
    (tmp_path / "etc").mkdir()
    (tmp_path / "outside.conf").write_text("[general]\nenabled = yes\n")
    (tmp_path / "etc/manager.conf").write_text("[general]\nenabled = no\n#include x.conf\n")
    return Directory.trusted(str(tmp_path / "etc"))


@pytest.mark.parametrize(
    ("poison", "said"),
    [("mkfifo x.conf", "x.conf is not an ordinary file"),
     ("ln -s /dev/zero x.conf", "leads out of"),
     ("ln -s ../outside.conf x.conf", "leads out of"),
     ("truncate -s 1T x.conf", "x.conf has more than"),
     ("mkdir x.conf", "x.conf is not an ordinary file"),
     ("ln -s x.conf x.conf", "leads out of"),
     ("echo '#include ../outside.conf' >x.conf", "lies out of"),
     ("echo '#include /etc/passwd' >x.conf", "lies out of"),
     ("for n in 1 2 3; do echo '#include ?.conf' >$n.conf; done; cp 1.conf x.conf", "too much"),
     ("head -c 1000000 /dev/zero | tr '\\0' a >big; "
      "for n in 1 2 3 4 5 6; do echo '#include big' >>x.conf; done", "more than")],
)
def test_what_cannot_be_read_is_absent_and_said(
    etc: Directory, poison: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "FILES_MOST", 50)
    assert os.system(f"cd {etc.path} && {poison}") == 0
    told: list[str] = []
    begun = time.monotonic()
    found = configuration.read(etc, "manager.conf", warn=told.append)
    assert time.monotonic() - begun < 5
    assert [one.get("enabled") for one in found] == ["no"]
    assert any(said in text for text in told), told


@pytest.mark.parametrize("text", [";--" * 300_000, "#include " + " " * 900_000 + "\"",
                                  "#include a" + " \t" * 400_000 + "b", "[" * 1_000_000])
def test_no_line_takes_long(etc: Directory, text: str) -> None:
    Path(etc.path, "x.conf").write_text(text)
    begun = time.monotonic()
    configuration.read(etc, "manager.conf")
    assert time.monotonic() - begun < 5


def test_a_comment_without_an_end_takes_the_rest() -> None:
    assert configuration._without_comments("a;--b--;c;-- d\ne") == "ac"
    assert configuration._without_comments("a;---b\nc") == "a;---b\nc"


def test_a_managers_file_that_leads_out_is_not_replaced(etc: Directory, tmp_path: Path) -> None:
    Path(etc.path, "manager.conf").unlink()
    Path(etc.path, "manager.conf").symlink_to(tmp_path / "outside.conf")
    with pytest.raises(Untrusted, match="leads out of"):
        asterisk.add_account(etc, Secret(bytes(32)), lambda text: None)
    assert Path(etc.path, "manager.conf").is_symlink()


def test_and_is_told_before_anything_is_changed(customer: Customer) -> None:
    place = customer.path("/etc/asterisk/manager.conf")
    place.unlink()
    place.symlink_to("/etc/passwd")
    ((severity, text),) = findings(customer)
    assert severity == "error"
    assert "/etc/asterisk/manager.conf leads out" in text


def test_one_that_leads_to_a_file_beside_it_becomes_a_file_like_that(etc: Directory) -> None:
    other = Path(etc.path, "manager.conf").rename(Path(etc.path, "other.conf"))
    other.chmod(0o604)
    before = other.read_text()
    Path(etc.path, "manager.conf").symlink_to("other.conf")
    asterisk.add_account(etc, Secret(bytes(32)), lambda text: None)
    assert Path(etc.path, "manager.conf").read_text() == f"{before}#include asha_manager.conf\n"
    assert Path(etc.path, "manager.conf").stat().st_mode & 0o7777 == 0o604
    assert other.read_text() == before


# Machine.


def test_the_machine_reads_files_alone(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("fifo", "zero", "folder", "huge"):
        with pytest.raises(UserError, match=f"^/{name} "):
            machine.read(f"/{name}")
    assert machine.read("/none") is None
