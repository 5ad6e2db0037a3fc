"""Hydra's sweeper for `ratchet train … --multirun`: it only takes the overrides down, Ratchet's own engine runs them."""

from __future__ import annotations

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ratchet.errors import ConfigError
from ratchet.grammar import requested
from ratchet.space import Origin


class RatchetSweeper(Sweeper):
    """Hydra wants its plugins in this namespace. `hydra/sweeper: ratchet` in the tree chooses it."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what to compose from."""
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Hand the overrides over, with what the command line said about where the tree is."""
        assert self.hydra_context is not None
        assert self.config is not None
        entries = self.hydra_context.config_loader.get_search_path().get_path()
        added = [entry.path for entry in entries if entry.provider == "command-line"]  # --config-dir
        named = [str(path) for path in self.config.hydra.searchpath]
        main = next(entry.path for entry in entries if entry.provider == "main")  # --config-path
        if main.startswith("pkg://"):
            raise ConfigError(f"--config-path={main}: a sweep is composed from a folder. Give its path.")
        name = self.config.hydra.job.config_name
        origin = Origin(config_name=name, config_path=main.removeprefix("file://"), search_path=(*named, *added))
        requested.get().append((arguments, origin))
