"""The questions: what is asked, what is suggested, what is refused, and what is written."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from asha.bootstrap import facts
from asha.bootstrap.configure import interview
from asha.bootstrap.configure.interview import Interview, Turn
from asha.bootstrap.configure.questions import QUESTIONS
from asha.bootstrap.facts import Facts
from asha.bootstrap.host import disks, nics
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.host.nics import Address, Nic
from asha.bootstrap.preflight import checks
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.commands import configure
from asha.conf import values_of
from asha.errors import UserError
from tests.fakes.machine import FakeMachine

GB = 1 << 30
ETH0 = Nic("eth0", "52:54:00:00:00:01", addresses=(Address("192.168.1.11", 23),))
ETH1 = Nic("eth1", "52:54:00:00:00:02")
HERE = Facts("crm1", nics=(ETH0, ETH1), route_nic="eth0", free_disks=(Disk("/dev/sda5", 10 * GB),))

# The manual's own (SARK wiki, "V4 High Availability").
OF_2014 = """PRIMARY=true
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


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    holders: dict[str, str] = {}
    monkeypatch.setattr(nics, "who_has", lambda nic, address: holders.get(address, ""))
    return holders


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    about = SimpleNamespace(use="")

    def look_at(machine: object, path: str) -> Disk:
        if not path.startswith("/dev/sda"):
            raise UserError(f"there is no {path}")
        return Disk(path, 10 * GB, use=about.use)

    monkeypatch.setattr(disks, "look_at", look_at)
    return about


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


class Person:
    """Answers by a word of the question; Return to all else."""

    def __init__(self, **answers: str | list[str]) -> None:
        self.answers = {word.replace("_", " "): [text] if isinstance(text, str) else list(text)
                        for word, text in answers.items()}
        self.asked: dict[str, str] = {}
        self.heard: list[str] = []

    def read(self, prompt: str) -> str:
        question, _, default = prompt.rstrip(": ").partition(" [")
        self.asked[question] = default.rstrip("]")
        for word, texts in self.answers.items():
            if word in question and texts:
                return texts.pop(0)
        return ""

    def ask(self, machine: FakeMachine, here: Facts = HERE, known: str = "") -> dict[str, str]:
        return interview.ask(machine, here, values_of(known), self.read, self.heard.append)


def test_a_first_node_takes_three_answers(machine: FakeMachine) -> None:
    person = Person(virtual="192.168.1.90", Mail="admin@example.com")
    values = person.ask(machine)
    assert values == values | {
        "PRIMARY": "true", "USENIC1": "true", "ANODENAME": "crm1", "BNODENAME": "crm2",
        "LANNIC": "eth0", "LINKNIC": "eth1", "CLUSTERIP": "192.168.1.90", "LANPREFIX": "23",
        "ANODEIP": "10.0.3.251", "BNODEIP": "10.0.3.252", "LINKPREFIX": "24",
        "IP": "10.0.3.251", "CLUSTERNET": "10.0.3.0", "ANODELAN": "192.168.1.11",
        "DRBDDEV": "/dev/sda5", "CLUSTERALERT": "admin@example.com", "RHINOSPF": "NO",
    }
    assert conf.site_of(values).here.name == "crm1"
    for unasked in ("The LAN's NIC", "The cluster link's NIC", "This node's name",
                    "The LAN's prefix length", "The relay's device"):
        assert unasked not in person.asked


def test_nothing_is_wider_than_a_terminal(machine: FakeMachine) -> None:
    person = Person(virtual="192.168.1.90", relay="here")
    person.ask(machine)
    said = "\n".join(person.heard)
    assert [line for line in said.splitlines() if len(line) >= 80] == []
    assert "  The first is installed alone and serves calls; the second joins it. A" in said


