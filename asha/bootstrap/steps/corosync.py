"""Step 50: Corosync and Pacemaker, with no resources yet.

When Debian installs them it starts both, as a cluster of "node1" on the loopback address: that
is stopped and removed first. Later only a join, a removal or the administrator changes what
this step makes.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from asha.bootstrap.action import Action, Call, Run, Say, Write, enable
from asha.bootstrap.host import data_directories, services
from asha.bootstrap.takeover import takeover
from asha.cluster import cib, corosync, generation
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

DAEMONS = ("corosync.service", "pacemaker.service")
LAN_WATCH = "asha-lan.service"
# Wanted by pacemaker.service (steps/systemd.py): started here where that ran before.
RETRY = "asha-retry.service"
CIB = "/var/lib/pacemaker/cib"
# What Corosync remembers of the rings that it was in.
RINGS = "/var/lib/corosync"

# Pacemaker stops in a moment where it has no resources.
STOP_SECONDS = 120.0
START_SECONDS = 60.0
DC_SECONDS = 90.0
# As in cib/asha.crm, which is loaded later; Pacemaker's default is 20 s.
DC_DEADTIME = "5s"

LOST = "look at: systemctl status corosync pacemaker; journalctl -b -u corosync -u pacemaker"


def reset_actions(site: Site) -> list[Action]:
    """Remove the cluster that Debian's packages begin with, or that a purge left."""

    def work(machine: Machine, say: Say) -> None:
        left = cib.is_left_over(machine)
        if not left and '<primitive ' in (machine.read(f"{CIB}/cib.xml") or ""):
            raise UserError(
                "this machine is a node of another cluster: Pacemaker has resources here",
                f"crm configure show lists them. If they may go: systemctl stop pacemaker; "
                f"rm {CIB}/cib*",
            )
        say("stopping what is left of the old cluster" if left else
            "stopping Debian's default cluster")
        machine.run("systemctl", "stop", *reversed(DAEMONS), timeout=STOP_SECONDS)
        _clear(machine, *os.path.split(CIB), "")
        _clear(machine, *os.path.split(RINGS), "ringid_")
        # Last: that it is gone says that this was done.
        machine.remove(corosync.CONF)

    def done(machine: Machine) -> bool:
        text = machine.read(corosync.CONF)
        return text is None or (_is_ours(site, text) and not cib.is_left_over(machine))

    return [Call(
        name="ring-reset",
        title="remove the default cluster of Debian's packages, or what a purge left",
        what=f"refuse where Pacemaker has another cluster's resources\n"
             f"systemctl stop pacemaker corosync\nrm {CIB}/* {RINGS}/ringid_* {corosync.CONF}",
        work=work,
        done=done,
    )]


def _clear(machine: Machine, above: str, name: str, beginning: str) -> None:
    """Remove the files of a directory whose names begin so. It may belong to Pacemaker's user."""
    with (
        data_directories.told(),
        suppress(FileNotFoundError),
        data_directories.trusted(machine, above) as outer,
        outer.below(name) as directory,
    ):
        for one in directory.names():
            if one.startswith(beginning) and not stat.S_ISDIR(directory.stat(one).st_mode):
                directory.remove(one)
        directory.sync()


def _is_ours(site: Site, text: str) -> bool:
    conf = corosync.parse(text)
    return conf.cluster_name == corosync.CLUSTER_NAME and site.here.name in {
        node.name for node in conf.nodes
    }


