"""Paddle-TRT's legacy way: parts of a ``.pdmodel`` program run as TensorRT engines, built when a predictor is made.

`legacy_config` ends in a configuration for `tutorial_utils.runners.paddle.PaddleRunner.from_config`;
`paddle_tensorrt_build` opens it after a look at Paddle's log. Arguments that Paddle has bear its names. PIR-TRT, for
``.json`` programs, was never run by this project: lesson 02b has its calls.

The calls ran on an H100 with Paddle 2.6.2 and TensorRT 8.6.1 (experiment lesson02_paddle_tensorrt).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, ModelFileError, PrecisionError, ProfileError
from tutorial_utils.engine import Profile
from tutorial_utils.model import paddle_program
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import paddle_kernels
from tutorial_utils.runners.paddle import GPU_MEMORY_MB, PaddleRunner, Shapes

_LEGACY_PRECISIONS = {
    "fp32": paddle.inference.PrecisionType.Float32,
    "fp16": paddle.inference.PrecisionType.Half,
    "int8": paddle.inference.PrecisionType.Int8,
}


def require_tensorrt() -> None:
    """Refuse to go on where Paddle can't use TensorRT.

    Raises:
        BackendUnavailableError: Paddle was built without TensorRT, or finds none, or one of another major version, or
            there is no GPU.
    """
    compiled = paddle.inference.get_trt_compile_version()
    if compiled == (0, 0, 0):
        raise BackendUnavailableError(
            "This Paddle was built without TensorRT, as every CPU build is.",
            "Install Paddle's GPU build (see environment.yml), or go through ONNX, which needs no TensorRT in Paddle.",
        )
    try:
        found = paddle.inference.get_trt_runtime_version()
    except Exception as error:  # Paddle's C++ errors have no common base class
        raise BackendUnavailableError(
            "Paddle can't load TensorRT's library libnvinfer.so.",
            "Put the folder that `python -m tutorial_utils.machine.tensorrt_libraries` prints into LD_LIBRARY_PATH "
            "before Python starts.",
        ) from error
    if found[0] != compiled[0]:
        wanted, loaded = (".".join(map(str, version)) for version in (compiled, found))
        raise BackendUnavailableError(
            f"Paddle was compiled for TensorRT {wanted}, but {loaded} is loaded.",
            f"Install TensorRT {compiled[0]}.x, not older than {wanted}.",
        )
    paddle_kernels.require_gpu()


def collect_shape_ranges(
    model_path: str | Path,
    params_path: str | Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    output_path: str | Path,
) -> Path:
    """Run a model on the CPU, and have Paddle write down the range of shapes of every tensor in it.

    An engine for a part of the program needs the ranges of that part's inputs, which nobody knows by heart.

    Args:
        model_path: ``.pdmodel``.
        params_path: ``.pdiparams``.
        batches: What the model will meet, the smallest and the largest batch among them.
        output_path: Where to, ``.pbtxt``: text.

    Raises:
        ModelFileError: Paddle can't load the files, or wrote no ranges.
    """
    _require_pdmodel(model_path)
    output = Path(output_path)
    output.unlink(missing_ok=True)
    config = paddle.inference.Config(str(model_path), str(params_path))
    config.disable_glog_info()
    config.collect_shape_range_info(str(output))
    with PaddleRunner.from_config(config, "Paddle") as runner:
        for feeds in batches:
            runner.infer(feeds)
    if not output.exists() or output.stat().st_size == 0:  # the predictor writes it when it is destroyed
        output.unlink(missing_ok=True)
        raise ModelFileError("Paddle wrote no ranges of shapes.", "Give at least one batch.")
    return output


def legacy_config(
    model_path: str | Path,
    params_path: str | Path,
    cache_folder: str | Path,
    *,
    shapes: Shapes | None = None,
    shape_ranges: str | Path | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    min_subgraph_size: int = 3,
    exp_disable_tensorrt_ops: Sequence[str] = (),
    explicit_quantization: bool = False,
    inspector: bool = False,
    quiet: bool = True,
) -> "paddle.inference.Config":
    """Return the configuration of a predictor that builds TensorRT engines itself, on GPU 0.

    The precision is that of the engines. What stays with Paddle computes in FP32: only the third argument of
    `enable_use_gpu`, which is left alone here, changes that.

    INT8 takes the ranges of activations from a quantized program (`model.paddle_quantization`). For any other, make two
    predictors with the same settings: the first collects ranges while it runs real images, and writes them when it is
    closed; the second uses them.

    Args:
        model_path: ``.pdmodel``.
        params_path: ``.pdiparams``.
        cache_folder: Where engines, calibration tables and the optimized program go. One for each model, set of
            options, GPU and TensorRT: Paddle finds an engine there by the names of its tensors alone.
        shapes: Range of each input of the model. Give this or ``shape_ranges``.
        shape_ranges: What `collect_shape_ranges` wrote. Needed where the program falls into several parts.
        precision: That of the engines.
        min_subgraph_size: Fewer operators than this stay with Paddle.
        exp_disable_tensorrt_ops: Operators to leave to Paddle, such as "softmax".
        explicit_quantization: Give TensorRT the quantize and dequantize nodes of a quantized program
            (`enable_tensorrt_explicit_quantization`) instead of the ranges that Paddle reads from them. Needs a Paddle
            that was compiled with TensorRT 8.6.
        inspector: Write what each engine consists of into the cache folder, as JSON (`enable_tensorrt_inspector`).
        quiet: Whether Paddle's log is switched off, for the rest of the process.

    Raises:
        ModelFileError: The program is no ``.pdmodel``, or damaged.
        PrecisionError: The precision is unknown, or INT8 can't be had in this way.
        ProfileError: A range is not ordered, or both or none of the two ways to give ranges were used.
        BackendUnavailableError: Paddle can't use TensorRT here.
    """
    _require_pdmodel(model_path)
    if precision not in _LEGACY_PRECISIONS:
        raise PrecisionError(
            f"Paddle-TRT has no precision {precision!r}.", f"Choose of {', '.join(_LEGACY_PRECISIONS)}."
        )
    if (shapes is None) == (shape_ranges is None):
        raise ProfileError(
            "The engine needs ranges of shapes, given once; without any, Paddle leaves the end of the program outside.",
            "Give shapes or shape_ranges; for one fixed shape, three times the same.",
        )
    Profile.from_mapping(shapes or {})
    calibrate = precision == "int8" and not is_quantized(model_path)
    if calibrate:
        _require_calibration(model_path, shape_ranges)
    require_tensorrt()
    if explicit_quantization and (compiled := paddle.inference.get_trt_compile_version()) < (8, 6, 0):
        raise PrecisionError(
            f"Explicit quantization keeps convolutions outside: this Paddle was compiled with TensorRT "
            f"{'.'.join(map(str, compiled))}, and takes those with quantized weights from 8.6 on.",
            "Leave explicit_quantization out: Paddle then gives TensorRT the ranges of the quantized program.",
        )
    config = paddle.inference.Config(str(model_path), str(params_path))
    if quiet:
        config.disable_glog_info()
    config.enable_use_gpu(GPU_MEMORY_MB, 0)
    config.set_optim_cache_dir(f"{cache_folder}/")  # Paddle writes what the inspector says to this and a name, joined
    config.enable_save_optim_model(True)  # _optimized.pdmodel: the proof of what became an engine
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,  # bytes
        max_batch_size=1,  # ignored where there are ranges
        min_subgraph_size=min_subgraph_size,
        precision_mode=_LEGACY_PRECISIONS[precision],
        use_static=not calibrate,  # keep the engine in the cache folder
        use_calib_mode=calibrate,  # True by default, in every precision
    )
    if shapes is not None:
        smallest, best, largest = ({name: list(shapes[name][i]) for name in shapes} for i in range(3))
        config.set_trt_dynamic_shape_info(smallest, largest, best)  # in this order
    else:
        config.enable_tuned_tensorrt_dynamic_shape(str(shape_ranges), True)
    if exp_disable_tensorrt_ops:
        config.exp_disable_tensorrt_ops(list(exp_disable_tensorrt_ops))
    if explicit_quantization:
        config.enable_tensorrt_explicit_quantization()
    if inspector:
        config.enable_tensorrt_inspector(True)
    return config


def is_quantized(model_path: str | Path) -> bool:
    """Whether a program holds ranges of activations: nodes that quantize, in either of Paddle's forms."""
    return any(name.startswith(("quantize_linear", "fake_quantize")) for name in paddle_program.operators(model_path))


