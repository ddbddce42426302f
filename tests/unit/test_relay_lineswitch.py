"""The lab's line switch: it must be a better witness than what it is to judge."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lineswitch import FAULTS, KINDS, LineSwitchClient, main, start_line_switch

PROGRAM = Path(__file__).parents[1] / "lab/files/node/usr/local/bin/rhinofailover"
SECONDS = 5.0


class Bench:
    def __init__(self, directory: Path, kind: str) -> None:
        self.device = str(directory / "ttyUSB0")
        self.socket = str(directory / "socket")
        self.pid = start_line_switch(self.socket, kind=kind, device=self.device)
        self.switch = LineSwitchClient(self.socket)
        self.switch.power_on()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)

    def say(self, command: bytes, seconds: float = SECONDS) -> bytes:
        """What a raw terminal would see until the prompt, or in ``seconds``."""
        port = os.open(self.device, os.O_RDWR | os.O_NOCTTY)
        try:
            tty.setraw(port)
            os.write(port, command)
            return read_until(port, b">", seconds)
        finally:
            os.close(port)

    def rhino(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAM), *words], capture_output=True, text=True, timeout=SECONDS, check=False
        )


def read_until(port: int, end: bytes, seconds: float) -> bytes:
    limit = time.monotonic() + seconds
    got = b""
    while end not in got:
        ready, _, _ = select.select([port], [], [], max(0.0, limit - time.monotonic()))
        if not ready:
            break
        got += os.read(port, 256)
    return got


@pytest.fixture
def numato(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, "numato")
    yield bench
    bench.end()


@pytest.fixture
def rhino(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, "rhino")
    yield bench
    bench.end()


def test_it_speaks_as_the_module_does(numato: Bench) -> None:
    assert numato.switch.line_goes_to() == "crm2"
    assert numato.say(b"relay read 0\r") == b"relay read 0\n\roff\n\r>"
    assert numato.say(b"relay on 0\r") == b"relay on 0\n\r>"
    assert numato.switch.line_goes_to() == "crm1"
    assert numato.say(b"relay read 0\r") == b"relay read 0\n\ron\n\r>"
    assert numato.say(b"relay off 0\r") == b"relay off 0\n\r>"
    assert numato.switch.line_goes_to() == "crm2"


def test_another_relay_is_not_the_line(numato: Bench) -> None:
    numato.say(b"relay on 1\r")
    numato.say(b"relay fly 0\r")
    assert numato.switch.line_goes_to() == "crm2"


def test_a_command_may_come_in_pieces(numato: Bench) -> None:
    assert numato.say(b"relay o", 0.1) == b"relay o"
    assert b"n 0" in numato.say(b"n 0\r")
    assert numato.switch.line_goes_to() == "crm1"


def test_the_stand_in_for_the_vendor_s_program(rhino: Bench) -> None:
    assert rhino.rhino(rhino.device, "RELAYON", "0").returncode == 0
    assert rhino.switch.line_goes_to() == "crm1"
    assert rhino.rhino(rhino.device, "RESET").returncode == 0
    assert rhino.rhino(rhino.device, "RELAYOFF", "0").returncode == 0
    assert rhino.switch.line_goes_to() == "crm2"


@pytest.mark.parametrize(
    "words", [[], ["RESET"], ["X", "RELAYON"], ["X", "RELAYON", "1"], ["X", "RESET", "0"]]
)
def test_the_stand_in_refuses_wrong_usage(words: list[str]) -> None:
    done = subprocess.run([str(PROGRAM), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: rhinofailover DEVICE" in done.stderr


def test_the_stand_in_says_what_is_wrong(rhino: Bench, tmp_path: Path) -> None:
    done = rhino.rhino(f"{tmp_path}/nothing", "RESET")
    assert done.returncode == 1
    assert "No such file" in done.stderr
    rhino.switch.break_card("mute")
    done = rhino.rhino(rhino.device, "RELAYON", "0")
    assert done.returncode == 1
    assert "no answer to RELAYON 0" in done.stderr


def test_pulling_the_plug_drops_the_relay(numato: Bench) -> None:
    numato.say(b"relay on 0\r")
    port = numato.switch.port()
    held = os.open(numato.device, os.O_RDWR | os.O_NOCTTY)
    numato.switch.unplug()
    assert not os.path.lexists(numato.device)
    assert numato.switch.line_goes_to() == "crm2"
    assert numato.switch.port() == ""
    with pytest.raises((OSError, termios.error)):  # whoever had it open is hung up on
        os.write(held, b"relay on 0\r")
    os.close(held)
    numato.switch.plug()
    assert numato.switch.port() != port
    assert numato.say(b"relay read 0\r") == b"relay read 0\n\roff\n\r>"


def test_power_lost_is_not_a_warm_reboot(numato: Bench) -> None:
    numato.say(b"relay on 0\r")
    numato.switch.power_on()  # the node is back, and its USB sockets never were off
    assert numato.switch.line_goes_to() == "crm1"
    assert b"on" in numato.say(b"relay read 0\r")
    numato.switch.power_off()
    assert numato.switch.line_goes_to() == "crm2"
    assert not os.path.lexists(numato.device)
    numato.switch.plug()
    assert not os.path.lexists(numato.device)
    numato.switch.power_on()
    assert b"off" in numato.say(b"relay read 0\r")


def test_a_card_out_of_its_socket_is_not_powered_by_a_boot(numato: Bench) -> None:
    numato.switch.unplug()
    numato.switch.power_on()
    assert not os.path.lexists(numato.device)


def test_history_has_every_change_once(numato: Bench) -> None:
    begun = time.monotonic()
    for command in (b"relay on 0\r", b"relay on 0\r", b"relay off 0\r"):
        numato.say(command)
    history = numato.switch.history()
    assert [node for _, node in history] == ["crm2", "crm1", "crm2"]
    times = [when for when, _ in history]
    assert times == sorted(times)
    assert times[0] <= begun <= times[1] <= time.monotonic()


def test_broken_cards(numato: Bench) -> None:
    numato.switch.break_card("mute")
    assert numato.say(b"relay on 0\r", 0.1) == b""
    numato.switch.break_card("garbage")
    assert b"relay" not in numato.say(b"relay on 0\r", 0.1)
    assert numato.switch.line_goes_to() == "crm2"
    numato.switch.break_card("stuck")
    assert numato.say(b"relay on 0\r") == b"relay on 0\n\r>"
    assert numato.switch.line_goes_to() == "crm2"
    numato.switch.mend_card()
    numato.say(b"relay on 0\r")
    assert numato.switch.line_goes_to() == "crm1"
    numato.switch.break_card("stuck")
    numato.say(b"relay off 0\r")
    assert numato.switch.line_goes_to() == "crm1"


def test_cards_can_be_swapped(numato: Bench) -> None:
    numato.say(b"relay on 0\r")
    numato.switch.swap_card("rhino")
    assert numato.switch.line_goes_to() == "crm2"
    assert numato.rhino(numato.device, "RELAYON", "0").returncode == 0
    assert numato.switch.line_goes_to() == "crm1"


def test_what_it_cannot_do_is_said(numato: Bench) -> None:
    with pytest.raises(RuntimeError, match="there is power_on"):
        numato.switch.ask("readable")
    with pytest.raises(RuntimeError, match=f"must be one of {', '.join(FAULTS)}"):
        numato.switch.break_card("sad")
    with pytest.raises(RuntimeError, match=f"must be one of {', '.join(KINDS)}"):
        numato.switch.swap_card("abacus")
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        numato.switch.power_on(2**22 + 1)  # beyond any pid
    numato.switch.power_on()
    assert numato.say(b"relay read 0\r")


def test_nonsense_on_the_socket_does_not_end_it(numato: Bench) -> None:
    for nonsense in (b"", b"[]", b"{}", b"\xff", b'{"do": 1}', b'{"do": "plug", "x": 1}'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(numato.socket)
            connection.sendall(nonsense + b"\n")
            assert b'"ok": false' in connection.recv(4096)
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(numato.socket)
            connection.sendall(b'{"do": "history"}\n')  # and gone before the answer is read
    assert numato.switch.line_goes_to() == "crm2"


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("state", ["nobody has it open", "unplugged", "off"])
def test_it_waits_without_spinning(numato: Bench, state: str) -> None:
    numato.say(b"relay on 0\r")
    if state == "unplugged":
        numato.switch.unplug()
    if state == "off":
        numato.switch.power_off()
    before = cpu_ticks(numato.pid)
    time.sleep(0.3)  # not for it to happen, but for it to have a chance to
    assert (cpu_ticks(numato.pid) - before) / os.sysconf("SC_CLK_TCK") < 0.1


@pytest.mark.parametrize("how", ["quit", "SIGTERM", "SIGINT"])
def test_it_leaves_nothing_behind(tmp_path: Path, how: str) -> None:
    bench = Bench(tmp_path, "numato")
    assert os.path.lexists(bench.device)
    if how == "quit":
        bench.switch.quit()
    else:
        os.kill(bench.pid, getattr(signal, how))
    _, status = os.waitpid(bench.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_killed_one_is_succeeded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "numato")
    os.kill(bench.pid, signal.SIGKILL)
    os.waitpid(bench.pid, 0)
    with pytest.raises(OSError, match="refused"):
        bench.switch.line_goes_to()
    bench = Bench(tmp_path, "numato")
    assert bench.say(b"relay read 0\r")
    bench.end()


def test_a_start_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        start_line_switch(str(tmp_path / "no" / "socket"))


def test_the_command_line_asks(numato: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    asking = ["--socket", numato.socket, "ask"]
    assert main([*asking, "line_goes_to"]) == 0
    assert capsys.readouterr().out == "crm2\n"
    assert main([*asking, "break_card", "stuck"]) == 0
    assert main([*asking, "history"]) == 0
    assert capsys.readouterr().out.endswith(" crm2\n")
    assert main([*asking, "break_card", "sad"]) == 1
    assert "must be one of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*asking, "plug", "softly"])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a devpts of its own: needs root")
def test_the_card_is_in_the_container_s_own_dev(numato: Bench) -> None:
    """A process with a /dev of its own stands in for a container's init."""
    script = (
        "mount -t tmpfs none /dev && mkdir /dev/pts &&"
        " mount -t devpts -o newinstance,ptmxmode=0666 none /dev/pts && echo up && exec cat"
    )
    init = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with init:
        assert init.stdout is not None
        if init.stdout.readline() != "up\n":
            pytest.skip("this machine gives no mount namespace with a devpts")
        numato.say(b"relay on 0\r")
        numato.device = "/dev/ttyUSB0"
        numato.switch.quit()
        os.waitpid(numato.pid, 0)
        numato.pid = start_line_switch(numato.socket, kind="rhino")
        numato.switch.power_on(init.pid)
        root = f"/proc/{init.pid}/root"
        assert os.readlink(f"{root}/dev/ttyUSB0") == "/dev/pts/0"
        done = subprocess.run(
            [
                *("nsenter", f"--mount=/proc/{init.pid}/ns/mnt"),
                *(str(PROGRAM), "/dev/ttyUSB0", "RELAYON", "0"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert numato.switch.line_goes_to() == "crm1"
        numato.switch.unplug()
        assert not os.path.lexists(f"{root}/dev/ttyUSB0")
        numato.switch.plug()
        assert os.readlink(f"{root}/dev/ttyUSB0") == "/dev/pts/1"
        init.kill()
    # Its /dev is gone with it; the card is only without power.
    numato.switch.power_off()
    assert numato.switch.line_goes_to() == "crm2"
