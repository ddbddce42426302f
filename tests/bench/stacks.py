"""The stacks that take turns on the same two nodes, and the change from one to the next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.lab import Lab, Node, Result, wait_for
from tests.lab.cluster import CIB, CLONES, SINGLES, Cluster
from tests.lab.faults import OURS, STOCK, STOCK_SIP
from tests.lab.image import FILES
from tests.lab.injectors import STORE

# The store's mirrored tree has them at the same places below /drbd.
LINKS = (
    "/etc/asterisk", "/var/lib/asterisk", "/var/spool/asterisk", "/opt/sark/db",
    "/var/log/asterisk", "/var/lib/mysql",
)
LINK = """\
primitive {name} ocf:heartbeat:symlink \\
    params link={path} target=/drbd{path} backup_suffix=.active \\
    op start timeout=15s interval=0s \\
    op stop timeout=15s interval=0s \\
    op monitor interval=60s timeout=15s
"""
# sipsak takes nothing but 200 for an answer: an extension that there is.
SIPURI = "sip:100@127.0.0.1"

# Corosync 3.1's own default, and what the configuration of 2014 said.
STOCK_TOKEN = 3000
# What of corosync.conf decides when a node is lost (corosync.conf(5)).
TIMING = (
    "token", "token_coefficient", "token_retransmit", "token_retransmits_before_loss_const",
    "consensus", "join", "hold", "knet_ping_interval", "knet_ping_timeout", "knet_pong_count",
)
CHANGE_SECONDS = 120.0
DC_OPTIONS = ("have-watchdog", "dc-version", "cluster-infrastructure", "cluster-name")


@dataclass(frozen=True)
class Primitive:
    """One resource as a configuration in crmsh's language tells it."""

    agent: str
    params: dict[str, str]
    # Each regular monitor's own words: interval, timeout, OCF_CHECK_LEVEL ...
    monitors: list[dict[str, str]]

    @property
    def intervals(self) -> list[float]:
        return [seconds(monitor["interval"]) for monitor in self.monitors]


@dataclass(frozen=True)
class Stack:
    """``text``: its whole configuration in crmsh's language."""

    name: str
    title: str
    text: str
    singles: tuple[str, ...]
    clones: tuple[str, ...]

    @property
    def asterisk(self) -> Primitive:
        return primitive(self.text, "p_asterisk")

    @property
    def interval(self) -> float:
        """Seconds between two looks at Asterisk."""
        return min(self.asterisk.intervals)

    @property
    def patience(self) -> float:
        """Seconds in which each of its monitors has looked at Asterisk twice."""
        return 2 * max(self.asterisk.intervals)

    def corosync(self, ours: str) -> str:
        """corosync.conf for it, made from the lab's own, ``ours``."""
        return ours if self.name == OURS else stock_corosync(ours)

    def looks_green(self, node: Node) -> bool:
        """Its most thorough monitor of Asterisk, run by hand as Pacemaker runs it."""
        resource = self.asterisk
        deepest = max(resource.monitors, key=lambda words: int(words.get("OCF_CHECK_LEVEL", 0)))
        timeout = seconds(deepest["timeout"])
        provider, kind = resource.agent.split(":")[1:]
        # timeout's own exit code is 124: a monitor that does not end is not green.
        said: Result = node.run(
            "timeout", "--kill-after=1", str(timeout),
            f"/usr/lib/ocf/resource.d/{provider}/{kind}", "monitor",
            env=environment(provider, kind, "p_asterisk", resource.params,
                            timeout=timeout, level=int(deepest.get("OCF_CHECK_LEVEL", 0))),
            timeout=timeout + 20, check=False,
        )
        return said.ok


class StackCluster(Cluster):
    """The cluster while ``stack`` runs on it."""

    def __init__(self, lab: Lab, stack: Stack) -> None:
        super().__init__(lab)
        self.stack = stack
        self.singles = stack.singles
        self.clones = stack.clones


def stacks() -> list[Stack]:
    """In the order in which they take turns."""
    drbd = ("p_drbd",)
    singles = ("p_fs", *map(link_name, LINKS), "p_mysql", "p_ip", "p_apache", "p_asterisk")
    return [
        Stack(STOCK, "stock", stock_text(), singles, drbd),
        Stack(STOCK_SIP, "stock with monitor_sipuri", stock_text(SIPURI), singles, drbd),
        Stack(OURS, "ours", CIB.read_text(), SINGLES, CLONES),
    ]


def stock_text(sipuri: str = "") -> str:
    links = "\n".join(LINK.format(name=link_name(path), path=path) for path in LINKS)
    parameter = f'monitor_sipuri="{sipuri}"' if sipuri else ""
    text = (Path(__file__).parent / "stock.crm").read_text()
    for mark, value in (
        ("@LINKS@", links),
        ("@LINK_NAMES@", " ".join(map(link_name, LINKS))),
        ("@SIPURI@", parameter),
    ):
        text = text.replace(mark, value)
    return text


def link_name(path: str) -> str:
    return "p_link" + path.replace("/", "_")


def stock_corosync(ours: str) -> str:
    """The same two encrypted links, with the stock timing."""
    lines = [
        line for line in ours.splitlines() if line.split(":")[0].strip() not in TIMING
    ]
    start = lines.index("totem {")
    lines.insert(start + 1, f"    token: {STOCK_TOKEN}")
    return "\n".join(lines) + "\n"


def token(corosync: str) -> int:
    """Milliseconds until a silent node is thought lost."""
    found = re.search(r"^\s*token:\s*(\d+)", corosync, re.MULTILINE)
    return int(found[1]) if found else STOCK_TOKEN


