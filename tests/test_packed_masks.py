"""Predicted masks that are kept for pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ratchet.evaluation.packed import PackedMasks


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40), most=st.integers(1, 255))
def test_every_mask_comes_back_as_it_was_at_its_position(seed: int, height: int, width: int, most: int) -> None:
    masks = torch.from_numpy(np.random.default_rng(seed).integers(0, most + 1, (3, height, width), dtype=np.uint8))
    packed = PackedMasks()
    packed.add(torch.tensor([7, 0]), masks[:2])
    packed.add(torch.tensor([3]), masks[2:])
    for position, mask in zip((7, 0, 3), masks, strict=True):
        np.testing.assert_array_equal(packed[position], mask.numpy())
    with pytest.raises(KeyError):
        packed[1]
