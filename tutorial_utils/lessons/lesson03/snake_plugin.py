"""The activation Snake, ``x + sin(alpha x)^2 / alpha``, as TensorRT's plugin in the cells of lesson 03a and in ONNX.

TensorRT could compute Snake from operators of ONNX; that shows what a plugin costs. On a GPU, the plugin needs PyCUDA
with CUDA's compiler, nvcc, and cuda-python.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser

from tutorial_utils.base import paths
from tutorial_utils.engine.tensorrt import MessageLog, trt
from tutorial_utils.lessons.lesson03 import program_cells

NOTEBOOK = paths.ROOT / "notebooks" / "03a_build_an_engine.ipynb"
ALPHA = 0.5
_CHANNELS = 16


@functools.cache
def registered() -> dict[str, Any]:
    """Let this process' parsers and runtimes find the plugin: run the lesson's cells, and return their names."""
    names = {"__name__": __name__, "trt": trt}
    exec(program_cells.source([NOTEBOOK], "plugin"), names)
    return names


def parsed(path: Path) -> bool:
    """Whether the parser of the TensorRT at hand reads a file with the plugin. TensorRT-RTX ends the process."""
    registered()
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
