"""Many processes at one model, some of them killed: nothing is lost, nobody sees two champions or none."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from registry_backends import Backend, kinds

from ratchet.errors import (
    ChampionMovedError,
    NothingToRollBackError,
    QuarantinedError,
    RegistryError,
    VersionNotFoundError,
)
from ratchet.registry import EventKind, LedgerModelManager, Stage
from ratchet.registry.difference import difference_of
from ratchet.training.process import start_server

pytestmark = pytest.mark.slow  # real stores, many operations

pytest_plugins = ["registry_backends"]

PROCESSES, OPERATIONS, VERSIONS = 8, 12, 6
LOST = (ChampionMovedError, NothingToRollBackError, QuarantinedError)


def one_operation(manager: LedgerModelManager, name: str, chance: random.Random) -> str:
    """A promotion as a flow does it, on the champion that was judged against; or, now and then, a rollback."""
    if chance.random() < 0.2:
        manager.rollback(name, "stress")
        return EventKind.ROLLED_BACK.value
    versions = manager.versions(name)
    champion = next((v for v in versions if v.stage is Stage.PRODUCTION), None)
    version = chance.choice([v for v in versions if v is not champion])
    if version.quarantined:
        manager.release(name, version.version)
    time.sleep(chance.random() * 0.05)  # the gate takes its time
    token = str(chance.random())
    manager.promote(name, version.version, expected_champion=champion.version if champion else None, reason=token)
    if any(event.reason == token and event.counts for event in manager._ledger.read(name)[1]):
        return EventKind.PROMOTED.value
    return "already so"  # another process had just promoted the same version


def work(backend: Backend, name: str, who: str, operations: int, report: str, environment: dict[str, str]) -> None:
    """One process. Its report is one JSON line for each operation: what it did, or what it was told."""
    os.environ.clear()  # the fork server's is that of its first user
    os.environ.update(environment)
    os.chdir(Path(report).parent)
    manager, chance = backend.open(who), random.Random(who)
    with Path(report).open("w", buffering=1) as lines:
        for _ in range(operations):
            try:
                line = {"done": one_operation(manager, name, chance)}
            except LOST as error:
                line = {"lost": type(error).__name__, "why": str(error)}
            lines.write(json.dumps(line) + "\n")


def start(backend: Backend, name: str, who: str, folder: Path, operations: int = OPERATIONS) -> BaseProcess:
    """Have the server that forks trials do it: each process on its own would import MLflow and torch for seconds."""
    start_server()
    arguments = (backend, name, who, operations, str(folder / f"{who}.jsonl"), dict(os.environ))
    process = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    process.start()
    return process


def lines_of(folder: Path, who: str) -> list[dict[str, str]]:
    path = folder / f"{who}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Poll(threading.Thread):
    """A reader that asks for the alias over and over, with nothing but the back end's own call."""

    def __init__(self, backend: Backend, name: str) -> None:
        super().__init__(daemon=True)
        self.store, self.name_of_model = backend.open()._ledger.store, name
        self.seen: Counter[object] = Counter()
        self.stop = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.stop.wait(0.02):
                observed = self.store.observe(self.name_of_model)
                self.seen[observed.aliases.get("production") if observed else None] += 1
        except Exception as error:  # noqa: BLE001 - the test asks for it
            self.error = error


def assert_agreement(manager: LedgerModelManager, name: str) -> None:
    """Log, aliases, stages and description say the same, as the back end shows them now."""
    look = manager._ledger.look(name)
    assert look is not None
    assert difference_of(look) is None
    holders = [version for version, seen in look.observed.versions.items() if seen.stage is Stage.PRODUCTION]
    assert holders == [look.state.champion] == [look.observed.aliases["production"]]
    assert [event.number for event in look.events] == list(range(1, len(look.events) + 1))


def assert_history_is_sound(manager: LedgerModelManager, name: str) -> None:
    """Every promotion that counts replaced the champion that it was judged against; every other is void."""
    champion: int | None = None
    for event in manager.history(name):
        if event.kind is EventKind.PROMOTED:
            right = not event.expects or event.expected == champion
            assert right or not event.counts
            champion = event.version if event.counts else champion
        if event.kind is EventKind.ROLLED_BACK and event.counts:
            assert event.version == champion
            champion = event.target
    now = manager.champion(name)
    assert now is not None
    assert now.version == champion


