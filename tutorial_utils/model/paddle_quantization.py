"""INT8 before TensorRT: a legacy Paddle program with the ranges of its activations, found on the CPU.

`paddle.static.quantization`, of Paddle 2.6.2 as of 3.3.1, runs the program on images, and writes it with quantize and
dequantize nodes and weights in INT8. Paddle-TRT makes an INT8 engine of it without any calibration of its own.
"""

import contextlib
import io
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CalibrationError, ModelFileError, UnsupportedOperatorError
from tutorial_utils.model import paddle_program

if TYPE_CHECKING:
    from tutorial_utils.model.classifier import SavedModel

QUANTIZABLE = ("conv2d", "depthwise_conv2d", "matmul_v2")
_BATCH = 32
# How the range of a tensor follows from its values: it spans nearly all of them. For ResNet-50 with random weights and
# 128 images, "KL", Paddle's own choice, took 8 minutes on two cores and gave an error of 0.30; "hist", "abs_max" and
# "mse" took 6 to 18 s and gave 0.053 to 0.057.
_ALGORITHM = "hist"


def quantize(
    model_path: str | Path, params_path: str | Path, images: np.ndarray, path_prefix: str | Path
) -> "SavedModel":
    """Write a quantized copy of a program with one input.

    Args:
        model_path: ``.pdmodel``, FP32.
        params_path: ``.pdiparams``.
        images: What the model will meet, float32 ``[N, ...]``; N is a multiple of 32, some hundred.
        path_prefix: Where to, without endings.

    Raises:
        ModelFileError: The program is no ``.pdmodel``, or its files are missing or damaged.
        CalibrationError: There are too few images, or some hold NaN or infinity.
        UnsupportedOperatorError: Paddle can't quantize the program; it says why.
    """
    from tutorial_utils.model.classifier import SavedModel, saving

    if Path(model_path).suffix != ".pdmodel":
        raise ModelFileError(
            f"{Path(model_path).name} is no .pdmodel, which paddle.static.quantization reads.",
            "Save the model again with FLAGS_enable_pir_api=0 set before Paddle is imported (lesson 02a).",
        )
    paddle_program.require_files(model_path, params_path)
    if len(images) < _BATCH or len(images) % _BATCH or not np.isfinite(images).all():
        raise CalibrationError(
            f"{len(images)} images can't calibrate INT8, or not all of their values are finite.",
            f"Give float32 images without NaN, as many as a multiple of {_BATCH}.",
        )
    target = SavedModel(Path(f"{path_prefix}.pdmodel"), Path(f"{path_prefix}.pdiparams"))
    with saving(target) as written:
        try:  # in another process: static mode is for all of a process, and a GPU must not be used
            child_process.run(_quantize, Path(model_path), Path(params_path), images, written)
        except Exception as error:  # Paddle's own errors have no common base class
            told = error.stderr.decode() if isinstance(error, subprocess.CalledProcessError) else error
            raise UnsupportedOperatorError(
                f"Paddle can't quantize {Path(model_path).name}: {paddle_program.reason(Exception(told))}.",
                "Go through ONNX with Q/DQ (model.quantization).",
            ) from error
    return target


def _quantize(model_path: Path, params_path: Path, images: np.ndarray, written: Path) -> None:
    """Quantize, in a process that hasn't imported Paddle yet: Paddle 3 has to be told that the program is legacy."""
    os.environ.update(FLAGS_enable_pir_api="0")
    from tutorial_utils.model.quiet_paddle import paddle

    paddle.enable_static()
    place = paddle.CPUPlace()
    executor = paddle.static.Executor(place)
    files = {"model_filename": model_path.name, "params_filename": params_path.name}
    program, (input_name,), _ = paddle.static.load_inference_model(str(model_path.parent), executor, **files)
    loader = paddle.io.DataLoader(
        [(image,) for image in images], feed_list=[program.global_block().var(input_name)], places=[place],
        batch_size=_BATCH, return_list=False,
    )  # fmt: skip
    with contextlib.redirect_stderr(io.StringIO()):
        quantization = paddle.static.quantization.PostTrainingQuantization(
            executor, str(model_path.parent), **files, data_loader=loader, batch_size=_BATCH, algo=_ALGORITHM,
            quantizable_op_type=list(QUANTIZABLE), weight_quantize_type="channel_wise_abs_max",
            onnx_format=True,  # nodes quantize_linear and dequantize_linear, which the passes of Paddle-TRT look for
            is_full_quantize=False,
            optimize_model=True,  # batch norms go into the weights before these are quantized
        )  # fmt: skip
        quantization.quantize()
        names = {"model_filename": f"{written.name}.pdmodel", "params_filename": f"{written.name}.pdiparams"}
        quantization.save_quantized_model(str(written.parent), **names)
