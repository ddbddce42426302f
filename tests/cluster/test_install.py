"""Two commands per node, from a customer's boxes to a cluster, and what comes after.

One story on one lab, told in order: each test goes on from where the last one ended.
"""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import customer
from tests.cluster.customer import FIRST, INSTALL_SECONDS, SECOND
from tests.conftest import lab_or_skip
from tests.lab import Lab, Node, wait_for
from tests.lab.cluster import Cluster, asterisk
from tests.lab.faults import GENEROUS, UNNOTICED
from tests.lab.package import build_package
from tests.lab.prober import Prober

SERVICES = ("asterisk", "mariadb", "apache2")
# The longest that the telephones may be silent while the first node is taken over.
SILENT_SECONDS = 120.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_or_skip(customer=True) as lab:
        yield lab


@pytest.fixture(scope="module")
def deb(lab: Lab) -> Path:
    return build_package(lab.release, print)


@pytest.fixture
def alone(lab: Lab) -> Cluster:
    """The cluster of one, while crm2 is still a customer's box."""
    return Cluster(lab, members=["crm1"])


@pytest.fixture
def cluster(lab: Lab) -> Cluster:
    return Cluster(lab)


def active_services(node: Node) -> dict[str, str]:
    return {
        unit: node.run("systemctl", "is-active", unit, check=False).out.strip()
        for unit in SERVICES
    }


def enabled_services(node: Node) -> dict[str, str]:
    return {
        unit: node.run("systemctl", "is-enabled", unit, check=False).out.strip()
        for unit in SERVICES
    }


def files_of_ours(node: Node) -> dict[str, str]:
    """What an install writes: path to content, with its time."""
    found = node.run(
        "find", "/etc", "/var/lib/asha", "/usr/lib/systemd", "-xdev", "-type", "f",
        "-not", "-path", "/etc/asterisk/*", "-printf", "%p %T@ %s %m\\n",
    ).out
    return dict(line.split(" ", 1) for line in found.splitlines())


def logs_with_secrets(node: Node) -> str:
    """The files of ASHA's in /var/log that have one."""
    words = [word for one in customer.secrets_of(node) for word in ("-e", one)]
    found = node.run("grep", "-rliF", *words, "/var/log/asha", check=False)
    assert found.code in (0, 1)
    return found.out


def test_the_package_disturbs_nothing(lab: Lab, deb: Path) -> None:
    node = lab.node("crm1")
    before = node.run("cat", "/run/asterisk/asterisk.pid").out
    customer.preseed(node, FIRST)
    customer.install_package(node, deb)
    assert set(active_services(node).values()) == {"active"}
    assert set(enabled_services(node).values()) == {"enabled"}
    assert node.run("cat", "/run/asterisk/asterisk.pid").out == before
    conf = node.path("/etc/asha/asha.conf").read_text()
    assert "CLUSTERIP=192.168.1.90" in conf
    assert "ANODENAME=crm1" in conf


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("s/^CLUSTERIP=.*/CLUSTERIP=192.168.1.12/", "192.168.1.12"),
        ("s/^CLUSTERIP=.*/CLUSTERIP=192.168.77.5/", "192.168.77.0"),
        ("s/^LANPREFIX=.*/LANPREFIX=25/", "LANPREFIX=24 in asha.conf"),
        ("s/^DRBDDEV=.*/DRBDDEV=\\/dev\\/sdz9/", "/dev/sdz9"),
        ("s/^BNODENAME=.*/BNODENAME=crm1/", "both crm1"),
        ("s/^LINKNIC=.*/LINKNIC=eth7/", "eth7"),
        ("s/^ANODEIP=.*/ANODEIP=10.9.3.251/", "10.9.3"),
    ],
)
def test_wrong_answers_are_refused_before_any_change(lab: Lab, change: str, said: str) -> None:
    node = lab.node("crm1")
    conf = node.path("/etc/asha/asha.conf").read_text()
    before = files_of_ours(node)
    node.run("sed", "-i", change, "/etc/asha/asha.conf")
    try:
        _, refused = customer.install_node(node, check=False)
        assert refused.code == 1
        assert said in refused.out + refused.err
    finally:
        node.write("/etc/asha/asha.conf", conf)
    after = files_of_ours(node)
    ours = ("/etc/asha/asha.conf", "/var/log/asha/install.log")
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed <= set(ours)
    assert set(active_services(node).values()) == {"active"}


