"""What a sweep is about to do, told before it starts: its trials, those that are there already, and the time it may take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ratchet.data.samples import unlisted_note
from ratchet.duration import shown_duration
from ratchet.registry.searches import all_experiments, all_runs
from ratchet.registry.tracking import client
from ratchet.run_names import IMAGES_TAG
from ratchet.training.folder import TrialFolder
from ratchet.training.halving import rungs
from ratchet.training.plan import PlannedTrial, SweepPlan

if TYPE_CHECKING:
    from mlflow.entities import Run

_PAST_RUNS = 10


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class PreviewedTrial(_Value):
    """One trial before the sweep: reused from a run, pruned before, or to be trained, in about so many seconds (or unknown).

    `done` are the epochs that an interrupted training of it has behind it on this machine.
    """

    name: str
    epochs: int
    done: int = 0
    reused: str | None
    pruned: bool
    seconds: float | None


class Preview(_Value):
    """The trials as far as they are known; `seconds` is what the whole may take, None where nothing tells.

    `sentence` says it all in one line.
    """

    trials: tuple[PreviewedTrial, ...]
    seconds: float | None
    sentence: str


def preview(plan: SweepPlan, found: Mapping[str, Run], *, at_once: int, pruned: Collection[str] = ()) -> Preview:
    """Estimate the time from finished runs of the same networks: in proportion to epochs, images and pixels.

    The fingerprints in `pruned` ended at a rung before, and stay so.
    Of a search the first point stands for all, unless trials of it have finished before: then they do.
    """
    searched = [] if plan.space is None or plan.settings.force else runs_of(plan, "attributes.status = 'FINISHED'")
    new_ones = [trial for trial in plan.trials if trial.fingerprint not in {*found, *pruned}]
    done = {trial.fingerprint: _done(trial) for trial in new_ones}
    for_others = plan.space is not None or plan.settings.halving  # a time that stands for more than one trial
    expected = _expected(new_ones, dict.fromkeys(done, 0) if for_others else done, searched)
    trials = [
        PreviewedTrial(
            name=trial.name,
            epochs=trial.config.trainer["max_epochs"],
            done=done.get(trial.fingerprint, 0),
            reused=found[trial.fingerprint].info.run_id if trial.fingerprint in found else None,
            pruned=trial.fingerprint in pruned,
            seconds=expected.get(trial.fingerprint),
        )
        for trial in plan.trials
    ]
    timed = [trial.seconds for trial in trials if trial.seconds is not None]
    whole = plan.due
    reused = len(found) if plan.space is None else len(searched[:whole])
    new, seconds = None if whole is None else max(0, whole - reused - len(pruned)), None
    if timed and new is not None:
        share = _share(plan, new) if plan.settings.halving else 1.0
        seconds = mean(timed) * new * share / min(at_once, max(new, 1))
    return Preview(
        trials=tuple(trials) if plan.space is None else (),
        seconds=seconds,
        sentence=_sentence(
            plan,
            reused,
            len(pruned),
            new,
            seconds,
            each=mean(timed) if timed else None,
            untimed=(new or 0) - len(timed) if plan.space is None else 0,
        ),
    )


def runs_of(plan: SweepPlan, condition: str) -> list[Run]:
    """The runs of a sweep's trials, of this process or one before, that meet an MLflow filter."""
    store = client()
    experiment = store.get_experiment_by_name(plan.config.core.name)
    wanted = f"{condition} and tags.`{plan.tag}` = 'true'"
    return [] if experiment is None else all_runs(store, [experiment.experiment_id], wanted)


def _done(trial: PlannedTrial) -> int:
    if trial.config.sweep.force:
        return 0
    try:
        snapshot = TrialFolder(trial.config.core.home, trial.fingerprint).newest()
    except OSError:  # of a trial that another process trains just now
        return 0
    return snapshot.facts.epoch if snapshot is not None else 0


