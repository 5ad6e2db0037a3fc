"""The page that a person reads after a retraining: trials, verdict, pictures; as markdown and as terminal tables."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ratchet.gate.markdown import cell, markdown_report
from ratchet.gate.tables import check_table
from ratchet.judgement.records import REPORT_FILE, record_location
from ratchet.registry.tracking import client
from ratchet.retraining import Outcome
from ratchet.training.display import results_table

_WIDTH = 900  # pixels of a picture on the page: it is stored in Prefect's database
_PICTURES = {
    "Test predictions of the challenger": "report/predictions.png",
    "Training curves": "report/curves.png",
}
_HEADLINES = {
    "promoted": "v{version} is in production",
    "staged": "v{version} is in staging",
    "rejected": "v{version} was rejected",
    "inconclusive": "v{version} is not proven better",
    "skipped": "unchanged since v{version}",
}


def headline(outcome: Outcome) -> str:
    """Return the outcome in a few words."""
    return f"{outcome.model}: {_HEADLINES[outcome.status].format(version=outcome.version)}"


def markdown(outcome: Outcome) -> str:
    """Render the page; the pictures are inside of it. Raises `RegistryError` where they cannot be read."""
    parts, pictures = [f"# {cell(headline(outcome))}", ""], dict[str, str]()
    if outcome.verdict is not None and outcome.best_run is not None:
        page = f"{record_location(outcome.verdict.digest, outcome.best_run)}/{REPORT_FILE}"
        parts += [markdown_report(outcome.verdict, page=page), ""]
        pictures = _pictures(outcome.best_run, _PICTURES)
    else:
        parts += [cell(outcome.summary), ""]
    if outcome.trials:
        parts += [*_trials(outcome), ""]
    for title, image in pictures.items():
        parts += [f"## {title}", "", f"![{title}]({image})", ""]
    return "\n".join(parts)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the trials, the verdict with its reasons, and the champion."""
    if outcome.trials:
        console.print(results_table(outcome.trials, best=outcome.best_run))
    if outcome.verdict is not None:
        console.print(check_table(outcome.verdict))
    style = {"promoted": "bold green", "staged": "bold green", "rejected": "bold red"}.get(
        outcome.status, "bold yellow"
    )
    console.print(Text(outcome.summary, style=style), soft_wrap=True)
    champion = "none yet" if outcome.champion is None else f"v{outcome.champion}"
    console.print(f"champion of {escape(outcome.model)}: {champion}", highlight=False)


def _trials(outcome: Outcome) -> list[str]:
    shown = ["val_iou", "val_loss_epoch", "test_iou", "test_dice"]
    lines = [
        "## Trials",
        "",
        f"| | trial | {' | '.join(shown)} | state | run |",
        f"|---|---|{'---:|' * len(shown)}---|---|",
    ]
    for trial in outcome.trials:
        values = " | ".join(f"{trial.metrics[key]:.4f}" if key in trial.metrics else "" for key in shown)
        mark = "★" if trial.run_id == outcome.best_run else ""
        state = trial.status if trial.error is None else f"{trial.status}: {trial.error}"
        lines.append(f"| {mark} | {cell(trial.name)} | {values} | {cell(state)} | `{trial.run_id or ''}` |")
    return lines


def _pictures(run_id: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Fetch pictures of a run, as data URIs of JPEGs no wider than the page."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        for title, path in paths.items():
            local = Path(client().download_artifacts(run_id, path, folder))
            with Image.open(local) as image:
                page = image.convert("RGB")
                page.thumbnail((_WIDTH, 10 * _WIDTH))
                buffer = io.BytesIO()
                page.save(buffer, "JPEG", quality=80)
            found[title] = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return found