def test_a_second_node_is_b(machine: FakeMachine, wire: dict[str, str]) -> None:
    wire["192.168.1.90"] = "52:54:00:00:00:aa"  # the first has it, and rightly
    here = replace(HERE, name="crm2")
    values = Person(First="second", virtual="192.168.1.90").ask(machine, here)
    assert values == values | {
        "PRIMARY": "false", "ANODENAME": "crm1", "BNODENAME": "crm2", "ANODEIP": "10.0.3.251",
        "BNODEIP": "10.0.3.252", "IP": "10.0.3.252", "BNODELAN": "192.168.1.11",
    }
    site = conf.site_of(values)
    assert (site.here.name, site.there.name) == ("crm2", "crm1")


@pytest.mark.parametrize(("word", "bad", "good", "reason"), [
    ("First", "third", "first", "third: must be first or second"),
    ("other_node's_name", "crm1", "crm2", "both crm1"),
    ("other_node's_name", "crm 2", "crm2", "must be a host name"),
    ("virtual", "", "192.168.1.90", "an answer is needed"),
    ("virtual", "192.168.1.900", "192.168.1.90", "must be an IPv4 address"),
    ("virtual", "192.168.7.90", "192.168.1.90",
     "CLUSTERIP=192.168.7.90: is not in eth0's network 192.168.0.0/23"),
    ("virtual", "192.168.1.11", "192.168.1.90",
     "CLUSTERIP=192.168.1.11: is this machine's own, on eth0"),
    ("virtual", "192.168.1.66", "192.168.1.90",
     "CLUSTERIP=192.168.1.66: is taken by another machine in the LAN (52:54:00:00:00:66)"),
    ("This_node's_address", "192.168.0.5", "10.0.3.251",
     "192.168.0.0/24 and the LAN 192.168.0.0/23 overlap"),
    ("This_node's_address", "10.0.3.66", "10.0.3.251",
     "the cluster address 10.0.3.66 is taken by another machine (52:54:00:00:00:67)"),
    ("The_other_node's_address", "10.0.3.251", "10.0.3.252", "are both 10.0.3.251"),
    ("The_other_node's_address", "10.0.4.1", "10.0.3.252", "not in ANODEIP's network 10.0.3.0/24"),
    ("partition", "sda5", "/dev/sda5", "must be a device"),
    ("partition", "/dev/sdb1", "/dev/sda5", "DRBDDEV: there is no /dev/sdb1"),
    ("Mail", "nobody", "a@example.com", "must be one mail address"),
    ("relay", "maybe", "none", "must be none or here or there"),
])
def test_a_bad_answer_is_refused_with_a_reason_and_asked_again(
    machine: FakeMachine, wire: dict[str, str], word: str, bad: str, good: str, reason: str
) -> None:
    wire |= {"192.168.1.66": "52:54:00:00:00:66", "10.0.3.66": "52:54:00:00:00:67"}
    answers: dict[str, str | list[str]] = {"virtual": "192.168.1.90"}
    person = Person(**answers | {word: [bad, good]})
    values = person.ask(machine)
    assert [line for line in person.heard if reason in line]
    assert good in (*values.values(), "first", "none")


# One rule book: the words of a rule, whoever asks.


@pytest.mark.parametrize(("key", "answer", "word"), [
    ("CLUSTERIP", "192.168.1.900", "virtual"),
    ("CLUSTERIP", "192.168.7.90", "virtual"),
    ("CLUSTERIP", "192.168.1.255", "virtual"),
    ("CLUSTERIP", "192.168.1.11", "virtual"),
    ("ANODEIP", "192.168.1.12", "This node's address"),
    ("BNODEIP", "10.0.4.252", "The other node's address"),
    ("BNODENAME", "CRM1", "The other node's name"),
    ("DRBDDEV", "/dev/drbd0", "partition"),
    ("CLUSTERALERT", "a@b, c@d", "Mail"),
    ("SITEID", "a\x07b", "The site's name"),
])
def test_the_interview_the_answers_and_the_check_say_the_same(
    machine: FakeMachine, key: str, answer: str, word: str
) -> None:
    eth0 = replace(ETH0, addresses=(Address("192.168.1.11", 24),))
    here = replace(HERE, nics=(eth0, ETH1))
    right = Person(virtual="192.168.1.90").ask(machine, here)
    person = Person(virtual="192.168.1.90")
    person.answers[word] = [answer, right[key] or "-"]
    person.ask(machine, here)
    _, findings = interview.complete(machine, here, {
        "PRIMARY": "true", "CLUSTERIP": "192.168.1.90", key: answer})
    (finding,) = findings
    assert finding.key == key
    assert [line.strip() for line in person.heard if line.strip() in (
        finding.what, finding.hint)] == [finding.what, finding.hint]
    values = {name: value for name, value in right.items()
              if name not in ("IP", "CLUSTERNET", "ANODELAN")} | {key: answer}
    try:
        judging = checks.of_answers(interview.ALL)
        told = checks.look(machine, conf.site_of(values), here, checks=judging)
    except conf.SiteError as wrong:
        told = wrong.findings
    assert finding in told


