"""Model files: what they may say, what is told about a mistake, and that the examples are in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from flows.service.check import check_models
from flows.service.deployments import all_deployments, full_name
from flows.service.models import load_model, load_models
from flows.service.prefect_file import render
from ratchet.errors import ConfigError, RatchetError

pytestmark = pytest.mark.slow  # Prefect, which checks cron expressions, takes seconds to import

EXAMPLES = Path(__file__).parent.parent / "deployments"
LEAST = {"name": "m", "experiment": "generic/shapes/segmentation/smp"}
LISTED = ["backbone.model.arch=unet,fpn"]
OWN = """# @package _global_
defaults:
  - /experiment/base/segmentation/smp
  - override /datamodule: base/segmentation
  - _self_
datamodule:
  data_path: /data/scratches
  idx_to_class: {1: scratch}
"""


def written(folder: Path, **keys: object) -> Path:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(LEAST | keys))
    return path


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of experiments of one's own, which is found."""
    (tmp_path / "trees" / "experiment" / "acme").mkdir(parents=True)
    (tmp_path / "trees" / "experiment" / "acme" / "scratches.yaml").write_text(OWN)
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path / "trees"))
    return tmp_path / "trees" / "experiment" / "acme"


def test_the_examples_are_in_order_and_prefect_yaml_is_what_they_come_to() -> None:
    models = load_models(EXAMPLES / "models")
    assert [model.name for model in models] == ["pet_model", "shapes_model"]
    check_models(models)
    assert (EXAMPLES / "prefect.yaml").read_text() == render(models), "write it again: ratchet deploy --write"


def test_every_model_has_the_same_deployments_and_what_is_off_has_no_schedule(tmp_path: Path) -> None:
    model = load_model(written(tmp_path, schedules={"retrain": "0 3 * * 1", "monitor": None}))
    made = {full_name(deployment): deployment for deployment in all_deployments([model])}
    assert sorted(made) == [
        "gate/on-demand-m",
        "monitor/scheduled-m",
        "promote/on-demand-m",
        "prune/weekly-m",
        "retrain/on-degradation-m",
        "retrain/on-demand-m",
        "retrain/on-new-data-m",
        "retrain/scheduled-m",
        "rollback/on-demand-m",
        "watch/scheduled-m",
    ]
    assert made["retrain/scheduled-m"]["schedules"][0]["cron"] == "0 3 * * 1"
    assert "schedules" not in made["monitor/scheduled-m"]
    off = load_model(written(tmp_path, enabled=False, schedules={"retrain": "0 3 * * 1"}))
    made = {full_name(deployment): deployment for deployment in all_deployments([off])}
    assert not made["retrain/scheduled-m"]["schedules"][0]["active"]
    assert not made["retrain/on-new-data-m"]["triggers"][0]["enabled"]


def test_a_rollback_is_never_repeated_after_a_crash(tmp_path: Path) -> None:
    made = {full_name(deployment): deployment for deployment in all_deployments([load_model(written(tmp_path))])}
    repeated = {name for name, deployment in made.items() if "restarts" in deployment["tags"]}
    assert set(made) - repeated == {"rollback/on-demand-m"}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"schedules": {"retrain": "61 * * * *"}}, "schedules.retrain='61 * * * *': not a cron expression"),
        ({"schedules": {"retran": "0 3 * * 1"}}, "schedules.retran: there is no such key; nearest: schedules.retrain"),
        ({"metrik": "val_iou"}, "metrik: there is no such key; nearest: metric"),
        ({"timezone": "Europe/Romme"}, "timezone='Europe/Romme': no such time zone; did you mean Europe/Rome?"),
        ({"collision": "wait"}, "collision='wait'"),
        ({"collision": "refuse", "approval": True}, "with approval: true, use queue"),
        ({"monitor": {"margin": 2}}, "monitor.margin=2"),
        ({"monitor": {"newest": 20, "min_images": 300}}, "min_images=300 is more than newest=20"),
        ({"data": "data/mine"}, "data='data/mine': write the whole path"),
        ({"name": "a/b"}, "name='a/b'"),
        ({"name": "a&b"}, "name='a&b': 'a&b' holds '&'"),
        ({"experiment": None}, "experiment=None"),
        ({"overrides": ["retrain.metric=val_dice"]}, "belongs into the key metric of this file"),
        ({"overrides": ["experiment=other"]}, "belongs into the key experiment of this file"),
        ({"overrides": ["datamodule.data_path=data/parts"]}, "belongs into the key data of this file"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_key(keys: dict[str, object], told: str, tmp_path: Path) -> None:
    path = written(tmp_path, **keys)
    with pytest.raises(ConfigError) as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_overrides_that_do_not_compose_are_told_with_the_model(tmp_path: Path) -> None:
    model = load_model(written(tmp_path, overrides=["trainer.max_epoch=3"]))
    with pytest.raises(ConfigError, match=r"model m: .*trainer.max_epochs"):
        check_models([model])


def test_a_model_file_may_search(tmp_path: Path) -> None:
    for number, overrides in enumerate((["optimizer.lr=interval(1e-4,1e-2)"], ["sweep.sampler=tpe", *LISTED])):
        check_models([load_model(written(tmp_path, name=f"m{number}", overrides=overrides))])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"experiment": "base/segmentation/smp"},
            "model m: experiment=base/segmentation/smp is not among the choices .*RATCHET_SEARCH_PATH",
        ),
        ({"overrides": ["export.types=[pt2]"]}, "model m: .*Add torchscript"),
        ({"overrides": ["gate.group_by=lot"]}, "model m: .*set datamodule.group_by=lot too"),
        ({"metric": "val_iu"}, "model m: .*Nearest: val_iou"),
        ({"metric": "val_loss_epoch"}, "model m: .*mode=min"),
        ({"overrides": ["gate.floor=2"]}, "model m: .*floor = 2"),
        ({"overrides": ["gate=strict,default"]}, "model m: .*several values for gate"),
    ],
)
def test_what_no_run_could_begin_with_is_told_with_the_model(
    keys: dict[str, object], told: str, tmp_path: Path
) -> None:
    with pytest.raises(RatchetError, match=told):
        check_models([load_model(written(tmp_path, **keys))])


