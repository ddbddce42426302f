"""asha secret rotate, as a person on either node finds it."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.bootstrap.join import accounts, client, rotation
from asha.bootstrap.join.client import WrongSecretThere
from asha.bootstrap.join.protocol import Body
from asha.cluster import corosync, generation
from asha.cluster import secret as secrets
from asha.cluster.cib import MARKER
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands import check, common, remove_node
from asha.commands import secret as command
from asha.errors import UserError
from tests.unit.test_bootstrap_rotation import NEW, OLD, Node, Pair

OTHER = Secret(bytes(range(7, 39)))
ALONE = "runtime.members.1.status (str) = joined\n"


class Both:
    """Two nodes, at one of which somebody sits."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pair = Pair(root)
        self.at = "crm1"
        self.reachable = True
        self.monkeypatch = monkeypatch
        for node in self.pair.nodes.values():
            node.put(MARKER)
        monkeypatch.setattr(command, "load_site", lambda: self.here.site)
        monkeypatch.setattr(command, "need_root", lambda what: None)
        monkeypatch.setattr(command, "Machine", lambda: self.here)
        monkeypatch.setattr(command, "only_one", contextlib.nullcontext)
        monkeypatch.setattr(accounts, "login_problem", lambda who: "")
        monkeypatch.setattr(client, "ask_secret", self._ask)
        monkeypatch.setattr(client, "have_rotated", self._have)
        self.type("")

    @property
    def here(self) -> Node:
        return self.pair.nodes[self.at]

    @property
    def there(self) -> Node:
        return next(node for node in self.pair.nodes.values() if node is not self.here)

    def type(self, text: str) -> None:
        self.monkeypatch.setattr("sys.stdin", io.StringIO(text))

    def sit_and_type(self, *lines: str) -> None:
        """At a terminal."""
        typed = iter(lines)

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        self.monkeypatch.setattr("sys.stdin", Terminal())
        self.monkeypatch.setattr("builtins.input", lambda prompt: next(typed))

    def _known(self) -> list[Secret]:
        return [one for one in (generation.current(self.there), generation.pending(self.there))
                if one]

    def _ask(self, site: Site, secret: Secret) -> Body:
        if not self.reachable:
            raise UserError(f"{site.there.name} does not answer", "is it on?")
        if secret not in self._known():
            raise WrongSecretThere(f"the secret is not the one of {site.there.name}")
        old, new = generation.current(self.there), generation.pending(self.there)
        assert old is not None
        nodes = corosync.parse(self.there.read(corosync.CONF) or "").nodes
        return {"ok": True, "id": old.key_id(), "new": new.key_id() if new else "",
                "applied": rotation.is_applied(self.there, old),
                "member": self.at in {node.name for node in nodes}}

    def _have(self, site: Site, secret: Secret, step: str) -> None:
        rotation.apply(step, self.there, self.there.site,
                       rotation.find(self.there, secret.key_id()))

    def rotate(self, at: str, **given: object) -> int:
        self.at = at
        options = {"what": "rotate", "step": None, "yes": True, "alone": False,
                   "secret_file": None, **given}
        return command.run(argparse.Namespace(**options))

    def waits(self, then: Callable[[], object]) -> None:
        """While the first waits, this happens, once."""
        node = self.pair.nodes["crm1"]
        left = [then]

        def pause(seconds: float) -> None:
            node.clock += seconds
            if left and generation.pending(node):
                left.pop()()
                self.at = "crm1"

        self.monkeypatch.setattr(node, "pause", pause)

    def shown(self) -> str:
        """The new secret, as the first node has it."""
        new = generation.pending(self.pair.nodes["crm1"])
        assert new is not None
        return new.typed

    def all_new(self) -> Secret:
        """Everything is made of one secret that is not the old one."""
        held = [generation.current(node) for node in self.pair.nodes.values()]
        assert held[0] is not None
        assert held[0] == held[1] != OLD
        for node in self.pair.nodes.values():
            assert generation.pending(node) is None
            assert rotation.is_applied(node, held[0])
        return held[0]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    return Both(tmp_path, monkeypatch)


