"""How what a back end shows of a model differs from its history, and whether somebody changed it by hand."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.registry.events import Event
from ratchet.registry.fold import State
from ratchet.registry.rendering import render
from ratchet.registry.store import Notes, Observed
from ratchet.registry.values import Stage

ALIASES = {Stage.PRODUCTION: "production", Stage.STAGING: "staging"}


@dataclass(frozen=True)
class Look:
    """One reading of a model: the log and what it amounts to, then the notes, then the projection, in that order."""

    events: tuple[Event, ...]
    state: State
    notes: Notes
    observed: Observed


def undisturbed(notes: Notes, state: State) -> bool:
    """Whether no writer of ours can have left the projection as it is: all was projected once, and nobody is at it.

    Nor was anybody, who was killed: an intent that has no writer any more may be of the last one that wrote.
    """
    return not notes.intents and notes.projected >= state.moved_at


@dataclass(frozen=True)
class Difference:
    """How projection and log differ. `by_hand`: in more than the description. `moves` would make the log agree; none
    of them may be left, as when production's alias was removed: then there is only something to put back."""

    by_hand: bool
    moves: tuple[tuple[int, Stage], ...]


def difference_of(look: Look) -> Difference | None:
    """What someone else than the log says about stages and aliases; None if all agree.

    Of a move that has not reached the stages yet, a writer without them has left those to us: nobody changed them.
    """
    state, observed = look.state, look.observed
    holders = {Stage.STAGING: state.staging, Stage.PRODUCTION: state.champion}
    aliases = {stage: observed.aliases.get(ALIASES[stage]) for stage in holders}
    others = [
        (version, seen.stage)
        for version, seen in sorted(observed.versions.items())
        if seen.stage is not None and seen.stage is not state.stages.get(version, seen.stage)
    ]
    by_hand = others if look.notes.stages >= state.moved_at else []
    moves = [move for move in by_hand if move[1] in {Stage.NONE, Stage.ARCHIVED} and move[0] != state.champion]
    for stage, holder in holders.items():  # production last: it overrules
        named = aliases[stage]
        moves += [move for move in by_hand if move[1] is stage and move[0] != named]
        if named is not None and named != holder:
            moves.append((named, stage))
        if named is None and holder is not None and stage is Stage.STAGING and holder not in dict(moves):
            moves.append((holder, Stage.NONE))
    if by_hand or aliases != holders:
        return Difference(by_hand=True, moves=tuple(moves))
    if others or render(observed.description, state, look.events) != observed.description:
        return Difference(by_hand=False, moves=())
    return None
