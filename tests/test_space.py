"""Search spaces in Hydra's grammar: what is a grid, what is searched, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import TINY
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from ratchet.config import application, compose_point, compose_space
from ratchet.errors import ConfigError
from ratchet.grammar import read_space
from ratchet.planning import Plan, plan_retraining
from ratchet.space import Choice, Composed, Interval, Origin, Space

pytestmark = pytest.mark.usefixtures("ratchet_home")

LR = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


@pytest.mark.parametrize("varied", [["loss=dice,focal"], ["loss=focal", "loss.gamma=interval(0,5)"]])
def test_trials_of_different_losses_are_not_selected_by_their_loss(varied: list[str]) -> None:
    with pytest.raises(ConfigError, match="the values of different losses cannot be compared"):
        compose_space([*varied, "retrain.metric=val_loss_epoch", "retrain.mode=min"])
    compose_space(varied)
    compose_space(["loss=choice(dice)", "retrain.metric=val_loss_epoch", "retrain.mode=min"])


@pytest.mark.parametrize(
    "varied",
    [
        ["datamodule.batch_size=4,16"],
        ["datamodule.batch_size=auto", "backbone.model.arch=unet,fpn"],
        ["datamodule.batch_size=choice(4,16)", "sweep.sampler=tpe"],
    ],
)
def test_a_loss_of_whole_batches_selects_among_batches_of_one_size(varied: list[str]) -> None:
    by_loss = ["retrain.metric=val_loss_epoch", "retrain.mode=min"]
    with pytest.raises(ConfigError, match="smaller in small ones"):
        compose_space([*varied, *by_loss])
    compose_space(varied)
    compose_space([*varied, *by_loss, "loss=cross_entropy"])
    compose_space(["datamodule.batch_size=auto", *by_loss])


@pytest.mark.parametrize(
    "overrides",
    [
        ["a=1,2", "b=x", "c=x,y,z"],
        ["a=choice(resnet18,resnet50)", "b=range(4,17,4)"],
        ["+a=range(0.1,0.5,0.1)", "b=[1,2],[3]", "c='a b','c,d'"],
        ["a=1,2", "b=3", "a=4,5"],
        ["a=1", "b=null", "~c", "++d={x:1}"],
    ],
)
def test_a_grid_has_the_trials_of_hydras_own_sweeper_in_its_order(overrides: list[str]) -> None:
    parsed = OverridesParser.create().parse_overrides(overrides)
    space = read_space(parsed, Origin())
    ours = [OverridesParser.create().parse_overrides(space.at(point)) for point in space.grid()]
    theirs = [OverridesParser.create().parse_overrides(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]
    assert [[(o.get_key_element(), o.value()) for o in job] for job in ours] == [
        [(o.get_key_element(), o.value() if not o.is_delete() else None) for o in job] for job in theirs
    ]


@pytest.mark.slow
def test_an_interval_makes_a_search_and_every_value_of_it_is_tried_to_compose() -> None:
    encoders = "backbone.model.encoder_name=choice(resnet18,resnet50)"
    composed = compose_space(
        [encoders, LR, "trainer.max_epochs=int(interval(2,9))", "datamodule.batch_size=range(4,13,4)"]
    )
    assert composed.space is not None
    assert composed.size == 20
    assert composed.space.dimensions == {
        "backbone.model.encoder_name": Choice(values=("resnet18", "resnet50")),
        "optimizer.lr": Interval(low=1e-4, high=1e-2, log=True),
        "trainer.max_epochs": Interval(low=2, high=9, integer=True),
        "datamodule.batch_size": Choice(values=("4", "8", "12"), ordered=True),
    }
    point = {"backbone.model.encoder_name": "resnet50", "optimizer.lr": "0.00123", "trainer.max_epochs": "5"}
    config = compose_point(composed.space, point | {"datamodule.batch_size": "8"})
    assert config.optimizer["lr"] == 0.00123
    assert (config.trainer["max_epochs"], config.datamodule["batch_size"]) == (5, 8)
    with pytest.raises(ConfigError, match="dise"):
        compose_space([LR, "loss=choice(dice,dise)"])


@pytest.mark.slow
def test_how_many_trials_a_search_has_follows_from_its_budget_and_its_values() -> None:
    values = "optimizer.lr=0.1,0.2,0.3"
    assert compose_space([LR, "sweep.max_trials=7"]).size == 7
    assert compose_space([LR, "sweep.max_time=1h"]).size is None
    assert compose_space([values, "sweep.sampler=tpe", "sweep.max_time=1h"]).size == 3
    cut = compose_space([values, "sweep.max_trials=2"])
    assert (cut.space, cut.size, len(cut.configs)) == (None, 3, 2)


@pytest.mark.slow
def test_chance_takes_different_points_of_a_grid_and_the_same_ones_again() -> None:
    overrides = ["optimizer.lr=range(1,40)", "sweep.sampler=random", "sweep.max_trials=3"]
    drawn = [compose_space(overrides).points for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len({point["optimizer.lr"] for point in drawn[0]}) == 3
    assert compose_space([*overrides, "core.seed=1"]).points != drawn[0]


@pytest.mark.parametrize("sampler", ["random", "null"])
def test_few_trials_of_a_grid_beyond_all_measure_are_composed_at_once(sampler: str) -> None:
    keys = (
        "optimizer.lr",
        "core.seed",
        "trainer.max_epochs",
        "datamodule.batch_size",
        "trainer.accumulate_grad_batches",
    )
    lists = [f"{key}={','.join(map(str, range(1, 60)))}" for key in keys]
    found = compose_space([*lists, f"sweep.sampler={sampler}", "sweep.max_trials=2"])
    assert len(found.configs) == 2
    assert found.size == (2 if sampler == "random" else 59**5)


def test_a_point_of_a_grid_is_known_by_its_place() -> None:
    space = Space(overrides={key: Choice(values=values) for key, values in (("a", ("1", "2")), ("b", ("x", "y", "z")))})
    assert [space.point(number) for number in range(space.combinations)] == list(space.grid())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lr=interval(2,1)"], "low < high"),
        (["optimizer.lr=tag(log,interval(0,1))"], "0 < low"),
        (["optimizer.lr=tag(lg,interval(1,2))"], "no tag lg"),
        (["optimizer.lr=tag(log,choice(1,2))"], "for interval"),
        (["optimizer.lr=1,1"], "occurs twice"),
        (["loss=glob(nothing*)"], "nothing to choose"),
        ([LR, "sweep.sampler=grid"], "cannot try all"),
        (["sweep.max_trials=1,2"], "several values for sweep"),
        ([LR, "sweep.max_time=soon"], "length of time"),
        (["hydra.run.dir=a,b"], "Hydra itself"),
        (["core.tag=choice(${oc.env:HOME},b)"], "interpolations"),
    ],
)
def test_what_cannot_be_swept_is_told(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_space(overrides)


@pytest.mark.slow
def test_the_command_line_searches_with_multirun_also_in_a_tree_of_its_users(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: torch.nn.CrossEntropyLoss\n")
    composed = application([LR, "loss=choice(mine,dice)", "--config-dir", str(tmp_path), "--multirun"])
    assert composed is not None
    assert composed.space is not None
    config = compose_point(composed.space, {"optimizer.lr": "0.001", "loss": "mine"})
    assert config.loss["_target_"] == "torch.nn.CrossEntropyLoss"
    with pytest.raises(ConfigError, match="multirun"):
        application([LR])


@pytest.mark.slow
def test_what_an_experiment_sweeps_is_swept_by_every_command_and_what_is_typed_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    (tmp_path / "experiment").mkdir()

    def swept(sweeper: str, *typed: str) -> tuple[Composed, Composed]:
        text = f"# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {sweeper}}}\n"
        (tmp_path / "experiment" / "parts.yaml").write_text(text)
        command = application(["experiment=parts", *typed])
        assert command is not None
        return command, compose_space(["experiment=parts", *typed])

    for composed in swept("{params: {optimizer.lr: 'tag(log,interval(1e-4,1e-2))', loss: 'dice,focal'}}"):
        assert composed.space is not None
        assert set(composed.space.dimensions) == {"optimizer.lr", "loss"}
    for composed in swept("{params: {optimizer.lr: 'interval(1e-4,1e-2)', loss: 'dice,focal'}}", "optimizer.lr=0.1"):
        assert [config.optimizer["lr"] for config in composed.configs] == [0.1, 0.1]
    for composed in swept("{params: {backbone.model.encoder_weights: null, optimizer.lr: 'shuffle(range(1,9))'}}"):
        assert {config.backbone.model["encoder_weights"] for config in composed.configs} == {None}
        rates = [config.optimizer["lr"] for config in composed.configs]
        assert sorted(rates) == list(range(1, 9)) != rates
    with pytest.raises(ConfigError, match=r"not n_trials: n_trials is sweep\.max_trials here"):
        swept("{n_trials: 20}")
    with pytest.raises(ConfigError, match=r"not n_trials: n_trials is sweep\.max_trials here"):
        compose_space(["experiment=parts"])
    for name, params in (("other", "{}"), ("parts", "{params: {loss: 'dice,focal'}}")):
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\nhydra: {{sweeper: {params}}}\n")
    without = application(["experiment=parts", "~hydra.sweeper.params", "-m"])
    assert without is not None
    assert len(without.configs) == 1
    with pytest.raises(ConfigError, match="sweep different things"):
        compose_space(["experiment=other,parts"])
    with pytest.raises(ConfigError, match=r"Nearest: hydra/sweeper=ratchet"):
        application(["hydra/sweeper=rachet", "-m"])


@pytest.mark.slow
def test_what_hydra_knows_can_be_named_in_a_file_and_what_it_sets_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "parts.yaml").write_text(
        "# @package _global_\ncore: {tag: 'by ${hydra:runtime.choices.loss}'}\n"
    )
    several = application(["experiment=parts", "loss=focal,dice", "-m"])
    assert several is not None
    assert [config.core.tag for config in several.configs] == ["by focal", "by dice"]
    assert compose_space(["experiment=parts", "loss=focal"]).configs[0].core.tag == "by focal"
    for flags in ([], ["-m"]):
        named = application(["core.tag=${hydra:job.name}", "hydra.job.name=night", *flags])
        assert named is not None
        assert named.configs[0].core.tag == "night"
    for flags in ([], ["-m"]):
        monkeypatch.setenv("RATCHET_TEST", "before")
        one = application(["experiment=parts", "loss=focal", "+hydra.job.env_set.RATCHET_TEST=after", *flags])
        assert one is not None
        assert one.configs[0].core.tag == "by focal"
        assert os.environ["RATCHET_TEST"] == "after"


def test_what_hydra_would_start_and_complete_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra/launcher: mine\.Launcher would start nothing.*sweep\.parallel"):
        application(["loss=focal,dice", "hydra.launcher._target_=mine.Launcher", "-m"])
    with pytest.raises(ConfigError, match="nothing to install"):
        application(["-sc", "install=bash"])


def test_values_that_are_shuffled_lie_in_the_same_order_each_time() -> None:
    rates = [compose_space(["optimizer.lr=shuffle(range(1,9))"]).points for _ in range(2)]
    assert rates[0] == rates[1]
    found = [int(point["optimizer.lr"]) for point in rates[0]]
    assert sorted(found) == list(range(1, 9)) != found


def test_a_trials_time_becomes_the_trainers() -> None:
    config = compose_space(["sweep.trial_max_time=1h30m"]).configs[0]
    assert (config.sweep.trial_max_time, config.trainer["max_time"]) == (5400.0, {"seconds": 5400.0})


@pytest.mark.slow
def test_a_retraining_that_is_searched_keeps_its_plan_and_judges_all_its_trials_by_one_standard() -> None:
    overrides = [*TINY, LR, "backbone.model.arch=choice(unet,fpn)", "sweep.max_trials=3"]
    plan = plan_retraining(overrides)
    assert plan.title.endswith(": 3 trials")
    assert Plan.from_yaml(plan.to_yaml()).model_dump() == plan.model_dump()
    assert plan_retraining(overrides).fingerprint == plan.fingerprint
    assert plan_retraining([*overrides[:-1], "sweep.max_trials=4"]).fingerprint != plan.fingerprint
    for searched in (
        "datamodule.split_seed=range(1,3)",
        "datamodule.drift=interval(0.1,0.5)",
        "retrain.to=choice(staging,production)",
        "gate=glob(*)",
        "export=default,onnx",
    ):
        with pytest.raises(ConfigError, match="judged by one standard"):
            plan_retraining([*overrides, searched])


@pytest.mark.slow
def test_a_search_is_another_one_where_what_its_choices_name_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loss").mkdir()
    mine = tmp_path / "loss" / "mine.yaml"
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    plans = []
    for smooth in (1.0, 1.0, 2.0):
        mine.write_text(f"_target_: ratchet.training.losses.DiceLoss\nnum_outputs: 1\nsmooth: {smooth}\n")
        plans.append(plan_retraining([*TINY, LR, "loss=choice(dice,mine)", "sweep.max_trials=3"]))
    first, same, other = plans
    assert (first.fingerprint, first.sweep.asked) == (same.fingerprint, same.sweep.asked)
    assert first.fingerprint != other.fingerprint
    assert first.sweep.digest != other.sweep.digest
