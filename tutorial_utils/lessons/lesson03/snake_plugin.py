"""A TensorRT plugin in Python: the activation Snake, ``x + sin(alpha x)^2 / alpha``, as a CUDA kernel of our own.

Lesson 03a has the same classes in its cells; a test compares them. TensorRT could compute Snake from operators of ONNX;
that shows what a plugin costs. Needs PyCUDA with CUDA's compiler, nvcc, and cuda-python. Source of the interface:
NVIDIA's sample python_plugin, and the documentation of `IPluginV3`.
"""
# ruff: noqa: D102 - TensorRT calls these methods, and its documentation says when

import ctypes
import functools
import math
from pathlib import Path

import numpy as np
import onnx.parser

from tutorial_utils.engine.tensorrt import MessageLog, trt

KERNEL = r"""
extern "C" __global__ void snake(const float *x, float *y, float alpha, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) { float s = sinf(alpha * x[i]); y[i] = x[i] + s * s / alpha; }
}"""
ALPHA = 0.5
_CHANNELS = 16


@functools.cache
def compiled():
    """Return the kernel, compiled for the GPU at hand."""
    from cuda.bindings import driver
    from pycuda.compiler import compile

    status, module = driver.cuModuleLoadData(compile(KERNEL, no_extern_c=True))
    assert not status, status
    return driver.cuModuleGetFunction(module, b"snake")[1]


def launch(x, y, alpha, count, stream):
    """Put the kernel on a stream, given addresses on the GPU."""
    from cuda.bindings import driver

    types = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float, ctypes.c_int
    grid, block = (-(-count // 256), 1, 1), (256, 1, 1)
    arguments = (x, y, alpha, count), types
    (status,) = driver.cuLaunchKernel(compiled(), *grid, *block, 0, driver.CUstream(stream), arguments, 0)
    assert not status, status


class SnakeForBuild(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild):
    """What the builder asks: name and version, types and shapes of outputs, formats."""

    def __init__(self, alpha):
        for base in SnakeForBuild.__bases__:
            base.__init__(self)
        self.plugin_name, self.plugin_version, self.plugin_namespace = "Snake", "1", ""
        self.num_outputs, self.alpha = 1, np.array([alpha], np.float32)

    def get_capability_interface(self, kind):
        return self

    def get_output_data_types(self, input_types):
        return input_types

    def get_output_shapes(self, inputs, shape_inputs, expressions):
        return [trt.DimsExprs(inputs[0])]

    def supports_format_combination(self, position, tensors, num_inputs):
        return (tensors[position].desc.type, tensors[position].desc.format) == (trt.float32, trt.TensorFormat.LINEAR)


class Snake(SnakeForBuild, trt.IPluginV3OneRuntime):
    """What the runtime asks: to be copied for each context, and to run."""

    configure_plugin = on_shape_change = set_tactic = lambda self, *_: None

    def __init__(self, alpha):
        SnakeForBuild.__init__(self, alpha)
        trt.IPluginV3OneRuntime.__init__(self)
        field = trt.PluginField("alpha", self.alpha, trt.PluginFieldType.FLOAT32)
        self.fields = trt.PluginFieldCollection([field])  # kept: TensorRT reads it later

    def get_fields_to_serialize(self):
        return self.fields

    def clone(self):
        return Snake(self.alpha[0])

    def attach_to_context(self, resources):
        return self.clone()

    def enqueue(self, input_desc, output_desc, inputs, outputs, workspace, stream):
        launch(inputs[0], outputs[0], float(self.alpha[0]), math.prod(input_desc[0].dims), stream)


class SnakeCreator(trt.IPluginCreatorV3One):
    """Makes the plugin: from the attributes of an ONNX node, and from what a plan holds of it."""

    def __init__(self):
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = "Snake", "1", ""
        alpha = trt.PluginField("alpha", np.array([]), trt.PluginFieldType.FLOAT32)
        self.field_names = trt.PluginFieldCollection([alpha])

    def create_plugin(self, name, fields, phase):
        (alpha,) = [field.data[0] for field in fields if field.name == "alpha"]
        return Snake(alpha)


def register() -> None:
    """Let this process' parsers and runtimes find the plugin."""
    if not trt.get_plugin_registry().register_creator(SnakeCreator(), ""):
        raise RuntimeError("TensorRT refused the plugin.")


def parsed(path: Path) -> bool:
    """Whether the parser of the TensorRT at hand reads a file with the plugin. TensorRT-RTX ends the process."""
    register()
    builder = trt.Builder(log := MessageLog())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    return parser.parse_from_file(str(path))


def save_models(folder: Path) -> tuple[Path, Path]:
    """Write two convolutions with Snake between them, in operators of ONNX and as an operator of its own.

    Both take x, FP32 of shape [64, 3, 32, 32].
    """
    bodies = {
        "operators": "t = Mul(a, alpha) u = Sin(t) v = Mul(u, u) w = Div(v, alpha) s = Add(a, w)",
        "plugin": f's = course.Snake<alpha: float = {ALPHA}, plugin_version: string = "1", '
                  'plugin_namespace: string = "">(a)',
    }  # fmt: skip
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((_CHANNELS, 3, 3, 3)) / 5,
        "w2": random.standard_normal((10, _CHANNELS, 3, 3)) / 12,
        "alpha": np.array(ALPHA),
    }
    paths = []
    for name, body in bodies.items():
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17, "course": 1]> '
            f"snake (float[64, 3, 32, 32] x) => (float[64, 10, 32, 32] y) "
            f"{{ a = Conv<pads = [1, 1, 1, 1]>(x, w1) {body} y = Conv<pads = [1, 1, 1, 1]>(s, w2) }}"
        )
        values = ({**weights} if name == "operators" else {k: weights[k] for k in ("w1", "w2")}).items()
        model.graph.initializer.extend(onnx.numpy_helper.from_array(np.float32(one), key) for key, one in values)
        path = folder / f"snake-{name}.onnx"
        onnx.save(model, path)
        paths.append(path)
    return paths[0], paths[1]
