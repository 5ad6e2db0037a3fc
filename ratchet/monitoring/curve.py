"""The curve of a champion in production: one MLflow run for each version that was champion, a step for each reading."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import answering, client, tracking_uri
from ratchet.training.metric_names import logged_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ratchet.monitoring.values import Reading

MODEL_TAG, VERSION_TAG, STATE_TAG = "ratchet.model", "ratchet.version", "ratchet.state"


def log_reading(reading: Reading) -> str:
    """Add a reading to its version's run in the experiment `<model> in production`; the run's id. Raises `RegistryError`."""
    from mlflow.entities import Metric, RunTag  # noqa: PLC0415 (two seconds)

    store, name = client(), reading.metric
    run_id = _run(store, reading)
    values: dict[str, float | None] = {
        name: reading.score,
        f"{name}_reference": reading.reference,
        "change": reading.change,
        "change_low": reading.low,
        "change_high": reading.high,
        "images": reading.images,
        **{logged_name(f"{name}_{key}"): value for key, value in reading.class_scores.items()},
    }
    tags = [RunTag(STATE_TAG, reading.state), RunTag("mlflow.note.content", reading.sentence)]
    with answering(tracking_uri()):
        now, step = int(time.time() * 1000), len(store.get_metric_history(run_id, "images"))
        rows = [Metric(key, float(v), now, step) for key, v in values.items() if v is not None and math.isfinite(v)]
        store.log_batch(run_id, metrics=rows, tags=tags)
    return run_id


def _run(store: MlflowClient, reading: Reading) -> str:
    experiment = ensure_experiment(f"{reading.model} in production")
    found = store.search_runs([experiment], f"tags.`{VERSION_TAG}` = '{reading.version}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {MODEL_TAG: reading.model, VERSION_TAG: str(reading.version)}
    run = store.create_run(experiment, run_name=f"v{reading.version}", tags=tags)
    store.set_terminated(run.info.run_id, "FINISHED")  # it takes further steps all the same
    return str(run.info.run_id)
