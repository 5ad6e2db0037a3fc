"""What a log amounts to, event by event: the rules that everyone folds by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import RegistryError
from ratchet.registry.events import Event, EventKind, Void, decode, encode
from ratchet.registry.fold import Folded, State, champion_at
from ratchet.registry.values import Stage

DAWN = datetime(2026, 1, 1, tzinfo=UTC)
PROMOTED, ROLLED_BACK = EventKind.PROMOTED, EventKind.ROLLED_BACK


Told = tuple[EventKind, int] | tuple[EventKind, int, dict[str, Any]]


def written(*events: Told) -> list[Event]:
    """Versions 1 to 9, registered, and then these events, one a minute."""
    registered = [(EventKind.REGISTERED, version, {"created": version}) for version in range(1, 10)]
    decoded = []
    for number, (kind, version, *rest) in enumerate([*registered, *events], start=1):
        fields: dict[str, Any] = {"id": str(number), **(rest[0] if rest else {})}
        time = fields.pop("time", DAWN + timedelta(minutes=number))
        event = Event(kind=kind, version=version, who="ada", **fields)
        decoded.append(decode(encode(event), number, time))
    return decoded


def log(*events: Told) -> tuple[State, tuple[Event, ...]]:
    """What they amount to, and those behind the registrations as they were judged."""
    folded = Folded().with_more(written(*events))
    return folded.state, folded.events[9:]


def voids(*events: Any) -> list[Void | None]:
    return [event.void for event in log(*events)[1]]


def test_a_promotion_counts_only_if_the_expected_champion_is_there() -> None:
    events = [
        (PROMOTED, 1, {"expects": True, "expected": None}),
        (PROMOTED, 2, {"expects": True, "expected": 1}),
        (PROMOTED, 3, {"expects": True, "expected": 1}),
        (PROMOTED, 4, {"expects": True, "expected": None}),
        (PROMOTED, 5),
    ]
    assert voids(*events) == [None, None, Void.CHAMPION_MOVED, Void.CHAMPION_MOVED, None]
    state, judged = log(*events)
    assert (state.champion, state.previous) == (5, (1, 2))
    assert [event.replaced for event in judged] == [None, 1, None, None, 2]
    assert state.moved_at == judged[-1].number


def test_an_event_written_twice_counts_once() -> None:
    assert voids((PROMOTED, 1, {"id": "same"}), (PROMOTED, 2), (PROMOTED, 1, {"id": "same"})) == [
        None,
        None,
        Void.WRITTEN_TWICE,
    ]


def test_the_way_back_skips_what_is_deleted_quarantined_or_already_there() -> None:
    state, _ = log((PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3), (EventKind.DELETED, 2, {"forced": True}))
    assert state.rollback_target == 1
    state, _ = log((PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 1))
    assert state.rollback_target == 2
    state, _ = log((PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 1), (EventKind.DELETED, 2, {"forced": True}))
    assert state.rollback_target is None
    state, _ = log((PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 1), (PROMOTED, 3), (ROLLED_BACK, 3, {"target": 1}))
    assert (state.champion, state.rollback_target, state.quarantined) == (1, 2, {3})


def test_a_rollback_counts_only_from_the_champion_to_the_version_before_it() -> None:
    before = [(PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3)]
    for wrong in ((3, 1), (2, 1), (3, None), (3, 9)):
        assert voids(*before, (ROLLED_BACK, wrong[0], {"target": wrong[1]}))[-1] is Void.CHAMPION_MOVED
    state, _ = log(*before, (ROLLED_BACK, 3, {"target": 2}), (ROLLED_BACK, 2, {"target": 1}))
    assert (state.champion, state.rollback_target, state.quarantined) == (1, None, {2, 3})


def test_quarantine_holds_for_the_same_fingerprint_until_it_is_released() -> None:
    mark = {"fingerprint": "f"}
    before = [(PROMOTED, 1), (PROMOTED, 2, mark), (ROLLED_BACK, 2, {"target": 1, **mark})]
    for kind in (PROMOTED, EventKind.STAGED):
        assert voids(*before, (kind, 2), (kind, 3, mark), (kind, 4))[3:] == [Void.QUARANTINED, Void.QUARANTINED, None]
    assert voids(*before, (EventKind.RELEASED, 2), (PROMOTED, 3, mark))[3:] == [None, None]
    assert voids((EventKind.RELEASED, 2)) == [Void.NOTHING_TO_DO]
    gone = [*before, (EventKind.DELETED, 2)]
    assert voids(*gone, (EventKind.RELEASED, 3, mark), (PROMOTED, 3, mark))[4:] == [None, None]
    assert voids(*gone, (EventKind.RELEASED, 4, {"fingerprint": "g"}))[4:] == [Void.NOTHING_TO_DO]


def test_an_observation_counts_only_directly_behind_what_it_followed() -> None:
    seen = {"moves": ((2, Stage.PRODUCTION),), "outside": True}
    assert voids((EventKind.CHANGED_OUTSIDE, 2, {**seen, "follows": 9})) == [None]
    assert voids((PROMOTED, 1), (EventKind.CHANGED_OUTSIDE, 2, {**seen, "follows": 9}))[1] is Void.OVERTAKEN
    unknown = {"moves": ((77, Stage.PRODUCTION),), "outside": True, "follows": 9}
    assert voids((EventKind.CHANGED_OUTSIDE, 77, unknown)) == [Void.OVERTAKEN]


def test_the_champion_and_the_way_back_cannot_be_archived_or_deleted_without_force() -> None:
    before = [(PROMOTED, 1), (PROMOTED, 2)]
    for kind, version in ((EventKind.ARCHIVED, 2), (EventKind.WITHDRAWN, 2), (EventKind.STAGED, 2)):
        assert voids(*before, (kind, version))[-1] is Void.PROTECTED
    for version in (1, 2):
        assert voids(*before, (EventKind.DELETED, version))[-1] is Void.PROTECTED
        assert voids(*before, (EventKind.DELETED, version, {"forced": True}))[-1] is None
    state, _ = log(*before, (EventKind.DELETED, 2, {"forced": True}))
    assert (state.champion, state.rollback_target) == (None, 1)


def test_a_number_given_again_after_its_model_was_made_anew_is_another_version() -> None:
    anew = (EventKind.REGISTERED, 1, {"created": 500, "id": "anew"})
    gone = (EventKind.DELETED, 1, {"outside": True, "created": 1})
    state, judged = log((PROMOTED, 1), anew, gone, (EventKind.REGISTERED, 1, {"created": 1}), anew)
    assert [event.counts for event in judged] == [True, False, True, False, True]
    assert (state.stages[1], state.created[1], state.champion, dict(state.deleted)) == (Stage.NONE, 500, None, {})


def test_a_number_given_again_has_no_part_in_what_its_predecessor_was() -> None:
    gone = [(EventKind.DELETED, version, {"outside": True}) for version in (1, 2)]
    anew = [(EventKind.REGISTERED, version, {"created": 500 + version}) for version in (1, 2)]
    back = (ROLLED_BACK, 2, {"target": 1, "fingerprint": "f"})
    state, judged = log((PROMOTED, 1), (PROMOTED, 2), back, *gone, *anew, (PROMOTED, 2))
    assert [event.counts for event in judged] == [True] * 8
    assert (state.champion, state.previous, state.rollback_target) == (2, (), None)
    assert (state.quarantined, state.reigned) == (frozenset(), frozenset({2}))


def test_time_never_runs_backwards_even_if_a_clock_does() -> None:
    early = {"time": DAWN - timedelta(days=1)}
    state, judged = log((PROMOTED, 1), (PROMOTED, 2, early), (PROMOTED, 3))
    times = [event.time for event in judged]
    assert times == sorted(times)
    assert champion_at(state, times[1]) == 2
    assert champion_at(state, DAWN) is None
    assert champion_at(state, times[2] + timedelta(days=9)) == 3


def test_what_no_ratchet_wrote_is_refused_by_number() -> None:
    for text in ("", "{}", "[]", "null", '{"format": 1}', '{"format": 1, "kind": "danced", "id": "a"}'):
        with pytest.raises(RegistryError, match="event 7"):
            decode(text, 7, DAWN)
    with pytest.raises(RegistryError, match="newer"):
        decode('{"format": 2, "kind": "promoted"}', 7, DAWN)
    for later in ('"kind": "danced"', '"kind": "promoted", "for": "a while"'):
        with pytest.raises(RegistryError, match="event 7 was written by a newer Ratchet: update this one"):
            decode(f'{{"format": 1, "id": "a", "version": 1, "who": "ada", {later}}}', 7, DAWN)


versions = st.integers(1, 11)
optional = st.none() | versions
any_event = st.builds(
    lambda kind, version, **fields: (kind, version, fields),
    st.sampled_from(EventKind),
    versions,
    expects=st.booleans(),
    expected=optional,
    target=optional,
    forced=st.booleans(),
    outside=st.booleans(),
    fingerprint=st.none() | st.sampled_from("abc"),
    follows=st.none() | st.integers(0, 40),
    moves=st.lists(st.tuples(versions, st.sampled_from(Stage)), max_size=3).map(tuple),
    id=st.uuids().map(str),
)


@given(st.lists(any_event, max_size=30))
def test_whatever_is_written_one_version_at_most_holds_each_stage(events: list[Any]) -> None:
    state, judged = log(*events)
    for stage, holder in ((Stage.PRODUCTION, state.champion), (Stage.STAGING, state.staging)):
        assert [version for version, at in state.stages.items() if at is stage] == ([holder] if holder else [])
    assert state.rollback_target is None or state.rollback_target in state.stages
    assert state.rollback_target not in {state.champion, *state.quarantined} or state.rollback_target is None
    assert not set(state.stages) & set(state.deleted)
    assert all(event.counts for event in judged if event.replaced is not None)


@given(st.lists(any_event, max_size=30), st.integers(0, 30))
def test_what_an_event_became_never_changes_when_more_are_written(events: list[Any], cut: int) -> None:
    assert log(*events[:cut])[1] == log(*events)[1][:cut]


@given(st.lists(any_event, max_size=30), st.integers(0, 39))
def test_a_log_read_in_parts_is_the_log_read_at_once(events: list[Any], cut: int) -> None:
    everything = written(*events)
    first = Folded().with_more(everything[:cut])
    assert first.with_more([]) == first
    whole = first.with_more(everything[cut:])
    assert (whole.state, whole.events) == (Folded().with_more(everything).state, Folded().with_more(everything).events)
    assert first == Folded().with_more(everything[:cut])  # what was laid upon it did not change it


@given(st.lists(any_event, max_size=30))
def test_production_is_never_empty_again_but_by_a_deletion(events: list[Any]) -> None:
    champion: int | None = None
    for event in log(*events)[1]:
        if event.replaced is not None and event.kind is EventKind.DELETED:
            champion = None
        elif event.counts and event.kind is PROMOTED:
            champion = event.version
        elif event.counts and event.kind is ROLLED_BACK:
            champion = event.target
        elif event.counts and event.kind is EventKind.CHANGED_OUTSIDE:
            crowned = [version for version, stage in event.moves if stage is Stage.PRODUCTION]
            champion = crowned[-1] if crowned else champion
    assert log(*events)[0].champion == champion