def test_one_shows_the_other_types(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    def typed() -> None:
        shown = both.shown()
        both.sit_and_type("nonsense", OTHER.typed, shown.lower().replace("-", " "))
        assert both.rotate("crm2") == 0

    both.waits(typed)
    assert both.rotate("crm1") == 0
    new = both.all_new()
    said = capsys.readouterr().out
    assert new.typed in said
    assert "it is not the new one of crm1" in said
    assert "crm1 and crm2 have the new secret" in said


def test_nothing_is_asked_of_a_script(both: Both) -> None:
    def typed() -> None:
        both.type(both.shown())
        assert both.rotate("crm2", secret_file="-") == 0

    both.waits(typed)
    both.rotate("crm1")
    both.all_new()


def test_without_a_terminal_the_other_is_told_what_is_needed(both: Both) -> None:
    rotation.begin(both.pair.nodes["crm1"], both.pair.nodes["crm1"].site, NEW)
    with pytest.raises(UserError, match="the secret of crm1 is needed") as trouble:
        both.rotate("crm2")
    assert "--secret-file" in trouble.value.hint
    assert generation.pending(both.pair.nodes["crm2"]) is None


def test_it_asks_first(both: Both) -> None:
    with pytest.raises(UserError, match="nothing was changed"):
        both.rotate("crm1", yes=False)
    assert not both.here.exists(generation.PENDING)


def test_it_waits_for_so_long(both: Both) -> None:
    with pytest.raises(UserError, match="crm2 has not got the new secret yet"):
        both.rotate("crm1")
    assert both.here.clock >= command.WAIT_SECONDS
    assert generation.current(both.here) == OLD
    # The same one again, not another.
    new = both.shown()
    def typed() -> None:
        both.type(new)
        both.rotate("crm2", secret_file="-")

    both.waits(typed)
    both.rotate("crm1")
    assert both.all_new().typed == new


@pytest.mark.parametrize("at", ["crm1", "crm2"])
def test_either_goes_on_when_both_have_it(both: Both, at: str) -> None:
    both.pair.begin()
    both.rotate(at)
    assert both.all_new() == NEW


@pytest.mark.parametrize("at", ["crm1", "crm2"])
def test_cut_off_between_the_two_ends(both: Both, at: str) -> None:
    both.pair.begin()
    both.rotate("crm2")
    both.pair.nodes["crm1"].put(secrets.PATH, OLD.text, 0o600)
    both.pair.nodes["crm1"].put(generation.PENDING, NEW.text, 0o600)
    both.rotate(at)
    assert both.all_new() == NEW


def test_both_have_begun(both: Both) -> None:
    """One gives way: that on which the other's is typed."""
    rotation.begin(both.pair.nodes["crm1"], both.pair.nodes["crm1"].site, NEW)
    rotation.begin(both.pair.nodes["crm2"], both.pair.nodes["crm2"].site, OTHER)
    both.type(NEW.typed)
    both.rotate("crm2", secret_file="-")
    assert both.all_new() == NEW


def test_a_node_that_is_off_is_not_left_behind_unasked(both: Both) -> None:
    both.reachable = False
    with pytest.raises(UserError, match="crm2 does not answer; nothing was changed") as trouble:
        both.rotate("crm1")
    assert "asha secret rotate --alone" in trouble.value.hint
    assert not both.here.exists(generation.PENDING)
    with pytest.raises(UserError, match="crm2 is in the cluster"):
        both.rotate("crm1", alone=True)
    both.here.on("corosync-cmapctl runtime.members.", ALONE)
    # Of a node that is off nobody knows whether it hears.
    both.monkeypatch.setattr(both.pair, "moment", lambda: None)
    both.rotate("crm1", alone=True)
    new = generation.current(both.here)
    assert new not in (None, OLD)
    assert new is not None
    assert rotation.is_applied(both.here, new)
    assert generation.current(both.there) == OLD
    # It comes back, and is told.
    both.reachable = True
    both.pair.nodes["crm2"].on("corosync-cmapctl runtime.members.",
                               ALONE.replace("members.1", "members.2"))
    both.type(new.typed)
    both.rotate("crm2", secret_file="-")
    assert both.all_new() == new


def test_the_wrong_one_for_a_node_that_comes_back(both: Both) -> None:
    both.pair.nodes["crm1"].put(secrets.PATH, NEW.text, 0o600)
    both.type(OTHER.typed)
    with pytest.raises(UserError, match="the secret is not the one of crm1"):
        both.rotate("crm2", secret_file="-")
    assert generation.current(both.here) == OLD
    assert generation.pending(both.here) is None


@pytest.mark.parametrize("at", ["crm1", "crm2"])
def test_a_secret_changed_by_hand_on_one(both: Both, at: str) -> None:
    """Whichever node the hint is followed on, one secret is in all places then."""
    both.pair.nodes["crm1"].put(secrets.PATH, OTHER.text, 0o600)
    typed = OLD if at == "crm1" else OTHER
    both.type(typed.typed)
    both.rotate(at, secret_file="-")
    for node in both.pair.nodes.values():
        assert generation.current(node) == typed
        assert rotation.is_applied(node, typed)


def test_a_secret_changed_by_hand_on_both(both: Both) -> None:
    for node in both.pair.nodes.values():
        node.put(secrets.PATH, OTHER.text, 0o600)
        [found] = check.of_secret(node)
        assert "keys are made of" in found.what

    def typed() -> None:
        both.type(both.shown())
        both.rotate("crm2", secret_file="-")

    both.waits(typed)
    both.rotate("crm1")
    both.all_new()
    for node in both.pair.nodes.values():
        assert check.of_secret(node) == []


def test_a_lost_secret(both: Both) -> None:
    """asha install would make another one."""
    node = both.pair.nodes["crm1"]
    node.path(secrets.PATH).unlink()
    made = common.cluster_secret(node.site, node)
    with pytest.raises(UserError, match="keys are made of"):
        rotation.require_in_use(node, made)
    both.type(OLD.typed)
    both.rotate("crm1", secret_file="-")
    assert generation.current(node) == OLD


def test_a_removed_node_that_was_told(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = both.pair.nodes["crm1"], both.pair.nodes["crm2"]
    both.monkeypatch.setattr(both.pair, "moment", lambda: None)
    first.put(corosync.CONF, corosync.render(first.site, joined=False))
    first.on("corosync-cmapctl runtime.members.", ALONE)
    both.rotate("crm1")  # no --alone needed: there is nobody else
    new = generation.current(first)
    assert new is not None
    assert new.typed in capsys.readouterr().out
    second.on("corosync-cmapctl runtime.members.", ALONE.replace("members.1", "members.2"))
    before = first.lines
    both.type(new.typed)
    both.rotate("crm2", secret_file="-")
    assert rotation.is_applied(second, new)
    assert first.lines == before
    assert "asha install" in capsys.readouterr().out


def test_interrupted_says_how_to_go_on(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    both.waits(interrupted)
    with pytest.raises(KeyboardInterrupt):
        both.rotate("crm1")
    assert "asha secret rotate goes on" in capsys.readouterr().out
    assert generation.current(both.here) == OLD


def test_the_unit_does_one_step_and_tells_why_not(both: Both) -> None:
    both.pair.begin()
    both.rotate("crm1", what="apply", step=f"corosync-key:{NEW.key_id()}")
    assert both.here.read(corosync.AUTHKEY) == NEW.corosync_authkey()
    with pytest.raises(UserError):
        both.rotate("crm1", what="apply", step=f"drbd:{OLD.key_id()}")
    assert rotation.told(both.here)[0] == f"this node has no secret {OLD.key_id()}"
    assert both.here.path(rotation.TOLD).stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match="there is no step"):
        both.rotate("crm1", what="apply", step="anything")


def test_a_removal_ends_with_a_secret_that_nobody_has_typed(
    both: Both, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where one was half way in: it may be on the node that is gone."""
    first = both.pair.nodes["crm1"]
    both.monkeypatch.setattr(both.pair, "moment", lambda: None)
    both.pair.begin()
    for name in ("load_site", "need_root", "Machine", "only_one"):
        monkeypatch.setattr(remove_node, name, getattr(command, name))
    first.on("corosync-cmapctl runtime.members.", ALONE).on("crm_node -R")
    first.on("corosync-cmapctl nodelist.node.", lambda argv, stdin: "".join(
        f"nodelist.node.{number}.name (str) = {node.name}\n" for number, node
        in enumerate(corosync.parse(first.read(corosync.CONF) or "").nodes)))
    first.on("systemctl is-active firewalld.service", "inactive")
    assert remove_node.run(argparse.Namespace(name="crm2", yes=True)) == 0
    held = generation.current(first)
    assert held not in (None, OLD, NEW)
    assert held is not None
    assert rotation.is_applied(first, held)
    assert generation.pending(first) is None
    assert held.typed in capsys.readouterr().out
    # Again changes nothing.
    assert remove_node.run(argparse.Namespace(name="crm2", yes=True)) == 0
    assert generation.current(first) == held
    assert held.typed not in capsys.readouterr().out
    # Cut off after the other was forgotten: that one is gone on with.
    first.put(generation.PENDING, OTHER.text, 0o600)
    assert remove_node.run(argparse.Namespace(name="crm2", yes=True)) == 0
    assert generation.current(first) == OTHER
