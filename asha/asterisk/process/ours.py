"""Which processes are our Asterisk: by their user, their unit, and who has put them there.

Anybody may run /usr/sbin/asterisk, halt it, and write its number where Asterisk's user
may write. So a program's path, a pid file and a command line say nothing. What does:

* the control group of Asterisk's unit: only systemd puts somebody there;
* root's user, real or effective;
* Asterisk's own user, the account, for what a stop has to end: no second Asterisk of
  the account's may write to its data. But it only counts as one that runs when somebody
  other than the account has put it there: a person who has become the account in a
  session of his own, or the cluster. What cron, at or a session of the account's own
  has started is no PBX.

Where there is no unit and no control group to tell by, the account's user is enough.
"""

from __future__ import annotations

import os

from asha.asterisk.process.proc import units_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.asterisk.process.proc import Proc, Process

# What the cluster itself starts is there, without a unit of its own.
CLUSTER = "pacemaker.service"

# logind's, with the user's number between them: systemd.slice(5), user-UID.slice.
SESSIONS = "user.slice"
SESSION_BEGIN, SESSION_END = "user-", ".slice"

# Nobody's: of an account that this node does not have.
NO_ACCOUNT = -1


class Ours:
    """``group``: the unit, or slice, in whose control group all is that the launcher has
    started; "" for none. ``account``: asked for only where it matters, as a directory
    service may have to answer. ``main`` gives the unit's main process as systemd knows
    it, 0 where what is there is only what one has left; None where it cannot tell."""

    def __init__(
        self,
        proc: Proc,
        binary: str,
        pid_file: str,
        group: str,
        account: Callable[[], int],
        main: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.proc = proc
        self.binary = binary
        self.pid_file = pid_file
        self.group = group
        self._ask_account = account
        self._main = main
        self._account: int | None = None

    @property
    def account(self) -> int:
        if self._account is None:
            self._account = self._ask_account()
        return self._account

    def all(self) -> list[Process]:
        """Every Asterisk that a stop must end, the account's strays included."""
        found = self.proc.daemons(self.binary, self.is_kin)
        named = self.proc.from_pid_file(self.pid_file, self.binary)
        if (
            named is not None
            and all(one.pid != named.pid for one in found)
            and self.is_kin(named)
            and not self.proc.is_console(named)
            and not named.gone
        ):
            found.append(named)
        return found

    def running(self) -> list[Process]:
        """Those that count as running here, the one that serves first."""
        found = [one for one in self.all() if self.counts(one)]
        members = [one for one in found if self.is_member(one)]
        others = sorted((one for one in found if one not in members), key=_age)
        return self._leader_first(members) + others

    def is_kin(self, process: Process) -> bool:
        return (
            is_roots(process) or self.is_member(process) or self.account in process.users
        )

    def counts(self, process: Process) -> bool:
        """Whether a process that is kin is there as the PBX."""
        return (
            is_roots(process)
            or self.is_member(process)
            or not self.group
            or self._was_put_there(process)
        )

    def is_member(self, process: Process) -> bool:
        return bool(self.group) and self.proc.is_in(process, self.group)

    def _was_put_there(self, process: Process) -> bool:
        """Whether another user than the account has made its control group."""
        place = self.proc.place(process)
        if place == "/.." or place.startswith("/../"):
            return True  # root has come in from the container's host
        if place in ("", "/"):
            # No control groups, or the topmost, which is root's. Version 1 shows there
            # whoever ends, wherever he was.
            return self.proc.has_program(process)
        units = units_of(place)
        if units[0] == SESSIONS:
            whose = units[1] if len(units) > 1 else ""
            number = whose[len(SESSION_BEGIN) : -len(SESSION_END)]
            return (
                whose.startswith(SESSION_BEGIN)
                and number.isdecimal()
                and int(number) != self.account
            )
        return CLUSTER in units

    def _leader_first(self, members: list[Process]) -> list[Process]:
        """Asterisk's own children are in its group too, and may run its program."""
        if not members:
            return []
        main = self._main()
        if main == 0:
            # What cannot end is no leftover that runs: it may hold the disk for ever.
            return [one for one in members if not self.proc.has_program(one)]
        numbers = {one.pid for one in members}
        # The unit may start a shell that starts Asterisk: then the eldest.
        return sorted(
            members, key=lambda one: (one.pid != main, one.parent in numbers, *_age(one))
        )


def is_roots(process: Process) -> bool:
    """Whether it is root's, or belongs to the user that we are."""
    return not {0, os.geteuid()}.isdisjoint(process.users[:2])


def _age(process: Process) -> tuple[int, int]:
    return int(process.started), process.pid
