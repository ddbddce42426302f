"""Targets that take files and directory trees that others may have made."""

from __future__ import annotations

import base64
import inspect
import json
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from asha.asterisk import configuration
from asha.asterisk.evidence import events_in
from asha.asterisk.process.proc import Proc
from asha.asterisk.talk.ami import Credentials
from asha.bootstrap.preflight import asterisk_files
from asha.bootstrap.steps import asterisk, sark
from asha.cli import main
from asha.data import sqlite
from asha.data.salvage import pages, recovery
from asha.rootwork import Directory
from asha.run.deadline import Deadline
from tests.fuzz import mutate
from tests.fuzz.target import Make, Wrong, given, target

# Of what is given for a file as large as one can make it, without a block on the disk.
SPARSE = 1 << 34


def build(data: bytes, top: Path) -> None:
    """The tree that the input describes: see ``tree``."""
    for entry in json.loads(data):
        place = os.fsencode(top) + b"/" + base64.b64decode(entry["path"])
        content = base64.b64decode(entry["data"])
        os.makedirs(os.path.dirname(place), exist_ok=True)
        try:
            if entry["kind"] == "fifo":
                os.mkfifo(place)
            elif entry["kind"] == "link":
                os.symlink(content, place)
            elif entry["kind"] == "folder":
                os.mkdir(place)
            else:
                with open(place, "xb") as file:
                    file.write(content)
                    if entry["kind"] == "sparse":
                        file.truncate(SPARSE)
        except OSError:
            continue  # another entry is in its way


def tree(paths: Sequence[str], samples: Sequence[str | bytes], *, odd: float = 0.3) -> Make:
    """Some of these files, changed, and some that are FIFOs, links, directories, huge."""
    raw = [one.encode() if isinstance(one, str) else one for one in samples]
    targets = (b"/dev/zero", b"/proc/self/mem", b"/etc/passwd", b".", b"..", b"loop",
               b"/dev/tty", b"x" * 300, *(os.path.basename(one).encode() for one in paths))

    def make(rng: random.Random) -> bytes:
        entries = []
        for path in paths:
            if rng.random() < 0.2:
                continue
            kind, content = "file", rng.choice(raw)
            if rng.random() < 0.7:
                content = mutate.some(rng, raw)
            if rng.random() < odd:
                kind = rng.choice(("fifo", "link", "folder", "sparse"))
                content = rng.choice(targets) if kind == "link" else content
            entries.append(_entry(path.encode(), kind, content))
        if rng.random() < 0.3:
            folder = os.path.dirname(rng.choice(paths)).encode()
            entries.append(_entry((folder + b"/" if folder else b"") + mutate.name(rng), "file",
                                  rng.choice(raw)))
        return json.dumps(entries).encode()

    return make


def _entry(path: bytes, kind: str, content: bytes) -> dict[str, str]:
    return {"path": base64.b64encode(path).decode(), "kind": kind,
            "data": base64.b64encode(content).decode()}


# Asterisk's configuration.

MANAGER = ("[general]\nenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n#include asha_manager.conf"
           "\n#include \"more/*.conf\"\n",
           "[admin](!)\nsecret = x ; note\npermit => 127.0.0.1/255.0.0.0\n;-- block\n--;\n",
           "#tryinclude </etc/asterisk/manager.conf>\n[x]\nread=all\n", "#include fifo.conf\n",
           "[modules]\nautoload=yes\nnoload => chan_sip.so\nload=res_pjsip.so\n",
          "[a](!,b)\nmatch+=192.168.1.11/32,!10.0.0.0/255.0.0.0\n[c](a,a)\ndeny=0.0.0.0/0\n"
          "[c](+type=acl)\npermit=192.168.1.11\nbind=crm1:5060\nserver_uri=sip:x@1.2.3.4\n")
NODES = asterisk_files.Nodes("192.168.1.90", {"192.168.1.11": "its own"},
                             {"192.168.1.11": "192.168.1.90"}, {"crm1": "its own"})


