"""The system log, without waiting for it.

Not syslog(3): that blocks when journald hangs and its queue is full, and an agent must stop
Asterisk then too. A message for which there is no room is lost; Pacemaker has it from standard
error.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK
from _socket import socket as Socket

from asha.run.text import printable

LOG_SOCKET = "/dev/log"

# Facility daemon, shifted as RFC 3164, 4.1.1, has it.
DAEMON = 3 << 3

# journald cuts longer lines anyway.
LINE_MOST = 8192


def send(severity: int, program: str, text: str, path: str = LOG_SOCKET) -> None:
    """Log one line. Raises OSError when the log does not take it at once."""
    line = printable(" ".join(text.splitlines()))[:LINE_MOST]
    message = f"<{DAEMON | severity}>{program}[{os.getpid()}]: {line}"
    log = Socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
    try:
        log.connect(path)
        log.send(message.encode())
    finally:
        log.close()
