"""The configuration: the reference file, other sites, and what is asked of crmsh."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from asha.cluster import cib, site
from asha.cluster.site import Relay, Site
from asha.commands import cib as command
from asha.errors import UserError
from asha.machine import Machine
from tests.fakes.machine import FakeMachine, Outcome

REFERENCE = Path(__file__).parents[2] / "cib/asha.crm"

# The manual's, word for word.
MANUAL = """\
PRIMARY=true
USENIC1=true
CLUSTERIP=192.168.1.90
CLUSTERALERT=admin@aelintra.com
SITEID=AEL TEST CLUSTER
ANODEIP=10.0.3.251
BNODEIP=10.0.3.252
ANODENAME=crm1
BNODENAME=crm2
DRBDDEV=/dev/sda5
CLUSTERNET=10.0.3.0
IP=10.0.3.251
RHINOSPF=YES
RHINOUSB=/dev/ttyUSB0
"""
SITE = site.parse(MANUAL)
QUERY = "cibadmin --query --xpath //primitive[@id='p_asterisk']"


def with_relay(**changes: object) -> Site:
    relay = {"driver": "rhino", "device": "/dev/ttyUSB0", "number": 0,
             "program": "/usr/local/bin/rhinofailover", "node": "crm1", **changes}
    return dataclasses.replace(SITE, relay=Relay(**relay))  # type: ignore[arg-type]


def words(text: str) -> set[str]:
    """Everything but the comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return set(" ".join(lines).split())


def test_the_manuals_site_is_the_reference_file() -> None:
    assert cib.render(SITE) == REFERENCE.read_text(encoding="utf-8")


def test_both_nodes_render_the_same() -> None:
    there = site.parse(MANUAL.replace("PRIMARY=true", "PRIMARY=false")
                       .replace("IP=10.0.3.251\nRHINO", "IP=10.0.3.252\nRHINO")
                       .replace("RHINOSPF=YES", "RELAYNODE=crm1"))
    assert not there.is_first
    assert cib.render(there) == cib.render(SITE)


def test_the_address_is_the_sites() -> None:
    text = cib.render(dataclasses.replace(
        SITE, virtual_address="10.1.2.3", lan_prefix=23, lan_nic="enp1s0"
    ))
    assert {"ip=10.1.2.3", "cidr_netmask=23", "nic=enp1s0"} <= words(text)
    assert "192.168.1.90" not in text
    assert "eth0" not in text


@pytest.mark.parametrize("no", ["lan_watch", "two_nics"])
def test_a_lan_that_does_not_count_has_no_rule(no: str) -> None:
    text = cib.render(dataclasses.replace(SITE, **{no: False}))  # type: ignore[arg-type]
    assert "asha-lan" not in text
    assert "l_lan" not in words(text)
    assert words(text) < words(cib.render(SITE))
    assert "\n\n\n" not in text


def test_without_a_relay_nothing_of_it_is_left() -> None:
    text = cib.render(dataclasses.replace(SITE, relay=None))
    for name in ("p_line", "cl_line", "c_line_with_asterisk", "asterisk_then_line",
                 "rhino-relay", "ttyUSB0"):
        assert name not in text
    assert words(text) < words(cib.render(SITE))
    assert "p_asterisk" in text
    assert "\n\n\n" not in text


def test_a_numato_module() -> None:
    text = cib.render(with_relay(driver="numato", device="/dev/ttyACM0", number=3, node="crm2"))
    assert "    params driver=numato device=/dev/ttyACM0 relay=3 card_node=crm2 \\\n" in text


def test_a_rhino_program_elsewhere() -> None:
    text = cib.render(with_relay(program="/opt/rhino/bin/failover"))
    assert "program=/opt/rhino/bin/failover card_node=crm1" in text
    assert "program=" not in cib.render(SITE)


def test_no_placeholder_is_left() -> None:
    for one in (SITE, dataclasses.replace(SITE, relay=None, alert="", site_id="")):
        assert re.findall("@[A-Z ]+@", cib.render(one)) == []


def test_a_word_that_needs_quotes_has_them() -> None:
    text = cib.render(with_relay(program="/opt/my rhino/failover"))
    assert 'program="/opt/my rhino/failover"' in text


@pytest.mark.parametrize("program", ['/x" critical="true', "/x\\", "/x\nproperty y=z", ""])
def test_a_value_that_would_break_the_file_is_refused(program: str) -> None:
    with pytest.raises(UserError, match="cannot stand in"):
        cib.render(with_relay(program=program))


