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
from rich.table import Table
from rich.text import Text

from ratchet.gate import Verdict
from ratchet.judgement import PICTURE_FILE, judgement_path
from ratchet.registry.tracking import client
from ratchet.retraining import Outcome
from ratchet.training.display import results_table

_WIDTH = 900  # pixels of a picture on the page: it is stored in Prefect's database
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
    parts = [f"# {_cell(headline(outcome))}", "", _cell(outcome.summary), ""]
    if outcome.trials:
        parts += [*_trials(outcome), ""]
    if outcome.verdict is not None and outcome.best_run is not None:
        parts += [*_checks(outcome.verdict), ""]
        pictures = {
            "Gate images": f"{judgement_path(outcome.verdict)}/{PICTURE_FILE}",
            "Test predictions of the challenger": "report/predictions.png",
            "Training curves": "report/curves.png",
        }
        for title, image in _pictures(outcome.best_run, pictures).items():
            parts += [f"## {title}", "", f"![{title}]({image})", ""]
    return "\n".join(parts)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the trials, the verdict with its reasons, and the champion."""
    if outcome.trials:
        console.print(results_table(outcome.trials, best=outcome.best_run))
    if outcome.verdict is not None:
        console.print(_check_table(outcome.verdict))
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
        lines.append(f"| {mark} | {_cell(trial.name)} | {values} | {_cell(state)} | `{trial.run_id or ''}` |")
    return lines


def _checks(verdict: Verdict) -> list[str]:
    champion = "no champion" if verdict.champion is None else f"v{verdict.champion.version}"
    lines = [
        f"## Verdict: {verdict.outcome} (v{verdict.challenger.version} against {champion}, {verdict.n_images} images)",
        "",
    ]
    lines += ["| rule | slice | observed | required | passed | why |", "|---|---|---:|---|---|---|"]
    for check in verdict.checks:
        observed = "" if check.observed is None else f"{check.observed:.4f}"
        mark = "yes" if check.passed else "**no**"
        lines.append(
            f"| {check.rule} | {_cell(check.slice)} | {observed} | {_cell(check.required)} | {mark} | {_cell(check.why)} |"
        )
    lines += ["", *(f"- {_cell(note)}" for note in _notes(verdict)), "", f"Verdict `{verdict.digest}`"]
    return lines


def _check_table(verdict: Verdict) -> Table:
    champion = "no champion" if verdict.champion is None else f"v{verdict.champion.version}"
    title = (
        f"Verdict: {verdict.outcome} (v{verdict.challenger.version} against {champion}, {verdict.n_images} gate images)"
    )
    table = Table("", "rule", "slice", "observed", "required", "why", title=title, title_justify="left")
    for check in verdict.checks:
        mark = Text("✓", style="green") if check.passed else Text("✗", style="red")
        observed = "" if check.observed is None else f"{check.observed:.4f}"
        table.add_row(mark, check.rule, escape(check.slice), observed, escape(check.required), escape(check.why))
    for note in _notes(verdict):
        table.caption = f"{table.caption}\n{note}" if table.caption else note
    table.caption_justify = "left"
    return table


def _notes(verdict: Verdict) -> list[str]:
    notes = list(verdict.notes)
    if verdict.smallest_detectable is not None:
        notes.append(f"smallest difference that this gate set can detect: {verdict.smallest_detectable:.4f}")
    if verdict.images_needed is not None:
        notes.append(f"images that would decide, if the difference is as measured: {verdict.images_needed}")
    return notes


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


def _cell(text: str) -> str:
    """Keep foreign words from being read as markup, or from ending a table's cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())
