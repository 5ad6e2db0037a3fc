"""What the fork server does first: importing this lets it outlive a SIGTERM, which ends a job or a service as a whole.

Without the server nobody would know how its trials ended, and they write a checkpoint first. It ends with its parent.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
