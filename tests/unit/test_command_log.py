"""The command log has every program, and no secret; it never gets in the way of a command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from asha import cli, command_log, terminal
from asha.bootstrap import plan
from asha.bootstrap.action import Run, Step
from asha.bootstrap.console import Console
from asha.bootstrap.steps import asterisk
from asha.bootstrap.takeover import takeover
from asha.cluster import drbd
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands import install
from asha.errors import UserError
from asha.machine import DeadlineMachine, Machine
from asha.run.deadline import Deadline
from tests.fakes.machine import FakeMachine, Outcome
from tests.unit.bootstrap_customer import Customer, site

REPOSITORY = Path(__file__).parents[2]
# When a program ended, and of which asha it was.
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[\d+\] "


@pytest.fixture(autouse=True)
def _off_at_the_end() -> Iterator[None]:
    yield
    command_log.finish("")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the log is; not made yet."""
    place = tmp_path / "log" / "asha"
    place.parent.mkdir()
    monkeypatch.setattr(command_log, "DIRECTORY", str(place))
    return place


@pytest.fixture
def log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of ``asha install --yes``, begun."""
    begin(monkeypatch, "install", "--yes")
    return folder / "commands.log"


def begin(monkeypatch: pytest.MonkeyPatch, *words: str, live: bool = False) -> None:
    """As root, whoever runs the test."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 0)
        command_log.begin(words, file=True, live=live)


def lines(log: Path) -> list[str]:
    """Without the times and the pids."""
    found = log.read_text().splitlines()
    assert all(re.match(STAMP, line) for line in found)
    return [re.sub(rf"^{STAMP}|, \d+\.\d+ s", "", line) for line in found]


