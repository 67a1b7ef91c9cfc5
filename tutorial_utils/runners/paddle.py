"""Paddle Inference on a static model, on the CPU or on a GPU."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from tutorial_utils.base.errors import InputError
from tutorial_utils.model import paddle_program
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import paddle_kernels
from tutorial_utils.runners.base import Arrays, Runner, TensorSpec, check_threads

Shape = tuple[int, ...]
Shapes = Mapping[str, tuple[Shape, Shape, Shape]]  # for each input the smallest, best and largest shape

# With these operators, oneDNN's results were those of the dynamic graph in every chain of two and in 250 random chains
# of four. With others, Paddle 3.3.1 may raise, end the process or compute other values: it misreads attributes in
# double precision (leaky_relu, interpolations), and takes the layout of images for a plain one or the other way round.
ONEDNN_OPERATORS = {
    *paddle_program.BOOKKEEPING, "pd_op.full", "pd_op.add", "pd_op.assign", "pd_op.batch_norm_", "pd_op.concat",
    "pd_op.conv2d", "pd_op.depthwise_conv2d", "pd_op.dropout", "pd_op.flatten", "pd_op.hardsigmoid", "pd_op.hardswish",
    "pd_op.matmul", "pd_op.mean", "pd_op.multiply", "pd_op.pool2d", "pd_op.relu", "pd_op.relu6", "pd_op.reshape",
    "pd_op.scale", "pd_op.sigmoid", "pd_op.silu", "pd_op.softmax", "pd_op.squeeze", "pd_op.transpose",
    "pd_op.unsqueeze", "builtin.combine",
}  # fmt: skip
# What a .json file calls the types of tensors. NumPy has no BF16: Paddle takes and gives its bits.
NUMPY_NAMES = {
    "f16": "float16", "f32": "float32", "f64": "float64", "bf16": "uint16", "bfloat16": "uint16", "c64": "complex64",
    "c128": "complex128", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "ui8": "uint8",
}  # fmt: skip
GPU_MEMORY_MB = 256  # first allocation; `enable_use_gpu` takes megabytes


class PaddleRunner(Runner):
    """Runs a static Paddle model with Paddle Inference.

    Args:
        model_path: The program (``.json`` or ``.pdmodel``).
        params_path: Its weights (``.pdiparams``). Paddle writes no such file for a model without weights.
        device: "cpu" or "gpu".
        onednn: Use oneDNN's kernels on the CPU, as Paddle does unless told otherwise. A model with operators for which
            oneDNN may fail or end the process runs without it, with a warning.
        optimize: Let Paddle optimize the program (fuse operators) before it runs.
        threads: Threads of the CPU's math library; None for one for each core (Paddle's own default is a single one).

    Raises:
        ModelFileError: A file is missing or Paddle can't load it.
        BackendUnavailableError: A GPU was asked for, and this build of Paddle has none, or no kernels for it.
        InputError: There is no such device or number of threads.
    """

    def __init__(
        self,
        model_path: str | Path,
        params_path: str | Path,
        *,
        device: Literal["cpu", "gpu"] = "cpu",
        onednn: bool = True,
        optimize: bool = True,
        threads: int | None = None,
    ):
        if device not in ("cpu", "gpu"):
            raise InputError(f"Paddle has no device {device!r} here.", "Choose one of cpu, gpu.")
        check_threads(threads)
        paddle_program.require_files(model_path, params_path)
        config = paddle.inference.Config(str(model_path), paddle_program.existing(params_path))
        config.disable_glog_info()
        config.switch_ir_optim(optimize)
        if device == "gpu":
            paddle_kernels.require()
            config.enable_use_gpu(GPU_MEMORY_MB, 0)
        elif onednn:
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(threads or os.cpu_count() or 1)
        self._open(config, f"Paddle {'GPU' if device == 'gpu' else 'CPU'}", {})

    @classmethod
    def from_config(
        cls, config: "paddle.inference.Config", backend: str, shapes: Shapes | None = None
    ) -> "PaddleRunner":
        """Make a runner of a configuration of your own, such as one of `tutorial_utils.runners.paddle_tensorrt`.

        Args:
            config: Any configuration of Paddle Inference that names its two files.
            backend: The backend and device, as tables show it.
            shapes: Range of each input, where an engine was built for one.

        Raises:
            ModelFileError: Paddle can't load the files.
        """
        runner = cls.__new__(cls)
        runner._open(config, backend, shapes or {})
        return runner

    def _open(self, config: "paddle.inference.Config", backend: str, shapes: Shapes) -> None:
        model_path = Path(config.prog_file())
        paddle_program.operators(model_path)  # a damaged .pdmodel must not reach Paddle: it would end the process
        if config.mkldnn_enabled() and not config.use_gpu():
            self._predictor = _with_onednn(config, model_path)
        else:
            self._predictor = paddle_program.create_predictor(config)
        self.backend = backend
        declared = _declared(model_path)
        self._inputs = {name: self._predictor.get_input_handle(name) for name in self._predictor.get_input_names()}
        self._outputs = {name: self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()}
        self.inputs = {
            # of the three shapes, the smallest and the largest
            name: TensorSpec(name, *declared[name], *map(tuple, shapes.get(name, ())[::2]))
            for name in self._inputs
        }
        # The optimizer may rename an output of a .pdmodel.
        self.outputs = {
            name: TensorSpec(name, declared[name][0] if name in declared else _dtype(handle.type().name.lower()))
            for name, handle in self._outputs.items()
        }

    def close(self) -> None:
        """Free the predictor. Only now does Paddle write collected shape ranges and INT8 calibration tables."""
        self._inputs, self._outputs = {}, {}
        self._predictor = None

    def _infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        for name, handle in self._inputs.items():
            handle.copy_from_cpu(feeds[name])
        try:
            self._predictor.run()
        except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
            raise InputError(
                f"Paddle refuses these inputs while the model runs: {paddle_program.reason(error)}.",
                "Give sizes and ids that the model accepts; where the dynamic graph takes them, try onednn=False.",
            ) from error
        return {name: handle.copy_to_cpu() for name, handle in self._outputs.items()}


def _with_onednn(config: "paddle.inference.Config", model_path: Path) -> "paddle.inference.Predictor":
    """Load a model with oneDNN, or without it where oneDNN fails, with a warning.

    Raises:
        ModelFileError: Paddle can't load the model without oneDNN either.
    """
    # Results in oneDNN's layout are converted for each of several readers without a copy: an operator that Paddle lets
    # work in place (sin, floor, cumsum) then writes over what the others still have to read.
    config.delete_pass("inplace_pass")
    plain = paddle.inference.Config(config)  # a configuration makes one predictor only
    plain.disable_mkldnn()
    if operators := breaks_onednn(model_path):
        failing = f"may fail with {', '.join(operators)}"
    else:
        try:
            return paddle.inference.create_predictor(config)
        except Exception as error:  # such as a transposition that oneDNN takes for one of images
            failing = f"fails: {paddle_program.reason(error)}"
    predictor = paddle_program.create_predictor(plain)
    warnings.warn(
        f"Paddle runs {model_path.name} without oneDNN, which {failing}; onednn=False asks for that.",
        stacklevel=4,
    )
    return predictor


def _declared(model_path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Read types and shapes of inputs and outputs from a program. A predictor knows them only after its first run."""
    if model_path.suffix != ".json":
        program = paddle.base.core.ProgramDesc(model_path.read_bytes())  # kept in a variable: its blocks die with it
        block = program.block(0)
        operations = [block.op(index) for index in range(block.op_size())]
        names = [one.output("Out")[0] for one in operations if one.type() == "feed"]
        names += [one.input("X")[0] for one in operations if one.type() == "fetch"]
        found = {name: block.find_var(name.encode()) for name in names}
        return {name: (_dtype(str(var.dtype()).rpartition(".")[2]), tuple(var.shape())) for name, var in found.items()}
    declared = {}
    for one in paddle_program.operations(model_path):
        if one.name == "pd_op.data":
            declared[one.attributes["name"]] = _dtype(one.attributes["dtype"]), tuple(one.attributes["shape"])
        elif one.name == "pd_op.fetch":
            kind, shape = one.inputs[0]
            declared[one.attributes["name"]] = _dtype(kind), shape
    return declared


