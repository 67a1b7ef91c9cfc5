"""The pairs: our side and what it is compared with, one function for each row or two of the table."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import tensorrt_runner
from benchmarks.build_engine import BATCHES, SHAPE, TARGETS, options
from benchmarks.ratio import Ratio, in_turn, process
from tutorial_utils import engine
from tutorial_utils.authoring import course
from tutorial_utils.measure import timing
from tutorial_utils.model import classifier
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

ROOT = Path(__file__).parents[1]
# paddle2onnx's default installs sympy while it runs, unless it is there: `make bench` puts it here.
PADDLE2ONNX_EXTRAS = ROOT / "build" / "paddle2onnx-extras"
QUICK_SHAPE = (3, 32, 32)


def onnx_runtime_calls(quick: Path, resnet: Path) -> Iterable[Ratio]:
    """A runner's call against ONNX Runtime's own, on the same session."""
    for name, model, shape, calls, at_most in (
        ("quick classifier", quick, QUICK_SHAPE, 100, None),
        ("ResNet-50", resnet, SHAPE, 1, 1.02),
    ):
        feeds = {"x": _images(1, shape)}
        with OnnxRuntimeRunner(model) as runner:
            session = runner.session  # a second session's threads would disturb the first one's
            runner.infer(feeds)
            times = in_turn(lambda: runner.infer(feeds), lambda: session.run(None, feeds), rounds=41, calls=calls)  # noqa: B023
        yield Ratio(f"runner / ONNX Runtime: {name}, batch 1", **times, at_most=at_most)


def tensorrt_calls(quick: Path, resnet: Path) -> Iterable[Ratio]:
    """A runner's call against the same steps by hand with PyCUDA, on the same engine, buffers and stream."""
    for model, shape in ((quick, QUICK_SHAPE), (resnet, SHAPE)):
        yield tensorrt_runner.pair(model, (1, *shape))


def timers(resnet: Path) -> Iterable[Ratio]:
    """The median of `benchmark.measure` against Polygraphy's runner with a clock around each call."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.logger import G_LOGGER

    feeds, calls = {"x": _images(1, SHAPE)}, 15
    ours, theirs = [], []
    session = SessionFromOnnx(str(resnet))
    with G_LOGGER.verbosity(G_LOGGER.ERROR), OnnxRuntimeRunner(resnet) as runner, OnnxrtRunner(session) as polygraphy:

        def measure_ours() -> None:
            ours.append(timing.measure(lambda: runner.infer(feeds), max_calls=calls).median_ms)

        def measure_theirs() -> None:
            for _ in range(5):
                polygraphy.infer(feeds)
            times = []
            for _ in range(calls):
                start = time.perf_counter()
                polygraphy.infer(feeds)
                times.append(time.perf_counter() - start)
            theirs.append(1000 * statistics.median(times))

        in_turn(measure_ours, measure_theirs, rounds=7)
    yield Ratio(
        "benchmark.measure / Polygraphy's runner and a clock: ResNet-50", tuple(ours), tuple(theirs), 1.03, 0.97
    )


def cached_engine(resnet: Path) -> Iterable[Ratio]:
    """An engine read from the cache, key and checksum included, against building it, in one process."""
    wanted = options()
    with tempfile.TemporaryDirectory() as folder:
        engine.build(resnet, wanted, cache_folder=folder, progress=False)
        times = in_turn(
            lambda: engine.build(resnet, wanted, cache_folder=folder, progress=False),
            lambda: engine.build(resnet, wanted, use_cache=False, progress=False),
            rounds=5,
        )
    yield Ratio("cached engine / build: ResNet-50", **times, at_most=0.2)


def build_processes(resnet: Path) -> Iterable[Ratio]:
    """A process that builds and writes an engine, without cache, against `polygraphy convert`."""
    shapes = [f"--trt-{kind}-shapes=x:{[batch, *SHAPE]}".replace(" ", "") for kind, batch in BATCHES.items()]
    targets = [f"--compute-capabilities={target}" for target in TARGETS]
    with tempfile.TemporaryDirectory() as folder:
        times = in_turn(
            process([sys.executable, "-m", "benchmarks.build_engine", resnet, f"{folder}/ours.plan"]),
            process(
                [_script("polygraphy"), "convert", resnet, "--convert-to=trt", *targets, *shapes,
                 "-o", f"{folder}/theirs.plan"],
                POLYGRAPHY_USE_TENSORRT_RTX="1" if TARGETS else "0",
            ),
            rounds=7,
        )  # fmt: skip
    yield Ratio("process: engine.build / polygraphy convert: ResNet-50", **times, at_most=1.0)


def export_processes(saved: classifier.SavedModel) -> Iterable[Ratio]:
    """A process that exports without the comparison with Paddle, against paddle2onnx with its defaults."""
    name = "process: export / paddle2onnx: ResNet-50"
    if find_spec("sympy") is None and not PADDLE2ONNX_EXTRAS.exists():
        yield Ratio(name, at_most=0.7, not_run="paddle2onnx would install sympy meanwhile; `make bench` provides it")
        return
    code = "import sys; from tutorial_utils.model import export; export.to_onnx(*sys.argv[1:], verify=False)"
    search_path = os.pathsep.join([str(PADDLE2ONNX_EXTRAS), os.environ.get("PYTHONPATH", "")])
    program, params = saved.model_path, saved.params_path
    with tempfile.TemporaryDirectory() as folder:
        times = in_turn(
            process([sys.executable, "-c", code, program, params, f"{folder}/ours.onnx"]),
            process(
                [_script("paddle2onnx"), "--model_dir", program.parent, "--model_filename", program.name,
                 "--params_filename", params.name, "--save_file", f"{folder}/theirs.onnx"],
                PYTHONPATH=search_path, PIP_NO_INDEX="1",  # it is not to install anything
            ),
            rounds=5,
        )  # fmt: skip
    yield Ratio(name, **times, at_most=0.7)


def notebook_processes(notebook: Path) -> Iterable[Ratio]:
    """Pytest with nbval on a lesson, against Jupyter executing it."""
    environment = course.kernel_environment()
    plain = process([_script("jupyter"), "execute", notebook], **environment)
    plain()  # what the lesson trains and builds once is in the cache now
    nbval = process([sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", notebook], **environment)
    yield Ratio(f"process: nbval / jupyter execute: {notebook.stem}", **in_turn(nbval, plain, rounds=3), at_most=1.15)


def _images(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32)


def _script(name: str) -> Path:
    return Path(sys.executable).with_name(name)
