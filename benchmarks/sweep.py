"""A sweep by Ratchet beside the same sweep in plain Lightning: time by phases, memory, and the models' quality.

Four trials (unet and unetplusplus on resnet18 and resnet50, random weights) on pets: 108 images to train, 12 to validate,
40 to test, 128x128, batches of 16. Both arms have the same networks, augmentation, order, optimiser and schedule, and the
same outputs: metrics per step and epoch, the best and the last checkpoint, a report with pictures, TorchScript and an
MLflow model. The plain arm is what people write: one process, images decoded in every epoch, float32, test outputs
collected, a second pass over the test images for the report, matplotlib and `log_model` as they come.

Each repeat runs each arm in a fresh process, from its start to its end, with another seed; medians are shown. `bare` is
forward, backward and optimizer alone, in the sweep's dtype and layout: the floor for Ratchet's training steps.

    RATCHET_OXFORD_PET=... python benchmarks/sweep.py [--epochs 1 5] [--seeds 42 43 44] [--arms bare ratchet plain]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

SIZE, BATCH, TRAIN, VAL, TEST = 128, 16, 108, 12, 40
NETWORKS = [(arch, encoder) for arch in ("unet", "unetplusplus") for encoder in ("resnet18", "resnet50")]
METRICS = ("val_loss_epoch", "val_iou", "test_iou")
COMPUTE = ("steps", "validation", "scoring")


def overrides(folder: Path, epochs: int, seed: int) -> list[str]:
    """The sweep, as a user types it."""
    return [
        "experiment=generic/oxford_pet/segmentation/smp",
        "backbone.model.arch=unet,unetplusplus",
        "backbone.model.encoder_name=resnet18,resnet50",
        "backbone.model.encoder_weights=null",
        f"trainer.max_epochs={epochs}",
        f"transforms.input_height={SIZE}",
        f"transforms.input_width={SIZE}",
        f"datamodule.batch_size={BATCH}",
        f"core.seed={seed}",
        "datamodule.seed=42",
        *(f"datamodule.{split}_split_file={folder / split}.txt" for split in ("train", "val", "test")),
        f"+callbacks.phases={{_target_: sweep_phases.Phases, folder: {folder / 'phases'}}}",
    ]


def ratchet(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Ratchet's own sweep; phases of its trials by what they report."""
    began: dict[tuple[str, str], float] = {}
    exports, since, alone = 0.0, 0.0, False  # exports beside which no other trial computes

    def watch(results: Any) -> None:
        nonlocal exports, since, alone
        now = time.monotonic()
        exports += now - since if alone else 0.0
        running = [result for result in results if result.status == "running"]
        since, alone = now, {result.progress.phase for result in running} == {"exporting"}
        for result in results:
            state = result.progress.phase if result.status == "running" else result.status
            began.setdefault((result.name, state), now)

    start = time.monotonic()
    from ratchet.config import compose_sweep
    from ratchet.training.plan import plan_trials
    from ratchet.training.sweep import run_sweep

    results = run_sweep(plan_trials(compose_sweep(overrides(folder, epochs, seed))), on_progress=watch)
    names = [result.name for result in results]
    phases = {
        "start": began[names[0], "starting"] - start,
        "scoring": sum(began[name, "exporting"] - began[name, "scoring"] for name in names),
        "report, export, upload alone": exports,
    }
    return {"phases": phases, "metrics": {result.name: result.metrics for result in results}}


