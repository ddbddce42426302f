"""One node without Pacemaker, whose agents a test calls by hand."""

from __future__ import annotations

from collections.abc import Mapping

from tests.lab import Node, Result

AGENTS = "/usr/lib/ocf/resource.d/asha"
JUDGE = "asha-asterisk-silent@.service"


def mount_store(node: Node) -> None:
    """What DRBD and the Filesystem agent do before sark-data starts."""
    node.run("mount", "-o", "loop,noatime", "/srv/lab-shared/store.img", "/drbd")


def without_judge(node: Node) -> None:
    """What hangs is found by the agent that the test calls, and by nobody before it."""
    node.write(f"/run/systemd/system/{JUDGE}.d/lab.conf",
               "[Service]\nExecStart=\nExecStart=/bin/true\n")
    node.run("systemctl", "daemon-reload")


def environment(
    agent: str,
    parameters: Mapping[str, str] | None = None,
    *,
    timeout: float = 60.0,
    check_level: int = 0,
    probe: bool = False,
) -> dict[str, str]:
    """What Pacemaker gives an agent."""
    given = {
        "OCF_ROOT": "/usr/lib/ocf",
        "OCF_RESOURCE_INSTANCE": f"p_{agent}",
        "OCF_RESOURCE_TYPE": agent,
        "OCF_RESOURCE_PROVIDER": "asha",
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESKEY_CRM_meta_timeout": str(int(timeout * 1000)),
        "OCF_RESKEY_CRM_meta_on_node": "crm1",
    }
    if not probe:  # Pacemaker leaves it out of a probe's environment
        given["OCF_RESKEY_CRM_meta_interval"] = "10000"
    given.update({f"OCF_RESKEY_{key}": value for key, value in (parameters or {}).items()})
    if check_level:
        given["OCF_CHECK_LEVEL"] = str(check_level)
    return given


def call(
    node: Node,
    agent: str,
    action: str,
    parameters: Mapping[str, str] | None = None,
    *,
    timeout: float = 60.0,
    check_level: int = 0,
    probe: bool = False,
) -> Result:
    """One action of an agent; never raises for its exit code."""
    return node.run(
        f"{AGENTS}/{agent}",
        action,
        env=environment(agent, parameters, timeout=timeout, check_level=check_level, probe=probe),
        timeout=timeout + 10,
        check=False,
    )


def reason(result: Result) -> str:
    """The one exit reason, "" where there is none."""
    prefix = "ocf-exit-reason:"
    found = [line for line in result.err.splitlines() if line.startswith(prefix)]
    assert len(found) <= 1, f"more than one exit reason: {found}"
    return found[0][len(prefix) :] if found else ""
