"""What a sweep costs that is repeated after it was done, and one that was killed with -9 at a random moment.

The sweep is that of sweep.py, with `core.deterministic=true`: four networks, 108 pets to train on, five epochs.

Reuse: the same `ratchet train … --multirun` again, timed from its start to its end. Resume: the sweep's process is killed
at a moment drawn evenly from the undisturbed sweep's time, imports and export included, and the same command is given
again; both parts together are compared with the undisturbed sweep, and so are the final metrics of every trial, which
must be equal. After every five kills comes an undisturbed sweep again, and each kill is compared with the two around it. A
sweep that was over before its moment came is none. No trial may outlive its sweep. A restart costs the imports again, whatever
the sweep's length: the end therefore also tells the seconds lost, and the length from which they are 10 %.

    RATCHET_OXFORD_PET=... python benchmarks/resume.py [--kills 20] [--epochs 5] [--repeats 3] [OVERRIDES...]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from sweep_trials import networks, write_lists

COST = {"duration", "peak_memory"}
SECONDS_TO_DIE = 15.0
_BETWEEN = 5  # kills: then comes an undisturbed sweep again, since what else the machine does changes with time


def command(overrides: list[str]) -> list[str]:
    """The sweep, as a user types it."""
    return [str(Path(sys.executable).parent / "ratchet"), "train", *overrides, "--multirun"]


def run(home: Path, overrides: list[str], *, kill_after: float | None = None) -> tuple[float, str, bool]:
    """Seconds that the sweep took, or that it had until it was killed, what it said, and whether it was killed."""
    environment = {**os.environ, "RATCHET_HOME": str(home)}
    for name in ("MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"):  # the latter compiles this tree at every start
        environment.pop(name, None)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        sweep = subprocess.Popen(command(overrides), env=environment, stdout=said, stderr=said)
        try:
            sweep.wait(kill_after)
        except subprocess.TimeoutExpired:
            left = psutil.Process(sweep.pid).children(recursive=True)
            sweep.send_signal(signal.SIGKILL)
            sweep.wait()
            seconds = time.monotonic() - started
            _, alive = psutil.wait_procs(left, SECONDS_TO_DIE)
            assert not alive, f"{alive} outlived the sweep"
        else:
            seconds = time.monotonic() - started
        said.seek(0)
        text = said.read()
    killed = sweep.returncode == -signal.SIGKILL
    assert sweep.returncode == 0 or (killed and kill_after is not None), f"{sweep.returncode}: {text}"
    return seconds, text, killed


def metrics(home: Path) -> dict[str, dict[str, float]]:
    """The final metrics of every trial, by its name; every run must have finished, and be the only one of its name."""
    os.environ["RATCHET_HOME"] = str(home)
    from ratchet.registry.tracking import client
    from ratchet.run_names import SWEEP_RUN_TAG

    store = client()
    found = store.search_runs([experiment.experiment_id for experiment in store.search_experiments()])
    assert {made.info.status for made in found} == {"FINISHED"}, [made.info.status for made in found]
    trials = [made for made in found if SWEEP_RUN_TAG not in made.data.tags]
    by_name = {made.info.run_name: {k: v for k, v in made.data.metrics.items() if k not in COST} for made in trials}
    assert len(by_name) == len(trials)
    return by_name


def main() -> None:
    """Run it, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="of the sweep that is there already")
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        write_lists(Path(folder))
        sweep = networks(Path(folder), arguments.epochs, seed=42)
        overrides = [*sweep, "core.deterministic=true", *arguments.overrides]
        home, moments = Path(folder) / "undisturbed", random.Random(arguments.seed)
        undisturbed = [measure_undisturbed(home, overrides)]
        wanted = metrics(home)
        for _ in range(arguments.repeats):
            again, text, _ = run(home, overrides)
            assert metrics(home) == wanted
            assert text.count(": reused") == len(wanted), text
            print(f"again       {again:6.1f} s, all of it reused", flush=True)
        ratios, lost, block, number = list[float](), list[float](), list[float](), 0
        while len(ratios) + len(block) < arguments.kills:
            number += 1
            moment = moments.uniform(0, undisturbed[-1])
            total = kill_once(Path(folder) / f"killed-{number}", overrides, moment, wanted)
            block += [] if total is None else [total]
            if block and (len(block) == _BETWEEN or len(ratios) + len(block) == arguments.kills):
                undisturbed.append(measure_undisturbed(Path(folder) / f"undisturbed-{number}", overrides))
                usual = statistics.mean(undisturbed[-2:])
                ratios += [total / usual for total in block]
                lost += [total - usual for total in block]
                block = []
    if ratios:
        told = f"median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}"
        print(f"\n{len(ratios)} kills: total {told} of the undisturbed (target 1.10)")
        cost = statistics.median(lost)
        print(f"lost {cost:.1f} s a kill: 10 % of a sweep of {10 * cost:.0f} s")
        print("final metrics equal in all of them; no trial outlived its sweep")


def measure_undisturbed(home: Path, overrides: list[str]) -> float:
    """The seconds of a sweep that nobody disturbs."""
    seconds, _, _ = run(home, overrides)
    print(f"undisturbed {seconds:6.1f} s", flush=True)
    return seconds


def kill_once(home: Path, overrides: list[str], moment: float, wanted: dict[str, dict[str, float]]) -> float | None:
    """The seconds of a sweep that is killed at a moment and given again; None where it was over before."""
    first, _, killed = run(home, overrides, kill_after=moment)
    if not killed:
        shutil.rmtree(home)
        return None
    second, text, _ = run(home, overrides)
    assert metrics(home) == wanted, "the metrics differ"
    resumed = [line.split(": ", 1)[1].strip() for line in text.splitlines() if "resumed at" in line]
    told = "; ".join(dict.fromkeys(resumed)) or "nothing to resume"
    print(f"killed at {first:6.1f} s, then {second:6.1f} s, together {first + second:6.1f} s: {told}", flush=True)
    shutil.rmtree(home)
    return first + second


if __name__ == "__main__":
    main()