def _require_calibration(model_path: str | Path, shape_ranges: str | Path | None) -> None:
    """Refuse a calibration that would end the process: it runs the program, as it was made for TensorRT, in Paddle.

    Raises:
        PrecisionError: Ranges of shapes were given by hand, or Paddle can't run an operator or has no kernels.
    """
    remedy = "Quantize the program offline (model.paddle_quantization.quantize), or go through ONNX with Q/DQ."
    if shape_ranges is None:
        raise PrecisionError(
            "Paddle's INT8 calibration reads ranges of shapes from a collected file alone; for those given by hand it "
            "ends the process.",
            f"Give shape_ranges (collect_shape_ranges). {remedy}",
        )
    if paddle.__version__.startswith("2.") and {"matmul_v2", "matmul", "mul"} & {*paddle_program.operators(model_path)}:
        raise PrecisionError(
            f"Paddle {paddle.__version__} can't calibrate a program with a matrix product: it is renamed to "
            "matrix_multiply for TensorRT, which Paddle itself doesn't have.",
            remedy,
        )
    if sentence := paddle_kernels.missing():
        raise PrecisionError(f"{sentence}: INT8 calibration runs the program in them.", remedy)


def _require_pdmodel(model_path: str | Path) -> None:
    if Path(model_path).suffix != ".pdmodel":
        raise ModelFileError(
            f"{Path(model_path).name} is no .pdmodel: for a program in the PIR form, Paddle ignores "
            "enable_tensorrt_engine without a word.",
            "Save the model again with FLAGS_enable_pir_api=0 set before Paddle is imported (lesson 02a), or convert "
            "the .json by PIR-TRT (lesson 02b).",
        )
