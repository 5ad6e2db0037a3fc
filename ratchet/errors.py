"""Every error that Ratchet raises on purpose.

    RatchetError
    ├── ConfigError                  a configuration that cannot be used
    │   ├── UnknownKeyError          an override names a key that does not exist
    │   ├── ForbiddenTargetError     a `_target_` outside the allow-list
    │   └── ForbiddenPathError       a path outside the data roots that the deployment allows
    ├── DataError                    images or masks that cannot be trained or judged on
    │   ├── DatasetNotFoundError     the folder is absent, or is not a data set
    │   ├── DownloadError            an archive could not be fetched, or is not the one expected
    │   ├── UnreadableImageError     an image or mask that does not decode
    │   ├── DuplicateNameError       two images, or two masks, of one name
    │   ├── MissingImageError        a split list names an image that is not there
    │   ├── MissingMaskError         an image without its mask, or a mask without its image
    │   ├── MaskSizeError            a mask of another size than its image
    │   ├── MaskValueError           a mask value that stands for no class
    │   ├── EmptySplitError          a split without images
    │   ├── SplitOverlapError        the same image, by content, in two splits
    │   └── MetadataError            a metadata.csv that cannot be used
    ├── TrainingError                a trial or a sweep that could not end well
    │   ├── WeightsUnavailableError  pretrained weights that cannot be loaded
    │   ├── TrialFailedError         one trial could not go on: its memory ran out
    │   ├── TrialTakenError          another machine took the trial over
    │   ├── SweepFailedError         no trial of the sweep finished
    │   └── ExportError              the trained model cannot be exported
    ├── RegistryError                the model registry refused or cannot answer
    │   ├── ServerUnreachableError   the tracking server, Prefect's, or a study's database does not answer
    │   ├── NotAllowedError          the tracking server does not let this user do that
    │   ├── ExperimentNotFoundError  no such experiment
    │   ├── NoFinishedRunError       the experiment has no run to choose from
    │   ├── MetricNotLoggedError     no finished run logged that metric with a finite value
    │   ├── ModelNotFoundError       no such registered model
    │   ├── VersionNotFoundError     no such version of the model
    │   ├── ModelFilesError          the location holds no model, or its files are absent or changed
    │   ├── UnknownStageError        not a stage
    │   ├── ChampionMovedError       production changed since the verdict was made
    │   ├── QuarantinedError         the version was rolled back and not released since
    │   ├── ProtectedVersionError    the champion or the rollback target, without force
    │   └── NothingToRollBackError   production was never anything else
    ├── GateError                    the gate cannot judge
    │   ├── PolicyError              a policy that cannot be used
    │   ├── InvalidCountsError       arrays that cannot be per-image counts
    │   ├── MissingMetricError       the counts do not hold what the metric needs
    │   ├── CountsMismatchError      the two models' counts are not of the same images and classes
    │   ├── EmptyGateSetError        a gate set without images
    │   ├── NewerVerdictError        a verdict that a newer Ratchet has written
    │   └── VerdictChangedError      a verdict or one of its artifacts is not what it was
    └── ServiceError                 the servers and the runs on them
        ├── PortTakenError           a port that something else listens on
        ├── ServiceEndedError        a server or worker that did not come up, or died
        └── RunAbandonedError        a run that crashed too often, or was cancelled

Each takes one message, so that it survives the way from a child process: what is wrong, where, and what to do.
"""


class RatchetError(Exception):
    """Anything that Ratchet raises on purpose."""


class ConfigError(RatchetError):
    """A configuration that cannot be used."""


class UnknownKeyError(ConfigError):
    """An override names a key that does not exist."""


class ForbiddenTargetError(ConfigError):
    """A `_target_` outside the allow-list."""


class ForbiddenPathError(ConfigError):
    """A path outside the data roots that the deployment allows."""


class DataError(RatchetError):
    """Images or masks that cannot be trained or judged on."""


class DatasetNotFoundError(DataError):
    """The folder is absent, or is not a data set."""


class DownloadError(DataError):
    """An archive could not be fetched, or is not the one expected."""


class UnreadableImageError(DataError):
    """An image or mask that does not decode."""


class DuplicateNameError(DataError):
    """Two images, or two masks, of one name."""


class MissingImageError(DataError):
    """A split list names an image that is not there."""


class MissingMaskError(DataError):
    """An image without its mask, or a mask without its image."""


class MaskSizeError(DataError):
    """A mask of another size than its image."""


class MaskValueError(DataError):
    """A mask value that stands for no class."""


class EmptySplitError(DataError):
    """A split without images."""


class SplitOverlapError(DataError):
    """The same image, by content, in two splits."""


class MetadataError(DataError):
    """A metadata.csv that cannot be used."""


class TrainingError(RatchetError):
    """A trial or a sweep that could not end well."""


class WeightsUnavailableError(TrainingError):
    """Pretrained weights that cannot be loaded."""


class TrialFailedError(TrainingError):
    """One trial could not go on: its memory ran out."""


class TrialTakenError(TrainingError):
    """Another machine took the trial over, because this one seemed dead."""


class SweepFailedError(TrainingError):
    """No trial of the sweep finished."""


class ExportError(TrainingError):
    """The trained model cannot be exported."""


class RegistryError(RatchetError):
    """The model registry refused or cannot answer."""


class ServerUnreachableError(RegistryError):
    """The tracking server, Prefect's, or a study's database does not answer."""


class NotAllowedError(RegistryError):
    """The tracking server does not let this user do that."""


class ExperimentNotFoundError(RegistryError):
    """No such experiment."""


class NoFinishedRunError(RegistryError):
    """The experiment has no run to choose from."""


class MetricNotLoggedError(RegistryError):
    """No finished run logged that metric with a finite value."""


class ModelNotFoundError(RegistryError):
    """No such registered model."""


class VersionNotFoundError(RegistryError):
    """No such version of the model."""


class ModelFilesError(RegistryError):
    """The location holds no model, or its files are absent or changed."""


class UnknownStageError(RegistryError):
    """Not a stage."""


class ChampionMovedError(RegistryError):
    """Production changed since the verdict was made."""


class QuarantinedError(RegistryError):
    """The version was rolled back and not released since."""


class ProtectedVersionError(RegistryError):
    """The champion or the rollback target, without force."""


class NothingToRollBackError(RegistryError):
    """Production was never anything else."""


class GateError(RatchetError):
    """The gate cannot judge."""


class NewerVerdictError(GateError):
    """A verdict that a newer Ratchet has written."""


class PolicyError(GateError):
    """A policy that cannot be used."""


class InvalidCountsError(GateError):
    """Arrays that cannot be per-image counts."""


class MissingMetricError(GateError):
    """The counts do not hold what the metric needs."""


class CountsMismatchError(GateError):
    """The two models' counts are not of the same images and classes."""


class EmptyGateSetError(GateError):
    """A gate set without images."""


class VerdictChangedError(GateError):
    """A verdict or one of its artifacts is not what it was."""


class ServiceError(RatchetError):
    """The servers and the runs on them."""


class PortTakenError(ServiceError):
    """A port that something else listens on."""


class ServiceEndedError(ServiceError):
    """A server or worker that did not come up, or died."""


class RunAbandonedError(ServiceError):
    """A run that crashed too often to be taken up again, or that somebody has cancelled."""