def test_a_network_that_is_used_is_not_recommended(machine: FakeMachine) -> None:
    """A LAN of 10.0.3.0/24 once was offered, refused, and recommended again."""
    here = replace(HERE, nics=(replace(ETH0, addresses=(Address("10.0.3.4", 24),)), ETH1))
    given = {"PRIMARY": "true", "CLUSTERIP": "10.0.3.90", "ANODEIP": "10.0.3.251"}
    _, findings = interview.complete(machine, here, given)
    (finding,) = findings
    assert finding.hint == "choose a subnet that nothing else uses, such as 172.31.3.0/24"


def test_a_rule_waits_for_what_is_not_answered_yet(machine: FakeMachine) -> None:
    """The virtual address may end in 255 where the LAN is larger than the default."""
    assert Person(virtual="192.168.0.255").ask(machine)["CLUSTERIP"] == "192.168.0.255"


def test_a_mounted_partition_is_refused(machine: FakeMachine, disk: SimpleNamespace) -> None:
    disk.use = "mounted on /srv"
    person = Person(virtual="192.168.1.90")
    question = next(one for one in QUESTIONS if "partition for the store" in one.text)
    turn = Turn(Interview(machine, HERE, {}), question, {})
    (finding,) = turn.objections("/dev/sda5")
    assert (finding.what, finding.key) == ("/dev/sda5 is mounted on /srv", "DRBDDEV")
    assert finding.hint
    assert person.heard == []


def test_the_seconds_own_address_in_the_lan_is_refused(machine: FakeMachine) -> None:
    person = Person(First="second", virtual="192.168.1.90")
    person.answers["This node's address"] = ["192.168.0.5", "10.0.3.252"]
    person.ask(machine, replace(HERE, name="crm2"))
    assert any("192.168.0.0/24 and the LAN 192.168.0.0/23 overlap" in one for one in person.heard)


def test_what_is_ambiguous_is_asked(machine: FakeMachine) -> None:
    here = replace(HERE, route_nic="", nics=(
        ETH0, Nic("eth1", addresses=(Address("10.9.0.1", 24),)), Nic("eth2"), Nic("eth3")))
    person = Person(LAN="eth0", link_s="", cluster="", virtual="192.168.1.90")
    person.answers = {"The LAN's NIC": ["eth9", "eth0"],
                      "The cluster link's NIC": ["eth0", "eth3"], "virtual": ["192.168.1.90"]}
    values = person.ask(machine, here)
    assert (values["LANNIC"], values["LINKNIC"]) == ("eth0", "eth3")
    assert any("LANNIC=eth9: this machine has no such NIC" in line for line in person.heard)
    assert any("LANNIC and LINKNIC are both eth0" in line for line in person.heard)
    assert any("eth1  10.9.0.1/24" in line for line in person.heard)