def breaks_onednn(model_path: str | Path) -> list[str]:
    """Return the operators of a program for which oneDNN may fail, give other values or end the process.

    Measured with Paddle 3.3.1, whose error comes only when the model runs, if it comes at all. Of a ``.pdmodel``, which
    Paddle runs by other means, only the nearest interpolation is known to fail.
    """
    if Path(model_path).suffix != ".json":
        return sorted({name for name in paddle_program.operators(model_path) if name.startswith("nearest_interp")})
    return sorted(
        {one.name.rpartition(".")[2] for one in paddle_program.operations(model_path) if not _for_onednn(one)}
    )


def _for_onednn(operation: paddle_program.Operation) -> bool:
    name, given = operation.name, operation.attributes
    if name == "pd_op.batch_norm_":
        return ("", ()) not in operation.inputs  # without scale and shift it ends the process
    if name == "pd_op.matmul":
        return all(len(shape) <= 2 for _, shape in operation.inputs)  # it takes the layout of images for a plain one
    if name == "pd_op.pool2d" and (given["ceil_mode"] or not given["exclusive"]):
        return False
    return name in ONEDNN_OPERATORS and given.get("data_format", "NCHW") == "NCHW"


def _dtype(name: str) -> np.dtype:
    return np.dtype(NUMPY_NAMES.get(name, name))
