"""The form of a retraining: what Prefect shows of it, what it refuses, and the overrides that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.gate import gate
from flows.retrain import retrain
from ratchet.config import compose, compose_sweep
from ratchet.errors import ConfigError, PolicyError
from ratchet.form import RetrainForm, chosen_policy, form_of, overrides_of
from ratchet.gate import Policy
from ratchet.planning import plan_retraining
from ratchet.trees import entries

SHAPES = "generic/shapes/segmentation/smp"


def properties() -> dict[str, Any]:
    return retrain.parameters.properties


def test_an_empty_form_changes_nothing() -> None:
    assert overrides_of(RetrainForm()) == []


def test_every_field_becomes_the_override_that_an_expert_would_write() -> None:
    form = RetrainForm(
        model="parts",
        experiment=SHAPES,
        data="/data/parts",
        architectures=("unet", "fpn"),
        encoders=("resnet18",),
        epochs=5,
        metric="val_dice",
        mode="max",
        policy="strict",
        to="staging",
        overrides=("optimizer.lr=0.01",),
    )
    assert overrides_of(form) == [
        f"experiment={SHAPES}",
        "gate=strict",
        "datamodule.data_path='/data/parts'",
        "backbone.model.arch=unet,fpn",
        "backbone.model.encoder_name=resnet18",
        "trainer.max_epochs=5",
        "retrain.model=parts",
        "retrain.metric=val_dice",
        "retrain.mode=max",
        "retrain.to=staging",
        "optimizer.lr=0.01",
    ]
    first, second = compose_sweep(overrides_of(form))
    assert [config.backbone.model["arch"] for config in (first, second)] == ["unet", "fpn"]
    assert (first.retrain.model, first.retrain.to, first.trainer["max_epochs"]) == ("parts", "staging", 5)
    assert (first.gate["name"], first.datamodule["data_path"]) == ("strict", "/data/parts")


def test_a_free_override_wins_over_the_field_of_the_same_key() -> None:
    form = RetrainForm(experiment=SHAPES, epochs=5, overrides=("trainer.max_epochs=7", "+experiment=other"))
    assert overrides_of(form) == ["trainer.max_epochs=7", "+experiment=other"]


PARSER = OverridesParser.create()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["C"]), min_size=1))
def test_any_name_arrives_as_it_was_typed(name: str) -> None:
    parsed = PARSER.parse_override(overrides_of(RetrainForm(model=name))[0]).value()
    assert (parsed.text if isinstance(parsed, QuotedString) else parsed) == name


def test_a_name_of_signs_and_a_number_stay_text() -> None:
    for name in ("it's a \\'model\\, or null", "007"):
        assert compose(overrides_of(RetrainForm(model=name))).retrain.model == name


def test_the_form_of_every_field_has_a_help_text_and_no_null() -> None:
    for name, field in properties().items():
        assert len(field["description"]) > 20, name
        assert "anyOf" not in field, f"{name} would be shown as a switch between types"
    assert max(properties().values(), key=lambda field: int(field["position"]))["title"] == "overrides"


def test_what_can_be_chosen_is_offered() -> None:
    assert properties()["experiment"]["enum"] == ["as configured", *entries("experiment")]
    assert SHAPES in entries("experiment")
    assert not [name for name in entries("experiment") if name.startswith("base/")]
    assert properties()["policy"]["enum"] == ["as configured", "default", "permissive", "strict"]
    assert {"unet", "fpn"} <= set(properties()["architectures"]["items"]["enum"])
    assert (properties()["epochs"]["minimum"], properties()["epochs"]["maximum"]) == (0, 1000)


def test_entries_of_a_tree_of_ones_own_are_offered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment" / "acme").mkdir(parents=True)
    (tmp_path / "experiment" / "acme" / "scratches.yaml").write_text("# @package _global_\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    assert "acme/scratches" in entries("experiment")


@pytest.mark.parametrize(
    "wrong", [{"epochs": 5000}, {"architectures": ("unett",)}, {"mode": "best"}, {"too": "staging"}]
)
def test_a_value_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetrainForm.model_validate(wrong)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["retrain.metric=val_iu"], "no trial logs that. Nearest: val_iou"),
        (["retrain.metric=val_iou_cat"], "Nearest: val_iou"),
        (["retrain.metric=val_loss_epoch"], "selects the worst trial: set retrain.mode=min"),
        (["retrain.mode=min"], "selects the worst trial: set retrain.mode=max"),
        (
            ["+datamodule.idx_to_class={1:gloss,2:matt}", "retrain.metric=val_iou_gloss", "retrain.mode=min"],
            "selects the worst trial: set retrain.mode=max",
        ),
        (["gate=lenient"], "gate"),
        (["trainer.max_epoch=3"], "trainer.max_epochs"),
        (["export.types=[pt2,onnx],[pt2,torchscript]"], "Add torchscript"),
        (["datamodule.months=6,7"], "several data sets"),
    ],
)
def test_what_no_form_can_know_is_refused_before_any_data_is_touched(
    overrides: list[str], said: str, ratchet_home: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_retraining([f"experiment={SHAPES}", *overrides])
    assert not ratchet_home.exists()


def test_overrides_fill_the_form_in_and_come_out_of_it_the_same() -> None:
    overrides = [
        f"experiment={SHAPES}",
        "backbone.model.arch=unet,fpn",
        "backbone.model.encoder_name=resnet18,no_encoder_of_the_form",
        "trainer.max_epochs=8",
        "gate=strict,default",
        "optimizer.lr=0.01",
    ]
    form = form_of(overrides)
    assert (form.experiment, form.architectures, form.epochs) == (SHAPES, ("unet", "fpn"), 8)
    assert form.overrides == (overrides[2], overrides[4], overrides[5])
    assert set(overrides_of(form)) == set(overrides)


def test_of_two_overrides_of_one_key_the_second_stays_and_wins() -> None:
    form = form_of(["trainer.max_epochs=3", "trainer.max_epochs=4"])
    assert overrides_of(form) == ["trainer.max_epochs=4"]


def test_a_judgement_is_by_a_preset_by_the_filled_in_policy_or_as_the_version_was_trained() -> None:
    own = Policy(floor=0.7)
    assert gate.parameters.properties["policy"]["enum"] == ["as configured", *entries("gate"), "own"]
    assert chosen_policy("strict", Policy()) == "strict"
    assert chosen_policy("as configured", Policy()) is None
    assert chosen_policy("own", own) == own
    with pytest.raises(PolicyError, match="policy=own"):
        chosen_policy("default", own)


def test_the_form_of_a_policy_has_help_and_bounds_on_every_field() -> None:
    for name, schema in gate.parameters.definitions.items():
        assert schema["additionalProperties"] is False, name
        assert all(field.get("description") for field in schema["properties"].values()), name
    floor = gate.parameters.definitions["Policy"]["properties"]["floor"]
    assert floor["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 1}
