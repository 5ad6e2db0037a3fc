"""The watch over a model's data as a Prefect task; what it saw is kept in a Prefect variable between its runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta

from prefect.variables import Variable

from ratchet.data.watching import DataLook
from ratchet.watching import look_at_data
from tasks.events import DataChanged, announce_for_certain
from tasks.step import step


@step("look at the data of {model}")
def watch_data(model: str, overrides: Sequence[str], settle_minutes: float) -> DataLook:
    """Look at the data, announce a change once it has settled, and remember what was seen."""
    variable = variable_name(model)
    kept = Variable.get(variable)
    before = None if kept is None else DataLook.model_validate(kept)
    found, folder = look_at_data(model, overrides, before, settle=timedelta(minutes=settle_minutes))
    if found.previous is not None:  # announced before it is remembered: a crash between the two only repeats its id
        announce_for_certain(DataChanged.of(model, found, str(folder)))
    Variable.set(variable, found.model_dump(mode="json"), overwrite=True)
    return found


def variable_name(model: str) -> str:
    """A name that Prefect takes for a variable, and that no other model has."""
    plain = re.sub(r"[^a-z0-9]+", "_", model.lower())
    mark = "" if plain == model else f"_{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return f"ratchet_data_{plain}{mark}"
