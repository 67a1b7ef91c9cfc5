"""Signatures of Paddle 2.6.2 and 3.3.1, as printed by them or read in their source, for the tests of Paddle-TRT.

Only the parameters matter: calling one with what it doesn't have raises a TypeError.
"""

import enum
from pathlib import Path
from typing import Any


class Config:
    """paddle.inference.Config: takes the calls that it has and remembers them."""

    def __init__(self, prog_file: str, params_file: str):
        self.program = prog_file
        self.calls: dict[str, dict[str, Any]] = {}

    def prog_file(self) -> str:
        return self.program

    def disable_glog_info(self):
        self.calls["disable_glog_info"] = {}

    def enable_use_gpu(self, memory_pool_init_size_mb, device_id=0, precision_mode=None):
        self.calls["enable_use_gpu"] = {k: v for k, v in locals().items() if k != "self"}

    def enable_tensorrt_engine(
        self,
        workspace_size=1073741824,
        max_batch_size=1,
        min_subgraph_size=3,
        precision_mode=None,
        use_static=False,
        use_calib_mode=True,
        use_cuda_graph=False,
    ):
        self.calls["enable_tensorrt_engine"] = {k: v for k, v in locals().items() if k != "self"}

    def set_trt_dynamic_shape_info(
        self, min_input_shape=None, max_input_shape=None, optim_input_shape=None, disable_trt_plugin_fp16=False
    ):
        self.calls["set_trt_dynamic_shape_info"] = {k: v for k, v in locals().items() if k != "self"}

    def collect_shape_range_info(self, arg0):
        self.calls["collect_shape_range_info"] = {"arg0": arg0}

    def enable_tuned_tensorrt_dynamic_shape(self, shape_range_info_path="", allow_build_at_runtime=True):
        self.calls["enable_tuned_tensorrt_dynamic_shape"] = {k: v for k, v in locals().items() if k != "self"}

    def set_optim_cache_dir(self, arg0):
        self.calls["set_optim_cache_dir"] = {"arg0": arg0}

    def enable_save_optim_model(self, save_optimized_model=False):
        self.calls["enable_save_optim_model"] = {"save_optimized_model": save_optimized_model}

    def exp_disable_tensorrt_ops(self, arg0):
        self.calls["exp_disable_tensorrt_ops"] = {"arg0": arg0}

    def exp_disable_mixed_precision_ops(self, arg0):
        self.calls["exp_disable_mixed_precision_ops"] = {"arg0": arg0}

    def enable_memory_optim(self, x=True):
        self.calls["enable_memory_optim"] = {"x": x}

    def enable_tensorrt_explicit_quantization(self):
        self.calls["enable_tensorrt_explicit_quantization"] = {}

    def enable_tensorrt_inspector(self, inspector_serialize=False):
        self.calls["enable_tensorrt_inspector"] = {"inspector_serialize": inspector_serialize}


# The first line of each method's documentation in the GPU build of Paddle 2.6.2, less the arguments' class names.
CONFIG_OF_2_6_2 = {
    "prog_file": "(self) -> str",
    "disable_glog_info": "(self) -> None",
    "enable_use_gpu": "(self, memory_pool_init_size_mb: int, device_id: int = 0, "
    "precision_mode: P = <Float32: 0>) -> None",
    "enable_tensorrt_engine": "(self, workspace_size: int = 1073741824, max_batch_size: int = 1, "
    "min_subgraph_size: int = 3, precision_mode: P = <Float32: 0>, use_static: bool = False, "
    "use_calib_mode: bool = True, use_cuda_graph: bool = False) -> None",
    "set_trt_dynamic_shape_info": "(self, min_input_shape: dict = {}, max_input_shape: dict = {}, "
    "optim_input_shape: dict = {}, disable_trt_plugin_fp16: bool = False) -> None",
    "collect_shape_range_info": "(self, arg0: str) -> None",
    "enable_tuned_tensorrt_dynamic_shape": "(self, shape_range_info_path: str = '', "
    "allow_build_at_runtime: bool = True) -> None",
    "set_optim_cache_dir": "(self, arg0: str) -> None",
    "enable_save_optim_model": "(self, save_optimized_model: bool = False) -> None",
    "exp_disable_tensorrt_ops": "(self, arg0: list) -> None",
    "exp_disable_mixed_precision_ops": "(self, arg0: set) -> None",
    "enable_memory_optim": "(self, x: bool = True) -> None",
    "enable_tensorrt_explicit_quantization": "(self) -> None",
    "enable_tensorrt_inspector": "(self, inspector_serialize: bool = False) -> None",
}


class Input:
    """paddle.tensorrt.Input."""

    def __init__(
        self,
        warmup_data=None,
        min_input_shape=None,
        max_input_shape=None,
        optim_input_shape=None,
        input_data_type="float32",
        input_range=None,
        name=None,
    ):
        if (warmup_data is None) == (min_input_shape is None):
            raise ValueError("either warmup_data or the three shapes")
        self.given = {k: v for k, v in locals().items() if k != "self"}


class PrecisionMode(enum.Enum):
    """paddle.tensorrt.PrecisionMode; only the names are known."""

    FP32 = "FP32"
    FP16 = "FP16"
    BF16 = "BF16"
    INT8 = "INT8"


class TensorRTConfig:
    """paddle.tensorrt.TensorRTConfig."""

    def __init__(
        self,
        inputs,
        min_subgraph_size=3,
        save_model_dir=None,
        disable_ops=None,
        precision_mode=PrecisionMode.FP32,
        ops_run_float=None,
        optimization_level=3,
        disable_passes=(),
        workspace_size=1 << 30,
        use_cuda_graph=False,
        refit_params_path=None,
    ):
        self.given = {k: v for k, v in locals().items() if k != "self"}


def convert(model_path, config):
    """paddle.tensorrt.convert; it writes the files that Paddle would write, without a program in them."""
    convert.calls.append((model_path, config))
    for ending in (".json", ".pdiparams"):
        Path(config.given["save_model_dir"] + ending).write_text("written by a stand-in")


convert.calls = []
