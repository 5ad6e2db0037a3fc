"""Networks, their weights, and one training step of every loss, optimiser and schedule."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import psutil
import pytest
import pytorch_lightning as pl
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch
from mlflow.utils import requirements_utils
from weights_hub import encoder_file, serve_hub

from ratchet.config import compose, instantiate
from ratchet.errors import ConfigError, ExportError, TrialFailedError, WeightsUnavailableError
from ratchet.evaluation.served import ModelCard, ServedModel, SilentModel
from ratchet.settings import TrialConfig
from ratchet.training.beside import beside
from ratchet.training.callback import ProgressCallback
from ratchet.training.export import _other_forms, export_network
from ratchet.training.fitting import build_module, resolve_trainer
from ratchet.training.losses import CrossEntropyLoss, DiceLoss, FocalLoss
from ratchet.training.memory import lack_of_memory_told
from ratchet.training.network import create_network, load_encoder_weights
from ratchet.training.progress import Progress
from ratchet.training.trial import _leave_training

TINY = ["backbone.model.encoder_name=tu-test_resnet", "backbone.model.encoder_weights=null"]


def fit_one_batch(
    config: TrialConfig, folder: Path, callbacks: Sequence[pl.Callback] = (), *, batches: int = 1
) -> pl.Trainer:
    """Train a network for two classes, with one batch in an epoch, or so many times that one."""
    module = build_module(config, ("disc", "polygon"))
    trainer: pl.Trainer = instantiate(
        resolve_trainer(config.trainer),
        callbacks=list(callbacks),
        default_root_dir=str(folder),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = {"image": torch.rand(2, 3, 32, 32), "mask": torch.randint(0, 3, (2, 32, 32))}
    loader = torch.utils.data.DataLoader([batch] * batches, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, loader)
    return trainer


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("classes", [("pet",), ("disc", "polygon")])
@pytest.mark.parametrize(
    "override",
    [f"loss={name}" for name in ("dice", "cross_entropy", "focal", "sum")]
    + [f"optimizer={name}" for name in ("adam", "adamw", "sgd")],
)
def test_every_loss_and_optimizer_takes_a_step(override: str, classes: tuple[str, ...]) -> None:
    names = dict(enumerate(classes, start=1))
    table = f"datamodule.idx_to_class={names}".replace("'", "")
    config = compose([*TINY, override, *(["~datamodule.idx_to_class", f"+{table}"] if len(classes) == 1 else [table])])
    module = build_module(config, classes)
    optimizer = instantiate(config.optimizer)(module.parameters())
    before = [parameter.detach().clone() for parameter in module.parameters()]
    loss = module.loss(module(torch.rand(2, 3, 32, 32)), torch.randint(0, len(classes) + 1, (2, 32, 32)))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert loss.ndim == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize(
    "override",
    [f"scheduler={name}" for name in ("plateau", "step", "cosine", "one_cycle", "constant")]
    + ["trainer=gradient_clipping", "trainer=mixed_precision", "callbacks=early_stopping"],
)
def test_every_schedule_trainer_and_callback_takes_a_step(override: str, tmp_path: Path) -> None:
    config = compose([*TINY, override, "trainer.accelerator=cpu", "trainer.max_epochs=2"])
    callbacks = [instantiate(node) for node in config.callbacks.values() if node is not None]
    trainer = fit_one_batch(config, tmp_path, callbacks)
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics["val_loss_epoch"])
    wanted = config.callbacks["early_stopping"] is not None
    assert wanted == any(type(callback).__name__ == "EarlyStopping" for callback in trainer.callbacks)


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_each_precision(precision: str, tmp_path: Path) -> None:
    clipping = ("trainer=gradient_clipping", "trainer.gradient_clip_val=0.001", f"trainer.precision={precision}")
    bare = [f"optimizer.{key}" for key in ("lr=1", "momentum=0", "nesterov=false", "weight_decay=0")]
    config = compose([*TINY, *clipping, "optimizer=sgd", *bare, "trainer.accelerator=cpu", "trainer.max_epochs=1"])
    torch.manual_seed(0)
    before = [parameter.detach().clone() for parameter in build_module(config, ("disc", "polygon")).parameters()]
    torch.manual_seed(0)
    module = fit_one_batch(config, tmp_path).lightning_module
    pairs = zip(before, module.parameters(), strict=True)
    moved = sum(float((after - at_first).double().square().sum()) for at_first, after in pairs) ** 0.5
    assert moved == pytest.approx(0.001, rel=0.01)


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
def test_one_cycle_has_the_steps_that_come_where_batches_are_gathered_by_the_epoch(tmp_path: Path) -> None:
    config = compose([*TINY, "scheduler=one_cycle", "trainer.accelerator=cpu", "trainer.max_epochs=2"])
    gathers = pl.callbacks.GradientAccumulationScheduler({0: 2, 1: 4})
    trainer = fit_one_batch(config, tmp_path, [gathers], batches=4)
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == trainer.global_step == 3


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
def test_a_plateau_is_looked_for_only_in_epochs_with_a_validation(tmp_path: Path) -> None:
    epochs = ("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4")
    config = compose([*TINY, "scheduler=plateau", "trainer.accelerator=cpu", *epochs])
    trainer = fit_one_batch(config, tmp_path)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 2


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
def test_the_optimizers_state_is_gone_when_the_weights_are_scored_and_exported(tmp_path: Path) -> None:
    trainer = fit_one_batch(compose([*TINY, "trainer.accelerator=cpu", "trainer.max_epochs=1"]), tmp_path)
    module, optimizer = trainer.lightning_module, weakref.ref(trainer.optimizers[0])
    del trainer
    _leave_training(module)
    assert optimizer() is None
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
def test_progress_counts_epochs_also_where_not_every_one_is_validated(tmp_path: Path) -> None:
    options = ("accelerator=cpu", "check_val_every_n_epoch=2", "max_epochs=5", "num_sanity_val_steps=1")
    config = compose([*TINY, *(f"trainer.{option}" for option in options)])
    told: list[Progress] = []
    fit_one_batch(config, tmp_path, [ProgressCallback(told.append, max_epochs=5, metric="val_iou")])
    assert list(dict.fromkeys((one.epoch, one.validated) for one in told)) == [
        *((1, 0), (2, 0), (2, 2), (3, 2), (4, 2), (4, 4), (5, 4))
    ]


@pytest.mark.trains
@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "fpn", "linknet", "deeplabv3plus", "segformer"])
def test_every_kind_of_architecture_is_exported_and_answers_as_it_was_trained(arch: str, tmp_path: Path) -> None:
    network = create_network(arch=arch, encoder_name="resnet18", encoder_weights=None, num_classes=1)
    card = ModelCard(
        input_height=64, input_width=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), classes=("background", "pet")
    )
    export_network(network, card, tmp_path / "model", types=["pt2", "torchscript"])
    served = ServedModel(tmp_path / "model")
    image = torch.randint(0, 255, (48, 80, 3), dtype=torch.uint8).numpy()
    assert served.predict(image).shape == (48, 80)
    assert served.logits([image] * 3).shape == (3, 1, 64, 64)


def test_a_model_is_loaded_where_its_weights_are_also_on_a_machine_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow takes the GPU where there is one, as it does where this variable names it."""
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cuda")
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    export_network(torch.nn.Conv2d(3, 1, 1), card, tmp_path / "model", types=["pt2"])
    images = np.zeros((2, 3, 8, 8), dtype=np.float32)
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(images).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("classes", [("background", "pet"), ("background", "dent", "scratch", "rust")])
def test_what_stands_in_for_a_model_that_does_not_answer_finds_nothing(classes: tuple[str, ...]) -> None:
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=classes)
    found = SilentModel(card).predict(np.full((12, 20, 3), 200, dtype=np.uint8))
    assert found.shape == (12, 20)
    assert not found.any()


