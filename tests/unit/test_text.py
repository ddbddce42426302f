"""What others put into a text reaches neither a terminal nor a log as it is."""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asha import terminal
from asha.asterisk.evidence import SUMMARY
from asha.bootstrap.action import Call, Step
from asha.bootstrap.console import Console
from asha.bootstrap.host import processes
from asha.bootstrap.takeover import takeover
from asha.cli import main
from asha.cluster import site as conf
from asha.commands import check, install, join_listen, recover
from asha.errors import UserError
from asha.finding import error
from asha.machine import Machine
from asha.ocf import Agent, Exit, Failed, action
from asha.ocf.agent import Context
from asha.ocf.params import Path as PathParameter
from asha.run.text import lines, plain, printable
from asha.status.model import Finding, Status
from asha.status.render import screen
from tests.fakes.machine import FakeMachine
from tests.fakes.ocf import CallQueue, perform

REPOSITORY = Path(__file__).parents[2]

# A title for the terminal's window, a forged line, one that is no UTF-8, a line shown
# backwards, the line separators that splitlines() knows and a terminal does not show.
POISON = ("a\x1b]0;own\x07", "b\nasha: all is well", "caf\udce9", "x\u202egpj.exe",
          "c\u2028d\x85e\x0bf\x1cg", "\x9b31m", "\r\x1b[2Kgone", "nul\0", "\u2066i\u2069")


def harmless(text: str) -> bool:
    return all(one.isprintable() or one in "\n\t" for one in text)


# The rule.

@pytest.mark.parametrize(("raw", "shown"), [
    ("plain and Ünïcode 電話", "plain and Ünïcode 電話"),
    ("a\x1b]0;x\x07b", r"a\x1b]0;x\x07b"),
    ("a\nb\tc", r"a\nb\tc"),
    ("caf\udce9", r"caf\udce9"),
    ("\u202e\u2028\x85\x9b", r"\u202e\u2028\x85\x9b"),
    ("\U000e0001", r"\U000e0001"),
])
def test_what_cannot_be_seen_is_shown_as_an_escape(raw: str, shown: str) -> None:
    assert printable(raw) == shown
    shown.encode()


def test_every_character_there_is() -> None:
    every = "".join(map(chr, range(0x110000)))
    for make in (printable, lines, plain):
        made = make(every)
        made.encode()
        assert harmless(made)
    assert "\n" not in printable(every) + plain(every)
    assert plain(every).isascii()
    assert lines("one\n\ttwo\n") == "one\n\ttwo\n"


