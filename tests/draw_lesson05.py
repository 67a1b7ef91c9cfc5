"""Draw the screenshots of lesson 05 anew: ``python tests/draw_lesson05.py [netron] [polygraphy]``, both by default.

It needs Chromium, a font with the angle brackets that Netron writes (U+3008, in Noto Sans CJK), and for Polygraphy's
page npm, which fetches the scripts that the page would load from the network.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from chromium import Chromium

sys.path.insert(0, str(Path(__file__).parents[1]))

from tutorial_utils import engine
from tutorial_utils.lessons.lesson05 import netron_view, polygraphy_viewer
from tutorial_utils.model import networks

IMAGES = Path(__file__).parents[1] / "notebooks" / "images"

# Netron asks to be updated where it is older than 180 days, and for consent to its cookies.
YOUNG = "addEventListener('DOMContentLoaded', () => document.querySelector('meta[name=date]').content = '2999-01-01')"
SHOWN = "document.body.className && !document.body.className.includes('spinner')"


def open_netron(browser: Chromium, url: str, prepare: str = YOUNG) -> None:
    """Open Netron and wait until it shows a graph or a message.

    Args:
        browser: Where.
        url: Netron's address.
        prepare: JavaScript that runs before Netron's; it must be a statement.
    """
    browser.set_cookie("consent", "yes", url)
    browser.run_in_every_page(prepare)
    browser.open(url)
    browser.wait_for(SHOWN)


def netron(target: Path) -> None:
    """Draw Netron with the beginning of the quick classifier."""
    with netron_view.serving(networks.quick()["fp32"]) as url, Chromium(620, 760, scale=2) as browser:
        open_netron(browser, url)
        browser.evaluate("document.getElementById('target').scrollTo({top: 60, behavior: 'instant'})")
        browser.screenshot(target)


def polygraphy(target: Path) -> None:
    """Draw Polygraphy's viewer with the engine of the quick classifier."""
    profile = engine.Profile.batch("x", (3, 32, 32), opt=64, max=64)
    report = engine.build(networks.quick()["fp32"], engine.BuildOptions(profiles=[profile])).report
    with tempfile.TemporaryDirectory() as folder, Chromium(1100, 640, scale=2) as browser:
        page = polygraphy_viewer.save_engine(report, Path(folder) / "engine.html", batch=64)
        page.write_text(with_local_scripts(page.read_text(), Path(folder)))
        browser.open(page.as_uri())
        browser.wait_for("typeof cy !== 'undefined' && document.querySelectorAll('.pg-node-card').length > 0")
        browser.screenshot(target)


def with_local_scripts(page: str, folder: Path) -> str:
    """Fetch the npm packages whose files a page loads, and return the page with their local addresses."""

    def fetched(match: re.Match) -> str:
        package, file = match[1], match[2]
        packed = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True)
        unpacked = folder / package.replace("@", "-")
        unpacked.mkdir()
        subprocess.run(["tar", "xzf", packed.stdout.decode().strip(), "-C", unpacked], cwd=folder, check=True)
        return (unpacked / "package" / file).as_uri()

    return re.sub(r"https://(?:unpkg\.com|cdn\.jsdelivr\.net/npm)/([\w-]+@[\d.]+)/([\w./-]+)", fetched, page)


def main() -> None:
    """Draw what is named on the command line."""
    drawings: dict[str, Callable[[Path], None]] = {"netron": netron, "polygraphy": polygraphy}
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or drawings:
        target = IMAGES / f"lesson05_{name}.png"
        drawings[name](target)
        print(target)


if __name__ == "__main__":
    main()
