"""Cases in which something happens: to the registry after the verdict, to the record, to files, models and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from conformance_cases import better, given, model
from PIL import Image

from ratchet.errors import (
    ChampionMovedError,
    MaskValueError,
    ModelFilesError,
    NothingToRollBackError,
    QuarantinedError,
    RatchetError,
    UnreadableImageError,
    VerdictChangedError,
)
from ratchet.gate import Verdict, judge, replay, write_counts, write_record
from ratchet.registry import DirectoryModelManager


@dataclass(frozen=True)
class Story:
    """What is played in a folder of its own; it ends in an outcome and a reason, or in an error with one.

    `one_number` says whether a rule that sees one number for each model would be asked, and would see a clear gain.
    """

    name: str
    play: Callable[[Path], tuple[str, str]]
    expected: str | type[RatchetError]
    reason: str
    one_number: bool


STORIES: list[Story] = []
Play = Callable[[Path], tuple[str, str]]


def story(expected: str | type[RatchetError], reason: str, *, one_number: bool = True) -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        STORIES.append(Story(play.__name__.replace("_", " "), play, expected, reason, one_number))
        return play

    return add


# --- the registry after the verdict ----------------------------------------------------------------------------------


def registry(folder: Path, versions: int) -> DirectoryModelManager:
    """Versions of the model `pets`; v1 is in production."""
    manager, network = DirectoryModelManager(folder / "registry"), _torchscript()
    for number in range(1, versions + 1):
        export = folder / f"export {number}"
        export.mkdir(parents=True)
        (export / "MLmodel").write_text(f"flavors: {number}")
        (export / "model.pt").write_bytes(network)
        manager.register_model(str(export), "pets")
    manager.promote("pets", 1, expected_champion=None)
    return manager


@cache
def _torchscript() -> bytes:
    import io
    import warnings

    import torch
    from exported_models import Brightness

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(Brightness(0.5)), buffer)
    return buffer.getvalue()


def judged(manager: DirectoryModelManager, version: int) -> Verdict:
    """A verdict for `version`, clearly better, in the history."""
    arguments = better()
    refs = {"challenger": {"version": version, "digest": f"b{version}"}}
    arguments["context"] = arguments["context"].model_validate(arguments["context"].model_dump() | refs)
    verdict = judge(**arguments)
    manager.record("pets", "gated", version=version, outcome=verdict.outcome, verdict_digest=verdict.digest)
    return verdict


def promoted(manager: DirectoryModelManager, verdict: Verdict) -> None:
    expected = verdict.champion.version if verdict.champion else None
    manager.promote("pets", verdict.challenger.version, expected_champion=expected, verdict_digest=verdict.digest)


@story(ChampionMovedError, "v2")
def a_concurrent_promotion_between_verdict_and_promotion(folder: Path) -> tuple[str, str]:
    manager = registry(folder, 3)
    second, third = judged(manager, 2), judged(manager, 3)
    promoted(manager, second)
    promoted(manager, third)
    return third.outcome, third.sentence


@story("promote", "1 gated, 1 promoted")
def a_crash_between_verdict_and_promotion(folder: Path) -> tuple[str, str]:
    before = judged(registry(folder, 2), 2)
    again = DirectoryModelManager(folder / "registry")  # as the process that is started anew opens it
    verdict = judged(again, 2)
    assert verdict == before
    for _ in range(2):
        promoted(again, verdict)
    kinds = [str(event.kind) for event in again.history("pets") if event.version == 2]
    return verdict.outcome, f"{kinds.count('gated')} gated, {kinds.count('promoted')} promoted"


@story("v1 in production", "v2 and v3 in quarantine", one_number=False)
def a_double_rollback(folder: Path) -> tuple[str, str]:
    manager = registry(folder, 3)
    for version in (2, 3):
        manager.promote("pets", version)
    manager.rollback("pets")
    champion = manager.rollback("pets")
    left = [f"v{version.version}" for version in manager.versions("pets") if version.quarantined]
    return f"v{champion.version} in production", f"{' and '.join(left)} in quarantine"


@story(NothingToRollBackError, "v1", one_number=False)
def a_rollback_with_nowhere_to_go(folder: Path) -> tuple[str, str]:
    manager = registry(folder, 1)
    manager.rollback("pets")
    return "rolled back", ""


@story(QuarantinedError, "was rolled back")
def a_version_that_was_rolled_back_and_is_judged_better_again(folder: Path) -> tuple[str, str]:
    manager = registry(folder, 2)
    promoted(manager, judged(manager, 2))
    manager.rollback("pets")
    verdict = judged(manager, 2)
    promoted(manager, verdict)
    return verdict.outcome, verdict.sentence


# --- the record ------------------------------------------------------------------------------------------------------


def recorded(folder: Path) -> Path:
    """The record of a challenger that is clearly worse."""
    arguments = given(model(0.60, 1), model(0.70, 2))
    counts = {role: arguments[role] for role in ("challenger", "champion")}
    write_record(folder, judge(**arguments), counts)
    return folder / "verdict.json"


@story(VerdictChangedError, "challenger.parquet")
def a_tampered_artifact(folder: Path) -> tuple[str, str]:
    path = recorded(folder)
    write_counts(model(0.80, 1), folder / "challenger.parquet")
    return replay(path).outcome, ""


@story(VerdictChangedError, "outcome is written as")
def a_tampered_verdict(folder: Path) -> tuple[str, str]:
    path = recorded(folder)
    path.write_text(path.read_text().replace('"outcome":"reject"', '"outcome":"promote"'))
    return replay(path).outcome, ""


@story(VerdictChangedError, "verdict.json is not what the verdict was made from")
def a_record_that_was_exchanged_whole(folder: Path) -> tuple[str, str]:
    digest = replay(recorded(folder / "judged")).digest
    arguments = better()
    counts = {role: arguments[role] for role in ("challenger", "champion")}
    write_record(folder / "other", judge(**arguments), counts)
    return replay(folder / "other" / "verdict.json", digest=digest).outcome, ""


# --- models and images -----------------------------------------------------------------------------------------------

IMAGES = 60


def shop(folder: Path) -> Path:
    from exported_models import discs

    discs(folder / "data", range(IMAGES))
    (folder / "data" / "test.txt").write_text("\n".join(f"disc{number:03}" for number in range(4, IMAGES)))
    (folder / "data" / "train.txt").write_text("disc000\ndisc001")
    (folder / "data" / "val.txt").write_text("disc002\ndisc003")
    return folder / "data"


def scored(folder: Path, data: Path, *, size: int = 32) -> Verdict:
    """Score a good challenger, whose input has this size, and a worse champion, and judge."""
    from exported_models import BEST, SIZE, Brightness, data_module, export

    from ratchet.evaluation.scoring import score_models
    from ratchet.evaluation.served import ServedModel

    thresholds = {"challenger": BEST, "champion": BEST + 0.08}
    models = {}
    for role, threshold in thresholds.items():
        card = export(folder / role, Brightness(threshold)) / "model.json"
        if role == "challenger":
            card.write_text(card.read_text().replace(str(SIZE), str(size)))
        models[role] = ServedModel(folder / role)
    module = data_module(data)
    counts = score_models(models, module.samples[module.gate_split], module.mask_values)
    return judge(**given(counts["challenger"], counts["champion"], {"floor": 0.3, "min_images": 20}))


@story("promote", "at least")
def a_champion_of_another_input_size(folder: Path) -> tuple[str, str]:
    verdict = scored(folder, shop(folder), size=48)
    return verdict.outcome, verdict.sentence


@story("promote", "at least")
def grayscale_images(folder: Path) -> tuple[str, str]:
    data = shop(folder)
    for path in (data / "images").iterdir():
        with Image.open(path) as image:
            gray = image.convert("L")
        gray.save(path)
    verdict = scored(folder, data)
    return verdict.outcome, verdict.sentence


@story(UnreadableImageError, "disc009", one_number=False)
def a_gate_image_that_is_cut_off(folder: Path) -> tuple[str, str]:
    path = shop(folder) / "images" / "disc009.png"
    path.write_bytes(path.read_bytes()[:-200])
    return scored(folder, folder / "data").outcome, ""


@story(MaskValueError, "disc009", one_number=False)
def a_mask_with_a_value_that_is_no_class(folder: Path) -> tuple[str, str]:
    path = shop(folder) / "masks" / "disc009.png"
    with Image.open(path) as image:
        values = np.array(image)
    Image.fromarray(np.where(values, 7, 0).astype(np.uint8)).save(path)
    return scored(folder, folder / "data").outcome, ""


@story(ModelFilesError, "changed: model.pt")
def a_champion_whose_files_were_changed(folder: Path) -> tuple[str, str]:
    manager = registry(folder, 1)
    champion = manager.champion("pets")
    assert champion is not None
    kept = next(Path(champion.location.removeprefix("file://")).rglob("model.pt"))
    kept.write_bytes(kept.read_bytes() + b" ")
    manager.download_model("pets", 1, folder / "champion")
    return "scored", ""


@story(ModelFilesError, "does not hold a model that Ratchet can serve", one_number=False)
def a_champion_that_does_not_load(folder: Path) -> tuple[str, str]:
    from ratchet.evaluation.served import ServedModel

    export = folder / "champion"
    export.mkdir(parents=True)
    (export / "model.pt").write_bytes(b"not a network")
    ServedModel(export)
    return "scored", ""


@story("promote", "the same counts")
def images_that_are_judged_twice(folder: Path) -> tuple[str, str]:
    data = shop(folder)
    first, second = scored(folder / "a", data), scored(folder / "b", data)
    return second.outcome, "the same counts" if first.digest == second.digest else "other counts"