def our_token() -> int:
    return token((FILES / "corosync.conf").read_text())


def primitive(text: str, name: str) -> Primitive:
    """Raises KeyError where the configuration has no such primitive."""
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["primitive", name]:
            break
    else:
        raise KeyError(name)
    params: dict[str, str] = {}
    monitors: list[dict[str, str]] = []
    into = params
    rest = iter(words[3:])
    for word in rest:
        if word in ("params", "meta"):
            into = params if word == "params" else {}
        elif word == "op":
            into = {}
            if next(rest) == "monitor":
                monitors.append(into)
        else:
            key, _, value = word.partition("=")
            into[key] = value
    return Primitive(words[2], params, monitors)


def seconds(text: str) -> float:
    """Of a time as Pacemaker writes it: "10s", "10", "1min"."""
    found = re.fullmatch(r"(\d+)(s|sec|m|min|ms)?", text)
    if not found:
        raise ValueError(f"no time: {text!r}")
    return int(found[1]) * {"ms": 0.001, "m": 60, "min": 60}.get(found[2], 1)


def environment(
    provider: str,
    kind: str,
    instance: str,
    params: dict[str, str],
    *,
    timeout: float = 30.0,
    level: int = 0,
) -> dict[str, str]:
    """What Pacemaker gives an agent for a regular monitor."""
    given = {
        "OCF_ROOT": "/usr/lib/ocf",
        "OCF_RESOURCE_INSTANCE": instance,
        "OCF_RESOURCE_TYPE": kind,
        "OCF_RESOURCE_PROVIDER": provider,
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESKEY_CRM_meta_timeout": str(int(timeout * 1000)),
        "OCF_RESKEY_CRM_meta_interval": "10000",
    }
    given.update({f"OCF_RESKEY_{key}": value for key, value in params.items()})
    if level:
        given["OCF_CHECK_LEVEL"] = str(level)
    return given


class Changer:
    """Puts one stack in the place of another while the nodes stay up."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._corosync = {
            node.name: node.path("/etc/corosync/corosync.conf").read_text()
            for node in lab.nodes.values()
        }

    def change(self, stack: Stack) -> StackCluster:
        """Load ``stack`` and wait until all of it runs."""
        cluster = StackCluster(self._lab, stack)
        self._empty(cluster)
        self._set_timing(stack)
        cluster.load(stack.text)
        return cluster

    def _empty(self, cluster: StackCluster) -> None:
        """Stop whatever runs, and forget every resource."""
        wait_for(lambda: len(cluster.state().online) == len(cluster.running),
                 "both nodes online", timeout=CHANGE_SECONDS)
        node = cluster.running[0]
        wait_for(lambda: dc_has_written(node), "the DC's options", timeout=CHANGE_SECONDS)
        # Ours leaves the store root's alone; what the stock stack links to it opens by its name.
        for one in cluster.running:
            if one.run("mountpoint", "--quiet", STORE, check=False).ok:
                one.run("chmod", "755", STORE)
        # Not by crmsh, which refuses while there is no resource and no fencing.
        node.run("crm_attribute", "--type", "crm_config", "--name", "stop-all-resources",
                 "--update", "true")
        wait_for(lambda: nothing_runs(cluster), "every resource to stop",
                 timeout=CHANGE_SECONDS, every=0.25)
        said = node.run("cibadmin", "--query", "--scope", "configuration").out
        node.run("cibadmin", "--replace", "--scope", "configuration", "--xml-pipe",
                 stdin=without_resources(said))
        node.run("crm_resource", "--refresh")
        wait_for(lambda: not linked(cluster.running), "the local directories to be back")

    def _set_timing(self, stack: Stack) -> None:
        wanted = 0
        for node in self._lab.running:
            text = stack.corosync(self._corosync[node.name])
            wanted = token(text)
            node.write("/etc/corosync/corosync.conf", text)
        self._lab.running[0].run("corosync-cfgtool", "-R")
        wait_for(
            lambda: all(live_token(node) == wanted for node in self._lab.running),
            f"Corosync to take a token of {wanted} ms", timeout=30,
        )


def nothing_runs(cluster: Cluster) -> bool:
    state = cluster.state()
    running = (state.started, state.promoted, state.unpromoted)
    return bool(state.dc) and not state.busy and not any(map(any, running))


def dc_has_written(node: Node) -> bool:
    return node.run("crm_attribute", "--type", "crm_config", "--name", "dc-version", "--query",
                    check=False).ok


def without_resources(configuration: str) -> str:
    """The configuration section of a CIB with its nodes alone, and what its DC has
    written: were that to be written anew, it would meet the next load."""
    top = ElementTree.fromstring(configuration)
    for part in list(top):
        if part.tag in ("resources", "constraints"):
            part.clear()
        elif part.tag == "crm_config":
            for options in part.iterfind("cluster_property_set"):
                for option in list(options):
                    if option.get("name") not in DC_OPTIONS:
                        options.remove(option)
        elif part.tag != "nodes":
            top.remove(part)
    return ElementTree.tostring(top, encoding="unicode")


def linked(nodes: Iterable[Node]) -> list[str]:
    """Where a link of the stock stack stands, or a directory is still put aside."""
    return [
        f"{node.name}:{path}"
        for node in nodes
        for path in LINKS
        if node.path(path).is_symlink() or node.path(f"{path}.active").exists()
    ]


def live_token(node: Node) -> int:
    said = node.run("corosync-cmapctl", "-g", "runtime.config.totem.token", check=False)
    found = re.search(r"= (\d+)", said.out)
    return int(found[1]) if found else 0
