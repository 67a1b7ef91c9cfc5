"""TROUBLESHOOTING.md: its form, and that the messages which it says a test provokes still appear.

Each table below maps the literal text of a row to what makes that text appear. A test at the end compares the keys of
all tables with the rows that say "Provoked by a test."
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import onnx
import onnxruntime
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from node_models import FLOAT, INT64, of_nodes
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.transformers import float16 as runtime_float16
from polygraphy.comparator import RunResults
from polygraphy.json import save_json
from small_models import images, options, residual_model, save_paddle

from benchmarks import debug_trial
from tutorial_utils.authoring import notebook_form
from tutorial_utils.base import errors, flavour
from tutorial_utils.base.paths import CACHE_VARIABLE, cache_dir
from tutorial_utils.debug import diagnosis
from tutorial_utils.inspection import page
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.measure import recordings
from tutorial_utils.model import data, half_precision, onnx_file, quantization

trt = pytest.importorskip("tensorrt_rtx")
from tutorial_utils.engine import BuildOptions, Profile, build  # noqa: E402 - these need TensorRT
from tutorial_utils.engine.tensorrt import MessageLog  # noqa: E402
from tutorial_utils.runners.cuda_graph import cuda_driver  # noqa: E402
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner  # noqa: E402

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
PROVOKED = "Provoked by a test."

without_driver = pytest.mark.skipif(find_library("cuda") is not None, reason="an NVIDIA driver is installed")
from_rtx_1_7 = pytest.mark.skipif(
    tuple(map(int, trt.__version__.split(".")[:2])) < (1, 7), reason="TensorRT-RTX 1.6 says it in other words"
)


def without(module):
    return pytest.mark.skipif(find_spec(module) is not None, reason=f"{module} is installed")


ONLY = {
    "CUDA driver version is insufficient for CUDA runtime version": without_driver,
    "MyelinCheckException: graph_jit.cpp": without_driver,
    "Could not deserialize engine. See log for details.": without_driver,
    "Plugin not found, are the plugin name, version, and namespace correct?": from_rtx_1_7,
    "FP32 GEMM is not supported": from_rtx_1_7,
    "No module named 'tensorrt'": without("tensorrt"),
    "Module: 'tensorrt' is required but could not be imported": without("tensorrt"),
    "IProgress not found": without("ipywidgets"),
}


def texts(table):
    """Return the texts of a table as parameters, each skipped where it can't be provoked."""
    return [pytest.param(text, marks=ONLY.get(text, ())) for text in table]


def run(command, *, folder=None, **environment) -> str:
    """Run a command; return all that it prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=120,
    )
    return done.stdout


# --- models ----------------------------------------------------------------------------------------------------------


def small_model(nodes, shape, *weights, opset=17, ir_version=9):
    """Return a model of the nodes, from the FP32 input x of this shape to the FP32 output y."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my.domain", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def model_of(operator, domain=""):
    return small_model([helper.make_node(operator, ["x"], ["y"], domain=domain)], [2, 3])


def product_model(dtype=np.float32):
    weight = numpy_helper.from_array(np.ones((3, 4), dtype), "w")
    return small_model([helper.make_node("MatMul", ["x", "w"], ["y"])], [2, 3], weight)


def fp8_model():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "d"], ["y"]),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [1.0])
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    return small_model(nodes, [16, 16], scale, zero, opset=19)


def per_channel_model(opset):
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.int8), "w")
    scale = numpy_helper.from_array(np.ones(4, np.float32), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["d"], axis=0),
        helper.make_node("Conv", ["x", "d"], ["y"]),
    ]
    return small_model(nodes, [1, 3, 8, 8], weight, scale, opset=opset)


def dequantized_product(scale):
    """Return x times a quantized weight of three dimensions, [4, 3, 2], which has the scale or scales."""
    scale = np.asarray(scale, np.float32)
    constants = {
        "one": np.float32(1), "zero": np.int8(0), "w": np.ones((4, 3, 2), np.int8),
        "scale": scale, "zeros": np.zeros(scale.shape, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "zeros"], ["e"], axis=2),
        helper.make_node("MatMul", ["d", "e"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return small_model(nodes, [4, 5, 3], *tensors)


def quantized_model(folder, **changes):
    """Return the residual model as ONNX Runtime's quantizer makes it by default, but for the changes."""

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"x": images(4)}])

        def get_next(self):
            return next(self.batches, None)

    onnx.save(residual_model(), folder / "model.onnx")
    quantize_static(folder / "model.onnx", folder / "quantized.onnx", Reader(), **changes)
    return onnx.load(folder / "quantized.onnx")


def asymmetric_model(folder):
    int8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    return quantized_model(folder, **int8, extra_options={"QuantizeBias": False})


