"""Losses on logits (B, C, H, W) against class indices (B, H, W): one name each, for one output and for many."""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn


def _mode(num_outputs: int) -> str:
    return "binary" if num_outputs == 1 else "multiclass"


class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient over the batch, averaged over the classes (Milletari 2016, arXiv:1606.04797)."""

    def __init__(self, *, num_outputs: int, smooth: float = 0.0) -> None:
        super().__init__()
        self._loss = smp.losses.DiceLoss(_mode(num_outputs), from_logits=True, smooth=smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar in [0, 1]."""
        return self._loss(logits, mask)  # type: ignore[no-any-return]


class CrossEntropyLoss(nn.Module):
    """Binary cross-entropy for one output, cross-entropy over the classes otherwise; the mean over pixels."""

    def __init__(self, *, num_outputs: int, smoothing: float = 0.0) -> None:
        super().__init__()
        self._binary = num_outputs == 1
        self._smoothing = smoothing

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar in nats."""
        if self._binary:
            target = mask.unsqueeze(1).to(logits.dtype)
            target = target * (1 - self._smoothing) + self._smoothing / 2
            return nn.functional.binary_cross_entropy_with_logits(logits, target)
        return nn.functional.cross_entropy(logits, mask, label_smoothing=self._smoothing)


class FocalLoss(nn.Module):
    """Cross-entropy that weighs easy pixels down by (1 - p)^gamma (Lin 2017, arXiv:1708.02002); the mean over pixels."""

    def __init__(self, *, num_outputs: int, gamma: float = 2.0) -> None:
        super().__init__()
        self._loss = smp.losses.FocalLoss(_mode(num_outputs), gamma=gamma)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar in nats."""
        return self._loss(logits, mask)  # type: ignore[no-any-return]


class SumLoss(nn.Module):
    """The weighted sum of several losses."""

    def __init__(self, *, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if len(losses) != len(weights):
            raise ValueError(f"{len(losses)} losses need as many weights, not {len(weights)}")
        self._losses = nn.ModuleList(losses)
        self._weights = tuple(weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar."""
        parts = [weight * loss(logits, mask) for weight, loss in zip(self._weights, self._losses, strict=True)]
        return torch.stack(parts).sum()
