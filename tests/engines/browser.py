"""Debian's Chromium, headless, as a person would use it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser_page"]

_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_PATIENCE_SECONDS = 600


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """A new page of a browser that keeps its things in ``profile``. It waits patiently for what is asked of it."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("Chromium is not installed, so no page can be looked at. Debian: apt install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=list(_OPTIONS), timeout=_PATIENCE_SECONDS * 1000
        )
        try:
            browser.set_default_timeout(_PATIENCE_SECONDS * 1000)
            yield browser.new_page()
        finally:
            browser.close()