# --- TensorRT --------------------------------------------------------------------------------------------------------

REMOVED = {
    "has no attribute 'FP16'": lambda builder, config: trt.BuilderFlag.FP16,
    "has no attribute 'EXPLICIT_BATCH'": lambda builder, config: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    "has no attribute 'IInt8EntropyCalibrator2'": lambda builder, config: trt.IInt8EntropyCalibrator2,
    "has no attribute 'SM90'": lambda builder, config: trt.ComputeCapability.SM90,
    "has no attribute 'num_bindings'": lambda builder, config: trt.ICudaEngine.num_bindings,
    "has no attribute 'execute_async_v2'": lambda builder, config: trt.IExecutionContext.execute_async_v2,
    "has no attribute 'build_engine'": lambda builder, config: builder.build_engine,
    "has no attribute 'platform_has_fast_fp16'": lambda builder, config: builder.platform_has_fast_fp16,
    "has no attribute 'max_batch_size'": lambda builder, config: setattr(builder, "max_batch_size", 64),
    "has no attribute 'max_workspace_size'": lambda builder, config: setattr(config, "max_workspace_size", 1 << 30),
}


@pytest.mark.parametrize("text", texts(REMOVED))
def test_removed_from_tensorrt(text):
    builder = trt.Builder(MessageLog())
    with pytest.raises(AttributeError) as caught:
        REMOVED[text](builder, builder.create_builder_config())
    assert text in str(caught.value)


UNPARSED = {
    "must have same input types": lambda folder: product_model(np.float16),
    "Plugin not found, are the plugin name, version, and namespace correct?": lambda folder: model_of(
        "Odd", "my.domain"
    ),
    "was not found in plugin registry": lambda folder: model_of("NonZero"),
    "input has type Int32 but must have type": quantized_model,
    "Non-zero zero point is not supported": asymmetric_model,
    "Scale coefficients must all be positive": lambda folder: dequantized_product(0),
    "Failed to import initializer": lambda folder: of_nodes(
        [helper.make_node("Identity", ["x"], ["y"])], {"x": (FLOAT, [4])}, weights={"unused": np.int16(0)}
    ),
    "Failed to parse the ONNX model": lambda folder: residual_model().SerializeToString()[:2000],
}


@pytest.mark.parametrize("text", texts(UNPARSED))
def test_refused_by_the_parser(text, tmp_path):
    model = UNPARSED[text](tmp_path)
    log = MessageLog()
    network = trt.Builder(log).create_network(0)  # a parser doesn't keep its network alive
    parser = trt.OnnxParser(network, log)
    assert not parser.parse(model if isinstance(model, bytes) else model.SerializeToString())
    assert text in " ".join(parser.get_error(i).desc() for i in range(parser.num_errors))


def add_profile(builder, config, name="x", batches=(1, 2, 4)):
    profile = builder.create_optimization_profile()
    profile.set_shape(name, *((batch, 3, 32, 32) for batch in batches))
    return config.add_optimization_profile(profile)


def target(config, name):
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.__members__[name], 0)


def flag(name):
    return lambda builder, config: (add_profile(builder, config), config.set_flag(getattr(trt.BuilderFlag, name)))


def tiny_workspace(builder, config):
    add_profile(builder, config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 10)


def contradictory_names():
    """Return a model with one name for dimensions that aren't of one size, as some exporters call each of them `?`."""
    return of_nodes([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 3, "?", "?"])})


def profile_of(*batches):
    """Return a hook that adds a profile of x, of shape [1, 3, h, w], with these sizes at min, opt and max."""

    def configure(builder, config):
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *((1, 3, *sizes) for sizes in batches))
        config.add_optimization_profile(profile)

    return configure


def reads_a_shape():
    return of_nodes(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], {"x": (FLOAT, [1, 3, 8, 8]), "shape": (INT64, [2])}
    )


def largest_of(count):
    nodes = [helper.make_node("TopK", ["x", "k"], ["y", "places"], "top")]
    return of_nodes(nodes, {"x": (FLOAT, [1, 5000])}, weights={"k": np.array([count])})


def suppression():
    nodes = [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["y"], "nms")]
    inputs = {"boxes": (FLOAT, [1, 10, 4]), "scores": (FLOAT, [1, 1, 10])}
    return of_nodes(nodes, inputs, weights={"most": np.array([3])}, output_type=INT64)


