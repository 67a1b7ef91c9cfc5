"""Lesson 05: what the build log and the engine inspector say of one engine, word by word, on two TensorRTs.

Both texts are kept as TensorRT wrote them, compressed: `make test` reads the one with `layers_from_log`, the other with
`layers_from_inspector`, and holds the layers against each other.
"""

import base64
import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tutorial_utils import engine
from tutorial_utils.base import flavour
from tutorial_utils.engine import EngineLayer, Profile
from tutorial_utils.engine.report import layers_from_inspector, layers_from_log
from tutorial_utils.engine.tensorrt import MessageLog, checked, load_plan, trt
from tutorial_utils.measure import experiment, rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import networks

STACKS = ("tensorrt", "tensorrt_rtx")
# Networks by name: the file, and the shape of its one input that the engine is built for.
NETWORKS = {
    "cnn": ("resnet50-fp16", (1, 3, 224, 224)),
    "detector": ("det-sound-fp16", (1, 3, 192, 384)),
    "transformer": ("transformer-fp16", (8, 16)),
}
METHOD = (
    "each engine built for one shape, with detailed profiling verbosity and a logger that keeps every message; data-"
    "centre TensorRT at optimization level 2, to build sooner. Log: the messages that describe layers. Inspector: JSON "
    "of the deserialized engine, alone and with an execution context whose input shape is set"
)
_OTHERS = ("det-sound-fp16.onnx",)  # made by lesson 04's experiments


@dataclass(frozen=True)
class Told:
    """What was said of the layers of one engine."""

    stack: str
    network: str
    version: str
    log: tuple[str, ...]
    inspector: str  # of the engine alone
    in_context: str  # with an execution context

    @property
    def from_log(self) -> tuple[EngineLayer, ...]:
        """The layers as they are read from the log; none where it has an unknown form."""
        return layers_from_log(list(self.log))

    @property
    def from_inspector(self) -> tuple[EngineLayer, ...]:
        """The layers as they are read from the JSON of the engine alone."""
        return layers_from_inspector(self.inspector)


def measure(stack: str, network: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build an engine, and keep what log and inspector say of it.

    Raises:
        BackendUnavailableError: The other TensorRT is installed here.
    """
    flavour.require(stack)
    stem, shape = NETWORKS[network]
    name = onnx.load(models[stem], load_external_data=False).graph.input[0].name
    options = engine.BuildOptions(profiles=(Profile.of(**{name: (shape,) * 3}),))
    built = engine.build(models[stem], options, configure=_configure, progress=False)
    described = [text for text in built.messages if "LayerType: " in text or "Layer(" in text]
    return {
        "version": trt.__version__,
        "log": [_packed(text) for text in described],
        **{name: _packed(text) for name, text in _inspected(built.plan, name, shape).items()},
    }


def _configure(network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> None:
    if flavour.installed_flavour() == "tensorrt":
        config.builder_optimization_level = 2


def _inspected(plan: bytes, name: str, shape: Sequence[int]) -> dict[str, str]:
    log = MessageLog()
    loaded = load_plan(plan, log)
    context = checked(loaded.create_execution_context(), log)
    checked(context.set_input_shape(name, shape), log)
    inspector = checked(loaded.create_engine_inspector(), log)
    alone = checked(inspector.get_engine_information(trt.LayerInformationFormat.JSON), log)
    inspector.execution_context = context
    in_context = checked(inspector.get_engine_information(trt.LayerInformationFormat.JSON), log)
    return {"inspector": alone, "in_context": in_context}


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _unpacked(text: str) -> str:
    return zlib.decompress(base64.b64decode(text)).decode()


def read(data: Mapping[str, Any]) -> list[Told]:
    """Return what was said of each engine; a row that failed is left out."""
    found = []
    for row in rows.read(data):
        if row.values:
            stack, network = row.name.split("/")
            log = tuple(map(_unpacked, row.values["log"]))
            inspector, in_context = (_unpacked(row.values[name]) for name in ("inspector", "in_context"))
            found.append(Told(stack, network, row.values["version"], log, inspector, in_context))
    return found


def make_models(names: Sequence[str]) -> dict[str, Path]:
    """Make the files in the cache: those of the course's networks, and the detector with the experiment that has it."""
    made = networks.files([name for name in names if name not in _OTHERS])
    return made | experiment.find("lesson04_polygraphy").make_models([name for name in names if name in _OTHERS])


EXPERIMENT = Experiment(
    name="lesson05_inspector",
    title="What build log and engine inspector say of the layers of one engine",
    method=METHOD,
    rows={f"{stack}/{network}": functools.partial(measure, stack, network) for stack in STACKS for network in NETWORKS},
    read=read,
    models=tuple(f"{stem}.onnx" for stem, _ in NETWORKS.values()),
    make_models=make_models,
)
