"""The cache of decoded pixels changes the speed of training and nothing else."""

import errno
import fcntl
import gc
import os
import pickle
import resource
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ratchet.data import FolderDataModule
from ratchet.data.cache import _SPARE, PixelCache
from ratchet.data.resizing import read_pixels
from ratchet.errors import ConfigError, UnreadableImageError

AUGMENTATION = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(15, (0.1, 0.1)), v2.ColorJitter(0.2, 0.2)])
IMAGES, SIDE = 20, 32
FILE_BYTES = IMAGES * (4 * SIDE * SIDE + 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several sizes and kinds."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "parts" / kind).mkdir(parents=True)
    for number in range(IMAGES):
        size = (40 + number, 50) if number else (SIDE, SIDE)
        shape = size if number == 3 else (*size, 3)
        image = Image.fromarray(rng.integers(0, 256, size=shape, dtype=np.uint8))
        image.save(tmp_path / "parts" / "images" / f"{number:02d}.{'jpg' if number % 2 else 'png'}")
        mask = Image.fromarray(rng.choice(np.array([0, 7, 255], dtype=np.uint8), size=size))
        mask.save(tmp_path / "parts" / "masks" / f"{number:02d}.png")
    return tmp_path / "parts"


def module(folder: Path, **options: Any) -> FolderDataModule:
    settings: dict[str, Any] = {
        "idx_to_class": {1: "scratch", 2: "dent"},
        "mask_values": {0: 0, 7: 1, 255: 2},
        "input_height": SIDE,
        "input_width": SIDE,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "batch_size": 4,
        "train_transform": AUGMENTATION,
        "cache": True,
        "cache_path": folder.parent / "cache",
    }
    return FolderDataModule(data_path=folder, **{**settings, **options})


def epochs(data: FolderDataModule) -> list[dict[str, torch.Tensor]]:
    loader = data.train_dataloader()
    batches = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        batches += list(loader)
    return [*batches, *data.val_dataloader(), *data.test_dataloader()]


def assert_same(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        assert all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


def files(folder: Path, suffix: str = "npy") -> list[Path]:
    return sorted((folder.parent / "cache").glob(f"*.{suffix}"))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_same_to_the_bit_with_and_without_a_cache(folder: Path, workers: int) -> None:
    assert_same(epochs(module(folder, cache=False)), epochs(module(folder, num_workers=workers)))
    assert files(folder)


def test_without_a_cache_nothing_is_written(folder: Path) -> None:
    epochs(module(folder, cache=False))
    assert not (folder.parent / "cache").exists()


def test_it_is_made_once_whatever_the_names_splits_and_augmentation(folder: Path) -> None:
    decoded: list[int] = []
    module(folder).fill_cache(lambda done, total: decoded.append(done))
    assert decoded == list(range(1, IMAGES + 1))
    (folder / "images" / "00.png").rename(folder / "images" / "other.png")
    (folder / "masks" / "00.png").rename(folder / "masks" / "other.png")
    for same in ({"seed": 7}, {"train_transform": None}, {"batch_size": 2}, {"mean": (0, 0, 0)}):
        module(folder, **same).fill_cache(lambda done, total: decoded.append(done))
    assert len(decoded) == IMAGES
    assert len(files(folder)) == 1


def test_other_pixels_have_another_file(folder: Path) -> None:
    module(folder).fill_cache()
    for number, other in enumerate(
        ({"input_height": 16}, {"input_width": 64}, {"mask_values": {0: 0, 7: 2, 255: 1}}), start=2
    ):
        module(folder, **other).fill_cache()
        assert len(files(folder)) == number
    Image.new("RGB", (41, 50)).save(folder / "images" / "01.jpg", quality=10)
    Image.new("L", (41, 50)).save(folder / "masks" / "01.png")
    module(folder).fill_cache()
    assert len(files(folder)) == 5


def test_what_was_read_by_earlier_rules_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as then:  # what an earlier Ratchet left
        for place in ("cache", "digests"):
            then.setattr(f"ratchet.data.{place}.READING", 3)
        module(folder).fill_cache()
    module(folder).fill_cache()
    assert len(files(folder)) == 2


def test_two_that_need_it_at_once_make_it_once(folder: Path) -> None:
    decoded: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: module(folder).fill_cache(lambda done, total: decoded.append(done)), range(4)))
    assert len(decoded) == IMAGES