UNBUILT = {
    "missing values for shape input": (reads_a_shape, profile_of((8, 8), (8, 8), (8, 8))),
    "with this name have different constant values": (contradictory_names, profile_of((8, 4), (8, 4), (8, 4))),
    "Dimensions with name": (contradictory_names, profile_of((4, 4), (8, 6), (8, 8))),
    "K exceeds the maximum value allowed": (lambda: largest_of(4000), lambda builder, config: None),
    "has no runners that implement it": (suppression, lambda builder, config: None),
    "no optimization profile has been defined": (residual_model, lambda builder, config: None),
    "is missing dimensions in profile": (residual_model, lambda builder, config: add_profile(builder, config, "input")),
    "satisfy MIN<=OPT<=MAX": (residual_model, lambda builder, config: add_profile(builder, config, "x", (4, 2, 1))),
    "no tactics to implement the operation within workspace limit": (residual_model, tiny_workspace),
    "because the model contains HW-specific datatypes": (fp8_model, lambda builder, config: target(config, "SM86")),
    "FP32 GEMM is not supported": (product_model, lambda builder, config: target(config, "SM75")),
    "libnvinfer_lean.so.1: cannot open shared object file": (residual_model, flag("VERSION_COMPATIBLE")),
    "MyelinCheckException: graph_jit.cpp": (residual_model, flag("REFIT")),
}


@pytest.mark.parametrize("text", texts(UNBUILT))
def test_refused_by_the_builder(text):
    make_model, configure = UNBUILT[text]
    log = MessageLog()
    builder = trt.Builder(log)
    network, config = builder.create_network(0), builder.create_builder_config()
    assert trt.OnnxParser(network, log).parse(make_model().SerializeToString())
    configure(builder, config)
    assert builder.build_serialized_network(network, config) is None
    assert text in " ".join(log.texts())


