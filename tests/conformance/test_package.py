"""The Debian package on a customer's Debian: built, installed, upgraded, removed, purged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lab_or_skip
from tests.lab import Lab, Node, wait_for
from tests.lab.host import Result
from tests.lab.image import RELEASES
from tests.lab.node import PARTITION
from tests.lab.package import build_package, lint_package

UNITS = ("asha-firewall", "asha-join", "asha-recover", "asha-relay-park")
AGENTS = ("asterisk-health", "lan-source", "rhino-relay", "sark-data")
DEBCONF = {"DEBIAN_FRONTEND": "noninteractive"}
ANSWERS = f"""\
asha asha/primary boolean true
asha asha/clusterip string 192.168.1.90
asha asha/ip string 10.0.3.251
asha asha/otherip string 10.0.3.252
asha asha/othername string crm2
asha asha/drbddev string {PARTITION}
asha asha/clusteralert string admin@example.com
"""
# Where ASHA's files may be, and nothing of anybody else.
PLACES = ("/etc/asha", "/var/lib/asha", "/var/log/asha", "/usr/lib/ocf/resource.d/asha",
          "/usr/lib/python3/dist-packages/asha", "/usr/share/asha", "/usr/sbin/asha")

# Calls every agent without a pause, one after the other, until /tmp/stop is there; then
# says how often, and what went wrong.
LOOP = r"""
calls=0
while [ ! -e /tmp/stop ]; do
    for agent in "$@"; do
        OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=x /usr/lib/ocf/resource.d/asha/$agent \
            meta-data >/dev/null 2>/tmp/complaint || { cat /tmp/complaint; exit 1; }
        calls=$((calls + 1))
        [ $calls != 1 ] || touch /tmp/started
    done
done
echo $calls
"""
# The next version, in which every module uses other names of the others: any mixture of
# the two fails to import.
NEXT = r"""
rm -rf /tmp/next && dpkg-deb -R "$1" /tmp/next && cd /tmp/next
grep -rlE '\b(AgentError|Deadline)\b' --include='*.py' usr |
    xargs sed -i -E 's/\bAgentError\b/AgentProblem/g; s/\bDeadline\b/TimeLimit/g'
sed -i -E 's/^Version: .*/Version: 99/' DEBIAN/control
dpkg-deb --root-owner-group -b /tmp/next /srv/next.deb
"""


# A person at a terminal, in which the program of the arguments runs: of each line of
# the input, once the first part is shown, the second is typed. All that was shown is said.
TYPIST = r"""
import os, pty, sys
lines = [line.rstrip("\n").split("\t") for line in sys.stdin]
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
new = ""
while True:
    try:
        read = os.read(terminal, 4096).decode(errors="replace")
    except OSError:
        break
    print(read, end="", flush=True)
    new += read
    if lines and lines[0][0] in new:
        os.write(terminal, f"{lines.pop(0)[1]}\n".encode())
        new = ""
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module", params=RELEASES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with lab_or_skip("crm1", customer=True, release=request.param) as lab:
        yield lab


@pytest.fixture(scope="module")
def package(lab: Lab) -> Path:
    return build_package(lab.release, print)


@pytest.fixture(scope="module")
def ready(lab: Lab, package: Path) -> Node:
    """The node with all that the package depends on, and the package in /srv."""
    node = lab.node("crm1")
    shutil.copy(package, node.path("/srv/asha.deb"))
    node.run("apt-get", "install", "-y", "--no-install-recommends", "/srv/asha.deb",
             env=DEBCONF, timeout=300)
    purge(node)
    return node


@pytest.fixture
def node(ready: Node) -> Iterator[Node]:
    yield ready
    ready.run("rm", "-f", "/etc/asha/cluster-owns-services", "/tmp/stop", "/tmp/started")
    purge(ready)


def purge(node: Node) -> None:
    node.run("dpkg", "--purge", "asha", env=DEBCONF)


def install(node: Node, answers: str = "", package: str = "/srv/asha.deb") -> Result:
    if answers:
        node.run("debconf-set-selections", stdin=answers)
    return node.run("dpkg", "-i", package, env=DEBCONF)


def test_lintian_has_nothing_to_say(lab: Lab) -> None:
    assert lint_package(lab.release, print) == ""


