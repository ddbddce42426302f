"""Runs inside a node: what a command costs another process, and itself.

    rounds.py PID SECONDS PAUSE < COMMAND

COMMAND is JSON: {"argv": [...], "env": {...}}, or null to do nothing for SECONDS. It is
run again and again for SECONDS, with PAUSE seconds between. Prints JSON: "seconds" that
it took, "rounds", "own": CPU seconds of the command, "other": those of process PID,
"codes": its exit codes.
"""

import json
import os
import resource
import subprocess
import sys
import time


def own() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def other(pid: int) -> float:
    """User and system time of all threads, ended ones too (proc(5), stat 14 and 15)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    pid, seconds, pause = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    command = json.load(sys.stdin)
    codes = []
    begun = time.monotonic()
    before = own(), other(pid)
    if command is None:
        time.sleep(seconds)
    else:
        while time.monotonic() - begun < seconds:
            done = subprocess.run(
                command["argv"], env=command["env"], capture_output=True, check=False
            )
            codes.append(done.returncode)
            time.sleep(pause)
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - begun,
                "rounds": len(codes),
                "own": own() - before[0],
                "other": other(pid) - before[1],
                "codes": sorted(set(codes)),
            }
        )
    )


if __name__ == "__main__":
    main()