HARMLESS = {
    "has Int64 binding": lambda: of_nodes([helper.make_node("Identity", ["x"], ["y"])], {"x": (INT64, [4])}),
    "Overriding data to nullptr": lambda: of_nodes(
        [helper.make_node("Resize", ["x", "roi", "scales"], ["y"])],
        {"x": (FLOAT, [1, 1, 4, 4])},
        weights={"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)},
    ),
}


@pytest.mark.parametrize("text", texts(HARMLESS))
def test_warning_of_a_model_that_builds(text, tmp_path):
    onnx.save(HARMLESS[text](), tmp_path / "m.onnx")
    built = build(tmp_path / "m.onnx", use_cache=False, progress=False)
    assert text in " ".join(built.report.warnings)


UNLOADED = {
    "Trying to load an engine created with incompatible serialization version": lambda plan: b"not a plan " * 100,
    "plan.header.size == blobSize": lambda plan: plan[: len(plan) // 2],
    "CUDA driver version is insufficient for CUDA runtime version": lambda plan: plan,
    "'NoneType' object has no attribute 'create_execution_context'": lambda plan: b"not a plan " * 100,
}


@pytest.fixture(scope="module")
def plan(fp32_model):
    return build(fp32_model, options(), use_cache=False).plan


@pytest.mark.parametrize("text", texts(UNLOADED))
def test_plan_that_is_not_loaded(text, plan):
    log = MessageLog()
    engine = trt.Runtime(log).deserialize_cuda_engine(UNLOADED[text](plan))
    with pytest.raises(AttributeError) as caught:
        engine.create_execution_context()
    assert text in " ".join([*log.texts(), str(caught.value)])


IMPOSSIBLE_SHAPE = "Profile kMAX values are not self-consistent"


def test_shape_that_strides_do_not_divide_is_a_warning_only():
    profile = Profile.of(x=((1, 3, 32, 32), (1, 3, 64, 64), (1, 3, 64, 72)))
    options = BuildOptions(profiles=[profile], compute_capabilities=["8.9"])
    built = build(text_detection.prepare(), options, use_cache=False, progress=False)
    assert any(IMPOSSIBLE_SHAPE in warning for warning in built.report.warnings)


LAYERNORM = "Detected layernorm nodes in FP16"


def test_layernorm_of_several_nodes_is_a_warning_only(tmp_path):
    builder = debug_trial.Builder(seed=1)
    here = builder.add("MatMul", builder.input("x", TensorProto.FLOAT, [4, 32]), builder.weight(32, 32))
    here, _ = debug_trial.normalization(builder, here, -1)
    path = onnx_file.save(builder.model(builder.add("MatMul", here, builder.weight(32, 32)), 2), tmp_path / "fp32.onnx")
    half = half_precision.to_fp16(path, tmp_path / "fp16.onnx")
    warnings = build(half, BuildOptions(), use_cache=False, progress=False).report.warnings
    assert any(LAYERNORM in warning for warning in warnings)


# --- scripts: what a library prints to the terminal, and what depends on the first import -----------------------------

BUILDER = "import tensorrt_rtx as trt; builder = trt.Builder(trt.Logger())"
SCRIPTS = {
    "EnumMax<NetworkDefinitionCreationFlag>": f"{BUILDER}; builder.create_network(2).num_layers",
    "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX": f"{BUILDER}; config = "
    "builder.create_builder_config(); config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS",
    "differs from one already registered": f"{BUILDER}; other = trt.Builder(trt.Logger())",
    "Context managers for TensorRT types are deprecated": f"{BUILDER}\nwith trt.Runtime(trt.Logger()): pass",
    "got an unexpected keyword argument 'fp16'": "from polygraphy.backend.tensorrt_rtx import CreateConfigRTX; "
    "CreateConfigRTX(fp16=True)",
    "Precision flags (fp16, int8, bf16, fp8) are not supported": "from polygraphy.backend.trt import *; "
    "create_config(*create_network(), fp16=True)",
    "Input file cannot be found, or is not a regular file": f"{BUILDER}; network = builder.create_network(0); "
    "trt.OnnxParser(network, trt.Logger()).parse_from_file('absent.onnx')",
    "terminate called without an active exception": "import pathlib; from tutorial_utils.lessons.lesson03 import "
    f"snake_plugin; snake_plugin.parsed(snake_plugin.save_models(pathlib.Path({tempfile.gettempdir()!r}))[1])",
    "Segmentation fault": f"{BUILDER}; trt.OnnxParser(builder.create_network(0), trt.Logger()).parse(b'')",
    "No module named 'tensorrt'": "import tensorrt",
    "marshal data too short": "import py_compile, sys, tempfile; place = tempfile.TemporaryDirectory(); "
    "sys.path.insert(0, place.name); path = f'{place.name}/cut.py'; open(path, 'w').write('x = 1'); "
    "open(py_compile.compile(path), 'r+b').truncate(40); import cut",
    "IProgress not found": "from tqdm.notebook import tqdm; tqdm(range(2))",
}


@pytest.mark.parametrize("text", texts(SCRIPTS))
def test_script(text):
    assert text in run(
        [sys.executable, "-W", "always", "-X", "faulthandler", "-c", SCRIPTS[text]], POLYGRAPHY_USE_TENSORRT_RTX="1"
    )


# --- Polygraphy's commands -------------------------------------------------------------------------------------------

POLYGRAPHY = {
    "Module: 'tensorrt' is required but could not be imported": "inspect model model.onnx --display-as=trt",
    "Unrecognized Options: ['--workspace'": "convert model.onnx -o out.engine --workspace 1G",
    "[TF32, STRONGLY_TYPED]": "convert model.onnx -o out.engine --fp16",
    "No shapes provided; Will use shape": "convert model.onnx -o out.engine",
    "Compute capability 9.0 (SM90) not supported": "convert model.onnx -o out.engine --compute-capabilities 9.0",
    "Could not deserialize engine. See log for details.": "run model.onnx --trt",
    "obey_precision_constraints in": "debug precision model.onnx --check true",
    "Int8 Calibration is using randomly generated input data": "convert model.onnx --int8 -o out.engine",
    "Algorithm selectors (TacticRecorder/TacticReplayer) is not available": (
        "convert model.onnx --save-tactics tactics.json -o out.engine"
    ),
    "--warm-up requires --sequential-runners": "run model.onnx --onnxrt --warm-up 5",
    "invalid choice: 'to-input'": "data to-input a b -o c",
    "'mark all' is deprecated": "run model.onnx --onnxrt --onnx-outputs mark all",
    "does not match expected input name": "run model.onnx --onnxrt --load-inputs inputs.json",
    "Output names did not match exactly": "run model.onnx --onnxrt --load-outputs outputs.json",
    "Difference exceeds tolerance (rel=1e-05, abs=1e-05)": "run model.onnx --onnxrt --load-outputs rounded.json",
    "The following outputs were not found in the model": "run model.onnx --onnxrt --onnx-outputs absent",
}


@pytest.mark.parametrize("text", texts(POLYGRAPHY))
def test_polygraphy(text, tmp_path):
    onnx.save(residual_model(), tmp_path / "model.onnx")
    save_json([{"image": images(1)}], str(tmp_path / "inputs.json"))
    outputs = RunResults()
    outputs.add([{"another": images(1)}], runner_name="runner")
    outputs.save(str(tmp_path / "outputs.json"))
    rounded = RunResults()
    rounded.add([{"y": np.full((1, 10), 0.1, np.float32)}], runner_name="runner")
    rounded.save(str(tmp_path / "rounded.json"))
    command = [Path(sys.executable).with_name("polygraphy"), *POLYGRAPHY[text].split()]
    assert text in run(command, folder=tmp_path, POLYGRAPHY_USE_TENSORRT_RTX="1")


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def with_ir_version(version):
    model = residual_model()
    model.ir_version = version
    return model


def convert_twice():
    once = float16.convert_float_to_float16(residual_model())
    float16.convert_float_to_float16(once)


def bf16_model():
    with tempfile.TemporaryDirectory() as folder:
        fp32 = onnx_file.save(residual_model(), Path(folder) / "fp32.onnx")
        return onnx.load(half_precision.to_bf16(fp32, Path(folder) / "bf16.onnx"))


def same_names():
    model = residual_model()
    for node in model.graph.node:
        node.name = "same"
    return model


def converted_by(library):
    """Convert a model with a Cast to FLOAT, and check what comes out."""
    nodes = [helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT), helper.make_node("Relu", ["a"], ["y"])]
    model = small_model(nodes, [2, 3])
    onnx.checker.check_model(library.convert_float_to_float16(model, keep_io_types=True), full_check=True)


def check_without_external_data():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(residual_model(), path, save_as_external_data=True, location="weights", size_threshold=0)
        (Path(folder) / "weights").unlink()
        onnx.load(path)


ONNX_RUNTIME = {
    "two nodes with same node name": lambda: session(same_names()),
    "Inferred elem type differs": lambda: converted_by(float16),
    "must be topologically sorted": lambda: converted_by(runtime_float16),
    "higher than the checker's": lambda: onnx.checker.check_model(with_ir_version(onnx.IR_VERSION + 1)),
    "should be stored in": check_without_external_data,
    "Could not find an implementation for Conv": lambda: session(bf16_model()),
    "INVALID_PROTOBUF": lambda: onnxruntime.InferenceSession(residual_model().SerializeToString()[:2000]),
    "Unsupported model IR version": lambda: session(with_ir_version(99)),
    "Unrecognized attribute: axis for operator DequantizeLinear": lambda: session(per_channel_model(opset=12)),
    "b zero point is not valid": lambda: session(dequantized_product([1, 1])).run(
        None, {"x": np.ones((4, 5, 3), np.float32)}
    ),
    "is not a registered function/op": lambda: session(model_of("Odd", "my.domain")),
    "Unexpected input data type": lambda: session(residual_model()).run(None, {"x": images(1).astype(np.float64)}),
    "Got invalid dimensions for input": lambda: session(residual_model()).run(None, {"x": images(1)[:, :, 16:]}),
    "The model is already converted to float16": convert_twice,
}


@pytest.mark.parametrize("text", texts(ONNX_RUNTIME))
def test_onnx_runtime(text):
    session(per_channel_model(opset=13))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - ONNX Runtime's exceptions have no common base class
        ONNX_RUNTIME[text]()
    assert text in str(caught.value)


FALLBACK = "'CUDAExecutionProvider' is not in available provider names"


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime was built for GPUs"
)
def test_onnx_runtime_falls_back_to_the_cpu_with_a_warning_only():
    with pytest.warns(UserWarning, match=FALLBACK):
        fallen = onnxruntime.InferenceSession(residual_model().SerializeToString(), providers=["CUDAExecutionProvider"])
    assert fallen.get_providers() == ["CPUExecutionProvider"]


