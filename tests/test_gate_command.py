"""`ratchet gate` on a real store: judging at any time, replaying a record, trying a policy on the past."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from exported_models import SIZE, discs, export
from torch import Tensor, nn

from flows.cli import main
from ratchet import MlflowModelManager
from ratchet.gate import Verdict, read_counts
from ratchet.judgement.records import judgements, last_verdict
from ratchet.registry import Event, EventKind
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client

pytestmark = pytest.mark.slow

IMAGES = 60
POLICY = {"name": "of the run", "floor": 0.3, "superiority": {"confidence": 0.95}, "resamples": 1_000}


class Weighted(nn.Module):
    """Finds what is brighter than a threshold, its colours weighted: each colour of an image has noise of its own."""

    def __init__(self, red: float, green: float, blue: float, threshold: float) -> None:
        super().__init__()
        self.red, self.green, self.blue, self.threshold = red, green, blue, threshold

    def forward(self, images: Tensor) -> Tensor:
        bright = self.red * images[:, :1] + self.green * images[:, 1:2] + self.blue * images[:, 2:]
        return bright - self.threshold


GOOD, EQUAL, BAD = Weighted(1, 0, 0, 0.52), Weighted(0, 1, 0, 0.52), Weighted(1, 0, 0, 0.62)
BETTER, ALSO_BETTER = Weighted(0.4, 0.3, 0.3, 0.52), Weighted(0.3, 0.4, 0.3, 0.52)


def draw(folder: Path, first: int) -> Path:
    """A data set, nearly all of it gate set."""
    discs(folder, range(first, first + IMAGES))
    names = [f"disc{number:03}" for number in range(first, first + IMAGES)]
    for split, chosen in {"train": names[:2], "val": names[2:4], "test": names[4:6], "gate": names[6:]}.items():
        (folder / f"{split}.txt").write_text("\n".join(chosen))
    return folder


def train(folder: Path, data: Path, module: nn.Module) -> str:
    """What `ratchet train` leaves: a run with the configuration and the model; returns the model's location."""
    node = {"_target_": "ratchet.data.FolderDataModule", "data_path": str(data), "idx_to_class": {1: "disc"}}
    node |= {"input_height": SIZE, "input_width": SIZE, "mean": [0, 0, 0], "std": [1, 1, 1]}
    export(folder / "deployment_model", module, reference=module)
    (folder / "config.yaml").write_text(yaml.safe_dump({"datamodule": node, "gate": POLICY}))
    run_id = client().create_run(ensure_experiment("discs")).info.run_id
    client().log_artifacts(run_id, str(folder))
    client().set_terminated(run_id)
    return f"runs:/{run_id}/deployment_model"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A home whose model `discs` has v1 in production, and v4, v3, v2 judged against it."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_store, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        data, manager = draw(home / "data", 0), MlflowModelManager()
        for number, module in enumerate((GOOD, EQUAL, BAD, BETTER), start=1):
            manager.register_model(train(home / f"v{number}", data, module), "discs")
        judged("1", 0, "promote")
        manager.promote("discs", 1, expected_champion=None)
        judged("4", 0, "promote")
        judged("3", 3, "reject")
        judged("2", 4, "inconclusive")
        yield home


def judged(version: str, code: int, outcome: str) -> None:
    done = gate("discs", version)
    assert (done.exit_code, done.output.split(":")[0]) == (code, outcome), done.output
    assert f"{record(int(version))}/report.html" in done.output
    told = f"nothing was moved: ratchet promote discs {version} --replacing "
    assert (told in done.output) == (outcome == "promote")


def gate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["gate", *arguments])


def record(version: int) -> Path:
    """The folder that the last judgement of a version left."""
    last = last_verdict(MlflowModelManager(), "discs", version)
    digest, run_id = last.verdict_digest, last.run_id
    uri = client().get_run(str(run_id)).info.artifact_uri
    return Path(str(uri).removeprefix("file://")) / "gate" / str(digest)[:12]


def verdict(version: int) -> Verdict:
    return Verdict.from_json((record(version) / "verdict.json").read_text())


