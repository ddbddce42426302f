"""The parameter paths."""

from __future__ import annotations

import pytest

from asha.agents.sark_data import SarkData
from asha.data.paths import overlap, parse
from asha.ocf import BadConfig


def test_a_word_is_path_user_and_optional() -> None:
    items = parse("/etc/asterisk:asterisk /opt/x? /var/lib/ldap:openldap?", "/drbd")
    assert [(item.path, item.user, item.optional) for item in items] == [
        ("/etc/asterisk", "asterisk", False),
        ("/opt/x", "", True),
        ("/var/lib/ldap", "openldap", True),
    ]


def test_the_default_is_good_and_holds_what_2014_forgot() -> None:
    default = SarkData.parameters["paths"].default
    assert default is not None
    items = {item.path: item for item in parse(default, "/drbd")}
    assert {"/usr/share/asterisk", "/var/lib/ldap", "/opt/sark/media"} <= items.keys()
    assert items["/opt/sark/db"].user == "www-data"
    must = {path for path, item in items.items() if not item.optional}
    assert must == {
        "/etc/asterisk",
        "/var/lib/asterisk",
        "/var/spool/asterisk",
        "/var/log/asterisk",
        "/usr/share/asterisk",
        "/var/lib/mysql",
        "/opt/sark/db",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("etc/asterisk", "must be an absolute path"),
        ("/etc/../root", "must not contain . or .."),
        ("/etc//asterisk", "must not contain //"),
        ("/etc/asterisk/", "end in /"),
        ("/", "whole file system"),
        ("/?", "whole file system"),
        ("/a:", "/path:user"),
        ("/a:b:c", "/path:user"),
        ("/a:-rf", "/path:user"),
        ("/a:b!", "/path:user"),
        ("?", "absolute"),
        ("   ", "names no directory"),
        ("/drbd", "inside the store"),
        ("/drbd/etc", "inside the store"),
        ("/a /a", "named twice"),
        ("/a /a:user", "named twice"),
        ("/a /a-b /a/b", "/a/b is inside /a"),
    ],
)
def test_bad_words(text: str, complaint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(text, "/drbd")
    assert complaint in caught.value.reason


def test_a_path_that_would_hide_the_store() -> None:
    with pytest.raises(BadConfig, match="would hide it"):
        parse("/srv", "/srv/drbd")


def test_the_store_cannot_be_the_root_file_system() -> None:
    with pytest.raises(BadConfig, match="data_root"):
        parse("/etc/asterisk", "/")


def test_names_that_only_begin_alike_do_not_overlap() -> None:
    assert overlap(["/opt/sark/db", "/opt/sark/db2", "/drbd2"], "/drbd") == ""
