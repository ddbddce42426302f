"""The package's questions: debconf as debconf-devel(7) describes it, on a machine of paper."""

from __future__ import annotations

import argparse
import io
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from asha.bootstrap import facts
from asha.bootstrap.configure import debconf
from asha.bootstrap.configure.context import Asking
from asha.bootstrap.configure.debconf import Debconf
from asha.bootstrap.configure.questions import QUESTIONS
from asha.bootstrap.facts import Facts
from asha.bootstrap.host import disks, nics
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.host.nics import Address, Nic
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.commands import configure
from asha.conf import values_of
from asha.errors import UserError
from tests.fakes.machine import FakeMachine

DEBIAN = Path(__file__).parents[2] / "debian"
TEMPLATES = (DEBIAN / "asha.templates").read_text(encoding="utf-8")
LEVELS = ("low", "medium", "high", "critical")
NOTICES = ("problem", "in-cluster")

GB = 1 << 30
ETH0 = Nic("eth0", addresses=(Address("192.168.1.11", 24),))
ETH1 = Nic("eth1")
DISK = "/dev/sda5"
HERE = Facts("crm1", nics=(ETH0, ETH1), route_nic="eth0")


class FakeDebconf:
    """Both streams of the protocol: what is written to it is answered at once.

    A question is shown if it matters enough and was not seen. The person's answers are a
    list: a value, "=" for the one that is offered, "<" for back. None: nobody is there.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.seen: set[str] = set()
        self.words: dict[tuple[str, str], str] = {}
        self.answers: list[str] | None = None
        self.threshold = "high"
        self.shown: list[str] = []
        self._queue = ""
        self._reply = ""
        for name, value in re.findall(
            r"Template: asha/(\S+)\nType: \w+\n(?:Choices: .*\n)?Default: (.*)\n", TEMPLATES
        ):
            self.values[name] = value

    def preseed(self, values: Mapping[str, str]) -> None:
        self.values.update(values)
        self.seen.update(values)

    # The streams.

    def write(self, text: str) -> None:
        for line in text.splitlines():
            command, *rest = line.split(" ")
            self._reply = getattr(self, f"_{command.lower()}")(*rest)

    def flush(self) -> None:
        pass

    def readline(self) -> str:
        return f"{self._reply}\n"

    # The commands.

    def _version(self, number: str) -> str:
        return "0 2.0"

    def _capb(self, *words: str) -> str:
        return "0 multiselect backup"

    def _known(self, question: str) -> str:
        name = question.removeprefix("asha/")
        assert re.search(rf"^Template: asha/{name}$", TEMPLATES, re.MULTILINE), question
        return name

    def _get(self, question: str) -> str:
        return f"0 {self.values.get(self._known(question), '')}"

    def _set(self, question: str, *words: str) -> str:
        self.values[self._known(question)] = " ".join(words)
        return "0 value set"

    def _fset(self, question: str, flag: str, truth: str) -> str:
        name = self._known(question)
        assert flag == "seen"
        if truth == "true":
            self.seen.add(name)
        else:
            self.seen.discard(name)
        return f"0 {truth}"

    def _subst(self, question: str, word: str, *words: str) -> str:
        name = self._known(question)
        template = TEMPLATES.split(f"Template: asha/{name}\n")[1].split("\n\n")[0]
        if word != "HERE":
            assert f"${{{word}}}" in template
        self.words[name, word] = " ".join(words)
        return "0"

    def _input(self, level: str, question: str) -> str:
        name = self._known(question)
        if (self.answers is None or name in self.seen
                or LEVELS.index(level) < LEVELS.index(self.threshold)):
            return "30 question skipped"
        self._queue = name
        return "0 question will be asked"

    def _go(self) -> str:
        name, self._queue = self._queue, ""
        if not name:
            return "0 ok"
        if name in NOTICES:
            self.shown.append(f"{name}: {self.words.get((name, 'PROBLEM'), '')}")
            return "0 ok"
        self.shown.append(name)
        assert self.answers, f"no answer is left for {name}"
        answer = self.answers.pop(0)
        if answer == "<":
            return "30 backup"
        if answer != "=":
            self.values[name] = answer
        return "0 ok"


class Package:
    """The machine on which the package is configured."""

    def __init__(self, root: Path) -> None:
        self.machine = FakeMachine(root)
        self.debconf = FakeDebconf()
        self.facts = HERE
        self.known: dict[str, str] = {}

    def ask(self, answers: Sequence[str] | None = None, again: bool = False,
            threshold: str = "high") -> dict[str, str]:
        """The values of asha.conf; {} where the person gave none. Raises UserError."""
        self.debconf.answers = None if answers is None else list(answers)
        self.debconf.threshold = threshold
        talk = Debconf(self.debconf, self.debconf)  # type: ignore[arg-type]
        debconf.seed(talk, self.facts, self.known)
        values = debconf.ask(talk, self.machine, self.facts, self.known, again)
        assert not self.debconf.answers
        return values or {}

    def value(self, name: str) -> str:
        return self.debconf.values.get(name, "")

    @property
    def shown(self) -> list[str]:
        return self.debconf.shown


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    holders: dict[str, str] = {}
    monkeypatch.setattr(nics, "who_has", lambda nic, address: holders.get(address, ""))
    return holders


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    about = SimpleNamespace(use="", signature="")

    def look_at(machine: object, path: str) -> Disk:
        if path != DISK:
            raise UserError(f"there is no {path}", "lsblk lists them")
        return Disk(path, 10 * GB, about.signature, about.use)

    monkeypatch.setattr(disks, "look_at", look_at)
    return about


@pytest.fixture
def package(tmp_path: Path, wire: dict[str, str], disk: SimpleNamespace) -> Package:
    return Package(tmp_path)


ALL = ["primary", "othername", "usenic1", "clusterip", "ip", "otherip", "drbddev", "clusteralert",
       "siteid", "relay"]
ANSWERS = ["=", "=", "=", "192.168.1.90", "=", "=", DISK, "a@b.c", "=", "="]


def with_answer(name: str, *answers: str) -> list[str]:
    place = ALL.index(name)
    return [*ANSWERS[:place], *answers, *ANSWERS[place + 1:]]


def test_the_manuals_questions_with_defaults_from_the_machine(package: Package) -> None:
    values = package.ask(ANSWERS)
    assert package.shown == ALL
    assert package.debconf.values == {
        "primary": "true", "usenic1": "true", "clusterip": "192.168.1.90", "lannic": "eth0",
        "lanprefix": "24", "linknic": "eth1", "linkprefix": "24", "ip": "10.0.3.251",
        "lanwatch": "true", "otherip": "10.0.3.252", "othername": "crm2", "drbddev": DISK,
        "clusteralert": "a@b.c", "siteid": "crm1 cluster", "relay": "none",
        "relaydriver": "rhino",
    }
    site = conf.site_of(values)
    assert (site.here.name, site.there.address, site.device) == ("crm1", "10.0.3.252", DISK)


def test_the_second_node_is_offered_the_other_address(package: Package) -> None:
    package.ask(with_answer("primary", "false"))
    assert (package.value("ip"), package.value("otherip")) == ("10.0.3.252", "10.0.3.251")


def test_names_with_any_number_have_a_neighbour(package: Package) -> None:
    package.facts = replace(HERE, name="pbx08")
    package.ask(ANSWERS)
    assert package.value("othername") == "pbx09"


@pytest.mark.parametrize(("where", "spf"), [("here", "YES"), ("there", "NO")])
def test_a_relay_is_asked_about(package: Package, where: str, spf: str) -> None:
    package.facts = replace(HERE, serial_devices=("/dev/serial/by-id/usb-1", "/dev/ttyACM0"))
    values = package.ask([*with_answer("relay", where), "/dev/ttyACM0", "numato", "3"])
    assert package.shown == [*ALL, "rhinousb", "relaydriver", "relaynumber"]
    assert package.debconf.words["rhinousb", "HERE"] == "/dev/serial/by-id/usb-1, /dev/ttyACM0"
    assert values == values | {
        "RHINOSPF": spf, "RELAYDRIVER": "numato", "RHINOUSB": "/dev/ttyACM0", "RELAYNUMBER": "3"}
    relay = conf.site_of(values).relay
    assert relay is not None
    assert relay.node == {"here": "crm1", "there": "crm2"}[where]


@pytest.mark.parametrize(("once", "now", "spf"), [("true", "here", "YES"), ("false", "none", "NO")])
def test_the_relays_yes_or_no_of_an_older_preseed(
    package: Package, once: str, now: str, spf: str
) -> None:
    package.debconf.preseed({"clusterip": "192.168.1.90", "drbddev": DISK, "relay": once})
    assert package.ask()["RHINOSPF"] == spf
    assert package.value("relay") == now


def test_one_nic_makes_the_link_the_lan(package: Package) -> None:
    values = package.ask(["=", "=", "false", "192.168.1.90", "=", "192.168.1.12", *ANSWERS[6:]])
    assert package.shown == ALL
    assert package.value("ip") == "192.168.1.11"
    site = conf.site_of(values)
    assert (site.two_nics, site.link_nic, site.link_prefix) == (False, "eth0", 24)


def test_what_the_machine_does_not_tell_is_asked(package: Package) -> None:
    package.facts = replace(HERE, nics=(Nic("eth0"), ETH1, Nic("eth2")), route_nic="")
    values = package.ask(["=", "=", "=", "eth0", "eth2", "192.168.1.90", "16", *ANSWERS[4:]])
    assert package.shown[3:7] == ["lannic", "linknic", "clusterip", "lanprefix"]
    assert (values["LINKNIC"], values["LANPREFIX"]) == ("eth2", "16")


def test_who_wants_all_questions_gets_them(package: Package) -> None:
    values = package.ask([*ANSWERS[:3], "=", "=", "192.168.1.90", "=", "=", "=", "false",
                           *ANSWERS[5:]], threshold="low")
    assert package.shown[3:10] == ["lannic", "linknic", "clusterip", "lanprefix", "ip",
                                   "linkprefix", "lanwatch"]
    assert values["LANWATCH"] == "false"


@pytest.mark.parametrize(("name", "wrong", "why"), [
    ("clusterip", "192.168.1", "must be an IPv4 address"),
    ("clusterip", "192.168.1.090", "must be an IPv4 address"),
    ("clusterip", "192.168.1.256", "must be an IPv4 address"),
    ("clusterip", "", "an answer is needed"),
    ("clusterip", "192.168.2.90", "is not in eth0's network 192.168.1.0/24"),
    ("clusterip", "192.168.1.11", "this machine's own"),
    ("clusterip", "192.168.1.66", "taken by another machine"),
    ("clusterip", "192.168.1.255", "broadcast"),
    ("clusterip", "192.168.1.0", "network's own"),
    ("ip", "192.168.1.12", "subnet of its own"),
    ("ip", "192.168.1.90", "each needs its own"),
    ("otherip", "10.0.3.251", "each needs its own"),
    ("otherip", "10.0.4.252", "is not in ANODEIP's network"),
    ("otherip", "10.0.3.255", "broadcast"),
    ("othername", "crm1", "different names"),
    ("othername", "CRM1", "different names"),
    ("othername", "crm2.example.com", "must be a host name"),
    ("othername", "-crm", "must be a host name"),
    ("drbddev", "sda5", "must be a device"),
    ("drbddev", "/dev/nothing-here", "there is no"),
    ("drbddev", "$(reboot)", "must be a device"),
    ("clusteralert", "nobody", "must be one mail address"),
    ("clusteralert", "a@b, c@d", "must be one mail address"),
])
def test_an_answer_that_will_not_do_is_asked_again(
    package: Package, wire: dict[str, str], name: str, wrong: str, why: str
) -> None:
    wire["192.168.1.66"] = "52:54:00:00:00:66"
    right = {"ip": "10.0.3.251", "otherip": "10.0.3.252", "othername": "crm2"}
    place = ALL.index(name)
    package.ask(with_answer(name, wrong, right.get(name, ANSWERS[place])))
    assert package.shown[place] == package.shown[place + 2] == name
    assert package.shown[place + 1].startswith("problem: ")
    assert why in package.shown[place + 1]
    assert len(package.shown) == len(ALL) + 2
    if why != "an answer is needed":
        assert package.debconf.words["problem", "HINT"]


def test_a_partition_that_is_in_use_is_refused_with_the_reason(
    package: Package, disk: SimpleNamespace
) -> None:
    disk.use = "mounted on /srv"
    package.debconf.preseed({"clusterip": "192.168.1.90", "drbddev": DISK})
    with pytest.raises(UserError) as trouble:
        package.ask()
    assert "asha/drbddev: /dev/sda5 is mounted on /srv" in trouble.value.points


def test_the_links_subnet_is_not_the_lans(package: Package) -> None:
    """10.0.3.251 was offered, refused and recommended where the LAN is 10.0.3.0/24."""
    eth0 = replace(ETH0, addresses=(Address("10.0.3.11", 24),))
    package.facts = replace(HERE, nics=(eth0, ETH1))
    package.ask(with_answer("clusterip", "10.0.3.90"))
    assert package.shown == ALL
    assert package.debconf.words["ip", "HERE"] == "172.31.3.0/24"
    assert package.value("ip") == "172.31.3.251"


def test_back_passes_by_what_is_not_shown(package: Package) -> None:
    package.ask(["=", "=", "=", "<", "false", "192.168.1.90", "=", "192.168.1.12", "<",
                 "192.168.1.13", *ANSWERS[6:]])
    assert package.shown[:5] == ["primary", "othername", "usenic1", "clusterip", "usenic1"]
    assert package.value("usenic1") == "false"
    assert package.value("otherip") == "192.168.1.13"


def test_a_suggestion_follows_an_answer_that_was_taken_back(package: Package) -> None:
    package.ask(["=", "=", "=", "192.168.1.90", "<", "<", "<", "<", "false", *ANSWERS[1:]])
    assert package.shown[4:9] == ["ip", "clusterip", "usenic1", "othername", "primary"]
    assert (package.value("ip"), package.value("otherip")) == ("10.0.3.252", "10.0.3.251")


def test_back_from_the_first_question_ends_it(package: Package) -> None:
    assert package.ask(["<"]) == {}
    assert package.shown == ["primary"]
    assert package.value("clusterip") == ""


def test_nobody_there_and_nothing_said(package: Package) -> None:
    with pytest.raises(UserError) as trouble:
        package.ask()
    assert trouble.value.points == ["no answer to asha/clusterip, asha/drbddev"]
    assert package.shown == []
    assert package.value("clusterip") == ""


def test_preseeded_answers_are_not_asked(package: Package) -> None:
    package.debconf.preseed({"clusterip": "192.168.1.90", "drbddev": DISK})
    values = package.ask()
    assert package.shown == []
    assert package.value("otherip") == "10.0.3.252"
    assert conf.site_of(values).virtual_address == "192.168.1.90"


def test_preseeded_answers_that_will_not_do_are_named(package: Package) -> None:
    package.debconf.preseed(
        {"clusterip": "192.168.2.90", "othername": "crm1", "drbddev": "/dev/nix"})
    with pytest.raises(UserError) as trouble:
        package.ask()
    assert [line.split(":")[0] for line in trouble.value.points if not line.startswith(" ")] == [
        "asha/othername", "asha/clusterip", "asha/drbddev"]


def test_preseeded_answers_that_will_not_do_are_asked_where_somebody_is(package: Package) -> None:
    package.debconf.preseed({"clusterip": "192.168.2.90"})
    package.ask(ANSWERS)
    assert package.shown == ALL


OF_2014 = {
    "PRIMARY": "true", "USENIC1": "true", "CLUSTERIP": "192.168.1.90",
    "CLUSTERALERT": "admin@aelintra.com", "SITEID": "AEL TEST CLUSTER",
    "ANODEIP": "10.0.3.251", "BNODEIP": "10.0.3.252", "ANODENAME": "crm1",
    "BNODENAME": "crm2", "DRBDDEV": DISK, "CLUSTERNET": "10.0.3.0",
    "IP": "10.0.3.251", "RHINOSPF": "YES", "RHINOUSB": "/dev/ttyUSB1",
}


def test_a_file_of_2014_answers(package: Package) -> None:
    package.known = OF_2014
    values = package.ask(["="])
    # It did not know of kinds of relays.
    assert package.shown == ["relaydriver"]
    assert (package.value("siteid"), package.value("rhinousb"), package.value("relay")) == (
        "AEL TEST CLUSTER", "/dev/ttyUSB1", "here")
    assert values == values | OF_2014


def test_what_is_not_asked_is_kept(package: Package) -> None:
    package.known = OF_2014 | {"LDAP": "YES", "BNODELAN": "192.168.1.12",
                               "RELAYPROGRAM": "/opt/rhino"}
    values = package.ask(["="])
    assert (values["LDAP"], values["BNODELAN"], values["RELAYPROGRAM"]) == (
        "YES", "192.168.1.12", "/opt/rhino")


@pytest.mark.parametrize("changes", [
    {"PRIMARY": "false", "IP": "10.0.3.252"},
    {"PRIMARY": "false", "IP": ""},
    # Its own node as A on both nodes.
    {"PRIMARY": "false", "IP": "10.0.3.252", "ANODEIP": "10.0.3.252", "BNODEIP": "10.0.3.251",
     "ANODENAME": "crm2", "BNODENAME": "crm1"},
])
def test_a_file_of_the_second_node_is_read_from_there(
    package: Package, changes: dict[str, str]
) -> None:
    package.facts = replace(HERE, name="crm2")
    package.known = OF_2014 | changes
    package.ask(["="])
    assert package.value("primary") == "false"
    assert [package.value(name) for name in ("ip", "otherip", "othername")] == [
        "10.0.3.252", "10.0.3.251", "crm1"]


def test_the_file_is_never_run(package: Package) -> None:
    package.known = values_of("SITEID=$(touch /tmp/x) `id` \"quoted\"\nRELAYDRIVER=rhino")
    package.known = OF_2014 | package.known
    package.ask()
    assert package.value("siteid") == "$(touch /tmp/x) `id` \"quoted"


def test_reconfiguring_asks_all_again(package: Package) -> None:
    package.known = OF_2014 | {"RHINOSPF": "NO"}
    package.ask(["="] * len(ALL), again=True)
    assert package.shown == ALL


def test_reconfiguring_a_node_of_a_cluster_leaves_what_both_agree_on(package: Package) -> None:
    package.known = OF_2014 | {"RHINOSPF": "NO"}
    package.facts = replace(HERE, owned=True)
    package.debconf.preseed({"ip": "10.0.3.77"})
    values = package.ask(["new@b.c", "=", "="], again=True)
    assert package.shown == ["in-cluster: ", "clusteralert", "siteid", "relay"]
    assert package.value("ip") == "10.0.3.251"
    assert values == values | {"ANODEIP": "10.0.3.251", "CLUSTERALERT": "new@b.c"}


def test_the_one_free_partition_is_the_default(package: Package) -> None:
    package.facts = replace(HERE, free_disks=(Disk(DISK, 3 * GB),))
    package.ask(with_answer("drbddev", "="))
    assert package.value("drbddev") == DISK
    assert package.debconf.words["drbddev", "HERE"] == f"{DISK} (free, 3.2 GB)"


def test_without_a_free_partition_none_is_offered(package: Package) -> None:
    package.ask(ANSWERS)
    assert package.debconf.words["drbddev", "HERE"] == "none found"


def test_what_is_quoted_is_one_line(package: Package) -> None:
    package.ask(with_answer("siteid", "a\x1b[31mb", "ok"))
    assert package.shown[ALL.index("siteid") + 1] == (
        "problem: SITEID: has characters that cannot be printed")
    talk = Debconf(package.debconf, package.debconf)  # type: ignore[arg-type]
    talk.set("siteid", "a\nSTOP\x1b")
    assert package.value("siteid") == r"a\nSTOP\x1b"


def test_a_debconf_that_ends_or_complains() -> None:
    with pytest.raises(UserError, match="has ended the conversation"):
        Debconf(io.StringIO(""), io.StringIO())
    talk = Debconf(io.StringIO("0 2.0\n0\n10 asha/nix doesn't exist\n"), io.StringIO())
    with pytest.raises(UserError, match="debconf answers 10 asha/nix doesn't exist to: GET"):
        talk.get("nix")


# The command, as postinst calls it.


def run_command(
    package: Package, monkeypatch: pytest.MonkeyPatch, answers: Sequence[str] | None = None,
    again: bool = False,
) -> int:
    package.debconf.answers = None if answers is None else list(answers)
    package.machine.on("uname -n", "crm1\n")
    monkeypatch.setattr(configure, "Machine", lambda: package.machine)
    monkeypatch.setattr(facts, "gather", lambda machine: package.facts)
    monkeypatch.setattr(configure, "open_debconf", lambda: Debconf(
        package.debconf, package.debconf))  # type: ignore[arg-type]
    monkeypatch.setenv("DEBCONF_RECONFIGURE", "1" if again else "")
    return configure.run(configure_options())


def configure_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure.arguments(parser)
    return parser.parse_args(["--debconf"])


def test_the_command_writes_the_answers(
    package: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(package, monkeypatch, ANSWERS) == 0
    assert "CLUSTERIP=192.168.1.90\n" in (package.machine.read(conf.CONF) or "")
    assert "asha install makes it a node" in capsys.readouterr().out


def test_an_upgrade_asks_nothing_and_the_file_rules(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{key}={value}\n" for key, value in OF_2014.items()).replace(".90", ".77")
    package.machine.put(conf.CONF, text)
    package.debconf.preseed({"clusterip": "192.168.1.90"})
    assert run_command(package, monkeypatch, []) == 0
    assert package.shown == []
    assert package.value("clusterip") == "192.168.1.77"
    assert package.machine.read(conf.CONF) == text


def test_a_file_of_2014_is_found_where_it_was(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{key}={value}\n" for key, value in OF_2014.items())
    package.machine.put(configure.CONF_2014, text)
    run_command(package, monkeypatch, ["="])
    assert "SITEID=AEL TEST CLUSTER\n" in (package.machine.read(conf.CONF) or "")


def test_reconfiguring_an_installed_node_writes_what_may_change(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_command(package, monkeypatch, ANSWERS)
    package.machine.put(MARKER)
    package.facts = replace(HERE, owned=True)
    run_command(package, monkeypatch, ["new@b.c", "=", "="], again=True)
    text = package.machine.read(conf.CONF) or ""
    assert "CLUSTERALERT=new@b.c\n" in text
    assert "ANODEIP=10.0.3.251\n" in text


def test_no_answers_write_nothing(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no answers"):
        run_command(package, monkeypatch, ["<"])
    assert not package.machine.exists(conf.CONF)


# The package's files.


def test_every_question_has_a_template_and_every_template_its_question() -> None:
    names = re.findall(r"^Template: asha/(\S+)", TEMPLATES, re.MULTILINE)
    asked = {question.name for question in QUESTIONS} - {"name"}
    assert set(names) - set(NOTICES) == asked
    assert len(names) == len(set(names))


def test_the_templates_are_of_the_questions_kind() -> None:
    asking = Asking(HERE, {})
    for question in QUESTIONS:
        about = TEMPLATES.partition(f"Template: asha/{question.name}\n")[2].split("\n\n")[0]
        assert ("Type: boolean" in about) == debconf.is_boolean(question)
        if "Type: select" in about:
            words = [word for word, _ in question.choices(asking)]
            assert f"Choices: {', '.join(words)}\n" in about
        elif question.here is not None or (question.choices(asking) and "string" in about):
            assert "${HERE}" in about


def test_the_template_for_translators_has_every_description() -> None:
    pot = (DEBIAN / "po/templates.pot").read_text(encoding="utf-8")
    translated = "".join(re.findall(r'^(?:msgid )?"(.*)"$', pot, re.MULTILINE)).replace('\\"', '"')
    for template in re.findall(r"^_Description: ((?:.|\n )+)", TEMPLATES, re.MULTILINE):
        short, *long = template.splitlines()
        for text in [short, *" ".join(line.strip() for line in long).split(" . ")]:
            assert text in translated, text


@pytest.mark.parametrize("name", ["config", "postinst", "postrm", "preinst", "prerm"])
def test_the_scripts_are_shell(name: str) -> None:
    script = DEBIAN / f"asha.{name}"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_the_scripts_stay_small() -> None:
    scripts = [DEBIAN / f"asha.{name}" for name in
               ("config", "postinst", "postrm", "preinst", "prerm")]
    assert sum(len(script.read_text().splitlines()) for script in scripts) < 350