def test_each_judging_leaves_a_verdict_a_page_and_a_tag_and_is_one_more_use(store: Path) -> None:
    for version, uses in ((3, 2), (2, 3)):
        assert verdict(version).policy.name == "of the run"
        assert verdict(version).context.earlier_uses == uses
        page = (record(version) / "report.html").read_text()
        assert "<figure>" in page
        assert len(page) < 3_000_000
        tags = MlflowModelManager().version("discs", version).tags
        assert tags["ratchet.verdict"] == verdict(version).digest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("discs", "9"), "no version 9"),
        (("nothing", "1"), "nothing"),
        (("discs", "2", "--policy", "strickt"), "did you mean 'strict'"),
        (("discs", "2", "--policy", '{"flor": 1}'), "did you mean 'floor'"),
        (("discs", "2", "--data", "/nowhere"), "/nowhere is not a folder"),
        (("replay", "discs", "9"), "no version 9"),
    ],
)
def test_a_mistake_exits_with_one_and_says_what_is_wrong(store: Path, arguments: tuple[str, ...], said: str) -> None:
    done = gate(*arguments)
    assert done.exit_code == 1, done.output
    assert said in done.output


def test_another_judging_of_a_version_is_no_further_use_and_a_worn_gate_set_is_warned_of(store: Path) -> None:
    eager = json.dumps(POLICY | {"reuse_risk": 0.1})
    for _ in range(2):
        assert gate("discs", "4", "--policy", eager).exit_code == 0
    found = verdict(4)
    assert found.context.earlier_uses == 3
    assert "now judged 4 challengers" in found.notes[0]
    assert "now judged 4 challengers" in (record(4) / "report.html").read_text()


def test_the_current_content_of_another_folder_can_be_judged_on(store: Path) -> None:
    other = draw(store / "other", 100)
    assert gate("discs", "4", "--data", str(other)).exit_code == 0
    found = verdict(4)
    assert found.context.earlier_uses == 0
    assert gate("discs", "2", "--data", str(other)).exit_code == 4
    assert verdict(2).context.earlier_uses == 1
    (other / "images" / "disc109.png").unlink()
    (other / "masks" / "disc109.png").unlink()
    (other / "gate.txt").write_text("\n".join(f"disc{n}" for n in range(106, 100 + IMAGES) if n != 109))
    assert gate("discs", "4", "--data", str(other)).exit_code == 0
    assert verdict(4).n_images == found.n_images - 1
    assert verdict(4).gate_set != found.gate_set


def test_a_comparison_with_another_version_decides_nothing(store: Path) -> None:
    manager = MlflowModelManager()
    tag = manager.version("discs", 3).tags["ratchet.verdict"]
    assert gate("discs", "3", "--against", "2").exit_code == 3
    event = manager.history("discs")[-1]
    assert (event.kind, event.outcome) == (EventKind.NOTED, "reject")
    assert event.reason.startswith("compared with v2")
    assert manager.version("discs", 3).tags["ratchet.verdict"] == tag


