"""The tables of `ratchet deploy` and `ratchet doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.service.changes import Change
    from flows.service.doctor import Finding

_ACTIONS = {"created": "green", "updated": "yellow", "removed": "red", "left": "yellow", "off": "yellow"}


def print_changes(changes: Sequence[Change], console: Console, *, dry_run: bool) -> None:
    """Print a row for each thing that was made, changed, removed or left, and how many are as they should be."""
    title = "What would change" if dry_run else "What changed"
    table = Table("", "kind", "name", "what differed", title=title, title_justify="left")
    for change in changes:
        if change.action == "unchanged":
            continue
        keys = "no model file wants it: --prune removes it" if change.action == "left" else ", ".join(change.keys)
        table.add_row(Text(change.action, _ACTIONS[change.action]), change.kind, change.name, keys)
    if table.row_count:
        console.print(table)
    same = len(changes) - table.row_count
    nothing = "" if table.row_count else ": nothing to do"
    console.print(f"{same} of {len(changes)} things were as the model files say{nothing}")


def findings_table(findings: Sequence[Finding]) -> Table:
    """One row for each check."""
    table = Table("", "check", "found", "what to do", title="ratchet doctor", title_justify="left")
    for finding in findings:
        mark = Text("✗", "bold red") if finding.bad else Text("!", "yellow") if finding.advice else Text("✓", "green")
        table.add_row(mark, finding.check, finding.found, finding.advice)
    return table