@pytest.mark.usefixtures("trees")
def test_an_experiment_of_ones_own_can_be_deployed(tmp_path: Path) -> None:
    check_models([load_model(written(tmp_path, experiment="acme/scratches"))])


def test_a_path_that_means_another_file_in_a_workers_folder_is_refused(tmp_path: Path, trees: Path) -> None:
    (trees / "relative.yaml").write_text(OWN.replace("/data/", "data/"))
    for keys, told in (
        ({"experiment": "acme/relative"}, "datamodule.data_path=data/scratches"),
        ({"overrides": ["backbone.model.encoder_weights=mine.pth,null"]}, "backbone.model.encoder_weights=mine.pth"),
    ):
        with pytest.raises(ConfigError, match=f"model m: {re.escape(told)} is a relative path"):
            check_models([load_model(written(tmp_path, **keys))])


def test_weights_below_the_home_are_whole_in_a_worker(
    tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATCHET_HOME", raising=False)
    weights = "backbone:\n  model:\n    encoder_weights: ${core.home}/mine.pth\n"
    (trees / "home.yaml").write_text(OWN + weights)
    check_models([load_model(written(tmp_path, experiment="acme/home"))])


@pytest.mark.usefixtures("trees")
def test_the_doctor_names_data_that_are_not_here_unless_the_first_training_makes_them(tmp_path: Path) -> None:
    from flows.service.deploying import Declaration
    from flows.service.doctor import _models

    data = tmp_path / "scratches"
    own = load_model(written(tmp_path, experiment="acme/scratches", data=str(data)))
    made = load_model(written(tmp_path, name="made", data=str(tmp_path / "shapes")))
    _, absent = _models(tmp_path, Declaration((own, made)))
    assert (absent.found, absent.bad) == (f"m: there is no folder {data} that can be read here", False)
    assert absent.advice
    data.mkdir()
    assert len(list(_models(tmp_path, Declaration((own, made))))) == 1


def test_two_files_about_one_model_are_refused(tmp_path: Path) -> None:
    written(tmp_path).rename(tmp_path / "first.yaml")
    written(tmp_path)
    with pytest.raises(ConfigError, match=r"m\.yaml: name: .*first\.yaml is about 'm' too"):
        load_models(tmp_path)


def test_a_folder_or_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        load_models(tmp_path / "absent")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(ConfigError, match="holds no keys"):
        load_models(tmp_path)
    (tmp_path / "empty.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_models(tmp_path)


@pytest.mark.parametrize("folder", ["/it's, {a} folder=1", "/data/prüfung", "~/parts", "/data/a\\b"])
def test_a_data_folder_with_odd_signs_composes(folder: str, tmp_path: Path) -> None:
    (model,) = [load_model(written(tmp_path, data=folder))]
    from ratchet.config import compose_sweep
    from ratchet.form import overrides_of

    for overrides in (model.all_overrides, overrides_of(model.form)):
        assert compose_sweep(overrides)[0].datamodule["data_path"] == str(Path(folder).expanduser())


def test_a_model_that_is_switched_off_keeps_no_other_from_its_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = ["trainer.max_epoch=3"]
    models = [
        load_model(written(tmp_path, name="off", overrides=wrong, enabled=False)),
        load_model(written(tmp_path, name="on")),
    ]
    assert list(check_models(models)) == ["on"]
    assert "model off is switched off, and could not be trained: " in caplog.text
