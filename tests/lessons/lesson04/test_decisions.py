"""The decision chart: picture and text say the same, and each branch leads to a section that is there."""

import re

import nbformat
import pictures
import pytest

from tutorial_utils.base import paths
from tutorial_utils.lessons.lesson04 import decisions

ROWS = (*decisions.DECISIONS, decisions.LAST)


def test_chart_says_the_same_in_picture_and_text():
    picture = decisions.chart()
    drawn = " ".join(" ".join(text.get_text() for text in picture.figure.axes[0].texts).split())
    for row in ROWS:
        for words in (row.question, row.verdict, row.remedy, decisions._place(row)):
            assert words in drawn
            assert words in picture.text
    assert str(len(decisions.DECISIONS)) in picture.alt
    (axes,) = pictures.drawn(picture)
    assert pictures.frames(axes) == 2 * len(ROWS)


def test_no_text_of_the_chart_leaves_its_box():
    picture = decisions.chart()
    axes = picture.figure.axes[0]
    picture.figure.canvas.draw()
    boxes = [patch.get_window_extent() for patch in axes.patches]
    inside = [text for text in axes.texts if text.get_text() not in ("yes", "no", "", decisions.START)]
    for text in inside:
        extent = text.get_window_extent()
        assert any(
            box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1 for box in boxes
        ), text.get_text()


@pytest.mark.parametrize("notebook", sorted({row.notebook for row in ROWS}))
def test_each_branch_leads_to_a_section_of_the_lessons(notebook):
    path = paths.ROOT / "notebooks" / f"{notebook}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    headings = {line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()}
    for row in ROWS:
        if row.notebook == notebook:
            assert f"## {row.section}" in headings


def test_what_a_branch_names_is_used_in_the_lessons():
    """Names of calls, and commands with their options."""
    texts = {
        path.stem: " ".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        for path in (paths.ROOT / "notebooks").glob("*.ipynb")
    }
    named = 0
    for row in ROWS:
        for name in re.findall(r"[a-z_]+\.[a-z_]+|polygraphy \w+ \w+|--[\w-]+", row.remedy):
            lessons = [one for one in texts if one.startswith("04a")] if name.startswith("--") else [row.notebook]
            assert any(name in texts[one] for one in lessons), (name, lessons)
            named += 1
    assert named == 4
