"""The description that people see in MLflow: theirs on top, the history below, never longer than the column."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ratchet.registry.events import Event, EventKind
from ratchet.registry.fold import Folded
from ratchet.registry.rendering import LONGEST_DESCRIPTION, MARKER, escape, headline, plain, render, user_text
from ratchet.registry.values import Stage

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def events(count: int, reason: str = "", who: str = "ada") -> list[Event]:
    """Version 1 registered, then noted again and again."""
    kinds = [EventKind.REGISTERED] + [EventKind.NOTED] * (count - 1)
    return [
        Event(id=str(n), kind=kind, version=1, who=who, reason=reason or f"note {n}", number=n, time=NOON)
        for n, kind in enumerate(kinds, start=1)
    ]


def test_the_line_of_hundreds_of_changes_has_room_in_a_database() -> None:
    moves = tuple((number, Stage.ARCHIVED) for number in range(1, 301))
    line = headline(Event(id="x", kind=EventKind.CHANGED_OUTSIDE, version=1, who="x", moves=moves))
    assert "v10 to archived, and 290 more" in line
    assert len(line) < 300


def shown(description: str | None, count: int, **fields: str) -> str:
    folded = Folded().with_more(events(count, **fields))
    return render(description, folded.state, folded.events)


def test_the_newest_event_stands_first() -> None:
    text = shown(None, 3)
    assert text.startswith(MARKER)
    assert text.index("note 3") < text.index("note 2") < text.index("note 1")
    assert "2026-03-01 12:00 UTC" in text


def test_a_users_own_text_stays_on_top_however_often_it_is_rendered() -> None:
    own = "# My model\n\nRead *this* first."
    text = shown(own, 3)
    assert text.startswith(own + "\n\n" + MARKER)
    assert shown(text, 3) == text
    assert user_text(shown(text, 50)) == own


def test_what_does_not_fit_is_counted() -> None:
    text = shown("mine", 600)
    assert len(text) < LONGEST_DESCRIPTION
    last = text.rsplit("\n", 2)[-2]
    assert text.count("\n- ") + int(last.split()[0]) == 600
    assert last.endswith("`ratchet history MODEL`")


def test_a_users_text_that_leaves_no_room_is_left_alone() -> None:
    for length in (4_950, 5_000, 9_000):
        own = "x" * length
        assert shown(own, 5) == own


def test_markup_in_names_and_reasons_is_shown_not_obeyed() -> None:
    evil = (
        "<script>alert(1)</script> [click](javascript:x) ![i](http://x) www.x.y `c` *b* a|b &lt; https://e.vil\n# big"
    )
    text = shown(None, 2, reason=evil, who="<b>eve</b>@host")
    body = text.removeprefix(MARKER)
    for sign in ("<", ">", "](", "`c`", "*b*", "://", "www.", "\n# big", "@"):
        assert sign not in body
    assert "&#60;script&#62;" in body


def test_characters_that_hide_or_turn_the_text_are_gone() -> None:
    assert plain("a\u202eb\u200bc\x00d\r\ne\ud800") == "a b c d e?"


def test_every_kind_of_event_has_its_words() -> None:
    for kind in EventKind:
        event = Event(id="a", kind=kind, version=7, who="ada", target=5, outcome="reject")
        assert headline(event)
        assert kind is EventKind.CHANGED_OUTSIDE or "v7" in headline(event)


@given(st.text(max_size=6_000), st.text(max_size=5_000), st.text(max_size=300), st.integers(1, 20))
def test_the_description_always_fits_and_rendering_it_again_changes_nothing(
    own: str, reason: str, who: str, count: int
) -> None:
    text = shown(own, count, reason=reason, who=who or "ada")
    assert len(text) < LONGEST_DESCRIPTION or text == own
    assert shown(text, count, reason=reason, who=who or "ada") == text


@given(st.text())
def test_escaped_text_holds_no_sign_that_starts_markup(text: str) -> None:
    left = escape(text)
    assert not set("<>[]()`*_|~@\\\n") & set(left)