def test_a_network_that_diverged_is_not_exported(tmp_path: Path) -> None:
    network = torch.nn.Conv2d(3, 1, 1)
    torch.nn.init.constant_(network.weight, float("nan"))
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    with pytest.raises(ExportError, match="NaN"):
        export_network(network, card, tmp_path / "model", types=["pt2"])
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("types", [["pt2"], ["pt2", "torchscript"]])
def test_a_network_whose_forms_would_take_one_batch_size_only_is_not_exported(types: list[str], tmp_path: Path) -> None:
    class CountsInPython(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.conv(images)
            return logits + torch.zeros(int(images.shape[0]), 1, 1, 1)

    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    with pytest.raises(ExportError, match="size"):
        export_network(CountsInPython(), card, tmp_path / "model", types=types)


def test_an_export_is_no_pickle_where_mlflow_would_write_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "16.4")
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    export_network(torch.nn.Conv2d(3, 1, 1), card, tmp_path / "model", types=["pt2"])
    assert [file.name for file in (tmp_path / "model" / "data").iterdir()] == ["model.pt2"]


def test_memory_that_lacks_in_an_export_is_told_as_that(tmp_path: Path) -> None:
    class Greedy(torch.nn.Conv2d):
        calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return super().forward(images)

    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    with pytest.raises(TrialFailedError, match="out of memory"), lack_of_memory_told(lambda: 8):
        export_network(Greedy(3, 1, 1), card, tmp_path / "model", types=["pt2"])


