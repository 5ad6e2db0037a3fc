"""What a sweep is to do: its trials with their names and fingerprints, or the space that they are drawn from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from ratchet.errors import ConfigError
from ratchet.registry.tracking import is_new_store
from ratchet.run_names import SWEEP_PREFIX
from ratchet.settings import SweepSettings, TrialConfig, flatten
from ratchet.space import Composed, Interval, Point, Space
from ratchet.training.fingerprint import trial_fingerprint
from ratchet.training.leftovers import interrupted
from ratchet.training.origin import PRODUCTION, resolve
from ratchet.training.process import start_server

NOT_CONTENT = {
    *("batch_size", "num_workers", "seed", "train_transform", "input_height", "input_width", "mean", "std"),
    *("cache", "cache_path", "cache_gb"),
}
"""Keys of the datamodule that change neither the images nor their splits."""

_PLAIN = {"backbone.model.arch", "backbone.model.encoder_name"}  # their values speak for themselves


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlannedTrial(_Value):
    """One trial to be: its name and its point say what sets it apart from the sweep's others.

    `asked` is the fingerprint of what was asked for: that `production` is another model now does not change it. `data` is
    the fingerprint of its data, `images` the number of those it trains on; `samples` are the names of all that take part,
    which more may join meanwhile (None where the plan was written down and read again); `gate` is the fingerprint of the gate
    set among them. `unlisted` images are in no split list.
    """

    name: str
    config: TrialConfig
    fingerprint: str
    asked: str
    data: str = ""
    gate: str = ""
    images: int
    # Frozen: Prefect goes through every list, tuple, set and dict that a task is given, name for name. Not validated, so that
    # all trials hold the same one: 200,000 names are 8 MB.
    samples: SkipValidation[frozenset[str] | None] = Field(default=None, exclude=True, repr=False)
    unlisted: int = 0
    point: Point = {}

    def unforced(self) -> PlannedTrial:
        """This trial, but reused if it has been trained, whatever `sweep.force` says."""
        sweep = self.config.sweep.model_copy(update={"force": False})
        return self.model_copy(update={"config": self.config.model_copy(update={"sweep": sweep})})


class SweepPlan(_Value):
    """The trials in their order; where a space is searched, its first point, which may or may not be one of them.

    `size` is the number of trials that were asked for, which `sweep.max_trials` may cut; None: as time allows. `values` are
    what trials with each of the space's values would be, or those of a list that are the same as others today, as pairs of
    `fingerprint` and `asked`. `begun_by` names whoever may take it up again, with what it has trained by force; `spent` are the
    seconds of `sweep.max_time` that it has used up by then.
    """

    trials: tuple[PlannedTrial, ...]
    size: int | None
    space: Space | None = None
    values: tuple[tuple[str, str], ...] = ()
    begun_by: str | None = None
    spent: float = 0.0

    @property
    def config(self) -> TrialConfig:
        """What the trials have in common is the same in all of them."""
        return self.trials[0].config

    @property
    def settings(self) -> SweepSettings:
        """How they are run."""
        return self.config.sweep

    @property
    def due(self) -> int | None:
        """How many trials it runs; None: as time allows."""
        return len(self.trials) if self.space is None else self.size

    @property
    def metric(self) -> str:
        """What is searched, halved and ended by."""
        return self.config.retrain.metric

    @property
    def digest(self) -> str:
        """What the sweep is, as a hash (12 hex digits); its budget is no part of it."""
        return self._digest([*(trial.fingerprint for trial in self.trials), *(made for made, _ in self.values)])

    @property
    def asked(self) -> str:
        """What the sweep was asked for as, as a hash (12 hex digits): before aliases and defaults of the moment were resolved."""
        return self._digest([*(trial.asked for trial in self.trials), *(asked for _, asked in self.values)])

    def unforced(self) -> SweepPlan:
        """This sweep for when it is gone on with: what was to be trained anew has been by then."""
        return self.model_copy(update={"trials": tuple(trial.unforced() for trial in self.trials)})

    def _digest(self, trials: list[str]) -> str:
        parts = [*sorted(trials), self.metric, self.config.retrain.mode]
        if self.space is not None:
            parts += [self.space.digest, str(self.settings.sampler)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    @property
    def tag(self) -> str:
        """The tag that every run of this sweep carries, reused ones too: the same trials have the same tag."""
        return f"{SWEEP_PREFIX}{self.digest}"


class Planner:
    """Makes trials of configurations; the data are fetched, checked and hashed once for all of them.

    What is in production when the first of them starts from it is what all of them start from. Of the data of trials
    `planned` before, and of that, what was planned stands, though there may be more by now. Images that are not
    among `only` are left out.
    """

    def __init__(self, planned: Sequence[PlannedTrial] = (), *, only: Collection[str] | None = None) -> None:
        self._only = only
        self._starts = {
            (PRODUCTION, trial.config.retrain.model): _start(trial.config)
            for trial in planned
            if trial.asked != trial.fingerprint
        }
        self._contents = {
            content_key(trial.config): (trial.data, trial.gate, trial.images, trial.samples, trial.unlisted)
            for trial in planned
            if trial.data
        }

    def trial(self, given: TrialConfig, point: Point, name: str) -> PlannedTrial:
        """Compute its fingerprint. Raises the errors of the data, and of the registry for a model to start from."""
        from ratchet.config import data_module  # noqa: PLC0415 - imports Hydra

        config = self._resolved(given)
        data = data_module(config.datamodule, only=self._only)  # also where its content is known: it refuses settings
        key = content_key(config)
        if key not in self._contents:
            samples = frozenset(sample.name for split in data.samples.values() for sample in split)
            images = len(data.samples["train"])
            self._contents[key] = data.fingerprint, data.gate_fingerprint, images, samples, data.unlisted
        content, gate, images, names, unlisted = self._contents[key]
        fingerprint = trial_fingerprint(config, content)
        production = given.backbone.init_from == PRODUCTION
        asked = trial_fingerprint(given, content) if production else fingerprint
        return PlannedTrial(
            name=name,
            config=config,
            fingerprint=fingerprint,
            asked=asked,
            data=content,
            gate=gate,
            images=images,
            samples=names,
            unlisted=unlisted,
            point=point,
        )

    def _resolved(self, given: TrialConfig) -> TrialConfig:
        named = str(given.backbone.init_from), given.retrain.model
        if named not in self._starts:
            self._starts[named] = _start(resolve(given))
        return given.model_copy(update={"backbone": given.backbone.model_copy(update=self._starts[named])})


def _start(config: TrialConfig) -> dict[str, str | None]:
    return {"init_from": config.backbone.init_from, "init_digest": config.backbone.init_digest}


def content_key(config: TrialConfig) -> str:
    """What is equal for configurations with the same images in the same splits."""
    return repr([item for item in sorted(config.datamodule.items()) if item[0] not in NOT_CONTENT])


def plan_sweep(composed: Composed, *, only: Collection[str] | None = None) -> SweepPlan:
    """Plan what overrides were composed to, on the images named, or all. Raises `ConfigError` and the errors of the data."""
    if composed.space is None:
        trials, same = _plan_list(composed.configs, composed.points, only)
        return SweepPlan(trials=tuple(trials), size=(composed.size or 0) - len(same), values=_values(same))
    planner, space = Planner(only=only), composed.space
    first, *others = (
        planner.trial(config, point, point_name(point, space))
        for config, point in zip(composed.configs, composed.points, strict=True)
    )
    return SweepPlan(trials=(first,), size=composed.size, space=space, values=_values(others))


def _values(trials: Iterable[PlannedTrial]) -> tuple[tuple[str, str], ...]:
    return tuple((trial.fingerprint, trial.asked) for trial in trials)


def get_ready(home: Path) -> None:
    """Where most likely something is to be trained, let the fork server import, while this process composes and plans."""
    if is_new_store() or interrupted(home):
        start_server()


def plan_trials(configs: Sequence[TrialConfig], points: Sequence[Point] = ()) -> list[PlannedTrial]:
    """Name the trials, by their points or else by what differs, and compute their fingerprints.

    Raises `ConfigError` where two configurations are one and the same trial, and the errors of the data. Two that start from
    what is the same model today, `production` and another, or nothing while there is no champion, are one trial today.
    """
    return _plan_list(configs, points)[0]


def _plan_list(
    configs: Sequence[TrialConfig], points: Sequence[Point], only: Collection[str] | None = None
) -> tuple[list[PlannedTrial], list[PlannedTrial]]:
    """The trials, and those that are the same as one of them today."""
    get_ready(configs[0].core.home)
    planner, trials, same = Planner(only=only), dict[str, PlannedTrial](), list[PlannedTrial]()
    points = points if any(points) else differences(configs)
    for config, point in zip(configs, points, strict=True):
        trial = planner.trial(config, point, point_name(point) or _network(config))
        before = trials.setdefault(trial.fingerprint, trial)
        if before is not trial and trial.asked in (before.asked, *(other.asked for other in same)):
            raise ConfigError(f"the trials {before.name} and {trial.name} are the same: leave one of them out.")
        if before is not trial:
            same.append(trial)
    return list(trials.values()), same


def differences(configs: Sequence[TrialConfig]) -> list[Point]:
    """The keys and values in which each configuration is not like all the others."""
    trees = [dict(flatten(config.model_dump(mode="json"))) for config in configs]
    keys = list(dict.fromkeys(key for tree in trees for key in tree))
    varying = [key for key in keys if len({repr(tree.get(key)) for tree in trees}) > 1]
    return [{key: str(tree.get(key)) for key in varying} for tree in trees]


def point_name(point: Point, space: Space | None = None) -> str:
    """Name a trial by its values (`unet lr=0.0013`); numbers out of an interval are rounded, to be read."""
    words = []
    for key, value in point.items():
        dimension = space.dimensions.get(key) if space is not None else None
        rounded = f"{float(value):.3g}" if isinstance(dimension, Interval) and not dimension.integer else value
        plain = key.lstrip("+") in _PLAIN
        words.append(rounded if plain else f"{key.lstrip('+').split('.')[-1]}={rounded}")
    return " ".join(words)


def _network(config: TrialConfig) -> str:
    model = config.backbone.model
    return f"{model.get('arch', 'network')} {model.get('encoder_name', '')}".strip()
