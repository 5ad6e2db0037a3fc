"""`ratchet gate`: judge a version, derive a verdict again, and try a policy on past judgements."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.terminal import errors_told, open_console, quieten

if TYPE_CHECKING:
    from ratchet.gate import Verdict

EXIT_CODES = {"promote": 0, "reject": 3, "inconclusive": 4}

_POLICY = "A name (default, strict, permissive, or one of your own), a YAML or JSON file, or JSON text."


class _JudgesByDefault(click.Group):
    """A group whose first argument is a command or, where it is none, what `judge` is asked."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["judge", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "MODEL VERSION [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="       ")


@click.group(cls=_JudgesByDefault, short_help="Judge a version; replay a verdict; try a policy on the past.")
def gate() -> None:
    """Judge VERSION of MODEL against the champion, now.

    `ratchet gate MODEL VERSION --help` has the options; it exits 0 for promote, 3 for reject, 4 for inconclusive, 1 for
    an error.
    """


@gate.command(short_help="Judge a version (the same without the word).")
@click.argument("model")
@click.argument("version", type=int)
@click.option(
    "--policy", metavar="P", help=_POLICY + " Default: the policy that VERSION was judged by first, or trained under."
)
@click.option("--against", type=int, metavar="VERSION", help="Judge against this version instead of the champion.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Judge on the gate split of this folder as it is now. Default: the data set that VERSION was trained with.",
)
def judge(model: str, version: int, policy: str | None, against: int | None, data: Path | None) -> None:
    """Score VERSION of MODEL and the champion on the same images, and judge it by a policy.

    Nothing is promoted. The verdict goes into the
    history, and its record to the artifacts of the version's run. Exits 0 for promote, 3 for reject, 4 for
    inconclusive, 1 for an error.
    """
    with errors_told():
        quieten()
        from rich.progress import Progress  # noqa: PLC0415

        from ratchet import MlflowModelManager  # noqa: PLC0415
        from ratchet.judgement.anytime import judge_anytime  # noqa: PLC0415
        from ratchet.judgement.records import REPORT_FILE, last_verdict, record_location  # noqa: PLC0415

        manager, progress = MlflowModelManager(), open_console(stderr=True)
        with Progress(console=progress, transient=True, disable=not progress.file.isatty()) as bar:
            scored = bar.add_task("gate images scored", total=None)
            verdict = judge_anytime(
                model,
                version,
                manager=manager,
                policy=policy,
                against=against,
                data_path=data,
                on_image=lambda done, total: bar.update(scored, completed=done, total=total),
            )
        _print(verdict)
        told = last_verdict(manager, model, version, digest=verdict.digest)
        kept = record_location(verdict.digest, str(told.run_id))
        click.echo(f"report: {kept}/{REPORT_FILE}")
        if verdict.passed and against is None:
            replaced = verdict.champion.version if verdict.champion else 0
            click.echo(f"nothing was moved: ratchet promote {shlex.quote(model)} {version} --replacing {replaced}")
        sys.exit(EXIT_CODES[verdict.outcome])


@gate.command(short_help="Derive a verdict again from its record, bit for bit.")
@click.argument("verdict", metavar="VERDICT.json | MODEL")
@click.argument("version", type=int, required=False)
@click.option("--verdict", "digest", default="", metavar="DIGEST", help="The one whose digest begins so, not the last.")
def replay(verdict: str, version: int | None, digest: str) -> None:
    """Derive a verdict again from the counts beside it, bit for bit; no model is run.

    VERDICT.json lies among the artifacts of the version's run, in gate/. With MODEL VERSION, the record of the last
    judgement is fetched, and checked against the digest in the history. Exits 1 if anything was changed.
    """
    with errors_told():
        from ratchet.errors import VerdictChangedError  # noqa: PLC0415
        from ratchet.gate.record import replay as derive  # noqa: PLC0415

        if version is None:
            if not Path(verdict).is_file():
                raise click.UsageError(f"there is no file {verdict}: give VERSION, or the path of a verdict.json")
            again = derive(Path(verdict))
            if not again.digest.startswith(digest):
                raise VerdictChangedError(f"{verdict} is the verdict {again.digest[:12]}, not {digest}")
            checked = f"the digest is for you to compare: ratchet history {shlex.quote(again.model)} --json"
        else:
            from ratchet import MlflowModelManager  # noqa: PLC0415
            from ratchet.judgement.records import fetch_record, last_verdict  # noqa: PLC0415

            event = last_verdict(MlflowModelManager(), verdict, version, digest=digest)
            with tempfile.TemporaryDirectory(prefix="replay-") as folder:
                again = derive(fetch_record(event, Path(folder)), digest=event.verdict_digest)
            checked = "the digest is the one in the history"
        _print(again)
        click.echo(f"derived again, bit for bit: {again.digest} ({checked})")


@gate.command(short_help="What a policy would have decided on past judgements.")
@click.argument("model")
@click.option("--policy", metavar="P", required=True, help=_POLICY)
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="So many judged versions.")
def backtest(model: str, policy: str, last: int) -> None:
    """Judge the last versions of MODEL by another policy, from the counts that were recorded; no model is run.

    Each is asked twice: against the champion of its time, and against the version that this policy would have promoted
    before.
    """
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415
        from ratchet.errors import VerdictChangedError  # noqa: PLC0415
        from ratchet.gate import load_policy  # noqa: PLC0415
        from ratchet.gate.backtest import backtest as judge_again  # noqa: PLC0415
        from ratchet.gate.record import read_record  # noqa: PLC0415
        from ratchet.gate.tables import backtest_summary, backtest_table  # noqa: PLC0415
        from ratchet.judgement.records import fetch_record, judgements  # noqa: PLC0415

        chosen = load_policy(policy)
        with tempfile.TemporaryDirectory(prefix="backtest-") as folder:
            records = []
            for event in judgements(MlflowModelManager().history(model))[-last:]:
                try:
                    verdict = fetch_record(event, Path(folder) / str(event.number))
                except VerdictChangedError as gone:  # with its run, say; one that was altered is an error
                    click.echo(f"left out: {gone}", err=True)
                    continue
                records.append(read_record(verdict, digest=event.verdict_digest))
            rows = judge_again(chosen, records)
        open_console().print(backtest_table(rows))
        click.echo(backtest_summary(chosen.name, rows))


def _print(verdict: Verdict) -> None:
    from ratchet.gate.tables import check_table  # noqa: PLC0415

    click.echo(verdict.sentence)
    open_console().print(check_table(verdict))
