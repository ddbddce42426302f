"""Who takes AMI's port, or has the secret of the monitor's account, on a real Asterisk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asha.asterisk.process.port_owner import AGAIN, RELOAD
from tests.cluster.single import call, mount_store, reason, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node, Result, wait_for
from tests.lab.cluster import asterisk

AGENT = "asterisk-health"
MANAGER = "/etc/asterisk/manager.conf"
RECORDS = "/var/log/asterisk/cdr-csv/Master.csv"
CONTROL_SOCKET = "/run/asterisk/asterisk.ctl"
HEARD = "/tmp/heard"

# Greets as AMI or the control socket does, and keeps all that is said to it.
IMPOSTOR = f"""\
import os, socket, sys
family, where, greeting = sys.argv[1:]
one = socket.socket(getattr(socket, family))
if family == "AF_INET":
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", int(where)))
else:
    os.rename(where, where + ".true")
    one.bind(where)
one.listen()
print("there", flush=True)
while True:
    caller, _ = one.accept()
    try:
        caller.sendall(greeting.encode() + b"\\n")
        caller.settimeout(5)
        said = caller.recv(65536)
    except OSError:
        said = b""
    with open({HEARD!r}, "ab") as file:
        file.write(said)
"""

# Logs in with the account's own secret and asks for what runs programs, makes calls or
# changes something; prints what each is answered.
THIEF = """\
import hashlib, json, socket
words = dict(line.strip().split("=", 1) for line in open("/etc/asha/ami.secret") if "=" in line)
ami = socket.create_connection(("127.0.0.1", 5038))
ami.settimeout(10)
stream = ami.makefile("rwb")
stream.readline()

def ask(**fields):
    stream.write("".join(f"{key}: {value}\\r\\n" for key, value in fields.items()).encode())
    stream.write(b"ActionID: thief\\r\\n\\r\\n")
    stream.flush()
    answer = {}
    while True:
        line = stream.readline().decode().strip()
        if line:
            key, _, value = line.partition(": ")
            answer[key] = value
        elif answer.get("ActionID") == "thief" and "Response" in answer:
            return answer
        else:
            answer = {}