# --- Paddle ----------------------------------------------------------------------------------------------------------


def save_with_another_self(paddle, files):
    class Net(paddle.nn.Layer):
        def forward(this, x):  # noqa: N805 - the mistake that is shown
            return x

    save_paddle(Net(), [1, 4], files[0].with_name("unsaved"))


def infer_float64(paddle, files):
    predictor = paddle.inference.create_predictor(paddle.inference.Config(*map(str, files)))
    predictor.get_input_handle("x").copy_from_cpu(images(1).astype(np.float64))
    predictor.run()


def load_pdmodel(paddle, files):
    config = paddle.inference.Config(str(files[0].with_suffix(".pdmodel")), str(files[1]))
    paddle.inference.create_predictor(config)


def optimize_memory(paddle, files):
    config = paddle.inference.Config(*map(str, files))
    config.enable_memory_optim()
    paddle.inference.create_predictor(config)


def interpolate_with_onednn(paddle, files):
    class Net(paddle.nn.Layer):
        def forward(self, x):
            return paddle.nn.functional.interpolate(x, scale_factor=2)

    program, _ = save_paddle(Net(), [1, 3, 32, 32], files[0].with_name("larger"))
    config = paddle.inference.Config(str(program), "")
    config.enable_mkldnn()
    predictor = paddle.inference.create_predictor(config)
    predictor.get_input_handle("x").copy_from_cpu(images(1))
    predictor.run()


