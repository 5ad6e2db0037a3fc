"""Where the record of a judgement lies among the artifacts of the challenger's run."""

from __future__ import annotations

from ratchet.gate import Verdict

PICTURE_FILE = "comparison.jpg"


def judgement_path(verdict: Verdict) -> str:
    """Return the folder of a verdict and its evidence."""
    return f"gate/{verdict.digest[:12]}"
