"""The cluster's configuration: rendered from asha.conf, compared, loaded.

The template beside this module is cib/asha.crm with the site's values taken out.
crmsh loads it ("update": what is there already stays, nothing is deleted).
"""

from __future__ import annotations

import difflib
import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from asha.cluster import corosync, generation
from asha.cluster.site import Relay, Site
from asha.errors import UserError
from asha.machine import Machine
from asha.relay import KINDS, NUMBERED
from asha.run.runner import Completed

TEMPLATE = Path(__file__).with_name("asha.crm.in")
ON_DISK = "/var/lib/pacemaker/cib/cib.xml"
# While it is there the cluster has the services.
MARKER = "/etc/asha/cluster-owns-services"
# The primitive that makes it our configuration.
OURS = "p_asterisk"

# The program's own default, left out of the configuration.
RHINO_PROGRAM = "/usr/local/bin/rhinofailover"

PLACEHOLDER = re.compile(r"@([A-Z]+)@")
# What crmsh takes as one word, unquoted: it splits as a shell does.
BARE = re.compile(r"[A-Za-z0-9_./:+@%,-]+")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

FENCING = "stonith-enabled"
# Pacemaker's words for it (crm_str_to_boolean), as people write them.
TRUE = ("true", "yes", "on", "y", "1")

LOAD_SECONDS = 90.0
LOOK_SECONDS = 20.0
# cibadmin(8), CRM_EX_NOSUCH: nothing has that XPath. Pacemaker answered.
NO_SUCH = 105

# crmsh and Pacemaker say these of every load; none is news.
KNOWN_WARNINGS = (
    # crmsh 4.4 (Debian 12) does not know it; Pacemaker 2.1 does.
    re.compile("unknown attribute 'critical'"),
    # No fencing: asha status says so on every screen.
    re.compile("not fencing unseen nodes"),
)


