"""make bench: what a monitor costs, beside the stock agent's in the same node."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path

from tests.cluster.single import AGENTS, call, environment, mount_store
from tests.lab import Lab, LabError, Node, wait_for
from tests.lab.image import RELEASES

STOCK = "stock ocf:heartbeat:asterisk, depth 0"
SCRIPT = Path(__file__).parent / "measure_monitors.py"
LINE = {"driver": "rhino", "device": "/dev/ttyUSB0", "card_node": "crm1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="of each monitor (default: 40)")
    parser.add_argument("--release", choices=RELEASES, default="trixie")
    options = parser.parse_args()
    try:
        with Lab(nodes=("crm1",), release=options.release, say=print) as lab:
            show(measure(lab.node("crm1"), options.rounds), options)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def measure(node: Node, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU per monitor, by name."""
    # Pacemaker runs, without resources, so that node attributes can be set once as
    # they are in service, and not tried in vain by each monitor.
    wait_for(
        lambda: node.run("attrd_updater", "-n", "bench", "-U", "1", check=False).ok,
        "Pacemaker's attributes", timeout=60,
    )
    mount_store(node)
    for agent, parameters in (("sark-data", {}), ("asterisk-health", {}), ("rhino-relay", LINE)):
        started = call(node, agent, "start", parameters)
        if started.code != 0:
            raise LabError(f"{agent} does not start: {started.err}")
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def ours(agent: str, depth: int, parameters: dict[str, str]) -> dict[str, object]:
        env = environment(agent, parameters, check_level=depth)
        return {"argv": [f"{AGENTS}/{agent}", "monitor"], "env": {**path, **env}, "code": 0}

    stock = environment("asterisk") | {"OCF_RESOURCE_PROVIDER": "heartbeat"}
    commands = {
        "python3 that does nothing": {
            "argv": ["/usr/bin/python3", "-I", "-c", "0"], "env": path, "code": 0,
        },
        STOCK: {
            "argv": ["/usr/lib/ocf/resource.d/heartbeat/asterisk", "monitor"],
            "env": {**path, **stock},
            "code": 0,
        },
        "asterisk-health, depth 0": ours("asterisk-health", 0, {}),
        "asterisk-health, depth 10": ours("asterisk-health", 10, {}),
        "sark-data, with its write": ours("sark-data", 0, {}),
        "rhino-relay": ours("rhino-relay", 0, LINE),
    }
    node.write("/root/measure_monitors.py", SCRIPT.read_text())
    said = node.run(
        "/usr/bin/python3", "/root/measure_monitors.py", str(rounds),
        stdin=json.dumps(commands), timeout=60 + rounds * 5,
    )
    taken: dict[str, list[float]] = json.loads(said.out)
    return taken


def show(taken: dict[str, list[float]], options: argparse.Namespace) -> None:
    stock = taken[STOCK]
    print(f"\nCPU of one monitor, {options.rounds} rounds in turn, Debian {options.release}, "
          f"kernel {platform.release()}\n")
    print(f"{'':42}{'median':>10}{'spread (10-90 %)':>20}{'ours/stock':>12}")
    for name, times in taken.items():
        tenths = statistics.quantiles(times, n=10)
        ratios = [mine / theirs for mine, theirs in zip(times, stock, strict=True)]
        spread = f"{tenths[0]:.1f} - {tenths[-1]:.1f} ms"
        print(f"{name:42}{statistics.median(times):7.1f} ms{spread:>20}"
              f"{statistics.median(ratios):12.2f}")
    print("\nours/stock: the median of the ratios, round by round.")


if __name__ == "__main__":
    sys.exit(main())