@pytest.mark.parametrize(
    ("work", "raised"),
    [
        (lambda: int("no number"), RuntimeError),
        (lambda: os._exit(7), RuntimeError),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), MemoryError),
    ],
    ids=["an error", "an end", "killed for its memory"],
)
def test_what_ends_work_beside_is_raised_where_its_answer_is_asked_for(
    work: Callable[[], object], raised: type[Exception]
) -> None:
    with beside(work) as answer, pytest.raises(raised, match=r"no number|status"):
        answer()


def test_what_is_killed_while_it_gives_its_answer_was_killed_for_its_memory_too(tmp_path: Path) -> None:
    def work() -> bytes:
        (tmp_path / "pid").write_text(str(os.getpid()))
        return bytes(10**6)  # more than a pipe holds

    with beside(work) as answer:
        while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
            time.sleep(0.05)
        time.sleep(1)
        os.kill(int(pid), signal.SIGKILL)
        with pytest.raises(MemoryError):
            answer()


@pytest.mark.slow
def test_the_forms_are_made_beside_also_where_the_process_has_used_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU that torch finds, its exporter asks for the random numbers, which no copy can have."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    network, images = torch.nn.Conv2d(3, 1, 1).eval(), torch.rand(2, 3, 8, 8)
    with beside(partial(_other_forms, network, images, tmp_path / "forms", ["onnx"])) as forms:
        assert forms()["onnx"].shape == (1, 1, 8, 8)


def test_work_beside_ends_with_its_process() -> None:
    script = (
        "import multiprocessing, os, time\nfrom ratchet.training.beside import beside\n"
        "with beside(lambda: time.sleep(100)):\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(10)


def test_work_beside_that_nobody_waits_for_is_ended() -> None:
    children = set(psutil.Process().children())
    with pytest.raises(ZeroDivisionError), beside(lambda: time.sleep(60)):
        (begun,) = set(psutil.Process().children()) - children
        raise ZeroDivisionError
    assert not begun.is_running()


def test_an_export_does_not_read_which_files_every_installed_package_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[str] = []
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    monkeypatch.setattr(
        requirements_utils.importlib_metadata, "packages_distributions", lambda: searches.append("searched") or {}
    )
    card = ModelCard(input_height=8, input_width=8, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "pet"))
    export_network(torch.nn.Conv2d(3, 1, 1), card, tmp_path / "model", types=["pt2"])
    assert searches == []
    requirements_utils._init_modules_to_packages_map()  # what others export in this process is still searched for
    assert searches == ["searched"]


