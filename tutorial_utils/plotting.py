"""The figures of the course. Each is a picture, a description of it for who can't see it, and its numbers as text.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which readers with any colour vision can tell
apart. The background is a light one of the figure's own, so that a figure also reads well on a dark page.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#5f6b76"
WIDTH_INCHES = 9  # of a notebook's column, at the resolution below
_DPI = 110


@dataclass(frozen=True)
class Picture:
    """A figure as the last value of a cell: shown as an image with its description, and kept as text beside it."""

    figure: "Figure"  # the matplotlib figure
    alt: str  # what the figure shows, for a screen reader and for the HTML page
    text: str  # the numbers of the figure. Saved with the notebook, where nbval compares it: images it can't compare

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        image = io.BytesIO()
        self.figure.savefig(image, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
        return {"image/png": image.getvalue(), "text/plain": self.text}, {"image/png": {"alt": self.alt}}


def new_figure(height_inches: float, **subplots: Any) -> tuple["Figure", Any]:
    """Return a figure of the course's width and style, and its axes. It is not shown by itself."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained", facecolor="#fafafa")
    FigureCanvasAgg(figure)
    axes = figure.subplots(**subplots)
    for one in axes.flat if hasattr(axes, "flat") else [axes]:
        one.set_facecolor("#fafafa")
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="x", color="#dddddd", linewidth=0.8)
        one.set_axisbelow(True)
    return figure, axes


def literal(text: str) -> str:
    """Return a text of names so that a figure shows it as it is: a pair of "$" would else begin and end a formula.

    Characters that the font of the figures lacks, such as Chinese ones, are written as Python does: "\\u6a21".
    """
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    shown = (one if one.isspace() or font.get_char_index(ord(one)) else ascii(one)[1:-1] for one in text)
    return re.sub(r"(?<!\\)\$", r"\\$", "".join(shown))  # one that is escaped already stays


def name_rows(axes: "Axes", labels: Sequence[str]) -> None:
    """Name the rows of a figure, bars or marks at 0, 1, ..., with the first at the top."""
    axes.set_yticks(range(len(labels)), map(literal, labels))
    axes.set_ylim(len(labels) - 0.4, -0.6)


def plain_numbers(axis: "XAxis | YAxis") -> None:
    """Make an axis logarithmic, with numbers such as 0.1 and 100 at it instead of powers of ten.

    Where what is drawn spans two decades or less, 2 and 5 have numbers, too.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    low, high = axis.get_data_interval()
    if high <= 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def note(axes: "Axes", text: str, at: tuple[float, float], points: tuple[float, float], **style: Any) -> "Annotation":
    """Write a small text some points away from a place, centred on its height."""
    style = {"textcoords": "offset points", "va": "center", "fontsize": 9, **style}
    return axes.annotate(literal(text), at, xytext=points, **style)


@dataclass(frozen=True)
class Calls:
    """A program's first call and its warm ones, in milliseconds, beside somebody else's figure; None: there is none."""

    name: str
    published_ms: float | None
    first_ms: float | None
    warm_ms: float | None
    trouble: str = ""  # why the times are missing or worthless; a figure shows what stands before a colon


def cold_and_warm(rows: Sequence[Calls], axis_label: str, published_label: str = "published first call") -> Picture:
    """Draw first calls and warm medians beside what was published, on a logarithmic axis."""
    figure, axes = new_figure(1.2 + 0.42 * len(rows))
    kinds = (  # a small mark lies on top of the large ones, so that it isn't hidden
        ("published_ms", {"marker": "D", "color": GREY, "markersize": 5, "zorder": 3}, published_label),
        ("first_ms", {"marker": "s", "color": ORANGE, "markersize": 8}, "first call"),
        ("warm_ms", {"marker": "o", "color": BLUE, "markersize": 8}, "median of warm calls"),
    )
    for field, style, label in kinds:
        places = [(getattr(row, field), y) for y, row in enumerate(rows) if getattr(row, field) is not None]
        if places:
            axes.plot([x for x, _ in places], [y for _, y in places], linestyle="none", label=label, **style)
    lines = []
    for position, row in enumerate(rows):
        if known := [ms for ms in (row.published_ms, row.first_ms, row.warm_ms) if ms is not None]:
            axes.plot([min(known), max(known)], [position] * 2, color=GREY, linewidth=1, zorder=1)
        if row.trouble:
            text = row.trouble.partition(":")[0]
            if known:
                note(axes, text, (min(known), position), (-9, 0), ha="right")
            else:
                axes.text(0.02, position, literal(text), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
        times = [(label, getattr(row, field)) for field, *_, label in kinds]
        told = [f"{label} {ms:.3f} ms" for label, ms in times if ms is not None]
        told += [row.trouble] * bool(row.trouble)
        lines.append(f"{row.name}: {'; '.join(told)}")
    name_rows(axes, [row.name for row in rows])
    plain_numbers(axes.xaxis)
    axes.set_xlabel(axis_label)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return Picture(figure, f"First and warm calls. {'. '.join(lines)}.", "\n".join(lines))
