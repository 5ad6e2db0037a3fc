"""Removes what a pruning plan says may go: heavy artifacts of runs first, then the versions that lead to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ratchet.registry.retention import HEAVY, PrunePlan
from ratchet.registry.store import Store

Look = Callable[[], tuple[PrunePlan, dict[int, str | None]]]
"""The plan of this moment, and the run of each version."""


def remove(model: str, look: Look, store: Store, delete: Callable[[int], None], *, dry_run: bool) -> PrunePlan:
    """Carry a plan out, version by version, each looked at again; `delete` is told the versions that go.

    With `dry_run` nothing is touched. Returns what went, or would go.
    """
    first, runs = look()
    gone, lightened, busy = list[int](), set[str](), dict[int, str]()
    for number in first.goes:
        going = {(model, other) for other in first.goes} if dry_run else {(model, number)}
        # Runs come before their version, without which nobody would find them again.
        run_id = runs[number] if runs[number] in first.runs else None
        beside = frozenset[str]() if run_id is None else store.beside(run_id, going=going)
        if beside is None:
            busy[number] = "its sweep is at work, or ended within a day"
            continue
        if dry_run:
            gone.append(number)
            lightened |= beside | ({run_id} if run_id is not None else set())
            continue
        now, _ = look()  # while others went, it may have been staged, pinned or deleted
        if number not in now.goes:
            continue
        this = (model, number)
        lightened |= {trial for trial in beside if store.lighten(trial, HEAVY, going=this)}
        now, _ = look()  # that may have taken minutes
        if number not in now.goes:
            continue
        if run_id is not None and run_id in now.runs and store.lighten(run_id, HEAVY, going=this):
            lightened.add(run_id)
        delete(number)
        gone.append(number)
    return replace(first, goes=tuple(gone), stays={**first.stays, **busy}, runs=tuple(sorted(lightened)))