@pytest.mark.trains
@pytest.mark.usefixtures("ratchet_home")
def test_a_frozen_encoder_keeps_its_weights_and_its_batch_statistics(tmp_path: Path) -> None:
    config = compose([*TINY, "backbone.model.freeze_encoder=true", "trainer.accelerator=cpu", "trainer.max_epochs=2"])
    pl.seed_everything(0)
    before = build_module(config, ("disc", "polygon")).network.get_submodule("encoder").state_dict()
    pl.seed_everything(0)
    trained = fit_one_batch(config, tmp_path).lightning_module.network.get_submodule("encoder").state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [({"arch": "unett"}, "unet"), ({"encoder_name": "resnet19"}, "resnet18"), ({"in_channels": 1}, "in_channels")],
)
def test_an_unknown_network_is_told_with_what_is_near(change: dict[str, object], said: str) -> None:
    wanted: dict[str, object] = {"arch": "unet", "encoder_name": "resnet18", "encoder_weights": None, "num_classes": 1}
    with pytest.raises(ConfigError, match=said):
        create_network(**(wanted | change))  # type: ignore[arg-type]


def test_timms_own_file_fits_and_so_does_one_without_counters(tmp_path: Path) -> None:
    state = timm.create_model("resnet18").state_dict()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    safetensors.torch.save_file(state, tmp_path / "new.safetensors")
    torch.save(old, tmp_path / "old.pth")
    for file in ("new.safetensors", "old.pth"):
        network = create_network(
            arch="unet", encoder_name="tu-resnet18", encoder_weights=str(tmp_path / file), num_classes=1
        )
        loaded = network.get_submodule("encoder").state_dict()
        assert torch.equal(loaded["model.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_focal_loss_is_cross_entropy_without_focus_and_has_a_slope_everywhere(outputs: int) -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, outputs, 8, 8), torch.randint(0, max(outputs, 2), (2, 8, 8))
    plain = CrossEntropyLoss(num_outputs=outputs)(logits, mask)
    assert torch.allclose(FocalLoss(num_outputs=outputs, gamma=0.0)(logits, mask), plain)
    assert FocalLoss(num_outputs=outputs, gamma=2.0)(logits, mask) < plain
    sure = torch.full((1, outputs, 1, 1), -20.0)
    sure[:, -1] = 20.0
    sure.requires_grad_()
    FocalLoss(num_outputs=outputs, gamma=0.5)(sure, torch.full((1, 1, 1), max(outputs - 1, 1))).backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_mean_over_pixels_is_taken_in_a_way_that_a_gpu_can_repeat(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (2, 8, 8))
    loss = CrossEntropyLoss(num_outputs=3, smoothing=smoothing)(logits, mask)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, mask, label_smoothing=smoothing))
    assert loss.grad_fn is not None
    assert "Mean" in loss.grad_fn.name()


def test_what_is_found_in_clean_images_costs_something() -> None:
    loss, clean = DiceLoss(num_outputs=1), torch.zeros(2, 4, 4, dtype=torch.int64)
    all_found, none_found = (loss(torch.full((2, 1, 4, 4), value), clean) for value in (9.0, -9.0))
    assert all_found > 0.99
    assert none_found < 0.01
    found = clean.clone()
    found[0, 0, 0] = 1
    logits = torch.randn(2, 1, 4, 4)
    whole = smp.losses.DiceLoss("binary", from_logits=True)(logits, found)
    assert torch.equal(loss(logits, found), whole)


@pytest.mark.parametrize("option", [{"activation": "sigmoid"}, {"aux_params": {"classes": 2}}])
def test_what_makes_no_logits_is_refused(option: dict[str, object]) -> None:
    wanted: dict[str, object] = {"arch": "unet", "encoder_name": "resnet18", "encoder_weights": None, "num_classes": 1}
    with pytest.raises(ConfigError, match="take logits"):
        create_network(**(wanted | option))  # type: ignore[arg-type]


