"""A diagnosis as text, as JSON and as a page: the verdict, the error of every tensor, the proposal and its proof."""

import json
import math
from dataclasses import asdict
from pathlib import Path

from tutorial_utils import plotting
from tutorial_utils.debug.diagnosis import Diagnosis
from tutorial_utils.debug.faults import KINDS, Fault
from tutorial_utils.inspection import page

_LISTED = 8  # benign places that the text names


def verdict(one: Diagnosis) -> str:
    """Return the verdict as a sentence."""
    name = f"{one.model} in {one.precision.upper()}"
    many = f"{len(one.faults)} fault{'s' if len(one.faults) != 1 else ''}"
    if one.verdict == "not mended":
        return f"{name} goes wrong ({many} found), and no set of nodes was found that mends it. What is left is below."
    errors = [(out.error if out.mended is None else out.mended, out.allowed) for out in one.outputs]
    right = "no output errs more than the data type and the depth allow"
    if any(error > allowed for error, allowed in errors):
        right = "no node stands out, though rounding adds up to somewhat more than the depth allows"
    if one.verdict == "healthy":
        return f"{name} is healthy: {right}."
    how = "unquantized" if one.precision == "int8" else "in FP32"
    return f"{name} has {many}; with {len(one.kept)} of {one.nodes} nodes {how}, {right}."


def _rows(one: Diagnosis) -> list[tuple[str, str]]:
    rows = [("verdict", verdict(one)), ("inputs", one.inputs)]
    rows += [(f"fault {number}", _sentence(fault)) for number, fault in enumerate(one.faults, 1)]
    if one.benign:
        names = ", ".join(f"{fault.tensor} ({fault.op})" for fault in one.benign[:_LISTED])
        more = f" and {len(one.benign) - _LISTED} more" if len(one.benign) > _LISTED else ""
        rows.append(("does no harm", f"does not fit the format, and what follows comes out right: {names}{more}"))
    if one.kept:
        what = "smallest error with" if one.verdict == "not mended" else "keep in FP32"
        rows.append((what, ", ".join(f"{name} ({op})" for name, op in one.kept.items())))
    at_fault = {name for fault in one.faults for name in (fault.node, *fault.nodes)}
    beside = [name for name in one.kept if name not in at_fault]
    if beside and one.verdict == "mended":
        rows.append(("of these", f"{', '.join(beside)}: not at fault, but needed for right outputs"))
    for out in one.outputs:
        after = f", {_number(out.mended)} when mended" if out.mended is not None else ""
        what = f"output {out.name}" if out.part_of is None else "part of an output"
        name = "" if out.part_of is None else f"{out.name}, in {out.part_of}: "
        rows.append((what, f"{name}error {_number(out.error)}{after}; allowed {_number(out.allowed)}"))
    rows += [("note", note) for note in one.notes]
    return [*rows, ("written", one.written or "nothing"), ("time", f"{one.seconds:.1f} s")]


def _sentence(fault: Fault) -> str:
    return f"{KINDS[fault.kind]}. At {fault.tensor}, written by {fault.node} ({fault.op}): {fault.what}"


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "infinite"


def as_text(one: Diagnosis) -> str:
    """Return the diagnosis as lines of what and value."""
    return "\n".join(f"{what:19} {value}" for what, value in _rows(one))


def as_json(one: Diagnosis) -> str:
    """Return all fields of `Diagnosis` as JSON; an infinite error is the word "infinite"."""
    return json.dumps(_finite(asdict(one)), indent=1, ensure_ascii=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return "infinite" if isinstance(value, float) and not math.isfinite(value) else value


def write_page(one: Diagnosis, path: Path) -> Path:
    """Write the diagnosis as one HTML file, which loads nothing from anywhere; raise InputError where that fails."""
    curve = page.section("The error of every tensor, in the order of computation", figure(one))
    title = f"{one.model} in {one.precision.upper()}: {one.verdict}"
    return page.write_html(title, f"{page.table(_rows(one))}\n{curve}", path)


def figure(one: Diagnosis) -> plotting.Picture:
    """Draw the error of every tensor before and after, what is allowed, and where the faults are."""
    drawn, axes = plotting.new_figure(4)
    curves: dict[str, tuple[str, list[float | None]]] = {
        one.precision.upper(): (plotting.ORANGE, [point.error for point in one.curve]),
        "mended": (plotting.BLUE, [point.mended for point in one.curve if one.kept]),
    }
    allowed = [point.allowed for point in one.curve]
    errors = [value for _, values in curves.values() for value in values if value]
    top = max([*filter(math.isfinite, errors), *allowed], default=1.0)
    infinite = any(map(math.isinf, errors))
    top *= 10 if infinite else 1.5  # where infinite errors are drawn
    for name, (colour, values) in curves.items():
        heights = [min(value, top) if value else math.nan for value in values]  # 0 has no place on this scale
        axes.plot(heights, ".", color=colour, label=name if heights else None, markersize=7 if name != "mended" else 4)
    axes.plot(allowed, color=plotting.GREY, label="allowed", linewidth=1)
    places = {point.tensor: place for place, point in enumerate(one.curve)}
    for number, fault in enumerate(one.faults, 1):
        if fault.tensor in places:
            place = places[fault.tensor]
            axes.axvline(place, color=plotting.RED, linewidth=1, linestyle=":")
            plotting.note(axes, f"fault {number} ", (place, top * 2), (0, 0), color=plotting.RED, ha="right")
    axes.set_yscale("log")
    axes.set_ylim(top=top * 3)
    axes.set_xlabel("tensors in the order of computation")
    axes.set_ylabel("relative error" + " (at the top: infinite)" * infinite)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    lines = [f"{'error':>9} {'allowed':>9} {'mended':>9}  tensor"]
    for point in one.curve:
        after = "" if point.mended is None else _number(point.mended)
        lines.append(f"{_number(point.error):>9} {_number(point.allowed):>9} {after:>9}  {point.tensor}")
    wrong = sum(not point.error <= point.allowed for point in one.curve)
    alt = f"Error of {len(one.curve)} tensors of {one.model} in {one.precision.upper()}: {wrong} err more than allowed."
    return plotting.Picture(drawn, alt, "\n".join(lines))
