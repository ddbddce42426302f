"""The cost of a monitor."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.asterisk_health.pbx import REPOSITORY, Pbx


def test_monitor_imports_nothing_that_it_does_not_need(pbx: Pbx) -> None:
    pbx.start()
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from asha.agents.asterisk_health import AsteriskHealth\n"
        "from asha.ocf import main\n"
        "code = main(AsteriskHealth, ['monitor'])\n"
        "print(code, *sys.modules)"
    )
    environ = {
        "HA_RSCTMP": str(pbx.state),
        "OCF_RESKEY_CRM_meta_interval": "5000",
        "OCF_CHECK_LEVEL": "10",
        "OCF_RESKEY_binary": str(pbx.binary),
        "OCF_RESKEY_run_directory": str(pbx.run),
        "OCF_RESKEY_sip_port": str(pbx.sip_port),
        "OCF_RESKEY_ami_port": str(pbx.ami_port),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    result, *modules = done.stdout.split()
    assert result == "0", done.stderr
    costly = {
        *("subprocess", "socket", "selectors", "enum", "re", "json", "logging", "signal"),
        *("pathlib", "dataclasses", "typing", "asyncio", "threading", "traceback"),
        "contextlib",
    }
    # What only one that is not well needs.
    for word in ("explanations", "attributes", "taskprocessors", "evidence", "threads", "runner"):
        assert not [name for name in modules if name.startswith("asha") and word in name]
    # What Python itself has loaded at its start is no matter of ours.
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert costly & set(modules) <= set(bare.stdout.split())
