"""What the fork server does first: importing this lets it outlive a SIGTERM, which ends a job or a service as a whole.

Without the server nobody would know how its trials ended, and they write a checkpoint first. It ends with its parent.
"""

from __future__ import annotations

import os
import signal

_SERVER = os.getpid()


def _end_unless_server(number: int, _: object) -> None:
    """Trials have this handler until they set their own."""
    if os.getpid() != _SERVER:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


signal.signal(signal.SIGTERM, _end_unless_server)
