"""Runs inside a node: kills an agent's action at random moments, then recovers.

    kill_actions.py AGENT ACTION TRIES SEED

The agent's environment is this process's. For each try: bring the resource to
where ACTION begins, start ACTION, SIGKILL the agent at a random moment of its
usual length, and let the next action (start and stop in turn) do its work. It
must succeed, and monitor must agree. Goes on until so many were killed, or the time is
over; those that ended before their moment are not counted. Prints one JSON object.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import time

PATIENCE = 90.0
# For each try; it takes about one.
TRY_SECONDS = 20.0


def act(agent: str, action: str) -> tuple[int, str]:
    done = subprocess.run(
        [agent, action], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stderr


def main() -> None:
    agent, action, tries, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    chance = random.Random(seed)
    before = "stop" if action == "start" else "start"
    failures: list[str] = []
    killed = 0
    # How long the action takes when it is let alone: moments beyond are wasted.
    times = []
    for _ in range(3):
        act(agent, before)
        begun = time.monotonic()
        act(agent, action)
        times.append(time.monotonic() - begun)
    usual = sorted(times)[1]
    end = time.monotonic() + TRY_SECONDS * tries
    for number in itertools.count():
        if killed == tries or len(failures) == tries or time.monotonic() > end:
            break
        code, said = act(agent, before)
        if code != 0:
            failures.append(f"try {number}: {before} before it: {code}: {said}")
            continue
        victim = subprocess.Popen(
            [agent, action], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        begun = time.monotonic()
        moment = chance.uniform(0.0, usual)
        try:
            victim.wait(timeout=moment)
            usual = time.monotonic() - begun
        except subprocess.TimeoutExpired:
            victim.kill()
            victim.wait()
            killed += 1
        following = ("start", "stop")[number % 2]
        code, said = act(agent, following)
        state, seen = act(agent, "monitor")
        wanted = 0 if following == "start" else 7
        if code != 0 or state != wanted:
            failures.append(
                f"try {number}: {action} killed after {moment:.3f} s, then {following}: {code} "
                f"({said.strip()}), then monitor: {state} ({seen.strip()})"
            )
    print(json.dumps({"killed": killed, "usual": round(usual, 3), "failures": failures}))


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