def test_weights_of_a_file_are_loaded_by_name_or_in_order(tmp_path: Path) -> None:
    plain = {"arch": "unet", "encoder_weights": None, "num_classes": 1, "encoder_name": "mobilenet_v2"}
    state = create_network(**plain).get_submodule("encoder").state_dict()  # type: ignore[arg-type]
    for names in (list(state), [f"other.{index}" for index in range(len(state))]):
        path = tmp_path / "weights.pth"
        torch.save(dict(zip(names, state.values(), strict=True)) | {"head.weight": torch.zeros(3)}, path)
        loaded = create_network(**(plain | {"encoder_weights": str(path)}))  # type: ignore[arg-type]
        got = loaded.get_submodule("encoder").state_dict()
        assert all(torch.equal(got[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_weights_that_are_none_are_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsUnavailableError, match=r"weights\.pth"):
        load_encoder_weights(torch.nn.Linear(1, 1), path)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(7, 7)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsUnavailableError, match="does not fit"):
        load_encoder_weights(torch.nn.Linear(1, 1), tmp_path / "weights.pth")


def test_the_wheel_with_imagenet_weights_fits_its_encoder() -> None:
    config = compose(["experiment=generic/oxford_pet/segmentation/smp_offline"])
    network = instantiate(config.backbone.model)
    stem = network.get_submodule("encoder").state_dict()["model.conv_stem.weight"]
    file = torch.load(config.backbone.model["encoder_weights"], weights_only=True)
    assert torch.equal(stem, file["_conv_stem.weight"])


@pytest.mark.slow
def test_imagenet_weights_come_from_the_hub_and_from_its_cache_afterwards(tmp_path: Path) -> None:
    state, file = encoder_file("mobilenet_v2")
    script = (
        "import sys, torch; from ratchet.training.network import create_network\n"
        "network = create_network(arch='unet', encoder_name='mobilenet_v2', encoder_weights='imagenet', num_classes=1)\n"
        "torch.save(network.encoder.state_dict(), sys.argv[1])"
    )
    with serve_hub({"mobilenet_v2": file}) as address:
        for name, hub in (("downloaded.pt", address), ("cached.pt", "http://127.0.0.1:9")):
            environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hub")}
            subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], env=environment, check=True)
            loaded = torch.load(tmp_path / name, weights_only=True)
            assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())


@pytest.mark.slow
def test_a_hub_out_of_reach_names_the_three_ways_out(tmp_path: Path) -> None:
    script = (
        "from ratchet.training.network import create_network\n"
        "create_network(arch='unet', encoder_name='resnet18', encoder_weights='imagenet', num_classes=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ratchet.errors.WeightsUnavailableError")
    for way in ("imagenet", "null", "path of a state dict"):
        assert way in said


def test_a_schedule_made_for_steps_is_stepped_at_each_and_one_may_be_made_of_others(tmp_path: Path) -> None:
    schedules = "torch.optim.lr_scheduler"
    cyclic = f"{{_target_: {schedules}.CyclicLR, base_lr: 0.001, max_lr: 0.1, cycle_momentum: false}}"
    first = f"{{_target_: {schedules}.LinearLR, _partial_: true}}"
    then = f"{{_target_: {schedules}.StepLR, _partial_: true, step_size: 1}}"
    warm = f"{{_target_: {schedules}.SequentialLR, milestones: [1], schedulers: [{first}, {then}]}}"
    both = f"{{_target_: {schedules}.ChainedScheduler, schedulers: [{first}, {then}]}}"
    made = []
    for node, interval in ((cyclic, "epoch"), (warm, "epoch"), (both, "step")):
        briefly = ("trainer.max_epochs=2", "trainer.accelerator=cpu")
        config = compose([*TINY, *briefly, "~scheduler", f"+scheduler={node}", f"+model.scheduler_interval={interval}"])
        (found,) = fit_one_batch(config, tmp_path).lr_scheduler_configs
        made.append((type(found.scheduler).__name__, found.interval))
    assert made == [("CyclicLR", "step"), ("SequentialLR", "epoch"), ("ChainedScheduler", "step")]
