"""The arm of sweep.py that people write: plain Lightning, segmentation-models-pytorch and MLflow, as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep_trials import NETWORKS, SIZE, TEST, overrides


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

    found = {}
    for arch, encoder in NETWORKS:
        (work := folder / f"{arch}-{encoder}").mkdir()
        with timed("start"):
            pl.seed_everything(seed, workers=True, verbose=False)
            module = plain_module()(smp.create_model(arch, encoder_name=encoder, encoder_weights=None, classes=1))
            logger = MLFlowLogger("plain", run_name=work.name, tracking_uri=store)
            logger.log_hyperparams(config.model_dump(mode="json"))
            kept = work / "checkpoints"  # the best weights, and all of the last epoch, as in the other arm
            checkpoint = ModelCheckpoint(kept, filename="best", monitor="val_loss_epoch", save_weights_only=True)
            trainer = pl.Trainer(
                max_epochs=epochs,
                accelerator="cpu",
                logger=logger,
                callbacks=[
                    checkpoint,
                    ModelCheckpoint(kept, filename="last"),
                    LearningRateMonitor(),
                    Phases(str(folder / "phases")),
                ],
                log_every_n_steps=1,
                num_sanity_val_steps=0,
                enable_progress_bar=False,
            )
        loaders = (data.train_dataloader, data.val_dataloader, data.test_dataloader)
        training, validation, testing = (as_people_read(loader()) for loader in loaders)
        trainer.fit(module, training, validation)
        with timed("scoring"):
            module.load_state_dict(torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"])
            test = trainer.test(module, testing, verbose=False)[0]
        with timed("second pass"):
            outputs = trainer.predict(module, testing)
        with timed("report"):
            draw(outputs, mlflow.MlflowClient(), logger.run_id, work)
        with timed("torchscript"):
            example = torch.zeros(1, 3, SIZE, SIZE)
            with torch.no_grad():
                torch.jit.trace(module.network.eval(), example).save(str(work / "model.pt"))
        with timed("log_model, upload"), mlflow.start_run(run_id=logger.run_id):
            mlflow.pytorch.log_model(module.network, name="deployment_model", input_example=example.numpy())
            logger.experiment.log_artifacts(logger.run_id, str(work))
        with timed("not counted"):  # of the exported weights, to compare
            validated = trainer.validate(module, validation, verbose=False)[0]
        found[f"{arch} {encoder}"] = {
            "val_iou": validated["val_iou"],
            "val_loss_epoch": validated["val_loss_epoch"],
        } | test
    return {"phases": phases, "metrics": found}


def as_people_read(loader: Any) -> Any:
    """The loader without Ratchet's look whether a file has changed since the training began, which hashes each."""
    loader.dataset._contents = ()
    return loader


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
