"""Debian's Chromium, driven by Playwright: tests look at pages with it, and lesson 05's screenshot is made with it.

Names of other hosts are unknown to it: what asks for them fails, and is seen.
"""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_NOT_INSTALLED = (
    "no Chromium is installed: tried chromium, chromium-browser and google-chrome. "
    "Debian, Ubuntu: apt-get install chromium"
)


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Give a browser of Playwright's."""
    from playwright.sync_api import sync_playwright

    assert EXECUTABLE, _NOT_INSTALLED
    nowhere_else = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=EXECUTABLE, args=[nowhere_else])
