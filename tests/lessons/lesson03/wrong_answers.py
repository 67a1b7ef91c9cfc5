"""Wrong answers to the exercises of lesson 03, each with words from the message that its check must give."""

from collections import Counter
from statistics import mode

FAULTS = {8, 13, 15, 16, 20, 25, 26, 28, 31, 34}
RIGHT = {*range(1, 38)} - FAULTS - {3, 6, 23}  # those three lines are empty


def limits(shapes):
    return tuple(map(min, zip(*shapes, strict=True))), tuple(map(max, zip(*shapes, strict=True)))


def optimizing(choose):
    """Return a wrong answer to 03.1: right limits, and this choice of the shape to optimize for."""

    def profile_for(shapes):
        low, high = limits(shapes)
        return low, choose(shapes, low, high), high

    return profile_for


def middle(shapes, low, high):
    return tuple((a + b) // 2 for a, b in zip(low, high, strict=True))


def mean(shapes, low, high):
    return tuple(sum(sizes) // len(shapes) for sizes in zip(*shapes, strict=True))


def mode_of_each(shapes, low, high):
    return tuple(mode(sizes) for sizes in zip(*shapes, strict=True))


def has_the_order_of_paddle(shapes):
    low, high = limits(shapes)
    return low, high, Counter(shapes).most_common(1)[0][0]


def compares_tuples(shapes):
    return min(shapes), Counter(shapes).most_common(1)[0][0], max(shapes)


def comparing(*fields):
    """Return a wrong answer to 03.2: only these fields count."""
    return lambda built, wanted: all(built[field] == wanted[field] for field in fields)


def newer_date_or_other_model(built, wanted):
    return built["model_hash"] == wanted["model_hash"] or wanted["modified"] < built["modified"]


def release_only(built, wanted):
    same = all(built[field] == wanted[field] for field in ("model_hash", "gpu", "profiles", "workspace_bytes"))
    return same and built["tensorrt"].split(".")[:3] == wanted["tensorrt"].split(".")[:3]


def all_but(*left_out):
    """Return a wrong answer to 03.2: of what decides, these fields are forgotten."""
    deciding = ("model_hash", "tensorrt", "gpu", "profiles", "workspace_bytes")
    return comparing(*(field for field in deciding if field not in left_out))


def first_profile_only(built, wanted):
    return all_but("profiles")(built, wanted) and built["profiles"][0] == wanted["profiles"][0]


def capability_only(built, wanted):
    return all_but("gpu")(built, wanted) and built["gpu"].split(", ")[1] == wanted["gpu"].split(", ")[1]


def any_later_version(built, wanted):
    versions = [[int(number) for number in one["tensorrt"].split(".")] for one in (built, wanted)]
    return all_but("tensorrt")(built, wanted) and versions[0] >= versions[1]


def wide_enough(built, wanted):
    fits = [one[0] <= other[0] and one[1:] >= other[1:] for one, other in zip(built["profiles"], wanted["profiles"])]  # noqa: B905
    return all_but("profiles")(built, wanted) and len(built["profiles"]) == len(wanted["profiles"]) and all(fits)


def profiles_among_them(built, wanted):
    return all_but("profiles")(built, wanted) and {*wanted["profiles"]} <= {*built["profiles"]}


def profiles_in_any_order(built, wanted):
    return all_but("profiles")(built, wanted) and {*built["profiles"]} == {*wanted["profiles"]}


def within_the_limit(built, wanted):
    limits = [one["workspace_bytes"] or 1 << 60 for one in (built, wanted)]
    return all_but("workspace_bytes")(built, wanted) and limits[0] <= limits[1]


def found(*, without=(), added=()):
    """Return a wrong answer to 03.3: the faults without some, and with some lines that are right."""
    return lambda number: number in FAULTS - {*without} | {*added}


def kernels(condition):
    return lambda report: [kernel.name for kernel in report.kernels if condition(kernel)]


def reads(kernel):
    return {tensor.dtype for tensor in kernel.inputs}


def writes(kernel):
    return {tensor.dtype for tensor in kernel.outputs}


def only_fp32(layer):
    return reads(layer) | writes(layer) == {"fp32"}


WRONG_ANSWERS = {
    "03.1": [
        (optimizing(lambda shapes, low, high: high), "optimize for the largest"),
        (optimizing(middle), "middle of the range"),
        (optimizing(mean), "optimize for a mean"),
        (optimizing(lambda shapes, low, high: shapes[0]), "smallest shape, or the first"),
        (optimizing(mode_of_each), "nobody asks for the shape"),
        (has_the_order_of_paddle, "in Paddle's order"),
        (compares_tuples, "compares tuples by their first difference"),
    ],
    "03.2": [
        (lambda built, wanted: False, "built for exactly this"),
        (comparing("file"), "how a stale engine gets served"),
        (newer_date_or_other_model, "trust the date"),
        (comparing("file", "model_hash", "tensorrt", "gpu", "profiles"), "copied or renamed"),
        (lambda built, wanted: built == wanted, "copied or renamed"),
        (all_but("tensorrt"), "the version that wrote it"),
        (release_only, "only a part of the version"),
        (all_but("gpu"), "timed on the other GPU"),
        (all_but("profiles"), "larger batches"),
        (first_profile_only, "second profile is missing"),
        (all_but("workspace_bytes"), "more memory than allowed"),
        (capability_only, "Equal compute capability"),
        (any_later_version, "an older TensorRT"),
        (wide_enough, "suit other shapes"),
        (profiles_among_them, "a profile too many"),
        (profiles_in_any_order, "Profiles have numbers"),
        (within_the_limit, "ruled out kernels"),
    ],
    "03.3": [
        (found(without=[8]), "the old engine answers"),
        (found(without=[13]), "half a network"),
        (found(without=[15]), "this setting is gone"),
        (found(without=[16]), "gets FP32 without a word"),
        (found(without=[20]), "no such call any more"),
        (found(without=[25]), "every batch pays"),
        (found(without=[26]), "the output is fed"),
        (found(without=[28]), "17 images"),
        (found(without=[31]), "the host waits in it"),
        (found(without=[34]), "is microseconds"),
        *((found(added=[number]), f"Line {number} is right") for number in RIGHT),
    ],
    "03.4": [
        (kernels(lambda kernel: "fp32" in writes(kernel)), "list what writes FP32"),
        (kernels(lambda kernel: "fp32" in reads(kernel)), "list what reads FP32"),
        (kernels(lambda kernel: "fp32" in kernel.dtypes), "every kernel that touches FP32"),
        (
            lambda report: [layer.name for layer in report.layers if not layer.dtypes or only_fp32(layer)],
            "only orders streams",
        ),
        (lambda report: len(kernels(only_fp32)(report)), "how many there are"),
        (
            lambda report: kernels(only_fp32)(report) if "fp16" in report.kernel_dtypes else [],
            "no FP16 at all",
        ),
        (kernels(lambda kernel: "fp16" not in kernel.dtypes), "what isn't FP16"),
        (lambda report: sorted(kernels(only_fp32)(report)), "You sort the names"),
    ],
}
