"""Drawing one synthetic scene: textured discs and polygons on a textured ground, and what makes them hard to see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DISC, POLYGON = 1, 2  # class indices

_PLACEMENTS = 8  # tries to find room for an object
_OVERLAP = 0.1  # share of an object that may cover others

_Field = NDArray[np.float64]  # of shape (size, size)


@dataclass(frozen=True)
class SiteLook:
    """How the scenes of one site look. Frequencies are in cycles per image, colours and noise in [0, 1]."""

    ground: _Field
    tints: _Field  # (2, 3), of disc and polygon against the ground
    frequency: float
    angle: float
    spread: float
    contrast: float
    shading: float
    blur: float
    noise: float


def draw_look(rng: np.random.Generator) -> SiteLook:
    """The look of a site."""
    shared = rng.uniform(0.06, 0.1, size=3) * rng.choice((-1, 1), size=3)
    return SiteLook(
        ground=rng.uniform(0.35, 0.65, size=3),
        tints=np.array([shared + rng.normal(0, 0.05, size=3) for _ in (DISC, POLYGON)]),
        frequency=rng.uniform(5.0, 11.0),
        angle=rng.uniform(0.0, np.pi),
        spread=rng.uniform(0.35, 0.9),
        contrast=rng.uniform(0.035, 0.06),
        shading=rng.uniform(0.05, 0.15),
        blur=rng.uniform(0.5, 0.9),
        noise=rng.uniform(0.02, 0.045),
    )


def drift_look(look: SiteLook, other: SiteLook, drift: float) -> SiteLook:
    """A look that went the share `drift` of the way to another one, darker, noisier and more blurred with it."""
    return SiteLook(
        ground=(1 - drift) * look.ground + drift * (other.ground - 0.15),
        tints=(1 - drift) * look.tints + drift * other.tints,
        frequency=(1 - drift) * look.frequency + drift * 1.6 * other.frequency,
        angle=look.angle + drift * np.pi / 2,
        spread=look.spread,
        contrast=look.contrast * (1 - 0.15 * drift),
        shading=look.shading + 0.05 * drift,
        blur=look.blur + 0.2 * drift,
        noise=look.noise + 0.01 * drift,
    )


def draw_scene(rng: np.random.Generator, look: SiteLook, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image, uint8 (size, size, 3), and its mask of class indices, uint8 (size, size).

    Objects have the texture of the ground turned and shifted in brightness a little; rings, bars and shadows have the
    outline or the brightness of objects, but are ground. Blur, noise and uneven light follow.
    """
    gray = _texture(rng, size, look.frequency, look.angle, look.spread) * look.contrast
    for _ in range(rng.integers(2, 5)):
        gray = gray + _distractor(rng, size) * rng.choice((-1, 1)) * rng.uniform(0.06, 0.16)
    colour = look.ground + gray[:, :, None]
    mask = np.zeros((size, size), dtype=np.uint8)
    for _ in range(rng.integers(2, 5)):
        kind = DISC if rng.random() < 0.5 else POLYGON  # noqa: PLR2004 - as likely
        distance = _place_object(rng, kind, mask)
        inside = _draw_inside(rng, look, kind, size)
        colour = colour + np.clip(0.5 - distance, 0, 1)[:, :, None] * (inside - colour)
        mask[distance < 0] = kind
    return _photograph(rng, look, colour, size), mask


def _place_object(rng: np.random.Generator, kind: int, mask: NDArray[np.uint8]) -> _Field:
    """Signed distance to an object that covers few or none of those in `mask`."""
    for _ in range(_PLACEMENTS):
        distance = _disc(rng, len(mask)) if kind == DISC else _polygon(rng, len(mask))
        inside = distance < 0
        if (mask[inside] > 0).sum() <= _OVERLAP * inside.sum():
            break
    return distance


def _draw_inside(rng: np.random.Generator, look: SiteLook, kind: int, size: int) -> _Field:
    """The colours of an object of that class: the texture of the ground, turned, in another tint."""
    texture = _texture(
        rng, size, look.frequency * rng.uniform(0.9, 1.35), look.angle + rng.normal(0.9, 0.35), look.spread
    )
    tint = look.tints[kind - 1] * rng.uniform(0.5, 1.3)
    inside: _Field = look.ground + tint + (texture * look.contrast)[:, :, None]
    return inside


