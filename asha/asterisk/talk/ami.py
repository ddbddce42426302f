"""A client of the Asterisk Manager Interface: one short session, with deadlines.

Not panoramisk, which has no deadlines and loads asyncio. One session per question: an action
that blocks inside Asterisk blocks its whole session.

Protocol: Asterisk main/manager.c. After a greeting line, each message is a block of "Key:
value" lines ended by an empty line.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, SOCK_STREAM

from asha.asterisk.talk.connections import Line
from asha.run.results import BadHere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation
    from asha.run.deadline import Deadline

END = b"\r\n\r\n"

# Bytes of the file with the secret, and of what comes in a visit for one question: a
# response is a few lines, and events are off.
FILE_MOST = 4096
VISIT_MOST = 64 << 10


class Credentials:
    """An AMI user and its secret. Never printed."""

    def __init__(self, user: str, secret: str) -> None:
        self.user = user
        self.secret = secret

    @classmethod
    def read(cls, path: str) -> Credentials | None:
        """From a file with the lines ``user=NAME`` and ``secret=WORD``.

        None without the file. Raises BadHere if others than its owner may read it, or if it has
        other contents.
        """
        try:
            lines = [line.strip() for line in _private(path).split("\n")]
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as problem:
            raise BadHere(f"cannot read {path}: {problem}") from None
        said = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
        words = {key.strip(): value.strip() for key, value in said.items()}
        if not words.get("user") or not words.get("secret"):
            raise BadHere(f"{path} must have the two lines user=NAME and secret=WORD")
        return cls(words["user"], words["secret"])


def _private(path: str) -> str:
    """The text of a short file that only its owner, root or we, can read. Raises BadHere."""
    import os
    import stat

    # A named pipe would keep us waiting.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            raise BadHere(f"{path} is no ordinary file: write it anew")
        if about.st_mode & 0o077 or about.st_uid not in (0, os.geteuid()):
            raise BadHere(
                f"chmod 600 {path} and chown it to root: others can read or change "
                "the secret, so it is not used"
            )
        text = os.read(number, FILE_MOST + 1)
    finally:
        os.close(number)
    if len(text) > FILE_MOST:
        raise BadHere(f"{path} is longer than {FILE_MOST} bytes: it must have two lines")
    return text.decode("utf-8")


class Ami(Line):
    """One session."""

    most = VISIT_MOST

    def __init__(self, address: tuple[str, int], deadline: Deadline) -> None:
        super().__init__(AF_INET6 if ":" in address[0] else AF_INET, SOCK_STREAM, deadline)
        self.address = address
        self._count = 0

    def greet(self) -> Conversation[str]:
        """Connect and return the greeting, "Asterisk Call Manager/x.y.z"."""
        yield from self.connect(self.address)
        text = yield from self.read_until(b"\r\n", "greeting")
        return text.decode("utf-8", "replace").strip()

    def login(self, who: Credentials) -> Conversation[bool]:
        """False if Asterisk refuses this user. The secret itself is never sent."""
        asked = yield from self.action("Challenge", AuthType="MD5")
        key = answer_to(asked.get("Challenge", ""), who)
        answer = yield from self.action(
            "Login", AuthType="MD5", Username=who.user, Key=key, Events="off"
        )
        return answer.get("Response") == "Success"

    def action(self, name: str, **fields: str) -> Conversation[dict[str, str]]:
        """The response to one action. Events that come between are dropped."""
        self._count += 1
        self.taken = 0
        identity = f"asha-{self._count}"
        lines = [f"Action: {name}", f"ActionID: {identity}"]
        lines += [f"{key}: {value}" for key, value in fields.items()]
        yield from self.send("\r\n".join(lines).encode() + END)
        while True:
            block = yield from self.read_until(END, f"response to {name}")
            message = _parse(block)
            if message.get("ActionID") == identity and "Response" in message:
                return message


def answer_to(challenge: str, who: Credentials) -> str:
    """The key of a login by challenge (main/manager.c, authenticate())."""
    # Not hashlib, which brings in OpenSSL: 3 ms of the 20 that a monitor may cost.
    from _md5 import md5  # type: ignore[import-not-found]

    key: str = md5((challenge + who.secret).encode(), usedforsecurity=False).hexdigest()
    return key


def _parse(block: bytes) -> dict[str, str]:
    lines = block.decode("utf-8", "replace").split("\r\n")
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}