@target("asterisk.conf", seconds=15.0, make=tree(
    ("manager.conf", "asha_manager.conf", "more/a.conf", "more/b.conf", "fifo.conf",
     "modules.conf", "pjsip.conf", "loop"), MANAGER))
def _asterisk(data: bytes, scratch: Path) -> None:
    """Asterisk's files with all that they include."""
    build(data, scratch)
    with Directory.trusted(str(scratch), str(scratch)) as top:
        ways: tuple[Any, ...] = (scratch, top)
        for name in ("manager.conf", "modules.conf"):
            for section in _in(configuration.read, ways)(name):
                section.get("port")
            _in(configuration.includes, ways)(name, "asha_manager.conf")
        _in(asterisk.uses_pjsip, ways)()
        asterisk_files.look(top, NODES, ())


def _in(function: Callable[..., Any], ways: tuple[Any, ...]) -> Callable[..., Any]:
    """The directory as that function takes it: a path, or an open one."""
    kind = inspect.signature(function).parameters["directory"].annotation
    return partial(function, ways["Directory" in str(kind)])


@target("ami.secret", seconds=15.0, make=tree(("ami.secret",), ("user=asha\nsecret=0123abc\n",)))
def _credentials(data: bytes, scratch: Path) -> None:
    """The file with AMI's user."""
    build(data, scratch)
    place = scratch / "ami.secret"
    if place.is_file() and not place.is_symlink():
        place.chmod(0o600)
    Credentials.read(str(place))


# A database that the panel's user may write.

def _database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.db"
        link = sqlite3.connect(path)
        link.execute("CREATE TABLE globals (BINDADDR, HACLUSTERIP, HAUSECLUSTER, pkey)")
        link.execute("INSERT INTO globals VALUES ('OFF', '', 'NO', 'global')")
        link.commit()
        link.close()
        return Path(path).read_bytes()


@target("sark.db", seconds=20.0, make=tree(("sark.db", "sark.db-journal", "sark.db-wal"),
                                           (_database(), b"SQLite format 3\0"), odd=0.15))
def _sark(data: bytes, scratch: Path) -> None:
    """SARK's database as garbage, with journals of anybody's."""
    build(data, scratch)
    place = str(scratch / "sark.db")
    sark.SECONDS = 1.0  # a FIFO for a journal is waited for so long
    wanted = {"BINDADDR": "ON", "HACLUSTERIP": "192.168.1.90"}
    with Directory.trusted(str(scratch), str(scratch)) as top:
        about = {"path": place, "directory": top, "name": "sark.db", "wanted": wanted}
        given(sark.is_set, **about)
        sqlite.check_all([str(scratch)], Deadline(1.0))
        given(sark.set_flags, **about)
        if not given(sark.is_set, **about):
            raise Wrong("the flags are not set, and nothing was said")


# AstDB, damaged.