def test_a_device_with_a_file_system_is_refused(lab: Lab) -> None:
    node = lab.node("crm1")
    node.run("mkfs.ext4", "-q", "/dev/sda5")
    try:
        _, refused = customer.install_node(node, check=False)
        assert refused.code == 1
        assert "/dev/sda5" in refused.out
        assert "ext4" in refused.out
        assert "wipefs" in refused.out
        assert "what ran: /var/log/asha/commands.log" in refused.err
        node.run("mkdir", "-p", "/mnt/x")
        node.run("mount", "/dev/sda5", "/mnt/x")
        _, refused = customer.install_node(node, check=False)
        node.run("umount", "/mnt/x")
        assert refused.code == 1
        assert "mounted" in refused.out
    finally:
        node.run("wipefs", "--all", "/dev/sda5")


def test_the_plan_tells_and_changes_nothing(lab: Lab) -> None:
    node = lab.node("crm1")
    before = files_of_ours(node)
    told = node.run("asha", "plan").out
    headings = [line.split()[1] for line in told.splitlines() if line.startswith("== ")]
    assert headings == ["10", "20", "30", "50", "70"]
    assert "/etc/drbd.d/asha.res" in told
    node.run("asha", "plan", "--scripts", "/root/scripts")
    for script in node.run("ls", "/root/scripts").out.split():
        node.run("sh", "-n", f"/root/scripts/{script}")
    assert files_of_ours(node) == before


def test_the_first_node_with_everything_written_meanwhile(lab: Lab, alone: Cluster) -> None:
    """A database that is written to until it is stopped: each row that was confirmed."""
    node = lab.node("crm1")
    node.run("mariadb", "-e", "CREATE TABLE asterisk.story (n INT PRIMARY KEY) ENGINE=InnoDB")
    node.write(
        "/root/writer",
        "#!/bin/sh\nn=0\nwhile n=$((n+1)) && "
        'mariadb -e "INSERT INTO asterisk.story VALUES ($n)" 2>/dev/null && '
        'asterisk -rx "database put story k$n $n" | grep -q success; do\n'
        "echo $n >/root/confirmed.new; mv /root/confirmed.new /root/confirmed; done\n",
        mode=0o755,
    )
    node.run("systemd-run", "--quiet", "--unit=writer", "/root/writer")
    seconds, said = customer.install_node(node)
    assert seconds < INSTALL_SECONDS
    node.run("systemctl", "stop", "writer", check=False)
    assert alone.wait_ready() == "crm1"
    confirmed = int(node.path("/root/confirmed").read_text())
    rows = int(node.run("mariadb", "-BN", "-e", "SELECT COUNT(*) FROM asterisk.story").out)
    assert rows >= confirmed > 0
    assert asterisk(node, f"database get story k{confirmed}").strip().endswith(str(confirmed))
    # The secret is shown once, and nowhere else.
    secret = customer.secret_of(node)
    assert secret in said.out
    logs = node.run("journalctl", "--no-pager", "-o", "cat", timeout=60).out
    assert secret not in logs
    assert logs_with_secrets(node) == ""
    assert secret not in node.path("/var/cache/debconf/passwords.dat").read_text()
    assert secret not in node.path("/var/cache/debconf/config.dat").read_text()


def test_the_log_has_what_ran(lab: Lab) -> None:
    node = lab.node("crm1")
    log = node.path("/var/log/asha/commands.log")
    ran = log.read_text()
    assert "=== asha install --yes (" in ran
    for program in ("drbdadm --force create-md asha", "drbdadm up asha",
                    "crm --display=plain configure load update",
                    "systemctl stop asterisk.service"):
        assert re.search(rf"\] exit 0, [\d.]+ s: {re.escape(program)}", ran), program
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    before = log.stat().st_size
    shown = node.run("asha", "--debug", "status", check=False)
    assert re.search(r"exit 0, [\d.]+ s: crm_mon ", shown.err)
    assert log.stat().st_size == before


