"""Data that change between a sweep's plan and its trials: what came is left for the next one, the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import TINY
from parts import write_list, write_pair, write_parts

from ratchet.config import compose_space
from ratchet.errors import ConfigError, SweepFailedError
from ratchet.outcome import skip
from ratchet.planning import plan_retraining
from ratchet.registry.tracking import client
from ratchet.run_names import DATA_FINGERPRINT_TAG, IMAGES_TAG
from ratchet.training.plan import SweepPlan, plan_sweep
from ratchet.training.preview import preview
from ratchet.training.sweep import run

SEARCH = ("optimizer.lr=interval(0.001,0.01)", "sweep.max_trials=1")


def overrides(folder: Path | str) -> list[str]:
    data = (
        "datamodule=base/segmentation",
        f"datamodule.data_path={folder}",
        "datamodule.idx_to_class={1: scratch, 2: dent}",
    )
    tiny = [key for key in TINY if not key.startswith(("datamodule.", "experiment="))]
    return ["experiment=base/segmentation/smp", *data, *tiny, "backbone.model.encoder_weights=null"]


def plan(folder: Path | str, *more: str) -> SweepPlan:
    return plan_sweep(compose_space([*overrides(folder), *(more or SEARCH)]))


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_images_that_come_after_the_plan_take_no_part_and_one_that_changes_fails_its_trials(folder: Path) -> None:
    planned = plan(folder)
    for number in range(40, 60):
        write_pair(folder, f"part_{number:02d}", number)
    (folder / "masks" / "part_59.png").unlink()  # still being copied
    (trial,) = run(planned).trials
    tags = client().get_run(str(trial.run_id)).data.tags
    (before,) = planned.trials
    assert (int(tags[IMAGES_TAG]), tags[DATA_FINGERPRINT_TAG]) == (before.images, before.data)
    kept = SweepPlan.model_validate(yaml.safe_load(yaml.safe_dump(planned.model_dump())))
    assert [(again.status, again.run_id) for again in run(kept).trials] == [("reused", trial.run_id)]

    (folder / "images" / "part_59.png").unlink()
    planned = plan(folder)
    assert planned.trials[0].images > before.images
    write_pair(folder, "part_00", 77)
    with pytest.raises(SweepFailedError, match="changed since this sweep was planned"):
        run(planned)


@pytest.mark.usefixtures("ratchet_home")
def test_a_retraining_that_is_taken_up_again_keeps_its_images(folder: Path) -> None:
    asked = [*overrides(folder), "optimizer.lr=0.1,0.2", "gate.non_inferiority.columns=[site]"]
    rows = "name,site\n" + "".join(f"{path.stem},north\n" for path in sorted((folder / "images").iterdir()))
    (folder / "metadata.csv").write_text(rows + "elsewhere,south\n")
    first = plan_retraining(asked)
    write_pair(folder, "part_40", 40)
    (folder / "images" / "part_41.png").write_bytes(b"half of an imag")  # and no mask yet
    (folder / "metadata.csv").write_text(f"{rows}part_40,north\n")
    again = plan_retraining(asked, only=frozenset(first.trials[0].samples or ()))
    assert [trial.fingerprint for trial in again.trials] == [trial.fingerprint for trial in first.trials]
    assert again.fingerprint == first.fingerprint
    chosen = [*asked, "datamodule.gate_size=0.2", "retrain.metric=test_iou"]
    plan_retraining(chosen, only=frozenset(first.trials[0].samples or ()))
    (folder / "images" / "part_41.png").unlink()
    assert plan_retraining(asked).fingerprint != first.fingerprint


@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize("split", ["train", "val", "test", "gate"])
def test_trials_that_would_be_chosen_among_on_other_images_are_refused(folder: Path, split: str) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("part_00\npart_01\n")
    with pytest.raises(ConfigError, match="several data sets"):
        plan_retraining([*overrides(folder), f"datamodule.{split}_split_file=a.txt,b.txt"])
    with pytest.raises(ConfigError, match=f"datamodule.{split}_split_file cannot be searched"):
        plan_retraining([*overrides(folder), *SEARCH, f"datamodule.{split}_split_file=choice(a.txt,b.txt)"])


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_data_that_cannot_be_read_fail_their_own_trials_alone(folder: Path, tmp_path: Path) -> None:
    broken = write_parts(tmp_path / "broken") / "images" / "part_05.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    outcome = run(plan(f"{folder},{broken.parents[1]}", "optimizer.lr=0.01"))
    assert [trial.status for trial in outcome.trials] == ["finished", "failed"]
    assert "part_05.png" in str(outcome.trials[1].error)


@pytest.mark.usefixtures("ratchet_home")
def test_a_corrected_row_of_the_metadata_is_news_to_the_policy_that_reads_its_column(folder: Path) -> None:
    asked = [*overrides(folder), "gate.non_inferiority.columns=[site]"]

    def fingerprints(**sites: str) -> tuple[str, str]:
        rows = [f"part_{number:02d},{sites.get(f'part_{number:02d}', 'north')},{len(sites)}\n" for number in range(40)]
        (folder / "metadata.csv").write_text("name,site,shift\n" + "".join(rows))
        return plan_retraining(asked).fingerprint, plan_retraining(overrides(folder)).fingerprint

    before, unread = fingerprints()
    after = fingerprints(part_05="south")
    assert after[0] != before
    assert after[1] == unread
    assert fingerprints()[0] == before


@pytest.mark.usefixtures("ratchet_home")
def test_the_names_of_the_images_cost_prefect_nothing_when_a_plan_goes_to_a_task(folder: Path) -> None:
    import cloudpickle
    from prefect.utilities.collections import visit_collection

    planned = plan_retraining([*overrides(folder), "optimizer.lr=0.1,0.2,0.3,0.4"])
    names = planned.trials[0].samples
    assert names == {path.stem for path in (folder / "images").iterdir()}
    assert all(trial.samples is names for trial in planned.trials)
    visited: list[object] = []
    many = planned.among([f"image_{number}" for number in range(10_000)])
    visit_collection(many, visited.append)
    assert len(visited) < 5_000
    again = cloudpickle.loads(cloudpickle.dumps(many))
    assert [len(trial.samples or ()) for trial in again.trials] == 4 * [10_000]
    assert "image_0" not in many.to_yaml()


@pytest.mark.usefixtures("stored_home")
def test_images_that_no_list_names_are_told_before_it_begins_and_where_it_is_skipped(folder: Path) -> None:
    for split, numbers in (("train", range(20)), ("val", range(20, 30)), ("test", range(30, 39))):
        write_list(folder, split, *numbers)
    planned = plan_retraining([*overrides(folder), "retrain.model=m"])
    assert planned.trials[0].unlisted == 1
    assert preview(planned.sweep, {}, at_once=1).sentence.endswith("1 image is in no list, and takes no part")
    outcome = skip(planned.model_copy(update={"unchanged_since": 7}))
    assert (outcome.summary, outcome.note) == (
        "skipped: unchanged since v7",
        "1 image is in no list, and takes no part",
    )
    write_list(folder, "test", *range(30, 40))
    assert "no list" not in preview(plan(folder), {}, at_once=1).sentence
