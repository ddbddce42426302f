"""The manual names every key, every command and every parameter, and man(1) shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asha.agents.asterisk_health import AsteriskHealth
from asha.agents.lan_source import LanSource
from asha.agents.rhino_relay import RhinoRelay
from asha.agents.sark_data import SarkData
from asha.cli import COMMANDS
from asha.cluster.site import KEYS, Key, parse
from asha.ocf import manpage, metadata
from asha.ocf.agent import Agent

PAGES = Path(__file__).parents[2] / "docs/man"
AGENTS: tuple[type[Agent], ...] = (AsteriskHealth, LanSource, RhinoRelay, SarkData)


def plain(page: str) -> str:
    """The page's text with roff's escapes taken back."""
    return page.replace(r"\-", "-")


def source(name: str) -> str:
    """A page as it is written: in Markdown, the first line is its head."""
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def heads(page: str) -> list[str]:
    """What is described, each on a line of its own with ":" before the description."""
    return re.findall(r"^(\S.*)\n\n:   ", page, re.MULTILINE)


def described() -> set[str]:
    """The keys that head a paragraph of asha.conf(5)."""
    return {key for head in heads(source("asha.conf.5"))
            for key in re.findall(r"\b[A-Z][A-Z0-9]+\b", head)}


def test_asha_conf_5_has_every_key_and_no_other() -> None:
    assert described() == {key.name for key in KEYS}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_asha_conf_5_has_the_defaults(key: Key) -> None:
    if key.default:
        head = rf"^[^\n]*\*\*{key.name}\*\*[^\n]*\n\n:"
        paragraph = re.split(head, source("asha.conf.5"), flags=re.MULTILINE)[1].split("\n\n**")[0]
        assert re.search(rf"(?<![\w/]){re.escape(key.default)}(?!\w)", paragraph)


def test_the_example_of_asha_conf_5_is_the_shipped_one_and_right() -> None:
    told = source("asha.conf.5").split("# EXAMPLE", 1)[1].split("#", 1)[0]
    example = "".join(f"{line.strip()}\n" for line in told.splitlines() if line.startswith("    "))
    shipped = (PAGES.parent / "examples/asha.conf").read_text(encoding="utf-8")
    assert example == "".join(
        line for line in shipped.splitlines(keepends=True) if not line.startswith("#")
    )
    assert parse(example).virtual_address == "192.168.1.90"


def test_the_way_back_that_asha_8_tells(tmp_path: Path) -> None:
    """Also where the cluster's end has left something in the data's place, as a log."""
    moves = re.findall(r"^ +(mv -T .*)$", source("asha.8"), re.MULTILINE)
    assert len(moves) == 2
    for name, text in (("asterisk/messages", "late"), ("asterisk.asha-20261129/messages", "ours")):
        place = tmp_path / "etc" / name
        place.parent.mkdir(parents=True)
        place.write_text(text)
    for line in moves:
        told = line.replace("DATE", "20261129").replace(" /etc/", f" {tmp_path}/etc/")
        subprocess.run(told.split(), check=True)
    assert (tmp_path / "etc/asterisk/messages").read_text() == "ours"
    assert sorted(one.name for one in (tmp_path / "etc/asterisk").iterdir()) == ["messages"]
    assert (tmp_path / "etc/asterisk.cluster/messages").read_text() == "late"


def test_who_stays_is_told_that_the_other_is_gone() -> None:
    """Or it has no quorum after a reboot."""
    removal = source("asha.8").split("# UPGRADE AND REMOVAL", 1)[1].split("\n# ", 1)[0]
    prerm = (PAGES.parents[1] / "debian/asha.prerm").read_text(encoding="utf-8")
    assert removal.index("apt purge asha") < removal.index("asha remove-node")
    assert "asha remove-node $(uname -n)" in prerm


@pytest.mark.parametrize("command", COMMANDS)
def test_asha_8_has_every_command(command: str) -> None:
    assert any(command in re.findall(r"[a-z][a-z-]*", head) for head in heads(source("asha.8")))


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_an_agents_page_has_its_parameters_and_actions(agent: type[Agent]) -> None:
    page = plain(manpage.page(metadata.render(agent)))
    for name, parameter in agent.parameters.items():
        assert f"\\fB{name}\\fR ({parameter.content_type}" in page
        if parameter.default:
            assert f"Default: {parameter.default}" in page
    for spec in agent.actions:
        assert f"\\fB{spec.name}\\fR\ntimeout {spec.timeout}s" in page


def test_text_that_looks_like_a_request_is_printed() -> None:
    xml = """<resource-agent name="x" version="1"><longdesc>.so /etc/passwd
'quoted' and a back\\slash</longdesc><shortdesc>S.</shortdesc></resource-agent>"""
    page = manpage.page(xml)
    assert r"\&.so /etc/passwd" in page
    assert r"\&'quoted' and a back\eslash" in page


@pytest.mark.skipif(not (shutil.which("man") and shutil.which("go-md2man")),
                    reason="man or go-md2man is not installed")
@pytest.mark.parametrize("name", ["asha.8", "asha.conf.5", *(agent.name for agent in AGENTS)])
def test_man_has_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    if (PAGES / f"{name}.md").exists():
        subprocess.run(["make", "-s", "-C", str(PAGES.parents[1]), "man", f"MAN_PAGES={tmp_path}"],
                       check=True)
        page = tmp_path / name
    else:
        agent = next(one for one in AGENTS if one.name == name)
        page = tmp_path / f"{name}.7"
        page.write_text(manpage.page(metadata.render(agent)), encoding="utf-8")
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
        capture_output=True, text=True, check=True,
    )
    assert done.stderr == ""
    assert "NAME" in done.stdout