def test_a_file_cut_short_is_made_anew(folder: Path) -> None:
    expected = epochs(module(folder))
    (file,) = files(folder)
    whole = file.read_bytes()
    for cut in (0, 10, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert_same(epochs(module(folder)), expected)
        assert file.read_bytes() == whole


def test_who_still_has_a_damaged_file_open_does_not_remove_the_one_that_was_made_since(folder: Path) -> None:
    module(folder).fill_cache()
    (file,) = files(folder)
    whole = bytearray(file.read_bytes())
    whole[-10 - 64 * (IMAGES + 1)] ^= 1  # in the last row, before what follows the rows
    file.write_bytes(whole)
    old = PixelCache(file)
    assert old.read(IMAGES - 1) is None
    assert not file.exists()
    module(folder).fill_cache()
    assert old.read(IMAGES - 1) is None
    assert file.exists()


def test_two_that_are_made_at_once_stay_within_the_bound_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, asked = 1.5 * FILE_BYTES / 10**9, shutil.disk_usage
    looking, begun, settled = threading.Barrier(2, timeout=1), list[int](), threading.Event()

    def together(place: Path) -> Any:
        with suppress(threading.BrokenBarrierError):  # nobody looks for room while another one does
            looking.wait()
        return asked(place)

    def begin(done: int, _: int) -> None:
        if done == 1:
            begun.append(done)
            if len(begun) == 2:
                settled.set()
            assert settled.wait(60)  # until the other one has begun to write too, or has found no room

    def fill(height: int) -> FolderDataModule:
        data = module(folder, cache_gb=limit, input_height=height)
        data.fill_cache(begin)
        settled.set()
        return data

    monkeypatch.setattr("ratchet.data.cache.shutil.disk_usage", together)
    with ThreadPoolExecutor(2) as pool:
        held = list(pool.map(fill, (SIDE, SIDE - 1)))
    assert sorted(data._pixels is None for data in held) == [False, True]
    assert len(files(folder)) == 1
    assert sum(file.stat().st_size for file in files(folder)) <= limit * 10**9


def test_where_locks_want_files_that_can_be_written_the_oldest_is_evicted_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def as_on_nfs(file: Any, how: int) -> None:
        if how & fcntl.LOCK_EX and hasattr(file, "mode") and file.mode == "rb":
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    limit = 1.5 * FILE_BYTES / 10**9
    module(folder, cache_gb=limit).fill_cache()
    (first,) = files(folder)
    gc.collect()
    module(folder, cache_gb=limit, mask_values={0: 0, 7: 2, 255: 1}).fill_cache()
    (second,) = files(folder)
    assert first != second


def test_a_damaged_row_is_never_trained_on_and_the_file_is_made_anew(folder: Path) -> None:
    expected = epochs(module(folder))
    (file,) = files(folder)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    assert_same(epochs(module(folder)), expected)
    assert not files(folder)
    assert_same(epochs(module(folder)), expected)
    assert files(folder)


def test_an_unreadable_image_is_named_and_leaves_nothing_behind(folder: Path) -> None:
    broken = folder / "images" / "05.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(UnreadableImageError, match=r"05\.jpg"):
        module(folder).fill_cache()
    assert not files(folder)
    assert not files(folder, "partial")


def test_an_image_that_changes_between_hashing_and_decoding_is_refused(folder: Path) -> None:
    data = module(folder)
    data.prepare()
    Image.new("RGB", (50, 44)).save(folder / "images" / "04.png")
    with pytest.raises(UnreadableImageError, match=r"04\.png.*changed"):
        data.fill_cache()


def test_an_image_that_changes_while_it_is_trained_on_without_a_cache_is_refused(folder: Path) -> None:
    data = module(folder, cache=False)
    assert len(epochs(data)) > 1
    Image.new("RGB", (50, 44)).save(folder / "images" / "04.png")
    with pytest.raises(UnreadableImageError, match=r"04\.png.*changed"):
        epochs(data)


def test_the_file_unused_for_longest_makes_room_and_one_in_use_never_does(folder: Path) -> None:
    limit = {"cache_gb": 3.5 * FILE_BYTES / 1e9}
    made = []
    for number, seed in enumerate("abc"):
        Image.new("RGB", (50, 45), number).save(folder / "images" / "05.jpg", comment=seed)
        module(folder, **limit).fill_cache()
        made.append(*(set(files(folder)) - set(made)))
    for age, file in enumerate(made):
        os.utime(file, (1000 + age, 1000 + age))
    held = [module(folder, **limit)]
    held[0].fill_cache()  # the newest content is the third file: it is touched, and in use now
    Image.new("RGB", (50, 45), "red").save(folder / "images" / "05.jpg")
    module(folder, **limit).fill_cache()
    assert set(made) - set(files(folder)) == {made[0]}
    os.utime(made[2], (1, 1))
    Image.new("RGB", (50, 45), "blue").save(folder / "images" / "05.jpg")
    module(folder, **limit).fill_cache()
    assert set(made) - set(files(folder)) == {made[0], made[1]}
    assert len(files(folder)) == 3


@pytest.mark.parametrize("gigabytes", [0.0, 0.9 * FILE_BYTES / 1e9])
def test_pixels_beyond_the_limit_are_decoded_each_time_and_it_is_said(
    folder: Path, gigabytes: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert_same(epochs(module(folder, cache_gb=gigabytes)), epochs(module(folder, cache=False)))
    assert not files(folder)
    assert [record.levelname for record in caplog.records if record.name.startswith("ratchet.data")] == ["WARNING"]
    assert "datamodule.cache_gb" in caplog.text


@contextmanager
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the images that are decoded in the block."""
    names = list[str]()

    def noted(image: Path, *rest: Any, **options: Any) -> Any:
        names.append(image.stem)
        return read_pixels(image, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr("ratchet.data.cache.read_pixels", noted)
        yield names


def add_one(folder: Path) -> None:
    for kind in ("images", "masks"):
        Image.new("L", (50, 45), 7).save(folder / kind / "more.png")


def test_of_images_that_grew_in_number_only_the_new_ones_are_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(folder).fill_cache()
    add_one(folder)
    (folder / "images" / "06.png").unlink()
    (folder / "masks" / "06.png").unlink()
    expected = epochs(module(folder, cache=False))
    with decoded(monkeypatch) as names:
        assert_same(epochs(module(folder)), expected)
    assert names == ["more"]
    assert len(files(folder)) == 2
    with decoded(monkeypatch) as names:  # nothing is taken from pixels that mean something else
        assert_same(
            epochs(module(folder, mask_values={0: 0, 7: 2, 255: 1})),
            epochs(module(folder, cache=False, mask_values={0: 0, 7: 2, 255: 1})),
        )
    assert len(names) == IMAGES


def test_what_is_damaged_is_decoded_and_not_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(folder).fill_cache()
    (file,) = files(folder)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    add_one(folder)
    with decoded(monkeypatch) as names:
        assert_same(epochs(module(folder)), epochs(module(folder, cache=False)))
    assert len(names) == 2
    assert len(files(folder)) == 1


def test_where_there_is_no_room_for_both_the_one_that_could_be_copied_goes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module(folder).fill_cache()
    (old,) = files(folder)
    gc.collect()
    add_one(folder)
    module(folder, cache_gb=1.5 * FILE_BYTES / 1e9).fill_cache()
    (new,) = files(folder)
    assert new != old
    assert not [record for record in caplog.records if record.name.startswith("ratchet.data")]


def test_on_a_full_disk_the_oldest_makes_room_and_one_that_is_open_stays_which_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def disk(_: Path) -> SimpleNamespace:
        taken = sum(file.stat().st_size for file in files(folder))
        return SimpleNamespace(free=_SPARE + round(2.5 * FILE_BYTES) - taken)

    monkeypatch.setattr("ratchet.data.cache.shutil.disk_usage", disk)
    module(folder).fill_cache()
    (oldest,) = files(folder)
    module(folder, input_height=SIDE - 1).fill_cache()
    (newer,) = set(files(folder)) - {oldest}
    gc.collect()
    for age, file in enumerate((oldest, newer)):
        os.utime(file, (1000 + age, 1000 + age))
    held = [module(folder, input_height=SIDE - number) for number in (2, 1)]
    for data in held:
        data.fill_cache()
    kept = files(folder)
    assert (oldest in kept, newer in kept, len(kept)) == (False, True, 2)
    assert "without a cache" not in caplog.text
    another = {"input_height": SIDE - 3}
    assert_same(epochs(module(folder, **another)), epochs(module(folder, cache=False, **another)))
    assert files(folder) == kept
    assert "without a cache" in caplog.text
    assert f"the disk of {folder.parent / 'cache'} has" in caplog.text


def test_a_disk_that_is_full_of_other_things_costs_no_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(folder).fill_cache()
    made = files(folder)
    gc.collect()
    monkeypatch.setattr("ratchet.data.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    module(folder, input_height=SIDE - 1).fill_cache()
    assert files(folder) == made


def test_pixels_that_can_never_fit_cost_the_others_nothing(folder: Path) -> None:
    module(folder).fill_cache()
    made = files(folder)
    Image.new("RGB", (50, 45), "red").save(folder / "images" / "05.jpg")
    module(folder, cache_gb=0.9 * FILE_BYTES / 1e9).fill_cache()
    assert files(folder) == made


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_costs_the_cache_and_not_the_training(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with no_file_above(FILE_BYTES // 2):
        assert_same(epochs(module(folder)), epochs(module(folder, cache=False)))
    assert not files(folder)
    assert not files(folder, "partial")
    assert "without a cache" in caplog.text


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    (folder.parent / "cache").mkdir()
    left, others = (folder.parent / "cache" / f"{name}.partial" for name in ("0123" * 16, "download"))
    for file in (left, others):
        file.write_bytes(b"half")
    module(folder).fill_cache()
    assert files(folder)
    assert not left.exists()
    assert others.exists()


def test_what_fills_the_edges_of_an_image_leaves_its_mask_empty(folder: Path) -> None:
    turned = v2.Compose([v2.RandomApply([v2.RandomAffine(degrees=45, fill=255)], p=1.0)])
    batches = list(module(folder, train_transform=turned).train_dataloader())
    assert {int(value) for batch in batches for value in batch["mask"].unique()} <= {0, 1, 2}
    assert any(float(batch["image"].max()) == 1.0 for batch in batches)


def test_a_transform_that_makes_other_classes_is_told(folder: Path) -> None:
    def shifted(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image, mask + 1

    with pytest.raises(ConfigError, match=r"train_transform puts \d into masks"):
        list(module(folder, train_transform=shifted).train_dataloader())


def test_what_others_keep_in_the_folder_is_not_evicted(folder: Path) -> None:
    (folder.parent / "cache").mkdir()
    embeddings = folder.parent / "cache" / "embeddings.npy"
    embeddings.write_bytes(bytes(FILE_BYTES))
    module(folder, cache_gb=1.5 * FILE_BYTES / 1e9).fill_cache()
    assert len(files(folder)) == 2
    assert embeddings.exists()


def test_a_data_set_with_a_cache_travels_without_its_pixels(folder: Path) -> None:
    dataset = module(folder).train_dataloader().dataset
    sent = pickle.dumps(dataset)
    assert len(sent) < FILE_BYTES // 4
    assert torch.equal(pickle.loads(sent)[0]["image"], dataset[0]["image"])


def test_an_augmentation_that_changes_the_size_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"an image \(3, 24, 24\).*input_height"):
        list(module(folder, train_transform=v2.RandomCrop(24)).train_dataloader())
