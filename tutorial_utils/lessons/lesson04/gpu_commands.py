"""Lesson 04 on a GPU: the commands with which one checks an engine, on the sound and on the overflowing detector.

The GPU machine needs neither Paddle nor the package that ships the network: `prepare` writes what `record` reads.
"""

import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import onnx

from tutorial_utils.base.errors import ModelFileError
from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import recordings
from tutorial_utils.model import half_precision, onnx_file, quantization

INPUT_SHAPE = (1, 3, 192, 384)
# The ranges that are often copied for this network, with the largest width rounded up to a multiple of 32.
PROFILE = (
    "--trt-min-shapes x:[1,3,32,32] --trt-opt-shapes x:[1,3,192,192] --trt-max-shapes x:[1,3,1472,1248] "
    "--load-inputs page.json"
)
TOLERANCE = "--rtol 1e-4 --atol 1e-3"  # from habit, and often seen; the lesson derives better ones
DETECTORS = ("sound", "overflow")
PRECISIONS = ("fp32", "fp16")
FILES = (*(f"det-{name}-{precision}.onnx" for name in DETECTORS for precision in PRECISIONS), "page.json")
FP8_FILES = ("quick-fp8.onnx", "digits.json")
METHOD = (
    "each command run once with this Polygraphy and TensorRT, four at a time; inputs: the page at 192x384, and 64 test "
    "images of the digits for the FP8 model; rows hold what the commands printed"
)
_FP8_IMAGES = 64
_ESSENTIAL = (r"Flags \|", r"^\[E\]", r"^\[!\]", r"^\[I\] (PASSED$|Accuracy Summary)")
_LINES_OF_A_KIND, _WIDTH = 3, 160
_NUMBER = r"[-+\w.]+"


def prepare(folder: Path) -> Path:
    """Write the models and inputs that `record` reads. Needs Paddle, for the FP8 model, and the package of the network.

    Args:
        folder: Where to write `FILES` and `FP8_FILES`.

    Returns:
        The folder.
    """
    from polygraphy.json import save_json

    from tutorial_utils.debug import scaling
    from tutorial_utils.model import data, networks, text_detection

    folder.mkdir(parents=True, exist_ok=True)
    sound = onnx_file.load(text_detection.prepare())
    models = {"sound": sound, "overflow": scaling.move_scale(sound, *scaling.PLANTED)}
    for name, model in models.items():
        fp32_path = onnx_file.save(model, folder / f"det-{name}-fp32.onnx")
        half_precision.to_fp16(fp32_path, folder / f"det-{name}-fp16.onnx")
    page = text_detection.preprocess(text_detection.page(), *INPUT_SHAPE[2:])
    save_json([{"x": page}], str(folder / "page.json"))
    quick = networks.quick()
    quantization.to_fp8(quick["fp32"], quick["int8"], folder / "quick-fp8.onnx")
    save_json([{"x": data.load("digits", "test").images[:_FP8_IMAGES]}], str(folder / "digits.json"))
    return folder


def commands(fp8_tensors: list[str]) -> list[dict[str, str]]:
    """Return the commands, each with the model, and what it asks.

    Args:
        fp8_tensors: Tensors of the FP8 model to compare.
    """
    rows = []
    for name in DETECTORS:
        for precision in PRECISIONS:
            model = f"det-{name}-{precision}"
            run, marked = f"polygraphy run {model}.onnx --trt", "--trt-outputs mark all"
            # ONNX Runtime on an FP16 model would round and overflow as well. FP32 is what the results should be.
            reference = f"--load-outputs det-{name}-fp32-onnxrt.json"
            asked = {
                "validate every tensor": f"{run} --validate {marked} {PROFILE}",
                "validate the output": f"{run} --validate {PROFILE}",
                "compare the output": f"{run} {'--onnxrt' if precision == 'fp32' else reference} {PROFILE} {TOLERANCE}",
                "compare every tensor": f"{run} {marked} {PROFILE} {reference} {TOLERANCE}",
            }
            rows += [{"model": model, "what": what, "command": command} for what, command in asked.items()]
    # ONNX Runtime's optimizer gets this file wrong, too: unoptimized, it computes what the file says.
    unoptimized = "--graph-optimization-level ORT_DISABLE_ALL"
    fp8 = f"polygraphy run quick-fp8.onnx --trt --onnxrt {unoptimized} --load-inputs digits.json"
    shapes = " ".join(f"--trt-{size}-shapes x:[{_FP8_IMAGES},3,32,32]" for size in ("min", "opt", "max"))
    marked = " ".join(fp8_tensors)
    tolerances = "--rtol 1e-1 --atol 1e-1"
    return [
        *rows,
        {"model": "quick-fp8", "what": "compare the output", "command": f"{fp8} {shapes} {tolerances}"},
        {
            "model": "quick-fp8",
            "what": "compare every layer",
            "command": f"{fp8} {shapes} --trt-outputs {marked} --onnx-outputs {marked} {tolerances}",
        },
    ]


