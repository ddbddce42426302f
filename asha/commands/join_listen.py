"""``asha join-listen``: what asha-join.service runs."""

from __future__ import annotations

import argparse

from asha.bootstrap.host.ports import JOIN_PORT
from asha.bootstrap.join.server import Listener, open_socket
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands.common import SECRET, load_site, only_one
from asha.errors import UserError
from asha.machine import Machine, tell_ready
from asha.run.text import printable
from asha.terminal import warn

EPILOG = """\
Runs as asha-join.service on both nodes and for good: a replacement of either
node joins through the one that is left.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """None: asha.conf says everything."""


def run(options: argparse.Namespace) -> int:
    site, _ = _load()
    try:
        server = open_socket(site.here.address)
    except OSError as problem:
        raise UserError(
            f"cannot listen at {site.here.address}, port {JOIN_PORT}: {problem.strerror}",
            f"who does: ss -tlnp sport = {JOIN_PORT}",
        ) from None
    _log(f"{site.here.name} listens at {site.here.address}, port {JOIN_PORT}")
    # Not before: who starts the service may send the other node here at once.
    tell_ready()
    Listener(Machine(), _load, only_one, _log).serve(server)


def _load() -> tuple[Site, Secret]:
    """Read both files anew for each visitor: they may have been written since."""
    site = load_site()
    try:
        return site, Secret.read(SECRET)
    except OSError as problem:
        raise UserError(f"cannot read {SECRET}: {problem.strerror}") from None


def _log(text: str) -> None:
    """To the journal, which adds the time."""
    warn(printable(text))
