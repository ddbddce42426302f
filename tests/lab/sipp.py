"""SIPp, a real user agent: it registers, calls, and looks at what it is told.

It runs in the switchboard's namespace, out of the nodes' image (Debian's sip-tester), with
that image's libraries. What its scenarios do not expect ends a call as failed: a hang-up by
the other side, an answer that names another address, silence. Scenarios: SIPp's reference,
https://sipp.readthedocs.io. Who sends the packets is seen by ``firewall``.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.lab.host import LabError, run
from tests.lab.image import program
from tests.lab.lab import VIRTUAL_ADDRESS, Lab
from tests.lab.network import SWITCHBOARD_ADDRESS

# An extension that answers and plays, and one that answers and sends back what it hears.
PLAYS, ECHO = "100", "101"
# The first port for it.
SOUND = 6000
# Longer than the transaction time-out (RFC 3261, timer B) and the longest call together.
PATIENCE = 90.0

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="call">
"""
# {number}: of the CSeq; {more}: credentials.
REGISTER = """
<send retrans="500"><![CDATA[
REGISTER sip:[remote_ip] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:{user}@[remote_ip]>;tag=[pid]r[call_number]
To: <sip:{user}@[remote_ip]>
Call-ID: reg///[call_id]
CSeq: {number} REGISTER
Contact: <sip:{user}@[local_ip]:[local_port]>
Max-Forwards: 70
Expires: 60
{more}Content-Length: 0

]]></send>
"""
INVITE = """
<send retrans="500"><![CDATA[
INVITE sip:{extension}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:{user}@[remote_ip]>;tag=[pid]i[call_number]
To: <sip:{extension}@[remote_ip]>
Call-ID: [call_id]
CSeq: {number} INVITE
Contact: <sip:{user}@[local_ip]:[local_port]>
Max-Forwards: 70
{more}Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
]]></send>
"""
ACK = """
<send><![CDATA[
ACK sip:{extension}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch{back}];rport
From: <sip:{user}@[remote_ip]>;tag=[pid]i[call_number]
To: <sip:{extension}@[remote_ip]>[peer_tag_param]
Call-ID: [call_id]
CSeq: {number} ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
"""
BYE = """
<pause/>
<send retrans="500"><![CDATA[
BYE sip:{extension}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:{user}@[remote_ip]>;tag=[pid]i[call_number]
To: <sip:{extension}@[remote_ip]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 9 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200"/>
</scenario>
"""
PROVISIONAL = "".join(f'<recv response="{code}" optional="true"/>\n' for code in (100, 180, 183))
CHALLENGE = PROVISIONAL + '<recv response="401" auth="true"/>\n'
AUTHENTICATION = "[authentication username={user} password={password}]\n"
# The answer to a call: where to send further requests, and the sound.
ANSWER = PROVISIONAL + """<recv response="200"><action>
<ereg regexp="@?{address}:" search_in="hdr" header="Contact:" check_it="true" assign_to="1"/>
<ereg regexp="o=[^ ]* [0-9]* [0-9]* IN IP4 {address}" search_in="body" check_it="true"
 assign_to="2"/>
<ereg regexp="c=IN IP4 {address}" search_in="body" check_it="true" assign_to="3"/>
</action></recv>
<Reference variables="1,2,3"/>
"""


def scenario(extension: str, user: str = "sipp", password: str = "",
             address: str = VIRTUAL_ADDRESS) -> str:
    """A call of ``-d`` ms; with a password it registers before, and proves who it is."""
    def step(text: str, number: int = 1, more: str = "", back: str = "") -> str:
        return text.format(extension=extension, user=user, number=number, more=more, back=back)

    parts = [HEAD]
    number, more = 1, ""
    if password:
        more = AUTHENTICATION.format(user=user, password=password)
        parts += [step(REGISTER), CHALLENGE, step(REGISTER, 2, more), PROVISIONAL,
                  '<recv response="200"/>', step(INVITE, 1), CHALLENGE, step(ACK, 1, back="-1")]
        number = 2
    parts += [step(INVITE, number, more), ANSWER.format(address=address.replace(".", "[.]")),
              step(ACK, number), step(BYE)]
    return "".join(parts)


class Calls:
    """``number`` calls, one each second, of ``seconds`` each. In ``with``: while they go on.

    ``wait`` raises LabError, with SIPp's own words, unless each of them went to its end.
    """

    def __init__(self, lab: Lab, text: str, port: int, number: int = 1,
                 seconds: float = 1.0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="asha-sipp-")
        place = Path(self._folder.name)
        (place / "scenario.xml").write_text(text)
        self._errors = place / "errors"
        self._seconds = seconds + number + PATIENCE
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", lab.network.switchboard,
             *program(lab.release, "/usr/bin/sipp"), f"{VIRTUAL_ADDRESS}:{port}",
             "-i", SWITCHBOARD_ADDRESS, "-mi", SWITCHBOARD_ADDRESS, "-mp", str(SOUND), "-nostdin",
             "-sf", str(place / "scenario.xml"), "-m", str(number), "-r", "1",
             "-d", str(int(seconds * 1000)), "-timeout", f"{self._seconds:.0f}s",
             "-timeout_error", "-trace_err", "-error_file", str(self._errors)],
            cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "xterm", "LC_ALL": "C"},
        )

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def wait(self) -> None:
        said = self._process.communicate(timeout=self._seconds + 30)[1]
        if self._process.returncode != 0:
            errors = self._errors.read_text() if self._errors.exists() else said
            raise LabError(f"SIPp ended with {self._process.returncode}: {errors[:2000]}")


@contextmanager
def firewall(lab: Lab, *strangers: str) -> Iterator[Callable[[], int]]:
    """The switchboard's, which knows whom its telephones have called: what others send by UDP
    is dropped, and an error at the end. Yields who tells how many packets of sound came from
    the virtual address."""
    table = ["ip", "netns", "exec", lab.network.switchboard,
             *program(lab.release, "/usr/sbin/nft")]

    def packets(counter: str) -> int:
        said = json.loads(run([*table, "-j", "list", "counter", "ip", "lab", counter]).out)
        [found] = [one["counter"]["packets"] for one in said["nftables"] if "counter" in one]
        return int(found)

    run([*table, "-f", "-"], stdin=(
        "table ip lab {\n counter dropped { }\n counter sound { }\n chain input {\n"
        "  type filter hook input priority 0;\n"
        f"  ip saddr {VIRTUAL_ADDRESS} udp dport {SOUND}-{SOUND + 99} counter name sound\n"
        f"  ip saddr {{ {', '.join(strangers)} }} meta l4proto udp counter name dropped drop\n"
        " }\n}\n"))
    try:
        yield lambda: packets("sound")
        if packets("dropped"):
            raise LabError(f"{packets('dropped')} packets came from {' or '.join(strangers)}")
    finally:
        run([*table, "delete", "table", "ip", "lab"])
