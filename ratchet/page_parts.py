"""What Ratchet's pages share: self-contained, readable by day and by night, on paper and on a phone."""

from __future__ import annotations

import base64
import math
from html import escape

_SMALL, _LARGE = 1e-2, 1e4  # between them, four decimals say enough and no more than is known

# An <i> is a mark that is painted as a background, which browsers leave out on paper unless they are told not to.

HEAD = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>$title</title>
<style>
:root { --ink: #1c2126; --faint: #5b6570; --rule: #dde2e7; --soft: #f4f6f8; --page: #fff; --note: #fff6df;
  --good: #00795a; --warn: #a86600; --bad: #b8440c; --link: #0b67a3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --faint: #9aa5b1; --rule: #333b44; --soft: #1d232a; --page: #14181d; --note: #2d2613;
    --good: #3fc79a; --warn: #e9a83c; --bad: #ff8f5a; --link: #63b3ea } }
* { box-sizing: border-box }
body { margin: 0; color: var(--ink); background: var(--page); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif }
header p { margin: 0 }
section { margin: 2.4rem 0 }
h2 { font-size: 1.2rem; margin: 0 0 .3rem; font-weight: 650 }
.hint { margin: 0 0 .9rem; color: var(--faint); font-size: .9rem }
.note { margin: 1rem 0 0; padding: .7rem 1rem; border-left: 4px solid var(--warn); background: var(--note) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.5rem 0 }
.figures div { padding: .8rem 1rem; background: var(--soft); border-radius: 8px }
.figures b { display: block; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums }
.figures span { color: var(--faint); font-size: .85rem; line-height: 1.3; display: block }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: .92rem }
th { text-align: left; color: var(--faint); font-weight: 500; font-size: .82rem; white-space: nowrap }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
a { color: var(--link) }
code, pre { font: .86em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
figure { margin: 0 }
i { -webkit-print-color-adjust: exact; print-color-adjust: exact }
"""


def section(title: str, body: str, hint: str = "") -> str:
    """A part of a page below its title; empty where `body` is. Both `body` and `hint` are HTML."""
    shown = f"<p class=hint>{hint}</p>" if hint else ""
    return f"<section><h2>{escape(title)}</h2>{shown}{body}</section>" if body else ""


def data_uri(picture: bytes) -> str:
    """A PNG or a JPEG as an address that holds all of it."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def figure(value: float) -> str:
    """A metric's value: with four decimals, or with four digits where those would be all zeros, or more than it has."""
    plain = value == 0 or not math.isfinite(value) or _SMALL <= abs(value) < _LARGE
    return f"{value:.4f}" if plain else f"{value:.4g}"


def round_ticks(low: float, high: float, spaces: int) -> list[float]:
    """Round values between two ends, zero among them if it is there: 1, 2 or 5 times a power of ten apart.

    It is the smallest such distance that fits between the ends at most `spaces` times.
    """
    rough = (high - low) / spaces
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
