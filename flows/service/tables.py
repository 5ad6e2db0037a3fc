"""The tables of `ratchet deploy` and `ratchet doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.service.changes import Change
    from flows.service.doctor import Finding

_ACTIONS = {"created": "green", "updated": "yellow", "removed": "red", "left": "yellow", "unchanged": "dim"}


def changes_table(changes: Sequence[Change], *, dry_run: bool) -> Table:
    """One row for each thing that was made, changed or found."""
    title = "What would change" if dry_run else "What was made"
    table = Table("", "kind", "name", "what differed", title=title, title_justify="left")
    for change in changes:
        keys = "no model file wants it: --prune removes it" if change.action == "left" else ", ".join(change.keys)
        table.add_row(Text(change.action, _ACTIONS[change.action]), change.kind, escape(change.name), keys)
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """One row for each check."""
    table = Table("", "check", "found", "what to do", title="ratchet doctor", title_justify="left")
    for finding in findings:
        mark = Text("✗", "bold red") if finding.bad else Text("!", "yellow") if finding.advice else Text("✓", "green")
        table.add_row(mark, finding.check, escape(finding.found), escape(finding.advice))
    return table
