"""Trainings that start from another model's weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY
from mlflow.models import Model

from ratchet.config import compose, compose_space
from ratchet.data.seen import SeenImages
from ratchet.errors import ConfigError, ModelFilesError, ModelNotFoundError, WeightsUnavailableError
from ratchet.evaluation.served import ModelCard
from ratchet.registry import MlflowModelManager
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import SELECTED_TAG
from ratchet.training.export import export_network
from ratchet.training.fitting import build_module
from ratchet.training.origin import WEIGHTS_FILE, fetch, planned
from ratchet.training.plan import PlannedTrial, Planner, plan_sweep, plan_trials
from ratchet.training.sweep import run_sweep
from ratchet.training.warm_start import load_fitting, read_weights

pytestmark = pytest.mark.trains

STILL = ("core.deterministic=true", "optimizer.lr=1e-12", "export.types=[pt2]", "export.checkpoint_selection=last")
SHAPES = (*TINY, *STILL, "retrain.model=shapes")


def plan(*overrides: str) -> PlannedTrial:
    (planned,) = plan_trials([compose([*SHAPES, *overrides])])
    return planned


def seen(run_id: str, folder: Path) -> SeenImages:
    found = SeenImages.read(Path(client().download_artifacts(run_id, "deployment_model", str(folder))))
    assert found is not None
    return found


def network(arch: str, encoder: str = "mobilenet_v2") -> torch.nn.Module:
    config = compose([*TINY, f"backbone.model.arch={arch}", f"backbone.model.encoder_name={encoder}"])
    return build_module(config, ("disc", "polygon")).network


def test_a_network_takes_what_fits_and_says_what_does_not() -> None:
    parent, child = network("unet"), network("fpn")
    before = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    loaded = load_fitting(child, dict(parent.state_dict()), "the parent")
    theirs, own = parent.state_dict(), child.state_dict()
    encoder = [name for name in own if name.startswith("encoder.")]
    assert all(torch.equal(own[name], theirs[name]) for name in encoder)
    assert all(torch.equal(own[name], before[name]) for name in loaded.left)
    assert {*encoder, *loaded.left} == set(own)
    assert str(loaded).startswith(f"{len(encoder)} of {len(own)} tensors, not decoder.")
    with pytest.raises(WeightsUnavailableError, match="no tensor of the parent fits"):
        load_fitting(network("fpn", "resnet18"), dict(parent.state_dict()), "the parent")


def test_weights_are_read_and_no_code_beside_them_is_run(tmp_path: Path) -> None:
    network, directory, ran = torch.nn.Conv2d(3, 1, 1), tmp_path / "model", tmp_path / "ran"
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    export_network(network, card, directory, types=["pt2"])
    (directory / "code").mkdir()
    (directory / "code" / "planted.py").write_text(f"open({str(ran)!r}, 'w')\nraise RuntimeError('planted')\n")
    (directory / "data" / "pickle_module_info.txt").write_text("planted")
    (directory / "data" / "model.pth").write_bytes(b"")
    written = Model.load(str(directory))
    written.flavors["pytorch"]["code"] = "code"
    written.save(str(directory / "MLmodel"))
    before = list(sys.path)
    weights = read_weights(directory, "theirs")
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    assert not ran.exists()
    assert sys.path == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.usefixtures("stored_home")
def test_a_training_starts_from_production_and_its_ancestry_is_on_its_run(tmp_path: Path) -> None:
    planner, given = Planner(), compose([*SHAPES, "backbone.init_from=production"])
    unborn = plan("backbone.init_from=production")
    assert planner.trial(given, {}, "a").fingerprint == unborn.fingerprint
    assert unborn.config.backbone.init_from is None  # there is no champion yet
    assert unborn.fingerprint == plan().fingerprint
    either = plan_sweep(compose_space([*SHAPES, "backbone.init_from=null,production", "core.seed=7"]))
    assert (len(either.trials), either.size) == (1, 1)
    (first,) = run_sweep([unborn])
    manager = MlflowModelManager()
    version = manager.register_model(f"runs:/{first.run_id}/deployment_model", "shapes")
    manager.transition_model("shapes", version.version, "production")
    client().set_model_version_tag("shapes", "1", SELECTED_TAG, "test_iou=0.9")  # so its test images decided, too

    trial = plan("backbone.init_from=production", "core.seed=7")
    assert trial.config.backbone.init_from == "models:/shapes/1"
    assert planner.trial(given, {}, "b").fingerprint == unborn.fingerprint  # all trials of a search start from the same
    assert Planner((trial,)).trial(given, {}, "b").config.backbone.init_from == "models:/shapes/1"
    names = (
        "models:/shapes/1",
        "models:/shapes@production",
        str(first.run_id),
        f"runs:/{first.run_id}/deployment_model",
    )
    assert {plan(f"backbone.init_from='{name}'", "core.seed=7").fingerprint for name in names} == {trial.fingerprint}
    assert trial.fingerprint != plan("core.seed=7").fingerprint
    assert plan("backbone.init_from=production").asked == unborn.asked  # the champion moved, what is asked for did not

    both = plan_sweep(compose_space([*SHAPES, "backbone.init_from=null,production", "core.seed=7"]))
    assert (len(both.trials), both.size) == (2, 2)
    assert both.asked == either.asked
    with pytest.raises(ConfigError, match="are the same"):
        plan_sweep(compose_space([*SHAPES, "backbone.init_from=models:/shapes/1,'models:/shapes@production'"]))

    (child,) = run_sweep([trial])
    assert str(child.note).startswith("starts from models:/shapes/1: 152 of 152 tensors")
    run = client().get_run(str(child.run_id))
    assert run.data.tags["ratchet.parent"] == "models:/shapes/1"
    assert run.data.tags["ratchet.parent_run"] == first.run_id
    images = [seen(str(run_id), tmp_path) for run_id in (first.run_id, child.run_id)]
    assert images[0].inherited == frozenset()
    assert images[1].inherited == images[0].selected_by("test_iou=0.9", frozenset()) > images[0].all != frozenset()
    states = []
    for run_id in (first.run_id, child.run_id):
        path = client().download_artifacts(str(run_id), "checkpoints/last.ckpt", str(tmp_path))
        states.append(torch.load(path, weights_only=True)["state_dict"])
    weights = [name for name in states[0] if name.endswith(".weight")]
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-6) for name in weights)


@pytest.mark.usefixtures("stored_home")
def test_what_names_no_model_is_refused_when_the_trials_are_planned() -> None:
    for name, error in (
        ("somewhere", ConfigError),
        ("/etc/passwd", ConfigError),
        ("models:/absent@best", ModelNotFoundError),
        ("0" * 32, ModelFilesError),
    ):
        with pytest.raises(error):
            plan(f"backbone.init_from='{name}'")


@pytest.mark.usefixtures("stored_home")
def test_weights_that_changed_since_the_planning_are_refused(tmp_path: Path) -> None:
    file, store = tmp_path / WEIGHTS_FILE, client()
    file.parent.mkdir()
    run_id = store.create_run(ensure_experiment("elsewhere")).info.run_id
    for content in ("planned with", "another"):
        file.write_text(content)
        store.log_artifact(run_id, str(file), "mine/data")
        if content == "planned with":
            trial = plan(f"backbone.init_from='runs:/{run_id}/mine'")
    origin = planned(trial.config)
    assert origin is not None
    with pytest.raises(ModelFilesError, match="not those that this training was planned with"):
        fetch(origin, tmp_path / "model")