def _expected(trials: Sequence[PlannedTrial], done: Mapping[str, int], searched: Sequence[Run]) -> dict[str, float]:
    """Seconds by fingerprint, for those whose network has been trained before; the median of the last runs."""
    rates: dict[tuple[str, str], list[float]] = {}
    seconds = {}
    for trial in trials:
        model = trial.config.backbone.model
        network = (str(model.get("arch")), str(model.get("encoder_name")))
        if network not in rates:
            past = searched or _past_runs(*network)
            rates[network] = [rate for run in past if (rate := _rate(run)) is not None]
        if rates[network]:
            seconds[trial.fingerprint] = median(rates[network]) * _work(trial, done[trial.fingerprint])
    return seconds


def _past_runs(arch: str, encoder: str) -> list[Run]:
    """The last finished runs of a network, in any experiment."""
    store = client()
    experiments = [found.experiment_id for found in all_experiments(store)]
    condition = (
        f"attributes.status = 'FINISHED' and params.`backbone.model.arch` = '{arch}' "
        f"and params.`backbone.model.encoder_name` = '{encoder}' and metrics.duration > 0"
    )
    order = ["attributes.start_time DESC"]
    return list(store.search_runs(experiments, condition, order_by=order, max_results=_PAST_RUNS))


def _rate(run: Run) -> float | None:
    """Seconds for a pixel of an image in an epoch; None where the run does not tell."""
    try:
        params, images = run.data.params, int(run.data.tags[IMAGES_TAG])
        pixels = int(params["transforms.input_height"]) * int(params["transforms.input_width"])
        return float(run.data.metrics["duration"]) / (int(params["trainer.max_epochs"]) * images * pixels)
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _work(trial: PlannedTrial, done: int) -> float:
    config = trial.config
    pixels = config.transforms.input_height * config.transforms.input_width
    return float((config.trainer["max_epochs"] - done) * trial.images * pixels)


def _share(plan: SweepPlan, trials: int) -> float:
    """The share of all epochs that is trained where most trials stop at a rung."""
    epochs, eta = plan.config.trainer["max_epochs"], plan.settings.halving_eta
    at, going, trained = 0, trials, 0
    for rung in (*rungs(plan.settings, epochs), epochs):
        trained += going * (rung - at)
        at, going = rung, max(1, going // eta)
    return trained / (trials * epochs) if trials else 0.0


def _sentence(
    plan: SweepPlan,
    reused: int,
    pruned: int,
    new: int | None,
    seconds: float | None,
    *,
    each: float | None,
    untimed: int,
) -> str:
    size = "trials" if plan.due is None else f"{plan.due} trial{'s' if plan.due != 1 else ''}"
    if plan.due is not None and plan.size is not None and plan.due < plan.size:
        size = f"{plan.due} of {plan.size} trials"
    parts = [f"{size} of a search" if plan.space is not None else size]
    parts += [f"{reused} {'finished before' if new is None else 'reused'}"] if reused else []
    parts += [f"{pruned} pruned before"] if pruned else []
    parts += ["halved" if plan.settings.halving else ""]
    if new == 0:
        time = "nothing to train"
    elif each is not None and new is None:
        time = f"each about {shown_duration(each)} by past runs"
    elif seconds is None:
        time = "expected time unknown: no such network has been trained to its end here"
    else:
        time = f"about {shown_duration(seconds)} by past runs"
        time += f", as if the {untimed} that were never timed were like the others" if untimed else ""
    bound = plan.settings.max_time
    parts += [time, f"at most {shown_duration(bound)}" if bound is not None else ""]
    parts += [unlisted_note(plan.trials[0].unlisted)]
    return ", ".join(filter(None, parts))


def _expectation(trial: PreviewedTrial) -> str:
    if trial.reused or trial.pruned:
        return ""
    return shown_duration(trial.seconds) if trial.seconds is not None else "unknown"


def _state(trial: PreviewedTrial) -> str:
    if trial.reused or trial.pruned:
        return "reused" if trial.reused else "pruned"
    return f"goes on after epoch {trial.done}" if trial.done else "to train"


def rows(found: Preview) -> list[dict[str, Any]]:
    """The trials as rows of a table."""
    return [
        {
            "trial": trial.name,
            "epochs": trial.epochs,
            "state": _state(trial),
            "expected": _expectation(trial),
        }
        for trial in found.trials
    ]
