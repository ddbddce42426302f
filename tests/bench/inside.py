"""Runs inside a node: the CPU that each command and its children take.

    inside.py ROUNDS < COMMANDS

COMMANDS is JSON: name -> {"argv": [...], "env": {...}, "code": expected}. The
commands take turns, so that a slow moment of the machine meets them all. Prints
JSON: name -> list of milliseconds of user and system time, one per round.
"""

import json
import resource
import subprocess
import sys


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    rounds = int(sys.argv[1])
    commands = json.load(sys.stdin)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-1, rounds):  # the first round warms the caches
        for name, command in commands.items():
            before = cpu()
            done = subprocess.run(
                command["argv"], env=command["env"], capture_output=True, text=True, check=False
            )
            if done.returncode != command["code"]:
                sys.exit(f"{name}: exit {done.returncode}: {done.stderr}")
            if number >= 0:
                taken[name].append((cpu() - before) * 1000)
    json.dump(taken, sys.stdout)


if __name__ == "__main__":
    main()
