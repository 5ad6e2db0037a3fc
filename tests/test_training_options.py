"""Options of a training: the batch that fits, gradients over several batches, the same weights twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import TINY
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from ratchet.config import compose, compose_sweep, instantiate
from ratchet.control_groups import own_groups
from ratchet.data.datamodule import SegmentationDataModule
from ratchet.errors import ConfigError, RegistryError, SweepFailedError, TrialFailedError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import BATCH_SIZE_TAG
from ratchet.training import trial
from ratchet.training.fitting import Spending
from ratchet.training.logger import RunLogger
from ratchet.training.memory import free_bytes, has_memory_for, left_of_group, limited_to_what_is_free
from ratchet.training.module import SegmentationModule
from ratchet.training.network import create_network
from ratchet.training.ownership import Ownership
from ratchet.training.plan import plan_trials
from ratchet.training.progress import TrialEnd
from ratchet.training.results import TrialResult
from ratchet.training.run import TrialRun
from ratchet.training.sweep import run_sweep
from ratchet.training.trial import run_trial
from ratchet.training.warm_start import read_weights

SMALL = (*TINY, "export.types=[pt2]", "datamodule.batch_size=4")


def weights(result: TrialResult, folder: Path) -> dict[str, torch.Tensor]:
    path = client().download_artifacts(str(result.run_id), "checkpoints/best.ckpt", str(folder))
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def steps(result: TrialResult) -> int:
    return len(client().get_metric_history(str(result.run_id), "loss_step"))


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_a_batch_size_is_found_told_and_kept_by_a_longer_training() -> None:
    automatic = (*SMALL, "datamodule.batch_size=auto", "scheduler=constant")
    (result,) = run_sweep(plan_trials([compose([*automatic])]))
    images = len(instantiate(compose(SMALL).datamodule).samples["train"])
    found = int(client().get_run(str(result.run_id)).data.tags[BATCH_SIZE_TAG])
    assert found == 4  # a power of two with at least eight steps for thirty-odd images; all fit
    assert steps(result) == -(-images // found) - (images % found == 1)  # a last batch of one is left out
    client().set_tag(str(result.run_id), BATCH_SIZE_TAG, "2")  # as where there was less memory
    (longer,) = run_sweep(plan_trials([compose([*automatic, "trainer.max_epochs=2"])]))
    assert str(longer.note).startswith(f"continues run {result.run_id}")
    assert client().get_run(str(longer.run_id)).data.tags[BATCH_SIZE_TAG] == "2"


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_a_network_trained_in_another_precision_is_scored_and_served_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, whole, modes, passes = set[torch.dtype](), trial.score_batches, set[bool](), list[object]()
    validate, load = SegmentationModule.validation_step, SegmentationDataModule.test_dataloader

    def watched(module: SegmentationModule, *given: Any, **named: Any) -> Any:
        scored.add(next(module.parameters()).dtype)
        assert not torch.backends.cudnn.allow_tf32
        hook = module.network.register_forward_pre_hook(lambda *_: modes.add(torch.is_inference_mode_enabled()))
        try:
            return whole(module, *given, **named)
        finally:
            hook.remove()

    def validated(*given: Any) -> Any:
        assert (
            not torch.is_grad_enabled()
        )  # Lightning's choice: what a network keeps from one validation may be trained with
        return validate(*given)

    monkeypatch.setattr(trial, "score_batches", watched)
    monkeypatch.setattr(SegmentationModule, "validation_step", validated)
    monkeypatch.setattr(SegmentationDataModule, "test_dataloader", lambda data: passes.append(data) or load(data))
    (planned,) = plan_trials([compose([*SMALL, "trainer.precision=bf16-true"])])
    said = {"on_start": lambda _: None, "report": lambda _: None}
    end = run_trial(planned.config, name="a", fingerprint=planned.fingerprint, tags={}, **said)
    assert scored == {torch.float32}
    assert torch.backends.cudnn.allow_tf32  # as torch has it
    assert modes == {True}
    assert len(passes) == 1  # over the test images, for the metrics and for the report
    assert client().get_run(str(end.run_id)).data.tags["ratchet.precision"] == "bf16-true"
    model = Path(client().download_artifacts(str(end.run_id), "deployment_model", str(tmp_path)))
    assert {part.dtype for part in read_weights(model, "it").values() if part.is_floating_point()} == {torch.float32}


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_averaged_weights_are_those_that_are_exported(tmp_path: Path) -> None:
    average = "+callbacks.ema={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}"
    precise = ("trainer.precision=32-true", "trainer.max_epochs=2", "optimizer.lr=0.01")
    (result,) = run_sweep(plan_trials([compose([*SMALL, *precise, average])]))
    validated = client().get_metric_history(str(result.run_id), "val_loss_epoch")
    assert result.metrics["val_loss_epoch"] == pytest.approx(min(row.value for row in validated[:-1]), rel=1e-3)
    kept = client().download_artifacts(str(result.run_id), "checkpoints/best.ckpt", str(tmp_path))
    whole = torch.load(kept, weights_only=True)
    assert any(not torch.equal(value, whole["current_model_state"][key]) for key, value in whole["state_dict"].items())


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_a_state_that_could_not_be_gone_on_from_is_told_at_the_first_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "trial_faults")
    overrides = "+callbacks.fault={_target_: trial_faults.Remembers}"
    with pytest.raises(SweepFailedError, match=r"ConfigError: the state of a callback.* has numpy\S*scalar in it"):
        run_sweep(plan_trials([compose([*SMALL, overrides])]))


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_a_deterministic_training_gives_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    options = ["core.deterministic=true", "sweep.force=true", "backbone.model.arch=fpn"]
    results = [run_sweep(plan_trials([compose([*SMALL, *options])]))[0] for _ in range(2)]
    first, second = (weights(result, tmp_path) for result in results)
    assert results[0].run_id != results[1].run_id
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_optimizer_in_one_pass_takes_the_steps_of_the_plain_one(optimizer: str) -> None:
    trained = []
    for override in ([], ["optimizer.fused=false"]):
        torch.manual_seed(0)
        network = create_network(arch="unet", encoder_name="mobilenet_v2", encoder_weights=None, num_classes=1)
        network = network.to(memory_format=torch.channels_last).train()
        config = compose([*TINY, f"optimizer={optimizer}", "optimizer.lr=0.01", *override])
        steps = instantiate(config.optimizer)(network.parameters())
        assert steps.defaults["fused"] == (not override)
        network(torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)).mean().backward()
        before = network.segmentation_head[0].weight.detach().clone()
        for _ in range(3):
            for parameter in network.parameters():
                parameter.grad.copy_(torch.randn(parameter.shape))  # in the layout that the backward pass gave it
            steps.step()
        assert not torch.allclose(network.segmentation_head[0].weight, before, atol=1e-3)
        trained.append(dict(network.named_parameters()))
    for name, weight in trained[0].items():
        torch.testing.assert_close(weight, trained[1][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_gradients_of_several_batches_make_one_step_and_the_next_trial_trains_beside_an_export_that_yields() -> None:
    seen, niceness = set(), {"training": set[int](), "exporting": set[int]()}

    def watch(results: Sequence[TrialResult]) -> None:
        states = tuple(result.progress.phase if result.status == "running" else result.status for result in results)
        seen.add(states)
        if states in (("training", "waiting"), ("exporting", "waiting")):
            trials = [trial for server in psutil.Process().children() for trial in server.children()]
            niceness[states[0]].add(max(trial.nice() for trial in trials))

    overrides = [*SMALL, "trainer.accumulate_grad_batches=1,3", "export=onnx"]
    plain, accumulated = run_sweep(plan_trials(compose_sweep(overrides)), on_progress=watch)
    rates = [client().get_metric_history(str(result.run_id), "lr") for result in (plain, accumulated)]
    assert rates[1][-1].step + 1 == -(-(rates[0][-1].step + 1) // 3)
    assert any(first == "exporting" and second not in ("waiting", "finished") for first, second in seen)
    assert niceness == {"training": {0}, "exporting": {19}}


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_without_overlap_a_trial_waits_for_the_export_before_it() -> None:
    seen = set()

    def watch(results: Sequence[TrialResult]) -> None:
        seen.add(tuple(result.progress.phase if result.status == "running" else result.status for result in results))

    run_sweep(plan_trials(compose_sweep([*SMALL, "core.seed=1,2", "sweep.overlap=false"])), on_progress=watch)
    assert {second for first, second in seen if first == "exporting"} == {"waiting"}


@pytest.mark.usefixtures("ratchet_home")
def test_on_a_gpu_batches_are_pinned_and_loaded_by_processes_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {}
    for on_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda on_gpu=on_gpu: on_gpu)
        loader = instantiate(compose(SMALL).datamodule).train_dataloader()
        options[on_gpu] = (loader.num_workers > 0, loader.pin_memory, loader.persistent_workers)
    assert options == {False: (False, False, False), True: (True, True, True)}


@pytest.mark.usefixtures("ratchet_home")
def test_an_automatic_batch_size_needs_a_training() -> None:
    data = instantiate(compose([*SMALL, "datamodule.batch_size=auto"]).datamodule)
    assert len(data.fingerprint) == 64
    with pytest.raises(ConfigError, match="auto"):
        data.val_dataloader()
    data.batch_size = 7
    assert next(iter(data.val_dataloader()))["image"].shape[0] <= 7


def test_a_trial_trains_beside_an_export_only_where_there_is_memory_for_another_like_it() -> None:
    free = free_bytes()
    assert free is not None
    assert has_memory_for(1.0)
    assert not has_memory_for(2 * free / 2**20)


def test_an_export_that_waits_for_the_next_trial_costs_no_time() -> None:
    spending = Spending()
    time.sleep(0.2)
    spending.begin_export()
    before = spending.seconds()
    time.sleep(0.5)
    assert 0.2 <= before <= spending.seconds() < before + 0.4
    busy = time.process_time() + 0.2
    while time.process_time() < busy:
        pass
    assert spending.seconds() >= before + 0.2


@pytest.mark.parametrize(
    ("limit", "use", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_files_that_a_container_has_cached_are_not_memory_in_use(
    limit: str, use: str, cached: str, tmp_path: Path
) -> None:
    assert left_of_group(tmp_path) is None
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / use).write_text("900\n")
    (tmp_path / "memory.stat").write_text(f"anon 300\n{cached} 400\nactive_file 200\n")
    assert left_of_group(tmp_path) == 500
    (tmp_path / limit).write_text("max\n")
    assert left_of_group(tmp_path) is None


@pytest.mark.parametrize(("line", "job"), [("0::{}", "{}"), ("4:cpu,memory:{}", "memory/{}")])
def test_the_limit_of_a_job_is_that_of_a_group_above_the_process(
    line: str, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, root, group = tmp_path / "cgroup", tmp_path / "root", "slurm/job_7"
    listing.write_text(f"12:pids:/other\n{line.format(f'/{group}/step_0')}\n")
    folder = root / job.format(group)
    folder.mkdir(parents=True)
    for name, text in {"memory.max": "1000", "memory.current": "900", "memory.stat": "inactive_file 400"}.items():
        (folder / name).write_text(text)
    found = own_groups("memory", listing, root)
    assert found[0] == root
    assert [left for left in map(left_of_group, found) if left is not None] == [500]
    monkeypatch.setattr("ratchet.training.memory.own_groups", lambda controller: own_groups(controller, listing, root))
    assert free_bytes() == 500


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_a_smaller_batch_is_taken_also_at_words_that_lightning_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    result = tried_in_batches(2, "HIP out of memory.", monkeypatch)
    assert client().get_run(str(result.run_id)).data.tags[BATCH_SIZE_TAG] == "2"


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_where_not_even_one_image_fits_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrialFailedError, match=r"killed: out of memory.*a smaller network or input"):
        tried_in_batches(0, "CUDA out of memory. Tried to allocate 2 GiB", monkeypatch)


def tried_in_batches(most: int, words: str, monkeypatch: pytest.MonkeyPatch) -> TrialEnd:
    """A trial with `batch_size=auto`, in this process, on a device that has memory for so many images."""
    step = SegmentationModule.training_step

    def limited(module: SegmentationModule, batch: dict[str, torch.Tensor], index: int) -> Any:
        if len(batch["image"]) > most:
            raise RuntimeError(words)
        return step(module, batch, index)

    monkeypatch.setattr(SegmentationModule, "training_step", limited)
    (planned,) = plan_trials([compose([*SMALL, "datamodule.batch_size=auto", "datamodule.images_per_month=60"])])
    said = {"on_start": lambda _: None, "report": lambda _: None}
    return run_trial(planned.config, name="a", fingerprint=planned.fingerprint, tags={}, **said)


def test_memory_that_is_not_there_cannot_be_had_while_batches_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_bytes()
    assert free is not None
    monkeypatch.setattr("ratchet.training.memory.free_bytes", lambda: free)  # another test may just give back its own
    with pytest.raises(RuntimeError, match="can't allocate memory"), limited_to_what_is_free():
        torch.empty(int(0.97 * free), dtype=torch.uint8)
    assert torch.empty(2**20).numel() == 2**20


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_the_values_of_an_epoch_take_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, log_batch = list[int](), MlflowClient.log_batch

    def noted(store: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **rest: Any) -> Any:
        sent.append(len(metrics))
        return log_batch(store, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", noted)
    overrides = ("trainer.max_epochs=2", "datamodule.batch_size=2", "logger.seconds=3600", "logger.batch=100000")
    (trial,) = plan_trials([compose([*TINY, *overrides])])
    end = run_trial(
        trial.config,
        name=trial.name,
        fingerprint=trial.fingerprint,
        tags={},
        on_start=lambda _: None,
        report=lambda _: None,
    )
    steps = len(client().get_metric_history(str(end.run_id), "loss_step"))
    assert steps > 30
    assert len(list(filter(None, sent))) <= 8  # two for each epoch, before a snapshot, and at the end


@pytest.mark.usefixtures("stored_home")
def test_values_that_could_not_be_sent_stay_in_the_file_for_who_goes_on_with_the_run(tmp_path: Path) -> None:
    store = client()
    gone, other = (store.create_run(ensure_experiment("away")) for _ in range(2))

    def logger(run: Run) -> RunLogger:
        ours = TrialRun(store, run, Ownership(store, "here/1"))
        return RunLogger(run=ours, unsent=tmp_path / "unsent", batch=2, seconds=3600)

    first = logger(gone)
    first.log_metrics({"loss_step": 0.5}, step=0)
    store.delete_run(gone.info.run_id)  # which takes nothing more
    with pytest.raises(RegistryError):
        first.log_metrics({"loss_step": 0.4}, step=1)
    first.finalize("failed")
    left = (tmp_path / "unsent").read_text()
    assert len(left.splitlines()) == 2
    store.restore_run(gone.info.run_id)
    logger(other)
    assert store.get_metric_history(other.info.run_id, "loss_step") == []
    (tmp_path / "unsent").write_text(left)
    last = logger(gone)
    last.experiment.log_text(last.run_id, "as with Lightning's own logger", "mine.txt")
    assert [entry.path for entry in store.list_artifacts(gone.info.run_id)] == ["mine.txt"]
    assert [row.value for row in store.get_metric_history(gone.info.run_id, "loss_step")] == [0.5, 0.4]
