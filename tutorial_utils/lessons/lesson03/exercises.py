"""What the exercises of lesson 03 are checked with. Most of them build engines, which are judged by what they are."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.parser

from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor, computed_types, report
from tutorial_utils.lessons.checking import Case, Exercise, Mistake, by

if TYPE_CHECKING:
    from tutorial_utils.engine.tensorrt import MessageLog

_FOLDER = tempfile.TemporaryDirectory(prefix="lesson03-")  # of the models that answers are tried with
_NETWORK = """<ir_version: 8, opset_import: ["": 17]>
    classifier (float[N, 3, 32, 32] x) => (float[N, 4, 32, 32] y) { y = Conv<pads = [1, 1, 1, 1]>(x, w) }"""
_UNKNOWN = """<ir_version: 8, opset_import: ["": 17]>
    lookup (float[N, 3, 32, 32] x) => (float[M] y) { y = Unique(x) }"""


def _saved(name: str, text: str = _NETWORK, seed: int = 0) -> str:
    path = Path(_FOLDER.name) / name
    path.parent.mkdir(exist_ok=True)
    model = onnx.parser.parse_model(text)
    if text == _NETWORK:
        weights = np.random.default_rng(seed).standard_normal((4, 3, 3, 3), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
    return str(path)


def _log() -> "MessageLog":
    """Return a logger that stays the same one when a case's arguments are copied, and is empty then."""
    from tutorial_utils.engine.tensorrt import MessageLog

    class Log(MessageLog):
        def __deepcopy__(self, memo: Any) -> "Log":
            self.messages.clear()
            return self

    return Log()


_FP32 = computed_types.FP32_OR_TF32.upper()


def profiles(plan: bytes, log: "MessageLog", name: str = "x") -> list[tuple[int, ...]] | None:
    """Return the batches of an engine's profiles, smallest, best and largest; None where the log doesn't tell.

    TensorRT-RTX's builder lists them in its log, at detailed verbosity; TensorRT's engine is asked, which takes a GPU.
    """
    from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, load_plan

    if not IS_RTX:
        engine = load_plan(plan, MessageLog())
        shapes = [engine.get_tensor_profile_shape(name, i) for i in range(engine.num_optimization_profiles)]
        return [tuple(int(shape[0]) for shape in one) for one in shapes]
    dumps = [text for text in log.texts() if text.startswith("Layers:\n")]
    line = re.search(rf"^ Name: {name}, IOMode: Input.*$", dumps[-1], re.MULTILINE) if dumps else None
    sizes = re.findall(r"MinShape: \[(\d+).*?OptShape: \[(\d+).*?MaxShape: \[(\d+)", line[0]) if line else []
    return [tuple(map(int, one)) for one in sizes] or None


def described(plan: Any, log: "MessageLog") -> str:
    """Say what a plan is: the batches of its profiles, and the types of its convolutions."""
    from tutorial_utils.engine.builder import inspect_plan
    from tutorial_utils.engine.tensorrt import IS_RTX

    try:
        content = bytes(plan)
    except TypeError:
        return f"{type(plan).__name__}, and no plan"
    batches = profiles(content, log)
    if not batches:
        return "a plan without details"
    layers = report.layers_from_log(log.texts()) if IS_RTX else inspect_plan(content)
    types = computed_types.counted(layers).get(computed_types.CONVOLUTION, {})
    named = {_FP32 if one in ("fp32", "tf32", computed_types.FP32_OR_TF32) else one.upper() for one in types}
    ranges = " and ".join("-".join(map(str, one)) for one in batches)
    return f"an engine for batches of {ranges} in {' and '.join(sorted(named)) or 'no convolution'}"


_NO_DETAILS = Mistake(
    "a plan without details",
    "It builds, but nothing tells what it is. Set the configuration's profiling_verbosity to DETAILED, and give the "
    "log that you got to the builder.",
)


