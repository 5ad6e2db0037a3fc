"""How a model directory becomes a version: once for the same source, its files kept and hashed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import ModelFilesError, ModelNotFoundError, NotAllowedError, RegistryError, ServerUnreachableError
from ratchet.registry.difference import Look
from ratchet.registry.files import digests_of
from ratchet.registry.ledger import Ledger
from ratchet.registry.store import Found, Kept, Source, Store
from ratchet.registry.values import AUTHOR_TAG, FILES_TAG, IDENTITY_TAG, SOURCE_TAG
from ratchet.run_names import FINGERPRINT_TAG, SELECTED_TAG

_LONGEST_TAG = 100_000  # characters; MLflow's column


@dataclass(frozen=True)
class _Wish:
    """What the caller wants the version to say."""

    description: str | None
    tags: Mapping[str, str]


def register(ledger: Ledger, model: str, location: str, description: str | None, tags: Mapping[str, str]) -> int:
    """The number of the version that `location` is registered as, now or before."""
    reserved = sorted(set(tags) & {AUTHOR_TAG, FILES_TAG, IDENTITY_TAG, SOURCE_TAG})
    if reserved:
        raise RegistryError(f"the tags {', '.join(reserved)} are Ratchet's own: leave them out")
    store, source = ledger.store, ledger.store.resolve(location)
    wish = _Wish(description, {key: str(value) for key, value in tags.items()})
    known = _already(ledger, model, source)
    if known is not None:
        _update(store, model, ledger.settle(model).observed.versions[known], wish)
        return known
    return _create(ledger, model, source, store.keep(model, source), wish)


def _already(ledger: Ledger, model: str, source: Source) -> int | None:
    """The lowest version that was made from the same source and is still there."""
    try:
        versions = ledger.settle(model).observed.versions
    except ModelNotFoundError:
        return None
    same = [number for number, seen in versions.items() if seen.tags.get(IDENTITY_TAG) == source.identity]
    return min(same, default=None)


def _create(ledger: Ledger, model: str, source: Source, kept: Kept, wish: _Wish) -> int:
    """Make a version of the copy, or discard it, since nobody would find it."""
    try:
        number = _create_version(ledger.store, model, source, kept, wish, ledger.who)
    except ServerUnreachableError:
        raise  # it may be there
    except Exception:
        with suppress(Exception):  # not to hide the error
            ledger.store.discard(kept.location)
        raise
    return _first_of_its_source(ledger, model, source, number, wish)


def _create_version(store: Store, model: str, source: Source, kept: Kept, wish: _Wish, who: str) -> int:
    own = {
        AUTHOR_TAG: who,
        FILES_TAG: _manifest(kept.digests, source.location),
        IDENTITY_TAG: source.identity,
        SOURCE_TAG: source.location,
    }
    if source.fingerprint is not None:
        own[FINGERPRINT_TAG] = source.fingerprint
    return store.create_version(model, kept, source, description=wish.description or "", tags={**own, **wish.tags})


def _first_of_its_source(ledger: Ledger, model: str, source: Source, number: int, wish: _Wish) -> int:
    """The number that stays, and is in the history: the new one, unless another process was faster."""
    observed = ledger.store.observe(model)
    if observed is None:
        raise ModelNotFoundError(f"{model!r} was deleted while {source.location} was being registered")
    same = [v for v, seen in observed.versions.items() if seen.tags.get(IDENTITY_TAG) == source.identity]
    if min(same, default=number) < number:
        # Another process registered the same source at the same time, and came first: whoever can see both agrees on
        # which is the lower number, so exactly one of them stays.
        _update(ledger.store, model, observed.versions[min(same)], wish)
        seen = observed.versions.get(number)
        alone = seen is not None and not ledger.store.is_shared(model, seen)  # else one request was sent twice
        ledger.store.delete_version(model, number)  # first: no event would lead back to it
        if seen is not None and alone:
            with suppress(NotAllowedError):  # a copy that nobody has may stay
                ledger.store.discard(seen.location)
        return min(same)
    if number in observed.versions:
        ledger.append(model, ledger.registered(model, observed.versions[number]))
    ledger.settle(model)  # not only projected: the upload took its time, and somebody may have moved an alias meanwhile
    return number


def _manifest(digests: Mapping[str, str], location: str) -> str:
    text = json.dumps(dict(digests), sort_keys=True)
    if len(text) > _LONGEST_TAG:
        raise ModelFilesError(f"{location} holds {len(digests)} files, more than a version can list: pack them")
    return text


def _update(store: Store, model: str, seen: Found, wish: _Wish) -> None:
    """Bring description and tags of a version up to what was given now.

    What is there was not chosen anew, so it keeps what its trial was selected by, unless that was the test images.
    """
    new_tags = {key: value for key, value in wish.tags.items() if seen.tags.get(key) != value}
    selected = seen.tags.get(SELECTED_TAG)
    if selected is not None and not selected.startswith("test_"):
        new_tags.pop(SELECTED_TAG, None)
    new_text = wish.description if wish.description not in {None, seen.description} else None
    if new_tags or new_text is not None:
        store.update_version(model, seen.version, description=new_text, tags=new_tags)


def with_digests(store: Store, model: str, look: Look, version: int, files: Path | None = None) -> None:
    """Make sure that hashes of a version's files are recorded.

    A version that was registered by other means has none: its files are hashed the first time that Ratchet touches
    them, and from then on they must not change.
    """
    seen = look.observed.versions[version]
    if FILES_TAG not in seen.tags:
        with tempfile.TemporaryDirectory(prefix="ratchet-") as folder:
            if files is None:
                files = Path(folder) / "model"
                store.fetch(seen.location, files)
            manifest = _manifest(digests_of(files), seen.location)
        store.update_version(model, version, description=None, tags={FILES_TAG: manifest})
