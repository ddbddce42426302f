"""What Asterisk's SIP stacks say of their addresses, as 16.28 words it."""

from __future__ import annotations

from asha.asterisk.talk.sip_addresses import Setting, of_chan_sip, of_pjsip, transports

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


def test_a_stack_that_is_not_there_or_says_nonsense() -> None:
    for text in ("", "No such command 'sip show settings' (type 'core show help')",
                 "Externaddr: (null)", "Externaddr: [2001:db8::1]:5060", "bind : 1.2.3",
                 "Externaddr: 1.2.3.4444", "::::", "\0\n:\n"):
        assert of_chan_sip(text) == of_pjsip("x", text) == transports(text) == []