def two_profiles() -> list[Case]:
    """Return the case of 03e.1, ``two_profiles(file, log)``: single images, and batches of 8 to 64, mostly 32."""
    log = _log()

    def engine(batches: str) -> str:
        return f"an engine for batches of {batches} in {_FP32}"

    return [
        Case(
            (_saved("classifier.onnx"), log),
            engine("1-1-1 and 8-32-64"),
            "a convolution",
            [
                _NO_DETAILS,
                Mistake(engine("8-32-64 and 1-1-1"), "Those are the right profiles in the wrong order: a program "
                                                     "chooses them by their numbers."),
                Mistake(engine("1-32-64"), "You made one profile for all batches. Single images then run with "
                                           "kernels that were chosen for 32."),
                Mistake(engine("1-1-1"), "The second profile is missing. What did add_optimization_profile return? "
                                         "The order of set_shape is smallest, best, largest."),
                Mistake(engine("1-1-1 and 8-64-64"), "You optimize the second profile for its largest batch. Most "
                                                     "requests have 32."),
                Mistake(None, "There is no plan. What does the log say?"),
            ],
            judged=lambda plan: described(plan, log),
        )
    ]  # fmt: skip


def same_bytes() -> list[Case]:
    """Return the case of 03e.2, ``same_bytes(file, log)``: two plans by one builder, which are equal."""
    log = _log()

    def judged(plans: Any) -> str:
        try:
            one, other = map(bytes, plans)
        except (TypeError, ValueError):
            return "something else than two plans"
        name = "the name in both" if b"classifier" in one and b"classifier" in other else "the name not in both"
        from tutorial_utils.engine.tensorrt import IS_RTX

        same = one == other or not IS_RTX  # TensorRT times its kernels, and may choose others the second time
        return f"{'the same bytes' if same else 'different bytes'}, {name}"

    return [
        Case(
            (_saved("classifier.onnx"), log),
            "the same bytes, the name in both",
            "one network, built twice",
            [
                Mistake("different bytes, the name not in both", "The plans differ in one place: the number "
                        "that the builder gives each network which has no name."),
                Mistake("the same bytes, the name not in both", "The plans are equal, but the network isn't called "
                        "classifier. Do both come from one builder?"),
                Mistake("different bytes, the name in both", "Both networks have the name; something else differs."),
                Mistake("something else than two plans", "Return the two plans as a tuple."),
                Mistake(None, "There is no plan. What does the log say?"),
            ],
            judged=judged,
        )
    ]  # fmt: skip


def cache_key() -> list[Case]:
    """Return the cases of 03e.3, ``cache_key(file, tensorrt, gpu, profiles, workspace)``.

    Each key is compared with the first one that the same answer gave.
    """
    first: dict[str, str] = {}
    profile = (1, 32, 64)
    wanted = (_saved("one/net.onnx"), "10.13.3.9", "NVIDIA L4, 8.9", [profile], None)
    retrained, copy = _saved("two/net.onnx", seed=1), _saved("three/copy.onnx")

    def remembered(key: Any) -> str:
        first["key"] = key
        return "a text" if isinstance(key, str) else f"{type(key).__name__}, and no text"

    def compared(key: Any) -> str:
        return "the same key" if key == first["key"] else "another key"

    def case(what: str, same: bool, message: str, **changed: Any) -> Case:
        names = ("file", "tensorrt", "gpu", "profiles", "workspace")
        arguments = tuple(changed.get(name, value) for name, value in zip(names, wanted, strict=True))
        answers = ("the same key", "another key") if same else ("another key", "the same key")
        return Case(arguments, answers[0], what, [Mistake(answers[1], message)], judged=compared)

    return [
        Case(wanted, "a text", "an engine", judged=remembered),
        case("the same engine again", True, "Two calls for one engine give two keys: nothing would ever be found."),
        case("a model that was trained again", False, "The weights changed and the file's name didn't. That is how a "
             "stale engine gets served.", file=retrained),
        case("a copy of the model", True, "A copy under another name gets another key. What counts is what is in the "
             "file.", file=copy),
        case("a newer build of the same release", False, "By default, all numbers of the version count.",
             tensorrt="10.13.3.10"),
        case("another GPU of the same compute capability", False, "Equal compute capability is not enough: kernels "
             "were timed on a GPU with another number of cores.", gpu="NVIDIA L40S, 8.9"),
        case("a wider profile", False, "The engine refuses the larger batches that are wanted.",
             profiles=[(1, 32, 128)]),
        case("another best batch", False, "Kernels were chosen for another batch.", profiles=[(1, 64, 64)]),
        case("one profile more", False, "The second profile isn't in the engine.", profiles=[profile, (1, 1, 1)]),
        case("a limit of the workspace", False, "The limit may rule kernels out that the engine uses.",
             workspace=1 << 28),
        Case(
            (*wanted[:3], [(1, 1, 1), profile], None), "a text", "two profiles", judged=remembered,
        ),
        case("two profiles in another order", False, "Profiles have numbers, by which a program chooses one.",
             profiles=[profile, (1, 1, 1)]),
    ]  # fmt: skip


