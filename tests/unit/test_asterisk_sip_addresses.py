"""What Asterisk's SIP stacks say of their addresses, as 16.28 words it."""

from __future__ import annotations

import pytest

from asha.asterisk.talk.sip_addresses import (
    Setting,
    identified,
    of_chan_sip,
    of_pjsip,
    registers,
    running,
    transports,
)

TRANSPORTS = """
Transport:  <TransportId........>  <Type>  <cos>  <tos>  <BindAddress....................>
==========================================================================================

Transport:  transport-udp             udp      0      0  0.0.0.0:5060
Transport:  inside                    tcp      0      0  192.168.1.12:5062

Objects found: 2

"""
TRANSPORT = """
Transport:  <TransportId........>  <Type>  <cos>  <tos>  <BindAddress....................>
==========================================================================================

Transport:  inside                    tcp      0      0  192.168.1.12:5062

 ParameterName               : ParameterValue
 ===================================================================
 allow_reload                : false
 async_operations            : 1
 bind                        : 192.168.1.12:5062
 external_media_address      : 203.0.113.9
 external_signaling_address  :
 external_signaling_port     : 0
 local_net                   :
 protocol                    : tcp

"""
SETTINGS = """

Global Settings:
----------------
  UDP Bindaddress:        192.168.1.12:5160
  TCP SIP Bindaddress:    0.0.0.0:5161
  TLS SIP Bindaddress:    Disabled
  RTP Bindaddress:        Disabled

Network Settings:
---------------------------
  SIP address remapping:  Enabled using externaddr
  Externhost:             <none>
  Externaddr:             203.0.113.9:0
  Externrefresh:          10

----
"""


def test_pjsip() -> None:
    assert transports(TRANSPORTS) == ["transport-udp", "inside"]
    assert of_pjsip("inside", TRANSPORT) == [
        Setting("pjsip.conf", "inside", "bind", "192.168.1.12"),
        Setting("pjsip.conf", "inside", "external_media_address", "203.0.113.9"),
    ]


def test_chan_sip() -> None:
    assert of_chan_sip(SETTINGS) == [
        Setting("sip.conf", "general", "udpbindaddr", "192.168.1.12"),
        Setting("sip.conf", "general", "tcpbindaddr", "0.0.0.0"),
        Setting("sip.conf", "general", "externaddr", "203.0.113.9"),
    ]


IDENTIFIES = """
 Identify:  <Identify/Endpoint.........................................................>
      Match:  <criteria.........................>
==========================================================================================

 Identify:  asha-monitor/asha-monitor
      Match: User-Agent: ASHA

 Identify:  trunk/peer
      Match: 192.168.1.11/32
      Match: 203.0.113.0/24


Objects found: 2

"""
MODULES = """
Module                         Description                     Use Count  Status      Support
chan_sip.so                    Session Initiation Protocol     0          Running     extended
chan_iax2.so                   Inter Asterisk eXchange (Ver 2  0          Not Running core
3 modules loaded
"""


def test_who_is_known_by_an_address() -> None:
    assert identified(IDENTIFIES) == [("trunk", "192.168.1.11/32"), ("trunk", "203.0.113.0/24")]


def test_modules_that_run() -> None:
    assert running(MODULES) == {"chan_sip.so"}


@pytest.mark.parametrize(("text", "is_one"), [
    ("Host  dnsmgr Username Refresh State Reg.Time\n0 SIP registrations.\n", False),
    ("192.168.1.1:5071  N  asha  120 Request Sent\n1 SIP registrations.\n", True),
    ("Host  dnsmgr  Username  Perceived  Refresh  State\n10 IAX2 registrations.\n", True),
    ("trunk/sip:192.168.1.1:5070   n/a   Rejected\n\nObjects found: 1\n", True),
    ("No objects found.\n", False),
])
def test_registrations(text: str, is_one: bool) -> None:
    assert registers(text) is is_one


def test_a_stack_that_is_not_there_or_says_nonsense() -> None:
    for text in ("", "No such command 'sip show settings' (type 'core show help')",
                 "Externaddr: (null)", "Externaddr: [2001:db8::1]:5060", "bind : 1.2.3",
                 "Externaddr: 1.2.3.4444", "::::", "\0\n:\n"):
        assert of_chan_sip(text) == of_pjsip("x", text) == transports(text) == []
        assert identified(text) == []
        assert not running(text)
        assert not registers(text)
