"""How the best run is found among many: our selection, MLflow's plain order_by, and listing artifacts run by run.

Usage: python benchmarks/selection.py [--runs 100 1000 10000] [--slow-up-to 1000]

Each experiment holds traps: a diverged run (NaN), an infinite one, failed ones and one without a model have better
values than the right answer, which is not among the 1,000 newest runs. Runs are written into the SQLite file directly;
the server of the HTTP rows reads the same file.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from ratchet.registry.mlflow_files import MlflowFiles
from ratchet.registry.selection import MlflowSelection
from ratchet.registry.tracking import client

METRIC, PATH = "val/IoU", "deployment_model"


class Counting:
    """A client that counts what it is asked."""

    def __init__(self, inner: MlflowClient) -> None:
        """Around `inner`."""
        self.inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        """A method that counts."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return getattr(self.inner, name)(*arguments, **options)

        return call


def fill(database: Path, store: MlflowClient, experiment: str, runs: int, location: Path | None) -> str:
    """Write the runs, their artifacts below `location` or the server's; returns the id of the one that should win."""
    where = location.as_uri() if location is not None else None
    made = store.create_run(store.create_experiment(experiment, where))
    store.log_metric(made.info.run_id, METRIC, 0.5)
    for step in range(5):
        store.log_metric(made.info.run_id, f"loss_{step}", 1.0 / (step + 1))
        store.log_param(made.info.run_id, f"param_{step}", step)
    store.set_terminated(made.info.run_id)
    chance = random.Random(0)
    values = [chance.uniform(0.3, 0.8) for _ in range(runs - 6)]
    traps = [(math.nan, "FINISHED", True), (1.7976931348623157e308, "FINISHED", True), (0.99, "FAILED", True)]
    traps += [(0.98, "RUNNING", True), (0.97, "FINISHED", False)]
    rows = [(0.9, "FINISHED", True), *traps, *((value, "FINISHED", True) for value in values)]
    ids = [uuid.uuid4().hex for _ in rows]
    root = location or database.parent / "artifacts" / made.info.experiment_id
    with sqlite3.connect(database) as connection:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            found = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (made.info.run_id,))
            names = [column[0] for column in found.description]
            for old in [dict(zip(names, row, strict=True)) for row in found.fetchall()]:
                copies = [_copy(old, ids[n], *rows[n][:2], n) for n in range(len(rows))]
                connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", copies)
    for run, (_, _, whole) in zip(ids, rows, strict=True):
        folder = root / run / "artifacts"
        (folder / PATH if whole else folder).mkdir(parents=True)
        if whole:
            (folder / PATH / "MLmodel").write_text("flavors: {}\n")
    store.delete_run(made.info.run_id)
    return ids[0]


def _copy(old: dict[str, Any], run: str, value: float, status: str, number: int) -> list[Any]:
    new = {**old, "run_uuid": run}
    if "artifact_uri" in old:
        new |= {"artifact_uri": old["artifact_uri"].replace(old["run_uuid"], run), "status": status}
        new["start_time"] = old["start_time"] + number
    if old.get("key") == METRIC:
        new |= {"value": 0.0 if math.isnan(value) else value, "is_nan": math.isnan(value)}
    return list(new.values())


def ours(store: Any, address: str, experiment: str) -> str:
    """`best_run`."""
    selection = MlflowSelection(store, address, MlflowFiles(store, address))
    return next(selection.candidates(experiment, METRIC, "max", None, PATH)).run_id


def plain(store: Any, address: str, experiment: str) -> str:
    """MLflow's `order_by`, first row."""
    found = store.get_experiment_by_name(experiment).experiment_id
    return str(store.search_runs([found], order_by=[f"metrics.`{METRIC}` DESC"], max_results=1)[0].info.run_id)


def listing(store: Any, address: str, experiment: str) -> str:
    """The artifacts of the 1,000 best rows listed one by one, then the best that holds the model."""
    found = store.get_experiment_by_name(experiment).experiment_id
    runs = store.search_runs([found], order_by=[f"metrics.`{METRIC}` DESC"])
    holding = [run for run in runs if any(entry.path == PATH for entry in store.list_artifacts(run.info.run_id))]
    return str(holding[0].info.run_id)


def measure(way: Callable[[Any, str, str], str], address: str, experiment: str, right: str, repeats: int) -> list[str]:
    """Median seconds, requests and whether the answer is right."""
    taken, counting, answer = [], Counting(client(address)), ""
    for _ in range(repeats):
        counting.calls, begun = 0, time.perf_counter()
        answer = way(counting, address, experiment)
        taken.append(time.perf_counter() - begun)
    return [f"{sorted(taken)[len(taken) // 2]:.3f}", str(counting.calls), "yes" if answer == right else "no"]


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server on the same file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            break
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    return process, f"http://127.0.0.1:{port}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--slow-up-to", type=int, default=1_000, help="list run by run over HTTP up to so many runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process, address = serve(folder)
        try:
            store, right = client(address), {}
            for runs in options.runs:
                for kind, location in (("SQLite", folder / f"files {runs}"), ("HTTP", None)):
                    right[kind, runs] = fill(folder / "mlflow.db", store, f"{kind} {runs}", runs, location)
            print(f"{'runs':>6}  {'store':6}  {'way':28}  seconds  requests  right")
            for runs in options.runs:
                for kind, where in (("SQLite", f"sqlite:///{folder / 'mlflow.db'}"), ("HTTP", address)):
                    ways = {"ours": ours, "order_by": plain, "listing run by run": listing}
                    for label, way in ways.items():
                        if kind == "HTTP" and way is listing and runs > options.slow_up_to:
                            continue
                        row = measure(way, where, f"{kind} {runs}", right[kind, runs], 1 if way is listing else 5)
                        print(f"{runs:>6}  {kind:6}  {label:28}  {row[0]:>7}  {row[1]:>8}  {row[2]}", flush=True)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    main()
