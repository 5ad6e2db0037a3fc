"""Losses on logits (B, C, H, W) against class indices (B, H, W): one name each, for one output and for many."""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn


def _mode(num_outputs: int) -> str:
    return "binary" if num_outputs == 1 else "multiclass"


class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient over the batch, averaged over the classes (Milletari 2016, arXiv:1606.04797).

    Of one output it is not defined in a batch without foreground: there it is the mean probability, so that what is found in
    clean images has its price.
    """

    def __init__(self, *, num_outputs: int, smooth: float = 0.0) -> None:
        super().__init__()
        self._binary = num_outputs == 1
        self._loss = smp.losses.DiceLoss(_mode(num_outputs), from_logits=True, smooth=smooth)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar in [0, 1]."""
        loss: Tensor = self._loss(logits, mask)
        return torch.where((mask > 0).any(), loss, logits.sigmoid().mean()) if self._binary else loss


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
        # Its own mean over pixels has no deterministic form on a GPU.
        return nn.functional.cross_entropy(logits, mask, label_smoothing=self._smoothing, reduction="none").mean()


class FocalLoss(nn.Module):
    """Cross-entropy that weighs easy pixels down by (1 - p)^gamma (Lin 2017, arXiv:1708.02002); the mean over pixels.

    p is the probability of the true class: a sigmoid's for one output, a softmax's otherwise.
    """

    def __init__(self, *, num_outputs: int, gamma: float = 2.0) -> None:
        super().__init__()
        self._binary = num_outputs == 1
        self._gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return a scalar in nats."""
        if self._binary:
            target = mask.unsqueeze(1).to(logits.dtype)
            nats = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            nats = nn.functional.cross_entropy(logits, mask, reduction="none")
        # 1 - p, which is zero where a pixel is as easy as can be: a power below 1 has no slope there.
        missed = -torch.expm1(-nats)
        return (missed.clamp_min(1e-6) ** self._gamma * nats).mean()


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