@pytest.mark.parametrize("name", [
    "a -- b", "a---b", "ends in -", "ends in \\", "a\nprimitive p_x Dummy", "é “quoted” @IP@",
])
def test_whatever_the_site_is_called_it_stays_a_comment(name: str) -> None:
    """crmsh refuses "--" in a comment and would join a line that ends in a backslash."""
    text = cib.render(dataclasses.replace(SITE, site_id=name))
    assert words(text) == words(cib.render(SITE))
    for line in text.splitlines():
        if line.startswith("#"):
            assert "--" not in line
            assert not line.endswith(("-", "\\"))


def test_the_mail_is_named_where_the_alert_will_be() -> None:
    tail = cib.render(SITE).splitlines()[-3:]
    assert "alert agent" in tail[0]
    assert "admin@aelintra.com" in tail[1]
    assert "AEL TEST CLUSTER" in tail[2]
    assert not any(word.startswith("alert") for word in words(cib.render(SITE)))
    without = cib.render(dataclasses.replace(SITE, alert="", site_id=""))
    assert "CLUSTERALERT" in without
    assert '""' not in without


# What is asked of crmsh and Pacemaker.


def test_is_loaded_asks_the_live_one(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {QUERY: "<primitive id='p_asterisk'/>"})
    machine.put(cib.ON_DISK, "<cib/>")
    assert cib.is_loaded(machine)
    machine.on(QUERY, Outcome(code=105, err="No such device or address"))
    machine.put(cib.ON_DISK, "<cib><primitive id='p_asterisk'/></cib>")
    assert not cib.is_loaded(machine)


@pytest.mark.parametrize(("saved", "loaded"), [
    ("<cib><resources><group><primitive id='p_asterisk' class='ocf'/></group></resources></cib>",
     True),
    ("<cib><resources><primitive id='p_asterisk2'/></resources></cib>", False),
    ("<cib", False),
    (None, False),
])
@pytest.mark.parametrize("pacemaker", [True, False])
def test_is_loaded_without_pacemaker_reads_the_disk(
    tmp_path: Path, saved: str | None, loaded: bool, pacemaker: bool
) -> None:
    machine = FakeMachine(tmp_path)
    if pacemaker:
        machine.on("cibadmin", Outcome(code=102, err="Transport endpoint is not connected"))
    else:
        machine.absent("cibadmin")
    if saved is not None:
        machine.put(cib.ON_DISK, saved)
    assert cib.is_loaded(machine) is loaded