def left_in_fp32() -> list[Case]:
    """Return the cases of 03e.4, ``left_in_fp32(report)``: name the kernels that a conversion to FP16 left out."""
    mixed = _report(cast_in="fp32 fp16", conv="fp16 fp16", exp="fp32 fp32", wait="", gemm="fp16 fp32")
    return [
        Case(
            (mixed,),
            ["exp"],
            "an engine with one kernel in FP32",
            [
                Mistake(["exp", "gemm"], "You list what writes FP32. One of them reads FP16: it hands the result to an "
                                         "output that stays FP32."),
                Mistake(["cast_in", "exp"], "You list what reads FP32. One of them is where the input becomes FP16."),
                Mistake(["cast_in", "exp", "gemm"], "You list every kernel that touches FP32. At the engine's own "
                                                    "inputs and outputs that is as it should be."),
                Mistake(["exp", "wait"], "You list a layer that only orders streams and has no tensors. Kernels are in "
                                         "report.kernels."),
                Mistake(1, "You return how many there are. The names say where to look."),
            ],
        ),
        Case((_report(conv="fp16 fp16", wait=""), ), [], "an engine that is all FP16"),
        Case(
            (_report(relu="fp32 fp32", conv="fp32 fp32"),),
            ["relu", "conv"],
            "an engine that is all FP32",
            [
                Mistake([], "This engine holds no FP16 at all, and you find nothing wrong with it."),
                Mistake(["conv", "relu"], "You sort the names. Keep the order of the engine."),
            ],
        ),
        Case(
            (_report(conv="fp32 fp32", shape="int64 int64"),),
            ["conv"],
            "an engine that also computes shapes",
            [Mistake(["conv", "shape"], "You list what isn't FP16. Integers stay integers in every precision.")],
        ),
    ]  # fmt: skip


def _left_in_fp32(report: BuildReport) -> list[str]:
    return [kernel.name for kernel in report.kernels if kernel.dtypes == ("fp32",)]


def mended() -> list[Case]:
    """Return the cases of 03e.5, ``build_engine(file, log, half)``: the listing for TensorRT 8.6, mended."""
    log = _log()
    file, unknown = _saved("classifier.onnx"), _saved("lookup.onnx", _UNKNOWN)

    def judged(plan: Any) -> str:
        return described(plan, log)

    def engine(dtype: str, batches: str = "1-32-64") -> str:
        return f"an engine for batches of {batches} in {dtype}"

    nothing = Mistake(None, "There is no plan. What does the log say?")
    return [
        Case(
            (file, log, False),
            engine(_FP32),
            "a convolution in FP32",
            [_NO_DETAILS, nothing, Mistake(engine(_FP32, "1-64-64"), "The listing optimizes for 32, and you for 64.")],
            judged=judged,
        ),
        Case(
            (file, log, True),
            engine("FP16"),
            "a convolution in FP16",
            [_NO_DETAILS, nothing, Mistake(engine(_FP32), "FP16 was asked for, and the engine is FP32. A flag that is "
                                                          "gone can't help: change the types of the model.")],
            judged=judged,
        ),
        Case(
            (unknown, log, False), ["Unique"], "a model that TensorRT can't read",
            [Mistake(None, "The build went on with a network that wasn't read to its end. What did the parser return?"),
             Mistake([], "The list is empty. The parser counts its errors: num_errors.")],
        ),
    ]  # fmt: skip


EXERCISES = {
    "03e.1": Exercise(two_profiles),
    "03e.2": Exercise(same_bytes),
    "03e.3": Exercise(cache_key),
    "03e.4": Exercise(left_in_fp32, by(_left_in_fp32)),
    "03e.5": Exercise(mended),
}


def _report(**layers: str) -> BuildReport:
    """Return a report with these layers: each the data types that it reads and writes, or nothing for a `wait`."""

    def tensors(dtype: str) -> tuple[EngineTensor, ...]:
        return (EngineTensor("tensor", (8, 16), dtype, "Linear"),)

    found = []
    for name, dtypes in layers.items():
        read, _, written = dtypes.partition(" ")
        sides = (tensors(read), tensors(written)) if dtypes else ((), ())
        found.append(EngineLayer(name, "kgen" if dtypes else "wait", *sides, ()))
    return BuildReport("TensorRT-RTX", "1.7.1.116", layers=tuple(found))
