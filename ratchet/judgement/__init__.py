"""Judging registered versions: what the gate's pure rules need is measured here, and the record of it kept."""

from ratchet.judgement.judging import PICTURE_FILE, OnImage, judge_version, judgement_path

__all__ = ["PICTURE_FILE", "OnImage", "judge_version", "judgement_path"]