def _photograph(rng: np.random.Generator, look: SiteLook, colour: _Field, size: int) -> NDArray[np.uint8]:
    y, x = _grid(size)
    direction = rng.uniform(0, 2 * np.pi)
    light = 1 + look.shading * 2 * ((x * np.cos(direction) + y * np.sin(direction)) / size)
    blurred = _blur(colour * light[:, :, None], look.blur * rng.uniform(0.7, 1.3))
    noisy = blurred + rng.normal(0, look.noise, size=colour.shape)
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def _texture(rng: np.random.Generator, size: int, frequency: float, angle: float, spread: float) -> _Field:
    """Noise of mean 0 and standard deviation 1 around one frequency and direction, `spread` radians wide."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size) * size, np.fft.fftfreq(size) * size, indexing="ij")
    radius, turn = np.hypot(fx, fy), np.arctan2(fy, fx) - angle
    off = np.abs(np.angle(np.exp(2j * turn))) / 2
    window = np.exp(-((radius - frequency) ** 2) / 8 - off**2 / (2 * spread**2))
    noise: _Field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * window).real
    return noise / float(np.std(noise))


def _disc(rng: np.random.Generator, size: int) -> _Field:
    """Signed distance (pixels, negative inside) to a slightly oval disc."""
    x, y = _placed(rng, size)
    radius, oval = size * rng.uniform(0.1, 0.2), rng.uniform(0.8, 1.25)
    distance: _Field = np.hypot(x * oval, y / oval) - radius
    return distance


def _polygon(rng: np.random.Generator, size: int) -> _Field:
    """Signed distance (pixels, negative inside) to a convex polygon of 3 to 5 sides."""
    x, y = _placed(rng, size)
    sides, radius, turn = rng.integers(3, 6), size * rng.uniform(0.09, 0.17), rng.uniform(0, 2 * np.pi)
    angles = turn + (np.arange(sides) + rng.uniform(-0.15, 0.15, size=sides)) * 2 * np.pi / sides
    reach = radius * rng.uniform(0.85, 1.15, size=sides)
    planes = x[..., None] * np.cos(angles) + y[..., None] * np.sin(angles) - reach
    distance: _Field = np.max(planes, axis=-1)
    return distance


def _distractor(rng: np.random.Generator, size: int) -> _Field:
    """Something in [0, 1] that is no object: a ring, a bar, or a soft shadow."""
    kind = rng.integers(3)
    if kind == 0:
        distance = _disc(rng, size) if rng.random() < 0.5 else _polygon(rng, size)  # noqa: PLR2004 - as likely
        return np.clip(1.5 - np.abs(distance), 0, 1)
    x, y = _placed(rng, size)
    if kind == 1:
        turn = rng.uniform(0, np.pi)
        bar: _Field = np.clip(size * rng.uniform(0.01, 0.04) - np.abs(x * np.cos(turn) + y * np.sin(turn)), 0, 1)
        return bar
    shadow: _Field = np.exp(-(x**2 + y**2) / (2 * (size * rng.uniform(0.06, 0.14)) ** 2))
    return shadow


def _placed(rng: np.random.Generator, size: int) -> tuple[_Field, _Field]:
    """Coordinates (x, y) in pixels around a random place."""
    y, x = _grid(size)
    return x - rng.uniform(-0.42, 0.42) * size, y - rng.uniform(-0.42, 0.42) * size


def _grid(size: int) -> tuple[_Field, _Field]:
    """Row and column coordinates in pixels around the middle."""
    axis = np.arange(size) - (size - 1) / 2
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _blur(colour: _Field, sigma: float) -> _Field:
    """Gaussian blur, `sigma` in pixels, of (size, size, 3), wrapping around at the edges."""
    fy, fx = np.meshgrid(np.fft.fftfreq(colour.shape[0]), np.fft.fftfreq(colour.shape[1]), indexing="ij")
    window = np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2))
    blurred: _Field = np.fft.ifft2(np.fft.fft2(colour, axes=(0, 1)) * window[:, :, None], axes=(0, 1)).real
    return blurred