def test_what_is_in_it(package: Path, node: Node) -> None:
    listed = node.run("dpkg-deb", "-c", "/srv/asha.deb").out
    modes = {line.split()[5].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    for agent in AGENTS:
        assert modes[f"/usr/lib/ocf/resource.d/asha/{agent}"] == ["-rwxr-xr-x", "root/root"]
    assert modes["/usr/sbin/asha"] == ["-rwxr-xr-x", "root/root"]
    install(node)
    for program in ("/usr/sbin/asha", *(f"/usr/lib/ocf/resource.d/asha/{name}" for name in AGENTS)):
        assert node.path(program).read_text().startswith("#!/usr/bin/python3 -I\n")
    for page in ("asha.8", "asha.conf.5", *(f"ocf_asha_{name}.7" for name in AGENTS)):
        assert f"/usr/share/man/man{page[-1]}/{page}.gz" in modes
    assert node.run("asha", "--version").out.startswith("asha ")
    assert "p_asterisk" in node.run(
        "asha", "cib", "--config", "/dev/stdin", stdin=EXAMPLE.read_text()).out


EXAMPLE = Path(__file__).parents[2] / "docs/examples/asha.conf"


def test_without_answers_it_installs_and_starts_nothing(node: Node) -> None:
    install(node)
    assert not node.path("/etc/asha/asha.conf").exists()
    for unit in UNITS:
        assert node.run("systemctl", "is-enabled", unit, check=False).out.strip() == "disabled"
        assert node.run("systemctl", "is-active", unit, check=False).out.strip() == "inactive"
    for service in ("asterisk", "mariadb", "apache2"):
        assert node.run("systemctl", "is-active", service).out.strip() == "active"


def test_preseeded_answers_are_written_and_an_upgrade_keeps_the_file(node: Node) -> None:
    install(node, ANSWERS)
    text = node.path("/etc/asha/asha.conf").read_text()
    values = dict(re.findall(r"^([A-Z0-9]+)=(.*)$", text, re.MULTILINE))
    assert values["PRIMARY"] == "true"
    assert values["CLUSTERIP"] == "192.168.1.90"
    assert (values["ANODENAME"], values["ANODEIP"]) == ("crm1", "10.0.3.251")
    assert (values["BNODENAME"], values["BNODEIP"]) == ("crm2", "10.0.3.252")
    assert values["DRBDDEV"] == PARTITION
    assert (values["LANNIC"], values["LINKNIC"]) == ("eth0", "eth1")
    node.write("/etc/asha/asha.conf", text.replace("192.168.1.90", "192.168.1.91"))
    install(node)
    assert "CLUSTERIP=192.168.1.91\n" in node.path("/etc/asha/asha.conf").read_text()
    assert "asha/clusterip: 192.168.1.91\n" in node.run("debconf-show", "asha").out
    node.run("dpkg-reconfigure", "-fnoninteractive", "asha", env=DEBCONF)
    assert "CLUSTERIP=192.168.1.91\n" in node.path("/etc/asha/asha.conf").read_text()


def test_debconf_asks_again_with_the_reason_and_writes_what_was_answered(node: Node) -> None:
    install(node, ANSWERS)
    virtual = "Virtual IP address of the cluster:"
    typed = (("Is this the first node", "yes"), ("Name of the other node:", "crm2"),
             ("network card of its own for the cluster link?", "yes"),
             (virtual, "192.168.7.90"), (virtual, "192.168.1.93"),
             ("Cluster address of this node:", "10.0.3.251"),
             ("Cluster address of the other node:", "10.0.3.252"),
             ("Partition for the replicated data:", PARTITION),
             ("Mail address for alerts:", "other@example.com"),
             ("Name of this site in alerts:", "the lab"), ("Line relay:", "1"))
    said = node.run("python3", "-c", TYPIST, "dpkg-reconfigure", "-freadline", "-phigh", "asha",
                    env={"TERM": "dumb", "PERL_RL": "stub"}, timeout=120,
                    stdin="".join(f"{prompt}\t{line}\n" for prompt, line in typed)).out
    assert "CLUSTERIP=192.168.7.90: is not in eth0's network 192.168.1.0/24" in said
    assert "choose a free address of the LAN" in said
    text = node.path("/etc/asha/asha.conf").read_text()
    assert "CLUSTERIP=192.168.1.93\n" in text
    assert "CLUSTERALERT=other@example.com\n" in text
    assert "RHINOSPF=NO\n" in text


def test_answers_that_will_not_do_are_said_and_not_written(node: Node) -> None:
    done = install(node, ANSWERS.replace("192.168.1.90", "192.168.7.90"))
    assert "CLUSTERIP=192.168.7.90" in done.err
    assert not node.path("/etc/asha/asha.conf").exists()


def test_a_node_that_runs_the_cluster_keeps_the_package(node: Node) -> None:
    install(node)
    node.run("systemctl", "start", "pacemaker")
    node.write("/etc/asha/cluster-owns-services", "")
    refused = node.run("dpkg", "--remove", "asha", env=DEBCONF, check=False)
    assert refused.code != 0
    assert "asha standby crm1" in refused.err
    assert node.path("/usr/lib/ocf/resource.d/asha/asterisk-health").exists()
    assert install(node).ok
    node.run("systemctl", "stop", "pacemaker")
    assert node.run("dpkg", "--remove", "asha", env=DEBCONF).ok


def test_no_agent_fails_while_the_package_is_replaced(node: Node) -> None:
    install(node)
    node.run("sh", "-ec", NEXT, "sh", "/srv/asha.deb")
    loop = node.start("sh", "-c", LOOP, "sh", *AGENTS)
    for _ in range(3):
        install(node, package="/srv/next.deb")
        node.run("dpkg", "-i", "--force-downgrade", "/srv/asha.deb", env=DEBCONF)
    node.write("/tmp/stop", "")
    out, _ = loop.communicate(timeout=60)
    assert loop.returncode == 0, out
    assert int(out) > 10
    assert not node.path("/run/asha-unpacking").exists()


def test_an_upgrade_leaves_the_services_alone_but_the_listener(node: Node) -> None:
    install(node, ANSWERS)
    # The stand-in for the listener does not tell systemd that it is ready.
    for unit, kind in (("asha-join", "exec"), ("asha-firewall", "oneshot")):
        node.write(f"/etc/systemd/system/{unit}.service.d/asha.conf", f"""\
[Unit]
ConditionPathExists=
[Service]
Type={kind}
ExecStart=
ExecStart=/bin/sh -c 'echo started >>/run/%N.said; case %N in *join) exec sleep 1000 ;; esac'
""")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "start", "asha-join", "asha-firewall")
    install(node)
    # systemd calls it started when it has forked, before the shell has said so.
    wait_for(lambda: node.run("cat", "/run/asha-join.said").out == "started\nstarted\n",
             "the listener's second start")
    assert node.run("cat", "/run/asha-firewall.said").out == "started\n"
    node.run("dpkg", "--remove", "asha", env=DEBCONF)
    for unit in ("asha-join", "asha-firewall"):
        assert node.run("systemctl", "is-active", unit, check=False).out.strip() == "inactive"
    node.run("rm", "/run/asha-join.said", "/run/asha-firewall.said")


