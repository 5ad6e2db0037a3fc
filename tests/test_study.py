"""The persistent study: it goes on where a process died, and processes that share it do not tread on each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import TINY
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from ratchet.config import compose_space
from ratchet.errors import ConfigError, RatchetError, ServerUnreachableError
from ratchet.training.plan import PlannedTrial, SweepPlan, plan_sweep
from ratchet.training.study import SweepStudy
from ratchet.training.study_storage import STORAGE, address, again
from ratchet.training.study_workers import is_dead

OVERRIDES = [*TINY, "optimizer.lr=tag(log,interval(1e-4,1e-1))", "sweep.max_trials=5"]


_studies: list[SweepStudy] = []


def opened(found: SweepPlan) -> SweepStudy:
    """Its study, whose heart beats to the end of the test."""
    _studies.append(SweepStudy(found, synchronous=True))
    return _studies[-1]


@pytest.fixture(autouse=True)
def _close_studies() -> Iterator[None]:
    yield
    while _studies:
        _studies.pop().close()


def plan(*overrides: str) -> SweepPlan:
    """A plan whose data nobody looks at."""
    composed = compose_space([*OVERRIDES, *overrides])
    trials = [
        PlannedTrial(name=str(n), config=config, fingerprint=str(n), asked=str(n), images=1, point=point)
        for n, (config, point) in enumerate(zip(composed.configs, composed.points, strict=True))
    ]
    return SweepPlan(trials=tuple(trials), size=composed.size, space=composed.space)


def test_a_halved_grid_that_is_selected_by_another_metric_is_another_study(ratchet_home: Path) -> None:
    halved = [*TINY, "optimizer.lr=0.1,0.01", "trainer.max_epochs=4", "sweep.halving=true"]
    one, other = (
        plan_sweep(compose_space([*halved, *by])) for by in ([], ["retrain.metric=val_loss_epoch", "retrain.mode=min"])
    )
    assert [trial.fingerprint for trial in one.trials] == [trial.fingerprint for trial in other.trials]
    asked = []
    for found in (one, other):
        study = opened(found)
        asked.append([study.ask() for _ in range(3)])
    assert [trial is None for trial in asked[0]] == [trial is None for trial in asked[1]] == [False, False, True]


def test_a_halved_grid_goes_on_whatever_the_order_of_its_lists(ratchet_home: Path) -> None:
    halved = [*TINY, "trainer.max_epochs=4", "sweep.halving=true"]
    one, other = (plan_sweep(compose_space([*halved, f"optimizer.lr={rates}"])) for rates in ("0.1,0.01", "0.01,0.1"))
    assert one.digest == other.digest
    asked = []
    for found in (one, other):
        study = opened(found)
        asked.append(study.ask())
    assert None not in asked
    assert asked[0] != asked[1]


def test_of_a_grid_that_two_queued_at_once_each_trial_is_handed_out_once(ratchet_home: Path) -> None:
    halved = [*TINY, "trainer.max_epochs=4", "sweep.halving=true", "optimizer.lr=0.1,0.01,0.001"]
    found = plan_sweep(compose_space(halved))
    study = opened(found)
    for trial in found.trials:  # as the other has that looked before this one wrote
        study._study.enqueue_trial({"trial": trial.fingerprint})
    other = opened(found)
    handed_out = [asked for _ in range(4) for asked in (study.ask(), other.ask()) if asked is not None]
    assert sorted(point for _, point in handed_out) == sorted(trial.fingerprint for trial in found.trials)


def goodness(point: object) -> float:
    """A made-up metric, the better the closer the rate is to 0.01."""
    assert isinstance(point, dict)
    return 1 / (1 + abs(float(point["optimizer.lr"]) - 0.01))


def run_to_the_end(study: SweepStudy) -> list[object]:
    points = []
    while (asked := study.ask()) is not None:
        number, point = asked
        points.append(point)
        study.finish(number, goodness(point))
    return points


def asked_at_once(studies: Sequence[SweepStudy], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, object] | None]:
    """What studies hand out that have looked at each other's trials before either has one."""
    together, ask = threading.Barrier(len(studies), timeout=30), optuna.Study.ask

    def at_once(study: optuna.Study) -> optuna.Trial:
        with suppress(threading.BrokenBarrierError):  # one that asks again does so alone
            together.wait(5)
        return ask(study)

    with monkeypatch.context() as patch, ThreadPoolExecutor(len(studies)) as pool:
        patch.setattr(optuna.Study, "ask", at_once)
        return list(pool.map(SweepStudy.ask, studies))