class Crmsh:
    """Stands for crm and cibadmin: loading turns ``before`` into ``after``."""

    def __init__(self, tmp_path: Path, before: str, after: str,
                 load: Outcome | None = None) -> None:
        self.text, self.after = before, after
        self.load = load or Outcome()
        self.loaded: list[str] = []
        self.machine = FakeMachine(tmp_path, {
            "cibadmin --query": "<cib/>",
            "crm --display=plain configure show": lambda argv, stdin: self.text,
            "crm --display=plain configure load update": self.update,
        })

    def update(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        self.loaded.append(Path(argv[-1]).read_text(encoding="utf-8"))
        if self.load.code == 0:
            self.text = self.after
        return self.load


def test_diff_is_what_changes(tmp_path: Path) -> None:
    crm = Crmsh(tmp_path, "node 1: crm1\nip=1\n", "node 1: crm1\nip=2\n")
    assert cib.diff(crm.machine, SITE).splitlines() == [
        "--- live", "+++ asha.conf", "@@ -1,2 +1,2 @@", " node 1: crm1", "-ip=1", "+ip=2",
    ]
    assert crm.loaded == [cib.render(SITE)]


@pytest.mark.parametrize("value", ["true", "yes", "false", None])
def test_fencing_that_is_on_stays_on(tmp_path: Path, value: str | None) -> None:
    crm = Crmsh(tmp_path, "before\n", "after\n")
    option = f'<nvpair name="stonith-enabled" value="{value}"/>' if value else ""
    crm.machine.on(
        "cibadmin --query",
        "<cib><configuration><crm_config><cluster_property_set>"
        f"{option}</cluster_property_set></crm_config></configuration></cib>",
    )
    cib.diff(crm.machine, SITE)
    cib.load(crm.machine, SITE)
    on = value in ("true", "yes")
    for loaded in crm.loaded:
        assert ("\n    stonith-enabled=true \\\n" in loaded) == on
        assert ("\n    stonith-enabled=false \\\n" in loaded) == (not on)
    assert len(crm.loaded) == 2


def test_diff_of_nothing_is_empty(tmp_path: Path) -> None:
    assert cib.diff(Crmsh(tmp_path, "same\n", "same\n").machine, SITE) == ""


def test_diff_works_on_a_copy_only(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watched(FakeMachine):
        def run(self, *argv, environ=None, **kind):  # type: ignore[no-untyped-def]
            if argv[0] == "crm":
                seen.append(environ["CIB_file"])
                assert Path(environ["CIB_file"]).read_text() == "<cib/>"
            return super().run(*argv, environ=environ, **kind)

    cib.diff(Watched(tmp_path, {"cibadmin --query": "<cib/>", "crm": ""}), SITE)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert not Path(seen[0]).exists()


def test_diff_without_pacemaker_is_trouble(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"cibadmin --query": Outcome(code=102)})
    with pytest.raises(UserError, match="Pacemaker does not run here"):
        cib.diff(machine, SITE)


NOISE = """\
\x1b[33mWARNING\x1b[0m: 3: p_mysql: unknown attribute 'critical'
(unpack_config) warning: Blind faith: not fencing unseen nodes
\x1b[32mINFO\x1b[0m: something
"""


def test_load_tells_only_what_is_news(tmp_path: Path) -> None:
    news = "\x1b[33mWARNING\x1b[0m: p_fs: default timeout 20s for start is smaller than advised\n"
    crm = Crmsh(tmp_path, "", "", Outcome(NOISE, err=news))
    assert cib.load(crm.machine, SITE) == [
        "WARNING: p_fs: default timeout 20s for start is smaller than advised"
    ]
    assert crm.loaded == [cib.render(SITE)]
    assert cib.load(Crmsh(tmp_path, "", "", Outcome(NOISE)).machine, SITE) == []


def test_load_refused_is_trouble(tmp_path: Path) -> None:
    said = "\x1b[31mERROR\x1b[0m: ocf:asha:sark-data: could not parse meta-data\n" \
           "\x1b[33mWARNING\x1b[0m: x\n"
    crm = Crmsh(tmp_path, "", "", Outcome(err=said, code=1))
    with pytest.raises(UserError, match="ERROR: ocf:asha:sark-data") as trouble:
        cib.load(crm.machine, SITE)
    assert "\x1b" not in str(trouble.value)
    assert "as it was" in trouble.value.hint


# The command.


def options(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(argv)


@pytest.fixture
def conf(tmp_path: Path) -> str:
    (tmp_path / "asha.conf").write_text(MANUAL)
    return str(tmp_path / "asha.conf")


def test_prints_by_default_and_touches_nothing(
    conf: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*argv: object, **kind: object) -> None:
        raise AssertionError("nothing is to be run")

    monkeypatch.setattr(Machine, "run", never)
    assert command.run(options("--config", conf)) == 0
    assert capsys.readouterr().out == REFERENCE.read_text(encoding="utf-8")


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crmsh:
    crm = Crmsh(tmp_path, "old\n", "new\n")
    monkeypatch.setattr(command, "Machine", lambda: crm.machine)
    monkeypatch.setattr(command, "need_root", lambda what: None)
    return crm


def test_load_shows_asks_and_loads(
    conf: str, live: Crmsh, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ask", lambda question: False)
    with pytest.raises(UserError, match="nothing was changed"):
        command.run(options("--config", conf, "--load"))
    assert "+new" in capsys.readouterr().out
    assert len(live.loaded) == 1  # tried on the copy
    live.text = "old\n"
    monkeypatch.setattr(command, "ask", lambda question: True)
    assert command.run(options("--config", conf, "--load")) == 0
    assert len(live.loaded) == 3


def test_load_with_nothing_to_do(
    conf: str, live: Crmsh, capsys: pytest.CaptureFixture[str]
) -> None:
    live.text = live.after
    assert command.run(options("--config", conf, "--load", "--yes")) == 0
    assert "as asha.conf says" in capsys.readouterr().out
    assert len(live.loaded) == 1


def test_diff_loads_nothing(
    conf: str, live: Crmsh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(options("--config", conf, "--diff")) == 0
    assert "-old" in capsys.readouterr().out
    assert len(live.loaded) == 1