def test_purge_takes_everything_but_data(node: Node) -> None:
    before = node.run("sh", "-c", "find /etc /var/lib/mysql /opt | sort").out
    install(node, ANSWERS)
    node.run("systemctl", "enable", *UNITS)
    for path in ("/etc/asha/secret", "/etc/asha/ami.secret", "/etc/asha/cluster-owns-services",
                 "/etc/drbd.d/asha.res", "/etc/systemd/system/mariadb.service.d/asha.conf",
                 "/var/log/asha/install.log", "/var/lib/asha/old",
                 "/etc/systemd/network/10-asha-link.network"):
        node.write(path, "x")
    node.write("/etc/asterisk.asha-20260101/sip.conf", "data")
    node.write("/drbd/etc/asterisk/sip.conf", "data")
    purge(node)
    for place in PLACES:
        assert not node.path(place).exists(), place
    assert node.run("debconf-show", "asha").out == ""
    assert node.path("/drbd/etc/asterisk/sip.conf").read_text() == "data"
    assert node.path("/etc/asterisk.asha-20260101/sip.conf").read_text() == "data"
    node.run("rm", "-r", "/drbd", "/etc/asterisk.asha-20260101")
    assert node.run("sh", "-c", "find /etc /var/lib/mysql /opt | sort").out == before
