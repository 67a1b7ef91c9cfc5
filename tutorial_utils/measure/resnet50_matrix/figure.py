"""The matrix as a picture, a panel for each shape, and as text: its numbers, and why cells have none."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.measure.resnet50_matrix.cells import LIBRARIES, PRECISIONS, SHAPES, Cell, Interval, Matrix, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOT_TRIED = "It was not measured."
_FAST, _SLOW = 0.95, 0.15  # of the colour map: the fastest cell is bright, and the text on it dark
_BRIGHT = 0.465  # above this, black text has the better contrast


def draw(matrix: Matrix) -> plotting.Picture:
    """Draw the time of each cell on the GPU, the brighter the faster, with and without a CUDA graph."""
    shapes = _shapes(matrix)
    libraries = _libraries(matrix)
    numbers = _numbered(matrix)
    figure, panels = plotting.new_figure(
        0.7 + len(shapes) * (0.75 + 0.42 * len(libraries)), nrows=len(shapes), squeeze=False
    )
    for axes, shape in zip(panels[:, 0], shapes, strict=True):
        _panel(axes, matrix, shape, libraries, numbers)
    figure.supxlabel(
        "milliseconds of a call on the GPU, without copies; below, replayed as a CUDA graph (*: host to host)\n"
        "brighter is faster, within a shape; †: wrong answers; n/a: the text has the reason, by its number",
        fontsize=9,
    )
    measured = [(cell, row) for cell, row in matrix.cells.items() if isinstance(row, Row)]
    parts = []
    for shape in shapes:
        of_shape = [(row.best_ms, cell) for cell, row in measured if cell.shape == shape and not row.is_wrong]
        if of_shape:
            best_ms, best = min(of_shape, key=lambda pair: pair[0])
            parts.append(
                f"at {_name(shape)} {LIBRARIES[best.library][0]} {PRECISIONS[best.precision]}, {best_ms:.3g} ms"
            )
    alt = f"ResNet-50 in {len(libraries)} libraries and {len(PRECISIONS)} precisions. Fastest: {'; '.join(parts)}."
    return plotting.Picture(figure, alt, table(matrix))


def _panel(axes: "Axes", matrix: Matrix, shape: tuple[int, ...], libraries: list[str], numbers: dict[str, int]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    rows = {(cell.library, cell.precision): row for cell, row in matrix.cells.items() if cell.shape == shape}
    times = [row.best_ms for row in rows.values() if isinstance(row, Row)] or [1.0]
    scale = LogNorm(min(times), max(max(times), 1.01 * min(times)))
    for y, library in enumerate(libraries):
        for x, precision in enumerate(PRECISIONS):
            row = rows.get((library, precision), _NOT_TRIED)
            if isinstance(row, Row):
                level = _FAST - (_FAST - _SLOW) * float(scale(row.best_ms))
                ink = "black" if level > _BRIGHT else "white"
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=colormaps["cividis"](level), linewidth=0))
                first = row.device or row.host
                below = f"\ngraph {_ms(row.graph)}" if row.graph else ""
                shown = f"{_ms(first)}{_mark(row)}{below}"
            else:
                axes.add_patch(
                    Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="#fafafa", edgecolor="#cccccc", hatch="//")
                )
                shown, ink = f"n/a {numbers[row]}", "#333333"
            box = None if isinstance(row, Row) else {"facecolor": "#fafafa", "edgecolor": "none", "pad": 1.5}
            axes.text(x, y, shown, ha="center", va="center", color=ink, fontsize=9, linespacing=1.15, bbox=box)
    plotting.name_rows(axes, [LIBRARIES[library][0] for library in libraries])
    axes.set_ylim(len(libraries) - 0.5, -0.5)
    axes.set_xlim(-0.5, len(PRECISIONS) - 0.5)
    axes.set_xticks(range(len(PRECISIONS)), [name.replace(" ", "\n") for name in PRECISIONS.values()])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(_name(shape), loc="left", fontsize=11, fontweight="bold")


def table(matrix: Matrix) -> str:
    """Return the times of the picture as text, a table for each shape, then why cells have none."""
    numbers = _numbered(matrix)
    width = max(len(LIBRARIES[library][0]) for library in _libraries(matrix))
    lines = []
    for shape in _shapes(matrix):
        lines += [f"{_name(shape):{width}} " + "".join(f"{name:>17}" for name in PRECISIONS.values())]
        for library in _libraries(matrix):
            shown = []
            for precision in PRECISIONS:
                row = matrix.cells.get(Cell(library, precision, shape), _NOT_TRIED)
                shown.append(_both(row) if isinstance(row, Row) else f"n/a {numbers[row]}")
            lines.append(f"{LIBRARIES[library][0]:{width}} " + "".join(f"{text:>17}" for text in shown))
        lines.append("")
    lines.append(
        "milliseconds on the GPU without copies / replayed as a CUDA graph (*: host to host; †: wrong answers)"
    )
    return "\n".join([*lines, *(f"n/a {number}: {reason}" for reason, number in numbers.items())])


def _numbered(matrix: Matrix) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for shape in _shapes(matrix):
        for library in _libraries(matrix):
            for precision in PRECISIONS:
                row = matrix.cells.get(Cell(library, precision, shape), _NOT_TRIED)
                if isinstance(row, str):
                    reasons.setdefault(row, len(reasons) + 1)
    return reasons


def _libraries(matrix: Matrix) -> list[str]:
    return [library for library in LIBRARIES if any(cell.library == library for cell in matrix.cells)]


def _shapes(matrix: Matrix) -> list[tuple[int, ...]]:
    return [shape for shape in SHAPES if any(cell.shape == shape for cell in matrix.cells)]


def _name(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _ms(time: Interval) -> str:
    return f"{time.median:.3g}"


def _both(row: Row) -> str:
    graph = f" / {_ms(row.graph)}" if row.graph else ""
    return f"{_ms(row.device or row.host)}{_mark(row)}{graph}"


def _mark(row: Row) -> str:
    return ("" if row.device else "*") + ("†" if row.is_wrong else "")
