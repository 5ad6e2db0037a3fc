"""The configuration: every entry composes, every mistake is told, nothing forbidden is built."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.config import application, check_targets, compose, compose_space, compose_sweep, instantiate
from ratchet.errors import ConfigError, ForbiddenPathError, ForbiddenTargetError, UnknownKeyError
from ratchet.gate import Budget, Superiority, load_policy
from ratchet.home import home
from ratchet.judgement.configuration import gate_data
from ratchet.planning import check_trials
from ratchet.trees import CONFIGS

pytestmark = pytest.mark.usefixtures("ratchet_home")

OWN = {"config.yaml"}
ENTRIES = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in CONFIGS.rglob("*.yaml")
    if path.relative_to(CONFIGS).parts[0] not in {"hydra", *OWN}
)
NEEDED = {"datamodule/base/segmentation": ["datamodule.data_path=/data", "datamodule.idx_to_class={1: a}"]}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_of_every_group_composes(entry: str) -> None:
    group, name = entry.split("/", 1)
    config = compose([f"{group}={name}", *NEEDED.get(entry, [])])
    check_targets(config.model_dump())


def test_a_variable_that_is_empty_is_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RATCHET_HOME", "RATCHET_OXFORD_PET"):
        monkeypatch.setenv(name, "")
    assert compose([]).core.home == home()
    pets = compose(["datamodule=generic/oxford_pet/segmentation/base"])
    assert Path(pets.datamodule["data_path"]) == home() / "data" / "oxford_pet"


@pytest.mark.parametrize("classes", ["[scratch,dent]", "{scratch: 1, dent: 2}", "null"])
def test_classes_that_are_no_table_are_told_by_their_key(classes: str) -> None:
    with pytest.raises(ConfigError, match=r"datamodule\.idx_to_class=.*\{1: scratch, 2: dent\}"):
        compose(["datamodule=base/segmentation", "datamodule.data_path=/data", f"datamodule.idx_to_class={classes}"])


def test_lists_of_values_give_a_configuration_for_each_combination() -> None:
    configs = compose_sweep(["backbone.model.arch=unet,fpn", "optimizer.lr=0.1,0.2,0.3", "trainer.max_epochs=5"])
    pairs = [(config.backbone.model["arch"], config.optimizer["lr"]) for config in configs]
    assert len(set(pairs)) == len(pairs) == 6
    assert {config.trainer["max_epochs"] for config in configs} == {5}


def test_two_foreground_classes_take_three_outputs_and_one_takes_one() -> None:
    assert compose(["experiment=generic/shapes/segmentation/smp"]).backbone.model["num_classes"] == 3
    assert compose(["experiment=generic/oxford_pet/segmentation/smp"]).backbone.model["num_classes"] == 1


@pytest.mark.parametrize("preset", ["default", "strict", "permissive"])
def test_every_rule_of_a_policy_can_be_overridden_though_the_preset_does_not_name_it(preset: str) -> None:
    overrides = [
        "gate.class_floor=0.4",
        "gate.anchor.margin=0.05",
        "gate.superiority.min_gain=0.01",
        "gate.non_inferiority.columns=[site]",
        "gate.budget.size_mb=100",
        "gate.serves=null",
    ]
    config = compose([f"gate={preset}", *overrides])
    policy, named = load_policy(config.gate), load_policy(preset)
    assert (policy.class_floor, policy.anchor and policy.anchor.margin) == (0.4, 0.05)
    assert policy.superiority == (named.superiority or Superiority()).model_copy(update={"min_gain": 0.01})
    assert policy.non_inferiority is not None
    assert policy.non_inferiority.columns == ("site",)
    assert policy.budget == (named.budget or Budget(size_mb=1)).model_copy(update={"size_mb": 100})
    assert policy.serves is None
    assert load_policy(compose([f"gate={preset}"]).gate) == named


def test_the_command_line_too_overrides_every_rule() -> None:
    for arguments in (["gate.class_floor=0.4"], ["gate.class_floor=0.4", "trainer.max_epochs=1,2", "--multirun"]):
        composed = application(arguments)
        assert composed is not None
        assert {config.gate["class_floor"] for config in composed.configs} == {0.4}


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("backbone.model.archs=unet,fpn", "backbone.model.arch"),
        ("optimiser.lr=0.1", "optimizer.lr"),
        ("gate.clas_floor=0.4", "gate.class_floor"),
        ("gate.anchor.margn=0.4", "gate.anchor.margin"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(override: str, nearest: str) -> None:
    with pytest.raises(UnknownKeyError, match=nearest):
        compose_sweep([override])


@pytest.mark.parametrize(("override", "near"), [("+core.nmae=x", "name"), ("+retrian.metric=val_iou", "retrain")])
def test_a_key_that_was_added_is_told_with_the_nearest_known_one(override: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no such key; did you mean '{near}'"):
        compose([override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss=dise", "loss=dice"),
        ("experiment=generic/shape/segmentation/smp", "generic/shapes/segmentation/smp"),
        ("transforms.input_height=5", "transforms.input_height"),
        ("trainer.max_epochs", "missing EQUAL"),
        ("export.types=[pt3]", "export.types"),
        ("datamodule.mean=[0.5,0.5,0.5]", r"set transforms\.mean"),
        ("datamodule.input_height=512", r"set transforms\.input_height"),
        ("trainer.max_epochs=null", r"trainer\.max_epochs=None"),
        ("trainer.max_epochs=3.5", r"trainer\.max_epochs=3\.5"),
        ("trainer.max_epochs=-1", r"sweep\.trial_max_time"),
        ("trainer.devices=2", "one device"),
        ("trainer.devices=auto", "one device"),
        ("+trainer.num_nodes=2", "one device"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.run.dir=/", "Hydra itself"),
        ("hydra/launcher=basic", "Hydra itself"),
        ("core.tag=${oc.env:HOME}", "interpolations"),
        (r"core.tag=$\{oc.env\:HOME\}", "interpolations"),
        ("trainer=../../elsewhere", "inside the tree"),
        ("+loss@loss.x=../../elsewhere", "inside the tree"),
        ("experiment=generic/shapes/segmentation/smp,../../elsewhere", "inside the tree"),
        (r"experiment=\.\./elsewhere", "inside the tree"),
    ],
)
def test_an_override_from_outside_cannot_reach_hydra_or_the_environment(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([override])


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.open",
        "torch.load",
        "torch.hub.load",
        "torch.nn.functional.torch.load",
        "torch.optim.lr_scheduler.types.FunctionType",
        "torch.nn.modules.module.torch.load",
        "torch.nn.functional",
        "ratchet.training.sweep.run_sweep",
        "ratchet.data.import_module",
        "pytorch_lightning.callbacks._private",
        "subprocess.run",
    ],
)
def test_a_target_outside_the_allow_list_is_refused_wherever_it_stands(target: str) -> None:
    for node in ({"_target_": target}, {"inner": [{"_target_": target}]}):
        with pytest.raises(ForbiddenTargetError, match="not allowed"):
            check_targets(node)


def test_what_hydra_would_make_a_node_of_once_more_is_not_built(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    hidden = f"${{oc.create:{{_target_: builtins.open, file: '{victim}', mode: w}}}}"
    for node in ({"x": hidden}, {"x": [{hidden: 1}]}):
        with pytest.raises(ForbiddenTargetError, match="interpolations"):
            instantiate({"_target_": "torch.nn.ReLU"} | node)
    escaped = re.sub(r"([{}:,$ ])", r"\\\1", hidden.replace("'", ""))
    with pytest.raises(ConfigError):
        compose([f"+optimizer.x={escaped}"])
    assert victim.read_text() == "whole"


@pytest.mark.parametrize("also", ["", "a;"])
def test_a_target_without_a_module_is_refused(also: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", also)
    with pytest.raises(ForbiddenTargetError, match="DiceLoss is not allowed"):
        check_targets({"_target_": "DiceLoss"})


def test_a_target_of_the_right_module_must_be_of_the_right_kind() -> None:
    check_targets({"_target_": "torch.optim.AdamW"})
    with pytest.raises(ForbiddenTargetError):
        check_targets({"_target_": "torch.nn.Parameter"})


def test_the_operator_can_allow_a_module_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ForbiddenTargetError):
        check_targets({"_target_": "fractions.Fraction"})
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "fractions")
    check_targets({"_target_": "fractions.Fraction"})


def test_paths_stay_under_the_roots_that_the_deployment_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    compose([f"datamodule.data_path={tmp_path}/sub"])
    for path in ("/etc", f"{tmp_path}/../elsewhere"):
        with pytest.raises(ForbiddenPathError, match=r"datamodule\.data_path"):
            compose([f"datamodule.data_path={path}"])


@pytest.mark.parametrize(
    "override",
    [
        "+callbacks.x={_target_: pytorch_lightning.callbacks.OnExceptionCheckpoint, dirpath: /any/where, filename: best}",
        "+callbacks.model_checkpoint.filename=../../../x",
        "+callbacks.x={_target_: pytorch_lightning.callbacks.OnExceptionCheckpoint, _args_: [/any/where, best]}",
        "+callbacks.x={_target_: pytorch_lightning.callbacks.SpikeDetection, exclude_batches_path: /any/where}",
    ],
)
def test_a_form_cannot_have_checkpoints_written_or_removed_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str
) -> None:
    compose([override])
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    with pytest.raises(ForbiddenPathError, match=r"callbacks\.(x|model_checkpoint)\."):
        compose([override, f"datamodule.data_path={tmp_path}"])


@pytest.mark.parametrize(
    "override",
    [
        "backbone.model.encoder_weights=/etc/weights.pth",
        "+backbone.model.checkpoint_path=/etc/weights.pth",
        "+backbone.model.cache_dir=/etc",
        "backbone.model.encoder_name=tu-local-dir:/etc",
    ],
)
def test_weights_are_read_from_the_roots_and_from_installed_packages_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str
) -> None:
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    offline = ["experiment=generic/oxford_pet/segmentation/smp_offline", f"datamodule.data_path={tmp_path}"]
    assert Path(compose(offline).backbone.model["encoder_weights"]).is_file()
    with pytest.raises(ForbiddenPathError, match=r"backbone\.model\."):
        compose([*offline, override])


@pytest.mark.parametrize("key", ["+loss.x", "backbone.model.decoder_attention_type", "+optimizer.x"])
def test_nothing_but_the_network_and_the_data_reads_files(
    key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    reads = (
        "{_target_: ratchet.training.create_network, arch: unet, encoder_name: resnet18, encoder_weights: /etc/x.pth}"
    )
    with pytest.raises(ForbiddenPathError, match="it reads files"):
        compose([f"datamodule.data_path={tmp_path}", f"{'+' * (key[0] != '+')}{key}={reads}"])


def test_two_dots_are_a_mistake_only_in_the_name_of_an_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert compose(["core={tag: 'a .. b'}"]).core.tag == "a .. b"
    assert compose(["datamodule.data_path=../there"]).datamodule["data_path"] == f"{tmp_path}/here/../there"
    assert compose(["datamodule.data_path=s3://bucket/x"]).datamodule["data_path"] == "s3://bucket/x"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["retrain.metric=val_iuo"], "Nearest: val_iou"),
        (["retrain.metric=val_loss_epoch"], r"selects the worst trial: set retrain\.mode=min"),
        (["callbacks.model_checkpoint.monitor=val_iou"], r"set callbacks\.model_checkpoint\.mode=max"),
        (["~callbacks.model_checkpoint.mode", "callbacks.model_checkpoint.monitor=val_iou"], r"\.mode=max"),
        (["datamodule.idx_to_class={1: 'crack <2mm', 2: 'crack >2mm'}"], "one name of a metric, 'crack _2mm'"),
        (["scheduler.mode=max"], r"set scheduler\.mode=min"),
        (["scheduler=cosine", "+model.scheduler_interval=step"], r"scheduler\.T_max=\d+ is the number of epochs"),
    ],
)
def test_what_is_chosen_by_is_logged_under_a_name_of_its_own_and_the_best_of_it_is_chosen(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["experiment=generic/shapes/segmentation/smp", *overrides])
    compose(["callbacks=early_stopping", "callbacks.model_checkpoint={monitor: val_iou, mode: max}"])


def test_callbacks_that_keep_no_epoch_to_export_are_refused_before_a_training() -> None:
    with pytest.raises(ConfigError, match=r"defaults: \[default, _self_\]"):
        compose(["callbacks.model_checkpoint=null"])
    compose(["callbacks.model_checkpoint=null", "export.checkpoint_selection=last"])


def test_a_batch_of_what_fits_just_then_is_no_part_of_a_deterministic_training() -> None:
    compose(["core.deterministic=true"])
    compose(["datamodule.batch_size=auto"])
    with pytest.raises(ConfigError, match=r"Set datamodule\.batch_size to a number"):
        compose(["core.deterministic=true", "datamodule.batch_size=auto"])


@pytest.mark.parametrize(
    ("mistake", "kept"),
    [
        ("trainer.devices=2", False),
        ("+trainer.num_nodes=2", False),
        ("retrain.metric=val_loss_epoch", True),
        ("retrain={metric: val_loss_step, mode: min}", False),
        ("retrain={metric: loss_epoch, mode: min}", False),
        ("callbacks.model_checkpoint.monitor=val_iou", True),
    ],
)
def test_what_a_message_advises_can_be_typed(mistake: str, kept: bool) -> None:
    with pytest.raises(ConfigError) as told:
        compose([mistake])
    advised = re.findall(r"[\w.]+=\w+", str(told.value).rpartition(" set ")[2])
    assert advised
    compose([*advised, *([mistake] if kept else [])])


def test_a_table_of_classes_is_replaced_whole_or_not_at_all() -> None:
    shapes = "experiment=generic/shapes/segmentation/smp"
    own = [shapes, "datamodule=base/segmentation", "datamodule.data_path=/data"]
    assert compose([*own, "datamodule.idx_to_class={1: a}"]).datamodule["idx_to_class"] == {1: "a"}
    for single in (True, False):
        with pytest.raises(ConfigError, match=r"'~datamodule.idx_to_class' and '\+datamodule.idx_to_class=\{1: a\}'"):
            compose([shapes, "datamodule.idx_to_class={1: a}"]) if single else application(
                [shapes, "datamodule.idx_to_class={1: a}"]
            )
    with pytest.raises(ConfigError, match=r"'~datamodule.mask_values' and '\+datamodule.mask_values=\{0: 0, 255: 1\}'"):
        compose(["experiment=generic/oxford_pet/segmentation/smp", "datamodule.mask_values={0: 0, 255: 1}"])
    with pytest.raises(ConfigError, match="Give it by its own key"):
        compose([shapes, "datamodule={idx_to_class: {1: a}}"])
    whole = ["~datamodule.idx_to_class", "+datamodule.idx_to_class={1: a}"]
    config = compose([shapes, *whole])
    assert (config.datamodule["idx_to_class"], config.backbone.model["num_classes"]) == ({1: "a"}, 1)


def test_a_mistake_in_a_users_own_tree_is_told_with_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    monkeypatch.setenv("RATCHET_SEARCH_PATH", f"file://{tmp_path}")
    for text in ("a: {b: 1", "a:\n\tb: 1", "a: 1\na: 2\n"):
        (tmp_path / "experiment" / "broken.yaml").write_text(f"# @package _global_\n{text}")
        for how in (compose, application):
            with pytest.raises(ConfigError, match=r"broken\.yaml"):
                how(["experiment=broken"])


def test_split_lists_are_looked_for_where_the_data_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    data = f"datamodule.data_path={tmp_path}"
    compose([data, "+datamodule.test_split_file=lists/test.txt"])
    for file in ("../../etc/passwd", "/etc/passwd"):
        with pytest.raises(ForbiddenPathError, match=r"datamodule\.test_split_file"):
            compose([data, f"+datamodule.test_split_file={file}"])


@pytest.mark.parametrize("roots", ["{home}/data", "~/data"])
def test_a_tilde_is_the_users_folder_for_the_roots_too(
    roots: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RATCHET_DATA_ROOTS", roots.format(home=tmp_path))
    compose(["datamodule.data_path='~/data/pets'"])
    compose([f"datamodule.data_path={tmp_path}/data", "+datamodule.test_split_file='~/data/test.txt'"])


@pytest.mark.parametrize("key", ["datamodule.data_path", "datamodule.cache_path", "+datamodule.test_split_file"])
@pytest.mark.parametrize("path", ["~/.ssh", "./~/.ssh"])
def test_a_tilde_does_not_lead_out_of_the_roots(
    key: str, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(ForbiddenPathError, match=key.lstrip("+").replace(".", r"\.")):
        compose([f"datamodule.data_path={tmp_path}/data", f"{key}='{path}'"])


def test_the_folder_of_a_user_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    with pytest.raises(ForbiddenPathError, match="no such user"):
        compose(["datamodule.data_path='~nobody_is_called_this/data'"])


def test_a_form_cannot_say_where_data_are_downloaded_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pets = ["experiment=generic/oxford_pet/segmentation/smp", f"datamodule.data_path={tmp_path}"]
    assert compose([*pets, "+datamodule.download_url=http://10.0.0.1"]).datamodule["download_url"]
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    for told in ("+datamodule.download_url=http://10.0.0.1", "+datamodule={download_url: http://10.0.0.1}"):
        with pytest.raises(ConfigError, match="operator"):
            compose([*pets, told])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scheduler=null", "scheduler=null: .* scheduler=constant"),
        ("loss=5", r"loss=5: loss takes the name of an entry \(cross_entropy, dice"),
        ("datamodule/base=segmentation", "datamodule/base"),
        ("+experiment=generic/shapes/segmentation/smp", r"\+experiment=.*leave out the \+"),
    ],
)
def test_a_group_that_is_given_what_is_no_entry_is_told_in_a_message(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([override])


@pytest.mark.parametrize(
    ("override", "can_be_added"),
    [
        ("core.upload_models=true", False),
        ("retran.to=staging", False),
        ("gate.clas_floor=0.4", False),
        ("backbone.model.depth=5", True),
    ],
)
def test_adding_a_key_is_advised_only_where_it_can_be_added(override: str, can_be_added: bool) -> None:
    with pytest.raises(UnknownKeyError) as told:
        compose([override])
    assert (f"+{override}" in str(told.value)) == can_be_added


def test_of_what_is_left_out_only_the_name_is_told_and_a_scheduler_may_be() -> None:
    with pytest.raises(ConfigError) as told:
        compose(["~callbacks"])
    assert str(told.value) == "the configuration cannot be used: callbacks: this key is missing"
    assert compose(["~scheduler"]).scheduler is None


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("datamodule", "data_path: /data\nidx_to_class: {1: scratch}\n"),
        ("loss", "smooth: 0.5\n"),
        ("optimizer", "lr: 0.1\n"),
    ],
)
def test_a_file_of_ones_own_without_a_target_is_told_how_it_begins(
    group: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / group / "mine.yaml"
    file.parent.mkdir()
    file.write_text(text)
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=f"{group} names no _target_") as told:
        compose([f"{group}=mine"])
    (beginning,) = re.findall("`(defaults: .*)`", str(told.value))
    file.write_text(f"{beginning}\n{text}")
    assert "_target_" in getattr(compose([f"{group}=mine"]), group)


def test_a_forbidden_target_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "evil.yaml").write_text("_target_: os.system\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    with pytest.raises(ForbiddenTargetError, match=r"os\.system"):
        compose(["loss=evil"])


def test_a_configuration_names_folders_as_they_are_seen_from_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RATCHET_HOME")
    config = compose(["experiment=generic/shapes/segmentation/smp"])
    assert config.core.home == tmp_path / ".ratchet"
    assert config.datamodule["data_path"] == str(tmp_path / ".ratchet" / "data" / "shapes")
    assert config.datamodule["cache_path"] == str(tmp_path / ".ratchet" / "cache")
    own = ["experiment=base/segmentation/smp", "datamodule=base/segmentation", "datamodule.idx_to_class={1: a}"]
    assert compose([*own, "datamodule.data_path=parts"]).datamodule["data_path"] == str(tmp_path / "parts")


def test_an_entry_of_a_users_own_tree_is_named_to_who_misspelt_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for entry in ("experiment/parts/scratches", "gate/mine"):
        (tmp_path / entry).parent.mkdir(parents=True)
        (tmp_path / f"{entry}.yaml").write_text("floor: 0.5\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path))
    for override, nearest in (("experiment=parts/scratch", "experiment=parts/scratches"), ("gate=mine2", "gate=mine")):
        with pytest.raises(ConfigError, match=f"Nearest: {nearest}"):
            compose([override])


@pytest.mark.parametrize("named", ["", "experiment"])
def test_where_an_entry_was_looked_for_is_told_and_what_a_folder_of_ones_own_must_hold(
    named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = tmp_path / "experiment" / "parts" / "scratches.yaml"
    entry.parent.mkdir(parents=True)
    entry.write_text("# @package _global_\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path / named) if named else "")
    with pytest.raises(ConfigError, match="RATCHET_SEARCH_PATH names folders of your own") as told:
        compose(["experiment=parts/scratches"])
    places = [str(tmp_path / named), str(CONFIGS)] if named else [str(CONFIGS)]
    assert f"Looked in {', '.join(places)}. " in str(told.value)
    assert "parts=scratches" not in str(told.value)


def test_a_callback_that_nobody_chose_is_told_with_what_to_choose() -> None:
    with pytest.raises(ConfigError, match="callbacks=early_stopping"):
        compose(["+callbacks.early_stopping.patience=3"])
    chosen = compose(["callbacks=early_stopping", "callbacks.early_stopping.patience=3"])
    assert chosen.callbacks["early_stopping"] is not None


def test_a_users_own_tree_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: torch.nn.CrossEntropyLoss\n")
    monkeypatch.setenv("RATCHET_SEARCH_PATH", f"file://{tmp_path}")
    assert compose(["loss=mine"]).loss["_target_"] == "torch.nn.CrossEntropyLoss"
    monkeypatch.setenv("RATCHET_SEARCH_PATH", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="RATCHET_SEARCH_PATH"):
        compose([])


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Undo what Hydra's --info does to logging: it lasts as long as the process, which elsewhere ends there."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "backbone.model.arch=unet,fpn"),
        (["--cfg", "job", "trainer.max_epochs=7"], "max_epochs: 7"),
        (["--info", "searchpath"], "configs"),
    ],
)
def test_hydras_own_flags_print_and_train_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):  # so Hydra ends --help
        assert application(arguments) is None
    assert said in capsys.readouterr().out


def test_hydra_leaves_the_warnings_of_others_alone() -> None:
    ours = logging.getLogger("ratchet.data.cache")
    application(["experiment=generic/shapes/segmentation/smp"])
    assert ours.isEnabledFor(logging.WARNING)


def test_the_users_command_composes_its_four_trials() -> None:
    composed = application(
        [
            "experiment=generic/oxford_pet/segmentation/smp",
            "trainer.max_epochs=5",
            "core.name=cats_vs_dogs",
            "backbone.model.arch=unet,unetplusplus",
            "backbone.model.encoder_name=resnet18,resnet50",
            "--multirun",
        ]
    )
    assert composed is not None
    configs = composed.configs
    models = [(config.backbone.model["arch"], config.backbone.model["encoder_name"]) for config in configs]
    assert models == [(arch, encoder) for arch in ("unet", "unetplusplus") for encoder in ("resnet18", "resnet50")]
    assert {config.core.name for config in configs} == {"cats_vs_dogs"}


def test_the_tree_that_the_command_line_names_is_swept_too(tmp_path: Path) -> None:
    tree = tmp_path / "a tree"
    shutil.copytree(CONFIGS, tree)
    file = tree / "trainer" / "default.yaml"
    file.write_text(file.read_text().replace("max_epochs: 20", "max_epochs: 7"))
    composed = application(["-cp", str(tree), "backbone.model.arch=unet,fpn", "--multirun"])
    assert composed is not None
    assert [config.trainer["max_epochs"] for config in composed.configs] == [7, 7]


NETWORK = "{_target_: ratchet.training.create_network, arch: unet, encoder_name: resnet18, encoder_weights: /etc/x.pth}"


@pytest.mark.parametrize(
    "override",
    [f"+loss.x=[{NETWORK}]", f"+loss.x=[[{NETWORK}]]", "datamodule._target_=ratchet.training.create_network"],
)
def test_a_list_hides_nothing_that_reads_files(override: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_DATA_ROOTS", str(tmp_path))
    with pytest.raises(ForbiddenPathError, match="it reads files"):
        compose([f"datamodule.data_path={tmp_path}", override])


@pytest.mark.parametrize("key", ["/any/where", "../../elsewhere", "a b"])
def test_the_name_of_a_callback_is_that_of_a_folder(key: str) -> None:
    kept = "{_target_: pytorch_lightning.callbacks.ModelCheckpoint, monitor: val_iou, mode: max}"
    with pytest.raises(ConfigError, match="callbacks"):
        compose([f"+callbacks={{{key}: {kept}}}"])


@pytest.mark.parametrize("place", ["itself", "name", "list", "train_transform"])
def test_the_data_module_that_a_run_names_is_one_and_has_nothing_else_within(place: str, tmp_path: Path) -> None:
    network = {"_target_": "ratchet.training.create_network", "arch": "unet", "encoder_name": "resnet18"}
    data = compose(["datamodule=base/segmentation", f"datamodule.data_path={tmp_path}", *CLASSES]).datamodule
    inner = {"list": {"name": [network]}, "itself": network}.get(place, {place: network})
    allowed = place == "train_transform"  # which no judgement uses
    with contextlib.nullcontext() if allowed else pytest.raises(ForbiddenTargetError, match="a data module"):
        gate_data({"datamodule": data | inner})


CLASSES = ["datamodule.idx_to_class={1: a}"]


@pytest.mark.parametrize("name", ["cats/dogs", "a:b", "m.history"])
def test_a_model_that_could_not_be_registered_is_refused_before_anything_is_downloaded(name: str) -> None:
    with pytest.raises(ConfigError, match=f"retrain.model={name}: .*cannot be a model name"):
        check_trials(compose_space([f"core.name='{name}'"]))


SMP = "segmentation_models_pytorch.losses"
BINARY = f"{{_target_: {SMP}.FocalLoss, mode: binary}}"
EVERY_FIFTH = ["scheduler=constant", "+callbacks.model_checkpoint.every_n_epochs=5"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["~loss", f"+loss={{_target_: {SMP}.FocalLoss, mode: binary}}"], "it is multiclass"),
        (["~loss", f"+loss={{_target_: {SMP}.MCCLoss}}"], "for probabilities"),
        (["~loss", f"+loss={{_target_: {SMP}.DiceLoss, mode: multiclass, from_logits: false}}"], "for probabilities"),
        (["+trainer.deterministic=true"], r"core\.deterministic"),
        (["+trainer.strategy=ddp"], "one device"),
        (["+callbacks.bar={_target_: pytorch_lightning.callbacks.RichProgressBar}"], "table of its own"),
        (["+callbacks.size={_target_: pytorch_lightning.callbacks.BatchSizeFinder}"], "batch_size=auto"),
        (["trainer.max_epochs=5", "trainer.check_val_every_n_epoch=10", "scheduler=constant"], "keep no epoch"),
        (["callbacks.model_checkpoint.save_top_k=0"], "keep no epoch"),
        (["trainer.max_epochs=10", "trainer.check_val_every_n_epoch=3", *EVERY_FIFTH], "keep no epoch"),
        (["+callbacks.pruning={_target_: pytorch_lightning.callbacks.ModelPruning}"], "masks are in no checkpoint"),
        (
            ["+callbacks.swa={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.01}"],
            "its average is there only when the training is over",
        ),
        (
            ["~loss", f"+loss={{_target_: ratchet.training.losses.SumLoss, losses: [{BINARY}], weights: [1]}}"],
            "it is multiclass",
        ),
        (["+trainer.fast_dev_run=true"], r"trainer\.max_epochs=1"),
        (["trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=500"], "scheduler=plateau"),
    ],
)
def test_what_could_only_end_badly_is_refused_before_it_is_trained(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)
