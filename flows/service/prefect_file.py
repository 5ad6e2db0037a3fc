"""Writes what the model files come to as a prefect.yaml, so that Prefect's own command can deploy it too."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from flows.service.deployments import all_deployments
from flows.service.models import ModelFile

_HEAD = """\
# Written by `ratchet deploy --write` from models/*.yaml: change those, then write it again.
#
#   ratchet deploy                                                                 everything, automations included
#   prefect --no-prompt deploy --all --prefect-file deployments/prefect.yaml       the deployments and their triggers
#
# Prefect's own command does not make the work pool, the limit of its queue `long`, the limit that all retrainings of a model
# share (`shared`), or the automations that restart runs that died. Entrypoints are modules: they work from any folder where
# Ratchet is installed.
"""


def render(models: Sequence[ModelFile]) -> str:
    """The text of the file; the same models give the same text."""
    tree = {"name": "ratchet", "pull": [], "deployments": all_deployments(models)}
    return _HEAD + yaml.dump(tree, Dumper=_Plain, sort_keys=False, width=118, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Writes a list out each time instead of referring to the first."""

    def ignore_aliases(self, data: object) -> bool:
        """Never."""
        return True
