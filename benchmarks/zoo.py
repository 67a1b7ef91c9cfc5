"""Take every network of `tests/model/zoo.py` down the road, and write zoo.md: ``python -m benchmarks.zoo``.

It takes about 5 minutes on 2 cores. No GPU is needed: engines are built, not run.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # as pytest does
import numpy as np
from model import zoo

from tutorial_utils import engine
from tutorial_utils.base import child_process, flavour, onnx_session
from tutorial_utils.base.errors import CourseError
from tutorial_utils.model import half_precision

PAGE = Path(__file__).with_suffix(".md")
VERSIONS = ("paddlepaddle", "paddle2onnx", "onnx", "onnxruntime", "tensorrt-rtx")


def main() -> None:
    """Measure, print and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = child_process.run(zoo.save_all, folder)
        in_paddle = child_process.run(zoo.run_in_paddle, saved)
        with ThreadPoolExecutor(2) as pool:
            exported = dict(
                zip(saved, pool.map(lambda one: zoo.export_one(one, saved[one], folder), saved), strict=True)
            )
        rows = []
        for one, files in saved.items():
            row = [one, shown(exported[one]), shown(in_paddle[one])]
            if isinstance(exported[one], CourseError):
                row += ["", ""]
            else:
                path = folder / f"{one}.onnx"
                row += [shown(attempt(fp16_error, path, files)), shown(attempt(kernels, path, one, files))]
            rows.append(row)
            print(" | ".join(row), flush=True)
    PAGE.write_text(page(rows, sum(not isinstance(result, CourseError) for result in exported.values())))


def attempt(function, *arguments):
    """Return what a function returns, or the error of the course that it raises."""
    try:
        return function(*arguments)
    except CourseError as error:
        return error


def fp16_error(path: Path, saved: zoo.Saved) -> float:
    """Return the largest difference of the FP16 model's outputs from Paddle's, relative to the largest value."""
    half = half_precision.to_fp16(path, path.with_suffix(".fp16.onnx"))
    try:
        outputs = onnx_session.new_session(half).run(None, saved.samples)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise CourseError(f"ONNX Runtime refuses it: {str(error).splitlines()[0]}", "") from error
    return zoo.differences(outputs, saved.outputs)


def kernels(path: Path, name: str, saved: zoo.Saved) -> str:
    """Build an engine for batches up to that of the samples; return how many kernels it has."""
    ranges = {
        key: (tuple(1 if axis == 0 and given.shape[0] is None else size for axis, size in enumerate(array.shape)),)
        + (array.shape,) * 2
        for (key, array), given in zip(saved.samples.items(), zoo.NETWORKS[name].inputs.values(), strict=True)
        if None in given.shape
    }
    options = engine.BuildOptions([engine.Profile.from_mapping(ranges)] if ranges else [])
    return f"{len(engine.build(path, options, use_cache=False, progress=False).report.kernels)} kernels"


def shown(result: float | str | CourseError) -> str:
    """Return a cell of the table."""
    if isinstance(result, float):
        return "other values" if np.isinf(result) else f"{result:.0e}" if result else "0"
    return str(getattr(result, "cause", result)).replace("|", "\\|").replace("\n", " ")


def page(rows: list[list[str]], exported: int) -> str:
    """Return the page: what was measured, with which versions, and the decisions that rest on it."""
    versions = ", ".join(f"{name} {flavour.installed_version(name)}" for name in VERSIONS)
    head = ["network", "export", "Paddle runner", "FP16", "engine"]
    lines = [f"| {' | '.join(row)} |" for row in [head, [":--"] * len(head), *rows]]
    return f"# The zoo\n\n{exported} of {len(rows)} networks are exported. {versions}.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
