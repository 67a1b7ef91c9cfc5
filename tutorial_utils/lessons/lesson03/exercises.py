"""What the exercises of lesson 03 are checked with: small inputs, right answers, typical wrong answers."""

from collections import Counter
from collections.abc import Sequence

from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.lessons.checking import Case, Exercise, Mistake, by

# Build and inference as most code on the web has them, in one listing. `must` raises where TensorRT returns failure.
LISTING = """\
 1  import pycuda.driver as cuda
 2  import tensorrt as trt
 3
 4  logger = trt.Logger(trt.Logger.WARNING)
 5  runtime = trt.Runtime(logger)
 6
 7  def engine_for(onnx_file, plan_file, half=False):
 8      if os.path.exists(plan_file):
 9          return must(runtime.deserialize_cuda_engine(Path(plan_file).read_bytes()))
10      builder = trt.Builder(logger)
11      network = must(builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)))
12      parser = trt.OnnxParser(network, logger)
13      parser.parse_from_file(onnx_file)
14      config = builder.create_builder_config()
15      config.max_workspace_size = 1 << 30
16      if half and hasattr(trt.BuilderFlag, "FP16"): config.set_flag(trt.BuilderFlag.FP16)
17      profile = builder.create_optimization_profile()
18      profile.set_shape("x", (1, 3, 32, 32), (32, 3, 32, 32), (64, 3, 32, 32))
19      must(config.add_optimization_profile(profile))
20      plan = builder.build_engine(network, config).serialize()
21      with replacing(plan_file) as temporary: temporary.write_bytes(plan)  # written aside, then renamed
22      return must(runtime.deserialize_cuda_engine(plan))
23
24  def classify(engine, stream, device_in, device_out, images):  # for every batch; the caller owns the arguments
25      context = must(engine.create_execution_context())
26      source, target = engine.get_tensor_name(0), engine.get_tensor_name(1)
27      must(context.set_input_shape(source, images.shape))
28      logits = cuda.pagelocked_empty((64, 10), np.float32)
29      must(context.set_tensor_address(source, int(device_in)))
30      must(context.set_tensor_address(target, int(device_out)))
31      cuda.memcpy_htod_async(device_in, images, stream)  # images: an array that numpy allocated
32      begin = time.perf_counter()
33      must(context.execute_async_v3(stream.handle))
34      print("inference took", time.perf_counter() - begin, "s")
35      cuda.memcpy_dtoh_async(logits, device_out, stream)
36      stream.synchronize()
37      return logits
"""

# Of each faulty line, what goes wrong with it; the check says that where the line is missed.
_FAULTS = {
    8: "the model is trained again, exported under its old name, and the old engine answers.",
    13: "the file is damaged, and the build goes on with half a network or an empty one.",
    15: "TensorRT 10 refuses to go on: this setting is gone.",
    16: "on TensorRT 11 and RTX, the caller asks for FP16 and gets FP32 without a word.",
    20: "TensorRT 10 has no such call any more, and where it exists nobody looks whether it failed.",
    25: "every batch pays for activation memory and, with TensorRT-RTX, for loading kernels.",
    26: "another export has its tensors in another order, and the output is fed.",
    28: "the last batch has 17 images, or the model has 1000 classes.",
    31: "a call is named asynchronous, and the host waits in it.",
    34: "the number that is printed is microseconds, whatever the network.",
}
# Why lines are right that look suspicious.
_RIGHT = {
    4: "warnings and errors are what one wants to see.",
    5: "one runtime can load many engines.",
    9: "what it reads is another question, but the result is checked.",
    11: "TensorRT 10 needs this flag, later ones ignore it.",
    18: "a range for the batch, and the other dimensions fixed.",
    19: "the return value is checked: it is -1 for a profile that contradicts itself.",
    21: "a build that dies leaves no half-written plan.",
    27: "the shape comes first, and False is noticed.",
    32: "a monotonic clock, read before the work begins. What happens between this and its second reading?",
    33: "on a stream of its own, and False is noticed.",
    36: "this is where the outputs become complete.",
}


def profile_for() -> list[Case]:
    """Return the cases of 03.1, ``profile_for(shapes)``: a profile for the shapes that were seen."""
    batches = [1, 4, 4, 16, 4, 8, 1, 4]
    images = [(batch, 3, 32, 32) for batch in batches]
    low, often, high = (1, 3, 32, 32), (4, 3, 32, 32), (16, 3, 32, 32)
    wide, tall = (1, 3, 480, 640), (1, 3, 640, 480)
    return [
        Case(
            (images,),
            (low, often, high),
            "batches of 1 to 16, most of them 4",
            [
                Mistake((low, high, often), "Those are the right shapes in Paddle's order. Return them in that of "
                                            "TensorRT's set_shape."),
                Mistake((low, high, high), "You optimize for the largest shape. Which one has to be fast?"),
                Mistake((low, (8, 3, 32, 32), high), "You optimize for the middle of the range, which is rarely asked "
                                                     "for here."),
                Mistake((low, (5, 3, 32, 32), high), "You optimize for a mean, a shape that nobody asks for."),
                Mistake((low, low, high), "You optimize for the smallest shape, or the first. Count them."),
            ],
        ),
        Case(
            ([wide, tall, wide],),
            ((1, 3, 480, 480), wide, (1, 3, 640, 640)),
            "images of 480x640 and 640x480",
            [
                Mistake((wide, wide, tall), "Python compares tuples by their first difference, so your smallest shape "
                                            "has the larger width. A profile limits every dimension by itself."),
            ],
        ),
        Case(
            ([(1, 3, 320, 320)] * 2 + [(4, 3, 320, 640), (4, 3, 640, 640), (4, 3, 640, 320)],),
            ((1, 3, 320, 320), (1, 3, 320, 320), (4, 3, 640, 640)),
            "batches of 4 most of the time, each of another size",
            [Mistake(((1, 3, 320, 320), (4, 3, 320, 320), (4, 3, 640, 640)),
                     "You choose each size of the optimum by itself, and nobody asks for the shape that comes out. "
                     "Count whole shapes.")],
        ),
        Case(([low],), (low, low, low), "a single shape"),
    ]  # fmt: skip