def test_a_link_address_that_is_there_is_taken_with_its_prefix(machine: FakeMachine) -> None:
    here = replace(HERE, nics=(ETH0, replace(ETH1, addresses=(Address("172.16.9.1", 29),))))
    person = Person(virtual="192.168.1.90")
    values = person.ask(machine, here)
    assert person.asked["This node's address on the cluster link"] == "172.16.9.1"
    assert person.asked["The other node's address on the cluster link"] == "172.16.9.2"
    assert values["LINKPREFIX"] == "29"


def test_the_manuals_link_network_gives_way_to_a_lan_that_has_it(machine: FakeMachine) -> None:
    here = replace(HERE, nics=(replace(ETH0, addresses=(Address("10.0.3.4", 16),)), ETH1))
    values = Person(virtual="10.0.3.90").ask(machine, here)
    assert values["ANODEIP"] == "172.31.3.251"


def test_a_leased_lan_address_is_no_static_one(machine: FakeMachine) -> None:
    leased = replace(ETH0, addresses=(Address("192.168.1.11", 23, dynamic=True),))
    values = Person(virtual="192.168.1.90").ask(machine, replace(HERE, nics=(leased, ETH1)))
    assert values["ANODELAN"] == ""
    values = Person().ask(machine, replace(HERE, nics=(leased, ETH1)),
                          interview.render(values | {"ANODELAN": "192.168.1.11",
                                                     "BNODELAN": "192.168.1.12"}))
    assert (values["ANODELAN"], values["BNODELAN"]) == ("", "192.168.1.12")


def test_one_nic(machine: FakeMachine) -> None:
    person = Person(virtual="192.168.1.90", other_node_s="x")
    person.answers["The other node's address"] = ["192.168.1.12"]
    person.answers["One or two"] = ["2", "1"]
    values = person.ask(machine, replace(HERE, nics=(ETH0,)))
    assert any("this machine has only one NIC (eth0)" in line for line in person.heard)
    assert person.asked["This node's address on the cluster link"] == "192.168.1.11"
    site = conf.site_of(values)
    assert (site.two_nics, site.link_nic, site.link_prefix) == (False, "eth0", 23)


@pytest.mark.parametrize(("answer", "spf", "node"), [
    ("none", "NO", ""), ("here", "YES", ""), ("there", "NO", "crm2")])
def test_the_relay(machine: FakeMachine, answer: str, spf: str, node: str) -> None:
    person = Person(virtual="192.168.1.90", Line=answer, kind="numato", module="3")
    values = person.ask(machine)
    assert (values["RHINOSPF"], values["RELAYNODE"]) == (spf, node)
    relay = conf.site_of(values).relay
    if answer == "none":
        assert relay is None
        assert "The relay's device" not in person.asked
    else:
        assert relay is not None
        assert (relay.driver, relay.number, relay.node) == (
            "numato", 3, {"here": "crm1", "there": "crm2"}[answer])


def test_an_earlier_file_gives_the_defaults(machine: FakeMachine) -> None:
    earlier = interview.render(
        Person(virtual="192.168.1.90", Mail="a@example.com", Line="there").ask(machine))
    assert "CLUSTERALERT=a@example.com\n" in earlier
    assert interview.render(Person().ask(machine, known=earlier)) == earlier
    emptied = Person(Mail="-").ask(machine, known=earlier)
    assert emptied["CLUSTERALERT"] == ""


def test_new_addresses_are_not_judged_by_the_old(machine: FakeMachine) -> None:
    earlier = interview.render(Person(virtual="192.168.1.90").ask(machine))
    person = Person(**{"This_node's_address": "10.7.0.1", "The_other_node's_address": "10.7.0.2"})
    values = person.ask(machine, known=earlier)
    assert (values["ANODEIP"], values["BNODEIP"], values["CLUSTERNET"]) == (
        "10.7.0.1", "10.7.0.2", "10.7.0.0")


