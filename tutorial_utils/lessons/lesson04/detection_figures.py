"""Lesson 04: what the text detection network finds on the page, one panel for each run."""

from collections.abc import Mapping

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson04 import text_detection


def detections(image: np.ndarray, runs: Mapping[str, np.ndarray]) -> plotting.Picture:
    """Draw the boxes of one or more runs on the page, and the pixels for which a run says NaN.

    Args:
        image: uint8 RGB, shape ``[H, W, 3]``.
        runs: The network's output for that image, ``[1, 1, height, width]``, by the name of the run.
    """
    columns = min(len(runs), 2)
    rows = -(-len(runs) // columns)
    height = 9 / columns * image.shape[0] / image.shape[1] + 0.3
    figure, _ = plotting.new_figure(rows * height, nrows=rows, ncols=columns)
    lines = []
    for panel in figure.axes:
        panel.set_axis_off()
    for panel, (name, probability) in zip(figure.axes, runs.items(), strict=False):
        plane = np.asarray(probability).reshape(probability.shape[-2:])
        extent = (0, plane.shape[1], plane.shape[0], 0)
        panel.imshow(image, extent=extent, aspect="equal")
        lost = np.isnan(plane)
        if lost.any():
            red = np.zeros((*plane.shape, 4))
            red[lost] = (0.84, 0.37, 0, 0.75)
            panel.imshow(red, extent=extent, aspect="equal", interpolation="nearest")
        found = text_detection.boxes(plane)
        for x0, y0, x1, y1 in found:
            panel.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=plotting.BLUE, linewidth=1.6)
        share = f", {100 * lost.mean():.1f} % of the pixels NaN" if lost.any() else ""
        lines.append(f"{name}: {len(found)} boxes{share}")
        panel.set_title(lines[-1], fontsize=10)
    alt = f"A photograph of a printed page with the boxes that each run found around its lines. {'; '.join(lines)}."
    return plotting.Picture(figure, alt, "\n".join(lines))
