"""Training, evaluation and serving see an image the same way."""

import numpy as np
import pytest
import torch
from PIL import Image

from ratchet.data.preparation import normalise, prepare_image
from ratchet.data.resizing import resize_mask
from ratchet.errors import ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(100, 60), (32, 32), (7, 400), (1, 1)])
def test_any_size_becomes_the_input_size(shape: tuple[int, int]) -> None:
    prepared = prepare_image(noise(*shape), height=32, width=48, mean=MEAN, std=STD)
    assert prepared.shape == (3, 32, 48)
    assert prepared.dtype == torch.float32
    assert prepared.is_contiguous()


def test_an_image_of_the_input_size_is_only_normalised() -> None:
    image = noise(16, 16)
    prepared = prepare_image(image, height=16, width=16, mean=MEAN, std=STD)
    expected = (image / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(prepared.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_shrinking_is_antialiased_as_pillow_does_it() -> None:
    image = noise(256, 192)
    prepared = prepare_image(image, height=64, width=48, mean=(0, 0, 0), std=(1, 1, 1)) * 255
    reference = np.asarray(Image.fromarray(image).resize((48, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_allclose(prepared.numpy(), reference, atol=1e-4)


def test_preparing_does_not_touch_the_image() -> None:
    image = noise(20, 20)
    before = image.copy()
    prepare_image(image, height=8, width=8, mean=MEAN, std=STD)
    np.testing.assert_array_equal(image, before)


def test_a_mask_never_gets_a_class_that_it_did_not_have() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 2, 9], dtype=np.uint8), size=(50, 70))
    resized = resize_mask(mask, height=31, width=17)
    assert resized.shape == (31, 17)
    assert set(np.unique(resized).tolist()) <= {0, 2, 9}


def test_a_mask_stays_aligned_with_its_image() -> None:
    image = np.zeros((90, 90, 3), dtype=np.uint8)
    image[20:50, 40:80] = 255
    resized = prepare_image(image, height=30, width=60, mean=(0, 0, 0), std=(1, 1, 1))[0].numpy() > 0.5
    mask = resize_mask(np.uint8(image[:, :, 0] > 0), height=30, width=60) > 0
    assert (resized != mask).mean() < 0.03


def test_scaling_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="train_transform"):
        normalise(torch.zeros(3, 4, 4), mean=MEAN, std=STD)