@pytest.mark.usefixtures("ratchet_home")
def test_processes_that_ask_at_once_draw_points_of_their_own_and_not_one_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studies = [opened(plan()) for _ in range(2)]
    first = asked_at_once(studies, monkeypatch)
    assert all(first)
    assert len({str(point) for _, point in filter(None, first)}) == 2
    for study, asked in zip(studies, first, strict=True):
        assert asked is not None
        study.finish(asked[0], goodness(asked[1]))
    for _ in range(2):
        number, point = studies[0].ask() or pytest.fail("there are five")
        studies[0].finish(number, goodness(point))
    last = asked_at_once(studies, monkeypatch)
    assert [asked is None for asked in last].count(True) == 1
    assert studies[0].begun() == 5
    trials = studies[0]._study.get_trials()  # the sampler draws together what all of these have
    assert "optimizer.lr" in optuna.search_space.intersection_search_space(trials, include_pruned=True)


@pytest.mark.usefixtures("ratchet_home")
def test_a_trial_that_failed_is_tried_again_though_no_new_one_would_be_begun() -> None:
    study, asked = opened(plan()), []
    for _ in range(5):
        number, point = study.ask() or pytest.fail("there are five")
        asked.append(point)
        study.finish(number, goodness(point)) if len(asked) < 5 else study.end(number, pruned=False)
    fewer = opened(plan("sweep.max_trials=3"))
    assert (fewer.ask() or pytest.fail("it failed"))[1] == asked[-1]
    assert fewer.ask() is None


@pytest.fixture
def elsewhere(ratchet_home: Path) -> Callable[..., str]:
    """Runs lines on a study in another process, which dies without a last word; those of `first` come before the study."""

    def run(lines: str, *, first: str = "") -> str:
        script = (
            f"import os\nfrom test_study import *\n{first}\nstudy = SweepStudy(plan(), synchronous=True)\n"
            f"{lines}\nprint(point['optimizer.lr'], flush=True)\nos._exit(9)\n"
        )
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 9, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_study_whose_process_died_goes_on_with_the_same_point_and_draws_what_it_would_have_drawn(
    elsewhere: Callable[..., str], tmp_path: Path
) -> None:
    lost = elsewhere("number, point = study.ask(); study.finish(number, goodness(point)); number, point = study.ask()")
    points = run_to_the_end(opened(plan()))
    assert len(points) == 4
    assert points[0] == {"optimizer.lr": lost}
    undisturbed = run_to_the_end(opened(plan(f"core.home={tmp_path / 'other'}")))
    assert len(undisturbed) == 5
    assert undisturbed[1:] == points
    again = opened(plan())
    assert again.ask() is None
    assert len(again.ended()) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_shared_study_hands_out_a_trial_once_and_a_failed_one_again_the_next_time() -> None:
    first, second = opened(plan()), opened(plan())
    handed = [study.ask() for study in (first, second, first, second, first, second)]
    assert handed[-1] is None  # there were five
    assert len({asked[0] for asked in handed if asked}) == 5
    failed = handed[0]
    assert failed is not None
    first.end(failed[0], pruned=False)
    assert second.ask() is None
    retried = opened(plan()).ask()
    assert retried is not None
    assert retried[1] == failed[1]