def save_without_weights(paddle, files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_paddle(paddle.nn.ReLU(), [1, 4], files[0].with_name("weightless"))


PADDLE = {
    "please compile with TENSORRT first": lambda paddle, files: paddle.inference.Config(
        *map(str, files)
    ).enable_tensorrt_engine(),
    "No module named 'paddle.tensorrt'": lambda paddle, files: importlib.import_module("paddle.tensorrt"),
    "since PaddlePaddle is not compiled with CUDA": lambda paddle, files: paddle.set_device("gpu"),
    "please confirm whether the file is normal": load_pdmodel,
    "arguments, but not found in input": save_with_another_self,
    "Ref tensor type (float64) is not supported by oneDNN": infer_float64,
    "Not find predictor_id": optimize_memory,
    "ConvertPirAttribute2RuntimeAttribute": interpolate_with_onednn,
    "no variable in your model": save_without_weights,
}
GPU_CALL_ON_CPU = "Please use PaddlePaddle with GPU version."
DAMAGED_PDMODEL = "C++ Traceback (most recent call last)"


@pytest.fixture(scope="module")
def cpu_paddle():
    paddle = pytest.importorskip("paddle")
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle was built for GPUs")
    return paddle


@pytest.mark.parametrize("text", texts(PADDLE))
def test_paddle(text, cpu_paddle, paddle_model):
    with pytest.raises((RuntimeError, ValueError, ImportError, UserWarning)) as caught:
        PADDLE[text](cpu_paddle, paddle_model)
    assert text in str(caught.value)


def test_paddle_only_logs_that_it_has_no_gpu(cpu_paddle, paddle_model):
    """In a process of its own: whether Paddle logs at all is settled at its first import."""
    script = "import sys; from paddle.inference import Config; config = Config(*sys.argv[1:]); "
    script += "config.enable_use_gpu(256, 0); print(config.use_gpu())"
    printed = run([sys.executable, "-c", script, *paddle_model], GLOG_minloglevel="0")
    assert GPU_CALL_ON_CPU in printed
    assert printed.rstrip().endswith("False")


def test_paddle_dies_of_a_damaged_pdmodel(cpu_paddle, paddle_model, tmp_path):
    (tmp_path / "net.pdmodel").write_bytes(b"garbage " * 100)
    script = "import sys; from paddle.inference import *; create_predictor(Config(*sys.argv[1:])); print('alive')"
    printed = run([sys.executable, "-c", script, tmp_path / "net.pdmodel", paddle_model[1]])
    assert DAMAGED_PDMODEL in printed
    assert "alive" not in printed


PADDLE2ONNX = {
    "Due to the unsupported operators, the conversion is aborted.": ("svd", {}),
    "The Opset Version must be between 7 and 21": ("net", {"opset_version": 25}),
    "Failed to convert PaddlePaddle model": ("damaged", {}),
    "MUST be ir::FloatAttribute": ("interpolate", {}),
    "Due to opset version, the model exporting is aborted.": ("pad", {"auto_upgrade_opset": False}),
    "Adaptive only support static input shape": ("pool", {}),
    "There are unsupported features": ("softplus", {}),
    "Skip onnxoptimizer.": ("net", {"optimize_tool": "onnxoptimizer"}),
}
EACH_IN_A_FORK_END = "----- the next case -----"
EACH_IN_A_FORK = f"""
import json, multiprocessing, sys
import paddle2onnx
fork = multiprocessing.get_context("fork")
for files, options in json.load(open(sys.argv[1])):
    process = fork.Process(target=paddle2onnx.export, args=files, kwargs=options)
    process.start()
    process.join()
    print({EACH_IN_A_FORK_END!r}, flush=True)
"""


@pytest.fixture(scope="module")
def paddle2onnx_outputs(cpu_paddle, paddle_model, tmp_path_factory):
    """What paddle2onnx prints in each case; it mostly ends its process, so each has its own, with the imports done."""

    functional = cpu_paddle.nn.functional
    functions = {
        "svd": lambda x: cpu_paddle.linalg.svd(x)[1],
        "interpolate": lambda x: functional.interpolate(x, scale_factor=2),
        "pad": lambda x: functional.pad(x, [1, 1, 1, 1], mode="circular"),
        "pool": lambda x: functional.adaptive_avg_pool2d(x, (1, 4)),
        "softplus": lambda x: functional.softplus(x, beta=2),
    }

    class Net(cpu_paddle.nn.Layer):
        def __init__(self, function):
            super().__init__()
            self.conv = cpu_paddle.nn.Conv2D(3, 4, 1)
            self.function = function

        def forward(self, x):
            return self.function(self.conv(x))

    folder = tmp_path_factory.mktemp("paddle2onnx")
    damaged = folder / "damaged.json"
    damaged.write_text("{ not a program")
    models = {
        "net": paddle_model,
        **{name: save_paddle(Net(one), [1, 3, None, None], folder / name) for name, one in functions.items()},
        "damaged": (damaged, paddle_model[1]),
    }

    cases = []
    for name, changes in PADDLE2ONNX.values():
        options = {"save_file": str(folder / "out.onnx"), "opset_version": 17, "optimize_tool": "None", **changes}
        cases.append((tuple(map(str, models[name])), options))
    (folder / "cases.json").write_text(json.dumps(cases))
    printed = run([sys.executable, "-c", EACH_IN_A_FORK, folder / "cases.json"])
    return dict(zip(PADDLE2ONNX, printed.split(EACH_IN_A_FORK_END)[:-1], strict=True))


@pytest.mark.parametrize("text", texts(PADDLE2ONNX))
def test_paddle2onnx(text, paddle2onnx_outputs):
    assert text in paddle2onnx_outputs[text]


# --- nbval, without the conftest.py of this repository ----------------------------------------------------------------

CHECKED = "# NBVAL_CHECK_OUTPUT\nprint(1)"
NBVAL = {
    "# NBVAL_CHECK_OUTPUT": ("stripped", new_code_cell(CHECKED)),
    "Unrun reference cell has outputs": (
        "not_executed",
        new_code_cell(CHECKED, outputs=[new_output("stream", text="1\n")]),
    ),
    "Missing output fields from running code: {'stderr'}": (
        "warned",
        new_code_cell(
            CHECKED,
            execution_count=1,
            outputs=[new_output("stream", text="1\n"), new_output("stream", name="stderr", text="warning\n")],
        ),
    ),
}


@pytest.fixture(scope="module")
def nbval_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nbval")
    for name, cell in NBVAL.values():
        nbformat.write(new_notebook(cells=[cell]), folder / f"{name}.ipynb")
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "--color=no", "-rA", "--nbval-lax", "--nbval-current-env", "."]
    return run(command, folder=folder)