def main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The command as a process of its own would run it."""
    monkeypatch.setattr(sys, "argv", ["asha", *words])
    monkeypatch.setattr(terminal, "settle", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return cli.main()


# What is in it.

def test_a_block_for_each_command_and_a_line_for_each_program(log: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"drbdadm up": "", "drbdadm adjust": Outcome(
        "".join(f"line {number}\n" for number in range(30)), 20, "no such resource\n"),
        "uname": "one\ntwo\nthree\nfour\n"})
    machine.run("drbdadm", "up", "a b")
    machine.output("uname", "-n")
    with pytest.raises(UserError):
        machine.run("drbdadm", "adjust", "asha")
    with pytest.raises(UserError, match="program nosuch is not installed"):
        machine.absent("nosuch").run("nosuch")
    command_log.finish("exit 1")
    found = lines(log)
    assert re.fullmatch(r"=== asha install --yes \(asha [\d.]+, time zone [+-]\d{4}\)", found[0])
    assert found[1] == "exit 0: drbdadm up 'a b'"
    assert found[2:6] == ["exit 0: uname -n", "    | two", "    | three", "    | four"]
    assert found[6] == "exit 20: drbdadm adjust asha"
    assert found[7:26] == [f"    | line {number}" for number in range(11, 30)]
    assert found[26] == "    | no such resource"
    assert found[27] == "program nosuch is not installed: nosuch"
    assert found[28] == "=== exit 1"
    assert f"[{os.getpid()}]" in log.read_text()
    machine.run("drbdadm", "up", "a b")  # no asha command any more
    assert len(lines(log)) == 29


def test_real_programs(log: Path) -> None:
    machine = Machine()
    machine.run("sh", "-c", "echo good; echo bad >&2")
    with pytest.raises(UserError, match=r"did not end within 0\.1 s"):
        machine.run("sh", "-c", "echo before; sleep 60", timeout=0.1)
    machine.run("cat", stdin="typed-by-a-person")
    machine.run("false", check=False)
    DeadlineMachine(machine, Deadline(5), 1).run("true")
    found = lines(log)
    assert found[1:4] == ["exit 0: sh -c 'echo good; echo bad >&2'", "    | good", "    | bad"]
    assert found[4] == "did not end within 0.1 s: sh -c 'echo before; sleep 60'"
    assert found[5] == "    | before"
    assert found[6] == "exit 0: cat"
    assert found[7] == "    | typed-by-a-person"
    assert found[8:] == ["exit 1: false", "exit 0: true"]


def test_standard_input_is_not_logged(log: Path) -> None:
    Machine().run("sh", "-c", "read a", stdin="typed-by-a-person\n")
    assert "typed" not in log.read_text()


def test_a_program_that_is_interrupted(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(argv: tuple[str, ...], stdin: str | None) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FakeMachine(tmp_path, {"rsync": interrupted}).run("rsync", "a", "b")
    assert lines(log)[-1] == "KeyboardInterrupt: rsync a b"


def test_control_characters_break_no_line(log: Path, tmp_path: Path) -> None:
    forged = "a\n2026-01-01 00:00:00.000 [1] exit 0, 0.01 s: rm"
    machine = FakeMachine(tmp_path, {"cat": Outcome("\x1b[2J\x9b31m\ncaf\udce9 \u202e\r\0")})
    machine.run("cat", forged, "\udce9\x1b]0;x\x07")
    text = log.read_bytes().decode()
    assert all(one.isprintable() or one == "\n" for one in text)
    assert len(lines(log)) == 5  # header, program, what it printed as three lines
    assert "a\\n2026" in text


# Secrets.

def forms(secret: Secret) -> list[str]:
    """All that is secret, each as it may be printed."""
    bare = secret.typed.replace("-", "")
    return [secret.typed, secret.typed.lower(), secret.typed.replace("-", " "), bare, bare.lower(),
            secret.corosync_authkey(), secret.drbd(), secret.drbd()[:20], secret.ami(),
            secret.ami().upper(), secret.join_key().hex()]


def leaks(secret: Secret, text: str) -> list[str]:
    """Eight characters of a secret are too many."""
    low = text.lower()
    return [form[at:at + 8] for form in forms(secret) for at in range(len(form) - 7)
            if form[at:at + 8].lower() in low]


def test_our_keys_are_masked_wherever_they_are() -> None:
    for _ in range(50):
        secret = Secret.generate()
        for form in forms(secret):
            for text in (form, f"<{form}>", f'"{form}";', f"'{form}',", f"got '{form}'...",
                         f"/x/{form}/y", f"key={form}", f"é{form}é"):
                assert leaks(secret, command_log.masked(text)) == []


@pytest.mark.parametrize("text", [
    'shared-secret "X";', 'shared-secret    X;', "--shared-secret=X", '"shared-secret": "X"',
    "secret = X", "secret=X ; ours", "Secret: X", 'passwd="X Y"', "params passwd=X pcmk=1",
    "password='X Y'", "password: X", r'passwd="a\"X"', "PASSWORD2=X", "authkey: X",
    '<nvpair id="f-passwd" name="passwd" value="X"/>', 'name="ipmi-password" value="X Y"',
    "mysql_password=X", "passphrase = X",
])
def test_what_is_called_a_secret_is_masked(text: str) -> None:
    assert "X" not in command_log.masked(text)
    assert "Y" not in command_log.masked(text)
    assert "HIDDEN" in command_log.masked(text)


@pytest.mark.parametrize("text", [
    "cannot read /etc/asha/secret: Permission denied", "--secret-file /root/typed",
    "the secret of crm2 is needed", "token: 1000", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "current-uuid: A1B2C3D4E5F60718", "52:54:00:12:34:56", "asha-secret@drbd:AB12.service",
    "/usr/lib/systemd/system/multi-user.target.wants", "-" * 70,
    "wipefs /dev/disk/by-id/ata-Samsung_SSD_860_EVO_1TB_S3Z8NB0K123456X-part5",
])
def test_what_helps_a_reader_stays(text: str) -> None:
    assert command_log.masked(text) == text


def test_secrets_in_a_command_line() -> None:
    assert command_log.command_line(
        ["crm", "x", "passwd=a b", "--password", "c d", "--password=e", "--secret-file", "f"]
    ) == "crm x passwd=HIDDEN --password HIDDEN --password=HIDDEN --secret-file f"


def test_no_half_of_a_secret_where_output_is_cut(log: Path, tmp_path: Path) -> None:
    secret = Secret.generate()
    line = f'shared-secret "{secret.drbd()}"; {secret.typed}'
    for length in range(0, 200, 7):
        text = (line + "\n") * 300 + "x" * length
        FakeMachine(tmp_path, {"dump": Outcome(text, 1)}).run("dump", str(length), check=False)
        FakeMachine(tmp_path, {"dump": Outcome(line * 300 + "x" * length, 1)}).run(
            "dump", "line", str(length), check=False)
    assert leaks(secret, log.read_text()) == []
    assert len(lines(log)) > 200


class Leaky(Customer):
    """A customer's machine whose programs print everything that is secret, and end well
    or not."""

    def __init__(self, root: Path, where: Site, secret: Secret, code: int) -> None:
        super().__init__(root)
        self.secret = secret
        self.code = code
        self.text = "\n".join([
            drbd.render(where, secret, "9.2.0"), asterisk.own_text(secret),
            json.dumps({"shared-secret": secret.drbd(), "key": secret.ami()}),
            f'<nvpair name="passwd" value="{secret.ami()}"/>', f"password: {secret.ami()}",
            f"got '{secret.drbd()[:20]}'", *forms(secret),
        ])

    def _answer(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        with contextlib.suppress(AssertionError):
            known = super()._answer(argv, stdin)
            if self.code == 0:
                return Outcome(f"{self.text}\n{known.out}", known.code, self.text)
        return Outcome(self.text, self.code, self.text)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("first", [True, False])
def test_every_step_whose_programs_print_the_secrets(
    log: Path, tmp_path: Path, first: bool, code: int
) -> None:
    where, secret = site(first), Secret.generate()
    machine = Leaky(tmp_path / "machine", where, secret, code)
    for step in plan.steps(where, plan.look(machine), secret):
        for action in step.actions:
            # Most of it is nonsense to them; what they run is all that counts here.
            with contextlib.suppress(Exception):
                if not action.is_done(machine):
                    action.do(machine, lambda text: None)
    text = log.read_text()
    assert leaks(secret, text) == []
    assert "HIDDEN" in text
    ran = {line.split(": ", 1)[1].split()[0] for line in lines(log) if line.startswith("exit")}
    assert ran >= {"systemctl", "drbdadm", "ip"}, ran


def test_an_error_shows_no_secret_either(tmp_path: Path) -> None:
    secret = Secret.generate()
    machine = Leaky(tmp_path / "machine", site(), secret, 1)
    with pytest.raises(UserError) as caught:
        machine.run("drbdadm", "dump")
    assert leaks(secret, str(caught.value)) == []


def test_the_installers_own_log_has_none(tmp_path: Path) -> None:
    secret = Secret.generate()
    log = tmp_path / "asha" / "install.log"
    Console(str(log)).note(f"stopped in: x: got '{secret.drbd()[:20]}', password={secret.ami()}")
    assert leaks(secret, log.read_text()) == []
    assert "stopped in: x: got 'HIDDEN', password=HIDDEN" in log.read_text()


# How an installation fails.

@pytest.fixture
def failing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """``asha install`` whose only action fails."""
    machine = FakeMachine(tmp_path / "machine", {"drbdadm up": Outcome(code=1, err="no disk")})
    step = Step(20, "disk", "the disk", [Run("start it", ["drbdadm", "up"], lambda _: False)])
    for name, value in (
        ("Machine", lambda: machine), ("load_site", lambda strict: site()),
        ("only_one", contextlib.nullcontext), ("_check", lambda where, *_: where),
        ("LOG", str(folder / "install.log")),
    ):
        monkeypatch.setattr(install, name, value)
    machine.put("/etc/asha/asha.conf")
    monkeypatch.setattr(plan, "look", lambda _: plan.Found())
    monkeypatch.setattr(plan, "steps", lambda *_: [step])
    monkeypatch.setattr(takeover, "recover", lambda *_: None)
    return machine


def test_the_error_names_the_log(
    failing: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(monkeypatch, "install", "--yes") == 1
    said = capsys.readouterr().err
    assert "asha: start it: drbdadm up: exit 1: no disk" in said
    assert f"      what ran: {folder}/commands.log\n" in said
    found = lines(folder / "commands.log")
    assert found[0].startswith("=== asha install --yes (")
    assert found[1:] == ["exit 1: drbdadm up", "    | no disk", "=== exit 1"]


def test_the_error_names_no_log_that_was_not_written(
    failing: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder.write_text("in the way")
    assert main(monkeypatch, "install", "--yes") == 1
    said = capsys.readouterr().err
    assert "start it: drbdadm up: exit 1: no disk" in said
    assert "what ran" not in said


@pytest.mark.parametrize("words", [["--debug", "install", "--yes"],
                                   ["install", "--yes", "--debug"]])
def test_debug_shows_the_same_lines(
    failing: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], words: list[str],
) -> None:
    main(monkeypatch, *words)
    said = capsys.readouterr().err
    for line in (folder / "commands.log").read_text().splitlines():
        assert f"{line}\n" in said


def test_debug_is_no_reason_to_write_as_another_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command_log.begin(["check"], file=True, live=True)
    FakeMachine(tmp_path, {"uname": "crm1"}).output("uname", "-n")
    assert "uname -n" in capsys.readouterr().err
    assert not folder.exists()
    command_log.begin(["check"], file=True, live=False)
    FakeMachine(tmp_path, {"uname": "crm1"}).output("uname", "-n")
    assert not folder.exists()


def test_every_command_has_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], *([name] for name in cli.COMMANDS)):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        assert "--debug" in capsys.readouterr().out
    assert "--debug" in (REPOSITORY / "debian/asha.bash-completion").read_text()
    assert "**--debug**" in (REPOSITORY / "docs/man/asha.8.md").read_text()


# What is run all the time.

@pytest.mark.parametrize("name", ["status", "sync"])
def test_what_only_looks_and_runs_all_the_time_is_not_in_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], name: str,
) -> None:
    def run(options: object) -> int:
        FakeMachine(tmp_path, {"crm_mon": Outcome(code=1)}).output("crm_mon")
        return 0

    monkeypatch.setattr(f"asha.commands.{name}.run", run)
    assert main(monkeypatch, name) == 0
    assert not folder.exists()
    assert main(monkeypatch, "--debug", name) == 0
    assert not folder.exists()
    assert "exit 1" in capsys.readouterr().err


def test_a_person_who_only_looks_once_is_in_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(options: object) -> int:
        FakeMachine(tmp_path, {"uname": "crm1"}).output("uname", "-n")
        return 0

    monkeypatch.setattr("asha.commands.check.run", run)
    assert main(monkeypatch, "check") == 0
    assert "exit 0: uname -n" in lines(folder / "commands.log")


def run_all(machine: Machine, *programs: Sequence[str]) -> None:
    for argv in programs:
        machine.run(*argv, check=False)


def test_what_waits_is_written_at_its_beginning_and_end(log: Path, tmp_path: Path) -> None:
    ends: list[Outcome | str] = [Outcome(f"busy {n}", 1) for n in range(500)]
    machine = FakeMachine(tmp_path, {"umount": [*ends, Outcome()], "crm_mon": "x", "ls": ""})
    for _ in range(500):
        run_all(machine, ["umount", "/drbd"], ["crm_mon"])
    run_all(machine, ["umount", "/drbd"], ["ls"])
    assert lines(log)[1:] == [
        "exit 1: umount /drbd", "    | busy 0", "exit 0: crm_mon", "    | x",
        "exit 1: umount /drbd", "    | busy 1",
        "exit 1, the last of 498 like it: umount /drbd", "    | busy 499",
        "exit 0, the last of 499 like it: crm_mon", "    | x",
        "exit 0: umount /drbd", "exit 0: ls",
    ]


def test_the_end_of_what_waits_is_written_at_the_end(log: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"umount": [Outcome("busy", 1)] * 3 + [Outcome("still", 1)]})
    run_all(machine, *[["umount", "/drbd"]] * 4)
    assert len(lines(log)) == 3
    command_log.finish("exit 1")
    assert lines(log)[3:] == ["exit 1, the last of 3 like it: umount /drbd", "    | still",
                              "=== exit 1"]


def test_what_changes_twice_is_written_twice(log: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"systemctl": ""})
    turns = [["systemctl", "stop", "x"], ["systemctl", "start", "x"]] * 2
    run_all(machine, *turns)
    command_log.finish("exit 0")
    assert lines(log)[1:-1] == [f"exit 0: {' '.join(argv)}" for argv in turns]


def test_a_service_that_looks_for_days_writes_no_more(log: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"a": "", "b": Outcome(code=1)})
    for number in range(60):
        run_all(machine, ["a"], ["b"], ["a", str(number % 20)])
    so_far = len(lines(log))
    for number in range(3000):
        run_all(machine, ["a"], ["b"], ["a", str(number % 20)])
    assert len(lines(log)) == so_far
    assert command_log._log is not None
    for number in range(3000):
        run_all(machine, ["a", str(number)])
    assert len(command_log._log._known) <= command_log.REMEMBERED_MOST


def test_many_at_once(log: Path, tmp_path: Path) -> None:
    def work(name: str) -> None:
        machine = FakeMachine(tmp_path, {"a": "out\n"})
        for number in range(50):
            machine.run("a", name, str(number))

    threads = [threading.Thread(target=work, args=(str(name),)) for name in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len([line for line in lines(log) if line.startswith("exit 0: a")]) == 400


# The file.

def test_it_is_roots_alone(log: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"a": ""})
    machine.run("a")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    log.chmod(0o644)
    log.parent.chmod(0o755)
    machine.run("a", "again")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o755  # as the package has it


@pytest.mark.parametrize("way", ["link", "fifo", "directory", "folder", "writable"])
def test_nothing_but_a_file_of_roots_is_written_to(log: Path, tmp_path: Path, way: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir() if way == "folder" else victim.write_text("as it was")
    if way == "folder":
        log.parent.symlink_to(victim)
    else:
        log.parent.mkdir()
    if way == "link":
        log.symlink_to(victim)
    elif way == "fifo":
        os.mkfifo(log)
    elif way == "directory":
        log.mkdir()
    elif way == "writable":
        log.parent.chmod(0o777)
    FakeMachine(tmp_path, {"a": ""}).run("a")
    if way == "folder":
        assert list(victim.iterdir()) == []
    else:
        assert victim.read_text() == "as it was"
    if way == "writable":
        assert not log.exists()
    assert command_log.written() == ""


def test_a_full_disk_stops_nothing(log: Path, tmp_path: Path) -> None:
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    FakeMachine(tmp_path, {"a": "x"}).run("a")
    assert command_log.written() == ""


def test_a_line_that_was_cut_by_a_full_disk_takes_no_other_with_it(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:20])

    machine = FakeMachine(tmp_path, {"a": ""})
    machine.run("a")
    with monkeypatch.context() as patch:
        patch.setattr(command_log, "FileIO", Full)
        machine.run("a", "lost")
    machine.run("a", "kept")
    assert log.read_text().splitlines()[-1].endswith(": a kept")
    assert len(log.read_text().splitlines()) == 4


def test_it_is_bounded(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_log, "FILE_MOST", 5000)
    machine = FakeMachine(tmp_path, {"a": ""})
    for number in range(500):
        machine.run("a", str(number))
    assert sorted(one.name for one in log.parent.iterdir()) == ["commands.log", "commands.log.1"]
    both = (log.with_name("commands.log.1").read_text() + log.read_text()).splitlines()
    assert all(one.stat().st_size <= 5000 for one in log.parent.iterdir())
    # Nothing is lost between the two.
    first = int(both[0].split()[-1])
    assert [line.split()[-1] for line in both] == [str(n) for n in range(first, 500)]


def test_a_long_command_line_is_cut(log: Path, tmp_path: Path) -> None:
    FakeMachine(tmp_path, {"a": Outcome("x " * 9000, 1)}).run("a", "y " * 9000, check=False)
    assert max(map(len, lines(log))) < 1100


def test_while_another_turns_it_over(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    machine = FakeMachine(tmp_path, {"a": ""})
    machine.run("a")
    monkeypatch.setattr(command_log, "FILE_MOST", 1)
    with log.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        machine.run("a", "meanwhile")  # waits for nobody
    assert "a meanwhile" in log.read_text()


def test_purge_and_the_listener() -> None:
    assert "/var/log/asha" in (REPOSITORY / "debian/asha.postrm").read_text()
    unit = (REPOSITORY / "asha/bootstrap/asha-join.service").read_text()
    assert "ReadWritePaths=/etc/asha /etc/corosync /run -/var/log/asha" in unit


def test_nothing_else_runs_programs() -> None:
    """What is run beside Machine would be in no log. The agents log for themselves; the
    relay, the notice of a death and the LAN's watcher are units that are no asha commands."""
    found = {
        str(place.relative_to(REPOSITORY))
        for place in (REPOSITORY / "asha").rglob("*.py")
        if re.search(r"\bRunner\(|subprocess\.|os\.(system|exec|spawn|posix_spawn)",
                     place.read_text())
    }
    assert found == {
        "asha/machine.py", "asha/run/runner.py", "asha/ocf/agent.py", "asha/relay/__main__.py",
        "asha/asterisk/process/death_notice.py", "asha/lan/report.py",
    }