def test_another_role_forgets_who_was_a_and_b(machine: FakeMachine) -> None:
    """The survivor's file, used on the node that replaces the first."""
    earlier = interview.render(Person(virtual="192.168.1.90").ask(machine))
    values = Person(First="second", **{"The_other_node's_name": "crm2"},
                    **{"The_other_node's_address": "10.0.3.253"}).ask(machine, known=earlier)
    site = conf.site_of(values)
    assert (site.here.name, site.there.name) == ("crm1", "crm2")
    assert site.there.address == "10.0.3.253"


# A file of answers.


def test_answers_of_2014(machine: FakeMachine) -> None:
    values, problems = interview.complete(machine, HERE, values_of(OF_2014))
    assert problems == []
    site = conf.site_of(values)
    assert (site.lan_prefix, site.first.lan, site.relay is not None) == (23, "192.168.1.11", True)


def test_the_least_answers(machine: FakeMachine) -> None:
    given = {"PRIMARY": "yes", "CLUSTERIP": "192.168.1.90"}
    values, problems = interview.complete(machine, HERE, given)
    assert problems == []
    assert conf.site_of(values).there == conf.NodeConfig("crm2", "10.0.3.252", "", 2)


def test_all_problems_at_once(machine: FakeMachine, wire: dict[str, str]) -> None:
    wire["10.0.3.251"] = "52:54:00:00:00:aa"
    given = {"PRIMARY": "true", "CLUSTERIP": "192.168.7.90", "BNODENAME": "crm_2",
             "DRBDDEV": "/dev/sdb1", "CLUSTERALERT": "x", "ANODENAME": "pbx"}
    _, problems = interview.complete(machine, HERE, given)
    assert sorted(one.key for one in problems) == [
        "ANODEIP", "ANODENAME", "BNODENAME", "CLUSTERALERT", "CLUSTERIP", "DRBDDEV"]


def test_two_nics_are_not_quietly_one(machine: FakeMachine) -> None:
    given = {"PRIMARY": "true", "CLUSTERIP": "192.168.1.90", "LINKNIC": "eth1"}
    _, problems = interview.complete(machine, replace(HERE, nics=(ETH0,)), given)
    assert any(one.what.startswith("USENIC1=true: this machine has only one NIC (eth0)")
               for one in problems)


def test_without_a_route_the_virtual_address_tells_the_lan(machine: FakeMachine) -> None:
    link = replace(ETH1, addresses=(Address("172.16.9.1", 29),))
    here = replace(HERE, route_nic="", nics=(link, ETH0))
    given = {"PRIMARY": "true", "CLUSTERIP": "192.168.1.90"}
    values, problems = interview.complete(machine, here, given)
    assert problems == []
    assert (values["LANNIC"], values["LINKNIC"], values["ANODEIP"]) == (
        "eth0", "eth1", "172.16.9.1")


def test_which_node_must_be_said(machine: FakeMachine) -> None:
    _, problems = interview.complete(machine, HERE, {"CLUSTERIP": "192.168.1.90"})
    assert [one.what for one in problems] == [
        "PRIMARY is missing: true on the first node, false on the second"]


def test_a_file_of_2014_with_its_own_node_as_a_on_the_second(machine: FakeMachine) -> None:
    text = (OF_2014.replace("PRIMARY=true", "PRIMARY=false")
            .replace("ANODENAME=crm1", "ANODENAME=crm2").replace("BNODENAME=crm2", "BNODENAME=crm1")
            .replace("ANODEIP=10.0.3.251", "ANODEIP=10.0.3.252")
            .replace("BNODEIP=10.0.3.252", "BNODEIP=10.0.3.251", 1)
            .replace("\nIP=10.0.3.251", "\nIP=10.0.3.252"))
    text = text.replace("BNODEIP=10.0.3.252", "BNODEIP=10.0.3.251")
    here = replace(HERE, name="crm2")
    values, problems = interview.complete(machine, here, values_of(text))
    assert problems == []
    assert (values["ANODENAME"], values["BNODENAME"], values["BNODEIP"]) == (
        "crm1", "crm2", "10.0.3.252")


# What is written.