@pytest.mark.parametrize("text", texts(NBVAL))
def test_nbval(text, nbval_report):
    assert text in nbval_report
    passes = text == "# NBVAL_CHECK_OUTPUT"
    assert f"{'PASSED' if passes else 'FAILED'} {NBVAL[text][0]}.ipynb::Cell 0" in nbval_report


# --- the package's own errors ----------------------------------------------------------------------------------------

OWN = {
    errors.BackendUnavailableError: lambda folder: flavour.load.__wrapped__(),
    errors.DataError: lambda folder: data.load("imagenet"),
    errors.ModelFileError: lambda folder: onnx_file.load(folder / "absent.onnx"),
    errors.UnsupportedOperatorError: lambda folder: build(folder / "odd.onnx", BuildOptions(), use_cache=False),
    errors.ExportError: lambda folder: onnx_file.save(per_channel_model(opset=12), folder / "invalid.onnx"),
    errors.PrecisionError: lambda folder: half_precision.to_fp16(
        folder / "model.onnx", folder / "half.onnx", keep_fp32=["absent"]
    ),
    errors.CalibrationError: lambda folder: quantization.to_int8(folder / "odd.onnx", folder / "int8.onnx", None),
    errors.ProfileError: lambda folder: Profile.of(x=((4,), (2,), (8,))),
    errors.BuildError: lambda folder: BuildOptions(workspace_bytes=-1),
    errors.TargetError: lambda folder: page.inspect(folder / "model.onnx", targets=["7.0"]),
    errors.CacheError: lambda folder: cache_dir("engines"),
    errors.InputError: lambda folder: OnnxRuntimeRunner(folder / "model.onnx").infer({}),
    errors.RecordingError: lambda folder: recordings.load("absent"),
    errors.LessonError: lambda folder: notebook_form.read(folder / "absent.ipynb"),
}


@pytest.mark.parametrize("error", OWN, ids=lambda error: error.__name__)
def test_own_error_ends_with_where_to_look(error, tmp_path, monkeypatch):
    onnx.save(model_of("Odd", "my.domain"), tmp_path / "odd.onnx")
    onnx.save(residual_model(), tmp_path / "model.onnx")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "odd.onnx"))  # a file, where a folder should be
    monkeypatch.setenv(flavour.FLAVOUR_VARIABLE, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # its import fails
    with pytest.raises(error) as caught:
        OWN[error](tmp_path)
    assert str(caught.value).endswith(f"See TROUBLESHOOTING.md#{error.__name__.lower()}.")


def test_every_own_error_has_its_row():
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.CourseError]
    assert len(classes) >= len(OWN)
    for kind in classes:
        assert kind.__name__.lower() in ANCHORS


def die(*_):
    os.abort()


def save_root(folder):
    """A model of a square root: drawn inputs are negative as well."""
    onnx.save(small_model([helper.make_node("Sqrt", ["x"], ["y"])], [8]), folder / "model.onnx")


