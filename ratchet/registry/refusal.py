"""What the author of an event must be told when it does not count."""

from __future__ import annotations

from ratchet.errors import ChampionMovedError, ProtectedVersionError, QuarantinedError, VersionNotFoundError
from ratchet.registry.events import Event, EventKind, Void
from ratchet.registry.fold import State


def refuse(model_name: str, state: State, event: Event) -> None:
    """Raise what its author must be told if an event does not count."""
    name = f"{model_name} v{event.version}"
    champion = f"v{state.champion}" if state.champion is not None else "no version"
    if event.void in {None, Void.NOTHING_TO_DO, Void.WRITTEN_TWICE}:
        return
    if event.void is Void.CHAMPION_MOVED:
        expected = event.version if event.kind is EventKind.ROLLED_BACK else event.expected
        counted = f"v{expected}" if expected is not None else "no version"
        raise ChampionMovedError(
            f"{name} was not moved ({event.kind.value}): {counted} was expected in production, now it is {champion}: "
            "judge again"
        )
    if event.void is Void.QUARANTINED:
        raise QuarantinedError(
            f"{name} was not moved ({event.kind.value}): it, or a version with the same fingerprint, was rolled back. "
            f"Release it first: `ratchet release {model_name} {event.version}`"
        )
    if event.void is Void.PROTECTED:
        raise ProtectedVersionError(
            f"{name} was left as it is: it is the champion or the version that a rollback returns to (in production: "
            f"{champion}). Promote another version first; delete_model also takes force=True"
        )
    raise VersionNotFoundError(f"{name} was deleted meanwhile")
