"""The queue of a sweep that searches or halves: what it hands out, what it takes from others, and when it has enough."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import TINY
from optuna.trial import TrialState

from ratchet.config import compose_space
from ratchet.errors import ConfigError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import FINGERPRINT_TAG, PRUNED_TAG
from ratchet.training.board import Board
from ratchet.training.plan import SweepPlan, plan_sweep
from ratchet.training.queue import Pruned, StudyQueue, Turn
from ratchet.training.sweep import _at_work

_queues: list[StudyQueue] = []


def opened(plan: SweepPlan, *, at_once: int = 1) -> StudyQueue:
    """Its queue, whose study is alive to the end of the test."""
    _queues.append(StudyQueue(plan, at_once=at_once))
    return _queues[-1]


@pytest.fixture(autouse=True)
def _close_queues() -> Iterator[None]:
    yield
    while _queues:
        _queues.pop().close()


def searched(*overrides: str) -> SweepPlan:
    return plan_sweep(compose_space([*TINY, *overrides]))


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
@pytest.mark.parametrize("force", ["false", "true"])
def test_what_another_process_has_ended_is_taken_as_it_is(force: str) -> None:
    shared = searched("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=3", f"sweep.force={force}")
    experiment = ensure_experiment("tiny")
    first, second = (opened(shared) for _ in range(2))
    trained, pruned = first.next(), first.next()
    assert isinstance(trained, Turn)
    assert isinstance(pruned, Turn)
    run = client().create_run(experiment, tags={FINGERPRINT_TAG: trained.trial.fingerprint})
    client().log_text(run.info.run_id, "its model", "deployment_model/model.json")
    client().set_terminated(run.info.run_id)
    first.ended(trained, 0.5)
    assert pruned.number is not None
    first._study.end(pruned.number, pruned=True)  # its run does not say so yet
    found, told, nothing, own = second.over(), second.over(), second.over(), second.next()
    assert nothing is None
    assert isinstance(found, Turn)
    assert found.found is not None
    assert found.found.info.run_id == run.info.run_id
    assert isinstance(told, Pruned)
    assert told.trial.fingerprint == pruned.trial.fingerprint
    assert isinstance(own, Turn)
    assert own.found is None
    assert second.next() is None
    assert first.begun() == 3


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
@pytest.mark.parametrize("at_once", [1, 2])
def test_trials_that_are_reused_are_compared_with_at_their_rungs(at_once: int) -> None:
    halved = ("trainer.max_epochs=4", "sweep.halving=true", "sweep.halving_eta=2", "sweep.halving_min_epochs=1")
    plan, store = searched("optimizer.lr=0.1,0.2,0.3,0.4", *halved), client()
    for number, trial in enumerate(plan.trials):
        value = 0.9 if number else 0.01
        tags = {FINGERPRINT_TAG: trial.fingerprint} if number else {}
        run = store.create_run(ensure_experiment("tiny"), tags=tags)
        for step in range(4):
            store.log_metric(run.info.run_id, "val_iou", value, step=step)
            store.log_metric(run.info.run_id, "val_loss_epoch", 1 - value, step=step)
        store.log_text(run.info.run_id, "its model", "deployment_model/model.json")
        if number:
            store.set_terminated(run.info.run_id)
        else:
            own = run.info.run_id
    queue = opened(plan, at_once=at_once)
    turns = [turn for turn in (queue.next() for _ in range(4)) if isinstance(turn, Turn)]
    for turn in sorted(turns, key=lambda turn: turn.found is None):
        if turn.found is not None:
            queue.ended(turn, 0.9)
        else:
            queue.paused(turn, own)
    assert isinstance(queue.next(), Pruned)


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_halved_search_that_only_time_bounds_does_not_wait_for_trials_without_end() -> None:
    run = client().create_run(ensure_experiment("tiny"))
    for step in (7, 14):
        client().log_metric(run.info.run_id, "val_iou", 0.5, step=step)
        client().log_metric(run.info.run_id, "val_loss_epoch", 0.5, step=step)
    timed = ("trainer.max_epochs=4", "sweep.halving=true", "sweep.max_time=1h")
    queue = opened(searched("optimizer.lr=interval(0.1,0.2)", *timed))
    asked = []
    for _ in range(5):
        turn = queue.next()
        assert isinstance(turn, Turn)
        asked.append(turn.until_epoch)
        if turn.until_epoch is not None:
            queue.paused(turn, run.info.run_id)
    assert asked[:2] == [2, None]  # the first one goes on to its end


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_search_that_has_what_it_wants_draws_no_more_and_its_begun_trials_are_known() -> None:
    wanted = searched("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=3")
    queue = opened(wanted)
    turn = queue.next()
    assert isinstance(turn, Turn)
    queue.ended(turn, 0.9)
    assert queue.next(new=False) is None
    assert queue.begun() == 1
    experiment = ensure_experiment("tiny")
    client().create_run(experiment, tags={FINGERPRINT_TAG: "paused on Friday", wanted.tag: "true"})
    client().create_run(experiment, tags={FINGERPRINT_TAG: "pruned", PRUNED_TAG: "why", wanted.tag: "true"})
    assert _at_work(wanted) == {wanted.trials[0].fingerprint, "paused on Friday"}


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_point_that_is_drawn_again_uses_up_nothing() -> None:
    lists = ("optimizer.lr=0.1,0.2,0.3", "trainer.max_epochs=2,3", "sweep.sampler=tpe", "core.seed=43")
    queue = opened(searched(*lists))
    names = set()
    while (turn := queue.next()) is not None:
        assert isinstance(turn, Turn)
        names.add(turn.trial.name)
        queue.ended(turn, 0.5 + 0.1 * len(names))
    assert len(names) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_combination_that_is_refused_is_left_out_and_no_search_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    together = ("scheduler=choice(plateau,cosine)", "+model.scheduler_interval=choice(epoch,step)")
    plan = searched(*together, "sweep.sampler=tpe")
    for _ in range(2):  # of what was left out, nobody begins with it the next time
        queue, names = opened(plan), list[str]()
        while (turn := queue.next()) is not None:
            assert isinstance(turn, Turn)
            names.append(turn.trial.name)
            queue.ended(turn, 0.5 + 0.1 * len(names))
        assert len(names) == len(set(names)) == 3
        assert queue.begun() == 3  # what was refused was never begun
    assert "scheduler=cosine scheduler_interval=step is left out: " in caplog.text
    with pytest.MonkeyPatch.context() as patch:  # what all points are refused for ends the search, with its reason
        patch.setenv("RATCHET_SEARCH_PATH", "/not/mounted")
        with pytest.raises(ConfigError, match="/not/mounted"):
            opened(plan)._take(0, {"scheduler": "cosine", "+model.scheduler_interval": "step"})


@pytest.mark.usefixtures("ratchet_home")
def test_a_search_that_finds_nothing_new_does_not_say_that_it_had_its_trials() -> None:
    search = searched("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=5")
    board = Board(search, lambda _: None)
    for number in range(4):
        trial = search.trials[0].model_copy(update={"fingerprint": str(number)})
        board.update(trial, status="finished", run_id=str(number), metrics={})
    assert (
        board.outcome(None, begun=4).stopped
        == "stopped: 1 of 5 trials not started, what was drawn last had all been tried or refused"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_search_ends_when_it_has_tried_all_that_there_is_though_only_time_bounds_it() -> None:
    queue = opened(searched("trainer.max_epochs=int(interval(2,3))", "sweep.max_time=1h"))
    names = []
    while (turn := queue.next()) is not None:
        assert isinstance(turn, Turn)
        names.append(turn.trial.name)
        queue.ended(turn, 0.5)
    assert sorted(names) == ["max_epochs=2", "max_epochs=3"]


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_forced_search_that_is_gone_on_with_trains_nothing_anew() -> None:
    plan = searched("optimizer.lr=interval(0.1,0.2)", "sweep.force=true")
    turn = opened(plan.unforced()).next()
    assert isinstance(turn, Turn)
    assert not turn.trial.config.sweep.force
    assert (plan.unforced().digest, plan.settings.force) == (plan.digest, True)


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_failed_here_and_is_queued_again_elsewhere_is_taken_again() -> None:
    search = searched("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=1")
    first = opened(search)
    turn = first.next()
    assert isinstance(turn, Turn)
    first.ended(turn, None)
    opened(search)  # another process, which queues what failed
    again = first.next()
    assert isinstance(again, Turn)
    assert again.trial.fingerprint == turn.trial.fingerprint
    first.ended(again, 0.5)
    assert first.next() is None


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_others_queued_again_while_it_lives_is_told_once() -> None:
    search = searched("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=1")
    first = opened(search)
    turn = first.next()
    assert isinstance(turn, Turn)
    assert turn.number is not None
    first._study._study.tell(turn.number, state=TrialState.FAIL)  # as who takes it for dead does
    second = opened(search)  # queues it again
    assert first.next() is None
    first.ended(turn, 0.5)
    (told,) = second._study._study.get_trials(states=(TrialState.COMPLETE,))
    assert (told.value, "repeat" in told.user_attrs) == (0.5, False)
    assert second.next() is not None  # the trial as it is


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_failed_here_and_was_trained_elsewhere_is_taken_as_it_is() -> None:
    search = searched("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=1")
    experiment = ensure_experiment("tiny")
    first = opened(search)
    turn = first.next()
    assert isinstance(turn, Turn)
    first.ended(turn, None)
    second = opened(search)
    again = second.next()
    assert isinstance(again, Turn)
    run = client().create_run(experiment, tags={FINGERPRINT_TAG: again.trial.fingerprint})
    client().log_text(run.info.run_id, "its model", "deployment_model/model.json")
    client().set_terminated(run.info.run_id)
    second.ended(again, 0.5)
    found = first.next()
    assert isinstance(found, Turn)
    assert found.found is not None
