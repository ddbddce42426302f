"""What PJSIP and chan_sip say of where they take SIP, in the words of Asterisk 16.28."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.asterisk.process.proc import Proc
from asha.asterisk.talk import sip_transports
from asha.asterisk.talk.control import Console
from asha.ocf import Deadline
from tests.fakes.asterisk import CONTROL, SAYS, FakeAsterisk

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


def ask(fake: FakeAsterisk, seconds: float = 5.0) -> dict[str, list[sip_transports.Entry] | None]:
    me = Proc().process(os.getpid())
    assert me is not None
    return sip_transports.ask(Console(str(fake.folder), me), Deadline(seconds))


def bound(entries: list[sip_transports.Entry] | None) -> list[tuple[str, int]]:
    assert entries is not None
    return [(one.protocol, one.port) for one in entries]


def everywhere(_: sip_transports.Entry) -> bool:
    return True


def nowhere(_: sip_transports.Entry) -> bool:
    return False


def test_both_stacks(fake: FakeAsterisk) -> None:
    says(fake, "pjsip-show-transports", PJSIP)
    says(fake, "sip-show-settings", CHAN_SIP)
    told = ask(fake)
    assert bound(told["PJSIP"]) == [("tcp", 5080), ("tls", 5061), ("udp", 5080), ("wss", 8089)]
    assert bound(told["chan_sip"]) == [("udp", 5160), ("tls", 5161)]
    entries, idle = sip_transports.merged([], told, everywhere)
    assert idle == []
    sockets = sip_transports.wanted(entries)
    assert sockets == [(("tcp",), 5080), (("udp",), 5080), (("udp",), 5160)]
    assert sip_transports.wanted(sip_transports.read(sip_transports.kept(entries))) == sockets
    assert sip_transports.words(sockets) == "ports 5080 and 5160"


def test_a_transport_whose_name_has_blanks(fake: FakeAsterisk) -> None:
    says(fake, "pjsip-show-transports", PJSIP.replace("transport-tcp", "my new transport"))
    assert ("tcp", 5080) in bound(ask(fake)["PJSIP"])


def test_no_stack(fake: FakeAsterisk) -> None:
    assert ask(fake) == {"PJSIP": None, "chan_sip": None}
    says(fake, "pjsip-show-transports", "No objects found.\n\n")
    told = ask(fake)
    assert told == {"PJSIP": [], "chan_sip": None}
    assert sip_transports.merged([], told, everywhere) == ([], [])
    assert sip_transports.wanted([]) == [(("udp", "tcp"), 5060)]


def test_one_that_does_not_tell(fake: FakeAsterisk) -> None:
    says(fake, "sip-show-settings", CHAN_SIP)
    fake.silence(CONTROL)
    assert ask(fake, 0.3) == {}
    fake.close_part(CONTROL)
    assert ask(fake) == {}


KNOWN = [sip_transports.Entry("udp", 5060, "PJSIP"), sip_transports.Entry("udp", 5160, "chan_sip")]


def test_what_a_stack_says_replaces_what_was_known_of_it() -> None:
    told = {"PJSIP": [sip_transports.Entry("udp", 5080, "PJSIP")], "chan_sip": None}
    entries, _ = sip_transports.merged(KNOWN, told, everywhere)
    assert sip_transports.kept(entries) == "udp 5080 PJSIP\nudp 5160 chan_sip lost\n"
    assert sip_transports.wanted(entries) == [(("udp",), 5080)]
    entries, _ = sip_transports.merged(KNOWN, {}, everywhere)
    assert sip_transports.kept(entries) == sip_transports.kept(KNOWN)


def test_tls_does_not_make_up_for_what_was_there() -> None:
    """PJSIP does not list a transport that could not start; chan_sip may be gone."""
    tls = sip_transports.Entry("tls", 5061, "PJSIP")
    entries, _ = sip_transports.merged(KNOWN[:1], {"PJSIP": [tls]}, nowhere)
    assert sip_transports.wanted(entries) == [KNOWN[0].socket]
    entries, _ = sip_transports.merged([tls, KNOWN[1]], {"PJSIP": [tls], "chan_sip": None}, nowhere)
    assert sip_transports.wanted(entries) == [KNOWN[1].socket]


def test_a_port_that_the_other_stack_takes_over_is_not_lost() -> None:
    other = sip_transports.Entry("udp", 5160, "PJSIP")
    entries, _ = sip_transports.merged(
        KNOWN, {"PJSIP": [KNOWN[0], other], "chan_sip": None}, everywhere
    )
    assert entries == [KNOWN[0], other]


def test_two_that_claim_one_port_are_one_to_ask() -> None:
    both = [KNOWN[0], sip_transports.Entry("udp", 5060, "chan_sip")]
    assert sip_transports.wanted(both) == [KNOWN[0].socket]


def test_all_that_was_there_is_missed() -> None:
    entries, _ = sip_transports.merged(KNOWN, {"PJSIP": None, "chan_sip": None}, nowhere)
    assert sip_transports.wanted(entries) == sip_transports.wanted(KNOWN)


def test_a_new_one_without_its_port_is_no_reason_not_to_start() -> None:
    told = {"PJSIP": [KNOWN[0]], "chan_sip": [KNOWN[1]]}
    entries, idle = sip_transports.merged(KNOWN[:1], told, nowhere)
    assert (entries, idle) == ([KNOWN[0]], [KNOWN[1]])
    # But where nobody has his, and TLS is not asked.
    told = {"PJSIP": [KNOWN[0], sip_transports.Entry("tls", 5061, "PJSIP")]}
    entries, idle = sip_transports.merged([], told, nowhere)
    assert sip_transports.wanted(entries) == [KNOWN[0].socket]
    assert idle == [KNOWN[0]]


def test_tls_alone_is_asked_nowhere() -> None:
    told = {"PJSIP": [sip_transports.Entry("tls", 5061, "PJSIP")], "chan_sip": None}
    entries, _ = sip_transports.merged([], told, everywhere)
    assert entries
    assert sip_transports.wanted(entries) == []


@pytest.mark.parametrize(
    "text", ["udp", "udp x PJSIP\nsctp 5060 PJSIP\n", "udp 5060\n5060\n\n", "udp 1 PJSIP lo"]
)
def test_a_torn_line_is_left_out(text: str) -> None:
    assert sip_transports.read(text) == []


def test_a_single_port_in_words() -> None:
    assert sip_transports.words([(("udp",), 5060), (("tcp",), 5060)]) == "port 5060"
