"""Real tiny trainings, in processes of their own, tracked in a real store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import torch
from conftest import TINY
from mlflow import MlflowClient
from PIL import Image

from ratchet.config import compose, compose_sweep
from ratchet.data.reading import read_image
from ratchet.data.seen import SeenImages
from ratchet.errors import ConfigError, SweepFailedError
from ratchet.evaluation.served import ServedModel
from ratchet.evaluation.signature import read_signature
from ratchet.registry.tracking import client
from ratchet.run_names import DATA_FINGERPRINT_TAG, FAILURE_TAG, FINGERPRINT_TAG
from ratchet.training.examples import read_examples
from ratchet.training.plan import plan_trials
from ratchet.training.results import TrialResult
from ratchet.training.sweep import run_sweep

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def trained(home: Path) -> tuple[TrialResult, MlflowClient, Path]:
    """One trial of two epochs, and the store that it was logged to."""
    configs = compose_sweep([*TINY, "trainer.max_epochs=2", "export=onnx", "core.tag=nightly"])
    (result,) = run_sweep(plan_trials(configs))
    store = client()
    assert result.run_id is not None
    folder = home / "downloaded"
    folder.mkdir()
    store.download_artifacts(result.run_id, "", str(folder))
    return result, store, folder


def test_a_trial_ends_as_one_finished_run_with_all_that_made_it(
    trained: tuple[TrialResult, MlflowClient, Path],
) -> None:
    result, store, _ = trained
    run = store.get_run(str(result.run_id))
    assert run.info.status == "FINISHED"
    assert store.get_experiment(run.info.experiment_id).name == "tiny"
    assert run.data.params["backbone.model.encoder_name"] == "tu-test_resnet"
    assert run.data.params["trainer.max_epochs"] == "2"
    assert run.data.tags[FINGERPRINT_TAG] == result.fingerprint
    assert run.data.tags["tag"] == "nightly"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "shapes"
    assert run.data.tags[DATA_FINGERPRINT_TAG].startswith(dataset.dataset.digest)


def test_every_step_and_epoch_is_logged_and_none_is_lost(trained: tuple[TrialResult, MlflowClient, Path]) -> None:
    result, store, _ = trained
    run_id = str(result.run_id)
    steps = [metric.step for metric in store.get_metric_history(run_id, "loss_step")]
    assert len(steps) == len(set(steps)) > 0
    assert len(steps) % 2 == 0
    assert len(store.get_metric_history(run_id, "lr")) == len(steps)
    assert len(store.get_metric_history(run_id, "loss_epoch")) == 2
    # two epochs, and the exported weights last
    assert len(store.get_metric_history(run_id, "val_loss_epoch")) == 3
    assert len(store.get_metric_history(run_id, "val_iou")) == 3


def test_the_run_ends_with_the_metrics_of_the_exported_weights(trained: tuple[TrialResult, MlflowClient, Path]) -> None:
    result, store, _ = trained
    metrics = store.get_run(str(result.run_id)).data.metrics
    for split in ("val", "test"):
        for metric in ("iou", "dice"):
            per_class = [metrics[f"{split}_{metric}_{name}"] for name in ("disc", "polygon")]
            assert metrics[f"{split}_{metric}"] == pytest.approx(np.mean(per_class))
            assert metrics[f"{split}_{metric}"] == result.metrics[f"{split}_{metric}"]
    epochs = [metric.value for metric in store.get_metric_history(str(result.run_id), "val_loss_epoch")]
    assert epochs[-1] == pytest.approx(min(epochs[:-1]), abs=0.02)  # the best epoch's, in float32
    assert metrics["duration"] > 0
    assert metrics["peak_memory"] > 100


def test_the_exported_forms_answer_alike(trained: tuple[TrialResult, MlflowClient, Path]) -> None:
    _, _, folder = trained
    model = folder / "deployment_model"
    card = json.loads((model / "model.json").read_text())
    assert card["classes"] == ["background", "disc", "polygon"]
    images = np.random.default_rng(0).random((3, 3, card["input_height"], card["input_width"]), dtype=np.float32)
    served = torch.jit.load(str(model / "model.pt"))(torch.from_numpy(images)).detach().numpy()
    assert served.shape == (3, 3, 32, 32)
    np.testing.assert_allclose(mlflow.pyfunc.load_model(str(model)).predict(images), served, atol=1e-3)
    loaded = mlflow.pytorch.load_model(str(model))
    np.testing.assert_allclose(loaded(torch.from_numpy(images)).detach().numpy(), served, atol=1e-3)
    assert (model / "model.onnx").stat().st_size > 1000
    signature = mlflow.models.get_model_info(str(model)).signature
    assert signature is not None
    assert signature.inputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 3, 32, 32)


def test_the_export_holds_what_the_gate_asks_of_it(trained: tuple[TrialResult, MlflowClient, Path]) -> None:
    _, _, folder = trained
    model = folder / "deployment_model"
    with np.load(model / "reference.npz") as reference:
        served = torch.jit.load(str(model / "model.pt"))(torch.from_numpy(reference["input"])).detach().numpy()
        np.testing.assert_allclose(served, reference["output"], atol=1e-3)
        example = mlflow.models.Model.load(str(model)).load_input_example(str(model))
        np.testing.assert_array_equal(example, reference["input"])
    assert not (model / "serving_input_example.json").exists()
    named = [line.split("==")[0] for line in (model / "requirements.txt").read_text().splitlines()]
    assert named == ["mlflow", "torch", "numpy"]
    card = mlflow.models.get_model_info(str(model)).metadata["ratchet"]
    assert card == json.loads((model / "model.json").read_text())
    assert {"mean", "std", "classes", "resize"} < set(card)
    signature = read_signature(model)
    assert signature == "float32[-1, 3, 32, 32] → float32[-1, 3, 32, 32]"
    (model / "MLmodel").rename(folder / "MLmodel")
    assert read_signature(model) == signature
    (folder / "MLmodel").rename(model / "MLmodel")
    seen = SeenImages.read(model)
    assert seen is not None
    assert len(seen.train) > len(seen.val) > 0
    assert not seen.train & seen.val


def test_the_page_about_serving_serves(trained: tuple[TrialResult, MlflowClient, Path], tmp_path: Path) -> None:
    model = trained[2] / "deployment_model"
    noise = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 70), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    code = page.split("```python")[1].split("```")[0]
    for theirs, ours in (("models:/cats_vs_dogs@production", str(model)), ("photo.jpg", str(tmp_path / "photo.png"))):
        assert theirs in code
        code = code.replace(theirs, ours)
    found: dict[str, np.ndarray] = {}
    exec(code, found)  # noqa: S102 - our own page
    served = ServedModel(model).predict(read_image(tmp_path / "photo.png")).numpy()
    assert len(np.unique(served)) > 1
    assert found["mask"].shape == (70, 90)
    assert np.mean(found["mask"] != served) < 0.01  # Pillow's and torch's upsampling round apart
    assert set(found["names"]) <= {"background", "disc", "polygon"}


def test_the_run_keeps_checkpoint_configuration_and_pictures(trained: tuple[TrialResult, MlflowClient, Path]) -> None:
    _, _, folder = trained
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert "tu-test_resnet" in (folder / "config.yaml").read_text()
    for name in ("predictions", "per_class_iou", "curves"):
        with Image.open(folder / "report" / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("RGB").getcolors(maxcolors=2**24) or []) > 10
    examples = read_examples(folder / "report" / "examples.json")
    assert len({example.name for example in examples}) == 4
    assert all(0 <= example.iou <= 1 and example.image != example.truth for example in examples)


@pytest.mark.usefixtures("stored_home")
def test_a_trial_is_reused_unless_forced_and_a_failing_one_stops_no_other(tmp_path: Path) -> None:
    configs = compose_sweep(
        [*TINY, f"backbone.model.encoder_weights=null,{tmp_path / 'absent.pth'}", "export.types=[pt2]"]
    )
    first = run_sweep(plan_trials(configs))
    assert [result.status for result in first] == ["finished", "failed"]
    assert "absent.pth" in str(first[1].error)
    failed = client().get_run(str(first[1].run_id))
    assert failed.info.status == "FAILED"
    assert "WeightsUnavailableError" in failed.data.tags[FAILURE_TAG]
    again = run_sweep(plan_trials(configs[:1]))
    assert [(result.status, result.run_id) for result in again] == [("reused", first[0].run_id)]
    with pytest.raises(SweepFailedError, match=r"absent\.pth"):
        run_sweep(plan_trials(configs[1:]))


@pytest.mark.usefixtures("stored_home")
def test_a_killed_trial_fails_alone_and_its_run_says_why() -> None:
    def kill(results: Sequence[TrialResult]) -> None:
        for result in results:
            if result.status == "running" and result.progress.phase == "training":
                for child in psutil.Process().children(recursive=True):
                    forked = child.ppid() != os.getpid() and "forkserver" in " ".join(child.cmdline())
                    if forked and child.num_threads() > 1:  # not a server of other tests
                        child.send_signal(signal.SIGKILL)

    with pytest.raises(SweepFailedError, match="SIGKILL"):
        run_sweep(plan_trials([compose([*TINY, "trainer.max_epochs=50"])]), on_progress=kill)
    experiment = client().get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client().search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert "SIGKILL" in run.data.tags[FAILURE_TAG]


@pytest.mark.usefixtures("ratchet_home")
def test_the_fingerprint_follows_what_decides_the_weights_and_nothing_else() -> None:
    def fingerprint(*overrides: str) -> str:
        return plan_trials([compose([*TINY, *overrides])])[0].fingerprint

    same = fingerprint()
    assert fingerprint("core.name=other", "datamodule.num_workers=3", "logger.batch=1", "gate=strict") == same
    for change in ("optimizer.lr=0.5", "core.seed=1", "trainer.max_epochs=9", "loss=focal", "datamodule.months=3"):
        assert fingerprint(change) != same


@pytest.mark.usefixtures("ratchet_home")
def test_trials_are_named_by_what_sets_them_apart() -> None:
    configs = compose_sweep([*TINY, "backbone.model.arch=unet,fpn", "optimizer.lr=0.1,0.2"])
    names = [trial.name for trial in plan_trials(configs)]
    assert names == ["unet lr=0.1", "unet lr=0.2", "fpn lr=0.1", "fpn lr=0.2"]
    with pytest.raises(ConfigError, match="the same"):
        plan_trials(compose_sweep([*TINY, "core.tag=a,b"]))
