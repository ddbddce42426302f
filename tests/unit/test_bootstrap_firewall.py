"""Step 10: restrict the cluster's ports to the peer, whatever rules the machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from asha.bootstrap.firewall import backends, fail2ban, nftables, shorewall
from asha.bootstrap.host.ports import allowed, openings
from asha.cluster import corosync
from asha.cluster.cib import MARKER
from asha.cluster.site import NodeConfig, Site
from asha.errors import UserError
from tests.fakes.machine import FakeMachine, Outcome

SITE = Site(
    first=NodeConfig("crm1", "10.0.3.251", "192.168.1.11", 1),
    second=NodeConfig("crm2", "10.0.3.252", "192.168.1.12", 2),
    is_first=True,
    two_nics=True,
    virtual_address="192.168.1.90",
    lan_prefix=24,
    lan_nic="eth0",
    link_nic="eth1",
    link_prefix=24,
    device="/dev/sda5",
)
DYNAMIC = dataclasses.replace(SITE, second=NodeConfig("crm2", "10.0.3.252", "", 2))
ONE_NIC = dataclasses.replace(
    DYNAMIC, two_nics=False, second=NodeConfig("crm2", "192.168.1.12", "", 2)
)


def silent(text: str) -> None:
    pass


def units(fake: FakeMachine, *, active: tuple[str, ...] = (),
          enabled: tuple[str, ...] = ()) -> FakeMachine:
    # A member, of which the other node is one too.
    fake.put(corosync.CONF, corosync.render(SITE, joined=True))
    for verb, good, bad, those in (("is-active", "active", "inactive", active),
                                   ("is-enabled", "enabled", "disabled", enabled)):
        for name in ("shorewall", "firewalld", "fail2ban", "asha-firewall"):
            unit = f"{name}.service"
            ok = unit in those
            fake.on(f"systemctl {verb} {unit}", Outcome(good if ok else bad, 0 if ok else 1))
    return fake


def test_what_is_opened() -> None:
    assert [(o.nic, o.peer, o.protocol, o.port) for o in openings(SITE)] == [
        ("eth1", "10.0.3.252", "udp", 5405),
        ("eth1", "10.0.3.252", "tcp", 7788),
        ("eth1", "10.0.3.252", "tcp", 5409),
        ("eth0", "192.168.1.12", "udp", 5406),
    ]
    assert [o.port for o in openings(DYNAMIC)] == [5405, 7788, 5409]
    assert {(o.nic, o.peer) for o in openings(ONE_NIC)} == {("eth0", "192.168.1.12")}


def alone(fake: FakeMachine) -> FakeMachine:
    """The other node has not joined yet, or was removed."""
    return fake.put(corosync.CONF, corosync.render(SITE, joined=False))


def test_who_is_no_member_may_only_ask_to_be_let_in(tmp_path: Path) -> None:
    fake = units(FakeMachine(tmp_path))
    assert allowed(SITE, fake) == openings(SITE)
    assert [o.port for o in allowed(SITE, alone(fake))] == [5409]
    # Debian's own cluster of "node1", before there is ours.
    fake.put(corosync.CONF, "nodelist {\n node {\n name: node1\n nodeid: 1\n }\n}\n")
    assert [o.port for o in allowed(SITE, fake)] == [5409]
    second = dataclasses.replace(SITE, is_first=False)
    assert [o.port for o in allowed(second, fake)] == [5405, 7788, 5409, 5406]
    # An installed one whose other node was removed.
    fake.put(MARKER)
    assert [o.port for o in allowed(second, fake)] == [5409]


# Which one rules.

def names(fake: FakeMachine) -> list[str]:
    return [action.title for action in backends.actions(SITE, backends.look(fake))]


def test_shorewall_rules_where_it_is_enabled(tmp_path: Path) -> None:
    fake = units(FakeMachine(tmp_path), active=("firewalld.service",),
                 enabled=("shorewall.service",)).installed("shorewall")
    fake.put("/etc/shorewall/interfaces").absent("fail2ban-client")
    assert names(fake) == ["open Shorewall to the other node"]


@pytest.mark.parametrize("lack", ["program", "enabled", "configured"])
def test_a_shorewall_that_does_not_rule_is_passed_by(tmp_path: Path, lack: str) -> None:
    fake = units(FakeMachine(tmp_path), active=("firewalld.service",),
                 enabled=() if lack == "enabled" else ("shorewall.service",))
    if lack != "program":
        fake.installed("shorewall")
    if lack != "configured":
        fake.put("/etc/shorewall/interfaces")
    assert names(fake) == ["open firewalld to the other node"]


def test_else_a_table_of_our_own(tmp_path: Path) -> None:
    assert names(units(FakeMachine(tmp_path)))[-1] == "load the firewall"


# firewalld.

class Firewalld:
    def __init__(self, fake: FakeMachine) -> None:
        self.rules: set[tuple[str, ...]] = set()
        fake.on("firewall-cmd", self.run)
        fake.on("firewall-cmd --get-default-zone", "public\n")
        fake.on("firewall-cmd --get-zone-of-interface=eth0", "internal\n")
        fake.on("firewall-cmd --get-zone-of-interface=eth1", Outcome("no zone", 2))

    def run(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        *scope, zone, order = argv[1:]
        verb, _, rule = order.partition("-rich-rule=")
        key = (*scope, zone, rule)
        if verb == "--add":
            self.rules.add(key)
            return Outcome("success")
        if verb == "--remove":
            self.rules.remove(key)
            return Outcome("success")
        assert verb == "--query"
        return Outcome("yes" if key in self.rules else "no", 0 if key in self.rules else 1)


def test_firewalld_gets_rules_for_now_and_for_good_in_each_nics_zone(tmp_path: Path) -> None:
    fake = units(FakeMachine(tmp_path), active=("firewalld.service",))
    daemon = Firewalld(fake)
    [action] = backends.actions(SITE, backends.look(fake))
    assert not action.is_done(fake)
    action.do(fake, silent)
    assert action.is_done(fake)
    assert len(daemon.rules) == 8
    corosync = ('rule family="ipv4" source address="10.0.3.252" '
                'port port="5405" protocol="udp" accept')
    assert ("--zone=public", corosync) in daemon.rules
    assert ("--permanent", "--zone=public", corosync) in daemon.rules
    assert {key[-2] for key in daemon.rules if "192.168.1.12" in key[-1]} == {"--zone=internal"}
    daemon.rules.remove(("--zone=public", corosync))
    assert not action.is_done(fake)


def test_firewalld_is_closed_to_a_removed_node(tmp_path: Path) -> None:
    fake = units(FakeMachine(tmp_path), active=("firewalld.service",))
    daemon = Firewalld(fake)
    backends.actions(SITE, backends.look(fake))[0].do(fake, silent)
    backends.close(SITE, alone(fake), silent)
    assert len(daemon.rules) == 2
    assert all('port="5409"' in key[-1] for key in daemon.rules)
    before = set(daemon.rules)
    backends.close(SITE, fake, silent)
    assert daemon.rules == before


# nftables.

Rule = dict[str, Any]


def chain(table: str, name: str = "input", policy: str = "accept", family: str = "inet",
          hook: str = "input") -> Rule:
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1,
                      "type": "filter", "hook": hook, "prio": 0, "policy": policy}}


def rule(table: str, *expr: Rule, name: str = "input", family: str = "inet", comment: str = "",
         handle: int = 7) -> Rule:
    made: Rule = {"family": family, "table": table, "chain": name, "handle": handle,
                  "expr": list(expr)}
    if comment:
        made["comment"] = comment
    return {"rule": made}


def comments(site: Site = SITE) -> list[str]:
    return [f"asha: {o.protocol} {o.port} from {o.peer} on {o.nic}" for o in openings(site)]


def ours() -> list[Rule]:
    return [chain("asha"), *(rule("asha", {"accept": None}, comment=one) for one in comments())]


def with_ruleset(tmp_path: Path, *ruleset: Rule) -> FakeMachine:
    fake = FakeMachine(tmp_path).on("nft")
    return fake.on("nft -j list ruleset", json.dumps({"nftables": [{"metainfo": {}}, *ruleset]}))


def test_the_table_lets_the_peer_in_and_drops_the_rest() -> None:
    lines = [line.strip() for line in nftables.render(openings(SITE), openings(SITE)).splitlines()]
    assert ('iifname "eth1" ip saddr 10.0.3.252 tcp dport 7788 accept '
            'comment "asha: tcp 7788 from 10.0.3.252 on eth1"') in lines
    assert "udp dport { 5405, 5406 } drop" in lines
    assert "tcp dport { 5409, 7788 } drop" in lines
    # Declared before it is deleted, so that the first load works as the next ones do.
    assert lines.index("table inet asha") < lines.index("delete table inet asha")


def test_nothing_loaded_is_not_in_force(tmp_path: Path) -> None:
    assert not nftables.in_force(with_ruleset(tmp_path), openings(SITE))
    assert not nftables.in_force(FakeMachine(tmp_path).absent("nft"), openings(SITE))


def test_our_table_alone_is_enough_where_nothing_else_drops(tmp_path: Path) -> None:
    open_chain = [chain("filter"), rule("filter", {"accept": None})]
    fake = with_ruleset(tmp_path, *ours(), *open_chain)
    assert nftables.in_force(fake, openings(SITE))
    assert not nftables.in_force(fake, openings(DYNAMIC))


DROPPING = {
    "policy": [chain("filter", policy="drop")],
    "drop": [chain("filter"), rule("filter", {"drop": None})],
    "reject": [chain("filter"), rule("filter", {"counter": {}}, {"reject": None})],
    "jump": [chain("filter"), rule("filter", {"jump": {"target": "x"}}),
             rule("filter", {"goto": {"target": "y"}}, name="x"),
             rule("filter", {"drop": None}, name="y")],
    "loop": [chain("filter"), rule("filter", {"jump": {"target": "x"}}),
             rule("filter", {"jump": {"target": "x"}}, name="x"),
             rule("filter", {"drop": None}, name="x")],
    "iptables": [chain("filter", family="ip"), rule("filter", {"xt": None}, family="ip")],
}


@pytest.mark.parametrize("how", DROPPING)
def test_a_chain_that_drops_gets_the_same_rules(tmp_path: Path, how: str) -> None:
    family = "ip" if how == "iptables" else "inet"
    fake = with_ruleset(tmp_path, *ours(), *DROPPING[how])
    assert not nftables.in_force(fake, openings(SITE))
    nftables.load(fake, openings(SITE))
    inserted = fake.ran(f"nft insert rule {family} filter input")
    assert len(inserted) == 4
    assert inserted[0].argv[-1].startswith('iifname "eth1" ip saddr 10.0.3.252 udp dport 5405 ')
    there = [rule("filter", {"accept": None}, family=family, comment=one) for one in comments()]
    again = with_ruleset(tmp_path, *ours(), *DROPPING[how], *there)
    assert nftables.in_force(again, openings(SITE))
    nftables.load(again, openings(SITE))
    assert not again.ran("nft insert")


@pytest.mark.parametrize("ruleset", [
    [chain("f2b-table", "f2b-chain"), rule("f2b-table", {"reject": None}, name="f2b-chain")],
    [chain("filter", "INPUT", family="ip"),
     rule("filter", {"jump": {"target": "f2b-sshd"}}, name="INPUT", family="ip"),
     rule("filter", {"reject": None}, name="f2b-sshd", family="ip")],
    [chain("filter", hook="forward", policy="drop")],
    [chain("filter", policy="drop", family="ip6")],
])
def test_what_never_drops_the_other_node_is_left_alone(
    tmp_path: Path, ruleset: list[Rule]
) -> None:
    fake = with_ruleset(tmp_path, *ours(), *ruleset)
    assert nftables.in_force(fake, openings(SITE))
    nftables.load(fake, openings(SITE))
    assert not fake.ran("nft insert")


def test_rules_for_another_address_go(tmp_path: Path) -> None:
    fake = with_ruleset(
        tmp_path, *ours(), chain("filter", policy="drop"),
        rule("filter", {"accept": None}, comment="asha: udp 5405 from 10.9.9.9 on eth1", handle=42),
        rule("filter", {"accept": None}, comment="somebody's asha: rule", handle=43),
    )
    assert not nftables.in_force(fake, openings(SITE))
    nftables.load(fake, openings(SITE))
    assert [call.argv[-1] for call in fake.ran("nft delete rule inet filter input")] == ["42"]


def test_unloading_leaves_nothing_of_ours_and_all_else(tmp_path: Path) -> None:
    fake = with_ruleset(
        tmp_path, *ours(), chain("filter", policy="drop"), rule("filter", {"drop": None}),
        rule("filter", {"accept": None}, comment=comments()[0], handle=42),
    )
    nftables.unload(fake)
    assert [str(call) for call in fake.ran("nft delete")] == [
        "nft delete table inet asha", "nft delete rule inet filter input handle 42"
    ]


def test_nft_is_closed_to_a_removed_node(tmp_path: Path) -> None:
    fake = alone(units(with_ruleset(tmp_path, *ours()), enabled=("asha-firewall.service",)))
    # Without step 10 there is nothing of ours.
    backends.close(SITE, fake, silent)
    assert not fake.exists(nftables.TABLE_FILE)
    fake.put(nftables.TABLE_FILE, nftables.render(openings(SITE), openings(SITE)))
    loads = fake.on("systemctl restart asha-firewall.service").ran
    backends.close(SITE, fake, silent)
    assert loads("systemctl restart asha-firewall.service")
    lines = [line.strip() for line in (fake.read(nftables.TABLE_FILE) or "").splitlines()]
    assert [line for line in lines if "accept comment" in line] == [
        'iifname "eth1" ip saddr 10.0.3.252 tcp dport 5409 accept '
        'comment "asha: tcp 5409 from 10.0.3.252 on eth1"'
    ]
    assert {"udp dport { 5405, 5406 } drop", "tcp dport { 5409, 7788 } drop"} <= {
        line.replace("7788, 5409", "5409, 7788") for line in lines}


def test_nft_is_loaded_by_its_unit(tmp_path: Path) -> None:
    fake = units(with_ruleset(tmp_path))
    made = nftables.actions(SITE, allowed(SITE, fake))
    made[0].do(fake, silent)
    assert fake.read(nftables.TABLE_FILE) == nftables.render(openings(SITE), openings(SITE))
    fake.on("systemctl enable asha-firewall.service")
    fake.on("systemctl restart asha-firewall.service", Outcome(code=1, err="no nft"))
    made[1].do(fake, silent)
    with pytest.raises(UserError, match="no nft") as trouble:
        made[2].do(fake, silent)
    assert "nftables" in trouble.value.hint


# Shorewall.

SARK_RULES = "# SARK\n\nPing/REJECT net $FW\nACCEPT $FW net icmp\nINCLUDE sark_rules\n"


def with_shorewall(tmp_path: Path, interfaces: str = "net eth0 detect dhcp\n",
                   rules: str = SARK_RULES) -> FakeMachine:
    fake = units(FakeMachine(tmp_path), enabled=("shorewall.service",)).installed("shorewall")
    for name, text in (("zones", "fw firewall\nnet ipv4"), ("interfaces", interfaces),
                       ("policy", "$FW net ACCEPT\nnet all DROP\nall all REJECT\n"),
                       ("rules", rules), ("shorewall.conf", "STARTUP_ENABLED=Yes\n")):
        fake.put(f"/etc/shorewall/{name}", text, mode=0o640)

    def compile_(argv: tuple[str, ...], stdin: str | None) -> str:
        fake.put(shorewall.COMPILED, fake.read("/etc/shorewall/rules") or "")
        fake.put(shorewall.COMPILED, " -s 10.0.3.252 -s 192.168.1.12 ")
        return ""

    return fake.on("shorewall check").on("shorewall status").on("shorewall reload", compile_)


def blocks(fake: FakeMachine, name: str) -> list[str]:
    lines = (fake.read(f"/etc/shorewall/{name}") or "").splitlines()
    if "# asha begin" not in lines:
        return []
    return lines[lines.index("# asha begin") + 1 : lines.index("# asha end")]


def test_shorewall_gets_a_zone_for_a_nic_that_has_none(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path)
    [action] = shorewall.actions(SITE, allowed(SITE, fake))
    assert not action.is_done(fake)
    assert "+ACCEPT asha:eth1:10.0.3.252 $FW udp 5405" in action.preview(fake)
    action.do(fake, silent)
    assert action.is_done(fake)
    assert blocks(fake, "zones") == ["asha ipv4"]
    assert blocks(fake, "interfaces") == ["asha eth1"]
    assert blocks(fake, "policy") == ["$FW asha ACCEPT", "asha all DROP", "all asha DROP"]
    assert "ACCEPT net:eth0:192.168.1.12 $FW udp 5406" in blocks(fake, "rules")
    # The first policy and the first rule that fit count.
    assert (fake.read("/etc/shorewall/policy") or "").startswith("# asha begin\n")
    rules = fake.read("/etc/shorewall/rules") or ""
    assert rules.startswith("# SARK\n\n# asha begin\n")
    assert rules.endswith("# asha end\n" + SARK_RULES.partition("\n\n")[2])
    assert fake.path("/etc/shorewall/rules").stat().st_mode & 0o777 == 0o640
    assert [str(call) for call in fake.calls] == [
        f"shorewall check {shorewall.TRIAL}", "shorewall status", "shorewall reload"
    ]
    before = {name: fake.read(f"/etc/shorewall/{name}") for name in ("zones", "rules", "policy")}
    action.do(fake, silent)
    assert before == {name: fake.read(f"/etc/shorewall/{name}") for name in before}


def test_shorewall_keeps_the_zone_that_the_nic_has(tmp_path: Path) -> None:
    # As the manual of 2014 has it, and with a logical name and a variable.
    fake = with_shorewall(
        tmp_path, "?FORMAT 2\nnet NET_IF dhcp,physical=$NET\nclst eth1\n"
    ).put("/etc/shorewall/params", "NET=eth0\n")
    [action] = shorewall.actions(SITE, allowed(SITE, fake))
    action.do(fake, silent)
    assert [blocks(fake, name) for name in ("zones", "interfaces", "policy")] == [[], [], []]
    assert "ACCEPT clst:eth1:10.0.3.252 $FW tcp 7788" in blocks(fake, "rules")
    assert "ACCEPT net:NET_IF:192.168.1.12 $FW udp 5406" in blocks(fake, "rules")


def test_shorewalls_rules_go_into_the_section_of_new_connections(tmp_path: Path) -> None:
    fake = with_shorewall(
        tmp_path, rules="?SECTION ALL\n?SECTION ESTABLISHED\n?SECTION NEW\nDROP net $FW\n"
    )
    shorewall.actions(SITE, allowed(SITE, fake))[0].do(fake, silent)
    text = fake.read("/etc/shorewall/rules") or ""
    assert "?SECTION NEW\n# asha begin\n" in text


def test_rules_that_shorewall_refuses_change_nothing(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path).on("shorewall check", Outcome(code=2, err="ERROR: no"))
    before = {name: fake.read(f"/etc/shorewall/{name}")
              for name in ("zones", "interfaces", "policy", "rules")}
    with pytest.raises(UserError, match=r"nothing was changed.*ERROR: no"):
        shorewall.actions(SITE, allowed(SITE, fake))[0].do(fake, silent)
    assert before == {name: fake.read(f"/etc/shorewall/{name}") for name in before}
    assert not fake.ran("shorewall reload")
    # What was to be checked had all of it.
    assert "asha eth1" in (fake.read(f"{shorewall.TRIAL}/interfaces") or "")


def test_a_shorewall_that_was_not_reloaded_is_not_done(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path)
    [action] = shorewall.actions(SITE, allowed(SITE, fake))
    action.do(fake, silent)
    fake.put(shorewall.COMPILED, " -s 10.0.3.252 ")
    assert not action.is_done(fake)


def test_shorewall_is_closed_to_a_removed_node(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path)
    shorewall.actions(SITE, allowed(SITE, fake))[0].do(fake, silent)
    backends.close(SITE, alone(fake), silent)
    assert blocks(fake, "rules") == ["ACCEPT asha:eth1:10.0.3.252 $FW tcp 5409",
                                     "ACCEPT $FW asha:eth1:10.0.3.252 tcp 5409"]
    assert len(fake.ran("shorewall reload")) == 2
    # Cut off before the reload: what is in force is looked at.
    [action] = shorewall.actions(SITE, allowed(SITE, fake))
    rule = " -A net-fw -s 10.0.3.252 -p tcp --dport {} -j ACCEPT\n"
    fake.put(shorewall.COMPILED, rule.format(5409) + rule.format(7788))
    assert not action.is_done(fake)
    fake.put(shorewall.COMPILED, rule.format(5409))
    assert action.is_done(fake)


def test_a_stopped_shorewall_is_not_started(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path).on("shorewall status", Outcome(code=3))
    shorewall.actions(SITE, allowed(SITE, fake))[0].do(fake, silent)
    assert not fake.ran("shorewall reload")
    assert shorewall.actions(SITE, allowed(SITE, fake))[0].is_done(fake)


def test_a_nic_in_several_zones_is_the_administrators(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path, "- eth0\n")
    [action] = shorewall.actions(SITE, allowed(SITE, fake))
    assert "CANNOT" in action.preview(fake)
    assert not action.is_done(fake)
    with pytest.raises(UserError, match="no zone of its own"):
        action.do(fake, silent)


@pytest.mark.parametrize("rules", [
    "# asha begin\nACCEPT net $FW tcp 22\n",
    "# asha begin\nACCEPT net $FW tcp 22\n# asha begin\nx\n# asha end\nACCEPT net $FW tcp 80\n",
    "# asha begin\nx\n# asha end\n# asha begin\nACCEPT net $FW tcp 22\n",
])
def test_a_block_without_an_end_costs_no_line_of_the_administrators(
    tmp_path: Path, rules: str
) -> None:
    fake = with_shorewall(tmp_path, rules=rules)
    [action] = shorewall.actions(SITE, allowed(SITE, fake))
    assert "CANNOT" in action.preview(fake)
    assert not action.is_done(fake)
    with pytest.raises(UserError, match='rules has a line "# asha begin" without') as trouble:
        action.do(fake, silent)
    assert "/etc/shorewall/rules" in trouble.value.hint
    assert fake.read("/etc/shorewall/rules") == rules


def test_shorewalls_files_keep_their_owner(tmp_path: Path) -> None:
    fake = with_shorewall(tmp_path)
    fake.owners["/etc/shorewall/rules"] = ("root", "adm")
    shorewall.actions(SITE, allowed(SITE, fake))[0].do(fake, silent)
    assert fake.owners["/etc/shorewall/rules"] == ("root", "adm")


# fail2ban.

def with_fail2ban(tmp_path: Path) -> FakeMachine:
    fake = units(FakeMachine(tmp_path), active=("fail2ban.service",))
    fake.put("/etc/fail2ban/jail.conf", "[DEFAULT]\n#ignoreip = 1.1.1.1\nbantime = 10m\n"
             "[sshd]\nport = ssh\n[sshd]\nport = 22\n")
    fake.on("fail2ban-client -t").on("fail2ban-client reload")
    fake.on("fail2ban-client status", "Status\n|- Number of jail: 1\n`- Jail list:\tsshd, x\n")
    return fake.on("fail2ban-client get sshd ignoreip", "|- 10.0.3.252\n`- 192.168.1.12\n")


def ignored(fake: FakeMachine, site: Site = SITE) -> str:
    [action] = fail2ban.actions(site, fail2ban.look(fake))
    action.do(fake, silent)
    assert action.is_done(fake)
    return fake.read(fail2ban.OURS) or ""


def test_fail2ban_ignores_the_other_nodes_addresses(tmp_path: Path) -> None:
    fake = with_fail2ban(tmp_path)
    assert ignored(fake).endswith("[DEFAULT]\nignoreip = 10.0.3.252 192.168.1.12\n")
    assert fake.ran("fail2ban-client reload")
    # Its own file is not what it repeats.
    assert all(action.is_done(fake) for action in fail2ban.actions(SITE, fail2ban.look(fake)))


def test_fail2ban_keeps_what_was_in_force_in_each_section(tmp_path: Path) -> None:
    fake = with_fail2ban(tmp_path)
    fake.put("/etc/fail2ban/jail.d/a.conf", "[DEFAULT]\nignoreip = 2.2.2.2\n")
    fake.put("/etc/fail2ban/jail.local",
             "[DEFAULT]\nignoreip = 127.0.0.1/8, 10.0.3.252\n    3.3.3.3\n"
             "[asterisk]\nenabled=true\n")
    fake.put("/etc/fail2ban/jail.d/b.local", "[asterisk]\nignoreip = 4.4.4.4\n")
    assert ignored(fake).endswith(
        "[DEFAULT]\nignoreip = 127.0.0.1/8 10.0.3.252 3.3.3.3 192.168.1.12\n"
        "[asterisk]\nignoreip = 4.4.4.4 10.0.3.252 192.168.1.12\n"
    )


def test_fail2ban_that_does_not_take_it_is_left_as_it_was(tmp_path: Path) -> None:
    fake = with_fail2ban(tmp_path).on("fail2ban-client -t", Outcome(code=255, err="broken"))
    with pytest.raises(UserError, match="broken"):
        fail2ban.actions(SITE, fail2ban.look(fake))[0].do(fake, silent)
    assert not fake.exists(fail2ban.OURS)
    assert not fake.ran("fail2ban-client reload")


def test_fail2ban_that_has_not_read_it_is_not_done(tmp_path: Path) -> None:
    fake = with_fail2ban(tmp_path)
    ignored(fake)
    fake.on("fail2ban-client get sshd ignoreip", "|- 10.0.3.2521\n`- 192.168.1.12\n")
    assert not fail2ban.actions(SITE, fail2ban.look(fake))[0].is_done(fake)


def test_a_stopped_fail2ban_is_not_talked_to(tmp_path: Path) -> None:
    fake = units(with_fail2ban(tmp_path))
    ignored(fake)
    assert not fake.ran("fail2ban-client reload")
    assert not fake.ran("fail2ban-client status")


def test_no_fail2ban_nothing_to_do(tmp_path: Path) -> None:
    assert fail2ban.actions(SITE, fail2ban.look(FakeMachine(tmp_path))) == []
