"""What a person reads before approving: one self-contained HTML page, and a shorter Markdown text."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from ratchet.gate.evidence import Cost
from ratchet.gate.page import PAGE
from ratchet.gate.pictures import interval_png, state
from ratchet.gate.verdict import Check, Verdict

_MARKS = {"passed": "✓ passed", "undecided": "? undecided", "failed": "✗ failed"}


@dataclass(frozen=True)
class Example:
    """One gate image for people to look at: its scores, and pictures (PNG or JPEG bytes) by their caption, in order."""

    name: str
    challenger_score: float
    champion_score: float | None
    pictures: tuple[tuple[str, bytes], ...]


def html_report(verdict: Verdict, *, worsened: Sequence[Example] = (), improved: Sequence[Example] = ()) -> str:
    """The whole verdict as one HTML page that opens offline: no script, no address, every picture inside it."""
    picture = interval_png(verdict)
    return Template(PAGE).substitute(
        outcome=verdict.outcome,
        title=escape(f"{verdict.model} v{verdict.challenger.version}: {verdict.outcome}"),
        sentence=escape(_capital(verdict.reason)),
        notes="".join(f"<p class=note>{escape(_capital(note))}." for note in verdict.notes),
        figures="".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in _figures(verdict)),
        interval=_section("The difference", _image(picture, "intervals of the difference")) if picture else "",
        checks=_checks(verdict.checks),
        classes=_classes(verdict),
        worsened=_examples("Most worsened images", worsened),
        improved=_examples("Most improved images", improved),
        costs=_costs(verdict),
        facts="".join(f"<tr><th>{escape(k)}<td><code>{escape(v)}</code>" for k, v in _facts(verdict)),
    )


def markdown_report(verdict: Verdict) -> str:
    """The verdict in a sentence, its figures and its checks, as a Markdown text."""
    lines = [f"## {_cell(verdict.sentence)}", ""]
    lines += [f"> {_cell(note)}" for note in verdict.notes] + [""] * bool(verdict.notes)
    lines += [f"- {key}: **{value}**" for key, value in _figures(verdict)]
    lines += ["", "| check | on | outcome | asked | why |", "|---|---|---|---|---|"]
    for check in sorted(verdict.checks, key=_worst_first):
        cells = (_rule(check), check.slice, _MARKS[state(check)], check.required, check.why)
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*lines, "", f"Verdict `{verdict.digest[:12]}`, policy *{_cell(verdict.policy.name)}*.", ""])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    """Text that neither ends a Markdown table's cell nor becomes HTML."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _figures(verdict: Verdict) -> list[tuple[str, str]]:
    metric, champion = verdict.policy.metric_title, verdict.champion
    found = [(f"{metric}, challenger v{verdict.challenger.version}", _number(verdict.challenger_score))]
    if champion is not None:
        found.append((f"{metric}, champion v{champion.version}", _number(verdict.champion_score)))
    if verdict.interval is not None:
        found.append(("difference", _number(verdict.interval.estimate, sign=True)))
        confidence = f"{100 * verdict.interval.confidence:.4g} %"
        found.append((f"at least, with {confidence} confidence", _number(verdict.interval.low, sign=True)))
    if verdict.smallest_detectable is not None:
        found.append(("smallest gain this gate set can prove", _number(verdict.smallest_detectable, sign=True)))
    found.append(("gate images", f"{verdict.n_images:,}"))
    if verdict.images_needed is not None:
        found.append(("gate images that would decide", f"about {verdict.images_needed:,}"))
    return found


def _number(value: float | None, *, sign: bool = False) -> str:
    return "none" if value is None else f"{value:{'+' if sign else ''}.4f}"


def _worst_first(check: Check) -> int:
    return ("failed", "undecided", "passed").index(state(check))


def _rule(check: Check) -> str:
    return check.rule.replace("_", "-")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _checks(checks: Iterable[Check]) -> str:
    rows = "".join(
        f"<tr class={state(check)}><td class=mark>{_MARKS[state(check)]}<td>{_rule(check)}"
        f"<td>{escape(check.slice)}<td>{escape(check.required)}<td>{escape(check.why)}"
        for check in sorted(checks, key=_worst_first)
    )
    return _section("Checks", f"<table><tr><th>outcome<th>rule<th>on<th>asked<th>why{rows}</table>")


def _classes(verdict: Verdict) -> str:
    if len(verdict.class_scores) == 1:  # the overall figures say it already
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.name)}<td class=n>{_number(one.challenger)}<td class=n>{_number(one.champion)}"
        f"<td class=n>{_number(_minus(one.challenger, one.champion), sign=True)}"
        for one in verdict.class_scores
    )
    head = "<tr><th>class<th class=n>challenger<th class=n>champion<th class=n>difference"
    return _section(
        f"{_capital(verdict.policy.metric_title)} of each class", f"<table class=narrow>{head}{rows}</table>"
    )


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _examples(title: str, examples: Sequence[Example]) -> str:
    rows = []
    for one in examples:
        change = f"{_number(one.champion_score)} → " if one.champion_score is not None else ""
        pictures = "".join(
            f"<figure>{_image(data, f'{caption} of {one.name}')}<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, data in one.pictures
        )
        text = f"<p><code>{escape(one.name)}</code> {change}{one.challenger_score:.4f}</p>"
        rows.append(f"<div class=example>{text}<div class=strip>{pictures}</div></div>")
    return _section(title, "".join(rows))


def _image(data: bytes | None, alt: str) -> str:
    if data is None:
        return ""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _costs(verdict: Verdict) -> str:
    mine, theirs = verdict.evidence.challenger_cost, verdict.evidence.champion_cost
    if mine is None and theirs is None:
        return ""
    pairs = zip(_cost_figures(mine), _cost_figures(theirs), strict=True)
    rows = "".join(
        f"<tr><td>{name}<td class=n>{_cost(one, unit)}<td class=n>{_cost(other, unit)}"
        f"<td class=n>{f'{one / other:.2f} times' if one is not None and other else 'unknown'}"
        for (name, unit, one), (_, _, other) in pairs
    )
    head = "<tr><th>cost<th class=n>challenger<th class=n>champion<th class=n>ratio"
    return _section("Speed and size", f"<table class=narrow>{head}{rows}</table>")


def _cost_figures(cost: Cost | None) -> list[tuple[str, str, float | None]]:
    cost = cost or Cost()
    samples = sorted(cost.latency_ms)
    median = samples[len(samples) // 2] if samples else None
    return [
        ("median latency", "ms", median),
        ("p95 latency", "ms", cost.p95),
        ("peak memory", "MB", cost.memory_mb),
        ("size on disk", "MB", cost.size_mb),
    ]


def _cost(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.4g} {unit}"


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    context, policy = verdict.context, verdict.policy
    refs = {"challenger": context.challenger, "champion": context.champion, "anchor": context.anchor}
    found = [(role, f"v{ref.version} {ref.digest}") for role, ref in refs.items() if ref is not None]
    found += [("gate set", context.gate_set), ("training data", context.data or "not recorded")]
    found += [("code", context.code or "not recorded"), ("verdict", verdict.digest)]
    found += [(f"counts of {role}", digest) for role, digest in verdict.counts.items()]
    found += [("policy", f"{policy.name}: {policy.model_dump_json()}")]
    return [*found, ("computed with", ", ".join(f"{name} {number}" for name, number in context.versions.items()))]
