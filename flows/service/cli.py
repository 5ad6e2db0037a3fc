"""`ratchet up`, `ratchet deploy` and `ratchet doctor`: Ratchet as a service that runs by itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from flows.service.deployments import MODELS, RUNS
from flows.terminal import errors_told, open_console

_PORT = click.IntRange(1, 65535)
_models = click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=MODELS,
    show_default=True,
    help="Folder with one YAML file for each model.",
)


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on. Nothing here asks for a password."
)
@click.option("--mlflow-port", type=_PORT, default=5000, show_default=True, help="Port of MLflow's pages.")
@click.option("--prefect-port", type=_PORT, default=4200, show_default=True, help="Port of Prefect's pages.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept. Default: RATCHET_HOME, or .ratchet here.",
)
@click.option(
    "--data-root",
    "data_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that data may be read from; several times for several. Default: RATCHET_DATA_ROOTS, or any.",
)
@_models
@click.option(
    "--postgres",
    metavar="URL",
    envvar="RATCHET_POSTGRES",
    help="Keep both databases on this PostgreSQL server; `embedded` for one of our own. Default: RATCHET_POSTGRES, or SQLite.",
)
@click.option(
    "--runs", type=click.IntRange(1), default=RUNS, show_default=True, help="Trainings and other long runs at a time."
)
@click.option(
    "--upgrade", is_flag=True, help="Bring MLflow's database to the MLflow that is installed; copy it before."
)
@click.option("--verbose", "-v", is_flag=True, help="Show every line of every service.")
def up(
    host: str,
    mlflow_port: int,
    prefect_port: int,
    home: Path | None,
    data_roots: tuple[Path, ...],
    models: Path,
    postgres: str | None,
    runs: int,
    upgrade: bool,
    verbose: bool,
) -> None:
    """Bring everything up: MLflow, Prefect, a worker, and the deployments of all models. Ctrl-C ends it all."""
    with errors_told():
        if home is not None:
            os.environ["RATCHET_HOME"] = str(home.absolute())
        if data_roots:
            os.environ["RATCHET_DATA_ROOTS"] = os.pathsep.join(str(root.absolute()) for root in data_roots)
        from flows.service.journal import Journal  # noqa: PLC0415
        from flows.service.running import use_own_prefect  # noqa: PLC0415

        use_own_prefect()
        from flows.service import up as service  # noqa: PLC0415

        options = service.Options(host, mlflow_port, prefect_port, _there(models), postgres, runs, upgrade)
        service.up(options, Journal(open_console(), verbose=verbose))


@click.command()
@_models
@click.option("--prune", is_flag=True, help="Remove the deployments of models that have no file any more.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--write", is_flag=True, help="Only write prefect.yaml beside the folder, for Prefect's own command.")
def deploy(models: Path, prune: bool, dry_run: bool, write: bool) -> None:
    """Make the deployments of all models on Prefect's server, with limits and automations. Twice is as once."""
    with errors_told():
        if write:
            from flows.service.models import load_models  # noqa: PLC0415
            from flows.service.prefect_file import render  # noqa: PLC0415

            path = models.parent / "prefect.yaml"
            path.write_text(render(load_models(models)), encoding="utf-8")
            click.echo(f"{path} is written")
            return
        from flows.service import deploying  # noqa: PLC0415
        from flows.service.check import check_models, prefect_client  # noqa: PLC0415
        from flows.service.tables import print_changes  # noqa: PLC0415

        declared = deploying.load_declaration(models)
        check_models(declared.models)
        with prefect_client() as client:
            changes = deploying.deploy(declared, client, prune=prune, dry_run=dry_run)
        print_changes(changes, open_console(), dry_run=dry_run)


@click.command()
@_models
def doctor(models: Path) -> None:
    """Check an installation, and say what to do about each finding. Exits 1 if something must be done."""
    with errors_told():
        from flows.service.doctor import examine  # noqa: PLC0415
        from flows.service.tables import findings_table  # noqa: PLC0415

        findings = examine(_there(models))
        open_console().print(findings_table(findings))
        if any(finding.bad for finding in findings):
            sys.exit(1)


def _there(folder: Path) -> Path | None:
    """The folder; None where the default one is absent, so that `ratchet up` works anywhere."""
    return None if str(folder) == MODELS and not folder.is_dir() else folder
