"""What a picture shows, as numbers: for tests that hold the drawn artists against the picture's text."""

import io
import re

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

_MARGIN = 1.0  # pixel by which an artist may leave its axes


def drawn(picture):
    """Return a picture's axes, after making sure that each has something to see, and all of it inside its limits."""
    content, about = picture._repr_mimebundle_()
    assert content["text/plain"] == picture.text
    assert about["image/png"]["alt"] == picture.alt
    assert np.ptp(imread(io.BytesIO(content["image/png"]))) > 0
    panels = []
    for axes in picture.figure.axes:
        shown = [artist for artist in artists(axes) if visible(artist)]
        if not (shown or axes.texts or axes.axison):
            continue  # an empty place in a grid of panels
        assert shown or axes.texts, f"axes {axes.get_title()!r} show nothing"
        for artist in shown:
            assert_inside(artist, axes)
        panels.append(axes)
    return panels


def artists(axes):
    """Return what is drawn in axes, without texts."""
    return [*axes.lines, *axes.patches, *axes.collections, *axes.images]


def visible(artist):
    """Say whether an artist has an extent; a line without data, for one, is only there for the legend."""
    if isinstance(artist, Rectangle):
        return artist.get_width() != 0 and artist.get_height() != 0
    return not hasattr(artist, "get_xdata") or len(artist.get_xdata()) > 0


def assert_inside(artist, axes):
    """Make sure that no part of an artist lies outside of its axes."""
    frame = axes.get_window_extent()
    box = artist.get_window_extent()
    if hasattr(artist, "get_xdata"):  # the box of a line would count its markers, which may lie half outside
        box = artist.get_path().get_extents(artist.get_transform())
    ends = [(box.x1, frame.x0, frame.x1), (box.y1, frame.y0, frame.y1)]
    # A bar begins at 0, which a logarithmic axis doesn't have.
    bar = isinstance(artist, Rectangle)
    ends += [(box.x0, frame.x0, frame.x1)] * (not bar or axes.get_xscale() == "linear")
    ends += [(box.y0, frame.y0, frame.y1)] * (not bar or axes.get_yscale() == "linear")
    for end, low, high in ends:
        assert low - _MARGIN <= end <= high + _MARGIN, f"{artist} ends at {end}, outside of {low} to {high}"


def bars(axes):
    """Return (left, bottom, width, height) of each bar or box that can be seen, in the order of drawing."""
    found = [one for one in axes.patches if isinstance(one, Rectangle) and visible(one)]
    return [(one.get_x(), one.get_y(), one.get_width(), one.get_height()) for one in found]


def widths(axes):
    """Return how long each horizontal bar is."""
    return [width for _, _, width, _ in bars(axes)]


def heights(axes):
    """Return how high each vertical bar is."""
    return [height for *_, height in bars(axes)]


def marks(axes):
    """Return x and y of every point that has a marker, in the order of drawing."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def lines(axes):
    """Return the x and the y values of every line without markers, in the order of drawing."""
    shown = [line for line in axes.lines if line.get_marker() in ("None", "", None)]
    return [([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]) for line in shown]


def arrows(axes):
    """Return how high each arrow that is drawn as a patch stands at its highest point."""
    return [one.get_path().get_extents().y1 for one in axes.patches if isinstance(one, FancyArrowPatch)]


def frames(axes):
    """Return how many boxes with round corners are drawn."""
    return sum(isinstance(one, FancyBboxPatch) for one in axes.patches)


def numbers(text, pattern):
    """Return what a pattern's group finds in each line of a text, as numbers; a line without a match fails."""
    found = [re.search(pattern, line) for line in text.splitlines()]
    assert all(found), f"{pattern} isn't in every line of {text!r}"
    return [float(one[1].replace(",", "")) for one in found]


def near(values, rounding=5e-3):
    """Return values to compare with: equal but for the rounding of the text."""
    return pytest.approx(values, abs=rounding)
