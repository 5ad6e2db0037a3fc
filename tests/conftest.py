"""What many tests share: an embedded home of their own, and a data set small enough to train on in seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from parts import write_parts

from ratchet.registry.tracking import client

# On a machine that trains beside the tests, a property that takes long says nothing.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

TINY = (
    "experiment=generic/shapes/segmentation/smp",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "datamodule.months=2",
    "datamodule.images_per_month=30",
    "transforms.input_height=32",
    "transforms.input_width=32",
    "backbone.model.encoder_name=tu-test_resnet",  # a ResNet that timm made for tests
    "core.name=tiny",
)

WITHOUT_RULES = (
    "gate=permissive",
    "gate.floor=0.0",
    "gate.superiority=null",
    "gate.non_inferiority=null",
    "gate.anchor=null",
    "datamodule.test_size=0.5",  # a gate set of fewer than 20 images decides nothing
)
"""Promotes whatever a tiny training gave."""

_LONG = {"browser", "flow", "postgres", "server", "trains"}
_FROM_OUTSIDE = {"RATCHET_OXFORD_PET", "RATCHET_BROWSER_TESTS", "RATCHET_CHROMIUM", "RATCHET_POSTGRES_TESTS"}


def pytest_configure() -> None:
    """Forget the servers and folders of whoever runs the tests: nothing here may act on them."""
    for name in [name for name in os.environ if name.startswith(("RATCHET_", "PREFECT_", "MLFLOW_"))]:
        if name not in _FROM_OUTSIDE:
            del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", help="folder that the browser's tests put the pictures of the docs into")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: one that comes last keeps one core waiting for the other."""
    ranks = dict[Path, int]()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        rank = 0 if marks & _LONG else 1 if "slow" in marks else 2
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database in which nothing was tracked: making its tables takes seconds, copying them does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    client(f"sqlite:///{path}")
    return path


@pytest.fixture
def ratchet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A RATCHET_HOME of the test's own, tracked in its embedded store; neither is there yet."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RATCHET_SEARCH_PATH", raising=False)
    return tmp_path / "home"


@pytest.fixture
def stored_home(ratchet_home: Path, empty_store: Path) -> Path:
    """The same with its store, for a test that has to open it."""
    ratchet_home.mkdir()
    shutil.copy(empty_store, ratchet_home)
    return ratchet_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A home that the tests of a module share, with its store: what one trained the next one uses."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        shutil.copy(empty_store, folder)
        patch.setenv("RATCHET_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder
    shutil.rmtree(folder)  # pytest keeps it until all tests have ended


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pairs of image and mask, without lists."""
    return write_parts(tmp_path / "parts")
