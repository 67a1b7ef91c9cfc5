"""Lesson 01, which kernel computes a layer: what TensorRT's builder timed for single convolutions.

TensorRT has many kernels for a convolution, "tactics" in its words. The builder times them and says so in its log, at
the severity VERBOSE. In FP32 without TF32 none of them uses Tensor Cores; in TF32 and FP16 most do.
"""

import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BuildError
from tutorial_utils.engine import computed_types
from tutorial_utils.engine.tensorrt import require_gpu
from tutorial_utils.lessons.lesson01 import kernels_figures
from tutorial_utils.lessons.lesson01.kernels_data import Built, Convolution, Tactic, summary
from tutorial_utils.measure import rows, timing
from tutorial_utils.measure.experiment import Experiment

LEVEL = 3
METHOD = (
    "an engine of one convolution without bias, random weights and inputs, static shapes, NCHW inputs and outputs in "
    f"the type of the weights; optimization level {LEVEL}, no timing cache; strongly typed, TF32 cleared for FP32. "
    "tactics: names and times in TensorRT's own VERBOSE log, of all memory formats that it tried, without those that "
    "only change a format. engine: CUDA events around each call, median"
)
PRECISIONS = ("fp32", "tf32", "fp16")
# Name, batch, channels in and out, size of the image, of the kernel, stride, groups: large enough to fill a GPU.
CONVOLUTIONS = (
    Convolution("3x3", 64, 128, 128, 56, 3),
    Convolution("1x1", 64, 256, 256, 56, 1),
    Convolution("7x7 stride 2", 64, 3, 64, 224, 7, stride=2),
    Convolution("3x3 depthwise", 64, 256, 256, 56, 3, groups=256),
    Convolution("3x3 deep", 64, 512, 512, 14, 3),
)
NODE = "convolution"

# As TensorRT 10 writes them. A kernel without a name is a tactic of a runner that has only few.
_TIMING = re.compile(r"-+ Timing Runner: (?P<layer>.*) \((?P<runner>\w+)\[0x[0-9a-f]+\]\)$")
_TACTIC = re.compile(r"(?:Tactic Name: (?P<name>\S*) )?Tactic: (?P<id>0x[0-9a-f]+) Time: (?P<ms>\S+)$")
_FORMATS = re.compile(r"\*+ Autotuning format combination: (?P<formats>.*?) \*+$")


def tactics_in(messages: Sequence[str], node: str = NODE) -> list[Tactic]:
    """Read from a build's log which tactics were timed for a layer, with all memory formats, in the order of the log.

    A tactic that can't run, whose time is "inf", is left out.
    """
    found, layer, runner, formats = [], "", "", ""
    for message in messages:
        if named := _FORMATS.match(message):
            formats = named["formats"]
        elif begun := _TIMING.match(message):
            layer, runner = begun["layer"], begun["runner"]
        elif timed := _TACTIC.match(message):
            ms = float(timed["ms"])
            if node in layer and "Reformat" not in f"{runner} {layer}" and np.isfinite(ms):
                found.append(Tactic(timed["name"] or f"{runner} {timed['id']}", formats, ms))
    return found


def model(convolution: Convolution, precision: str) -> onnx.ModelProto:
    """Return one convolution in ONNX, with random weights, in FP16 or FP32."""
    dtype, kind = (np.float16, TensorProto.FLOAT16) if precision == "fp16" else (np.float32, TensorProto.FLOAT)
    shape = convolution.weights
    weights = np.random.default_rng(0).standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], NODE, kernel_shape=shape[2:], pads=[convolution.kernel // 2] * 4,
        strides=[convolution.stride] * 2, group=convolution.groups,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "one convolution", [helper.make_tensor_value_info("x", kind, convolution.input)],
        [helper.make_tensor_value_info("y", kind, convolution.output)],
        [numpy_helper.from_array(weights.astype(dtype), "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def build(convolution: Convolution, precision: str) -> engine.Engine:
    """Build the engine of a convolution, measuring every tactic anew; its messages have what the builder timed."""
    flavour.require("tensorrt")
    require_gpu()
    options = engine.BuildOptions(optimization_level=LEVEL, without_flags=("tf32",) if precision == "fp32" else ())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "convolution.onnx"
        onnx.save(model(convolution, precision), path)
        return engine.build(path, options, use_cache=False, timing_cache=False, progress=False)


def measure(convolution: Convolution, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build and run a convolution in each precision; return the fields of a `Built` of each.

    Raises:
        BackendUnavailableError: Data-centre TensorRT or a GPU is missing.
        BuildError: TensorRT's log tells of no tactic.
    """
    return {precision: _measured(convolution, precision) for precision in PRECISIONS}


def _measured(convolution: Convolution, precision: str) -> dict[str, Any]:
    built = build(convolution, precision)
    tactics = tactics_in(built.messages)
    if not tactics:
        raise BuildError("TensorRT's log tells of no tactic for the convolution.", "Read engine.build(...).messages.")
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    dtype = np.float16 if precision == "fp16" else np.float32
    feeds = {"x": np.random.default_rng(1).standard_normal(convolution.input, np.float32).astype(dtype)}
    with primary_context(), TensorRTRunner(built) as runner:
        whole = timing.measure_on_device(functools.partial(runner.device_times, feeds), seconds=0.3)
    chosen = [layer for layer in built.report.layers if computed_types.operation(layer)]
    names = [layer.tactic for layer in chosen]
    return {
        **summary(tactics, names),
        "chosen": names,
        "computed": [computed_types.of_layer(layer).dtype for layer in chosen],
        "engine_ms": round(whole.median_ms, 5),
    }


def read(data: Mapping[str, Any]) -> dict[str, dict[str, Built] | str]:
    """Return what was measured, by convolution and precision; of a convolution that failed, the reason."""
    recorded = {row.name: row for row in rows.read(data)}
    found = {name: recorded[f"tactics/{name}"] for name in CONVOLUTION if f"tactics/{name}" in recorded}
    return {
        name: row.reason
        if row.values is None
        else {precision: Built.of(CONVOLUTION[name], one) for precision, one in row.values.items()}
        for name, row in found.items()
    }


CONVOLUTION = {one.name.replace(" ", "_"): one for one in CONVOLUTIONS}

EXPERIMENT = Experiment(
    name="lesson01_kernels",
    title="Every kernel that TensorRT timed for a convolution",
    method=METHOD,
    rows={f"tactics/{name}": functools.partial(measure, one) for name, one in CONVOLUTION.items()},
    read=read,
    draw=lambda measured: kernels_figures.draw_tactics(measured.result),
)
