"""The names of what a trial's run carries: its tags, and where its artifacts are."""

from __future__ import annotations

FINGERPRINT_TAG = "ratchet.fingerprint"
DATA_FINGERPRINT_TAG = "ratchet.data_fingerprint"
PARAMETERS_TAG = "ratchet.parameters"
BATCH_SIZE_TAG = "ratchet.batch_size"
THREADS_TAG = "ratchet.threads"
IMAGES_TAG = "ratchet.training_images"
FAILURE_TAG = "ratchet.failure"
PRUNED_TAG = "ratchet.pruned"
STOPPED_TAG = "ratchet.stopped"
ENDED_TAG = "ratchet.ended_early"
NESTED_TAG = "mlflow.parentRunId"

SCHEDULE_TAG = "ratchet.fingerprint_without_epochs"
CHECKPOINT_TAG = "ratchet.checkpoint"

MODEL_PATH = "deployment_model"
CHECKPOINTS_PATH = "checkpoints"
RESUME_PATH = f"{CHECKPOINTS_PATH}/resume"

SWEEP_PREFIX = "ratchet.sweep."
