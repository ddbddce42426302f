"""What a clone's notification says, read from the environment.

Source: Pacemaker Administration, "Clone resources: notifications".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "OCF_RESKEY_CRM_meta_notify_"


class Notification:
    """``type`` is pre or post, ``operation`` start, stop, promote or demote.

    The rest are node names; ``promoted`` and ``unpromoted`` describe the state
    before the operation. The old words are read where Pacemaker 2.1 sends them.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        def names(*keys: str) -> tuple[str, ...]:
            for key in keys:
                if environ.get(PREFIX + key, "").strip():
                    return tuple(environ[PREFIX + key].split())
            return ()

        self.type = environ.get(PREFIX + "type", "")
        self.operation = environ.get(PREFIX + "operation", "")
        self.starting = names("start_uname")
        self.stopping = names("stop_uname")
        self.promoting = names("promote_uname")
        self.demoting = names("demote_uname")
        self.promoted = names("promoted_uname", "master_uname")
        self.unpromoted = names("unpromoted_uname", "slave_uname")