def actions(site: Site, secret: Secret) -> list[Action]:
    made: list[Action] = [
        Write(corosync.AUTHKEY, secret.corosync_authkey(), mode=0o400, secret=True,
              why="the key of the cluster's links"),
    ]
    if site.is_first:
        made.append(_Alone(site))
    made += [
        enable("Corosync and Pacemaker at boot", *DAEMONS),
        Call(
            name="ring-start",
            title="start Corosync and Pacemaker",
            what="systemctl start corosync pacemaker\n"
                 f"wait until {site.here.name} is online and there is a coordinator (DC), "
                 f"up to {DC_SECONDS:.0f} s",
            work=lambda machine, say: _start(site, machine, say),
            done=lambda machine: _is_running(site, machine),
        ),
        Run(
            title="start asha-retry",
            argv=["systemctl", "start", RETRY],
            done=lambda machine: services.is_active(machine, RETRY),
        ),
        _publish_secret_id(site, secret),
        enable("let a node that proves the secret join", "asha-join.service"),
        Run(
            title="start asha-join",
            argv=["systemctl", "start", "asha-join.service"],
            done=lambda machine: services.is_active(machine, "asha-join.service"),
        ),
    ]
    if site.watches_lan:
        made += [
            enable("tell the cluster whether this node's LAN works", LAN_WATCH),
            Run(
                title="start asha-lan",
                argv=["systemctl", "start", LAN_WATCH],
                done=lambda machine: services.is_active(machine, LAN_WATCH),
            ),
        ]
    if site.relay and site.relay.node == site.here.name:
        made.append(enable("switch the line's relay off at each boot", "asha-relay-park.service"))
    return made


class _Alone(Write):
    """corosync.conf for one node, unless the other is in it already."""

    def __init__(self, site: Site) -> None:
        super().__init__(corosync.CONF, corosync.render(site, joined=False),
                         why="a cluster of one node, for now")
        self.other = site.there.name

    def is_done(self, machine: Machine) -> bool:
        nodes = corosync.parse(machine.read(self.path) or "").nodes
        return self.other in {node.name for node in nodes} or super().is_done(machine)


def _is_running(site: Site, machine: Machine) -> bool:
    return not _missing(site, machine)


def _missing(site: Site, machine: Machine) -> str:
    """What is not there yet, "" when everything is."""
    for name in DAEMONS:
        if not services.is_active(machine, name):
            return name
    if site.here.name not in machine.output("crm_node", "-p").split():
        return f"{site.here.name} in the cluster"
    # "Designated Controller is: crm1", or "... not yet elected" (2.1 and 3.0).
    said = machine.output("crmadmin", "--dc_lookup", "--timeout=5s", timeout=20)
    return "" if len(said.rpartition(":")[2].split()) == 1 else "a coordinator (DC)"


def _start(site: Site, machine: Machine, say: Say) -> None:
    if not site.is_first:
        takeover.require_marker(machine)
    if site.is_first and not machine.exists(f"{CIB}/cib.xml"):
        _seed(machine)
    try:
        machine.run("systemctl", "start", *DAEMONS, timeout=START_SECONDS)
    except UserError as trouble:
        raise UserError(str(trouble), LOST) from None
    missing = machine.wait_while(
        lambda: _missing(site, machine), DC_SECONDS, 1.0,
        lambda what, passed: say(f"waiting for {what} ({passed:.0f} s)"),
    )
    if missing:
        raise UserError(f"still waiting for {missing} {DC_SECONDS:.0f} s after the start", LOST)


def _seed(machine: Machine) -> None:
    """Write an empty configuration with the time for which a node waits for others before it
    elects itself. The telephones are silent meanwhile: 9 s and not 24 (measured)."""
    empty = machine.run("cibadmin", "--empty").out
    machine.write(f"{CIB}/cib.xml", empty, mode=0o600, owner="hacluster", group="haclient")
    machine.run("crm_attribute", "--type", "crm_config", "--name", "dc-deadtime",
                "--update", DC_DEADTIME, environ={"CIB_file": f"{CIB}/cib.xml"})


def _publish_secret_id(site: Site, secret: Secret) -> Action:
    """For an installer, once the cluster runs. A script that is written beforehand does not
    know the secret yet, so this is not a command."""
    about = ["crm_attribute", "--node", site.here.name, "--name", generation.ATTRIBUTE]

    def work(machine: Machine, say: Say) -> None:
        machine.run(*about, "--update", secret.key_id())

    return Call(
        name="secret-id",
        title="tell the cluster which secret this node has (its id)",
        what=" ".join([*about, "--update", "ID"]),
        work=work,
        done=lambda machine: machine.output(*about, "--query", "--quiet").strip()
        == secret.key_id(),
    )
