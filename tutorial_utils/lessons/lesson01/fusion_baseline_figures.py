"""The picture of fusion: a chain of operators as many kernels and as one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson01.fused_chain import OPERATORS
from tutorial_utils.lessons.lesson01.ways import Way
from tutorial_utils.plotting import BLUE, GREEN, ORANGE, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the chain: with one kernel or one for each operator, the bytes are known; with others in between, only the least.
_COUNTED = (1, len(OPERATORS))


def draw_chains(measured: Mapping[str, tuple[Way, ...] | str]) -> Picture:
    """Draw the chain on the large tensor and on the tiny one: a bar for calls, a mark for their CUDA graph.

    What was measured is by row of `fusion_baseline`: its ways, or why there are none.
    """
    panels: dict[str, list[Way]] = {}
    for name, ways in measured.items():
        if not isinstance(ways, str):
            panels.setdefault(f"{name.rpartition('/')[2]} tensor", []).extend(ways)
    figure, axes = plotting.new_figure(1.7 + 0.42 * max(map(len, panels.values())), ncols=len(panels), squeeze=False)
    lines, slowdowns = [], []
    for panel, (title, ways) in zip(axes.flat, panels.items(), strict=True):
        _draw(panel, title, ways)
        lines += [f"{title}, {way.name}: {_described(way)}" for way in ways]
        slow, fast = max(ways, key=lambda way: way.kernels), min(ways, key=lambda way: way.kernels)
        slowdowns.append(f"{title}: {slow.name} takes {slow.plain[0] / fast.plain[0]:.1f} times as long as {fast.name}")
    first, *others = ([way.name for way in ways] for ways in panels.values())
    for panel, names in zip(list(axes.flat)[1:], others, strict=True):
        panel.tick_params(labelleft=names != first)  # the names that stand at the panel to the left aren't repeated
    for mark, colour, label in (("s", ORANGE, "more kernels"), ("s", BLUE, "fewest kernels"),
                                ("D", GREEN, "as a CUDA graph")):  # fmt: skip
        axes.flat[0].plot([], [], mark, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines += [f"{name}: not measured. {reason}" for name, reason in measured.items() if isinstance(reason, str)]
    return Picture(figure, f"A chain of four operators. {'; '.join(slowdowns)}.", "\n".join(lines))


def _draw(panel: "Axes", title: str, ways: Sequence[Way]) -> None:
    for position, way in enumerate(ways):
        fused = way.kernels == min(one.kernels for one in ways)
        colour, hatch = (BLUE, "") if fused else (ORANGE, "//")
        panel.barh(position, way.plain[0], color=colour, hatch=hatch, edgecolor="#fafafa", height=0.6)
        if way.graph:
            panel.plot(way.graph[0], position, "D", color=GREEN, markersize=7, markeredgecolor="black")
        known = way.moved > 1e8 and way.kernels in _COUNTED
        rate = f", {way.bandwidth / 1e12:.2f} TB/s" if known else ""
        end = max(one[0] for one in (way.plain, way.graph) if one)
        kernels = f"{way.kernels} kernel{'s' * (way.kernels != 1)}"
        plotting.note(panel, f"{kernels}{rate}", (end, position), (7, 0), fontsize=8)
    plotting.name_rows(panel, [way.name for way in ways])
    panel.set_title(title, fontsize=10)
    panel.set_xlim(0, 1.75 * max(one[0] for way in ways for one in (way.plain, way.graph) if one))
    panel.set_xlabel("milliseconds a call", fontsize=9)


def _described(way: Way) -> str:
    graph = f"as a CUDA graph {way.graph[0]:.4f} ms" if way.graph else f"no CUDA graph: {way.no_graph}"
    moved, kernels = "", f"{way.kernels} kernel{'s' * (way.kernels != 1)}"
    if way.moved:
        exact = way.kernels in _COUNTED
        moved = f", {'' if exact else 'at least '}{way.moved / 1e6:.3g} MB moved"
        moved += f", {way.bandwidth / 1e9:.0f} GB/s" if exact else ""
    return f"{way.plain[0]:.4f} ms, {graph}, {kernels} of together {way.kernels_ms:.4f} ms{moved}"
