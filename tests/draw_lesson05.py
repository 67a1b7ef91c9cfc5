"""Draw the screenshot of lesson 05a anew: ``python tests/draw_lesson05.py``.

It needs Chromium, and a font with the angle brackets that Netron writes (U+3008, in Noto Sans CJK).
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import netron
from browser import chromium

sys.path.insert(0, str(Path(__file__).parents[1]))

from tutorial_utils.model import networks

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGE = Path(__file__).parents[1] / "notebooks" / "images" / "lesson05_netron.png"

# Netron asks to be updated where it is older than 180 days, and for consent to its cookies.
YOUNG = "addEventListener('DOMContentLoaded', () => document.querySelector('meta[name=date]').content = '2999-01-01')"
SHOWN = "body[class]:not([class='']):not([class*=spinner])"


@contextlib.contextmanager
def serving(path: Path) -> Iterator[str]:
    """Serve a file with Netron at a free port of 127.0.0.1 while the block runs, and give the address."""
    logging.getLogger("netron").setLevel(logging.WARNING)
    address = netron.start(str(path), address=("127.0.0.1", 0), browse=False)
    try:
        yield "http://{}:{}/".format(*address)
    finally:
        netron.stop(address)
        while netron.status(address):  # its thread looks up every 0.25 s
            time.sleep(0.02)


def open_netron(page: "Page", url: str, prepare: str = YOUNG) -> None:
    """Open Netron and wait until it shows a graph or a message.

    Args:
        page: Where.
        url: Netron's address.
        prepare: JavaScript that runs before Netron's; it must be a statement.
    """
    page.context.add_cookies([{"name": "consent", "value": "yes", "url": url}])
    page.add_init_script(prepare)
    page.goto(url)
    page.wait_for_selector(SHOWN)


def main() -> None:
    """Draw Netron with the beginning of the quick classifier."""
    with serving(networks.quick()["fp32"]) as url, chromium.launched() as browser:
        page = browser.new_page(viewport={"width": 620, "height": 760}, device_scale_factor=2)
        open_netron(page, url)
        scroll = "document.getElementById('target').scrollTo({top: 60, behavior: 'instant'})"
        page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": scroll})  # Netron forbids `eval`
        page.screenshot(path=IMAGE)
    print(IMAGE)


if __name__ == "__main__":
    main()
