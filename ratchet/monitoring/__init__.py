"""Watches the champion on images that came after its training."""