def references() -> list[str]:
    """Return the commands that save what ONNX Runtime computes for every tensor of the FP32 models."""
    return [
        f"polygraphy run det-{name}-fp32.onnx --onnxrt --onnx-outputs mark all --load-inputs page.json "
        f"--save-outputs det-{name}-fp32-onnxrt.json"
        for name in DETECTORS
    ]


def outcome(result: polygraphy_cli.Result, order: list[str]) -> dict[str, Any]:
    """Read what a `polygraphy run` with one or two runners printed.

    Args:
        result: Of the command.
        order: The tensors of the model in the order in which they are computed.

    Returns:
        Plain values for a recording::

            {"returncode": 0, "passed": whether Polygraphy said so,
             "checked": number of tensors, "failed": number of those that failed, "first_failed": the first one or None,
             "not_finite": number of tensors with Inf or NaN in TensorRT, "first_not_finite": the first one or None,
             "last_error": ["tensor", largest absolute difference, largest relative difference] of the last tensor that
                           was compared, None if there was none or it isn't finite,
             "text": the lines that matter}
    """
    text = result.text
    place = {name: index for index, name in enumerate(order)}

    def in_order(names: list[str]) -> list[str]:
        return sorted(set(names), key=lambda name: place.get(name, len(place)))

    failed = re.findall(r"FAILED \| Errors detected in output: (\S+)", text)
    not_finite = list(failed)  # --validate looks for nothing else
    failed += re.findall(r"FAILED \| Output: '([^']+)'", text)
    passed = re.findall(r"PASSED \| Output: '?([^' ]+)'?", text)
    extremes = re.findall(rf"\btrt-runner-N\d+: (\S+) +\| Stats: .*?\bmin=({_NUMBER}) at .*?\bmax=({_NUMBER}) at", text)
    not_finite += [name for name, *ends in extremes if {end.lstrip("-") for end in ends} & {"inf", "nan"}]
    failed, not_finite = in_order(failed), in_order(not_finite)
    errors = re.findall(rf"Error Metrics: (\S+)\n.*?\[abs=({_NUMBER})\] OR \[rel=({_NUMBER})\]", text)
    last = max(errors, key=lambda error: place.get(error[0], len(place)), default=None)
    return {
        "returncode": result.returncode,
        "passed": result.returncode == 0 and bool(result.lines(r"^\[I\] PASSED$")),
        "checked": len(set(failed + passed)),
        "failed": len(failed),
        "first_failed": failed[0] if failed else None,
        "not_finite": len(not_finite),
        "first_not_finite": not_finite[0] if not_finite else None,
        "last_error": [last[0], float(last[1]), float(last[2])] if last and "nan" not in last else None,
        "text": [
            textwrap.shorten(line, _WIDTH, placeholder=" ...")
            for pattern in _ESSENTIAL
            for line in _first_and_last(result.lines(pattern))
        ],
    }


def _first_and_last(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _LINES_OF_A_KIND else [*lines[: _LINES_OF_A_KIND - 1], lines[-1]]


def measure(models: Path) -> list[dict[str, Any]]:
    """Run all `commands` on this machine's GPU.

    Args:
        models: What `prepare` wrote.

    Returns:
        One row for each command: what `commands` and `outcome` return, together.

    Raises:
        ModelFileError: A file is missing.
    """
    missing = [name for name in (*FILES, *FP8_FILES) if not (Path(models) / name).is_file()]
    if missing:
        raise ModelFileError(
            f"The folder of models lacks {', '.join(missing)}.",
            "Write the files with `lesson04_polygraphy.prepare(folder)` on a machine with Paddle, and carry them here.",
        )
    with tempfile.TemporaryDirectory() as folder:
        for name in (*FILES, *FP8_FILES):
            shutil.copy(Path(models) / name, folder)
        graphs = {path.stem: onnx.load(path).graph for path in Path(folder).glob("*.onnx")}
        layers = [node.output[0] for node in graphs["quick-fp8"].node if node.op_type in ("Conv", "Gemm", "MatMul")]
        rows = commands(layers)
        for saved in polygraphy_cli.run_all(references(), folder):
            if saved.returncode:
                raise ModelFileError(
                    f"`{saved.command}` failed: {' '.join(saved.text.splitlines()[-2:])}", "Prepare the models again."
                )
        results = polygraphy_cli.run_all([row["command"] for row in rows], folder, at_once=4)
        return [
            {**row, **outcome(result, [name for node in graphs[row["model"]].node for name in node.output])}
            for row, result in zip(rows, results, strict=True)
        ]


def record(models: Path) -> Path:
    """Run the commands on this machine's GPU and keep what they said as a recording.

    Args:
        models: What `prepare` wrote.

    Returns:
        The file that was written.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
        ModelFileError: A file is missing.
    """
    machine = capabilities.require_tensorrt_run()
    rows = measure(models)
    recording = recordings.new(
        title="Polygraphy on TensorRT: the text detector, sound and overflowing, in FP32 and FP16; an FP8 model",
        method=METHOD,
        machine=machine.machine(),
        data={"input": list(INPUT_SHAPE), "profile": PROFILE, "commands": rows},
    )
    return recordings.save(recording, recordings.FOLDER / "lesson04_polygraphy.json")
