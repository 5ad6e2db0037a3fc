"""Lengths of time as people write them: `2h`, `1h30m`, `45s`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"\d+(?:\.\d+)?"


def parse_duration(value: Any) -> Any:
    """Return the seconds of a text such as `1h30m`; a number is seconds already. Raises `ValueError`."""
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "").lower()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    if not re.fullmatch(f"({_NUMBER}[dhms])+", text):
        raise ValueError(f"{value!r} is no length of time: write 2h, 1h30m or 45s")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(rf"({_NUMBER})([dhms])", text))


def shown_duration(seconds: float) -> str:
    """Return the two largest units that say anything: `1h30m`, `2m05s`, `45s`."""
    whole = max(round(seconds), 0)
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours}h{minutes:02d}m" if minutes else f"{hours}h"


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
"""Seconds, positive; validates texts such as `1h30m`."""