def save_sum(folder):
    """A model of 7 numbers, in an open dimension."""
    seven = numpy_helper.from_array(np.ones(7, np.float32), "w")
    onnx.save(small_model([helper.make_node("Add", ["x", "w"], ["y"])], ["batch", "n"], seven), folder / "model.onnx")


def save_objects(folder):
    onnx.save(residual_model(), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=np.array([{}], object))


DEBUG = {
    "gives NaN in FP32 already": (save_root, None),
    "No random inputs were found that": (save_sum, None),
    "holds Python objects, which are not read": (save_objects, "inputs.npz"),
}
DIED = "The process that ran"


@pytest.mark.parametrize("text", DEBUG)
def test_debug(text, tmp_path):
    prepare, inputs = DEBUG[text]
    prepare(tmp_path)
    with pytest.raises(errors.InputError) as caught:
        diagnosis.diagnose(tmp_path / "model.onnx", "fp16", inputs and tmp_path / inputs, 0, tmp_path / "out.onnx")
    assert text in str(caught.value)


def test_debug_survives_what_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "diagnose", die)
    with pytest.raises(errors.ModelFileError, match=rf"^{DIED} model\.onnx died \(exit status -6\)"):
        diagnosis.in_another_process(tmp_path / "model.onnx")


NO_CUDA_PYTHON = "captures no CUDA graph by itself"


def test_cuda_graph_without_cuda_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda", None)  # its import fails
    with pytest.raises(errors.BackendUnavailableError, match=NO_CUDA_PYTHON):
        cuda_driver()


# --- the page --------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    text: str
    anchor: str
    parts: dict[str, str]


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read_row(block: str) -> Row:
    heading, body = block.split("\n", 1)
    literal = re.match(r"`([^`]+)`", heading)
    assert literal, f"the heading has no literal text: {heading}"
    assert re.findall(r"^(?! ).*?(?=:\*\*)", body, flags=re.MULTILINE) == ["- **Cause", "- **Remedy", "- **Source"], (
        heading
    )
    parts = re.findall(r"^- \*\*(\w+):\*\*(.*?)(?=^- \*\*|\Z)", body, flags=re.MULTILINE | re.DOTALL)
    return Row(literal[1], slug(heading), {name: " ".join(words.split()) for name, words in parts})


ROWS = [
    read_row(block) for section in re.split(r"^## ", PAGE, flags=re.MULTILINE) for block in section.split("\n### ")[1:]
]
ANCHORS = [*(row.anchor for row in ROWS), *map(slug, re.findall(r"^##? (.*)", PAGE, flags=re.MULTILINE))]


def test_page_has_rows():
    assert len(ROWS) == PAGE.count("\n### ") >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.anchor)
def test_row_is_whole(row):
    for part, words in row.parts.items():
        assert words.endswith("."), f"{part} is empty or has no full stop"
    assert re.match(r"Provoked by a test|Seen by hand |Reported: |Documented: ", row.parts["Source"])


def test_no_two_rows_are_alike():
    assert len(set(ANCHORS)) == len(ANCHORS)
    assert len({row.text for row in ROWS}) == len(ROWS)


def test_links_within_the_page_resolve():
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= set(ANCHORS)


def test_links_to_threads_are_the_threads_that_they_name():
    named = re.findall(r"\[([\w./-]+)#(\d+)\]\(https://github\.com/([\w./-]+?)/(?:issues|pull)/(\d+)\)", PAGE)
    assert len(named) == PAGE.count("https://")
    assert all((name, number) == (repository, thread) for name, number, repository, thread in named)


def test_words_said_to_be_a_recordings_stand_in_it():
    named = [(row, name) for row in ROWS for name in re.findall(r"the recording `(\w+)`", row.parts["Source"])]
    assert len(named) > 1
    for row, name in named:
        said = json.dumps(recordings.load(name).data, ensure_ascii=False)
        quoted = [words for words in re.findall('"(.*?)"', row.parts["Cause"]) if row.text in words]
        assert all(words in said for words in (row.text, *quoted))


def test_rows_marked_as_provoked_are_those_with_a_test():
    tables = [
        REMOVED,
        UNPARSED,
        UNBUILT,
        HARMLESS,
        UNLOADED,
        SCRIPTS,
        POLYGRAPHY,
        ONNX_RUNTIME,
        PADDLE,
        PADDLE2ONNX,
        NBVAL,
        DEBUG,
    ]
    tested = {text for table in tables for text in table} | {error.__name__ for error in OWN}
    tested |= {FALLBACK, GPU_CALL_ON_CPU, DAMAGED_PDMODEL, IMPOSSIBLE_SHAPE, LAYERNORM, DIED, NO_CUDA_PYTHON}
    assert tested == {row.text for row in ROWS if row.parts["Source"].startswith(PROVOKED)}
