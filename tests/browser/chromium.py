"""Debian's Chromium, driven by Playwright. It knows no other host: what asks for one fails, and is seen."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_NOWHERE_ELSE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"


@contextmanager
def launched() -> Iterator["Browser"]:
    """Run Chromium, without a window, while the block runs."""
    from playwright.sync_api import sync_playwright

    assert EXECUTABLE, (
        "No Chromium is installed: tried chromium, chromium-browser and google-chrome. "
        "Debian, Ubuntu: apt-get install chromium"
    )
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=EXECUTABLE, args=[_NOWHERE_ELSE]) as browser,
    ):
        yield browser
