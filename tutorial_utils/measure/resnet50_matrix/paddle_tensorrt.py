"""ResNet-50 in Paddle-TRT's legacy way: Paddle 2.6 with TensorRT 8.6, the stack of the article."""

import contextlib
import os
import time
from collections.abc import Iterator

from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.engine import computed_types
from tutorial_utils.measure.resnet50_matrix.cells import TF32_OVERRIDE, Candidate, Cell, types_of
from tutorial_utils.measure.resnet50_matrix.files import CALIBRATION_IMAGES, Files

# Arguments of `paddle_tensorrt.legacy_config`. INT8 comes from an offline quantized program: either Paddle reads the
# ranges from its nodes, as TensorRT's calibrator would find them, or TensorRT gets the nodes.
_OPTIONS = {
    "fp32": {"precision": "fp32"},
    "tf32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "int8_calibrated": {"precision": "int8"},
    "int8_qdq": {"precision": "int8", "explicit_quantization": True},
}


@contextlib.contextmanager
def opened(cell: Cell, files: Files) -> Iterator[Candidate]:
    """Paddle-TRT in one precision at one shape; times on the GPU are of Paddle's engine run by TensorRT's own calls.

    Raises:
        BackendUnavailableError: Paddle with TensorRT isn't installed here, or has no GPU.
        PrecisionError: Paddle-TRT has no such precision.
        CourseError: Paddle refuses the program.
    """
    from tutorial_utils.runners import legacy_program, paddle_plan, paddle_tensorrt, paddle_tensorrt_build

    paddle_tensorrt.require_tensorrt()
    if cell.precision not in _OPTIONS:
        raise PrecisionError(
            f"The engines of Paddle's legacy way are FP32, FP16 or INT8; it has no {cell.precision.upper()}.",
            "Go through ONNX.",
        )
    if cell.precision == "fp32":
        # Paddle has no call that clears TensorRT's flag TF32. This holds in the row's own process and its children.
        os.environ[TF32_OVERRIDE] = "0"
    images = files.images(cell.shape)
    if cell.precision.startswith("int8"):
        saved = legacy_program.quantized("resnet50", files.calibration_images(cell.shape[2]))
    else:
        saved = legacy_program.untrained("resnet50")
    options = {**_OPTIONS[cell.precision], "shapes": {"x": (cell.shape,) * 3}, "inspector": True}
    built = paddle_tensorrt_build.cached(saved.model_path, saved.params_path, **options)
    started = time.perf_counter()
    with (
        paddle_tensorrt_build.open_runner(saved.model_path, saved.params_path, **options) as runner,
        paddle_plan.opened(built.folder, images) as plan,
    ):
        opened_s = time.perf_counter() - started
        (output,) = runner.outputs
        quantized = f", quantized offline with {CALIBRATION_IMAGES} images" if "int8" in cell.precision else ""
        yield Candidate(
            infer=lambda given: runner.infer({"x": given})[output],
            device_times=plan.device_times,
            facts={
                "build_s": round(built.seconds, 2),
                "plan_bytes": plan.plan_bytes,
                **types_of(cell, computed_types.totals(plan.layers)),
                "note": f"{built.log}; opened again in {opened_s:.1f} s{quantized}",
            },
            reasons={
                "graph": "Paddle captures a CUDA graph by itself (use_cuda_graph), and tells no time of it.",
                "rebuild_s": "Paddle's legacy way uses no timing cache of TensorRT.",
            },
        )
