"""A raw client of the Asterisk Manager Interface: one short visit, with deadlines.

Not panoramisk, which has none and brings in asyncio. One visit per question: an
action that blocks inside Asterisk blocks its whole session.

Protocol: Asterisk main/manager.c. After a greeting line, each message is a block
of "Key: value" lines ended by an empty line.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, SOCK_STREAM

from asha.asterisk.wire import Line, Silent
from asha.ocf.results import BadHere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.wire import Conversation
    from asha.ocf.deadline import Deadline

END = b"\r\n\r\n"


class Credentials:
    """An AMI user and its secret. Never printed."""

    def __init__(self, user: str, secret: str) -> None:
        self.user = user
        self.secret = secret

    @classmethod
    def read(cls, path: str) -> Credentials | None:
        """From a file with the lines ``user=NAME`` and ``secret=WORD``.

        None without the file. Raises BadHere when others than its owner may
        read it, or when it says something else.
        """
        import os

        try:
            with open(path, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
                    raise BadHere(
                        f"chmod 600 {path} and chown it to root: others can read or change "
                        "the secret, so it is not used"
                    )
                lines = [line.strip() for line in file]
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as problem:
            raise BadHere(f"cannot read {path}: {problem}") from None
        said = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
        words = {key.strip(): value.strip() for key, value in said.items()}
        if not words.get("user") or not words.get("secret"):
            raise BadHere(f"{path} must have the two lines user=NAME and secret=WORD")
        return cls(words["user"], words["secret"])


class Ami(Line):
    """One visit."""

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
        """False when Asterisk refuses this user."""
        answer = yield from self.action("Login", Username=who.user, Secret=who.secret, Events="off")
        return answer.get("Response") == "Success"

    def action(self, name: str, **fields: str) -> Conversation[dict[str, str]]:
        """The response to one action. Events that come between are dropped."""
        self._count += 1
        identity = f"asha-{self._count}"
        lines = [f"Action: {name}", f"ActionID: {identity}"]
        lines += [f"{key}: {value}" for key, value in fields.items()]
        yield from self.send("\r\n".join(lines).encode() + END)
        while True:
            block = yield from self.read_until(END, f"response to {name}")
            message = _parse(block)
            if message.get("ActionID") == identity and "Response" in message:
                return message

    def output(self, command: str) -> Conversation[str]:
        """What a console command prints; one "Output:" line each since Asterisk 14."""
        identity = "asha-output"
        lines = ["Action: Command", f"ActionID: {identity}", f"Command: {command}"]
        yield from self.send("\r\n".join(lines).encode() + END)
        while True:
            text = (yield from self.read_until(END, f"output of {command}")).decode(
                "utf-8", "replace"
            )
            if f"ActionID: {identity}\r\n" in text:
                said = (line for line in text.split("\r\n") if line.startswith("Output: "))
                return "\n".join(line.removeprefix("Output: ") for line in said) + "\n"


def console(
    address: tuple[str, int], who: Credentials, command: str, deadline: Deadline
) -> Conversation[str]:
    """A whole visit for what one console command prints.

    OSError or Silent as ever, and Silent also where AMI does not accept the user.
    """
    with Ami(address, deadline) as ami:
        yield from ami.greet()
        if not (yield from ami.login(who)):
            raise Silent("accepted login")
        return (yield from ami.output(command))


def _parse(block: bytes) -> dict[str, str]:
    lines = block.decode("utf-8", "replace").split("\r\n")
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}
