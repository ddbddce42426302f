"""Step 50: what keeps systemd from starting the services, and what their agents need.

And what restarts Corosync and Pacemaker when they die: without them Asterisk runs on, and
nobody watches it. Debian's corosync.service has Restart=no; systemd gives pacemaker.service
up after five deaths in 25 s.

The services' drop-ins do nothing until the cluster has the services: they look for the marker
that the take-over writes. From then on no boot, no upgrade of a package and no socket starts a
service that is the cluster's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from asha.bootstrap.action import Action, Call, Run, Say, Write
from asha.bootstrap.host import services
from asha.bootstrap.host.data_directories import STORE
from asha.cluster.cib import MARKER
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

# What p_apache's monitor asks (cib/asha.crm).
STATUS_URL = "http://127.0.0.1/server-status"
APACHE = "/etc/apache2"
STATUS_CONF = "/etc/apache2/conf-available/asha-status.conf"
STATUS_ENABLED = "/etc/apache2/conf-enabled/asha-status.conf"
LISTENS = re.compile(r"^\s*Listen\s+(\S+:)?80(\s|$)", re.MULTILINE | re.IGNORECASE)
GOES_ELSEWHERE = re.compile(
    r"^\s*(Redirect|RewriteRule|ProxyPass|AllowOverride\s+(?!None\b)\S)",
    re.MULTILINE | re.IGNORECASE,
)

# By unit. Not Restart= for Corosync: systemd restarts with it what requires it (src/core/
# service.c, service_enter_restart): pacemaker.service, in the orderly way, which stops the
# telephones. A start does not.
# The limit is that unit's: of Corosync's own, its OnFailure= would make a loop.
COME_BACK = {
    "corosync.service": """\
# Written by asha: Corosync is started again when it has died.
[Unit]
OnFailure=asha-come-back@%N.service
StartLimitIntervalSec=0
""",
    "pacemaker.service": """\
# Written by asha: not given up after five deaths in 25 s, and what looks after resources that
# no node may run any more.
[Unit]
Wants=asha-retry.service
StartLimitIntervalSec=600
StartLimitBurst=60
[Service]
Restart=on-failure
RestartSec=1s
""",
}

RELOAD_SECONDS = 90.0
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Found:
    """The services' units, and the configuration of Apache by path. The defaults are those of a
    Debian with a telephone system, a panel and a database."""

    units: tuple[str, ...] = ("asterisk.service", "apache2.service", "mariadb.service")
    apache: Mapping[str, str] = field(
        default_factory=lambda: {f"{APACHE}/ports.conf": "Listen 80\n"})


def look(machine: Machine) -> Found:
    return Found(
        tuple(unit.name for unit in services.states(machine, services.MANAGED)),
        {inside: text
         for pattern in ("apache2.conf", "ports.conf", "conf-enabled/*.conf",
                         "sites-enabled/*.conf")
         # by name: in root's /etc/apache2
         for place in sorted(machine.path(APACHE).glob(pattern))
         if (inside := "/" + str(place.relative_to(machine.root))) != STATUS_ENABLED
         and (text := machine.read(inside))},
    )


def actions(site: Site, found: Found) -> list[Action]:
    made: list[Action] = [_drop_in(name) for name in found.units]
    made += [Write(drop_in_path(unit), text, why=f"bring {unit} back when it has died")
             for unit, text in COME_BACK.items()]
    made.append(Run(
        title="reload systemd",
        argv=["systemctl", "daemon-reload"],
        done=lambda machine: _are_read(machine, [*found.units, *COME_BACK]),
        timeout=RELOAD_SECONDS,
    ))
    if "apache2.service" in found.units:
        made += _apache(found)
    return made


def drop_in_path(unit: str) -> str:
    return f"/etc/systemd/system/{unit}.d/asha.conf"


def _drop_in(unit: str) -> Write:
    if unit in ("asterisk.service", "slapd.service"):
        # The cluster starts these two through their units, once the store is mounted.
        conditions = (f"ConditionPathExists=|!{MARKER}\n"
                      f"ConditionPathIsMountPoint=|{STORE}\n")
    else:
        conditions = f"ConditionPathExists=!{MARKER}\n"
    return Write(
        drop_in_path(unit),
        "# Written by asha: once the cluster has the services, it alone starts them.\n"
        f"[Unit]\n{conditions}",
        why=f"keep {unit} to the cluster, once that has it",
    )


def _are_read(machine: Machine, names: list[str]) -> bool:
    said = machine.output("systemctl", "show", "--property=DropInPaths,NeedDaemonReload", *names)
    return "NeedDaemonReload=yes" not in said and all(
        drop_in_path(name) in said for name in names
    )


# Apache tells p_apache's monitor how it is.

def _apache(found: Found) -> list[Action]:
    made: list[Action] = [Run(
        title="enable Apache's mod_status",
        argv=["a2enmod", "--quiet", "status"],
        done=lambda machine: all(
            machine.exists(f"/etc/apache2/mods-enabled/status.{end}") for end in ("load", "conf")
        ),
    )]
    if text := _own_host(list(found.apache.values())):
        made += [
            Write(STATUS_CONF, text, why="a virtual host that tells how Apache is"),
            Run(
                title="enable that virtual host",
                argv=["a2enconf", "--quiet", "asha-status"],
                done=lambda machine: machine.exists(STATUS_ENABLED),
            ),
        ]
    made.append(Call(
        name="apache-status",
        title=f"Apache answers at {STATUS_URL}",
        what="where Apache runs: apache2ctl configtest, systemctl restart apache2\n"
             f"then ask {STATUS_URL}",
        work=_apache_status,
        done=lambda machine: not _apache_runs(machine) or _answers(machine),
    ))
    return made


def _own_host(texts: list[str]) -> str:
    """The virtual host that this Apache needs for the monitor, "" where Debian's own answers.

    A site that redirects, rewrites or forwards what comes to port 80 would do so with the
    monitor's request too; and SARK's panel may use another port.
    """
    is_open = any(LISTENS.search(text) for text in texts)
    if is_open and not any(GOES_ELSEWHERE.search(text) for text in texts[1:]):
        return ""
    return (
        "# Written by asha: p_apache's monitor asks here how Apache is.\n"
        + ("" if is_open else "Listen 127.0.0.1:80\n")
        + "<VirtualHost 127.0.0.1:80>\n"
        "    <Location /server-status>\n"
        "        SetHandler server-status\n"
        "        Require local\n"
        "    </Location>\n"
        "</VirtualHost>\n"
    )


def _apache_runs(machine: Machine) -> bool:
    return services.is_active(machine, "apache2.service")


def _answers(machine: Machine) -> bool:
    """Asks as the agent does (resource-agents, http-mon.sh); the answer must be the status."""
    ask = (["curl", "-sSL", "--noproxy", "*", "--interface", "lo", "--max-time", "10"]
           if machine.has("curl")
           else ["wget", "-q", "-O", "-", "--no-proxy", "--timeout=10", "--tries=1"])
    return "Apache Server Status" in machine.output(*ask, STATUS_URL)


def _apache_status(machine: Machine, say: Say) -> None:
    machine.run("apache2ctl", "configtest")
    # Not a reload, which opens no new port.
    machine.run("systemctl", "restart", "apache2.service", timeout=RELOAD_SECONDS)
    if machine.wait_while(lambda: not _answers(machine), ANSWER_SECONDS):
        raise UserError(
            f"Apache does not answer at {STATUS_URL}, by which the cluster watches it",
            f"find out why: curl -v {STATUS_URL}",
        )
