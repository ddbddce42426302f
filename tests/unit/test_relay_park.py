"""``python3 -m asha.relay park`` and its settings."""

from pathlib import Path

import pytest

from asha.conf import values_of
from asha.ocf import Deadline
from asha.relay.__main__ import main
from tests.fakes.ocf import FakeClock

MANUAL = """PRIMARY=true
CLUSTERIP=192.168.1.90
SITEID=AEL TEST CLUSTER
RHINOSPF=YES
RHINOUSB={device}
"""


class Site:
    """A directory with a vendor's program that writes down how it was called."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        self.program = directory / "rhinofailover"
        self.conf = directory / "asha.conf"
        self.set_exit(0)
        self.conf.write_text(MANUAL.format(device="/dev/null") + f"RELAYPROGRAM={self.program}\n")

    def set_exit(self, code: int) -> None:
        said = f'echo "$@" >>{self.log}; echo the cat >&2'
        self.program.write_text(f"#!/bin/sh\n{said}; exit {code}\n")
        self.program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_parks_the_card_of_a_2014_file(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["park", "--conf", str(site.conf)]) == 0
    assert site.calls == ["/dev/null RELAYOFF 0"]
    assert "is off (the card cannot confirm it)" in capsys.readouterr().out


def test_parking_twice_is_parking(site: Site) -> None:
    for _ in range(2):
        assert main(["park", "--device", "/dev/null", "--program", str(site.program)]) == 0


@pytest.mark.parametrize("line", ["", "RHINOSPF=NO", "RHINOSPF="])
def test_no_card_configured_is_nothing_to_do(
    site: Site, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    site.conf.write_text(f"CLUSTERIP=192.168.1.90\n{line}\n")
    assert main(["park", "--conf", str(site.conf)]) == 0
    assert "RHINOSPF is not YES" in capsys.readouterr().out
    assert site.calls == []


def test_no_card_plugged_in_is_parked_already(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["park", "--device", f"{tmp_path}/ttyUSB0"]) == 0
    assert f"no relay card at {tmp_path}/ttyUSB0" in capsys.readouterr().out


def test_waits_for_a_card_that_appears(site: Site, tmp_path: Path) -> None:
    clock = FakeClock()
    device = tmp_path / "ttyUSB0"

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if not device.exists():
            device.symlink_to("/dev/null")

    arguments = ["park", "--wait", "3", "--device", str(device), "--program", str(site.program)]
    assert main(arguments, Deadline(18.0, clock, sleep)) == 0
    assert site.calls == [f"{device} RELAYOFF 0"]


def test_a_card_that_refuses_is_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.set_exit(1)
    clock = FakeClock()
    assert main(["park", "--conf", str(site.conf)], Deadline(15.0, clock, clock.sleep)) == 1
    assert "refused RELAYOFF 0: the cat" in capsys.readouterr().err


def test_an_argument_beats_the_file(site: Site, tmp_path: Path) -> None:
    site.conf.write_text(MANUAL.format(device="/nowhere/ttyUSB7"))
    program = ["--program", str(site.program)]
    assert main(["park", "--conf", str(site.conf), "--device", "/dev/null", *program]) == 0
    assert site.calls == ["/dev/null RELAYOFF 0"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["park", "--driver", "abacus"],
        ["park", "--device", "ttyUSB0"],
        ["park", "--relay", "many"],
        ["park", "--driver", "numato", "--relay", "32"],
        ["park", "--conf", "/nowhere/asha.conf"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_driver_in_the_file_that_does_not_exist_is_2(site: Site) -> None:
    site.conf.write_text("RHINOSPF=YES\nRELAYDRIVER=abacus\n")
    with pytest.raises(SystemExit) as ended:
        main(["park", "--conf", str(site.conf)])
    assert ended.value.code == 2


def test_conf_lines() -> None:
    text = '# A=1\nB = "two words" \n\nnonsense\nC=x=y\n'
    assert values_of(text) == {"B": "two words", "C": "x=y"}
