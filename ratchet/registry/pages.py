"""Where MLflow's pages of experiments, runs and versions are, for people to follow."""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit, urlunsplit

from ratchet.registry.tracking import tracking_uri


def pages_address() -> str | None:
    """RATCHET_MLFLOW_UI, else the tracking server's address without its password; None where there is no server."""
    named = os.environ.get("RATCHET_MLFLOW_UI") or tracking_uri()
    return without_password(named) if urlsplit(named).scheme in ("http", "https") else None


def without_password(address: str) -> str:
    """The address as one may follow it and write it down: without user and password."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def run_page(experiment_id: str, run_id: str) -> str | None:
    """The page of a run."""
    return _page("experiments", experiment_id, "runs", run_id)


def artifact_page(experiment_id: str, run_id: str, path: str) -> str | None:
    """The page that shows an artifact of a run."""
    return _page("experiments", experiment_id, "runs", run_id, "artifacts", *path.split("/"))


def experiment_page(experiment_id: str) -> str | None:
    """The page that compares an experiment's runs."""
    return _page("experiments", experiment_id, "runs")


def version_page(model: str, version: int) -> str | None:
    """The page of a model's version."""
    return _page("models", model, "versions", str(version))


def model_page(model: str) -> str | None:
    """The page of a model, with its versions and its history."""
    return _page("models", model)


def _page(*parts: str) -> str | None:
    address = pages_address()
    return None if address is None else f"{address}/#/{'/'.join(quote(part, safe='') for part in parts)}"
