"""How a history looks to people: one line of words for an event, and the description that MLflow's pages show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ratchet.registry.events import Event, EventKind
from ratchet.registry.fold import State
from ratchet.registry.values import Stage

LONGEST_DESCRIPTION = 5_000  # MLflow's column on Postgres and MySQL
MARKER = "<!-- ratchet: what follows is written by Ratchet and replaced at every change -->"
_REASON_SHOWN = 200

# Everything that starts markup in any of the markdown dialects becomes a character reference: unlike a backslash, that
# is understood by all of them, and by plain HTML.
_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#+!|&~=:@\"'$^]|(?<=www)\.", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


_MOVES_SHOWN = 10  # databases keep 5,000 characters of a description


def plain(text: str) -> str:
    """The text on one line, without characters that cannot be seen or that turn the direction of writing."""
    printable = _INVISIBLE.sub(" ", text).encode("utf-8", "replace").decode("utf-8")
    return " ".join(printable.split())


def escape(text: str) -> str:
    """The text such that markdown and HTML show it as it is."""
    return _MARKUP.sub(lambda sign: f"&#{ord(sign.group())};", plain(text))


def headline(event: Event) -> str:
    """What happened, in a few words: `v7 promoted to production, replacing v5`."""
    words = {
        EventKind.REGISTERED: f"v{event.version} registered",
        EventKind.GATED: f"v{event.version} gated, {event.outcome}",
        EventKind.STAGED: f"v{event.version} moved to staging",
        EventKind.PROMOTED: f"v{event.version} promoted to production",
        EventKind.ARCHIVED: f"v{event.version} archived",
        EventKind.WITHDRAWN: f"v{event.version} moved to no stage",
        EventKind.ROLLED_BACK: f"rolled back from v{event.version} to v{event.target}",
        EventKind.RELEASED: f"v{event.version} released from quarantine",
        EventKind.DELETED: f"v{event.version} deleted",
        EventKind.CHANGED_OUTSIDE: "changed outside of Ratchet, " + _moves(event.moves),
        EventKind.NOTED: f"v{event.version} noted",
        EventKind.ASKED: f"v{event.version} waits for approval until {(event.until or '')[:16].replace('T', ' ')} UTC",
        EventKind.APPROVED: f"v{event.version} approved",
        EventKind.REFUSED: f"v{event.version} refused",
    }[event.kind]
    if event.replaced is not None and event.kind in {EventKind.PROMOTED, EventKind.CHANGED_OUTSIDE}:
        words += f", replacing v{event.replaced}"
    if event.outside and event.kind is not EventKind.CHANGED_OUTSIDE:
        words += " outside of Ratchet"
    return words


def _moves(moves: Sequence[tuple[int, Stage]]) -> str:
    shown = [f"v{version} to {stage.value.lower()}" for version, stage in moves[:_MOVES_SHOWN]]
    more = [f"and {len(moves) - _MOVES_SHOWN} more"] if len(moves) > _MOVES_SHOWN else []
    return ", ".join([*shown, *more]) or "put back"


def _line(event: Event) -> str:
    reason = plain(event.reason)
    if len(reason) > _REASON_SHOWN:
        reason = reason[: _REASON_SHOWN - 1] + "…"
    tail = f" — {escape(reason)}" if reason else ""
    return f"- {event.time:%Y-%m-%d %H:%M} UTC, **{escape(headline(event))}**, {escape(event.who)}{tail}\n"


def user_text(description: str | None) -> str:
    """What a person wrote: all that stands above our marker."""
    return (description or "").split(MARKER, 1)[0].rstrip()


def render(description: str | None, state: State, events: Sequence[Event]) -> str:
    """The description that a model should have: the user's own text, then the history, newest first.

    Always under 5,000 characters: lines that do not fit are left out and counted. A user's text that leaves no room
    stays as it is, alone.
    """
    own = user_text(description)
    champion = f"**v{state.champion}**" if state.champion is not None else "no version"
    staging = f", v{state.staging} in staging" if state.staging is not None else ""
    top = (f"{own}\n\n" if own else "") + f"{MARKER}\n### History\nIn production: {champion}{staging}.\n\n"
    shown = [event for event in reversed(events) if event.counts]
    rest = "\n{} earlier event{}: `ratchet history MODEL`\n"
    room = LONGEST_DESCRIPTION - 1 - len(top) - len(rest) - len(str(len(shown)))
    if room < 0:
        return own if len(own) < LONGEST_DESCRIPTION else (description or "")
    lines: list[str] = []
    for event in shown:
        line = _line(event)
        if len(line) > room:
            break
        room -= len(line)
        lines.append(line)
    left = len(shown) - len(lines)
    return top + "".join(lines) + (rest.format(left, "s" if left > 1 else "") if left else "")
