"""What administrators write into fail2ban's files: read as fail2ban reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.bootstrap.firewall import fail2ban
from asha.cluster.site import NodeConfig, Site
from tests.fakes.machine import FakeMachine

SITE = Site(
    first=NodeConfig("crm1", "10.0.3.251", "192.168.1.11", 1),
    second=NodeConfig("crm2", "10.0.3.252", "192.168.1.12", 2),
    is_first=True,
    two_nics=True,
    virtual_address="192.168.1.90",
    lan_prefix=24,
    lan_nic="eth0",
    link_nic="eth1",
    link_prefix=24,
    device="/dev/sda5",
)
OURS = ["10.0.3.252", "192.168.1.12"]


def written(fake: FakeMachine) -> dict[str, list[str]]:
    """Section -> what we write for it."""
    [action] = fail2ban.actions(SITE, fail2ban.look(fake.installed("fail2ban-client")))
    assert isinstance(action, fail2ban._Ignore)
    found, section = {}, ""
    for line in action.text.splitlines():
        if line.startswith("["):
            section = line[1:-1]
        elif line.startswith("ignoreip ="):
            found[section] = line.partition("=")[2].split()
    return found


@pytest.mark.parametrize(("text", "kept"), [
    # Over several lines, with comments among and behind them.
    ("ignoreip = 1.1.1.1\n    2.2.2.2\n\t3.3.3.3\n", ["1.1.1.1", "2.2.2.2", "3.3.3.3"]),
    ("ignoreip =\n  1.1.1.1\n\n  2.2.2.2\n", ["1.1.1.1", "2.2.2.2"]),
    ("ignoreip = 1.1.1.1\n  # the office\n  ; and home\n  2.2.2.2\n", ["1.1.1.1", "2.2.2.2"]),
    ("ignoreip = 1.1.1.1 ; the office\n  2.2.2.2 ; home\n", ["1.1.1.1", "2.2.2.2"]),
    ("ignoreip: 1.1.1.1,2.2.2.2, 3.3.3.3\n", ["1.1.1.1", "2.2.2.2", "3.3.3.3"]),
    ("IgnoreIP = 1.1.1.1\n", ["1.1.1.1"]),
    ("ignoreip = \n", []),
    ("ignoreip = 1.1.1.1\nignoreip = 2.2.2.2\n", ["2.2.2.2"]),
    # fail2ban refuses these files: it says so, and nothing is written then.
    ("ignoreip\n", []),
    ("ignoreip\n  1.1.1.1\n", []),
    ("ignoreip\n  1.1.1.1\n  2.2.2.2\n[x]\n  y\n", []),
])
def test_every_entry_stays_however_it_is_written(
    tmp_path: Path, text: str, kept: list[str]
) -> None:
    fake = FakeMachine(tmp_path).put("/etc/fail2ban/jail.local", f"[DEFAULT]\n{text}")
    assert written(fake) == {"DEFAULT": [*kept, *OURS]}


def test_what_was_known_before_is_spelt_out(tmp_path: Path) -> None:
    """Ours would mean the line that it repeats, and that itself, without end."""
    fake = FakeMachine(tmp_path)
    fake.put("/etc/fail2ban/jail.conf", "[DEFAULT]\nignoreip = 9.9.9.9\n[sshd]\n"
             "ignoreip = 1.1.1.1\n[www]\nenabled = no\n")
    fake.put("/etc/fail2ban/jail.local", "[sshd]\nignoreip = %(known/ignoreip)s 2.2.2.2\n"
             "[www]\nignoreip = %(known/ignoreip)s 3.3.3.3\n")
    assert written(fake) == {
        "DEFAULT": ["9.9.9.9", *OURS],
        "sshd": ["1.1.1.1", "2.2.2.2", *OURS],
        "www": ["%(default/ignoreip)s", "3.3.3.3", *OURS],
    }


def test_files_that_are_included_count(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path)
    fake.put("/etc/fail2ban/jail.conf",
             "[INCLUDES]\nbefore = first.conf\n  second.conf\nafter = jail.conf\n"
             "[sshd]\nignoreip = 1.1.1.1\n")
    fake.put("/etc/fail2ban/first.conf", "[DEFAULT]\nignoreip = 2.2.2.2\n")
    fake.put("/etc/fail2ban/second.local", "[www]\nignoreip = 3.3.3.3\n")
    assert written(fake) == {"DEFAULT": ["2.2.2.2", *OURS], "sshd": ["1.1.1.1", *OURS],
                             "www": ["3.3.3.3", *OURS]}


def test_what_is_no_file_or_no_text_is_passed_by_as_fail2ban_does(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path)
    fake.put("/etc/fail2ban/jail.d/a.conf", "[DEFAULT]\nignoreip = caf\udce9\n")
    fake.path("/etc/fail2ban/jail.d/b.conf").mkdir()
    fake.put("/etc/fail2ban/jail.local", "[DEFAULT]\nignoreip = 1.1.1.1\n")
    assert written(fake) == {"DEFAULT": ["1.1.1.1", *OURS]}
