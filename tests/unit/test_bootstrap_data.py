"""The live data's copy: whole, verified, and refused where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from asha.bootstrap.host import file_tree
from asha.bootstrap.host.file_tree import Tree
from asha.bootstrap.steps import data
from asha.bootstrap.takeover import state as records
from asha.bootstrap.takeover import takeover
from asha.data import owners, space
from asha.data.space import Space
from asha.errors import UserError
from tests.fakes.machine import Outcome
from tests.unit.bootstrap_customer import FILES, SERVICES, Customer, customer, site

__all__ = ["customer"]


def copy_all(machine: Customer) -> None:
    for action in data.actions(site(), data.look(machine)):
        action.do(machine, machine.say)


def test_everything_is_in_the_store_with_its_mode_time_and_link(customer: Customer) -> None:
    customer.path("/etc/asterisk/extensions.conf").chmod(0o640)
    copy_all(customer)
    for path, text in FILES.items():
        a, b = customer.path(path).stat(), customer.path("/drbd" + path).stat()
        assert customer.read("/drbd" + path) == text
        assert (a.st_mode, a.st_mtime_ns) == (b.st_mode, b.st_mtime_ns)
    assert os.readlink(customer.path("/drbd/etc/asterisk/link")) == "extensions.conf"
    assert data.is_copied(customer)
    assert json.loads(customer.read(data.CLAIM) or "")["entries"] > len(FILES)


def test_a_directory_that_is_not_there_is_left_out(customer: Customer) -> None:
    copy_all(customer)
    assert not customer.exists("/drbd/var/lib/ldap")


def test_done_is_said_only_by_the_one_who_did_it(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions = data.actions(site(), data.look(customer))
    assert not any(action.is_done(customer) for action in actions)
    copy_all(customer)
    assert all(action.is_done(customer) for action in actions)
    monkeypatch.setattr(records, "owner", lambda: (1, "another"))
    assert not any(action.is_done(customer) for action in actions)


def test_the_services_run_during_the_first_pass_and_not_during_the_last(
    customer: Customer,
) -> None:
    seen: list[set[str]] = []
    customer.on_rsync = lambda: seen.append(set(customer.running) & set(SERVICES))
    copy_all(customer)
    half = len(seen) // 2
    assert all(one == set(SERVICES) for one in seen[:half])
    assert not any(seen[half:])


def test_what_is_written_after_the_first_pass_is_in_the_store(customer: Customer) -> None:
    first, begin, last = data.actions(site(), data.look(customer))
    first.do(customer, customer.say)
    customer.put("/var/lib/mysql/ibdata1", "more " * 400)
    customer.path("/etc/asterisk/extensions.conf").unlink()
    begin.do(customer, customer.say)
    last.do(customer, customer.say)
    assert customer.read("/drbd/var/lib/mysql/ibdata1") == "more " * 400
    assert not customer.exists("/drbd/etc/asterisk/extensions.conf")


def test_a_change_in_the_same_tick_of_the_clock_is_found_by_contents(customer: Customer) -> None:
    first, begin, last = data.actions(site(), data.look(customer))
    first.do(customer, customer.say)
    place = customer.path("/etc/asterisk/extensions.conf")
    about = place.stat()
    place.write_text("[LAB]\n")
    os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))
    begin.do(customer, customer.say)
    last.do(customer, customer.say)
    assert customer.read("/drbd/etc/asterisk/extensions.conf") == "[LAB]\n"
    assert any("by contents" in text for text in customer.said)


@pytest.mark.parametrize("text", ["one", "two"])
def test_a_hard_link_that_was_one_in_an_earlier_copy_is_none_in_this(
    customer: Customer, text: str
) -> None:
    first, begin, last = data.actions(site(), data.look(customer))
    one, two = (customer.path(f"/etc/asterisk/{name}.conf") for name in ("one", "two"))
    one.write_text("one")
    two.write_text(text)
    os.utime(two, ns=(0, one.stat().st_mtime_ns))
    first.do(customer, customer.say)
    begin.do(customer, customer.say)
    there = customer.path("/drbd/etc/asterisk")
    (there / "two.conf").unlink()
    os.link(there / "one.conf", there / "two.conf")
    last.do(customer, customer.say)
    assert (there / "one.conf").read_text() == "one"
    assert (there / "two.conf").read_text() == text
    assert (there / "one.conf").stat().st_ino != (there / "two.conf").stat().st_ino


def test_who_writes_during_the_last_pass_is_refused_by_name(customer: Customer) -> None:
    first, begin, last = data.actions(site(), data.look(customer))
    first.do(customer, customer.say)
    begin.do(customer, customer.say)
    late = customer.path("/var/lib/asterisk/late")
    customer.on_rsync = late.touch
    with pytest.raises(UserError, match="var/lib/asterisk/late was changed"):
        last.do(customer, customer.say)
    assert not data.is_copied(customer)


def test_a_disk_that_stores_something_else_is_refused(customer: Customer) -> None:
    first, begin, last = data.actions(site(), data.look(customer))
    first.do(customer, customer.say)
    begin.do(customer, customer.say)

    def rot() -> None:
        place = customer.path("/drbd/var/lib/mysql/ibdata1")
        about = place.stat()
        place.write_bytes(b"x" * about.st_size)
        os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))

    customer.on_rsync = rot
    with pytest.raises(UserError, match="ibdata1 has other contents than the copy"):
        last.do(customer, customer.say)


def test_an_rsync_that_fails_in_the_last_pass_is_refused(customer: Customer) -> None:
    first, begin, last = data.actions(site(), data.look(customer))
    first.do(customer, customer.say)
    begin.do(customer, customer.say)
    customer.on("setpriv --pdeathsig KILL rsync", Outcome(code=24, err="file has vanished"))
    with pytest.raises(UserError, match="rsync ended with 24"):
        last.do(customer, customer.say)


def test_without_room_nothing_is_stopped(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "measure", lambda place: Space(1000, 10**9))
    with pytest.raises(UserError, match="the store is too small") as trouble:
        copy_all(customer)
    assert "/etc/asterisk" in str(trouble.value)
    assert customer.rsyncs == 0
    assert customer.running >= set(SERVICES)


def test_a_disk_that_fills_up_is_told_with_its_size(customer: Customer) -> None:
    customer.on("setpriv --pdeathsig KILL rsync",
                Outcome(code=11, err="write failed: No space left on device (28)"))
    with pytest.raises(UserError, match="the store is full"):
        copy_all(customer)


def test_a_store_with_data_of_another_is_not_overwritten(customer: Customer) -> None:
    customer.put("/drbd/var/lib/mysql/ibdata1", "newer")
    with pytest.raises(UserError, match="may be newer"):
        copy_all(customer)
    assert customer.read("/drbd/var/lib/mysql/ibdata1") == "newer"


def test_our_own_unfinished_copy_is_overwritten(customer: Customer) -> None:
    copy_all(customer)
    customer.remove(records.RECORD)
    customer.put("/etc/asterisk/extensions.conf", "[new]\n")
    copy_all(customer)
    assert customer.read("/drbd/etc/asterisk/extensions.conf") == "[new]\n"


def test_a_store_that_a_cluster_has_worked_with_is_not_overwritten(customer: Customer) -> None:
    copy_all(customer)
    customer.put("/drbd/.asha/probe.crm1")
    with pytest.raises(UserError, match="may be newer"):
        data.first_pass(customer, customer.say)


def test_a_copy_is_nobodys_once_the_cluster_has_it(customer: Customer) -> None:
    copy_all(customer)
    takeover.take_over(customer, site(), customer.say)
    customer.load_cib()
    takeover.finish(customer, customer.say)
    assert not customer.exists(takeover.COPY_ID)
    assert all(action.is_done(customer) for action in data.actions(site(), data.look(customer)))


def test_what_is_mounted_inside_is_refused_before_anything(customer: Customer) -> None:
    with customer.path("/proc/self/mountinfo").open("a") as table:
        table.write("9 1 0:50 / /var/lib/mysql/nas rw - nfs nas:/x rw\n")
    with pytest.raises(UserError, match="nas:/x is mounted at /var/lib/mysql/nas"):
        copy_all(customer)
    assert customer.rsyncs == 0


def test_a_link_into_the_store_is_refused(customer: Customer) -> None:
    shutil.rmtree(customer.path("/etc/asterisk"))
    customer.put("/drbd/etc/asterisk/x")
    customer.path("/etc/asterisk").symlink_to("/drbd/etc/asterisk")
    with pytest.raises(UserError, match="symbolic link into /drbd"):
        copy_all(customer)


def test_a_link_to_what_is_not_replicated_is_told(customer: Customer) -> None:
    customer.put("/srv/music/a")
    customer.path("/var/lib/asterisk/moh").symlink_to(customer.path("/srv/music"))
    copy_all(customer)
    assert any("var/lib/asterisk/moh leads to" in text for text in customer.said)


def test_a_directory_of_the_wrong_owner_is_refused(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        pw_uid = os.geteuid() + 1

    monkeypatch.setattr(owners, "account", lambda user: Other)
    if os.geteuid() == 0:
        # What belongs to root is accepted.
        os.chown(customer.path("/etc/asterisk"), Other.pw_uid + 1, -1)
    with pytest.raises(UserError, match="chown"):
        copy_all(customer)


# Trees.


def plain(place: Path) -> Tree:
    return Tree(str(place), str(place))


def compare(a: Path, b: Path) -> file_tree.Comparison:
    comparison = file_tree.Comparison(lambda inside, about: inside.endswith(".db"))
    comparison.add(plain(a), plain(b))
    return comparison


def two_trees(tmp_path: Path) -> tuple[Path, Path]:
    a = tmp_path / "a"
    (a / "sub").mkdir(parents=True)
    (a / "sub" / "one").write_text("1")
    (a / "sub.x").write_text("2")
    (a / "data.db").write_text("3")
    os.link(a / "sub.x", a / "twin")
    os.symlink("sub", a / "way")
    b = tmp_path / "b"
    assert os.system(f"cp -a {a} {b}") == 0
    return a, b


def test_a_faithful_copy_has_no_differences(tmp_path: Path) -> None:
    a, b = two_trees(tmp_path)
    found = compare(a, b)
    assert not found.problems
    assert (found.entries, found.bytes) == (7, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rm {b}/sub/one && touch -r {a}/sub {b}/sub", "sub/one is missing"),
        ("touch {b}/more && touch -r {a} {b}", "b/more is not in"),
        ("printf 22 > {b}/sub.x", "has 1 bytes, the copy 2"),
        ("chmod 700 {b}/sub", "has mode"),
        ("touch -d 2001-01-01 {b}/sub.x", "another time"),
        ("ln -sfn sub.x {b}/way && touch -hr {a}/way {b}/way && touch -r {a} {b}",
         "points elsewhere"),
        ("printf X > {b}/data.db && touch -r {a}/data.db {b}/data.db", "other contents"),
        ("cp -p {b}/twin {b}/t && mv {b}/t {b}/twin && touch -r {a} {b}", "hard link"),
        ("cp -p {a}/data.db {a}/d && ln {b}/data.db {b}/d && touch -r {a} {b}", "of its own"),
        ("rm {b}/data.db && mkdir {b}/data.db && touch -r {a} {b}", "another kind"),
    ],
)
def test_every_kind_of_difference_is_found(tmp_path: Path, change: str, said: str) -> None:
    a, b = two_trees(tmp_path)
    assert os.system(change.format(a=a, b=b)) == 0
    assert any(said in problem for problem in compare(a, b).problems)


@pytest.mark.parametrize(
    "change", ["echo x >> {a}/sub/one", "touch {a}/new", "rm {a}/sub.x", "chmod 600 {a}/data.db",
               "cp -p {a}/data.db {a}/n && mv {a}/n {a}/data.db",
               "printf 9 > {a}/sub/one && touch -d @1 {a}/sub/one"],
)
def test_a_fingerprint_sees_every_change(tmp_path: Path, change: str) -> None:
    a, _ = two_trees(tmp_path)
    before = file_tree.fingerprint([plain(a)])
    assert file_tree.fingerprint([plain(a)]) == before
    assert os.system(change.format(a=a)) == 0
    assert file_tree.fingerprint([plain(a)]) != before


def test_a_name_with_wildcards_is_excluded_by_itself() -> None:
    assert data._pattern("run/mysql.sock") == "run/mysql.sock"
    assert data._pattern("a[1]*.sock") == "a\\[1]\\*.sock"
