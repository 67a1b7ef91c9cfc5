"""The figures of lesson 04: their text twins hold what the pictures say."""

import numpy as np
import pandas as pd
import pictures
import pytest

from tutorial_utils.debug import remedies
from tutorial_utils.lessons.lesson04 import figures


@pytest.mark.parametrize("count", [1, 2, 3])
def test_detections_count_boxes_and_lost_pixels(count):
    plane = np.zeros((1, 1, 32, 64), np.float32)
    plane[0, 0, 4:8, 4:20] = plane[0, 0, 20:24, 4:20] = 0.9
    broken = plane.copy()
    broken[0, 0, :, :16] = np.nan
    runs = {"sound": plane, "broken": broken, "empty": np.zeros_like(plane)}
    picture = figures.detections(np.zeros((32, 64, 3), np.uint8), dict(list(runs.items())[:count]))
    expected = ["sound: 2 boxes", "broken: 2 boxes, 25.0 % of the pixels NaN", "empty: 0 boxes"]
    assert picture.text.splitlines() == expected[:count]
    assert expected[0] in picture.alt
    for axes, boxes in zip(pictures.drawn(picture), (2, 2, 0)[:count], strict=True):
        assert len(pictures.lines(axes)) == boxes


def test_two_ways_mark_what_is_beyond_the_tolerance():
    names = ["a", "b", "c"]
    tables = [pd.DataFrame({"rel_l2": errors}, index=names) for errors in ([1e-3] * 3, [1e-3, 0.02, 2e-3])]
    allowed = {"along": pd.Series(0.03, names), "alone": pd.Series(3e-3, names)}
    picture = figures.two_ways({way: (tables[0], one, tables[1]) for way, one in allowed.items()}, "b")
    assert picture.text.splitlines() == [
        "along: 0 of 3 tensors beyond what is allowed; first none",
        "alone: 1 of 3 tensors beyond what is allowed; first b",
    ]
    _, alone = pictures.drawn(picture)
    assert (1, 0.02) in pictures.marks(alone)
    assert "A line marks b" in picture.alt


def test_outcomes_say_error_and_answers_of_each_remedy():
    plain, mended = remedies.Outcome(0.25, np.inf, 0.2), remedies.Outcome(1.0, 1e-3, 1.0)
    picture = figures.outcomes({"one": {"FP16": plain, "clip": mended}, "two": {"FP16": mended}})
    assert picture.text.splitlines() == [
        "one, FP16: finite for 25% of the inputs, 20.0% of the answers as in FP32",
        "one, clip: error 1.0e-03, 100.0% of the answers as in FP32",
        "two, FP16: error 1.0e-03, 100.0% of the answers as in FP32",
    ]
    panels = pictures.drawn(picture)
    assert [pictures.marks(axes) for axes in panels] == [[(1e-3, 1)], [(1e-3, 0)]], "what isn't finite has no mark"
    notes = {text.get_text() for axes in panels for text in axes.texts}
    assert "Inf or NaN; 20.0% of the answers" in notes


def test_accuracy_figure_has_a_line_for_each_training():
    picture = figures.accuracies(
        [("pruning", [("as trained", 0.99), ("pruned", 0.1)]), ("rounding", [("rounded", 0.25)])]
    )
    assert [line.split()[-2] for line in picture.text.splitlines()] == ["99.0", "10.0", "25.0"]
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes) == [99, 10, 25]
