"""Random sequences of operations, hand-made changes and crashes, against a simple model of what should be true."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from registry_backends import open_manager

from ratchet.errors import (
    ChampionMovedError,
    NothingToRollBackError,
    ProtectedVersionError,
    QuarantinedError,
    RegistryError,
    VersionNotFoundError,
)
from ratchet.registry import EventKind, LedgerModelManager, Stage
from ratchet.registry.difference import difference_of
from ratchet.run_names import FINGERPRINT_TAG

pytestmark = pytest.mark.slow  # real stores, many operations

NAME = "a model"
OUTCOMES = (ChampionMovedError, NothingToRollBackError, ProtectedVersionError, QuarantinedError, VersionNotFoundError)
ACTIVE = {"staging": Stage.STAGING, "production": Stage.PRODUCTION}


def torchscript_file() -> bytes:
    """The smallest model that torch can load without Python code."""
    with tempfile.TemporaryDirectory() as folder:
        torch.jit.script(torch.nn.Identity()).save(str(Path(folder) / "model.pt"))
        return (Path(folder) / "model.pt").read_bytes()


class Expected:
    """What should be true, said as plainly as possible: no log, no events, no projection."""

    def __init__(self) -> None:
        self.stage: dict[int, Stage] = {}
        self.mark: dict[int, str] = {}
        self.champions: list[int] = []  # all that ever were and may be gone back to, the present one last
        self.empty = True  # nobody is in production
        self.bad: dict[int, str] = {}

    def holder(self, stage: Stage) -> int | None:
        return next((version for version, at in self.stage.items() if at is stage), None)

    @property
    def target(self) -> int | None:
        past = self.champions if self.empty else self.champions[:-1]
        fit = [v for v in past if v in self.stage and v not in self.bad and v != self.holder(Stage.PRODUCTION)]
        return fit[-1] if fit else None

    def take(self, version: int, stage: Stage) -> None:
        holder = self.holder(stage)
        if holder is not None:
            self.stage[holder] = Stage.ARCHIVED
        self.stage[version] = stage
        if stage is Stage.PRODUCTION:
            self.champions.append(version)
            self.empty = False

    def refusal(self, version: int, stage: Stage, expected: int | str | None) -> type[RegistryError] | None:
        champion = self.holder(Stage.PRODUCTION)
        if version not in self.stage:
            return VersionNotFoundError
        if expected not in ("any", champion):
            return ChampionMovedError
        if version == champion and stage is not Stage.PRODUCTION:
            return ProtectedVersionError
        if stage in ACTIVE.values() and (version in self.bad or self.mark[version] in self.bad.values()):
            return QuarantinedError
        return None

    def drop(self, version: int) -> None:
        self.empty = self.empty or version == self.holder(Stage.PRODUCTION)
        del self.stage[version]


class Registry(RuleBasedStateMachine):
    """Two managers and a person at the files, all at once."""

    versions: Bundle[int] = Bundle("versions")
    kind = "directory"
    model_file = b""

    def address(self) -> str:
        return str(Path(self.folder.name) / "registry")

    @initialize(target=versions)
    def begin(self) -> object:
        self.folder = tempfile.TemporaryDirectory()
        self.origin = Path.cwd()
        os.chdir(self.folder.name)  # where a database that is opened directly keeps its artifacts
        self.managers = [open_manager(self.kind, self.address(), who) for who in ("ada", "ben")]
        self.expected = Expected()
        self.events = 0
        return multiple(*(self._register(0, f"print{number}") for number in range(3)))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            os.chdir(self.origin)
            self.folder.cleanup()

    def _register(self, who: int, mark: str) -> int:
        export = Path(tempfile.mkdtemp(dir=self.folder.name))
        (export / "model.pt").write_bytes(self.model_file)
        made = self.managers[who].register_model(str(export), NAME, tags={FINGERPRINT_TAG: mark})
        self.expected.stage[made.version] = Stage.NONE
        self.expected.mark[made.version] = mark
        return made.version

    def _outcome(self, call: object) -> type[RegistryError] | None:
        try:
            call()  # type: ignore[operator]
        except OUTCOMES as error:
            return type(error)
        return None

    @rule(target=versions, who=st.integers(0, 1), mark=st.sampled_from(["print0", "print1", "print9"]))
    def register(self, who: int, mark: str) -> int:
        return self._register(who, mark)

    @rule(
        who=st.integers(0, 1),
        version=versions,
        to=st.sampled_from(sorted(ACTIVE)),
        expected=st.one_of(st.just("any"), st.none(), versions),
    )
    def promote(self, who: int, version: int, to: str, expected: int | str | None) -> None:
        manager, stage = self.managers[who], ACTIVE[to]
        champion = self.expected.holder(Stage.PRODUCTION)
        settled = version in self.expected.stage and (version == champion or self.expected.stage[version] is stage)
        due = None if settled else self.expected.refusal(version, stage, expected)
        if expected == "any":
            got = self._outcome(lambda: manager.promote(NAME, version, to))
        else:
            got = self._outcome(lambda: manager.promote(NAME, version, to, expected_champion=expected))
        assert got is due
        if due is None and not settled:
            self.expected.take(version, stage)

    @rule(who=st.integers(0, 1), version=versions, stage=st.sampled_from(Stage))
    def transition(self, who: int, version: int, stage: Stage) -> None:
        settled = self.expected.stage.get(version) is stage
        due = None if settled else self.expected.refusal(version, stage, "any")
        assert self._outcome(lambda: self.managers[who].transition_model(NAME, version, stage.value.upper())) is due
        if due is None and not settled:
            if stage in ACTIVE.values():
                self.expected.take(version, stage)
            else:
                self.expected.stage[version] = stage

    @rule(who=st.integers(0, 1))
    def rollback(self, who: int) -> None:
        left, target = self.expected.holder(Stage.PRODUCTION), self.expected.target
        due = NothingToRollBackError if left is None or target is None else None
        assert self._outcome(lambda: self.managers[who].rollback(NAME, "bad")) is due
        if left is not None and target is not None:
            self.expected.bad[left] = self.expected.mark[left]
            self.expected.stage[left] = Stage.ARCHIVED
            while self.expected.champions[-1] != target:
                self.expected.champions.pop()
            self.expected.stage[target] = Stage.PRODUCTION

    @rule(who=st.integers(0, 1), version=versions)
    def release(self, who: int, version: int) -> None:
        due = None if version in self.expected.stage else VersionNotFoundError
        assert self._outcome(lambda: self.managers[who].release(NAME, version)) is due
        if due is None:
            self.expected.bad.pop(version, None)

    @rule(who=st.integers(0, 1), version=versions, force=st.booleans())
    def delete(self, who: int, version: int, force: bool) -> None:
        due: type[RegistryError] | None = None
        if version not in self.expected.stage:
            due = VersionNotFoundError
        elif not force and version in {self.expected.holder(Stage.PRODUCTION), self.expected.target}:
            due = ProtectedVersionError
        assert self._outcome(lambda: self.managers[who].delete_model(NAME, version, force=force)) is due
        if due is None:
            self.expected.drop(version)

    @rule(who=st.integers(0, 1), version=versions)
    def die_between_log_and_projection(self, who: int, version: int) -> None:
        ledger = self.managers[who]._ledger
        ledger.settle(NAME)
        mark = self.expected.mark[version]
        _, written = ledger.append(NAME, ledger.event(EventKind.PROMOTED, version, fingerprint=mark))
        if written.counts:
            self.expected.take(version, Stage.PRODUCTION)

    @rule(version=versions, alias=st.sampled_from(sorted(ACTIVE)))
    def a_person_moves_an_alias(self, version: int, alias: str) -> None:
        self.managers[0].history(NAME)
        champion = self.expected.holder(Stage.PRODUCTION)
        if version not in self.expected.stage:
            return
        self.managers[0]._ledger.store.set_alias(NAME, alias, version)
        if version != champion and self.expected.stage[version] is not ACTIVE[alias]:
            self.expected.take(version, ACTIVE[alias])
            if alias == "production":
                self.expected.bad.pop(version, None)

    @rule(version=versions, stage=st.sampled_from(Stage))
    def a_person_sets_a_stage(self, version: int, stage: Stage) -> None:
        self.managers[0].history(NAME)
        champion = self.expected.holder(Stage.PRODUCTION)
        if version not in self.expected.stage:
            return
        self.managers[0]._ledger.store.set_stage(NAME, version, stage)
        if version != champion and self.expected.stage[version] is not stage:
            if stage in ACTIVE.values():
                self.expected.take(version, stage)
                if stage is Stage.PRODUCTION:
                    self.expected.bad.pop(version, None)
            else:
                self.expected.stage[version] = stage

    @rule(version=versions)
    def a_person_deletes_a_version(self, version: int) -> None:
        self.managers[0].history(NAME)
        if version in self.expected.stage:
            self.managers[0]._ledger.store.delete_version(NAME, version)
            self.expected.drop(version)

    @rule()
    def a_person_removes_the_alias_of_production(self) -> None:
        self.managers[0].history(NAME)
        self.managers[0]._ledger.store.drop_alias(NAME, "production")

    @rule()
    def a_new_process_takes_over(self) -> None:
        self.managers[1] = open_manager(self.kind, self.address(), "cyd")

    @invariant()
    def all_agree(self) -> None:
        if not hasattr(self, "expected"):
            return
        manager: LedgerModelManager = self.managers[1]
        seen = {version.version: version.stage for version in manager.versions(NAME)}
        assert seen == self.expected.stage
        champion, holder = manager.champion(NAME), self.expected.holder(Stage.PRODUCTION)
        assert (champion.version if champion else None) == holder
        assert {v.version for v in manager.versions(NAME) if v.quarantined} == set(self.expected.bad) & set(seen)
        target = manager.rollback_target(NAME)
        assert (target.version if target else None) == self.expected.target
        look = manager._ledger.look(NAME)
        assert look is not None
        assert difference_of(look) is None
        assert look.observed.aliases.get("production") == holder
        assert len(look.observed.description) < 5_000
        assert len(look.events) >= self.events
        assert [event.number for event in look.events] == list(range(1, len(look.events) + 1))
        self.events = len(look.events)


@pytest.fixture(scope="module", autouse=True)
def _given(empty_store: Path) -> None:
    Registry.model_file, SqliteRegistry.empty_store = torchscript_file(), empty_store


class SqliteRegistry(Registry):
    """The same on MLflow."""

    kind = "sqlite"
    empty_store = Path()

    def address(self) -> str:
        path = Path(self.folder.name) / "mlflow.db"
        if not path.exists():
            shutil.copy(self.empty_store, path)
        return f"sqlite:///{path}"


_quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
TestDirectory = Registry.TestCase
TestDirectory.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=_quiet, derandomize=True
)
TestSqlite = SqliteRegistry.TestCase
TestSqlite.settings = settings(
    max_examples=2, stateful_step_count=25, deadline=None, suppress_health_check=_quiet, derandomize=True
)
