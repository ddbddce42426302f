"""SARK's flags: in the copy, where the columns exist, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from asha.bootstrap.steps import data, sark
from asha.errors import UserError
from asha.rootwork import Directory
from tests.unit.bootstrap_customer import Customer, customer, site

__all__ = ["customer"]

COLUMNS = "pkey BINDADDR HACLUSTERIP HAUSECLUSTER RHINOSPF STATICIPV4"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "sark.db", COLUMNS)


def make(path: Path, columns: str) -> Path:
    link = sqlite3.connect(path)
    link.execute(f"CREATE TABLE globals ({', '.join(f'{c} TEXT' for c in columns.split())})")
    link.execute("INSERT INTO globals (pkey) VALUES ('global')")
    link.commit()
    link.close()
    return path


def set_flags(path: Path, wanted: dict[str, str]) -> None:
    with Directory.trusted(str(path.parent)) as directory:
        sark.set_flags(directory, path.name, wanted)


def is_set(path: Path, wanted: dict[str, str]) -> bool:
    with Directory.trusted(str(path.parent)) as directory:
        return sark.is_set(directory, path.name, wanted)


def row(path: Path) -> dict[str, str | None]:
    link = sqlite3.connect(path)
    link.row_factory = sqlite3.Row
    (found,) = link.execute("SELECT * FROM globals")
    link.close()
    return dict(found)


def test_the_manuals_flags_are_set(path: Path) -> None:
    wanted = sark.flags(site(RHINOSPF="YES"))
    assert not is_set(path, wanted)
    set_flags(path, wanted)
    assert row(path) == {"pkey": "global", "BINDADDR": "ON", "HACLUSTERIP": "192.168.1.90",
                         "HAUSECLUSTER": "YES", "RHINOSPF": "YES", "STATICIPV4": None}
    assert is_set(path, wanted)


def test_only_columns_that_exist(tmp_path: Path) -> None:
    """SAIL 7 has dropped some; names are compared as SQLite does."""
    path = make(tmp_path / "sark.db", "pkey haclusterip hausecluster")
    set_flags(path, sark.flags(site()))
    assert row(path) == {"pkey": "global", "haclusterip": "192.168.1.90", "hausecluster": "YES"}
    assert is_set(path, sark.flags(site()))


def test_a_release_without_any_of_them(tmp_path: Path) -> None:
    path = make(tmp_path / "sark.db", "pkey SITENAME")
    set_flags(path, sark.flags(site()))
    assert is_set(path, sark.flags(site()))


def test_mode_and_owner_stay(path: Path) -> None:
    path.chmod(0o664)
    before = path.stat()
    set_flags(path, sark.flags(site()))
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == 0o664
    assert (after.st_uid, after.st_gid, after.st_ino) == (
        before.st_uid, before.st_gid, before.st_ino)
    assert os.listdir(path.parent) == ["sark.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a file of root's")
def test_a_copy_that_root_has_made_is_changed_without_its_journal(path: Path) -> None:
    """The folder is the panel's, so is the journal: which is not root's to play back."""
    path.chmod(0o640)
    os.chown(path.parent, 33, 33)
    journal = path.with_name("sark.db-journal")
    journal.write_bytes(b"x" * 600)
    set_flags(path, sark.flags(site()))
    about = path.stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (0, 0o640)
    assert sorted(os.listdir(path.parent)) == ["sark.db", "sark.db-journal"]
    assert is_set(path, sark.flags(site()))
    journal.unlink()
    assert row(path)["HAUSECLUSTER"] == "YES"
    os.chown(path.parent, 0, 33)
    path.parent.chmod(0o775)
    wanted = sark.flags(site()) | {"RHINOSPF": "PERHAPS"}
    assert not is_set(path, wanted)
    set_flags(path, wanted)
    assert is_set(path, wanted)
    path.unlink()
    path.symlink_to("/etc/shadow")
    with pytest.raises(UserError, match="cannot be changed"):
        set_flags(path, sark.flags(site()))


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sark.db"
    path.write_text("this is not a database, and long enough to be none" * 40)
    with pytest.raises(UserError, match="cannot be changed"):
        set_flags(path, sark.flags(site()))
    assert not is_set(path, sark.flags(site()))


def test_the_copy_is_changed_and_never_the_original(customer: Customer) -> None:
    (action,) = sark.actions(site())
    assert not action.is_done(customer)
    for one in data.actions(site(), data.look(customer)):
        one.do(customer, customer.say)
    make(customer.path("/drbd/opt/sark/db/sark.rdonly.db"), COLUMNS)
    assert not action.is_done(customer)
    action.do(customer, customer.say)
    assert action.is_done(customer)
    assert row(customer.path("/drbd/opt/sark/db/sark.db"))["BINDADDR"] == "ON"
    assert row(customer.path("/drbd/opt/sark/db/sark.rdonly.db"))["HAUSECLUSTER"] == "YES"
    assert row(customer.path("/opt/sark/db/sark.db"))["BINDADDR"] == "OFF"


def test_flags_of_an_earlier_copy_do_not_count(customer: Customer) -> None:
    """The next copy overwrites them."""
    (action,) = sark.actions(site())
    for one in data.actions(site(), data.look(customer)):
        one.do(customer, customer.say)
    action.do(customer, customer.say)
    customer.remove("/var/lib/asha/handover.json")
    assert not action.is_done(customer)


def test_no_sark_nothing_to_do(customer: Customer) -> None:
    customer.remove("/opt/sark/db/sark.db")
    (action,) = sark.actions(site())
    assert action.is_done(customer)