@pytest.fixture
def six_versions(make_model: Callable[[], Path], name: str) -> Callable[[Backend], str]:
    def make(backend: Backend) -> str:
        manager = backend.open("maker")
        for _ in range(VERSIONS):
            manager.register_model(str(make_model()), name)
        manager.promote(name, 1)
        return name

    return make


@pytest.mark.parametrize("backend", kinds("http_postgres"), indirect=True)
def test_eight_processes_lose_nothing_and_one_that_is_killed_does_not_stop_the_rest(
    backend: Backend, six_versions: Callable[[Backend], str], tmp_path: Path
) -> None:
    name = six_versions(backend)
    poll, names = Poll(backend, name), [f"worker{number}" for number in range(PROCESSES)]
    workers = {who: start(backend, name, who, tmp_path) for who in names}
    poll.start()
    victim = names[-1]
    while workers[victim].is_alive() and len(lines_of(tmp_path, victim)) < OPERATIONS // 2:
        time.sleep(0.02)
    os.kill(workers[victim].pid or 0, signal.SIGKILL)
    for who in names:
        workers[who].join(600)
    poll.stop.set()
    poll.join(30)
    assert poll.error is None
    assert [workers[who].exitcode for who in names] == [0] * (PROCESSES - 1) + [-signal.SIGKILL]
    assert poll.seen[None] == 0
    assert len(poll.seen) > 1
    manager = backend.open()
    manager.promote(name, next(v.version for v in manager.versions(name) if not v.quarantined))  # mends what is left
    assert_agreement(manager, name)
    assert_history_is_sound(manager, name)
    for who in names[:-1]:
        told = lines_of(tmp_path, who)
        assert len(told) == OPERATIONS
        counted = Counter(event.kind.value for event in manager.history(name) if event.who == who and event.counts)
        done = Counter(line["done"] for line in told if "done" in line)
        for kind in (EventKind.PROMOTED.value, EventKind.ROLLED_BACK.value):
            assert done[kind] == counted[kind]
        assert all(re.search(r"\bv\d", line["why"]) for line in told if "lost" in line)


@pytest.mark.parametrize("backend", kinds("directory"), indirect=True)
def test_whenever_a_process_is_killed_the_next_operation_finds_or_makes_agreement(
    backend: Backend, six_versions: Callable[[Backend], str], tmp_path: Path
) -> None:
    name, chance = six_versions(backend), random.Random(7)
    for round_ in range(10):
        who = f"victim{round_}"
        worker = start(backend, name, who, tmp_path, operations=10_000)
        while worker.is_alive() and not lines_of(tmp_path, who):
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join(30)
        assert worker.exitcode == -signal.SIGKILL
        manager = backend.open()
        manager.champion(name)
        assert_agreement(manager, name)
        assert_history_is_sound(manager, name)


@pytest.mark.parametrize("backend", kinds("postgres"), indirect=True)
def test_five_hundred_events_are_all_there_and_the_description_still_fits(
    backend: Backend, six_versions: Callable[[Backend], str]
) -> None:
    name, manager = six_versions(backend), backend.open()
    ledger = manager._ledger
    for number in range(len(ledger.read(name)[1]), 499):
        event = ledger.event(EventKind.PROMOTED, number % VERSIONS + 1, reason=f"reason {number} " + "word " * 100)
        ledger.store.append(name, event)
    manager.promote(name, next(v.version for v in manager.versions(name) if v.stage is Stage.ARCHIVED), reason="last")
    fresh = backend.open()
    history = fresh.history(name)
    assert len(history) == 500
    assert sum(event.counts for event in history) > 400
    assert all(f"reason {number} " in history[number].reason for number in range(VERSIONS + 1, 499))
    look = fresh._ledger.look(name)
    assert look is not None
    assert len(look.observed.description) < 5_000
    assert "last" in look.observed.description
    assert "earlier events" in look.observed.description
    assert_agreement(fresh, name)


@pytest.mark.parametrize("backend", kinds("directory", "sqlite", "http_postgres"), indirect=True)
def test_one_source_registered_by_many_at_once_is_one_version(
    backend: Backend, make_model: Callable[[], Path], name: str, tmp_path: Path
) -> None:
    model = make_model()
    got: list[object] = []

    def register() -> None:
        try:
            got.append(backend.open().register_model(str(model), name).version)
        except (RegistryError, VersionNotFoundError) as error:
            got.append(error)

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager = backend.open()
    assert [version.version for version in manager.versions(name)] == got[:1]
    assert got == got[:1] * 4