challenge = ask(Action="Challenge", AuthType="MD5")["Challenge"]
key = hashlib.md5((challenge + words["secret"]).encode()).hexdigest()
login = ask(Action="Login", AuthType="MD5", Username=words["user"], Key=key, Events="on")
assert login["Response"] == "Success", login
touch = "/usr/bin/touch /tmp/pwned"
call = {"Action": "Originate", "Channel": "Local/100@lab"}
tries = [
    {"Action": "Command", "Command": f"!{touch}"},
    {"Action": "Command", "Command": "core show version"},
    {**call, "Application": "System", "Data": touch},
    {**call, "Application": "MixMonitor", "Data": f"/tmp/x.wav,,{touch}"},
    {**call, "Context": "lab", "Exten": "100", "Priority": "1"},
    {"Action": "DialplanExtensionAdd", "Context": "lab", "Extension": "9", "Priority": "1",
     "Application": "System", "ApplicationData": touch},
    {"Action": "ModuleLoad", "LoadType": "load", "Module": "../../../../../tmp/evil.so"},
    {"Action": "Reload"},
    {"Action": "DBPut", "Family": "asha", "Key": "thief", "Val": "1"},
    {"Action": "DBDelTree", "Family": "asha"},
    {"Action": "Setvar", "Variable": "THIEF", "Value": "1"},
    {"Action": "Getvar", "Variable": f"SHELL({touch})"},
    {"Action": "GetConfig", "Filename": "manager.conf"},
    {"Action": "UpdateConfig", "SrcFilename": "manager.conf", "DstFilename": "manager.conf"},
    {"Action": "Hangup", "Channel": "/.*/"},
    {"Action": "AGI", "Channel": "x", "Command": "EXEC System"},
    {"Action": "UserEvent", "UserEvent": "thief"},
]
print(json.dumps([[one["Action"], ask(**one).get("Message", "")] for one in tries]))
"""


@pytest.fixture(scope="module")
def idle() -> Iterator[Node]:
    with lab_or_skip("crm1", cluster=False) as lab:
        node = lab.node("crm1")
        mount_store(node)
        without_judge(node)
        assert call(node, "sark-data", "start").code == 0
        yield node


@pytest.fixture
def stopped(idle: Node) -> Iterator[Node]:
    """Asterisk does not run; the agent must be able to stop whatever there is afterwards."""
    yield idle
    stop = call(idle, AGENT, "stop")
    assert stop.code == 0, stop.err
    assert idle.pids("asterisk") == []


@pytest.fixture
def node(stopped: Node) -> Node:
    """With a healthy Asterisk."""
    started = call(stopped, AGENT, "start")
    assert started.code == 0, started.err
    seen = monitor(stopped, 10)
    assert seen.code == 0, reason(seen)
    return stopped


def monitor(node: Node, depth: int) -> Result:
    return call(node, AGENT, "monitor", timeout=30, check_level=depth)


@contextmanager
def impostor(node: Node, user: str, *argv: str) -> Iterator[None]:
    """Of that user, at AMI's port or the control socket, for as long as this lasts."""
    node.path(HEARD).unlink(missing_ok=True)
    process = node.start(
        "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
        "python3", "-c", IMPOSTOR, *argv,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield
    finally:
        node.run("pkill", "-KILL", "-u", user, "-x", "python3", check=False)
        process.wait(30)


def heard(node: Node) -> str:
    path = node.path(HEARD)
    return path.read_text() if path.exists() else ""


def status_trouble(node: Node) -> str:
    """What asha status says of AMI, "" when it has got its answers."""
    code = "from asha.status import calls; print(calls.ask().trouble)"
    return node.run("python3", "-c", code, timeout=60).out.strip()


def test_whoever_takes_the_port_first_gets_nothing_and_is_named(stopped: Node) -> None:
    node = stopped
    with impostor(node, "www-data", "AF_INET", "5038", "Asterisk Call Manager/5.0.4\r"):
        started = call(node, AGENT, "start")
        assert started.code == 0, started.err
        assert "of user www-data has AMI's port 5038" in started.err
        for depth in (10, 10, 20):
            seen = monitor(node, depth)
            assert seen.code == 190, reason(seen)
            assert reason(seen).startswith("python3 (")
            assert "of user www-data has AMI's port 5038" in reason(seen)
            assert reason(seen).endswith(f"end it, touch manager.conf, {AGAIN}")
        assert "of user www-data has Asterisk's manager port" in status_trouble(node)
        # Nobody of ours has even come.
        assert heard(node) == ""
    node.run("sh", "-c", RELOAD)
    for depth in (10, 20):
        seen = monitor(node, depth)
        assert seen.code == 0, reason(seen)
    assert status_trouble(node) == ""


def test_ami_that_is_switched_off_is_degraded_from_the_start(stopped: Node) -> None:
    node = stopped
    kept = node.path(MANAGER).read_text()
    node.path(MANAGER).write_text(kept.replace("enabled=yes", "enabled=no"))
    try:
        started = call(node, AGENT, "start")
        assert started.code == 0, started.err
        seen = monitor(node, 10)
        assert seen.code == 190, reason(seen)
        assert "set enabled=yes in manager.conf" in reason(seen)
    finally:
        node.path(MANAGER).write_text(kept)
    asterisk(node, "manager reload")
    seen = monitor(node, 10)
    assert seen.code == 0, reason(seen)


def test_the_secret_of_the_account_runs_no_program(node: Node) -> None:
    answers = json.loads(node.run("python3", "-c", THIEF, timeout=120).out)
    assert len(answers) == 17
    # SHELL() is read by a user of the right class, and refused to one without "system".
    refusals = {"Permission denied", "GetVar Access Forbidden: Variable",
                "Getvar Access Forbidden: Variable"}
    assert [one for one in answers if one[1] not in refusals] == []
    assert not node.path("/tmp/pwned").exists()
    assert monitor(node, 20).code == 0


def test_the_call_of_depth_20_leaves_nothing(node: Node) -> None:
    records = node.path(RECORDS)
    before = records.stat().st_size if records.exists() else 0
    for reload in (False, True):
        if reload:
            asterisk(node, "dialplan reload")
            assert "asha-heartbeat" not in asterisk(node, "dialplan show asha-heartbeat ")[:20]
        for _ in range(3):
            seen = monitor(node, 20)
            assert seen.code == 0, reason(seen)
        assert "ASHA_CALL=k" in asterisk(node, "dialplan show globals")
    # It is hung up, and ends a moment later.
    wait_for(lambda: "No local channels in use" in asterisk(node, "local show channels"),
             "the call to end")
    wait_for(lambda: asterisk(node, "core show channels count").startswith("0 active channels"),
             "no channel")
    # A call of anybody's is recorded after them: had they left a record, it was there too.
    asterisk(node, "channel originate Local/100@lab application Wait 1")
    wait_for(lambda: records.exists() and records.stat().st_size > before, "a record")
    assert "asha" not in records.read_text()[before:]


def test_a_refused_call_is_told_from_a_hang(stopped: Node) -> None:
    """At its most calls Asterisk makes none more, and says so at once."""
    node = stopped
    options = "/etc/asterisk/asterisk.conf"
    kept = node.path(options).read_text()
    node.path(options).write_text(kept.replace("[options]", "[options]\nmaxcalls = 1", 1))
    try:
        assert call(node, AGENT, "start").code == 0
        assert "Maximum calls" in asterisk(node, "core show settings")
        asterisk(node, "channel originate Local/101@lab application Wait 3600")
        wait_for(lambda: " 0 active calls" not in asterisk(node, "core show channels count"),
                 "a call to be up")
        seen = monitor(node, 20)
        assert seen.code == 190, reason(seen)
        assert "sets up no call" in reason(seen)
    finally:
        node.path(options).write_text(kept)


def test_a_control_socket_of_another_process_is_told_nothing(node: Node) -> None:
    [pid] = node.pids("asterisk")
    true = f"crm1/{pid}/16.28.0"
    with impostor(node, "asterisk", "AF_UNIX", CONTROL_SOCKET, true):
        for depth in (0, 20):
            seen = monitor(node, depth)
            assert seen.code == 190, reason(seen)
            assert "holds it, but Asterisk is process" in reason(seen)
        assert heard(node) == ""
        assert call(node, AGENT, "stop").code == 0
    assert call(node, AGENT, "start").code == 0
    assert monitor(node, 20).code == 0