def _astdb(page_size: int, count: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.db"
        link = sqlite3.connect(path)
        link.execute(f"PRAGMA page_size={page_size}")
        link.execute(recovery.TABLE)
        link.executemany("INSERT INTO astdb VALUES (?, ?)",
                         [(f"/family/{number}", "x" * (number * 37 % 3000))
                          for number in range(count)])
        link.commit()
        link.close()
        return Path(path).read_bytes()


@target("astdb", _astdb(4096, 60), _astdb(512, 20), seconds=20.0)
def _recovery(data: bytes, scratch: Path) -> None:
    """AstDB with any bytes: found well, or recovered and then well."""
    place = scratch / recovery.FILE
    place.write_bytes(data)
    with place.open("rb") as file:
        pages.read(file.fileno(), pages.Found(), Deadline(5.0))
    why, _ = recovery.check(str(place), Deadline(5.0))
    recovery.recover(str(place), Deadline(15.0))
    if place.exists() and recovery.check(str(place), Deadline(5.0))[0]:
        raise Wrong("what was recovered is damaged")
    if why and not list(scratch.glob(f"{recovery.FILE}{recovery.KEPT}*")):
        raise Wrong("the damaged one is gone")


# Files that Asterisk's user leaves.

@target("asterisk.pid", seconds=15.0, make=tree(("asterisk.pid",), ("1234\n", "1\n")))
def _pid(data: bytes, scratch: Path) -> None:
    """Asterisk's pid file."""
    build(data, scratch)
    Proc().from_pid_file(str(scratch / "asterisk.pid"), "/usr/sbin/asterisk")


def _proc_tree(rng: random.Random) -> bytes:
    """Names of processes and control groups are anybody's; the rest is the kernel's."""
    entries = []
    for pid in range(2, rng.randrange(3, 7)):
        comm = (mutate.name(rng) + rng.choice((b") S 1", b"(", b" ", b"\n", b"")))[:15]
        fields = b"S 1 %d %d " % (pid, pid) + b" ".join(b"%d" % n for n in range(48))
        group = b"/" + mutate.name(rng).replace(b"\n", b"_")
        for place, content in (
            (b"stat", b"%d (%s) %s\n" % (pid, comm, fields)),
            (b"comm", comm + b"\n"),
            (b"status", b"Name:\t%s\nTracerPid:\t0\nvoluntary_ctxt_switches:\t1\n"
             % comm.replace(b"\n", b"\\n")),
            (b"cgroup", b"0::%s\n1:name=systemd:%s\n" % (group, group)),
            (b"cmdline", b"/usr/sbin/asterisk\0" + mutate.name(rng) + b"\0-f\0"),
            (b"limits", b"Max open files            1024      4096     files\n"),
            (b"task/%d/stat" % pid, b"%d (%s) %s\n" % (pid, comm, fields)),
        ):
            entries.append(_entry(b"%d/" % pid + place, "file", content))
        entries.append(_entry(b"%d/exe" % pid, "link", b"/usr/sbin/" + mutate.name(rng)))
    entries.append(_entry(b"self/x", "file", b""))
    entries.append(_entry(b"locks", "file", b"1: POSIX  ADVISORY  WRITE 7 08:01:9 0 EOF\n"))
    return json.dumps(entries).encode()


@target("proc", make=_proc_tree)
def _proc(data: bytes, scratch: Path) -> None:
    """/proc with processes, threads and control groups of any name."""
    build(data, scratch)
    proc = Proc(str(scratch))
    everything = proc.members("asterisk.service") + proc.wrappers(lambda _: True) + \
        proc.daemons("/usr/sbin/asterisk")
    proc.lock_holders(0, 9)
    for entry in os.listdir(scratch):
        if entry.isdecimal():
            process = proc.process(int(entry))
            if process is None:
                raise Wrong(f"process {entry} is not seen for its name")
            if process.session != int(entry) or process.state != "S":
                raise Wrong(f"{process!s} of session {process.session}, state {process.state}")
            everything.append(process)
    for process in everything:
        process.gone, process.files(), process.cpu_times(), process.frozen_by()
        for task in process.tasks():
            str(task), task.where, task.switches, task.tracer
        process.listening(5060, ("udp", "tcp"))
    proc.descendants(everything)


# What a hung Asterisk left.

@target("evidence", seconds=15.0, make=tree(
    ("20260101-120000-7/summary.txt", "20260101-120000-7/log.txt", "20260101-120000-8/x",
     "20260102-120000-9/summary.txt"),
    ("Found hung.\n\nWhy: dialplan lock is silent\n", "a\x1b[2Jb\r\n")))
def _evidence(data: bytes, scratch: Path) -> None:
    """asha evidence, over a directory in which somebody was."""
    build(data, scratch)
    for words in (["list"], ["show", "last", "--all"], ["show", "last"]):
        code = main(["evidence", "--directory", str(scratch), *words])
        if code not in (0, 1):
            raise Wrong(f"asha evidence {words} ends with {code}")
    events_in(str(scratch))