def test_what_is_written_is_read_back_the_same(machine: FakeMachine) -> None:
    values, _ = interview.complete(machine, HERE, values_of(OF_2014))
    text = interview.render(values)
    assert conf.parse(text) == conf.site_of(values)
    assert [line.partition("=")[0] for line in text.splitlines()
            if line and not line.startswith("#")] == [key.name for key in conf.KEYS]
    assert interview.render(values_of(text), text) == text


def test_foreign_keys_are_kept(machine: FakeMachine) -> None:
    values, _ = interview.complete(machine, HERE, values_of(OF_2014))
    text = interview.render(values, "OURS = 'of the admin'\n#NOT=this\nSITEID=old\n")
    assert text.endswith("# Not asha's, and kept\nOURS = 'of the admin'\n")
    assert "old" not in text
    assert interview.render(values, text) == text


# The command.


@pytest.fixture
def command(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    monkeypatch.setattr(configure, "Machine", lambda: machine)
    monkeypatch.setattr(facts, "gather", lambda machine: HERE)

    def run(text: str, *words: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        parser = argparse.ArgumentParser()
        configure.arguments(parser)
        return configure.run(parser.parse_args(words))

    return run


def test_the_command_writes_what_was_answered(
    command: Callable[..., int], machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(OF_2014, "--answers", "-") == 0
    first = machine.read(conf.CONF)
    assert first is not None
    assert conf.parse(first).virtual_address == "192.168.1.90"
    capsys.readouterr()
    assert command(OF_2014, "--answers", "-") == 0
    assert "nothing has changed" in capsys.readouterr().out


def test_a_change_is_shown_and_not_made_unasked(
    command: Callable[..., int], machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    command(OF_2014, "--answers", "-")
    before = machine.read(conf.CONF)
    changed = OF_2014.replace(".90", ".91")
    with pytest.raises(UserError, match="nothing was written"):
        command(changed, "--answers", "-")
    assert "+CLUSTERIP=192.168.1.91" in capsys.readouterr().out
    assert machine.read(conf.CONF) == before
    command(changed, "--answers", "-", "--yes")
    assert "CLUSTERIP=192.168.1.91" in (machine.read(conf.CONF) or "")


def test_an_installed_node_keeps_its_name_address_and_disk(
    command: Callable[..., int], machine: FakeMachine
) -> None:
    command(OF_2014, "--answers", "-")
    machine.put(MARKER)
    before = machine.read(conf.CONF)
    for old, new in (("BNODENAME=crm2", "BNODENAME=crm3"), ("10.0.3.252", "10.0.3.253"),
                     ("/dev/sda5", "/dev/sda6")):
        with pytest.raises(UserError, match="cannot change any more") as trouble:
            command(OF_2014.replace(old, new), "--answers", "-", "--yes")
        assert "asha remove-node crm1 on crm2" in trouble.value.hint
    assert machine.read(conf.CONF) == before
    command(OF_2014.replace("admin@", "other@"), "--answers", "-", "--yes")
    assert "CLUSTERALERT=other@aelintra.com" in (machine.read(conf.CONF) or "")


def test_bad_answers_write_nothing(command: Callable[..., int], machine: FakeMachine) -> None:
    with pytest.raises(UserError, match=r"CLUSTERIP=1\.2\.3: must be an IPv4 address"):
        command(OF_2014.replace("192.168.1.90", "1.2.3"), "--answers", "-")
    assert not machine.exists(conf.CONF)


def test_without_a_terminal_nothing_is_asked(command: Callable[..., int]) -> None:
    with pytest.raises(UserError, match="no terminal"):
        command("")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, EOFError])
def test_an_interview_cut_off_writes_nothing(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, ended_by: type[BaseException]
) -> None:
    answers = iter(["first", "crm2"])

    def read(prompt: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise ended_by from None

    monkeypatch.setattr(facts, "gather", lambda machine: HERE)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)
    with pytest.raises((KeyboardInterrupt, UserError)):
        configure.interview(machine)
    assert not machine.exists(conf.CONF)
