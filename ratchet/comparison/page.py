"""The page's words and tables."""

from __future__ import annotations

from collections import Counter
from html import escape
from string import Template

from ratchet.comparison.curves import curves
from ratchet.comparison.drawing import COLOURED
from ratchet.comparison.frame import PAGE
from ratchet.comparison.gather import LOSSES, ComparedTrial, Comparison, Curve
from ratchet.comparison.parallel import parallel
from ratchet.duration import shown_duration
from ratchet.page_parts import section
from ratchet.training.results import ENDED

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
            f"{escape(metric)} by epoch. {_legend(comparison)}" if main else _legend(comparison),
        ),
        parallel=section(
            "What made the difference",
            parallel(trials, metric, comparison.logarithmic),
            f"Each line is a trial: its values from left to right, and the {escape(metric)} that came of them.",
        ),
        winners=section(
            "What the best ones see",
            _winners(comparison),
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
    return f"{best.result.name} has the {direction} {comparison.metric}: {best.value:.4f}"


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
            (f"{abs(values[0] - values[-1]):.4f}", f"{comparison.metric} between the best and the worst finished")
        )
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in figures)


def _table(comparison: Comparison) -> str:
    metrics = list(dict.fromkeys((comparison.metric, *_COLUMNS)))
    shown = [name for name in metrics if any(name in t.result.metrics for t in comparison.trials if t.result.trained)]
    head = "".join(f"<th class=n>{escape(name)}" for name in shown)
    rows = "".join(_row(rank, trial, shown) for rank, trial in enumerate(comparison.trials))
    return (
        f"<div class=scroll><table><tr><th><th>trial{head}<th class=n>time<th>state<th>MLflow</tr>{rows}</table></div>"
    )


def _row(rank: int, trial: ComparedTrial, metrics: list[str]) -> str:
    result = trial.result
    known = result.metrics if result.trained else {}
    cells = "".join(_cell(known.get(name), trial.curves.get(name, ())) for name in metrics)
    seconds = shown_duration(result.seconds) if result.seconds else ""
    why = result.error or (result.note if not result.trained or result.status == "reused" else None)
    state = f"<span class={result.status}>{result.status}</span>" + (f"<small>{escape(why)}</small>" if why else "")
    run = escape(result.run_id[:8]) if result.run_id else ""
    link = f'<a href="{escape(trial.address)}">{run}</a>' if trial.address else run
    colour = f"var(--t{rank})" if rank < COLOURED else "var(--other)"
    return (
        f'<tr data-t="{rank}"><td><i style="background:{colour}"></i><td class=name>{escape(result.name)}{cells}'
        f"<td class=n>{seconds}<td class=state>{state}<td><code>{link}</code></tr>"
    )


def _cell(value: float | None, curve: Curve) -> str:
    """The exported weights' value; of a trial that has none, the last that it had."""
    if value is not None:
        return f"<td class=n>{value:.4f}"
    return f'<td class="n last">{curve[-1][1]:.4f}' if curve else "<td class=n>"


def _legend(comparison: Comparison) -> str:
    many = len(comparison.trials) > COLOURED
    words = [f"The best {COLOURED} have colours, the others are grey."] if many else []
    if any(trial.result.status in ("pruned", "stopped", "failed") for trial in comparison.trials):
        words.append("A cross is where a trial was stopped.")
    return " ".join([*words, "Point at a line or a row to follow one trial."])


def _small(name: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(name)}</figcaption>{drawn}</figure>"


def _winners(comparison: Comparison) -> str:
    """A row for each test image: the image, the truth, and what each of the best made of it."""
    best = [(rank, trial) for rank, trial in enumerate(comparison.trials) if trial.examples]
    if not best:
        return ""
    seen = [{example.name: example for example in trial.examples} for _, trial in best]
    heads = "".join(
        f'<th><i style="background:var(--t{rank})"></i>{escape(trial.result.name)} <b>{trial.value:.4f}</b>'
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
    return f"<div class=scroll><table class=seen><tr><th>image<th>truth{heads}</tr>{''.join(rows)}</table></div>"


def _picture(address: str, words: str) -> str:
    return f'<img alt="{escape(words)}" src="{escape(address)}">'


def _hover(rank: int) -> str:
    """Where the mouse is on one trial, in whichever chart or row, the others step back."""
    return f'main:has([data-t="{rank}"]:hover) .trial:not([data-t="{rank}"]) {{ opacity: .1 }}'
