"""What PJSIP and chan_sip say of where they take SIP, in the words of Asterisk 16.28."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.asterisk import stacks
from asha.asterisk.testing import CONTROL, SAYS, FakeAsterisk
from asha.ocf import Deadline

PJSIP = """
Transport:  <TransportId........>  <Type>  <cos>  <tos>  <BindAddress....................>
==========================================================================================

Transport:  transport-tcp             tcp      0      0  0.0.0.0:5080
Transport:  transport-tls             tls      0      0  0.0.0.0:5061
Transport:  transport-udp             udp      0      0  0.0.0.0:5080
Transport:  transport-udp6            udp      0      0  [::]:5080
Transport:  transport-wss             wss      0      0  0.0.0.0:8089

Objects found: 5

"""
CHAN_SIP = """

Global Settings:
----------------
  UDP Bindaddress:        0.0.0.0:5160
  TCP SIP Bindaddress:    Disabled
  TLS SIP Bindaddress:    192.168.1.90:5161
  RTP Bindaddress:        Disabled
  Realm. auth:            No
  Our auth realm          asterisk
  UDP Bindaddress of nobody: 5
  Transport:              of no:5070
"""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAsterisk]:
    with FakeAsterisk(tmp_path) as one:
        yield one


def says(fake: FakeAsterisk, command: str, text: str) -> None:
    (fake.folder / f"{SAYS}{command}").write_text(text)


def ask(fake: FakeAsterisk, seconds: float = 5.0) -> list[stacks.Socket]:
    return stacks.ask(str(fake.folder), Deadline(seconds))


def test_both_stacks(fake: FakeAsterisk) -> None:
    says(fake, "pjsip-show-transports", PJSIP)
    says(fake, "sip-show-settings", CHAN_SIP)
    found = ask(fake)
    assert found == [(("tcp",), 5080), (("udp",), 5080), (("udp",), 5160)]
    assert stacks.read(stacks.kept(found)) == found
    assert stacks.words(found) == "ports 5080 and 5160"


def test_no_stack(fake: FakeAsterisk) -> None:
    assert ask(fake) == []
    says(fake, "pjsip-show-transports", "No objects found.\n\n")
    assert ask(fake) == []


def test_one_that_does_not_tell(fake: FakeAsterisk) -> None:
    says(fake, "sip-show-settings", CHAN_SIP)
    fake.silence(CONTROL)
    assert ask(fake, 0.3) == []
    fake.close_part(CONTROL)
    assert ask(fake) == []


@pytest.mark.parametrize("text", ["udp", "udp x\nsctp 5060\n", "udp 5060 1\n5060\n\n"])
def test_a_torn_line_is_left_out(text: str) -> None:
    assert stacks.read(text) == []


def test_a_single_port_in_words() -> None:
    assert stacks.words([(("udp",), 5060), (("tcp",), 5060)]) == "port 5060"
