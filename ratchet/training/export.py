"""Writes the trained network as one MLflow model directory that every loader can use."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.utils import EXAMPLE_FILENAME
from mlflow.utils import requirements_utils
from torch import Tensor, nn

from ratchet.errors import ExportError
from ratchet.evaluation.probe import REFERENCE_FILE
from ratchet.evaluation.served import CARD_FILE, TORCHSCRIPT_FILE, ModelCard
from ratchet.training.beside import beside
from ratchet.training.memory import is_lack_of_memory

ONNX_FILE = "model.onnx"
TOLERANCE = 1e-3  # of logits, absolute and relative: a trace or a graph reorders sums, no more


def export_network(network: nn.Module, card: ModelCard, directory: Path, *, types: Sequence[str]) -> None:
    """Write the model directory: MLflow's pt2 form, and beside it `model.json`, TorchScript and ONNX as asked for.

    `reference.npz` keeps what the trained network answered, so that anyone can tell later whether the export agrees.

    The network is left on the CPU in float32. Each form is run once and compared with it. Raises `ExportError`.
    """
    network = network.cpu().float().eval().to(memory_format=torch.contiguous_format)
    example = _example(card)
    try:
        # One image, where the forms are made of two: one that takes batches of two only (a guard: AssertionError) fails.
        with torch.inference_mode():
            expected = network(example[:1])
        if not torch.isfinite(expected).all():
            raise ExportError(
                "the network answers NaN or infinity; if it was trained, it diverged. Lower optimizer.lr, or clip gradients."
            )
        forms = directory.with_name(f"{directory.name}.forms")  # MLflow asks for a directory that is empty
        with warnings.catch_warnings(), beside(partial(_other_forms, network, example, forms, types)) as others:
            warnings.simplefilter("ignore")  # the tracers warn of shapes that are constants here
            _write_mlflow(network, card, example, expected, directory)
            answers = {"pt2": _predict(example[:1], directory)} | others()
        for file in forms.iterdir():
            file.rename(directory / file.name)
        forms.rmdir()
        (directory / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")
        np.savez_compressed(directory / REFERENCE_FILE, input=example[:1].numpy(), output=expected.numpy())
    except (RuntimeError, ValueError, TypeError, ImportError, AssertionError, MlflowException) as error:
        if is_lack_of_memory(error):
            raise
        raise ExportError(f"the network cannot be exported as {', '.join(types)}: {error}") from error
    for form, answer in answers.items():
        if not np.allclose(answer, expected.numpy(), rtol=TOLERANCE, atol=TOLERANCE):
            worst = float(np.abs(answer - expected.numpy()).max())
            raise ExportError(f"the {form} form differs from the trained network by {worst:.3g} in a logit.")


def _example(card: ModelCard) -> Tensor:
    """Two images (with one, torch.export would fix the batch to one), in eighths, which JSON writes in few digits."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 9, (2, 3, card.input_height, card.input_width), generator=generator) / 8


def _write_mlflow(network: nn.Module, card: ModelCard, example: Tensor, expected: Tensor, directory: Path) -> None:
    images = example.numpy()
    with _packages_not_searched():
        mlflow.pytorch.save_model(
            network,
            str(directory),
            serialization_format="pt2",  # on Databricks MLflow's default is a pickle
            metadata={"ratchet": card.model_dump(mode="json")},
            mlflow_model=Model(saved_input_example_info={"artifact_path": EXAMPLE_FILENAME, "type": "ndarray"}),
            signature=infer_signature(images, expected.numpy()),
            # In a list it is traced, not written: MLflow would write both images twice, once with a line for every value.
            input_example=[images],
            # Named, because MLflow would else import the model in a fresh process to guess them.
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "torch", "numpy")],
        )
    (directory / EXAMPLE_FILENAME).write_text(json.dumps(images[:1].tolist()))
    # Where there is a GPU, MLflow would put the input there; the weights of this form stay where they were exported.
    model = Model.load(str(directory))
    model.flavors["python_function"]["config"]["device"] = "cpu"
    model.save(str(directory / MLMODEL_FILE_NAME))


@contextmanager
def _packages_not_searched() -> Iterator[None]:
    """Keep MLflow from reading what files every installed package has: 1.3 s, once a process.

    It wants their modules' names, to compare the requirements with what is installed; these three are called like their
    modules. A name that MLflow gives up costs that time again, nothing else.
    """
    names: Any = requirements_utils
    found = getattr(names, "_MODULES_TO_PACKAGES", None)
    names._MODULES_TO_PACKAGES = found or {}
    try:
        yield
    finally:
        names._MODULES_TO_PACKAGES = found


def _write_torchscript(network: nn.Module, example: Tensor, directory: Path) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), str(directory / TORCHSCRIPT_FILE))


def _write_onnx(network: nn.Module, example: Tensor, directory: Path) -> None:
    torch.onnx.export(
        network,
        (example,),
        str(directory / ONNX_FILE),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False,
        verbose=False,
        dynamo=True,
    )


def _predict(images: Tensor, directory: Path) -> np.ndarray:
    """Load MLflow's form as its users will, and run it."""
    return np.asarray(mlflow.pyfunc.load_model(str(directory), suppress_warnings=True).predict(images.numpy()))


def _other_forms(network: nn.Module, example: Tensor, directory: Path, types: Sequence[str]) -> dict[str, np.ndarray]:
    """Write TorchScript and ONNX as asked for into a new directory; load each as its users will, and run it."""
    directory.mkdir()
    answers, image = dict[str, np.ndarray](), example[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript's end, too
        if "torchscript" in types:
            _write_torchscript(network, example, directory)
            with torch.inference_mode():
                answers["torchscript"] = torch.jit.load(str(directory / TORCHSCRIPT_FILE))(image).numpy()  # type: ignore[no-untyped-call]
        if "onnx" in types:
            import onnxruntime  # noqa: PLC0415 - the extra `onnx`

            _write_onnx(network, example, directory)
            session = onnxruntime.InferenceSession(str(directory / ONNX_FILE), providers=["CPUExecutionProvider"])
            answers["onnx"] = session.run(None, {"image": image.numpy()})[0]
    return answers
