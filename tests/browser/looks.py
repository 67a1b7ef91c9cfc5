"""What the tests of both editions ask a picture or a page."""

import io
from pathlib import Path

import axe_playwright_python
from PIL import Image, ImageStat

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")  # defines `axe` in a page


def lightness(png: bytes, rim: int = 0) -> float:
    """Return how light half of a picture's points at least are, from 0 to 1; of those at its rim, where it has one."""
    shown = Image.open(io.BytesIO(png)).convert("L")
    mask = Image.new("L", shown.size, 255)
    if rim:
        mask.paste(0, (rim, rim, shown.width - rim, shown.height - rim))
    return ImageStat.Stat(shown, mask).median[0] / 255
