"""What somebody who misspelt a name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that looks most like this one, if any does."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.4)), None)


def nearest(word: str, known: Sequence[str]) -> str:
    """The same as a message's end: `; did you mean 'floor'?`; empty if none does."""
    close = closest(word, known)
    return f"; did you mean {close!r}?" if close else ""


def keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that a model knows at this place."""
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        model = next(kind for kind in (annotation, *get_args(annotation)) if _is_model(kind))
    return list(model.model_fields)


def takes_any(model: type[BaseModel], loc: Sequence[str]) -> bool:
    """Whether this place lies in a table that takes any key; the keys of a model are its own."""
    for part in loc:
        if part not in model.model_fields:
            return False
        annotation = model.model_fields[part].annotation
        inner = next((kind for kind in (annotation, *get_args(annotation)) if _is_model(kind)), None)
        if inner is None:
            return True
        model = inner
    return False


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