def test_the_services_are_the_clusters_now(lab: Lab) -> None:
    node = lab.node("crm1")
    assert set(enabled_services(node).values()) == {"disabled"}
    for unit in ("mariadb", "apache2"):
        node.run("systemctl", "start", unit, check=False)
        assert node.run("systemctl", "is-active", unit, check=False).out.strip() == "inactive"
    panel = node.run(
        "sqlite3", "/opt/sark/db/sark.db",
        "SELECT BINDADDR, HACLUSTERIP, HAUSECLUSTER, coalesce(STATICIPV4,'') FROM globals",
    ).out.strip()
    assert panel == "ON|192.168.1.90|YES|"
    assert node.run("sh", "-c", "ls -d /etc/asterisk.asha-*").out.strip()


def test_a_second_run_changes_nothing(lab: Lab) -> None:
    node = lab.node("crm1")
    before = files_of_ours(node)
    _, again = customer.install_node(node)
    assert "nothing to do" in again.out
    assert node.run("asha", "plan").out.startswith("nothing to do")
    assert files_of_ours(node) == before


def test_the_first_node_reboots_before_there_is_a_second(lab: Lab, alone: Cluster) -> None:
    node = lab.node("crm1")
    data = alone.write_data()
    node.reboot()
    assert alone.wait_ready() == "crm1"
    assert alone.lost_data(data) == []
    status = node.run("asha", "status", "--json", check=False)
    assert status.code in (0, 1), status.out  # it serves; one node is worth a warning
    assert json.loads(status.out)


def test_the_second_node_refuses_what_does_not_fit(lab: Lab, deb: Path) -> None:
    """A partition of another size, and a first node that cannot be reached."""
    node = lab.node("crm2")
    customer.preseed(node, SECOND)
    customer.install_package(node, deb)
    secret = customer.secret_of(lab.node("crm1"))
    conf = node.path("/etc/asha/asha.conf").read_text()
    before = files_of_ours(node)
    node.run("truncate", "-s", "1G", "/root/small")
    small = node.run("losetup", "--find", "--show", "/root/small").out.strip()
    try:
        node.run("sed", "-i", f"s#^DRBDDEV=.*#DRBDDEV={small}#", "/etc/asha/asha.conf")
        _, refused = customer.install_node(node, secret, check=False)
        assert refused.code == 1
        assert "the partitions for the store differ" in refused.out, refused.out
    finally:
        node.run("losetup", "--detach", small)
        node.write("/etc/asha/asha.conf", conf)
    lab.node("crm1").cut("eth1")
    try:
        _, refused = customer.install_node(node, secret, check=False)
        assert refused.code == 1
        assert "crm1 does not answer at 10.0.3.251" in refused.out + refused.err
    finally:
        lab.node("crm1").restore("eth1")
    assert files_of_ours(node).keys() - before.keys() <= {"/etc/asha/secret"}
    assert set(active_services(node).values()) == {"active"}
    assert "10.0.3.252" not in node.run("ip", "address").out  # lent, and given back


def test_a_wrong_secret_is_refused(lab: Lab, deb: Path) -> None:
    node = lab.node("crm2")
    typed = node.run(
        "python3", "-c", "from asha.cluster.secret import Secret; print(Secret.generate().typed)"
    ).out.strip()
    _, refused = customer.install_node(node, typed, check=False)
    assert refused.code == 1
    assert "secret" in refused.err
    assert set(active_services(node).values()) == {"active"}


def test_the_second_node_joins_and_the_calls_go_on(lab: Lab, cluster: Cluster) -> None:
    call = cluster.place_call()
    data = cluster.write_data()
    with Prober(lab) as prober:
        begun = time.monotonic()
        seconds, said = customer.install_node(
            lab.node("crm2"), customer.secret_of(lab.node("crm1"))
        )
        assert prober.outage(begun) <= UNNOTICED * GENEROUS
    assert seconds < INSTALL_SECONDS
    assert "DO NOT TEST" in said.out
    assert cluster.wait_ready(active="crm1") == "crm1"
    assert cluster.call_is_up(call)
    assert cluster.lost_data(data) == []
    assert len(cluster.state().online) == 2
    for node in lab.nodes.values():
        assert logs_with_secrets(node) == ""
    # What the listener did is there too.
    assert "corosync-cfgtool -R" in lab.node("crm1").path(
        "/var/log/asha/commands.log").read_text()


