"""The files of `benchmarks.real_files` in INT8: ``python -m benchmarks.real_files_int8`` writes real_files_int8.md."""

import tempfile
import warnings
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.real_files import FILES, ROOT, RealFile, download, largest_error
from tutorial_utils import engine
from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import CourseError
from tutorial_utils.base.flavour import installed_version
from tutorial_utils.model import onnx_file, quantization

CALIBRATION_SEEDS = range(1, 5)  # draws of the inputs; a fifth, of seed 0, is what is measured


def quantize(one: RealFile, target: Path) -> None:
    """Quantize a file with the ranges of four draws of its inputs."""
    draws = [one.feeds(seed) for seed in CALIBRATION_SEEDS]
    quantization.to_int8(one.path, target, {name: np.stack([draw[name] for draw in draws]) for name in draws[0]})


def kernels(path: Path, feeds: dict[str, np.ndarray]) -> str:
    """Return how many kernels of an engine for these shapes compute in INT8, or which error stands in its way."""
    dynamic = {
        value.name: (feeds[value.name].shape,) * 3
        for value in onnx_file.load(path).graph.input
        if any(dim.dim_value < 1 for dim in value.type.tensor_type.shape.dim)
    }
    profiles = [engine.Profile.from_mapping(dynamic)] if dynamic else []
    options = engine.BuildOptions(profiles=profiles, compute_capabilities=["8.6"])
    try:
        counts = engine.build(path, options, use_cache=False, progress=False).report.kernel_dtypes
    except CourseError as error:
        return type(error).__name__
    return f"{counts.get('int8', 0)} of {sum(counts.values())}"


def row(one: RealFile) -> tuple[str, str]:
    """Return a file's row in the table, and why it has no result or what else is to be known."""
    name, feeds = f"{one.package} {one.name}", one.feeds()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        target = Path(folder) / "int8.onnx"
        try:
            quantize(one, target)
        except CourseError as error:
            return f"| {name} | refused | | | |", f"{type(error).__name__}: {error.cause}"
        exact, found = (onnx_session.new_session(path).run(None, feeds) for path in (one.path, target))
        error = largest_error(exact, found)
        decibels = f"{-20 * np.log10(error):.0f}" if error else "exact"
        done = str(quantization.coverage(target)).removeprefix("quantized: ")
        cells = f"| {name} | {error:.2g} | {decibels} | {done} | {kernels(target, feeds)} |"
        return cells, " ".join(str(one.message) for one in warned if one.category is UserWarning)


def main() -> None:
    """Download, quantize, measure, and write the table."""
    download()
    rows = []
    for one in FILES:
        rows.append((one, *row(one)))
        print(rows[-1][1], flush=True)
    versions = ", ".join(f"{one} {installed_version(one)}" for one in ("onnx", "onnxruntime", "tensorrt-rtx"))
    done = sum("refused" not in found for _, found, _ in rows)
    lines = [
        "# Real ONNX files in INT8", "",
        f"Written by `python -m benchmarks.real_files_int8` on {date.today()}, with {versions}.",
        f"`to_int8` takes {done} of {len(rows)} files.", "",
        "Ranges are those of four draws of the inputs that benchmarks/real_files.py describes; a fifth is measured.",
        "The error is the largest relative L2 error of an output against ONNX Runtime in FP32, and the same",
        "in decibels of signal over noise. Drawn inputs are no calibration set: they show that a file runs, and",
        "where it is fragile. The last column counts the INT8 kernels of an engine for compute capability 8.6.", "",
        "| File | Error | dB | Quantized | Kernels in INT8 |", "|:--|--:|--:|:--|:--|",
        *(found for _, found, _ in rows), "",
        *(f"- {one.package} {one.name}: {why}" for one, _, why in rows if why),
    ]  # fmt: skip
    (ROOT / "benchmarks" / "real_files_int8.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
