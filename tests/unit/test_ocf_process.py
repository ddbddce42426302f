"""An agent as a real process: what Pacemaker starts, and what a signal does to it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.run.deadline import Deadline

REPOSITORY = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"

AGENT = '''#!{python} -I
"""A stand-in agent for one test."""
import sys
sys.path.insert(0, {repository!r})
from asha.ocf import Agent, Exit, NotRunning, Path, action, main


class Stand(Agent):
    """Stands in

    for a resource.
    """

    name = "stand"
    folder = Path("Where its files are", required=True)

    @action(timeout=20)
    def start(self) -> None:
        self.run("sh", "-c", f"echo $$ >{{self.folder}}/child.new && "
                 f"mv {{self.folder}}/child.new {{self.folder}}/child && exec sleep 1000")

    @action(timeout=20)
    def stop(self) -> None:
        import os
        with open(self.folder + "/cwd", "w") as file:
            file.write(os.getcwd())
        self.run("true")

    @action(timeout=20, interval=10)
    def monitor(self) -> Exit:
        if "{imports}":
            print(*sys.modules, file=sys.stderr)
        raise NotRunning("does nothing")


sys.exit(main(Stand))
'''


class Stand:
    """The agent and the folder that it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "stand"
        self.write()

    def write(self, imports: str = "") -> None:
        text = AGENT.format(python=PYTHON, repository=str(REPOSITORY), imports=imports)
        self.program.write_text(text)
        self.program.chmod(0o755)

    def start(self, action: str, timeout: float = 20.0) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.program), action],
            env={
                "PATH": os.environ["PATH"],
                "HA_RSCTMP": str(self.folder / "state"),
                "OCF_RESKEY_folder": str(self.folder),
                "OCF_RESKEY_CRM_meta_timeout": str(int(timeout * 1000)),
                "OCF_RESKEY_CRM_meta_interval": "10000",
                "OCF_RESOURCE_INSTANCE": "p_stand",
            },
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, action: str, timeout: float = 20.0) -> tuple[int, str]:
        with self.start(action, timeout) as process:
            _, err = process.communicate(timeout=60)
        return process.returncode, err

    def child(self) -> int:
        """The pid of the program that start runs, once it runs."""
        file = self.folder / "child"
        assert Deadline(30).poll(file.exists)
        return int(file.read_text())


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    file = tmp_path / "child"
    if file.exists() and alive(int(file.read_text())):
        os.kill(int(file.read_text()), signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not alive(pid)


def test_monitor(stand: Stand) -> None:
    code, err = stand.run("monitor")
    assert code == 7
    assert err == "ERROR: stand(p_stand): does nothing\nocf-exit-reason:does nothing\n"


def test_a_shallow_monitor_imports_next_to_nothing(stand: Stand) -> None:
    stand.write(imports="yes")
    _, err = stand.run("monitor")
    loaded = set(err.splitlines()[0].split())
    assert "asha.ocf.agent" in loaded
    heavy = "asyncio dataclasses enum typing re json logging pathlib subprocess contextlib signal"
    assert not loaded & set(heavy.split())
    ours = {name for name in loaded if name.startswith("asha")}
    assert ours == {"asha", "asha.gate", "asha.ocf", "asha.ocf.action", "asha.ocf.agent",
                    "asha.ocf.params", "asha.ocf.state", "asha.run", "asha.run.deadline",
                    "asha.run.results"}


def test_it_holds_no_folder(stand: Stand) -> None:
    # Called by hand from inside the file system that it unmounts.
    assert stand.run("stop")[0] == 0
    assert (stand.folder / "cwd").read_text() == "/"


def test_our_deadline_comes_before_pacemakers_and_ends_the_child(stand: Stand) -> None:
    begun = time.monotonic()
    code, err = stand.run("start", timeout=2.0)
    assert code == 1
    assert "ocf-exit-reason:sh -c " in err
    assert "did not end within" in err
    assert time.monotonic() - begun < 30
    assert Deadline(30).poll(gone(stand.child()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_child_too(stand: Stand, number: int) -> None:
    with stand.start("start") as process:
        child = stand.child()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.endswith("ocf-exit-reason:start was interrupted by a signal\n")
    assert not alive(child)


def test_after_a_kill_the_next_start_waits_for_the_child(stand: Stand) -> None:
    with stand.start("start") as process:
        child = stand.child()
        process.kill()
    assert alive(child)
    code, err = stand.run("start", timeout=1.0)
    assert code == 1
    assert f"ocf-exit-reason:an earlier action is still at work: sleep ({child})" in err
    assert alive(child)


def test_after_a_kill_a_stop_ends_the_child(stand: Stand) -> None:
    with stand.start("start") as process:
        child = stand.child()
        process.kill()
    code, err = stand.run("stop", timeout=2.0)
    assert code == 0
    assert f"killed sleep ({child}), left over from an earlier action" in err
    assert Deadline(30).poll(gone(child))


def test_an_ignored_sigchld_does_not_hide_how_programs_end(stand: Stand) -> None:
    text = stand.program.read_text().replace('self.run("true")', 'assert self.run("false").code')
    stand.program.write_text(text)
    script = f"trap '' CHLD; exec {stand.program} stop"
    done = subprocess.run(
        ["bash", "-c", script],
        env={
            "PATH": os.environ["PATH"],
            "HA_RSCTMP": str(stand.folder / "state"),
            "OCF_RESKEY_folder": str(stand.folder),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
