"""The page's words and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from string import Template

from ratchet.comparison.curves import curves
from ratchet.comparison.drawing import COLOURED
from ratchet.comparison.frame import PAGE
from ratchet.comparison.gather import LOSSES, ComparedTrial, Comparison, Curve
from ratchet.comparison.parallel import parallel
from ratchet.duration import shown_duration
from ratchet.evaluation.pictures import palette
from ratchet.page_parts import figure, section
from ratchet.training.examples import Example
from ratchet.training.results import ENDED

# MLflow shows an HTML artifact in a frame that may open no windows, and within it its own pages do not load.
_LINKS = "MLflow's viewer opens no links: follow them from this run's description, or from the downloaded page."
_NUMBERS = "The numbers are those of the table."
_COLUMNS = ("val_iou", "val_loss_epoch", "test_iou", "test_dice")


def draw_page(comparison: Comparison) -> str:
    """Render one HTML file without scripts, which needs no network and follows the reader's colour scheme."""
    trials, metric = comparison.trials, comparison.metric
    main = curves(trials, metric, width=1040, height=380, labels=True)
    others = [(loss, curves(trials, loss, width=512, height=240, labels=False)) for loss in LOSSES if loss != metric]
    small = "".join(_small(name, drawn) for name, drawn in others if drawn)
    return Template(PAGE).substitute(
        title=escape(comparison.title),
        experiment=escape(comparison.experiment),
        sentence=escape(_sentence(comparison)),
        stopped=f"<p class=note>{escape(comparison.stopped)}" if comparison.stopped else "",
        figures=_figures(comparison),
        table=_table(comparison),
        curves=section(
            "Curves",
            main + (f"<div class=pair>{small}</div>" if small else ""),
            f"{escape(metric)} by epoch. {_NUMBERS} {_legend(comparison)}" if main else _legend(comparison),
        ),
        parallel=section(
            "What made the difference",
            parallel(trials, metric, comparison.logarithmic),
            f"Each line is a trial: its values from left to right, and the {escape(metric)} that came of them. "
            f"{_NUMBERS}",
        ),
        winners=section(
            "What the best ones see",
            _winners(comparison.trials, metric),
            "The same test images, as the best trials see them.",
        ),
        hover="\n".join(_hover(rank) for rank in range(len(trials))),
    )


def _sentence(comparison: Comparison) -> str:
    best = comparison.trials[0] if comparison.trials else None
    if best is None or best.value is None or not best.result.trained:
        finished = any(trial.result.trained for trial in comparison.trials)
        return f"No finished trial has a finite {comparison.metric}." if finished else "No trial finished."
    direction = "highest" if comparison.mode == "max" else "lowest"
    return f"{best.result.name} has the {direction} {comparison.metric}: {figure(best.value)}"


def _figures(comparison: Comparison) -> str:
    results = [trial.result for trial in comparison.trials]
    counts = Counter(result.status for result in results)
    states = ", ".join(f"{counts[state]} {state}" for state in ENDED if counts[state])
    figures = [(str(len(results)), f"trials: {states}")]
    seconds = sum(result.seconds for result in results)
    figures.append((shown_duration(seconds), "in this sweep's processes, all trials together"))
    whole = sum(result.progress.max_epochs for result in results)
    done = sum(result.progress.validated for result in results)
    if counts["pruned"] and whole:
        figures.append((f"{done} of {whole}", "epochs trained: the others were spared"))
    values = [trial.value for trial in comparison.trials if trial.value is not None and trial.result.trained]
    if len(values) > 1:
        figures.append(
            (figure(abs(values[0] - values[-1])), f"{comparison.metric} between the best and the worst finished")
        )
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in figures)


def _table(comparison: Comparison) -> str:
    metrics = list(dict.fromkeys((comparison.metric, *_COLUMNS)))
    shown = [name for name in metrics if any(name in t.result.metrics for t in comparison.trials if t.result.trained)]
    head = "".join(f"<th class=n>{escape(name)}" for name in shown)
    rows = "".join(_row(rank, trial, shown) for rank, trial in enumerate(comparison.trials))
    table = f"<table><tr><th><th>trial{head}<th class=n>time<th>state<th>MLflow</tr>{rows}</table>"
    links = f"<p class=hint>{_LINKS}" if any(trial.address for trial in comparison.trials) else ""
    return f"<div class=scroll>{table}</div>{links}"