def plain(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The same trials as people write them with Lightning, segmentation-models-pytorch and MLflow."""
    phases: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        phases[name] = phases.get(name, 0.0) + time.monotonic() - start

    with timed("start"):
        import mlflow
        import pytorch_lightning as pl
        import segmentation_models_pytorch as smp
        import torch
        from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
        from pytorch_lightning.loggers import MLFlowLogger
        from sweep_phases import Phases

        from ratchet.config import compose, instantiate

        config = compose([o for o in overrides(folder, epochs, seed) if "arch=" not in o and "encoder_name=" not in o])
        data = instantiate(config.datamodule | {"cache": False})  # the same images in the same order, decoded each time
        store = f"sqlite:///{folder / 'plain.db'}"
        mlflow.set_tracking_uri(store)
        mlflow.set_experiment("plain")
        module_class = plain_module()

    found = {}
    for arch, encoder in NETWORKS:
        work = folder / f"{arch}-{encoder}"
        work.mkdir()
        with timed("start"):
            pl.seed_everything(seed, workers=True, verbose=False)
            module = module_class(smp.create_model(arch, encoder_name=encoder, encoder_weights=None, classes=1))
            logger = MLFlowLogger("plain", run_name=work.name, tracking_uri=store)
            logger.log_hyperparams(config.model_dump(mode="json"))
            checkpoint = ModelCheckpoint(work / "checkpoints", monitor="val_loss_epoch", save_last=True)
            trainer = pl.Trainer(
                max_epochs=epochs,
                accelerator="cpu",
                logger=logger,
                callbacks=[checkpoint, LearningRateMonitor(), Phases(str(folder / "phases"))],
                log_every_n_steps=1,
                num_sanity_val_steps=0,
                enable_progress_bar=False,
            )
        trainer.fit(module, data.train_dataloader(), data.val_dataloader())
        with timed("scoring"):
            module.load_state_dict(torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"])
            test = trainer.test(module, data.test_dataloader(), verbose=False)[0]
        with timed("second pass"):
            outputs = trainer.predict(module, data.test_dataloader())
        with timed("report"):
            draw(outputs, mlflow.MlflowClient(), logger.run_id, work)
        with timed("torchscript"):
            module.network.eval()
            example = torch.zeros(1, 3, SIZE, SIZE)
            with torch.no_grad():
                torch.jit.trace(module.network, example).save(str(work / "model.pt"))
        with timed("log_model, upload"), mlflow.start_run(run_id=logger.run_id):
            mlflow.pytorch.log_model(module.network, name="deployment_model", input_example=example.numpy())
            logger.experiment.log_artifacts(logger.run_id, str(work))
        with timed("not counted"):  # of the exported weights, to compare
            validated = trainer.validate(module, data.val_dataloader(), verbose=False)[0]
        found[f"{arch} {encoder}"] = {
            "val_iou": validated["val_iou"],
            "val_loss_epoch": validated["val_loss_epoch"],
        } | test
    return {"phases": phases, "metrics": found}


def plain_module() -> Any:
    """A LightningModule as in segmentation-models-pytorch's example: outputs are collected, then counted."""
    import pytorch_lightning as pl
    import segmentation_models_pytorch as smp
    import torch

    class Module(pl.LightningModule):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network
            self.loss = smp.losses.DiceLoss("binary", from_logits=True)
            self.outputs: list[dict[str, Any]] = []

        def forward(self, image: torch.Tensor) -> Any:
            return self.network(image)

        def training_step(self, batch: dict[str, torch.Tensor], _: int) -> Any:
            loss = self.loss(self(batch["image"]), batch["mask"])
            self.log("loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
            return loss

        def evaluate(self, batch: dict[str, torch.Tensor], stage: str) -> None:
            logits = self(batch["image"])
            loss = self.loss(logits, batch["mask"])
            self.log(f"{stage}_loss", loss, on_step=stage == "val", on_epoch=True, batch_size=len(logits))
            self.outputs.append({"logits": logits, **batch})

        def count(self, stage: str) -> None:
            logits, mask = (torch.cat([output[key] for output in self.outputs]) for key in ("logits", "mask"))
            counts = smp.metrics.get_stats(logits.sigmoid(), mask[:, None], mode="binary", threshold=0.5)
            for name, metric in (("iou", smp.metrics.iou_score), ("dice", smp.metrics.f1_score)):
                self.log(f"{stage}_{name}", metric(*counts, reduction="micro"))
            self.outputs.clear()

        def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
            self.evaluate(batch, "val")

        def on_validation_epoch_end(self) -> None:
            self.count("val")

        def test_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
            self.evaluate(batch, "test")

        def on_test_epoch_end(self) -> None:
            self.count("test")

        def predict_step(self, batch: dict[str, torch.Tensor], _: int) -> dict[str, Any]:
            return {"logits": self(batch["image"]), **batch}

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=0.001)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss_epoch"}}

    return Module


def draw(outputs: list[dict[str, Any]], client: Any, run_id: str, folder: Path) -> None:
    """The report as pyplot draws it: predictions beside the truth, IoU, and curves."""
    import torch
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    images, masks, logits = (torch.cat([output[key] for output in outputs]) for key in ("image", "mask", "logits"))
    figure, axes = pyplot.subplots(8, 3, figsize=(7.2, 19), layout="constrained")
    for row, index in zip(axes, range(0, TEST, TEST // 8), strict=True):
        image = (images[index] - images[index].min()) / (images[index].max() - images[index].min())
        panels = {"image": image.permute(1, 2, 0), "truth": masks[index], "prediction": logits[index, 0] > 0}
        for axis, (title, panel) in zip(row, panels.items(), strict=True):
            axis.imshow(panel)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    figure.savefig(folder / "predictions.png", dpi=110)
    hits = ((logits[:, 0] > 0) & (masks > 0)).sum() / ((logits[:, 0] > 0) | (masks > 0)).sum()
    figure, axis = pyplot.subplots(figsize=(6, 1.65), layout="constrained")
    axis.bar_label(axis.barh(["pet"], [float(hits)]), padding=3)
    figure.savefig(folder / "per_class_iou.png", dpi=110)
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for axis, key in zip(axes, ("loss_step", "val_loss_epoch", "val_iou"), strict=True):
        axis.plot([metric.value for metric in client.get_metric_history(run_id, key)])
        axis.set_title(key)
    figure.savefig(folder / "curves.png", dpi=110)
    pyplot.close("all")


def bare(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The steps of the sweep and nothing else: forward, loss, backward, optimizer."""
    import torch

    from ratchet.config import compose
    from ratchet.training.fitting import resolve_precision
    from ratchet.training.losses import DiceLoss
    from ratchet.training.network import create_network

    precision = resolve_precision(compose([]).trainer)
    sizes = [BATCH] * (TRAIN // BATCH) + [TRAIN % BATCH] * (TRAIN % BATCH > 1)
    seconds = 0.0
    for arch, encoder in NETWORKS:
        torch.manual_seed(seed)
        network = create_network(arch=arch, encoder_name=encoder, encoder_weights=None, num_classes=1)
        network = network.to(memory_format=torch.channels_last).train()
        optimizer, loss = torch.optim.Adam(network.parameters(), lr=0.001), DiceLoss(num_outputs=1)
        for size in sizes * epochs:
            image, mask = torch.randn(size, 3, SIZE, SIZE), torch.randint(0, 2, (size, SIZE, SIZE))
            start = time.monotonic()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                logits = network(image.contiguous(memory_format=torch.channels_last))
            optimizer.zero_grad()
            loss(logits.float(), mask).backward()
            optimizer.step()
            seconds += time.monotonic() - start
    return {"phases": {"steps": seconds, "precision": precision}, "metrics": {}}


ARMS = {"bare": bare, "ratchet": ratchet, "plain": plain}


def measure(arm: str, epochs: int, seed: int, lists: dict[str, list[str]]) -> dict[str, Any]:
    """Run one arm in a fresh process with a home of its own; seconds from its start to its end, and its peak memory."""
    with tempfile.TemporaryDirectory(prefix="sweep-") as name:
        folder = Path(name)
        for split, names in lists.items():
            (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
        environment = {
            **os.environ,
            "RATCHET_OXFORD_PET": str(Path(os.environ["RATCHET_OXFORD_PET"]).resolve()),
            "RATCHET_HOME": str(folder / "home"),
            "RATCHET_ALLOWED_TARGETS": "sweep_phases",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--arm",
            arm,
            "--folder",
            name,
            "--epochs",
            str(epochs),
            "--seeds",
            str(seed),
        ]
        start = time.monotonic()
        with (folder / "log").open("w") as log:
            # MLflow keeps the plain arm's artifacts in the working directory
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, memory(process.pid))
                time.sleep(0.5)
        total = time.monotonic() - start
        if process.returncode != 0:
            raise SystemExit((folder / "log").read_text()[-5000:])
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        for file in (folder / "phases").glob("*.json"):
            for phase, seconds in json.loads(file.read_text()).items():
                result["phases"][phase] = result["phases"].get(phase, 0.0) + seconds
    return result | {"total": total - result["phases"].pop("not counted", 0.0), "peak": peak}


def memory(pid: int) -> float:
    """GB that a process and its children hold, shared pages counted once."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("Pss:") else 0
    except (psutil.Error, OSError, IndexError):
        pass  # it ended meanwhile
    return total / 1e6


def choose_images(root: Path) -> dict[str, list[str]]:
    """Every breed in each split, the same images every time."""
    listed = {
        file: [line.split()[0] for line in (root / "annotations" / f"{file}.txt").read_text().splitlines()]
        for file in ("trainval", "test")
    }
    step = len(listed["trainval"]) / (TRAIN + VAL)
    chosen = [listed["trainval"][int(index * step)] for index in range(TRAIN + VAL)]
    val = chosen[:: len(chosen) // VAL][:VAL]
    step = len(listed["test"]) / TEST
    return {
        "train": [name for name in chosen if name not in val],
        "val": val,
        "test": [listed["test"][int(index * step)] for index in range(TEST)],
    }


def show(epochs: int, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians of time and memory, and what is to be seen from them."""
    print(f"\n{epochs} epoch(s), {len(next(iter(runs.values())))} repeat(s), medians")
    median = {
        arm: {key: statistics.median(run[key] for run in found) for key in ("total", "peak")}
        | {p: statistics.median(run["phases"][p] for run in found) for p in found[0]["phases"] if p != "precision"}
        for arm, found in runs.items()
    }
    for arm, values in median.items():
        total, peak = values.pop("total"), values.pop("peak")
        values["rest"] = total - sum(values.values())
        median[arm]["total"] = total
        spread = ", ".join(f"{run['total']:.1f}" for run in runs[arm])
        print(f"{arm:8} {total:7.1f} s ({spread}), peak {peak:.1f} GB")
        if arm != "bare":
            print("   " + ", ".join(f"{name} {value:.1f}" for name, value in values.items() if name != "total"))
    ours, bare_, theirs = (median.get(arm) for arm in ("ratchet", "bare", "plain"))
    if ours and theirs:
        print(f"plain Lightning takes {theirs['total'] / ours['total']:.2f} times as long")
    if ours:
        compute = sum(ours[phase] for phase in COMPUTE)
        print(f"not compute (steps, validation, scoring): {1 - compute / ours['total']:.0%} of Ratchet's total")
    if ours and bare_:
        precision = runs["bare"][0]["phases"]["precision"]
        print(f"training steps / bare steps ({precision}, channels_last): {ours['steps'] / bare_['steps']:.3f}")
    for name in runs["ratchet"][0]["metrics"] if "ratchet" in runs else ():
        for metric in METRICS:
            values = {
                arm: [run["metrics"][name][metric] for run in runs[arm]] for arm in ("ratchet", "plain") if arm in runs
            }
            told = "   ".join(f"{arm} " + " ".join(f"{value:.3f}" for value in found) for arm, found in values.items())
            print(f"   {name:22} {metric:15} {told}")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="one repeat each")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        result = ARMS[options.arm](options.folder, options.epochs[0], options.seeds[0])
        (options.folder / "result.json").write_text(json.dumps(result))
        return
    lists, figures = choose_images(Path(os.environ["RATCHET_OXFORD_PET"])), {}
    for epochs in options.epochs:
        runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
        for seed in options.seeds:
            for arm in options.arms:
                runs[arm].append(measure(arm, epochs, seed, lists))
                print(f"{epochs} epoch(s), seed {seed}, {arm}: {runs[arm][-1]['total']:.1f} s", flush=True)
        show(epochs, runs)
        figures[epochs] = runs
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
