"""Watches the champion: is it proven worse on the newest labelled images than on the ones that it was promoted on?"""

from __future__ import annotations

from pydantic import Field

from ratchet.settings import Settings


class MonitorSettings(Settings):
    """What counts as worse."""

    margin: float = Field(0.05, ge=0, lt=1, description="The loss that is still accepted, in units of the metric.")
    confidence: float = Field(0.95, ge=0.5, lt=1, description="One-sided confidence that the loss is larger than that.")
    newest: int = Field(200, ge=20, description="Of the images that came since, so many are scored, the newest first.")
    min_images: int = Field(20, ge=4, description="With fewer new images nothing is concluded.")
