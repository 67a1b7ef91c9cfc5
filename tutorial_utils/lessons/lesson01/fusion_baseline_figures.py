"""The pictures of fusion: a chain of operators and whole networks, with and without it."""

from collections.abc import Mapping, Sequence

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson01.fused_chain import OPERATORS
from tutorial_utils.lessons.lesson01.ways import Way
from tutorial_utils.plotting import BLUE, GREEN, ORANGE, Picture

# Of the chain: with one kernel or one for each operator, the bytes are known; with others in between, only the least.
_COUNTED = (1, len(OPERATORS))
Measured = Mapping[str, tuple[Way, ...] | str]  # ways by row, or why there are none


def draw_chains(measured: Measured) -> Picture:
    """Draw the chain on the large tensor and on the tiny one: a bar for calls, a mark for their CUDA graph."""
    sizes = list(dict.fromkeys(name.split("/")[2] for name in measured if name.startswith("chain/")))
    panels = {
        f"{size} tensor": [way for name, ways in measured.items() if name.startswith("chain/")
                           and name.endswith(f"/{size}") and not isinstance(ways, str) for way in ways]
        for size in sizes
    }  # fmt: skip
    reasons = {name: ways for name, ways in measured.items() if isinstance(ways, str) and name.startswith("chain/")}
    return _bars({title: ways for title, ways in panels.items() if ways}, reasons, "A chain of four operators")


def _bars(panels: Mapping[str, Sequence[Way]], reasons: Mapping[str, str], what: str) -> Picture:
    columns = min(2, max(1, len(panels)))
    lines_of_panels = max(1, -(-len(panels) // columns))
    most = max(map(len, panels.values()), default=1)
    figure, axes = plotting.new_figure(0.9 + (0.8 + 0.42 * most) * lines_of_panels, nrows=lines_of_panels,
                                       ncols=columns, squeeze=False)  # fmt: skip
    lines, found = [], []
    for panel in list(axes.flat)[len(panels) :]:
        panel.set_axis_off()
    for number, (panel, (title, ways)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        longest = max(max(one[0] for one in (way.plain, way.graph) if one) for way in ways)
        for position, way in enumerate(ways):
            fused = way.kernels == min(one.kernels for one in ways)
            hatch = "" if fused else "//"
            colour = BLUE if fused else ORANGE
            panel.barh(position, way.plain[0], color=colour, hatch=hatch, edgecolor="#fafafa", height=0.6)
            if way.graph:
                panel.plot(way.graph[0], position, "D", color=GREEN, markersize=7, markeredgecolor="black")
            known = way.moved > 1e8 and way.kernels in _COUNTED
            rate = f", {way.bandwidth / 1e12:.2f} TB/s" if known else ""
            end = max(one[0] for one in (way.plain, way.graph) if one)
            kernels = f"{way.kernels} kernel{'s' * (way.kernels != 1)}"
            plotting.note(panel, f"{kernels}{rate}", (end, position), (7, 0), fontsize=8)
            lines.append(f"{title}, {way.name}: {_described(way)}")
        plotting.name_rows(panel, names := [way.name for way in ways])
        if position_in_row := number % columns:  # the names that stand at the panel to the left aren't repeated
            left = list(panels.values())[number - position_in_row]
            panel.tick_params(labelleft=names != [way.name for way in left])
        panel.set_title(title, fontsize=10)
        panel.set_xlim(0, 1.75 * longest)
        panel.set_xlabel("milliseconds a call", fontsize=9)
        slow, fast = max(ways, key=lambda way: way.kernels), min(ways, key=lambda way: way.kernels)
        found.append(f"{title}: {slow.name} takes {slow.plain[0] / fast.plain[0]:.1f} times as long as {fast.name}")
    for mark, colour, label in (("s", ORANGE, "more kernels"), ("s", BLUE, "fewest kernels"),
                                ("D", GREEN, "as a CUDA graph")):  # fmt: skip
        axes.flat[0].plot([], [], mark, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines += [f"{name}: not measured. {reason}" for name, reason in reasons.items()]
    return Picture(figure, f"{what}. {'; '.join(found)}.", "\n".join(lines))


def _described(way: Way) -> str:
    graph = f"as a CUDA graph {way.graph[0]:.4f} ms" if way.graph else f"no CUDA graph: {way.no_graph}"
    moved, kernels = "", f"{way.kernels} kernel{'s' * (way.kernels != 1)}"
    if way.moved:
        exact = way.kernels in _COUNTED
        moved = f", {'' if exact else 'at least '}{way.moved / 1e6:.3g} MB moved"
        moved += f", {way.bandwidth / 1e9:.0f} GB/s" if exact else ""
    return f"{way.plain[0]:.4f} ms, {graph}, {kernels} of together {way.kernels_ms:.4f} ms{moved}"