@pytest.mark.usefixtures("ratchet_home")
def test_a_grid_that_is_halved_hands_out_each_of_its_trials_and_remembers_the_rungs() -> None:
    overrides = ("optimizer.lr=0.1,0.2,0.3", "sweep.halving=true", "sweep.max_trials=null")
    grid = opened(plan(*overrides))
    asked = [grid.ask() for _ in range(3)]
    assert [fingerprint for _, fingerprint in filter(None, asked)] == ["0", "1", "2"]
    assert grid.ask() is None
    for (number, _), value in zip(filter(None, asked), (0.5, 0.7, 0.6), strict=True):
        grid.report(number, 1, value)
    assert [grid.should_prune(number) for number, _ in filter(None, asked)] == [True, False, True]
    assert grid.reported(1) == {1: 0.7}


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_force_begins_a_study_anew() -> None:
    assert len(run_to_the_end(opened(plan()))) == 5
    assert len(run_to_the_end(opened(plan("sweep.force=true")))) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_second_process_with_force_joins_the_one_that_has_begun(elsewhere: Callable[..., str]) -> None:
    first = opened(plan("sweep.force=true"))
    asked = first.ask()
    assert asked is not None
    forced = "study = SweepStudy(plan('sweep.force=true'), synchronous=True); number, point = study.ask(); assert number == 1"
    assert asked[1] != {"optimizer.lr": elsewhere(forced)}
    first.finish(asked[0], goodness(asked[1]))  # the study is still there


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_who_is_busy_with_something_else_for_long_does_not_look_dead(
    elsewhere: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.training.study_storage.BEAT_SECONDS", 1)
    monkeypatch.setattr("ratchet.training.study_storage.STALE_SECONDS", 6)  # a dozen beats: a disk may be slow
    study = opened(plan())
    asked = study.ask()
    assert asked is not None
    time.sleep(8)
    hasty = "import ratchet.training.study_storage as module\nmodule.BEAT_SECONDS, module.STALE_SECONDS = 1, 6"
    drawn = elsewhere("number, point = study.ask(); assert number == 1", first=hasty)
    assert asked[1] != {"optimizer.lr": drawn}
    assert study.begun() == 2
    study.report(asked[0], 1, 0.5)
    study.finish(asked[0], 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_what_a_machine_that_died_was_trying_is_given_to_another(
    elsewhere: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = elsewhere("study._worker = 'there/x/1'; number, point = study.ask()")
    monkeypatch.setattr("ratchet.training.study_storage.STALE_SECONDS", 3)
    time.sleep(4)
    asked = opened(plan()).ask()
    assert asked is not None
    assert asked[1] == {"optimizer.lr": lost}


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_what_a_neighbour_that_is_killed_was_trying_is_given_to_who_works_on_at_once(
    elsewhere: Callable[..., str],
) -> None:
    study = opened(plan())
    own = [study.ask() for _ in range(4)]
    failed = own.pop()
    assert failed is not None
    lost = elsewhere("number, point = study.ask()")
    study.end(failed[0], pruned=False)  # which is no fault of the neighbour, and is not tried again now
    assert study.ask() is None  # there were five, and its heart has beaten a moment ago
    assert study.may_come_back()
    asked = study.ask()
    assert asked is not None
    assert asked[1] == {"optimizer.lr": lost}
    assert not study.may_come_back()
    assert study.ask() is None
    for number, point in filter(None, [*own, asked]):
        study.finish(number, goodness(point))
    assert len(study._study.get_trials(states=(TrialState.COMPLETE,))) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_of_containers_that_share_host_and_home_each_counts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for processes in ("pid:[1]", "pid:[2]"):
        monkeypatch.setattr("ratchet.training.study.pid_namespace", lambda processes=processes: processes)
        asked.append(opened(plan()).ask())
    assert [found[0] for found in asked if found] == [0, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_trial_that_failed_and_that_two_queue_at_once_is_tried_once() -> None:
    first, second = opened(plan()), opened(plan())
    asked = first.ask()
    assert asked is not None
    first.end(asked[0], pruned=False)
    (failed,) = first._study.get_trials(states=(TrialState.FAIL,))
    for _ in range(2):  # as two do that have both seen that nobody has yet
        again(first._study, failed)
    points = [found for _ in range(4) for study in (first, second) if (found := study.ask()) is not None]
    assert len({repr(point) for _, point in points}) == len(points) == 5
    assert asked[1] in [point for _, point in points]
    assert first.begun() == 5


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("alive", [True, False])
def test_who_has_nothing_to_do_waits_until_it_knows_whether_those_of_another_machine_live(
    alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.training.study_storage.BEAT_SECONDS", 4)
    monkeypatch.setattr("ratchet.training.study_storage.STALE_SECONDS", 8)
    grid = plan("optimizer.lr=0.1,0.2", "sweep.halving=true", "sweep.max_trials=null")
    other = opened(grid)
    other._worker = "there/x/1"
    handed_out = [asked for _ in range(2) if (asked := other.ask())]
    if not alive:
        other.close()
    study, again = opened(grid), list[tuple[int, object]]()
    assert study.ask() is None
    while study.may_come_back():
        again += iter(study.ask, None)
        time.sleep(0.2)
    assert [point for _, point in again] == ([] if alive else [point for _, point in handed_out])


@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("call", ["_get_stale_trial_ids", "record_heartbeat", "set_trial_state_values"])
def test_a_database_that_is_restarted_ends_no_sweep_and_one_that_stays_away_is_named(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(plan())
    study.close()  # its own heartbeats would take a fault
    look, away = getattr(RDBStorage, call), [True, True]

    def restarting(*given: Any, **named: Any) -> Any:
        if away:
            away.pop()
            raise StorageInternalError("server closed the connection unexpectedly")
        return look(*given, **named)

    monkeypatch.setattr(RDBStorage, call, restarting)
    number, point = study.ask() or pytest.fail("there are five")
    study.finish(number, goodness(point))
    assert (number, len(study._study.get_trials()), away) == (0, 1, [])
    number, point = study.ask() or pytest.fail("there are five")
    ending = number, goodness(point)
    monkeypatch.setattr("ratchet.training.study_storage.RESTART_SECONDS", 0.0)
    away.append(True)
    with pytest.raises(ServerUnreachableError, match=r"studies\.db does not answer"):
        study.finish(*ending) if call == "set_trial_state_values" else study.ask()


@pytest.mark.usefixtures("ratchet_home")
def test_force_deletes_no_study_that_another_process_has_just_made() -> None:
    wanted = plan("sweep.force=true")
    first = opened(wanted)
    first._study._storage.delete_study(first._study._study_id)
    made = optuna.create_study(study_name=first._study.study_name, storage=first._storage, direction="maximize")
    made.set_user_attr("made by", "another")  # which could not mark it as forced yet
    second = opened(wanted)
    assert second._study.user_attrs["made by"] == "another"


@pytest.mark.usefixtures("ratchet_home")
def test_of_two_that_begin_by_force_at_once_one_joins_the_other() -> None:
    wanted = plan("sweep.force=true")
    opened(wanted).close()
    old = optuna.load_study(study_name=None, storage=address(wanted.config.core.home))
    old.set_user_attr("forced at", 0.0)
    old.tell(old.ask(), 0.5)  # a study of before, which both may delete
    with ThreadPoolExecutor(2) as pool:
        studies = list(pool.map(lambda _: opened(wanted), range(2)))
    asked = [study.ask() for study in studies]
    assert {number for number, _ in filter(None, asked)} == {0, 1}


@pytest.mark.usefixtures("ratchet_home")
def test_a_rung_that_is_judged_again_keeps_of_equals_those_that_it_kept_before() -> None:
    grid = opened(plan("optimizer.lr=0.1,0.2,0.3,0.4,0.5,0.6", "sweep.halving=true", "sweep.max_trials=null"))
    asked = [grid.ask() for _ in range(6)]
    numbers = [number for number, _ in filter(None, asked)]
    for number in numbers:
        grid.report(number, 1, 0.0)
    kept = [number for number in numbers if not grid.should_prune(number)]
    assert kept == [0, 1]
    for number in numbers[2:]:
        grid.end(number, pruned=True)
    for number in kept:  # as where their process was killed
        grid.end(number, pruned=False)
    again = opened(plan("optimizer.lr=0.1,0.2,0.3,0.4,0.5,0.6", "sweep.halving=true", "sweep.max_trials=null"))
    retried = [again.ask() for _ in range(2)]
    assert [fingerprint for _, fingerprint in filter(None, retried)] == ["0", "1"]
    assert [again.should_prune(number) for number, _ in filter(None, retried)] == [False, False]


@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize(
    ("database", "error"),
    [
        ("sqlite:////no/such/folder/studies.db", ServerUnreachableError),
        ("nosuch://user:secret@host/studies", ConfigError),
    ],
)
def test_a_shared_database_that_cannot_be_used_is_named_without_its_password(
    database: str, error: type[RatchetError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORAGE, database)
    with pytest.raises(error, match=r"RATCHET_STUDY_STORAGE|does not answer") as told:
        opened(plan())
    assert "secret" not in str(told.value)


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_who_dies_while_it_draws_leaves_a_trial_that_is_handed_out_again(elsewhere: Callable[..., str]) -> None:
    elsewhere("import optuna\noptuna.Trial._suggest = lambda *_: print('nan', flush=True) or os._exit(9)\nstudy.ask()")
    assert len(run_to_the_end(opened(plan()))) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_trial_that_others_took_for_dead_goes_on_without_the_study() -> None:
    grid = ("optimizer.lr=0.1,0.2", "sweep.halving=true", "sweep.max_trials=null")
    study, other = (opened(plan(*grid)) for _ in range(2))
    asked = study.ask()
    assert asked is not None
    study.report(asked[0], 1, 0.5)
    other._study.tell(asked[0], state=TrialState.FAIL)
    assert not study.should_prune(asked[0])
    study.report(asked[0], 2, 0.6)
    study.finish(asked[0], 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_trial_that_nobody_signed_is_dead_after_a_day() -> None:
    study = opened(plan())
    study._study.ask()
    (trial,) = study._study.get_trials()
    assert not is_dead(trial, study._worker)
    assert trial.datetime_start is not None
    trial.datetime_start -= timedelta(hours=25)
    assert is_dead(trial, study._worker)


@pytest.mark.slow
@pytest.mark.usefixtures("ratchet_home")
def test_a_new_database_is_made_by_two_at_once(ratchet_home: Path) -> None:
    ratchet_home.mkdir()
    url = f"sqlite:///{ratchet_home / 'new.db'}"
    script = (
        "import sys\nfrom ratchet.training.study_storage import open_storage\nprint('imported', flush=True)\n"
        "sys.stdin.read()\nopen_storage(sys.argv[1])"
    )
    starts = [
        subprocess.Popen([sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in starts:
        assert process.stdout is not None
        assert process.stdout.readline() == b"imported\n"
    for process in starts:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(120) for process in starts] == [0, 0, 0]
