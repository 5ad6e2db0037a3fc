"""The command line: `ratchet train` is Hydra's, the others are Ratchet's own. Each imports what it needs when it runs."""

from __future__ import annotations

import atexit
import gc
import json
import shlex
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, cast

import click

from flows.gate_cli import gate
from flows.service.cli import deploy, doctor, up
from flows.service.embedded import start_embedded_prefect
from flows.service.running import configured_api, reach_this_machine, use_own_prefect, use_running
from flows.terminal import errors_told, open_console, quieten, spell_out_signs
from ratchet.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ratchet.outcome import Outcome

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="ratchet")
@click.pass_context
def main(context: click.Context) -> None:
    """Retrain segmentation models; promote to production only what is proven better."""
    spell_out_signs()
    atexit.register(gc.freeze)  # the interpreter looks for garbage as it ends, a second time: 0.7 s, for nothing
    reach_this_machine()
    if context.invoked_subcommand != up.name:
        with errors_told():
            use_running()


for command in (gate, up, deploy, doctor):
    main.add_command(command)


@main.command(
    context_settings=_PASS_ON, add_help_option=False, short_help="Train one configuration, or a sweep of them."
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train what the overrides compose. It is a Hydra application: see `ratchet train --help`."""
    with errors_told(goes_on=True):
        signal.signal(signal.SIGTERM, _ended_by_signal)
        gc.disable()  # nothing of what is imported and composed is garbage; looking for it takes a sixth of the start
        quieten()
        from ratchet.home import home  # noqa: PLC0415
        from ratchet.training.plan import get_ready, plan_sweep  # noqa: PLC0415

        if not any(argument.startswith("-") for argument in arguments if argument not in ("-m", "--multirun")):
            get_ready(home())  # not where Hydra only prints: --help, --cfg job
        from ratchet.config import application  # noqa: PLC0415

        composed = application(arguments)
        if composed is None:
            return
        plan = plan_sweep(composed)
        from ratchet.registry.pages import experiment_page, pages_address  # noqa: PLC0415
        from ratchet.registry.tracking import client, shown, tracking_uri  # noqa: PLC0415
        from ratchet.training.display import print_plan, print_sweep, show_sweep  # noqa: PLC0415
        from ratchet.training.sweep import run  # noqa: PLC0415

        client()  # it imports what opens the store
        gc.freeze()
        gc.enable()
        told = open_console(stderr=True)
        with show_sweep(told, metric=plan.metric, size=plan.due) as on_progress:
            outcome = run(plan, on_plan=lambda found: print_plan(found, told), on_progress=on_progress)
        print_sweep(outcome, open_console(), errors=told)
        page = experiment_page(outcome.experiment_id) if outcome.experiment_id else pages_address()
        open_console().print(
            f"experiment {plan.config.core.name} at {shown(tracking_uri())}; see the runs: {page or 'ratchet up'}",
            highlight=False,
            soft_wrap=True,
        )
        if any(trial.status == "failed" for trial in outcome.trials):
            sys.exit(1)


@main.command()
@click.argument("overrides", nargs=-1)
@click.option("--model", help="Registered model's name. Default: the experiment's name, core.name.")
@click.option("--metric", help="Metric that selects the best trial. Default: val_iou.")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Whether its smallest or its largest value is best.")
@click.option(
    "--to", type=click.Choice(["staging", "production"]), help="How far a better model goes. Default: production."
)
@click.option(
    "-m", "--multirun", is_flag=True, expose_value=False, help="As in `ratchet train`; lists are swept without it too."
)
def retrain(
    overrides: tuple[str, ...], model: str | None, metric: str | None, mode: str | None, to: str | None
) -> None:
    """Sweep, select, register, judge, and promote what is proven better.

    OVERRIDES are Hydra's, as for `ratchet train`; lists of values are swept.
    """
    with errors_told(goes_on=True):
        signal.signal(signal.SIGTERM, _ended_by_signal)
        use_own_prefect()
        quieten()
        embedded = configured_api() is None
        if not embedded:
            from flows.service.check import prefect_client  # noqa: PLC0415

            with prefect_client():  # it answers, and lets us in
                pass
        given = {"model": model, "metric": metric, "mode": mode, "to": to}
        console, settings = open_console(), {key: value for key, value in given.items() if value is not None}
        if embedded and _nothing_to_do(overrides, settings, console):
            return
        ready = start_embedded_prefect() if embedded else None
        from flows.retrain import retrain as flow  # noqa: PLC0415
        from ratchet.registry.pages import model_page  # noqa: PLC0415
        from ratchet.report import print_outcome  # noqa: PLC0415

        if ready is not None:
            ready()  # it starts while Prefect is imported here
        state = flow(overrides=list(overrides), **settings, return_state=True)
        outcome = cast("Outcome", state.result())
        print_outcome(outcome, console)
        page = model_page(outcome.model)
        seen = f"see it in MLflow: {page}" if page else "see it in MLflow and Prefect: ratchet up"
        console.print(seen, highlight=False, soft_wrap=True)


@main.command()
@click.argument("experiment")
@click.option("--metric", required=True, help="Metric whose last value decides, as it is named in MLflow.")
@click.option(
    "--mode",
    type=click.Choice(["min", "max"]),
    help="Whether its smallest or its largest value is best. Default: min for a loss that Ratchet logs, else max.",
)
@click.option("--model", required=True, help="Registered model's name.")
@click.option("--description", help="Description of the new version.")
def register(
    experiment: str, metric: str, mode: Literal["min", "max"] | None, model: str, description: str | None
) -> None:
    """Register the model of the best finished run of EXPERIMENT."""
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415
        from ratchet.registry.tracking import answering, client, tracking_uri  # noqa: PLC0415
        from ratchet.training.metric_names import better, metric_names  # noqa: PLC0415

        best = better(metric) if metric in metric_names(()) else None  # else it only guesses
        if mode is not None and best not in (None, mode):
            raise ConfigError(f"--metric {metric} with --mode {mode} selects the worst run: give --mode {best}.")
        chosen: Literal["min", "max"] = "min" if "min" in (mode, best) else "max"
        made = MlflowModelManager().register_best_model(experiment, metric, model, description, mode=chosen)
        with answering(tracking_uri()):
            value = client().get_run(str(made.run_id)).data.metrics[metric]
        click.echo(f"v{made.version} of {model} is the model of run {made.run_id}: {metric}={value:g}")
        exported = [name for name in metric_names(()) if name.startswith(("val_", "test_")) and name != "val_loss_step"]
        if not any(f"{metric}_".startswith(f"{name}_") for name in exported):
            click.echo(
                f"{metric} is the last value that was logged: the exported weights may be another epoch's", err=True
            )
        click.echo(f"judge it: ratchet gate {shlex.quote(model)} {made.version}")


@main.command()
@click.argument("model")
@click.option(
    "--at",
    type=click.DateTime(_TIMES),
    help="Only who was champion then (UTC).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
def history(model: str, at: datetime | None, as_json: bool) -> None:
    """Print what happened to MODEL, oldest first."""
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415
        from ratchet.registry.rendering import headline, plain  # noqa: PLC0415

        manager = MlflowModelManager()
        if at is not None:
            champion = manager.champion_at(model, at.replace(tzinfo=UTC))
            click.echo(json.dumps({"champion": champion}) if as_json else f"v{champion}" if champion else "no champion")
            return
        for event in manager.history(model):
            if as_json:
                click.echo(json.dumps(asdict(event), default=str))
            else:
                void = "" if event.counts else f" (void: {event.void})"
                reason = f": {plain(event.reason)}" if event.reason else ""
                click.echo(f"{event.time:%Y-%m-%d %H:%M:%S} UTC  {headline(event)}, {plain(event.who)}{void}{reason}")


@main.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option(
    "--to",
    type=click.Choice(["staging", "production"]),
    default="production",
    show_default=True,
    help="Where it goes. The version that is there now becomes archived.",
)
@click.option("--reason", default="", help="Why; it goes into the history.")
@click.option("--replacing", type=int, help="Only while this version is in production; 0: only while none is.")
def promote(model: str, version: int, to: str, reason: str, replacing: int | None) -> None:
    """Move VERSION of MODEL to staging or production, without asking the gate."""
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415
        from ratchet.registry.manager import UNSET  # noqa: PLC0415

        expected = UNSET if replacing is None else replacing or None
        moved = MlflowModelManager().promote(model, version, to, reason=reason, expected_champion=expected)
        click.echo(f"v{moved.version} of {model} is in {moved.stage.value.lower()}")


@main.command()
@click.argument("model")
@click.option("--reason", default="", help="Why; it goes into the history.")
def rollback(model: str, reason: str) -> None:
    """Put the version back that was in production before, and quarantine the one that is there now."""
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415

        manager = MlflowModelManager()
        left = manager.champion(model)
        now = manager.rollback(model, reason)
        was = f"; v{left.version} is quarantined: ratchet release {model} {left.version}" if left else ""
        click.echo(f"v{now.version} of {model} is in production{was}")


@main.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--reason", default="", help="Why; it goes into the history.")
def release(model: str, version: int, reason: str) -> None:
    """Let VERSION of MODEL be promoted again after a rollback quarantined it."""
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415

        manager = MlflowModelManager()
        found = manager.version(model, version)
        held = found.quarantined or found.fingerprint in manager.quarantined_fingerprints(model)
        manager.release(model, version, reason)
        click.echo(f"v{version} of {model} {'may be promoted again' if held else 'is not in quarantine'}")


@main.command()
@click.argument("model")
@click.option("--keep", default=10, show_default=True, help="Archived, rejected and inconclusive versions to keep.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(model: str, keep: int, dry_run: bool) -> None:
    """Delete old archived, rejected and inconclusive versions of MODEL, and the heavy files of their sweeps' runs."""
    with errors_told():
        from ratchet import MlflowModelManager  # noqa: PLC0415

        plan = MlflowModelManager().prune(model, keep=keep, dry_run=dry_run)
        click.echo(f"{'would go' if dry_run else 'gone'}: {', '.join(f'v{v}' for v in plan.goes) or 'nothing'}")
        if plan.runs:
            click.echo(f"model and checkpoints {'would go' if dry_run else 'gone'} of the runs {', '.join(plan.runs)}")
        for version, why in plan.stays.items():
            click.echo(f"v{version} stays: {why}")


def _ended_by_signal(number: int, _: object) -> None:
    """Leave as at Ctrl-C: trials write a checkpoint, and their runs are closed. Python's own way is to drop everything."""
    sys.exit(128 + number)


def _nothing_to_do(overrides: tuple[str, ...], settings: dict[str, str], console: Console) -> bool:
    """See whether the flow would be skipped, before an embedded Prefect is started for nothing: that takes its time."""
    from ratchet.form import RetrainForm, overrides_of  # noqa: PLC0415
    from ratchet.outcome import skip  # noqa: PLC0415
    from ratchet.planning import plan_retraining  # noqa: PLC0415
    from ratchet.report import print_outcome  # noqa: PLC0415

    plan = plan_retraining(overrides_of(RetrainForm.model_validate({**settings, "overrides": overrides})))
    if plan.unchanged_since is None:
        return False
    print_outcome(skip(plan), console)
    return True