def test_a_replay_needs_no_torch_and_notices_a_changed_byte(store: Path) -> None:
    path = record(3) / "verdict.json"
    script = f"""
import sys
from click.testing import CliRunner
from flows.cli import main
done = CliRunner().invoke(main, ["gate", "replay", {str(path)!r}])
print(done.output, {{"torch", "mlflow", "prefect"}} & set(sys.modules), done.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("set() 0"), done.stdout
    assert verdict(3).digest in done.stdout
    assert gate("replay", "discs", "3").exit_code == 0
    counts = record(3) / "challenger.parquet"
    good = counts.read_bytes()
    middle = len(good) // 3
    counts.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    for arguments in (("replay", str(path)), ("replay", "discs", "3")):
        broken = gate(*arguments)
        assert broken.exit_code == 1
        assert "challenger.parquet" in broken.output
    counts.write_bytes(good)
    assert gate("replay", "discs", "3").exit_code == 0


def test_a_consistent_record_of_another_verdict_is_found_out_by_the_history(store: Path) -> None:
    folder = record(2)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for path in record(3).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert gate("replay", str(folder / "verdict.json")).exit_code == 0
    assert gate("replay", "discs", "2").exit_code == 1
    for path, content in kept.items():
        path.write_bytes(content)


def test_a_backtest_says_what_another_policy_would_have_decided(store: Path) -> None:
    same = gate("backtest", "discs", "--policy", json.dumps(POLICY))
    assert same.exit_code == 0, same.output
    assert "4 judged versions: then 2 promote; policy of the run 2" in same.output
    loose = {"name": "loose", "floor": 0.3, "superiority": None, "non_inferiority": {"margin": 0.3, "overall": True}}
    other = gate("backtest", "discs", "--policy", json.dumps(loose))
    assert "policy loose 4" in other.output
    assert re.search(r"v3 .* reject, against v1 .* promote, against v1", other.output), other.output
    strict = gate("backtest", "discs", "--policy", "strict", "--last", "2")
    assert "2 judged versions" in strict.output
    assert "against v1" in strict.output


def test_a_record_that_is_gone_is_left_out_of_a_backtest(store: Path) -> None:
    there = record(2)
    gone = there.rename(there.with_name("gone"))
    try:
        done = gate("backtest", "discs", "--policy", json.dumps(POLICY))
    finally:
        gone.rename(there)
    assert done.exit_code == 0, done.output
    assert "left out: the record of v2's verdict" in done.output
    assert "v3" in done.output


def test_a_version_without_a_run_is_judged_on_the_champions_data(store: Path) -> None:
    manager = MlflowModelManager()
    made = manager.register_model(str(export(store / "elsewhere", ALSO_BETTER)), "discs")
    assert gate("discs", str(made.version)).exit_code == 0
    assert (record(made.version) / "verdict.json").is_file()
    assert gate("replay", "discs", str(made.version)).exit_code == 0
    decided = MlflowModelManager().history("discs")[-1]
    compared = gate("discs", str(made.version), "--against", "2")
    page = Path(compared.output.split("report: ")[1].strip())
    assert page.is_file()
    again = re.search(r"ratchet gate (replay \S+ \d+ --verdict [0-9a-f]+)", page.read_text())
    assert again is not None
    replayed = gate(*again[1].split())
    assert replayed.exit_code == 0, replayed.output
    digest = str(MlflowModelManager().history("discs")[-1].verdict_digest)
    assert digest != decided.verdict_digest
    assert f"bit for bit: {digest} (the digest is the one in the history)" in replayed.output
    assert gate("replay", "discs", str(made.version), "--verdict", "0" * 12).exit_code == 1


def test_a_policy_on_the_contours_counts_them_for_both_models(store: Path) -> None:
    contours = json.dumps(POLICY | {"metric": "boundary_iou", "floor": 0.1})
    assert gate("discs", "4", "--policy", contours).exit_code == 0
    assert gate("replay", "discs", "4").exit_code == 0
    assert verdict(4).interval is not None
    for role in ("challenger", "champion"):
        counts = read_counts(record(4) / f"{role}.parquet")
        assert counts.boundary is not None
        assert (counts.boundary.sum(axis=0) <= counts.tp + counts.fp + counts.fn).all()


def test_without_a_policy_a_version_is_judged_by_the_one_that_judged_it_first(store: Path) -> None:
    """That of its retraining: its run may be another's, which was reused."""
    data, manager = store / "data", MlflowModelManager()
    made = manager.register_model(train(store / "reused", data, Weighted(0.35, 0.35, 0.3, 0.52)), "discs").version
    own = POLICY | {"name": "its own", "floor": 0.99}
    assert gate("discs", str(made), "--policy", json.dumps(own)).exit_code == 3
    assert gate("discs", str(made)).exit_code == 3
    assert verdict(made).policy.floor == 0.99
    assert "policy its own" in gate("discs", str(made)).output


def test_data_that_are_not_where_they_were_can_be_named(store: Path) -> None:
    moved = (store / "data").rename(store / "moved")
    try:
        done = gate("discs", "3")
        assert (done.exit_code, "--data" in done.output) == (1, True), done.output
        assert gate("discs", "3", "--data", str(moved)).exit_code == 3
    finally:
        moved.rename(store / "data")


def event(number: int, kind: EventKind, version: int, digest: str, *, run_id: str | None = "r") -> Event:
    return Event(
        id=str(number),
        kind=kind,
        version=version,
        who="x",
        verdict_digest=digest,
        gate_set="g",
        run_id=run_id,
        number=number,
    )


def test_what_is_judged_again_later_does_not_rewrite_what_was_decided() -> None:
    history = [
        event(1, EventKind.GATED, 1, "first"),
        event(2, EventKind.PROMOTED, 1, "first", run_id=None),
        event(3, EventKind.GATED, 2, "while asked"),
        event(4, EventKind.GATED, 2, "shown"),
        event(5, EventKind.GATED, 2, "on another folder"),
        event(6, EventKind.PROMOTED, 2, "shown", run_id=None),
        event(7, EventKind.GATED, 1, "against v2"),
        event(8, EventKind.GATED, 3, "refused"),
        event(9, EventKind.GATED, 3, "refused again"),
    ]
    assert [found.verdict_digest for found in judgements(history)] == ["first", "shown", "refused again"]
