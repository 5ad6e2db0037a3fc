"""Policies as data: presets, files and mappings, and the errors that name the key."""

from pathlib import Path

import pytest

from ratchet.config import compose
from ratchet.errors import PolicyError
from ratchet.gate import Policy, load_policy

PRESETS = Path(__file__).parents[1] / "configs" / "gate"


@pytest.mark.parametrize("name", ["default", "strict", "permissive"])
def test_every_preset_loads_under_its_own_name(name: str) -> None:
    assert load_policy(name).name == name


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_policy_survives_json(path: Path) -> None:
    policy = load_policy(path)
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(PolicyError, match=r"'flor'; did you mean 'floor'"):
        load_policy({"flor": 0.5})


def test_an_unknown_nested_key_is_named_with_its_path() -> None:
    with pytest.raises(PolicyError, match=r"'superiority.min_gian'; did you mean 'min_gain'"):
        load_policy({"superiority": {"min_gian": 0.5}})


def test_a_value_out_of_bounds_is_named_with_the_value() -> None:
    with pytest.raises(PolicyError, match=r"superiority\.confidence = 1\.5"):
        load_policy({"superiority": {"confidence": 1.5}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high"])
def test_a_floor_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(PolicyError, match="floor"):
        load_policy({"floor": value})


def test_a_policy_that_asks_nothing_of_quality_is_refused() -> None:
    with pytest.raises(PolicyError, match="asks nothing"):
        load_policy({"superiority": None})


def test_an_unknown_preset_is_named_with_the_nearest_one() -> None:
    with pytest.raises(PolicyError, match="did you mean 'default'"):
        load_policy("defualt")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", ""])
def test_a_file_that_is_no_mapping_is_refused_by_its_path(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=r"mine\.yaml"):
        load_policy(path)


def test_an_absent_file_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"gone\.yaml"):
        load_policy(tmp_path / "gone.yaml")


def test_a_policy_of_a_tree_of_ones_own_is_found_by_its_name_and_wins_over_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first" / "gate", tmp_path / "second" / "gate"
    for folder, floor in ((first, 0.7), (second, 0.1)):
        (folder / "acme").mkdir(parents=True)
        (folder / "acme" / "parts.yaml").write_text(f"name: parts\nfloor: {floor}\n")
    (second / "strict.yaml").write_text("name: stricter\nfloor: 0.9\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", f"{first.parent};file://{second.parent}")
    assert load_policy("acme/parts").floor == 0.7
    assert load_policy("strict").name == "stricter"
    assert compose(["gate=acme/parts"]).gate["floor"] == 0.7
    with pytest.raises(PolicyError, match="did you mean 'acme/parts'"):
        load_policy("acme/part")


def test_a_policy_of_ones_own_may_have_a_dot_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "v1.2.yaml").write_text("name: v1.2\nfloor: 0.7\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    assert load_policy("v1.2").floor == 0.7