def test_the_second_nodes_run_again_changes_nothing(lab: Lab) -> None:
    for name in ("crm1", "crm2"):
        assert lab.node(name).run("asha", "plan").out.startswith("nothing to do")
        _, again = customer.install_node(lab.node(name))
        assert "nothing to do" in again.out


def in_sync(lab: Lab) -> None:
    wait_for(
        lambda: lab.node("crm2").run("asha", "sync", check=False).code == 0,
        "the disks to be the same", timeout=60, every=0.5,
    )


def test_switchover(lab: Lab, cluster: Cluster) -> None:
    in_sync(lab)
    data = cluster.write_data()
    lab.node("crm1").run("asha", "switchover", "--yes", timeout=90)
    assert cluster.wait_ready() == "crm2"
    assert cluster.lost_data(data) == []
    assert cluster.audit() == []
    lab.node("crm2").run("asha", "switchover", "--yes", timeout=90)
    assert cluster.wait_ready() == "crm1"


def test_both_lose_power(lab: Lab, cluster: Cluster) -> None:
    data = cluster.write_data()
    for node in lab.nodes.values():
        node.crash()
    for node in lab.nodes.values():
        node.boot(wait=False)
    for node in lab.nodes.values():
        node.wait_booted()
    cluster.wait_ready()
    assert cluster.lost_data(data) == []
    assert cluster.audit() == []


@pytest.mark.parametrize("where", ["active", "passive"])
def test_packages_are_upgraded_on_a_live_node(
    lab: Lab, cluster: Cluster, deb: Path, where: str
) -> None:
    """ASHA's own under a call; the services' start no second copy and lose nothing."""
    in_sync(lab)
    active = cluster.wait_ready()
    passive = next(name for name in lab.nodes if name != active)
    node = lab.node(active if where == "active" else passive)
    call = cluster.place_call()
    node.run("apt-get", "install", "-y", "--reinstall", customer.DEB, timeout=300,
             env={"DEBIAN_FRONTEND": "noninteractive"})
    assert cluster.call_is_up(call)
    data = cluster.write_data()
    node.run("apt-get", "install", "-y", "--reinstall", "mariadb-server", "apache2", timeout=300,
             env={"DEBIAN_FRONTEND": "noninteractive"})
    node.run("apt-get", "install", "-y", "--reinstall", "asterisk", timeout=300,
             env={"DEBIAN_FRONTEND": "noninteractive"})
    assert cluster.wait_ready() == active
    assert cluster.audit() == []
    assert cluster.lost_data(data) == []


def test_the_package_is_not_removed_from_a_live_node(lab: Lab, cluster: Cluster) -> None:
    node = lab.node(cluster.wait_ready())
    call = cluster.place_call()
    removed = node.run("apt-get", "remove", "-y", "asha", check=False, timeout=120,
                       env={"DEBIAN_FRONTEND": "noninteractive"})
    assert removed.code != 0
    assert "asha" in removed.out + removed.err
    assert node.path("/usr/lib/ocf/resource.d/asha/asterisk-health").exists()
    assert cluster.call_is_up(call)


@pytest.mark.parametrize("name", ["crm2", "crm1"])
def test_a_destroyed_node_is_replaced(
    lab: Lab, cluster: Cluster, deb: Path, name: str
) -> None:
    """The same two commands on a bare box of the same name; the other serves throughout."""
    in_sync(lab)
    other = next(one for one in lab.nodes if one != name)
    if cluster.wait_ready() == name:
        lab.node(other).run("asha", "switchover", "--yes", timeout=90)
        cluster.wait_ready(active=other)
    secret = customer.secret_of(lab.node(other))
    data = cluster.write_data()
    call = cluster.place_call()
    node = lab.node(name)
    node.replace()
    answers = SECOND if name == "crm2" else FIRST | {"primary": "false"}
    with Prober(lab) as prober:
        begun = time.monotonic()
        customer.preseed(node, answers)
        customer.install_package(node, deb)
        customer.install_node(node, secret)
        assert prober.outage(begun) <= UNNOTICED * GENEROUS
    assert cluster.wait_ready() == other
    assert cluster.call_is_up(call)
    in_sync(lab)
    lab.node(other).run("asha", "switchover", "--yes", timeout=90)
    assert cluster.wait_ready() == name
    assert cluster.lost_data(data) == []
    assert cluster.audit() == []
