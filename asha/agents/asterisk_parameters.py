"""The parameters of asterisk-health, with the words of its manual."""

from __future__ import annotations

from asha.asterisk.probes import PROBES
from asha.ocf import Choice, Duration, Integer, Path, String

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from asha.ocf.params import HasParameters

PORT_MOST = 65535


class SipPorts(String):
    """Port numbers; an empty list for 0, None for auto."""

    AUTO = "auto"

    def __get__(  # type: ignore[override]
        self, agent: HasParameters, owner: type
    ) -> list[int] | None:
        return self.parse_ports(agent.environ)

    def parse(self, environ: Mapping[str, str]) -> str:
        self.parse_ports(environ)
        return self.text(environ)

    def parse_ports(self, environ: Mapping[str, str]) -> list[int] | None:
        text = self.text(environ)
        if text == self.AUTO:
            return None
        if text == "0":
            return []
        words = text.split()
        # isdecimal() knows the digits of every script.
        if not all(word.isascii() and word.isdecimal() and 0 < int(word) <= PORT_MOST
                   for word in words):
            raise self.bad(text, f"must be auto, 0, or ports from 1 to {PORT_MOST}")
        return [int(word) for word in words]


class AsteriskParameters:
    """The parameters of asterisk-health, in the order of its manual."""

    unit = String(
        "systemd unit",
        "Unit that starts Asterisk, or none to start it directly. Where systemd is not "
        "PID 1 or has no such unit, Asterisk is started directly too, where systemd runs in a "
        "slice of its own (asha-RESOURCE.slice). While the cluster "
        "manages it, a drop-in in /run switches off the unit's own Restart=, has Pacemaker told "
        "of its death at once (asha-asterisk-died), and lets a silent name server cost Asterisk "
        "2 s a name instead of 10 (RES_OPTIONS). Disable the unit, so that it does not start "
        "at boot.",
        default="asterisk.service",
    )
    binary = Path(
        "Asterisk's program",
        "The program, to start it directly and to find every process of it that is ours.",
        default="/usr/sbin/asterisk",
    )
    user = String(
        "User",
        "Whom Asterisk runs as: started so where there is no unit. Only root's processes, the "
        "unit's and this user's are taken for Asterisk, and ended by a stop.",
        default="asterisk",
    )
    group = String(
        "Group", "As what group Asterisk runs when it is started directly.", default="asterisk"
    )
    run_directory = Path(
        "Run directory",
        "Where Asterisk keeps its pid file and its control socket: astrundir of asterisk.conf.",
        default="/run/asterisk",
    )
    sip_port = SipPorts(
        "SIP ports",
        "Where Asterisk takes SIP by UDP and TCP. auto: where PJSIP and chan_sip, whichever "
        "is loaded, say at the start that they do (port 5060, if neither says); one that is not "
        "loaded any more later is reported (when_lost). Or port numbers "
        "separated by blanks; 0 for a PBX without SIP. Each is asked by OPTIONS: that catches a "
        "SIP stack that hangs or is gone while the rest of Asterisk lives. TLS and WebSocket are "
        "not asked. Firewall rules must let this node ask itself: dropped packets look like a "
        "hang.",
        default=SipPorts.AUTO,
    )
    sip_address = String(
        "SIP address",
        "Address to ask by SIP OPTIONS over UDP, or auto for all that Asterisk is bound to.",
        default="auto",
    )
    ami_port = Integer(
        "AMI port",
        "TCP port of the Asterisk Manager Interface; 0 to leave it alone. Asked only where "
        "Asterisk itself listens there. Where ami_secret_file is and AMI is not, or another "
        "process has its port, that is degraded. Catches hung manager threads.",
        default=5038,
        most=65535,
    )
    ami_secret_file = Path(
        "AMI user and secret",
        "File with the lines user=NAME and secret=WORD, which only root can read. The login is "
        "by challenge: the secret itself is never sent. Without the "
        "file AMI is asked for its greeting only, without a login, and not missed.",
        default="/etc/asha/ami.secret",
    )
    probes = String(
        "Questions at depth 10 and 20",
        "Words separated by blanks; the table above tells what each catches. channels and "
        "dialplan go through AMI and need the AMI user, with write=reporting and no other "
        "right: it may look, and neither run a program nor make a call nor change anything.",
        default=" ".join(PROBES),
    )
    probe_timeout = Duration(
        "Patience of one question",
        "How long each part may take to answer. One that is silent for half of this is asked "
        "a second time, and counts as hung when both questions had this long and no answer.",
        default="2s",
    )
    stop_grace = Duration(
        "Grace of a stop",
        "How long Asterisk may take to end its calls and itself before it is killed. One that "
        "is found hung gets less.",
        default="5s",
    )
    database_socket = Path(
        "Database's socket",
        "Unix socket of the database for call records. The modules in cdr_modules connect to "
        "it when Asterisk loads them, which here is before the database is up: they are "
        "reloaded once, by the first monitor at depth 10 that finds the database answering.",
        default="/run/mysqld/mysqld.sock",
    )
    cdr_modules = String(
        "Modules that write call records to the database",
        "Words separated by blanks, or none.",
        default="cdr_mysql.so cdr_adaptive_odbc.so",
    )
    when_lost = Choice(
        "When a control path is lost",
        "What a control socket, AMI or a SIP stack beside another that is gone means while SIP "
        "answers: degraded leaves "
        "Asterisk running and reports it, failed restarts it, which ends all calls.",
        choices=("degraded", "failed"),
        default="degraded",
    )

    when_faulty = Choice(
        "When AstDB or a call is answered with an error",
        "What a full disk or a locked file below AstDB means, or a limit (maxcalls) that "
        "refuses the call of depth 20, while calls go on: degraded leaves Asterisk running and "
        "reports it, failed restarts it, which ends all calls and cures none of these.",
        choices=("degraded", "failed"),
        default="degraded",
    )

    when_damaged = Choice(
        "When AstDB is damaged",
        "What a start does about an AstDB that SQLite calls damaged (no Asterisk starts with one "
        "whose first page is). recover: it is kept beside the new one as "
        "astdb.sqlite3.damaged-DATE, the newest three at most, the keys that can be read are put "
        "into a new one, and that is reported as degraded until the damaged one is removed. "
        "leave: it is not even checked.",
        choices=("recover", "leave"),
        default="recover",
    )

    when_misconfigured = Choice(
        "When Asterisk does not start with its files",
        "What a start does where /etc/asterisk was changed since the last start that served, and "
        "has failed since then on this node and on the other (an empty pjsip.conf after a power "
        "cut, a file of which a panel has written the half). last-good: Asterisk gets the files "
        "that served last, read-only and in its own mount namespace; what is in /etc/asterisk is "
        "not touched, and is tried again by the next start after it was changed. Each start that "
        "served for half a minute has its files kept. fail: no files are kept, and a start that "
        "fails is tried again as it is.",
        choices=("last-good", "fail"),
        default="last-good",
    )
    last_good_directory = Path(
        "Directory for the files that served",
        "On the same disk as /etc/asterisk, so that both nodes have it: the newest three. It is "
        "made by the first monitor that needs it, root's alone.",
        default="/drbd/last-good",
    )

    when_overloaded = Choice(
        "When Asterisk is overloaded",
        "What it means that SIP drops requests while a queue of Asterisk's is beyond its "
        "high-water mark and moves, or that Asterisk has as many files open as it may while SIP "
        "answers: degraded leaves it running and reports it, failed restarts it, which ends all "
        "calls and the load with them.",
        choices=("degraded", "failed"),
        default="degraded",
    )
    reload_patience = Duration(
        "Patience during a reload",
        "How much longer parts may be silent while Asterisk reloads its configuration (known "
        "from its systemd unit), or SIP be closed while it loads its modules anew (core restart). "
        "What lasts longer has failed.",
        default="8s",
    )
    disk_patience = Duration(
        "Patience with the disk",
        "How much longer AstDB, and SIP and calls that wait for it, may be silent while a thread "
        "of Asterisk's waits in the kernel and all else answers: after the time in which silence "
        "is a hang (1.5 times probe_timeout). A disk that holds it up for longer counts as hung, "
        "if another node is there to take over: the stop then fails, and gets this node fenced "
        "where fencing is set up. Without another node it is only reported.",
        default="1500ms",
    )
    evidence_seconds = Duration(
        "Time for evidence",
        "Before a hung Asterisk is given to Pacemaker to be restarted, this much time at most "
        "goes into keeping what it looked like: each thread's state and kernel stack, all "
        "backtraces where gdb is installed, queues, logs (asha evidence list).",
        default="3s",
    )
    evidence_directory = Path(
        "Directory for evidence",
        "On the node's own disk, not on the store.",
        default="/var/lib/asha/evidence",
    )
    evidence_keep = Integer(
        "Events kept", "The oldest are deleted beyond this number. 0 keeps none.", default=20
    )
    evidence_megabytes = Integer(
        "Megabytes kept", "The oldest events are deleted beyond this size.", default=100, least=1
    )
    log_files = String(
        "Log files for evidence",
        "Whose last lines are kept; words separated by blanks.",
        default="/var/log/asterisk/messages /var/log/asterisk/messages.log /var/log/asterisk/full",
    )