def _row(rank: int, trial: ComparedTrial, metrics: list[str]) -> str:
    result = trial.result
    known = result.metrics if result.trained else {}
    cells = "".join(_cell(known.get(name), trial.curves.get(name, ())) for name in metrics)
    seconds = shown_duration(result.seconds) if result.seconds else ""
    why = result.error or (result.note if not result.trained or result.status == "reused" else None)
    state = f"<span class={result.status}>{result.status}</span>" + (f"<small>{escape(why)}</small>" if why else "")
    run = escape(result.run_id[:8]) if result.run_id else ""
    link = f'<a href="{escape(trial.address)}" target=_blank rel=noopener>{run}</a>' if trial.address else run
    colour = f"var(--t{rank})" if rank < COLOURED else "var(--other)"
    return (
        f'<tr data-t="{rank}"><td class=rank><i style="background:{colour}"></i>{rank + 1}'
        f"<td class=name>{escape(result.name)}{cells}"
        f"<td class=n>{seconds}<td class=state>{state}<td><code>{link}</code></tr>"
    )


def _cell(value: float | None, curve: Curve) -> str:
    """The exported weights' value; of a trial that has none, the last that it had."""
    if value is not None:
        return f"<td class=n>{figure(value)}"
    return f'<td class="n last">{figure(curve[-1][1])}' if curve else "<td class=n>"


def _legend(comparison: Comparison) -> str:
    many = len(comparison.trials) > COLOURED
    words = [f"The best {COLOURED} have colours, the others are grey."] if many else []
    if any(trial.result.status in ("pruned", "stopped", "failed") for trial in comparison.trials):
        words.append("A cross is where a trial was stopped.")
    return " ".join([*words, "Point at a line or a row to follow one trial."])


def _small(name: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(name)}</figcaption>{drawn}</figure>"


def _winners(trials: Sequence[ComparedTrial], metric: str) -> str:
    """A row for each test image: the image, the truth, and what each of the best made of it."""
    best = [(rank, trial) for rank, trial in enumerate(trials) if trial.examples]
    if not best:
        return ""
    seen = [{example.name: example for example in trial.examples} for _, trial in best]
    heads = "".join(
        f'<th><i style="background:var(--t{rank})"></i>{rank + 1} {escape(trial.result.name)}, '
        f"{escape(metric)} <b>{figure(trial.value or 0.0)}</b>"
        for rank, trial in best
    )
    rows = []
    for name, example in seen[0].items():
        cells = "".join(
            f"<td>{_picture(other[name].prediction, f'prediction for {name}')}<small>IoU {other[name].iou:.2f}</small>"
            if name in other
            else "<td>"
            for other in seen
        )
        shown = _picture(example.image, name) + f"<small>{escape(name)}</small>"
        rows.append(f"<tr><td>{shown}<td>{_picture(example.truth, f'truth of {name}')}{cells}</tr>")
    table = f"<table class=seen><tr><th>image<th>truth{heads}</tr>{''.join(rows)}</table>"
    return f"{_classes([example for _, trial in best for example in trial.examples])}<div class=scroll>{table}</div>"


def _classes(examples: Sequence[Example]) -> str:
    """The colours of the classes; empty where an older Ratchet wrote all examples."""
    classes = next((example.classes for example in examples if example.classes), ())
    colours = zip(classes, palette(len(classes)), strict=True)
    marks = (f'<span><i style="background:rgb{colour}"></i>{escape(name)}</span>' for name, colour in colours)
    return f"<div class=legend>{''.join(marks)}</div>" if classes else ""


def _picture(address: str, words: str) -> str:
    return f'<img alt="{escape(words)}" src="{escape(address)}">'


def _hover(rank: int) -> str:
    """Where the mouse is on one trial, in whichever chart or row, the others step back."""
    return f'main:has([data-t="{rank}"]:hover) .trial:not([data-t="{rank}"]) {{ opacity: .1 }}'
