"""The files of a model: their hashes, the check against what was recorded, and loading without unpickling."""

from __future__ import annotations

import errno
import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import ModelFilesError, RegistryError

if TYPE_CHECKING:
    import torch

_NOT_THE_MODEL = {"registered_model_meta"}  # MLflow's loaders write it into the directory that they load from
_LACKS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
_OF_THIS_MACHINE = re.compile(
    rf"\[Errno ({'|'.join(map(str, _LACKS))})\]"
)  # as errors that sum up others quote them, too
MODEL_MARKS = ("MLmodel", "model.pt")  # either makes a directory a model


def digests_of(directory: Path) -> dict[str, str]:
    """The sha256 of every file below `directory`, by its path inside it, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in _NOT_THE_MODEL)
    return {path.relative_to(directory).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest_digest(digests: Mapping[str, str]) -> str:
    """One sha256 for a whole directory: that of its sorted `<sha256>  <path>` lines, as sha256sum prints them."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def is_of_this_machine(error: Exception) -> bool:
    """Whether it tells of what this machine lacks, and nothing of the files."""
    return _OF_THIS_MACHINE.search(str(error)) is not None


def cannot_be_copied(location: str, error: Exception) -> RegistryError:
    """What to raise where files could not be copied: a `ModelFilesError`, unless this machine lacks what that takes."""
    if is_of_this_machine(error):
        return RegistryError(
            f"the model files at {location} cannot be copied to this machine: {error}. Mend that (room, memory, open files), and "
            "try again"
        )
    return ModelFilesError(f"the model files at {location} cannot be read: {error}")


def require_model(names: set[str], location: str) -> None:
    """Raise `ModelFilesError` unless a directory that holds `names` is a model."""
    if not names.intersection(MODEL_MARKS):
        held = ", ".join(sorted(names)[:10]) or "nothing"
        raise ModelFilesError(
            f"no model at {location}: expected a directory with {' or '.join(MODEL_MARKS)}, found {held}"
        )


def verify(directory: Path, digests: Mapping[str, str], what: str) -> None:
    """Raise `ModelFilesError` unless `directory` holds exactly the files that were recorded, unchanged."""
    found = digests_of(directory)
    absent, strange = sorted(set(digests) - set(found)), sorted(set(found) - set(digests))
    changed = sorted(path for path in set(found) & set(digests) if found[path] != digests[path])
    troubles = [
        f"{word} {', '.join(paths)}"
        for word, paths in (("changed:", changed), ("absent:", absent), ("not registered:", strange))
        if paths
    ]
    if troubles:
        raise ModelFilesError(
            f"the files of {what} are not those that were registered ({'; '.join(troubles)}): "
            "restore them, or delete the version (delete_model, with force=True where it is in use) and register its source "
            "again: while it is there, registering returns it"
        )


def load_torchscript(directory: Path, what: str) -> torch.jit.ScriptModule:
    """The TorchScript module of a model directory, on the CPU, in evaluation mode; nothing is unpickled.

    Raises `ModelFilesError` if there is no `model.pt` or torch cannot read it.
    """
    path = directory / "model.pt"
    if not path.is_file():
        raise ModelFilesError(f"{what} holds no TorchScript file model.pt, and Ratchet unpickles nothing: export it so")
    import torch  # noqa: PLC0415 (nothing else here needs it)

    try:
        with warnings.catch_warnings():
            # torch announces that TorchScript will go; the export decides the form, not who loads it.
            warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated", category=FutureWarning)
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ModelFilesError(f"torch cannot load model.pt of {what}: {error}") from error
    return module.eval()  # type: ignore[no-any-return]