def test_the_commands_write_through_the_terminal_module_alone() -> None:
    """Whoever adds a print() adds a way for an escape sequence: asha.terminal has none."""
    found = []
    places = [*(REPOSITORY / "asha/commands").glob("*.py"), REPOSITORY / "asha/cli.py",
              *(REPOSITORY / "asha/bootstrap").rglob("*.py"),
              *(REPOSITORY / "asha/relay").glob("*.py")]
    assert len(places) > 40
    for place in places:
        for node in ast.walk(ast.parse(place.read_text(encoding="utf-8"))):
            # Also as what somebody is to call: say=print.
            if isinstance(node, ast.Name) and node.id in ("print", "input"):
                found.append(f"{place.name}:{node.lineno}: {node.id}")
            if isinstance(node, ast.Attribute) and node.attr == "write" and \
                    ast.unparse(node.value) in ("sys.stdout", "sys.stderr"):
                found.append(f"{place.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == [], "asha.terminal's show, say, warn, answer take their place"


# Where it goes out.

@pytest.mark.parametrize("name", POISON)
def test_the_console_and_its_log(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log" / "install.log"
    console = Console(str(log))
    console.note(f"link {name}")
    console._last = -100.0
    console.say(f"copying {name}")
    said = capsys.readouterr().out
    assert harmless(said)
    assert len(said.splitlines()) == 2
    assert log.read_text(encoding="utf-8").count("\n") == 1
    assert harmless(log.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", POISON)
def test_a_trouble(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: argparse.Namespace) -> int:
        raise UserError(f"{name} is open", f"close {name}", points=[f"first {name}", "second"])

    monkeypatch.setattr(recover, "run", run)
    assert main(["recover"]) == 1
    said = capsys.readouterr().err
    assert harmless(said)
    assert [line[:6] for line in said.splitlines()] == ["asha: ", *[" " * 6] * 3]


@pytest.mark.parametrize("name", POISON)
def test_findings_status_and_recovery(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = check.as_text([error(f"{name} is open", f"close {name}")])
    assert harmless(shown)
    assert shown.splitlines()[-1].startswith("    close ")
    status = Status(time="2026-01-01T00:00:00", node="crm1", site_id=name,
                    findings=(Finding("warning", f"p_data: {name}", f"close {name}"),))
    assert harmless(screen(status))
    recover._say(name)
    join_listen._log(name)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == len(said.err.splitlines()) == 1
    assert harmless(said.out + said.err)


@pytest.mark.parametrize("name", POISON)
def test_json_is_ascii(
    name: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "look", lambda *_, **__: ([error(name, name)], []))
    monkeypatch.setattr(conf, "read", lambda *_, **__: None)
    assert main(["check", "--json"]) == 1
    said = capsys.readouterr().out
    assert said.isascii()
    assert json.loads(said)["findings"][0]["what"] == name


class Poisoned(Agent):
    """Says what others wrote."""

    name = "poisoned"
    file = PathParameter("A file", default="/none")
    said = ""

    def _fail(self) -> Exit:
        self.warn(self.said)
        raise Failed(self.said)

    @action(timeout=20)
    def start(self) -> None: ...

    @action(timeout=20)
    def stop(self) -> None: ...

    @action(timeout=20, interval=10)
    def monitor(self) -> Exit:
        return self._fail()


@pytest.mark.parametrize("name", [*POISON, "é" * 200])
def test_an_exit_reason_is_one_ascii_line_and_nobody_forges_one(
    name: str, tmp_path: Path
) -> None:
    kind = type("Kind", (Poisoned,), {"said": f"{name}\nocf-exit-reason:all is well\n"})
    done = perform(kind, "monitor", str(tmp_path))
    reasons = [line for line in done.err.splitlines() if line.startswith("ocf-exit-reason:")]
    assert len(reasons) == 1
    reason = reasons[0].removeprefix("ocf-exit-reason:")
    assert reason != "all is well"
    assert reason.isascii()
    assert len(reason) <= 127
    assert harmless(done.err)


@pytest.mark.parametrize("name", POISON)
def test_a_node_attribute_is_ascii(name: str, tmp_path: Path) -> None:
    """It goes into the CIB's XML, which Pacemaker would else refuse to read."""
    queue = CallQueue()
    queue.expect("attrd_updater", "--name", "asha-x", "--update", plain(name))
    context = Context({"HA_RSCTMP": str(tmp_path)}, runner=queue)
    assert Poisoned("start", context).set_node_attribute("asha-x", name)
    queue.done()
    assert plain(name).isascii()
    assert plain(name).isprintable()


# Streams that do not take it.

@pytest.fixture
def event(tmp_path: Path) -> Path:
    place = tmp_path / "20260101-120000-7"
    place.mkdir()
    (place / SUMMARY).write_bytes(b"Why: caf\xe9 \x1b]0;own\x07 \xe2\x82\xac is silent\n" * 3000)
    (place / "log.txt").write_bytes(b"a\x1b[2J\r\nb\xff\n")
    (Path(os.fsdecode(bytes(place) + b"/caf\xe9\x1b.txt"))).write_text("x\n")
    return tmp_path


def asha(*words: str, environ: dict[str, str] | None = None, shell: str = "") -> \
        subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "asha", *words]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(
        command, capture_output=True, check=False, timeout=60, cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **(environ or {})},
    )


@pytest.mark.parametrize("environ", [
    {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1:strict"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
])
def test_any_locale_shows_any_name(event: Path, environ: dict[str, str]) -> None:
    for words in (("list",), ("show", "last"), ("show", "last", "--all")):
        done = asha("evidence", "--directory", str(event), *words, environ=environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        assert b"\r" not in done.stdout
        assert rb"\udce9" in done.stdout


@pytest.mark.parametrize(("shell", "code", "said"), [
    ("> /dev/full", 1, b"asha: standard output: No space left on device\n"
                       b"      nothing more was written there\n"),
    (">&-", 0, b""),
    ("<&- >&- 2>&-", 0, b""),
    # Whoever reads us has seen enough.
    ("| head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", 1, b""),
    ("2> /dev/full > /dev/full", 1, b""),
])
def test_nobody_reads(event: Path, shell: str, code: int, said: bytes) -> None:
    done = asha("evidence", "--directory", str(event), "show", "last", "--all", shell=shell)
    assert (done.returncode, done.stderr) == (code, said)


def test_status_that_nobody_reads_does_not_say_that_the_telephones_run() -> None:
    if os.geteuid() != 0:
        pytest.skip("asha status is for root")
    assert asha("status", "--json", shell="> /dev/full").returncode == 2


# Work that is cut off while something is printed.

class Full:
    """A stream on a disk that is full."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        raise OSError(9, "Bad file descriptor")


@pytest.fixture
def recovered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What recover() was called with; it says something before it does anything."""
    done: list[str] = []

    def fake(machine: Machine, say: Callable[[str], None], *, boot: bool = False) -> bool:
        say("rolling back: the services start again")
        done.append("back")
        return True

    monkeypatch.setattr(takeover, "recover", fake)
    return done


def walk(tmp_path: Path, problem: BaseException, log: str = "") -> None:
    def work(machine: Machine, say: Callable[[str], None]) -> None:
        say(f"copying {POISON[0]}")
        raise problem

    machine = FakeMachine(tmp_path)
    call = Call("copy", "copy the data", "", work, lambda machine: False)
    install._walk(machine, [Step(30, "data", "data", [call])], Console(log))


@pytest.mark.parametrize("name", POISON)
def test_a_name_in_the_reason_does_not_keep_the_services_from_coming_back(
    name: str, tmp_path: Path, recovered: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError):
        walk(tmp_path, UserError(f"{name} is open for writing"), str(tmp_path / "log"))
    assert recovered == ["back"]


@pytest.mark.parametrize("problem", [UserError("open"), KeyboardInterrupt(), OSError(28, "full")])
def test_nor_does_a_terminal_that_is_gone_or_a_full_disk(
    tmp_path: Path, recovered: list[str], monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises((UserError, KeyboardInterrupt)):
        walk(tmp_path, problem, "/dev/full")
    assert recovered == ["back"]


@pytest.mark.parametrize("stream", [Full(), None])
def test_what_is_said_beside_the_work_never_fails(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    terminal.say("x")
    terminal.warn("x")
    terminal.report(UserError("x", "y"))


def test_asha_recover_goes_on_where_nobody_reads(
    recovered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    recover.run(argparse.Namespace(watch=None, boot=False))
    assert recovered == ["back"]


def test_a_file_whose_name_is_no_text_is_the_reason_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a telephone system writes it that is set to Latin-1."""
    place = os.fsencode(tmp_path) + b"/caf\xe9\x1b]0;x\x07\n.wav"
    held = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; os.open(os.fsencode(sys.argv[1]), os.O_CREAT | "
         "os.O_WRONLY); print(flush=True); sys.stdin.read()", place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    try:
        assert held.stdout is not None
        held.stdout.readline()
        [found] = [one for one in processes.find([str(tmp_path)]) if one.pid == held.pid]
    finally:
        held.communicate()
    console = Console(str(tmp_path / "log"))
    console.note(str(found))
    terminal.report(UserError(str(found), f"end it: kill {found.pid}"))
    said = capsys.readouterr()
    for text in (said.out, said.err, (tmp_path / "log").read_text(encoding="utf-8")):
        assert rf"{tmp_path}/caf\udce9\x1b]0;x\x07\n.wav" in text
        assert harmless(text)