def _profile_for(shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    sizes = list(zip(*shapes, strict=True))
    return tuple(map(min, sizes)), Counter(shapes).most_common(1)[0][0], tuple(map(max, sizes))


def may_load() -> list[Case]:
    """Return the cases of 03.2, ``may_load(built, wanted)``: is a cached engine the one that is wanted now?"""
    built = {
        "file": "classifier.onnx", "modified": "2026-11-01", "model_hash": "9f2c", "tensorrt": "10.13.3.9",
        "gpu": "NVIDIA L4, 8.9", "profiles": ((1, 32, 64),), "workspace_bytes": None,
    }  # fmt: skip

    def case(what: str, answer: bool, message: str, **changed: object) -> Case:
        return Case((built, {**built, **changed}), answer, what, [Mistake(not answer, message)])

    def other_way_round(what: str, message: str, **changed: object) -> Case:
        return Case(({**built, **changed}, built), False, what, [Mistake(True, message)])

    return [
        case("two equal descriptions", True, "You refuse an engine that was built for exactly this."),
        case("another model under the same name", False,
             "The weights changed and the file's name didn't. This is how a stale engine gets served.",
             model_hash="77b0"),
        case("another model under the same name, with an old date", False,
             "You trust the date. A model that was restored from a backup has another content and an older date.",
             model_hash="77b0", modified="2026-10-01"),
        case("the same model, copied", True,
             "You refuse an engine because the model was copied or renamed. What counts is what is in the file.",
             file="copy.onnx", modified="2026-11-20"),
        case("a newer TensorRT", False, "A plan is read by the version that wrote it.", tensorrt="10.14.1.48"),
        case("a newer build of the same release", False,
             "You compare only a part of the version. Without version compatibility, all of it counts.",
             tensorrt="10.13.3.10"),
        case("another GPU", False, "Kernels were chosen and timed on the other GPU.", gpu="NVIDIA A10, 8.6"),
        case("a wider profile", False, "The engine refuses the larger batches that are wanted now.",
             profiles=((1, 32, 128),)),
        case("one profile more", False, "The second profile is missing in the cached engine.",
             profiles=((1, 32, 64), (1, 1, 1))),
        case("a limit of the workspace", False,
             "It would run, but it is not what a build would make now: it may need more memory than allowed.",
             workspace_bytes=1 << 28),
        case("another GPU of the same compute capability", False,
             "Equal compute capability is not enough: kernels were timed on a GPU with another number of cores.",
             gpu="NVIDIA L40S, 8.9"),
        other_way_round("an older TensorRT than the one that built", "You accept a plan of a later version: an older "
                        "TensorRT can't read it.", tensorrt="10.14.1.48"),
        other_way_round("a profile that is narrower than the one that was built",
                        "It would run, but it is not what a build would make now: its kernels suit other shapes.",
                        profiles=((1, 32, 128),)),
        other_way_round("one profile less than the engine has", "The cached engine has a profile too many. A build "
                        "would make an engine without it.", profiles=((1, 32, 64), (1, 1, 1))),
        Case(
            ({**built, "profiles": ((1, 32, 64), (1, 1, 1))}, {**built, "profiles": ((1, 1, 1), (1, 32, 64))}), False,
            "the same profiles in another order",
            [Mistake(True, "Profiles have numbers, by which a program chooses one. Here each number stands for another "
                           "profile than before.")],
        ),
        other_way_round("no limit of the workspace, where the cached engine had one", "The limit ruled out kernels "
                        "that a build could choose now.", workspace_bytes=1 << 28),
    ]  # fmt: skip


def is_faulty() -> list[Case]:
    """Return the cases of 03.3, ``is_faulty(number)``: find the faulty lines of `LISTING`."""
    numbers = [int(line.split()[0]) for line in LISTING.splitlines() if len(line.split()) > 1]
    missed = "You don't have them all yet. One that is missing: "
    return [
        Case(
            (number,),
            number in _FAULTS,
            f"line {number}",
            [
                Mistake(False, missed + _FAULTS[number])
                if number in _FAULTS
                else Mistake(True, f"Line {number} is right: {_RIGHT.get(number, 'nothing goes wrong in it.')}")
            ],
        )
        for number in numbers
    ]


def left_in_fp32() -> list[Case]:
    """Return the cases of 03.4, ``left_in_fp32(report)``: name the kernels that a conversion to FP16 left out."""
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


EXERCISES = {
    "03.1": Exercise(profile_for, by(_profile_for)),
    "03.2": Exercise(may_load),
    "03.3": Exercise(is_faulty),
    "03.4": Exercise(left_in_fp32, by(_left_in_fp32)),
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
