"""What a person reads before approving: one self-contained HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from ratchet.gate import wording
from ratchet.gate.chart import interval_chart
from ratchet.gate.page import PAGE
from ratchet.gate.verdict import Check, Verdict
from ratchet.page_parts import data_uri, section

_FEW = 12  # so many checks that passed are shown; more are folded away

Colours = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Example:
    """One gate image for people to look at: its scores, and pictures (PNG or JPEG bytes) by their caption, in order."""

    name: str
    challenger_score: float
    champion_score: float | None
    pictures: tuple[tuple[str, bytes], ...]


def html_report(
    verdict: Verdict,
    *,
    worsened: Sequence[Example] = (),
    improved: Sequence[Example] = (),
    colours: Colours | None = None,
) -> str:
    """The whole verdict as one HTML page that opens offline: no script, no address, every picture inside it.

    `colours` (RGB, 0 to 255) are those of the classes in the examples' pictures. Without a champion, the examples are
    the worst and the best images.
    """
    first, metric = verdict.champion is None, verdict.policy.metric_title
    return Template(PAGE).substitute(
        outcome=verdict.outcome,
        what=escape(
            f"{wording.parties(verdict)}, {verdict.n_images:,} gate images, policy {wording.policy_name(verdict.policy)}"
        ),
        title=escape(f"{verdict.model} v{verdict.challenger.version}: {verdict.outcome}"),
        sentence=escape(wording.capital(verdict.reason)),
        notes="".join(f"<p class=note>{escape(wording.capital(note))}." for note in verdict.notes),
        figures="".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in wording.figures(verdict)),
        interval=_interval(verdict),
        checks=_checks(verdict.checks),
        classes=_classes(verdict),
        costs=_costs(verdict),
        worsened=_examples("Worst images" if first else "Most worsened images", worsened, colours or {}, metric),
        improved=_examples("Best images" if first else "Most improved images", improved, colours or {}, metric),
        again=_again(verdict),
    )


def _interval(verdict: Verdict) -> str:
    hint = (
        f"{escape(wording.capital(verdict.policy.metric_title))}, challenger minus champion. The dot is what was measured, "
        "the band holds the true difference with the check's confidence at each end, and a check that rests on enough images "
        "passes when its whole band is right of the upright line."
    )
    return section("The difference", interval_chart(verdict), hint)


def _checks(checks: Sequence[Check]) -> str:
    ordered = wording.worst_first(checks)
    passed = [check for check in ordered if check.passed]
    shown = ordered if len(passed) <= _FEW else [check for check in ordered if not check.passed]
    table = _check_table(shown) if shown else ""
    if len(shown) < len(ordered):
        table += f"<details><summary>{len(passed)} checks passed</summary>{_check_table(passed)}</details>"
    return section("Checks", table)


def _check_table(checks: Sequence[Check]) -> str:
    rows = "".join(
        f"<tr class={check.state}><td class=mark>{wording.MARKS[check.state]}<td class=rule>{wording.rule(check)}"
        f"<td class=on>{escape(check.slice)}<td class=asked>{escape(check.required)}<td class=why>{escape(check.why)}"
        for check in checks
    )
    return f"<table class=checks><tr><th>outcome<th>rule<th>on<th>asked<th>why{rows}</table>"


def _classes(verdict: Verdict) -> str:
    if len(verdict.class_scores) == 1:  # the overall figures say it already
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.name)}<td class=n>{wording.number(one.challenger)}<td class=n>"
        f"{wording.number(one.champion)}<td class=n>{wording.number(_minus(one.challenger, one.champion), sign=True)}"
        for one in verdict.class_scores
    )
    head = "<tr><th>class<th class=n>challenger<th class=n>champion<th class=n>difference"
    if verdict.champion is None:
        head = "<tr><th>class<th class=n>challenger"
        rows = "".join(
            f"<tr><td>{escape(one.name)}<td class=n>{wording.number(one.challenger)}" for one in verdict.class_scores
        )
    title = f"{wording.capital(verdict.policy.metric_title)} of each class"
    return section(title, f"<div class=scroll><table class=narrow>{head}{rows}</table></div>")


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _costs(verdict: Verdict) -> str:
    mine, theirs = verdict.evidence.challenger_cost, verdict.evidence.champion_cost
    if mine is None and theirs is None:
        return ""
    if verdict.champion is None:
        alone = "".join(
            f"<tr><td>{name}<td class=n>{_cost(one, unit)}" for name, unit, one in wording.cost_figures(mine)
        )
        table = f"<table class=narrow><tr><th>cost<th class=n>challenger{alone}</table>"
        return section("Speed and size", f"<div class=scroll>{table}</div>")
    pairs = zip(wording.cost_figures(mine), wording.cost_figures(theirs), strict=True)
    rows = "".join(
        f"<tr><td>{name}<td class=n>{_cost(one, unit)}<td class=n>{_cost(other, unit)}"
        f"<td class=n>{f'{one / other:.2f} times' if one is not None and other else 'unknown'}"
        for (name, unit, one), (_, _, other) in pairs
    )
    head = "<tr><th>cost<th class=n>challenger<th class=n>champion<th class=n>ratio"
    return section("Speed and size", f"<div class=scroll><table class=narrow>{head}{rows}</table></div>")


def _cost(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.4g} {unit}"


def _examples(title: str, examples: Sequence[Example], colours: Colours, metric: str) -> str:
    compared = any(one.champion_score is not None for one in examples)
    hint = f"{escape(wording.capital(metric))} of the image alone{', champion → challenger' if compared else ''}."
    legend = "".join(
        f'<span><i style="background:rgb({r},{g},{b})"></i>{escape(name)}</span>' for name, (r, g, b) in colours.items()
    )
    body = f"<div class=legend>{legend}</div>" if legend and examples else ""
    return section(title, body + "".join(map(_example, examples)), hint)


def _example(one: Example) -> str:
    pictures = "".join(
        f"<figure>{_image(data, f'{caption} of {one.name}')}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, data in one.pictures
    )
    scores = f"{one.challenger_score:.3f}"
    if one.champion_score is not None:
        change = one.challenger_score - one.champion_score
        way = "down" if change < 0 else "up"
        scores = f"{one.champion_score:.3f} → {scores} <span class={way}>{change:+.3f}</span>"
    return f"<div class=example><p><code>{escape(one.name)}</code> {scores}</p><div class=strip>{pictures}</div></div>"


def _image(data: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="{data_uri(data)}">'


def _again(verdict: Verdict) -> str:
    command = (
        f"ratchet gate replay {shlex.quote(verdict.model)} {verdict.challenger.version} --verdict {verdict.digest[:12]}"
    )
    rows = "".join(f"<tr><th>{escape(k)}<td><code>{escape(v)}</code>" for k, v in wording.facts(verdict))
    body = (
        f"<pre>{escape(command)}\nratchet gate replay verdict.json</pre>"
        f"<details><summary>What it was made from</summary><table class=facts>{rows}</table></details>"
    )
    hint = "Derive the verdict again from the counts beside this page, bit for bit and without any model:"
    return section("Check it yourself", body, hint)
