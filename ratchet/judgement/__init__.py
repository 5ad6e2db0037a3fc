"""Judging registered versions: what the gate's pure rules need is measured here, and the record of it kept."""