def render(site: Site) -> str:
    """The configuration as crmsh reads it. Raises UserError for a value that cannot be part of
    it."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for part, wanted in (("RELAY", site.relay is not None), ("LDAP", site.ldap),
                         ("LAN", site.watches_lan)):
        begin, end = f"@{part} BEGIN@\n", f"@{part} END@\n"
        if not wanted:
            text = re.sub(f"{begin}.*?{end}", "", text, flags=re.DOTALL)
        text = text.replace(begin, "").replace(end, "")
    one, other = sorted((site.first, site.second), key=lambda node: node.nodeid)
    values = {
        "FIRST": _word(one.name),
        "SECOND": _word(other.name),
        "IP": _word(site.virtual_address),
        "PREFIX": _word(str(site.lan_prefix)),
        "NIC": _word(site.lan_nic),
        "CARD": _comment(_card(site.relay)),
        "LINE": _line(site.relay) if site.relay else "",
        "MAIL": _comment(site.alert or "nobody: CLUSTERALERT in asha.conf is empty"),
        "SITE": f'"{_comment(site.site_id)}"' if site.site_id else "without a name (SITEID)",
    }
    # In one pass: a value is never looked into.
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _card(relay: Relay | None) -> str:
    if relay is None:
        return "no card that moves a line"
    return f"a {KINDS[relay.driver]} on {relay.node}'s {relay.device}"


def _line(relay: Relay) -> str:
    words = [f"driver={_word(relay.driver)}", f"device={_word(relay.device)}"]
    if relay.driver in NUMBERED:
        words.append(f"relay={_word(str(relay.number))}")
    elif relay.program != RHINO_PROGRAM:
        words.append(f"program={_word(relay.program)}")
    return " ".join([*words, f"card_node={_word(relay.node)}"])


def _word(value: str) -> str:
    if BARE.fullmatch(value):
        return value
    if not value.isprintable() or '"' in value or "\\" in value or not value:
        raise UserError(f"asha.conf: {value!r} cannot stand in the cluster's configuration",
                      "give it a name of letters, digits and ._-/")
    return f'"{value}"'


def _comment(value: str) -> str:
    """crmsh keeps comments as XML's, which must not have "--" nor end with "-"; a
    backslash at the end of a line would swallow the next."""
    text = "".join(letter if letter.isprintable() else " " for letter in value)
    text = re.sub("-(?=-)", "- ", text).rstrip("\\ ")
    return text + "." if text.endswith("-") else text


def is_loaded(machine: Machine) -> bool:
    """Whether the cluster has our resources: asked live, or where Pacemaker does not run, of
    the file with which it will start."""
    try:
        said = machine.run("cibadmin", "--query", "--xpath", f"//primitive[@id='{OURS}']",
                           timeout=LOOK_SECONDS, check=False)
    except UserError:
        said = Completed([], -1, "", "")
    if said.ok or said.code == NO_SUCH:
        return said.ok
    return is_saved(machine)


def is_saved(machine: Machine) -> bool:
    """Whether the file that Pacemaker keeps has our resources, and not those of a purged
    cluster. Asks nothing that may hang."""
    return _is_on_disk(machine) and not is_left_over(machine)


def is_left_over(machine: Machine) -> bool:
    """Whether Corosync's and Pacemaker's files are what a purge of asha left.

    Then nobody needs them: no telephones depend on them, and their keys are made of a secret
    that was purged. If Pacemaker started with them, it would start the old cluster's resources.
    """
    if machine.exists(MARKER):
        return False
    if corosync.parse(machine.read(corosync.CONF) or "").cluster_name != corosync.CLUSTER_NAME:
        return False
    try:
        key = machine.read(corosync.AUTHKEY)
        secret = generation.current(machine)
    except (UserError, OSError):
        return False  # not known: it is root's
    if key is None:
        return False
    if secret is not None and key == secret.corosync_authkey():
        return False  # only the marker is gone, or an installation was cut off
    # One that runs has the telephones.
    return not (_is_on_disk(machine) and machine.output(
        "systemctl", "is-active", "pacemaker.service").strip() == "active")


def _is_on_disk(machine: Machine) -> bool:
    try:
        saved = ElementTree.fromstring(machine.read(ON_DISK) or "")
    except ElementTree.ParseError:
        return False
    return saved.find(f".//primitive[@id='{OURS}']") is not None


def diff(machine: Machine, site: Site) -> str:
    """What loading would change, as a unified diff of ``crm configure show``; "" for nothing.
    Tried on a copy of the live configuration. Raises UserError if Pacemaker does not run or
    crmsh refuses."""
    live = _live(machine)
    wanted = _with_fencing_of(live, render(site))
    with tempfile.TemporaryDirectory(prefix="asha-cib-") as directory:
        copy = Path(directory, "cib.xml")
        copy.write_text(live, encoding="utf-8", errors="surrogateescape")
        source = Path(directory, "asha.crm")
        source.write_text(wanted, encoding="utf-8", errors="surrogateescape")
        environ = {"CIB_file": str(copy)}
        before = _show(machine, environ)
        _update(machine, source, environ)
        after = _show(machine, environ)
    return "\n".join(difflib.unified_diff(
        before.splitlines(), after.splitlines(), "live", "asha.conf", lineterm=""
    ))


def load(machine: Machine, site: Site) -> list[str]:
    """Load it into the running cluster; returns crmsh's unusual warnings.

    Repeated, it changes nothing. Raises UserError if crmsh refuses; then nothing is changed.
    """
    wanted = _with_fencing_of(_live(machine), render(site))
    with tempfile.TemporaryDirectory(prefix="asha-cib-") as directory:
        source = Path(directory, "asha.crm")
        source.write_text(wanted, encoding="utf-8", errors="surrogateescape")
        said = _update(machine, source, {})
    return warnings(said.out + "\n" + said.err)


def _live(machine: Machine) -> str:
    """The running cluster's configuration as XML. Raises UserError if Pacemaker does not run."""
    live = machine.run("cibadmin", "--query", timeout=LOOK_SECONDS, check=False)
    if not live.ok:
        raise UserError("the live configuration cannot be read: Pacemaker does not run here",
                      "systemctl start pacemaker, or ask on the other node")
    return live.out


def _with_fencing_of(live: str, wanted: str) -> str:
    """The text with fencing on where it is on now: no load should switch it off."""
    options = ElementTree.fromstring(live).iterfind("configuration/crm_config//nvpair")
    on = any(option.get("name") == FENCING and option.get("value") in TRUE for option in options)
    return wanted.replace(f"    {FENCING}=false", f"    {FENCING}=true") if on else wanted


def warnings(said: str) -> list[str]:
    """The warnings in what crmsh printed, without those that are always there."""
    lines = [COLOUR.sub("", line).strip() for line in said.splitlines()]
    return [
        line for line in lines
        if "warning" in line.lower() and not any(known.search(line) for known in KNOWN_WARNINGS)
    ]


def _show(machine: Machine, environ: dict[str, str]) -> str:
    said = machine.run("crm", "--display=plain", "configure", "show", timeout=LOAD_SECONDS,
                       environ=environ)
    return COLOUR.sub("", said.out)


def _update(machine: Machine, source: Path, environ: dict[str, str]) -> Completed:
    said = machine.run("crm", "--display=plain", "configure", "load", "update", str(source),
                       timeout=LOAD_SECONDS, environ=environ, check=False)
    if not said.ok:
        lines = [COLOUR.sub("", line).strip() for line in (said.out + said.err).splitlines()]
        errors = dict.fromkeys(line for line in lines if line.startswith("ERROR"))
        raise UserError(
            "crmsh refuses the configuration: " + ("; ".join(errors) or said.complaint),
            "the cluster is as it was; what is named there is missing or wrong on this node",
        )
    return said
