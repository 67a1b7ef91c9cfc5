"""Lesson 05: what the Identity nodes of an exported file cost in data-centre TensorRT, and what removing them saves."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.base import flavour, onnx_session
from tutorial_utils.engine import BuildOptions, EngineLayer, Profile
from tutorial_utils.measure import quality, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.resnet50_matrix.files import Files
from tutorial_utils.model import half_precision

if TYPE_CHECKING:
    from tutorial_utils.runners.tensorrt import TensorRTRunner

AS_EXPORTED = "as exported"
# What ONNX Runtime leaves out when it removes the nodes: it would fold the batch norms, too.
WITHOUT_IDENTITY = {"without Identity": ("ConvBNFusion",), "batch norms folded, too": ()}
FP32 = "resnet50-fp32"
SHAPES = ((64, 3, 224, 224), (1, 3, 224, 224))
METHOD = (
    "ResNet-50 with 10 classes and random weights; files without Identity written by ONNX Runtime with its basic "
    "optimizations, which need none of its own operators, and also join the last MatMul and Add; FP16 by the types of"
    " the file; engines for one shape at the default optimization level; device time by CUDA events on normally "
    "distributed images, copies excluded; once launched by the CPU, which may be the limit, and once as a CUDA graph; "
    "the files measured in turn; relative difference: largest difference of a logit from the file as exported, as a "
    "fraction of the largest logit; ReLU alone: layers of the build's report whose ONNX nodes are ReLUs only"
)
_SECONDS = 1.0


@dataclass(frozen=True)
class Variant:
    """An engine of one of the files.

    Attributes:
        layers: Those that run on the GPU by the report (`BuildReport.kernels`), TensorRT's NoOps among them.
        relus_alone: How many of these hold ReLUs only.
        relative_difference: Of the logits, from those of the file as exported.
        device: Times of a call on the GPU, launched by the CPU.
        graph: The same, replayed as a CUDA graph.
        verdict: The graph's comparison with that of the file as exported in one phrase, "" for itself.
    """

    layers: int
    relus_alone: int
    relative_difference: float
    device: timing.Measurement
    graph: timing.Measurement
    verdict: str


def is_relu_alone(layer: EngineLayer) -> bool:
    """Return whether all ONNX nodes of a layer are ReLUs, by the names that Paddle2ONNX gives them."""
    return bool(layer.onnx_nodes) and all(name.startswith("Relu.") for name in layer.onnx_nodes)


def measure(shape: tuple[int, ...], models: Mapping[str, Path]) -> dict[str, Any]:
    """Build an engine of each file, and measure them in turn; return the fields of each `Variant`.

    Raises:
        BackendUnavailableError: Data-centre TensorRT isn't installed here.
    """
    flavour.require("tensorrt")
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    files = Files(models[FP32])
    feeds = {"x": files.images(shape)}
    runners: dict[str, TensorRTRunner] = {}
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as opened:
        with tempfile.TemporaryDirectory() as folder:
            for name, onnx_path in _written(files.onnx("fp32", shape[2]), Path(folder)).items():
                options = BuildOptions((Profile.of(x=(shape,) * 3),))
                built = engine.build(onnx_path, options, use_cache=False, cache_folder=Path(folder), progress=False)
                runners[name] = opened.enter_context(TensorRTRunner(built))
                layers = built.report.kernels
                found[name] = {"layers": len(layers), "relus_alone": sum(map(is_relu_alone, layers))}
        logits = {name: next(iter(runner.infer(feeds).values())) for name, runner in runners.items()}
        times = _in_turn(runners, feeds)
        graphs = {name: opened.enter_context(TensorRTRunner(one, cuda_graph=True)) for name, one in runners.items()}
        for runner in graphs.values():
            runner.infer(feeds)  # captured at the first call
        graph_times = _in_turn(graphs, feeds)
    for name, values in found.items():
        difference = quality.relative_error(logits[name], logits[AS_EXPORTED])
        values |= {"relative_difference": float(f"{difference:.3g}"), "device": times[name].to_dict()}
        values["graph"] = graph_times[name].to_dict()
    return found


def _in_turn(runners: "Mapping[str, TensorRTRunner]", feeds: Mapping[str, np.ndarray]) -> dict[str, timing.Measurement]:
    calls: dict[str, Callable[[int], np.ndarray]]
    calls = {name: functools.partial(runner.device_times, feeds) for name, runner in runners.items()}
    return timing.measure_on_device_in_turn(calls, batch=len(feeds["x"]), seconds=_SECONDS, max_calls=300)


def _written(fp32: Path, folder: Path) -> dict[str, Path]:
    """Return each file in FP16, written to a folder."""
    written = {AS_EXPORTED: fp32}
    for number, (name, left_out) in enumerate(WITHOUT_IDENTITY.items()):
        written[name] = folder / f"{number}.onnx"
        onnx_session.new_session(fp32, optimize="basic", optimized_path=written[name], left_out=left_out)
    return {
        name: half_precision.to_fp16(path, folder / f"{number}-fp16.onnx")
        for number, (name, path) in enumerate(written.items())
    }


def read(recorded: Mapping[str, Any]) -> dict[str, dict[str, Variant] | str]:
    """Return what was measured of each file by "precision, shape"; where there is nothing, the reason."""
    return {
        row.name.replace("/", ", "): row.reason if row.values is None else _variants(row.values)
        for row in rows.read(recorded)
    }


def _variants(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Variant]:
    times, graphs = (timing.from_plain({name: one[key] for name, one in values.items()}) for key in ("device", "graph"))
    verdicts = {name: timing.compare(graphs[AS_EXPORTED], one).verdict for name, one in graphs.items()}
    verdicts[AS_EXPORTED] = ""
    return {
        name: Variant(**{**one, "device": times[name], "graph": graphs[name]}, verdict=verdicts[name])
        for name, one in values.items()
    }


EXPERIMENT = Experiment(
    name="lesson05_identity",
    title="ResNet-50 with and without its Identity nodes in data-centre TensorRT",
    method=METHOD,
    rows={f"fp16/{'x'.join(map(str, shape))}": functools.partial(measure, shape) for shape in SHAPES},
    read=read,
    models=(f"{FP32}.onnx",),
)
