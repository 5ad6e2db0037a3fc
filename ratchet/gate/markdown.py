"""A verdict as a Markdown text, for pages that show no HTML: the decision first, then figures and checks."""

from __future__ import annotations

import re
from html import escape

from ratchet.gate import wording
from ratchet.gate.intervals import interval_rows
from ratchet.gate.verdict import Verdict
from ratchet.page_parts import data_uri

_DRAWN = 40  # comparisons: hundreds of them do not fit into one request to Prefect, and the table says the same
_SIGNS = str.maketrans({"|": "\\|", "`": "'", **{sign: f"&#{ord(sign)};" for sign in "[]\\*~"}})
_AT_AN_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # of a word, where it would be emphasis


def markdown_report(verdict: Verdict, *, page: str | None = None) -> str:
    """The verdict in a sentence, its figures, its checks and its picture, unless that is large; `page` is where the whole
    report lies."""
    from ratchet.gate.pictures import interval_png  # noqa: PLC0415 - matplotlib, for which a table alone does not wait

    lines = [f"## {cell(verdict.sentence)}", ""]
    lines += [f"> {cell(wording.capital(note))}.\n" for note in verdict.notes]
    lines += [f"- {key}: **{value}**" for key, value in wording.figures(verdict)]
    lines += ["", "| check | on | outcome | asked | why |", "|---|---|---|---|---|"]
    for check in wording.worst_first(verdict.checks):
        cells = (wording.rule(check), check.slice, wording.MARKS[check.state], check.required, check.why)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    if len(interval_rows(verdict)) <= _DRAWN and (picture := interval_png(verdict)):
        lines += ["", f"![challenger minus champion]({data_uri(picture)})"]
    lines += ["", f"Verdict `{verdict.digest[:12]}`, policy *{cell(wording.policy_name(verdict.policy))}*."]
    if page:
        where = f"<{page}>" if page.startswith("http") else f"`{page.replace('`', '')}`"
        lines += ["", f"The whole report, with the gate images: {where}"]
    return "\n".join([*lines, ""])


def cell(text: str) -> str:
    """Text that is shown as it is: it ends no cell of a Markdown table, and is no HTML, link, picture or emphasis."""
    return _AT_AN_EDGE.sub("&#95;", " ".join(escape(text, quote=False).translate(_SIGNS).split()))
