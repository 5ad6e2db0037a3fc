"""The names of what a run carries that Ratchet made: its tags, and where its artifacts are."""

from __future__ import annotations

FINGERPRINT_TAG = "ratchet.fingerprint"  # of data, configuration and code; of the versions made from the run, too
DATA_FINGERPRINT_TAG = "ratchet.data_fingerprint"
PARAMETERS_TAG = "ratchet.parameters"  # how many the model has; of runs of others it may be a parameter
BATCH_SIZE_TAG = "ratchet.batch_size"
THREADS_TAG = "ratchet.threads"
PRECISION_TAG = "ratchet.precision"
IMAGES_TAG = "ratchet.training_images"
SELECTED_TAG = "ratchet.selected_by"  # of a version: the metric by which its trial was the best, and its value
PARENT_TAG = "ratchet.parent"  # the model that a training took its first weights from
PARENT_RUN_TAG = f"{PARENT_TAG}_run"
FAILURE_TAG = "ratchet.failure"
PRUNED_TAG = "ratchet.pruned"
STOPPED_TAG = "ratchet.stopped"
ENDED_TAG = "ratchet.ended_early"
HEARTBEAT_TAG = "ratchet.heartbeat"  # of a trial that is at work, every half a minute

SCHEDULE_TAG = "ratchet.fingerprint_without_epochs"
CHECKPOINT_TAG = "ratchet.checkpoint"

NESTED_TAG = "mlflow.parentRunId"
SWEEP_PREFIX = "ratchet.sweep."  # a sweep's digest follows: the tag of all its trials' runs, of reused ones too
SWEEP_RUN_TAG = "ratchet.sweep_run"  # on the run that a sweep's trials are nested in: it trains nothing itself

MODEL_PATH = "deployment_model"
CHECKPOINTS_PATH = "checkpoints"
RESUME_PATH = f"{CHECKPOINTS_PATH}/resume"
CONFIG_FILE = "config.yaml"
