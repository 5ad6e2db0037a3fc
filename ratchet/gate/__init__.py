"""The gate: a policy and two models' counts on the same images in, a verdict with its reasons out. Pure functions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratchet.gate.digests import counts_digest
from ratchet.gate.evidence import Cost, Evidence, LeakEvidence, ServesEvidence, find_leaks
from ratchet.gate.judge import judge
from ratchet.gate.load import load_policy
from ratchet.gate.policy import Budget, NonInferiority, Policy, Superiority
from ratchet.gate.verdict import Context, ModelRef, Verdict

if TYPE_CHECKING:
    from ratchet.gate.artifact import read_counts, write_counts
    from ratchet.gate.record import replay, write_record

__all__ = [
    "Budget",
    "Context",
    "Cost",
    "Evidence",
    "LeakEvidence",
    "ModelRef",
    "NonInferiority",
    "Policy",
    "ServesEvidence",
    "Superiority",
    "Verdict",
    "counts_digest",
    "find_leaks",
    "judge",
    "load_policy",
    "read_counts",
    "replay",
    "write_counts",
    "write_record",
]

_WITH_PARQUET = {"read_counts": "artifact", "write_counts": "artifact", "replay": "record", "write_record": "record"}


def __getattr__(name: str) -> Any:
    """Import what needs pyarrow only when it is asked for: judging does not."""
    if name in _WITH_PARQUET:
        return getattr(import_module(f"ratchet.gate.{_WITH_PARQUET[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
