"""A verdict and a backtest as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ratchet.gate import wording
from ratchet.gate.backtest import Row, Ruling
from ratchet.gate.verdict import Verdict

STYLES = {
    "promote": "green",
    "passed": "green",
    "reject": "red",
    "failed": "red",
    "inconclusive": "yellow",
    "undecided": "yellow",
    "unknown": "dim",
}


def check_table(verdict: Verdict) -> Table:
    """Every check with its reason, the failed ones first; below them what else a reader should know."""
    policy = wording.policy_name(verdict.policy)
    title = (
        f"Verdict: {verdict.outcome} ({wording.parties(verdict)}, {verdict.n_images:,} gate images, policy {policy})"
    )
    table = Table("", "rule", "on", "asked", "why", title=title, title_justify="left")
    table.caption, table.caption_justify = "\n".join(_notes(verdict)), "left"
    for check in wording.worst_first(verdict.checks):
        sign = Text(wording.SIGNS[check.state], style=STYLES[check.state])
        table.add_row(sign, wording.rule(check), check.slice, check.required, check.why)
    return table


def backtest_table(rows: Sequence[Row]) -> Table:
    """A row for each version: what was decided then, what the policy says, and what it says on its own line."""
    table = Table("version", "decided then", "this policy", "against its own champion", "why")
    for row in rows:
        then = Ruling(row.then.champion, row.then)
        why = row.own.why if row.own is row.same else f"{row.same.why}\nown: {row.own.why}"
        table.add_row(f"v{row.then.challenger.version}", _cell(then), _cell(row.same), _cell(row.own), why)
    return table


def backtest_summary(name: str, rows: Sequence[Row]) -> str:
    """How many versions were promoted then, and how many the policy would have promoted."""
    then = sum(row.then.passed for row in rows)
    same, own = (_counted([getattr(row, which).outcome for row in rows]) for which in ("same", "own"))
    return f"{len(rows)} judged versions: then {then} promote; policy {name} {same}, and along its own champions {own}"


def _counted(outcomes: Sequence[str]) -> str:
    unknown = outcomes.count("unknown")
    left = f" (of {unknown} the record cannot tell, and they count as not promoted)" if unknown else ""
    return f"{outcomes.count('promote')}{left}"


def _cell(answer: Ruling) -> Text:
    against = "first model" if answer.champion is None else f"against v{answer.champion.version}"
    return Text.assemble((answer.outcome, STYLES[answer.outcome]), f", {against}")


def _notes(verdict: Verdict) -> list[str]:
    notes = list(verdict.notes)
    if (gain := wording.provable(verdict)) is not None:
        notes.append(f"{wording.provable_told(verdict)}: {gain:+.4f}")
    if (images := wording.deciding(verdict)) is not None:
        notes.append(f"images that would decide, if the difference is as measured: {images:,}")
    return notes
