"""python3 -m tests.lab: two whole nodes on one machine, by hand."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from tests.lab.host import LabError, LabUnavailable
from tests.lab.image import RELEASES, VARIANTS, ensure_image
from tests.lab.lab import BASE, FAST, REAL, Lab, lab_names, remove_stale

EPILOG = """examples:
  python3 -m tests.lab up                 boot crm1 and crm2 and leave them up
  python3 -m tests.lab run crm1 crm_mon -1
  python3 -m tests.lab shell crm2         a root shell in the node
  python3 -m tests.lab cut crm1 eth1      pull the cluster link's cable
  python3 -m tests.lab crash crm1         cut the power
  python3 -m tests.lab down               remove everything
"""


def say(text: str) -> None:
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python3 -m tests.lab",
        description="Boots the nodes of a cluster on this machine, as root.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--name", default="lab", help="the lab's name (default: lab)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *arguments: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        for argument in arguments:
            command.add_argument(argument)
        # Also behind the command, where people look for it.
        command.add_argument("--name", default=argparse.SUPPRESS, help="the lab's name")
        return command

    up = add("up", "build the image if need be, boot the nodes, leave them up")
    up.add_argument("--release", choices=RELEASES, default="trixie")
    kind = up.add_mutually_exclusive_group()
    kind.add_argument("--no-cluster", action="store_true", help="without Corosync and Pacemaker")
    kind.add_argument("--customer", action="store_true",
                      help="as a customer has them, before asha is installed")
    kind.add_argument("--real", action="store_true",
                      help="the same, with a kernel of their own and real DRBD")
    add("down", "remove a lab and everything of it")
    add("list", "the labs there are")
    image = add("image", "build an image only, and print where it is")
    image.add_argument("--release", choices=RELEASES, default="trixie")
    image.add_argument("--variant", choices=VARIANTS, default="cluster")
    inside = add("run", "run a program in a node", "node")
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="PROGRAM ...")
    add("shell", "a root shell in a node", "node")
    add("crash", "cut a node's power", "node")
    add("replace", "destroy a node, and boot a new one of the same name", "node")
    add("boot", "switch a node on", "node")
    add("reboot", "shut a node down in an orderly way and boot it", "node")
    add("freeze", "stop every process of a node", "node")
    add("thaw", "let a frozen node run on", "node")
    for name, text in (("cut", "pull a cable"), ("restore", "plug a cable in again")):
        add(name, text, "node").add_argument("nic", choices=("eth0", "eth1"))
    add("line", "to which node the telephone line goes")
    add("unplug", "pull the relay card's USB cable")
    add("plug", "plug the relay card in again")
    return top


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    # As ^C: the lab is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        return perform(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def perform(options: argparse.Namespace) -> int:
    command = options.command
    if command == "up":
        begun = time.monotonic()
        Lab(
            options.name,
            release=options.release,
            cluster=not options.no_cluster,
            customer=options.customer,
            kind=REAL if options.real else FAST,
            persistent=True,
            say=say,
        ).up()
        say(f"up after {time.monotonic() - begun:.0f} s: enter with "
            f"python3 -m tests.lab shell crm1 --name {options.name}")
        return 0
    if command == "image":
        say(str(ensure_image(options.release, say, options.variant)))
        return 0
    if command == "list":
        for name in lab_names():
            up = (BASE / name / "lab.json").exists()
            nodes = ", ".join(node.name for node in Lab.attach(name).running) if up else "half made"
            say(f"{name}: {nodes or 'all off'}")
        return 0
    if command == "down":
        return down(options.name)
    if os.geteuid() != 0:
        raise LabUnavailable("the lab's nodes belong to root: run it with sudo")
    lab = Lab.attach(options.name)
    if command == "line":
        say(lab.line_switch.line_goes_to())
        return 0
    if command in ("unplug", "plug"):
        getattr(lab.line_switch, command)()
        return 0
    node = lab.node(options.node)
    if command == "run":
        if not options.argv:
            raise LabError("run what? python3 -m tests.lab run NODE PROGRAM ...")
        words = node.command(*options.argv)
        os.execvp(words[0], words)
    if command == "shell":
        words = node.command("bash", "-l", env={"TERM": os.environ.get("TERM", "linux")})
        os.execvp(words[0], words)
    if command in ("cut", "restore"):
        getattr(node, command)(options.nic)
    else:
        getattr(node, command)()
    return 0


def down(name: str) -> int:
    if name not in lab_names():
        say(f"no lab called {name} is up")
        remove_stale(say)
        return 0
    try:
        Lab.attach(name).down()
    except LabError:
        Lab(name).down()
    say(f"{name} is removed")
    return 0
