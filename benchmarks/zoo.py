"""Take every network of `tests/model/zoo.py` down the road, and write zoo.md: ``python -m benchmarks.zoo``.

It takes about 4 minutes on 2 idle cores. No GPU is needed: engines are built, not run.
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
DECISIONS = """\
Differences are the largest ones, relative to the largest value, from what Paddle computes operator by operator, on
inputs that the export was not verified with. "FP16" is the model of `half_precision.to_fp16` in ONNX Runtime; "engine"
is the number of kernels that TensorRT makes of the FP32 model.

**Which Paddle, which opset.** Measured on the first 102 of these networks on 26 November 2026; right means
equal within 1e-5:

| | opset | right | wrong without a word | not valid ONNX | not converted |
|:--|--:|--:|--:|--:|--:|
| paddle2onnx 2.1.0 alone, Paddle 3.3.1 | 17 | 74 | 10 | 2 | 16 |
| paddle2onnx 2.1.0 alone, Paddle 3.2.2 | 17 | 86 | 5 | 2 | 9 |
| with `paddle2onnx_input`, Paddle 3.2.2 | 17 | 89 | 3 | 1 | 9 |
| with `paddle2onnx_input`, Paddle 3.3.1 | 13 | 86 | 3 | 1 | 12 |
| with `paddle2onnx_input`, Paddle 3.3.1 | 17 | 89 | 3 | 1 | 9 |
| with `paddle2onnx_input`, Paddle 3.3.1 | 19 | 92 | 3 | 1 | 6 |

Paddle 3.3.1 stays: with its programs rewritten it comes out as 3.2.2 does, and CPU and GPU have one Paddle. Opset 17
stays the default: only circular padding and deformable convolutions need 19, which their refusal asks for. What is
wrong without a word is refused by the comparison with Paddle.

**oneDNN on the CPU.** Left on for the first 102 networks, Paddle 3.3.1 ends the process for 3 and raises for 8; Paddle
3.2.2 raises for 1 and computes other values for 2. Of 70 larger networks, 4 more came out wrong without a word with
3.3.1 (sine and cosine of one value, a scatter, average pooling with ceil_mode), one ended the process (a batch norm
without scale), two failed. `PaddleRunner` uses it for programs of well-tried operators only, and warns.

**Names of dimensions.** With several inputs, each dynamic dimension has a name of its own, since TensorRT takes equal
names for equal sizes. That costs no kernel: `bert_like` has 15, `attention_by_hand` 8 and `two_inputs` 5 either way.
"""
VERSIONS = ("paddlepaddle", "paddle2onnx", "onnx", "onnxruntime", "tensorrt-rtx")


def main() -> None:
    """Measure, print and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = child_process.run(zoo.save_all, folder)
        in_paddle = child_process.run(zoo.run_in_paddle, saved)
        with ThreadPoolExecutor(2) as pool:
            results = pool.map(lambda one: zoo.export_one(one, saved[one], folder), saved)
            exported = dict(zip(saved, results, strict=True))
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


def fp16_error(path: Path, saved: zoo.Saved) -> str:
    """Return the largest difference of the FP16 model's outputs from Paddle's, and how many integers are others."""
    half = half_precision.to_fp16(path, path.with_suffix(".fp16.onnx"))
    try:
        outputs = onnx_session.new_session(half).run(None, saved.samples)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise CourseError(f"ONNX Runtime refuses it: {str(error).splitlines()[0]}", "") from error
    floats, others = [], []
    for found, wanted in zip(outputs, saved.outputs, strict=True):
        if wanted.dtype.kind == "f" or found.shape != wanted.shape:
            floats.append(zoo.difference(found, wanted))
        else:
            others.append(f"{np.count_nonzero(found != wanted)} of {wanted.size} others")
    return ", ".join([*([shown(max(floats))] if floats else []), *others])


def kernels(path: Path, name: str, saved: zoo.Saved) -> str:
    """Build an engine for batches up to that of the samples; return how many kernels it has."""
    ranges = {
        key: (tuple(1 if axis == 0 and given.shape[0] is None else size for axis, size in enumerate(array.shape)),)
        + (array.shape,) * 2
        for (key, array), given in zip(saved.samples.items(), zoo.NETWORKS[name].inputs.values(), strict=True)
        if None in given.shape
    }
    options = engine.BuildOptions([engine.Profile.from_mapping(ranges)] if ranges else [])
    return str(len(engine.build(path, options, use_cache=False, progress=False).report.kernels))


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
    made = f"Made by `python -m benchmarks.zoo` with {versions}: {exported} of {len(rows)} networks are exported."
    return "\n".join(["# The zoo", "", made, "", DECISIONS, *lines, ""])


if __name__ == "__main__":
    main()
