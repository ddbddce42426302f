"""debian/asha.config, run by dash with a debconf and a machine of the test's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

DEBIAN = Path(__file__).parents[2] / "debian"

pytestmark = pytest.mark.skipif(not shutil.which("dash"), reason="dash is not installed")

# debconf's confmodule as debconf-devel(7) describes it. Values, flags and what is
# shown are files of the directory $DB. A question is shown if it matters enough
# ($THRESHOLD) and was not seen; the answer is the next line of $DB/answers: a value,
# = for the one that is offered, or < for back. Without answers nobody is there.
# What was answered is marked as seen at the end only, so that back shows it again.
CONFMODULE = r"""
level() { case $1 in low) echo 1 ;; medium) echo 2 ;; high) echo 3 ;; critical) echo 4 ;; esac; }
db_version() { :; }
db_capb() { :; }
db_subst() { printf '%s' "$3" >"$DB/subst-${1#asha/}-$2"; }
db_get() { RET=$(cat "$DB/value-${1#asha/}" 2>/dev/null || true); }
db_set() { printf '%s' "$2" >"$DB/value-${1#asha/}"; }
db_fset() { rm -f "$DB/$2-${1#asha/}"; [ "$3" != true ] || : >"$DB/$2-${1#asha/}"; }
db_input() {
    [ "$(level "$1")" -ge "$(level "$THRESHOLD")" ] || return 30
    [ ! -e "$DB/seen-${2#asha/}" ] || return 30
    [ -e "$DB/answers" ] || return 30
    QUEUE=${2#asha/}
}
db_go() {
    name=$QUEUE QUEUE=
    [ -n "$name" ] || return 0
    case $name in problem | in-cluster)
        printf '%s: %s\n' "$name" "$(cat "$DB/subst-$name-PROBLEM" 2>/dev/null)" >>"$DB/shown"
        return 0 ;;
    esac
    printf '%s\n' "$name" >>"$DB/shown"
    [ -s "$DB/answers" ] || { echo "no answer is left for $name" >&2; exit 99; }
    answer=$(head -n 1 "$DB/answers")
    sed -i 1d "$DB/answers"
    [ "$answer" != "<" ] || return 30
    [ "$answer" = "=" ] || printf '%s' "$answer" >"$DB/value-$name"
}
QUEUE=
"""

IP = r"""#!/bin/sh
case "$*" in
"-4 route show default") echo "default via 192.168.1.1 dev eth0 onlink" ;;
*"dev eth0"*) echo "2: eth0    inet 192.168.1.11/24 brd 192.168.1.255 scope global eth0\       x" ;;
esac
"""


class Machine:
    """Where the script thinks it is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "db"
        for place in ("db", "bin", "sys/class/net", "etc/asha", "opt/asha", "dev"):
            (root / place).mkdir(parents=True)
        self.tool("ip", IP)
        self.tool("uname", "#!/bin/sh\necho crm1\n")
        self.tool("lsblk", "#!/bin/sh\ntrue\n")
        self.tool("blkid", "#!/bin/sh\nexit 2\n")
        for nic in ("lo", "eth0", "eth1"):
            directory = root / "sys/class/net" / nic
            directory.mkdir()
            (directory / "ifindex").write_text("1\n", encoding="ascii")
            (directory / "iflink").write_text("1\n", encoding="ascii")
            if nic != "lo":
                (directory / "device").mkdir()
        for name, value in re.findall(
            r"Template: asha/(\S+)\nType: \w+\n(?:Choices: .*\n)?Default: (.*)\n",
            (DEBIAN / "asha.templates").read_text(encoding="utf-8"),
        ):
            self.preseed({name: value}, seen=False)

    def tool(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(text, encoding="utf-8")
        (self.root / "bin" / name).chmod(0o755)

    def preseed(self, values: Mapping[str, str], seen: bool = True) -> None:
        for name, value in values.items():
            (self.database / f"value-{name}").write_text(value, encoding="utf-8")
            if seen:
                (self.database / f"seen-{name}").touch()

    def config(
        self, answers: Sequence[str] | None = None, how: str = "configure", threshold: str = "high"
    ) -> tuple[list[str], str]:
        """What was shown, in order, and what was said on standard error."""
        text = (DEBIAN / "asha.config").read_text(encoding="utf-8")
        (self.root / "confmodule").write_text(CONFMODULE, encoding="utf-8")
        for path in ("/etc/asha", "/opt/asha", "/sys/class"):
            text = text.replace(path, f"{self.root}{path}")
        text = text.replace("/usr/share/debconf/confmodule", f"{self.root}/confmodule")
        # The partition of the test is a file in the test's directory.
        text = text.replace('[ ! -b "$1" ]', '[ ! -f "$1" ]').replace('[ -b "$', '[ -f "$')
        text = text.replace("'/dev/[", "'/[")
        script = self.root / "config"
        script.write_text(text, encoding="utf-8")
        (self.database / "answers").unlink(missing_ok=True)
        (self.database / "shown").unlink(missing_ok=True)
        if answers is not None:
            (self.database / "answers").write_text(
                "".join(f"{answer}\n" for answer in answers), encoding="utf-8"
            )
        done = subprocess.run(
            ["dash", str(script), how],
            stdin=subprocess.DEVNULL, text=True, capture_output=True, check=False, timeout=30,
            env={"PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DB": str(self.database),
                 "THRESHOLD": threshold},
        )
        assert done.returncode == 0, done.stderr
        if answers is not None:
            assert (self.database / "answers").read_text(encoding="utf-8") == ""
        shown = self.database / "shown"
        lines = shown.read_text(encoding="utf-8").splitlines() if shown.exists() else []
        return lines, done.stderr

    def value(self, name: str) -> str:
        place = self.database / f"value-{name}"
        return place.read_text(encoding="utf-8") if place.exists() else ""

    def values(self) -> dict[str, str]:
        return {place.name.removeprefix("value-"): place.read_text(encoding="utf-8")
                for place in self.database.glob("value-*")}

    @property
    def partition(self) -> str:
        place = self.root / "dev/sda5"
        place.touch()
        return str(place)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


ALL = ["primary", "usenic1", "clusterip", "ip", "otherip", "othername", "drbddev",
       "clusteralert", "siteid", "relay"]


def test_the_manuals_questions_with_defaults_from_the_machine(machine: Machine) -> None:
    shown, _ = machine.config(
        ["=", "=", "192.168.1.90", "=", "=", "=", machine.partition, "a@b.c", "=", "="]
    )
    assert shown == ALL
    assert machine.values() == {
        "primary": "true", "usenic1": "true", "clusterip": "192.168.1.90", "lannic": "eth0",
        "lanprefix": "24", "linknic": "eth1", "linkprefix": "24", "ip": "10.0.3.251",
        "otherip": "10.0.3.252", "othername": "crm2", "drbddev": machine.partition,
        "clusteralert": "a@b.c", "siteid": "crm1 cluster", "relay": "false",
        "relaydriver": "rhino",
    }


def test_the_second_node_is_offered_the_other_address(machine: Machine) -> None:
    machine.config(["false", "=", "192.168.1.90", "=", "=", "=", machine.partition, "=", "=", "="])
    assert (machine.value("ip"), machine.value("otherip")) == ("10.0.3.252", "10.0.3.251")


def test_a_relay_is_asked_about(machine: Machine) -> None:
    shown, _ = machine.config(["=", "=", "192.168.1.90", "=", "=", "=", machine.partition, "=",
                               "=", "true", "numato", "/dev/ttyACM0"])
    assert shown == [*ALL, "relaydriver", "rhinousb"]
    assert (machine.value("relaydriver"), machine.value("rhinousb")) == ("numato", "/dev/ttyACM0")


def test_one_nic_makes_the_link_the_lan(machine: Machine) -> None:
    shown, _ = machine.config(["=", "false", "192.168.1.90", "=", "192.168.1.12", "=",
                               machine.partition, "=", "=", "="])
    assert shown == ALL
    assert machine.value("ip") == "192.168.1.11"
    assert (machine.value("linknic"), machine.value("linkprefix")) == ("eth0", "24")


def test_what_the_machine_does_not_tell_is_asked(machine: Machine) -> None:
    machine.tool("ip", "#!/bin/sh\ntrue\n")
    place = machine.root / "sys/class/net/eth2"
    (place / "device").mkdir(parents=True)
    shown, _ = machine.config(["=", "=", "eth0", "16", "192.168.1.90", "eth2", "=", "=", "=",
                               machine.partition, "=", "=", "="])
    assert shown[2:6] == ["lannic", "lanprefix", "clusterip", "linknic"]
    assert machine.value("linknic") == "eth2"


@pytest.mark.parametrize(("place", "wrong", "why"), [
    (2, "192.168.1", "not an IPv4 address"),
    (2, "192.168.1.090", "not an IPv4 address"),
    (2, "192.168.1.256", "not an IPv4 address"),
    (2, "", "not an IPv4 address"),
    (2, "192.168.2.90", "not on the LAN"),
    (2, "192.168.1.11", "own address"),
    (2, "192.168.1.255", "broadcast"),
    (2, "192.168.1.0", "network's own"),
    (3, "192.168.1.12", "subnet of its own"),
    (3, "192.168.1.90", "virtual address"),
    (4, "10.0.3.251", "taken"),
    (4, "10.0.4.252", "not in the network"),
    (4, "10.0.3.255", "broadcast"),
    (5, "crm1", "own name"),
    (5, "CRM1", "own name"),
    (5, "crm2.example.com", "not the name"),
    (5, "-crm", "not the name"),
    (6, "sda5", "not a device"),
    (6, "/dev/nothing-here", "There is no"),
    (6, "$(reboot)", "not a device"),
    (7, "nobody", "not one mail address"),
    (7, "a@b, c@d", "not one mail address"),
])
def test_an_answer_that_will_not_do_is_asked_again(
    machine: Machine, place: int, wrong: str, why: str
) -> None:
    answers = ["=", "=", "192.168.1.90", "10.0.3.251", "10.0.3.252", "crm2", machine.partition,
               "a@b.c", "=", "="]
    shown, _ = machine.config([*answers[:place], wrong, *answers[place:]])
    assert shown[place] == shown[place + 2] == ALL[place]
    assert shown[place + 1].startswith("problem: ")
    assert why in shown[place + 1]
    assert len(shown) == len(ALL) + 2


def test_back_passes_by_what_is_not_shown(machine: Machine) -> None:
    shown, _ = machine.config([
        "=", "=", "<", "false", "192.168.1.90", "=", "192.168.1.12", "<", "192.168.1.13", "=",
        "=", machine.partition, "=", "=", "=",
    ])
    assert shown[:5] == ["primary", "usenic1", "clusterip", "usenic1", "clusterip"]
    assert machine.value("usenic1") == "false"


def test_back_from_the_first_question_ends_it(machine: Machine) -> None:
    shown, _ = machine.config(["<"])
    assert shown == ["primary"]
    assert machine.value("clusterip") == ""


def test_nobody_there_and_nothing_said(machine: Machine) -> None:
    shown, said = machine.config()
    assert (shown, said) == ([], "")
    assert machine.value("clusterip") == ""


def test_preseeded_answers_are_not_asked(machine: Machine) -> None:
    machine.preseed({"clusterip": "192.168.1.90", "drbddev": machine.partition})
    shown, said = machine.config()
    assert (shown, said) == ([], "")
    assert machine.value("otherip") == "10.0.3.252"


def test_preseeded_answers_that_will_not_do_are_named(machine: Machine) -> None:
    machine.preseed({"clusterip": "192.168.2.90", "othername": "crm1", "drbddev": "/dev/nix"})
    _, said = machine.config()
    assert [line.split(":")[1].strip() for line in said.splitlines()] == [
        "asha/clusterip", "asha/othername", "asha/drbddev"]


def test_preseeded_answers_that_will_not_do_are_asked_where_somebody_is(machine: Machine) -> None:
    machine.preseed({"clusterip": "192.168.2.90"})
    shown, _ = machine.config(["=", "=", "192.168.1.90", "=", "=", "=", machine.partition, "=",
                               "=", "="])
    assert shown == ALL


def conf(machine: Machine, where: str, **changes: str) -> None:
    values = {
        "PRIMARY": "true", "USENIC1": "true", "CLUSTERIP": "192.168.1.90",
        "CLUSTERALERT": "admin@aelintra.com", "SITEID": "AEL TEST CLUSTER",
        "ANODEIP": "10.0.3.251", "BNODEIP": "10.0.3.252", "ANODENAME": "crm1",
        "BNODENAME": "crm2", "DRBDDEV": machine.partition, "CLUSTERNET": "10.0.3.0",
        "IP": "10.0.3.251", "RHINOSPF": "YES", "RHINOUSB": "/dev/ttyUSB1", **changes,
    }
    text = "".join(f"{key}={value}\n" for key, value in values.items())
    (machine.root / where).write_text(text, encoding="utf-8")


def test_a_file_of_2014_answers(machine: Machine) -> None:
    conf(machine, "opt/asha/asha.conf")
    shown, _ = machine.config(["="])
    # It did not know of kinds of relays.
    assert shown == ["relaydriver"]
    assert machine.value("siteid") == "AEL TEST CLUSTER"
    assert machine.value("rhinousb") == "/dev/ttyUSB1"


@pytest.mark.parametrize("changes", [
    {"PRIMARY": "false", "IP": "10.0.3.252"},
    {"PRIMARY": "false", "IP": ""},
    # Its own node as A on both nodes.
    {"PRIMARY": "false", "IP": "10.0.3.252", "ANODEIP": "10.0.3.252", "BNODEIP": "10.0.3.251",
     "ANODENAME": "crm2", "BNODENAME": "crm1"},
])
def test_a_file_of_the_second_node_is_read_from_there(
    machine: Machine, changes: dict[str, str]
) -> None:
    machine.tool("uname", "#!/bin/sh\necho crm2\n")
    conf(machine, "opt/asha/asha.conf", **changes)
    machine.config(["="])
    assert machine.value("primary") == "false"
    assert [machine.value(name) for name in ("ip", "otherip", "othername")] == [
        "10.0.3.252", "10.0.3.251", "crm1"]


def test_the_file_is_never_run(machine: Machine) -> None:
    conf(machine, "opt/asha/asha.conf", SITEID="$(touch /tmp/x) `id` \"quoted\"")
    machine.config(["="])
    assert machine.value("siteid") == "$(touch /tmp/x) `id` \"quoted"


def test_an_upgrade_asks_nothing_and_the_file_rules(machine: Machine) -> None:
    conf(machine, "etc/asha/asha.conf", CLUSTERIP="192.168.1.77")
    machine.preseed({"clusterip": "192.168.1.90"})
    shown, _ = machine.config([])
    assert shown == []
    assert machine.value("clusterip") == "192.168.1.77"


def test_reconfiguring_asks_all_again(machine: Machine) -> None:
    conf(machine, "etc/asha/asha.conf", RHINOSPF="NO")
    shown, _ = machine.config(["="] * len(ALL), how="reconfigure")
    assert shown == ALL


def test_reconfiguring_a_node_of_a_cluster_leaves_what_both_agree_on(machine: Machine) -> None:
    conf(machine, "etc/asha/asha.conf", RHINOSPF="NO")
    (machine.root / "etc/asha/cluster-owns-services").touch()
    machine.preseed({"ip": "10.0.3.77"})
    shown, _ = machine.config(["new@b.c", "=", "="], how="reconfigure")
    assert shown == ["in-cluster: ", "clusteralert", "siteid", "relay"]
    assert machine.value("ip") == "10.0.3.251"
    assert machine.value("clusteralert") == "new@b.c"


DISKS = """#!/bin/sh
cat <<END
/dev/vda /dev/vda disk 8G 0
/dev/vda1 /dev/vda1 part 3G 0 ext4 / 0x83
/dev/vda2 /dev/vda2 part 1G 0 swap [SWAP] 0x82
/dev/vda3 /dev/vda3 part 1K 0   0x5
/dev/sr0 /dev/sr0 rom 249M 0 iso9660
/dev/drbd0 /dev/drbd0 disk 2G 0
/dev/zram0 /dev/zram0 disk 2G 0
/dev/vdb /dev/vdb disk 2G 1
PARTITION /dev/vda5 part 2.8G 0   0x83
END
"""


def free(machine: Machine) -> str:
    return (machine.database / "subst-drbddev-FREE").read_text(encoding="utf-8")


def test_the_one_free_partition_is_the_default(machine: Machine) -> None:
    machine.tool("lsblk", DISKS.replace("PARTITION", machine.partition))
    machine.config()
    assert machine.value("drbddev") == machine.partition
    assert free(machine) == f"{machine.partition} (2.8G)"


def test_a_partition_that_has_something_on_it_is_not_offered(machine: Machine) -> None:
    machine.tool("lsblk", DISKS.replace("PARTITION", machine.partition))
    machine.tool("blkid", f"#!/bin/sh\necho '{machine.partition}: TYPE=\"ext4\"'\n")
    machine.config()
    assert (machine.value("drbddev"), free(machine)) == ("", "none found")


def test_a_partition_that_something_holds_is_not_offered(machine: Machine) -> None:
    machine.tool("lsblk", DISKS.replace("PARTITION", machine.partition))
    (machine.root / "sys/class/block/vda5/holders/dm-0").mkdir(parents=True)
    machine.config()
    assert (machine.value("drbddev"), free(machine)) == ("", "none found")


def test_every_question_has_a_template_and_is_read_by_postinst() -> None:
    templates = (DEBIAN / "asha.templates").read_text(encoding="utf-8")
    postinst = (DEBIAN / "asha.postinst").read_text(encoding="utf-8")
    names = set(re.findall(r"^Template: asha/(\S+)", templates, re.MULTILINE))
    assert names - {"problem", "in-cluster"} == set(re.findall(r"answer ([a-z0-9]+)\)", postinst))
