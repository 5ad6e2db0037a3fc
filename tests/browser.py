"""A headless Chromium, for the tests that look at pages; and the pictures of the docs, which these tests take."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

# No sandbox: Chromium refuses to run as root with one, and CI is root. The pages are our own.
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_SECONDS = 120
_LARGEST = 150_000  # bytes of a picture in the repository


@dataclass(frozen=True)
class Chromium:
    """A browser, and the folder for pictures; None: none are taken."""

    browser: Browser
    pictures: Path | None

    def open(self, address: str, *, height: int = 900) -> Page:
        page = self.browser.new_context(viewport={"width": 1280, "height": height}).new_page()
        page.set_default_timeout(_SECONDS * 1000)
        page.goto(address, wait_until="domcontentloaded")
        return page

    def picture(self, page: Page, name: str, *, box: tuple[int, int, int, int] | None = None) -> None:
        """Take a picture of what is shown, light and dark, if pictures are wanted; `box` is left, top, right, bottom."""
        if self.pictures is None:
            return
        self.pictures.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(700)  # colours fade over
            with Image.open(io.BytesIO(page.screenshot())) as image:
                _save(image.crop(box) if box else image, self.pictures / f"{name}-{scheme}.webp")
        page.emulate_media(color_scheme="light")


def _save(image: Image.Image, path: Path) -> None:
    for quality in (90, 75, 60):
        image.convert("RGB").save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= _LARGEST:
            return
    pytest.fail(f"{path.name} is larger than {_LARGEST:,} bytes: show less")


def find_chromium() -> str | None:
    """The browser of the system, or the one that RATCHET_CHROMIUM names."""
    named = os.environ.get("RATCHET_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def chromium(request: pytest.FixtureRequest) -> Iterator[Chromium]:
    """The browser; where there is none, the test is skipped, unless RATCHET_BROWSER_TESTS=required.

    Not for the whole session: while it is open this thread has a running event loop, which Prefect takes for a reason to
    be asynchronous.
    """
    path = find_chromium()
    if path is None and os.environ.get("RATCHET_BROWSER_TESTS") == "required":
        pytest.fail("no Chromium was found, and RATCHET_BROWSER_TESTS=required")
    if path is None:
        pytest.skip("no Chromium was found (apt-get install chromium, or name one with RATCHET_CHROMIUM)")
    folder = request.config.getoption("--pictures")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield Chromium(browser, Path(folder) if folder else None)
        browser.close()
