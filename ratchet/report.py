"""The page that a person reads after a retraining: trials, verdict, pictures; as markdown and as terminal tables."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from ratchet.errors import RegistryError
from ratchet.gate import Verdict
from ratchet.gate.markdown import cell, markdown_report
from ratchet.gate.tables import check_table
from ratchet.gate.wording import capital
from ratchet.judgement.records import REPORT_FILE, judgement_path, record_location
from ratchet.outcome import Outcome
from ratchet.page_parts import data_uri
from ratchet.registry.pages import artifact_page, experiment_page, model_page, pages_address, run_page, version_page
from ratchet.registry.tracking import answering, client, tracking_uri
from ratchet.training.display import print_sweep
from ratchet.training.markdown import short_trial_table
from ratchet.training.parent import PAGE
from ratchet.training.results import SweepOutcome, TrialResult

# Characters: the page goes to Prefect in one request, of which many a proxy takes no more than 1 MB.
_ROOM_FOR_PICTURES, _ROOM_FOR_TRIALS = 700_000, 100_000
_SIZES = ((900, 80), (700, 70), (550, 60), (400, 50))  # width in pixels and quality as a JPEG, the best first
_PICTURES = {
    "Test predictions of the challenger": "report/predictions.png",
    "Training curves": "report/curves.png",
}
_HEADLINES = {
    "promoted": "v{version} is in production",
    "staged": "v{version} is in staging",
    "rejected": "v{version} was rejected",
    "inconclusive": "v{version} is not proven better",
    "waiting": "v{version} waits for approval",
    "refused": "v{version} was refused",
    "unchanged": "v{version} stays",
    "skipped": "unchanged since v{version}",
}


_ELSEWHERE = {
    "promoted": "v{version} was promoted, and is not in production any more",
    "unchanged": "v{version} is the best again, and is not in production",
}


def headline(outcome: Outcome) -> str:
    """Return the outcome in a few words."""
    words = _HEADLINES if outcome.there else _HEADLINES | _ELSEWHERE
    return f"{outcome.model}: {words[outcome.status].format(version=outcome.version)}"


def markdown(outcome: Outcome) -> str:
    """Render the page; the pictures are inside of it. Raises `RegistryError` where MLflow does not answer."""
    parts, pictures = [f"# {cell(headline(outcome))}", "", _links(outcome), ""], dict[str, str]()
    if outcome.answer is not None:
        parts += [f"**{cell(capital(outcome.answer.sentence))}**", ""]
    if outcome.verdict is not None and outcome.best_run is not None:
        parts += [markdown_report(outcome.verdict, page=_whole_report(outcome.verdict, outcome.best_run)), ""]
        pictures = _pictures(outcome.best_run, _PICTURES)
    else:
        parts += [cell(outcome.message), ""]
    if outcome.sweep is not None:
        parts += [trial_table(outcome.sweep, best=outcome.best_run), ""]
        parts += [f"The sweep {cell(outcome.sweep.stopped)}.", ""] if outcome.sweep.stopped else []
    for title, picture in pictures.items():
        parts += [f"## {title}", "", picture, ""]
    return "\n".join(parts)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the trials, the verdict with its reasons, and the champion."""
    if outcome.sweep is not None:
        print_sweep(outcome.sweep, console, errors=console, best=outcome.best_run)
    if outcome.verdict is not None:
        console.print(check_table(outcome.verdict))
    style = {"promoted": "bold green", "staged": "bold green", "rejected": "bold red"}.get(
        outcome.status, "bold yellow"
    )
    console.print(Text(outcome.message, style=style), soft_wrap=True)
    champion = "none yet" if outcome.champion is None else f"v{outcome.champion}"
    console.print(f"champion of {outcome.model}: {champion}", highlight=False)


def trial_table(sweep: SweepOutcome, *, best: str | None = None) -> str:
    """Render the trials as a table, each with the way to its run in MLflow; the selected one has a star.

    Of more than there is room for, the best.
    """
    experiment = _experiment(sweep.trials)
    table = short_trial_table(
        sweep,
        best=best,
        link=lambda run_id: run_page(experiment, run_id) if experiment else None,
        room=_ROOM_FOR_TRIALS,
        rest="the experiment in MLflow",
    )
    return f"## Trials\n\n{table}"


def _links(outcome: Outcome) -> str:
    experiment = _experiment(outcome.trials)
    places = {
        f"{outcome.model} v{outcome.version} in MLflow": version_page(outcome.model, outcome.version),
        "its model's history": model_page(outcome.model),
        "all trials": experiment_page(experiment) if experiment else None,
        "the trials compared": _comparison(outcome.sweep),
    }
    return " · ".join(_linked(name, page) for name, page in places.items() if page is not None)


def _comparison(sweep: SweepOutcome | None) -> str | None:
    if sweep is None or sweep.run_id is None or sweep.experiment_id is None:
        return None
    return artifact_page(sweep.experiment_id, sweep.run_id, PAGE)


def _whole_report(verdict: Verdict, run_id: str) -> str:
    page = artifact_page(_experiment_of(run_id), run_id, f"{judgement_path(verdict.digest)}/{REPORT_FILE}")
    return page or f"{record_location(verdict.digest, run_id)}/{REPORT_FILE}"


def _linked(text: str, page: str | None) -> str:
    return cell(text) if page is None else f"[{cell(text)}]({page})"


def _experiment(trials: Sequence[TrialResult]) -> str | None:
    """The experiment that the trials share; None where nobody could follow a link to it."""
    run_id = next((trial.run_id for trial in trials if trial.run_id is not None), None)
    return None if run_id is None or pages_address() is None else _experiment_of(run_id)


def _experiment_of(run_id: str) -> str:
    return str(client().get_run(run_id).info.experiment_id)


def _pictures(run_id: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Pictures of a run as Markdown, inside as JPEGs, as large as there is room for all; for one that is gone, a sentence."""
    store, found, shown = client(), dict[str, Image.Image](), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        for title, path in paths.items():
            try:
                with answering(tracking_uri()):
                    local = Path(store.download_artifacts(run_id, path, folder))
                with Image.open(local) as image:
                    found[title] = image.convert("RGB")
            except (RegistryError, OSError):
                shown[title] = f"MLflow does not give {path} of the run {run_id} any more."
    for width, quality in _SIZES:
        inside = {title: f"![{title}]({_jpeg(image, width, quality)})" for title, image in found.items()}
        if sum(map(len, inside.values())) <= _ROOM_FOR_PICTURES:
            break
    else:
        inside = dict.fromkeys(found, "Too large for this page: see the run's `report/` in MLflow.")
    return {title: {**shown, **inside}[title] for title in paths}


def _jpeg(image: Image.Image, width: int, quality: int) -> str:
    small = image.copy()
    small.thumbnail((width, 10 * width))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return data_uri(buffer.getvalue())
