"""What the exercises of lesson 01 are checked with: small inputs, right answers, typical wrong answers."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_utils.engine import BuildReport, EngineLayer
from tutorial_utils.lessons.checking import DATA, Case, Exercise, Mistake, by
from tutorial_utils.measure import timing
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import networks, onnx_file


def lost_fusions() -> list[Case]:
    """Return the cases of 01e.1, ``lost_fusions(plain, marked)``: count the fusions that marked outputs destroy."""
    added_kernels = "That is how many kernels were added. A lost fusion can add several: count fusions."
    added_layers = "That is how many layers were added, those that only order streams included."
    numbers = (
        "You compare how many fusions there are. The marked engine also has a fusion that the first doesn't have: look "
        "at which nodes are together."
    )
    some = (
        "You compare only some nodes of a fusion. It is lost as soon as one of them has left the kernel of the others."
    )
    return [
        Case(
            (
                _report(*(f"Conv.{i} Norm.{i} Relu.{i}" for i in (1, 2, 3)), "Pool.1", "Gemm.1"),
                _report("Conv.1 Norm.1", "", "Relu.1", "Conv.2", "", "Norm.2 Relu.2", "Conv.3 Relu.3", "Norm.3",
                        "Pool.1 Gemm.1", control=2),
            ),
            3,
            "an engine that keeps two nodes of each fusion together",
            [
                Mistake(4, added_kernels),
                Mistake(6, added_layers),
                Mistake(-1, numbers),
                *(Mistake(lost, some) for lost in (0, 1, 2)),
            ],
        ),
        Case(
            (
                _report("Conv.1 Norm.1 Relu.1", "Conv.2 Norm.2", "Pool.1", "Gemm.1 Add.1"),
                _report("Conv.1", "", "Norm.1 Relu.1", "Conv.2", "", "Norm.2", "", "Pool.1", "Gemm.1 Add.1", control=3),
            ),
            2,
            "an engine with two of three fusions lost",
            [
                Mistake(5, added_kernels),
                Mistake(8, added_layers),
                Mistake(1, numbers),
                Mistake(3, "These are all fusions of the first engine. One of them is still there in the second."),
            ],
        ),
        Case(
            (_report("Conv.1", "Reshape.1", "Norm.1 Relu.1"), _report("Conv.1", "Norm.1 Relu.1")),
            0,
            "an engine in which one kernel of a single node disappeared",
            [Mistake(1, "You count a kernel that does the work of one ONNX node. Nothing was fused in it.")],
        ),
        Case(
            (_report("Norm.1 Add.1"), _report("Add.1 Norm.1")),
            0,
            "a fusion whose nodes are listed in another order",
            [Mistake(1, "A fusion counts as lost although only the order differs in which its nodes are listed.")],
        ),
        Case(
            (_report("Norm.1 Add.1", "Conv.2 Norm.2"), _report("Add.1 Norm.1 Pool.1", "Conv.2", "Norm.2")),
            1,
            "an engine with one fusion lost and one grown",
            [Mistake(2, "A fusion counts as lost although its nodes are still together, in a kernel that does more.")],
        ),
        Case(
            (_report("Conv.1 Norm.1", "Conv.2 Norm.2", "Gemm.1"), _report("Conv.1 Conv.2", "Norm.1 Norm.2", "Gemm.1")),
            2,
            "an engine whose fusions have the same nodes in other kernels",
            [Mistake(0, "You look whether each node is still fused with something. What counts is whether one kernel "
                        "does the work of all nodes of the fusion.")],
        ),
    ]  # fmt: skip


def _lost_fusions(plain: BuildReport, marked: BuildReport) -> int:
    left = [set(kernel.onnx_nodes) for kernel in marked.kernels]
    fusions = [set(kernel.onnx_nodes) for kernel in plain.kernels if len(kernel.onnx_nodes) > 1]
    return sum(not any(fusion <= nodes for nodes in left) for fusion in fusions)


def first_overflow() -> list[Case]:
    """Return the cases of 01e.2, ``first_overflow(activations)``: name the first tensor that overflows in FP16."""
    return [
        Case(
            (
                _tensors(
                    conv=[1, 2], relu=[70_000, 80_000], gemm=[90_000, 100_000], add=[66_000, 67_000],
                    norm=[66_000, 67_000],
                ),
            ),
            "relu",
            "activations that overflow in four tensors",
            [
                Mistake("gemm", "That is the tensor with the largest value. Look for the first that overflows: what "
                                "comes after it is only a consequence."),
                Mistake("add", "You sort the names. Look for the first in the order of execution, in which they are."),
                Mistake("norm", "You name the last tensor that overflows. Look for the first: what comes after it is "
                                "only a consequence."),
                Mistake(None, "The activations are FP32 and hold no infinity. Convert them to FP16 before you look."),
            ],
        ),
        Case(
            (_tensors(conv=[1, 2], add=[10, 70_000], relu=[0, 60_000]),),
            "add",
            "activations of which a single value overflows",
            [Mistake(None, "You find a tensor only if all of its values overflow. One is enough.")],
        ),
        Case(
            (_tensors(conv=[1, -80_000], relu=[0, 90_000]),),
            "conv",
            "activations with a large negative value",
            [Mistake("relu", "You miss a negative value: in FP16, -80,000 is minus infinity.")],
        ),
        Case(
            (_tensors(conv=[60_000, 1], norm=[1e-8, 1]),),
            None,
            "activations that all fit",
            [
                Mistake("norm", "1e-8 becomes 0 in FP16. That is underflow, another fault: nothing is infinite."),
                Mistake("conv", "60,000 is a large value, but FP16 can hold it."),
            ],
        ),
        Case(
            (_tensors(conv=[65_510], add=[65_530]),),
            "add",
            "values just above 65,504, the largest number of FP16",
            [Mistake("conv", "65,510 is more than FP16's largest number, but is rounded down to it. Don't compare with "
                             "a limit: convert, and look at what comes out.")],
        ),
        Case(
            (_tensors(conv=[1, 2], divide=[1, np.inf]),),
            "divide",
            "activations with a value that is infinite in FP32 already",
        ),
    ]  # fmt: skip


def _first_overflow(activations: Mapping[str, np.ndarray]) -> Case:
    """Judge by the order of the classifier's nodes, in whatever order its activations are given."""
    nodes = onnx_file.load(networks.quick()["fp32"]).graph.node
    place = {name: place for place, node in enumerate(nodes) for name in node.output}
    with np.errstate(over="ignore"):
        found = [name for name, array in activations.items() if np.isinf(array.astype(np.float16)).any()]
    found.sort(key=lambda name: place.get(name, -1))  # tensors of another model stay in their order
    consequence = "That tensor overflows, too, but another one does so before it, in the order of execution."
    later = [Mistake(name, consequence) for name in found[1:]]
    return Case((dict(activations),), found[0] if found else None, DATA, later)


def real_differences() -> list[Case]:
    """Return the cases of 01e.3, ``real_differences(measurements, baseline)``: tell differences from noise."""
    drifting = [1.0, 1.6, 0.8, 1.5, 1.1, 0.7, 1.7, 0.9, 1.4, 0.75]  # ms: the level of each round
    lucky = [0.88 * ms for ms in drifting[1:] + drifting[:1]]
    steady = [1.0, 1.001, 0.999, 1.0, 1.002, 0.998, 1.001, 1.0, 0.999, 1.0]
    return [
        Case(
            ({"a": _timed(drifting), "b": _timed([0.5 * ms for ms in drifting]), "c": _timed(lucky)}, "a"),
            ["b"],
            "a table with one difference that is larger than the drift of the machine",
            [
                Mistake(["b", "c"], "You list c. Its median is 12 % lower, but its rounds differ by more than that "
                                    "among themselves. No limit for medians can tell such chance from a difference, "
                                    "and no test that takes the calls of a round for independent of each other."),
                Mistake([], "You miss a row that takes half of the time. How much the rounds of one row differ is not "
                            "the question: compare each with the same round of the other."),
                Mistake(["a", "b"], "You list the baseline itself. Compare the others with it."),
                Mistake(["a", "b", "c"], "You list everything, even the baseline. Which of these is more than noise?"),
                Mistake(["c"], "You list what is noise. The question is for the others."),
                Mistake(["a", "c"], "You list what is noise. The question is for the others."),
            ],
        ),
        Case(
            ({"a": _timed(drifting), "b": _timed([2 * ms for ms in drifting])}, "a"),
            ["b"],
            "a table with a row that takes twice as long",
            [Mistake([], "You miss a row that is slower than the baseline. That is a difference too.")],
        ),
        Case(
            ({"a": _timed(drifting, first_call=90.0), "b": _timed(drifting, first_call=2.0)}, "a"),
            [],
            "a table in which only the first calls differ",
            [Mistake(["b"], "You compare first calls. They load, allocate and compile: look at the calls after them.")],
        ),
        Case(
            ({"a": _timed(drifting), "b": _timed(drifting, hiccup=50.0)}, "a"),
            [],
            "a table in which one row has a few very slow calls",
            [Mistake(["b"], "In b, one call in ten is very slow, which moves the mean. The typical call is as fast.")],
        ),
        Case(
            ({"a": _timed(steady), "b": _timed([0.99 * ms for ms in steady[1:] + steady[:1]])}, "a"),
            ["b"],
            "a table with a certain difference of 1 %",
            [Mistake([], "You miss a row that takes 1 % less, round after round. Chance doesn't do that, and how "
                         "large it is was not asked. `is_noise` leaves out what is below SMALLEST_DIFFERENCE, too.")],
        ),
        Case(
            ({"a": _timed(drifting), "b": _timed([0.95 * ms for ms in drifting])}, "a"),
            ["b"],
            "a table in which every round of one row is 5 % faster than the same round of the other",
            [Mistake([], "You miss a difference that every round shows. The rows took turns, so what slowed one round "
                         "of the one slowed the same round of the other: compare round by round.")],
        ),
    ]  # fmt: skip


def _real_differences(measurements: Mapping[str, Measurement], baseline: str) -> Case:
    """Judge by the interval of the speed-up. Names that other sound methods may judge otherwise are left open."""
    certain, open_ = [], []
    for name in measurements:
        if name != baseline:
            compared = timing.compare(measurements[baseline], measurements[name])
            deviation = math.log(compared.high / compared.low) / 4 or 1e-9  # an interval of 95 % is 4 deviations wide
            distance = abs(math.log(compared.speedup)) / deviation
            certain += [name] if not compared.low <= 1 <= compared.high else []
            open_ += [name] if 1.3 < distance < 3 else []
    answers = [
        [name for name in measurements if (name in certain) != (name in changed)]
        for count in range(len(open_) + 1)
        for changed in itertools.combinations(open_, count)
    ]
    return Case((measurements, baseline), answers[0], DATA, also_right=answers[1:])


def best_threshold() -> list[Case]:
    """Return the cases of 01e.4, ``best_threshold(values, thresholds)``: choose where INT8 clips."""
    even = _even(200_000)
    just_below = (np.arange(126, dtype=np.float32) + np.float32(0.9)) / 127  # the next integer is near, above
    integers = np.arange(-127, 128, dtype=np.float32) / 127
    return [
        Case(
            (even, [1.0, 2.0, 0.5, 4.0]),
            1.0,
            "values from -1 to 1",
            [
                Mistake(4.0, "With 4.0 these values use only a quarter of the 255 integers, and 1.0 clips none of them "
                             "either. If you compare errors: did you multiply the integers by the scale again before?"),
                Mistake(2.0, "With 2.0 these values use only half of the 255 integers. Or do yours end at half of the "
                             "threshold? Of the 255, 127 are on each side of 0."),
                Mistake(0.5, "You choose the finest steps, as if nothing were clipped. Integers end at -127 and 127."),
                Mistake(0, "That is the position of the threshold in the list. Return the threshold."),
                Mistake(1 / 127, "That is the scale. Return the threshold that it comes from."),
            ],
        ),
        Case(
            (np.linspace(-1, 0.5, 3_000, dtype=np.float32), [0.5, 1.0]),
            1.0,
            "values from -1 to 0.5",
            [Mistake(0.5, "You clip negative values away, or a part of them. INT8 reaches from -127 to 127.")],
        ),
        Case(
            (just_below, [1.0, 1.3]),
            1.0,
            "values that lie a little below what the integers stand for",
            [Mistake(1.3, "You cut off what is behind the decimal point. Round to the nearest integer.")],
        ),
        Case(
            (integers, [1.0, 255 / 254, 128 / 127]),
            1.0,
            "values that are 127 equal steps on each side of 0",
            [
                Mistake(128 / 127, "Your steps are too fine: 127 times the scale isn't the threshold. Is it divided by "
                                   "128?"),
                Mistake(255 / 254, "Your steps are too fine: from -127 to 127 there are 255 integers and 254 steps."),
            ],
        ),
        Case(
            (np.append(_even(800_000), np.float32(6)), [0.5, 1.0, 6.0]),
            1.0,
            "800,000 values from -1 to 1 and a single 6",
            [Mistake(6.0, "You choose the largest value, as MinMax does. A single outlier then makes the steps coarse "
                          "for all others.")],
        ),
        Case(
            (np.append(_even(170_000), np.float32(6)), [0.5, 1.0, 6.0]),
            1.0,
            "170,000 values from -1 to 1 and a single 6",
            [Mistake(6.0, "Clipping the 6 costs less than you count. A conversion to int8 doesn't clip: what is beyond "
                          "127 starts again at -128. Clip before you convert.")],
        ),
        Case(
            (np.append(_even(20_000), np.float32(6)), [0.5, 1.0, 6.0]),
            6.0,
            "20,000 values from -1 to 1 and a single 6",
            [Mistake(1.0, "The outlier is one of far fewer values here, and the squared error of clipping it outweighs "
                          "the rest. Did you take the absolute error, or clip a fixed share?")],
        ),
        Case(
            (np.append(_even(150_000), np.float32(100)), [0.5, 1.0, 100.0]),
            100.0,
            "150,000 values from -1 to 1 and a single 100",
            [Mistake(1.0, "You leave out a fixed share of the values, however far away they are. This one is so far "
                          "away that clipping it costs more than coarse steps for all others.")],
        ),
    ]  # fmt: skip


def _best_threshold(values: np.ndarray, thresholds: Sequence[float]) -> Case:
    """Accept each threshold whose error is the smallest to within the precision in which one may compute it."""
    errors = []
    for threshold in thresholds:
        quantized = np.clip(np.round(values.astype(np.float64) / threshold * 127), -127, 127)
        errors.append(float(np.mean((quantized * threshold / 127 - values) ** 2)))
    best, *equal = [
        threshold for threshold, error in zip(thresholds, errors, strict=True) if error <= 1.001 * min(errors)
    ]
    too_low = "That threshold clips too much: its squared error isn't the smallest."
    too_high = "That threshold makes the steps too coarse: its squared error isn't the smallest."
    mistakes = [Mistake(one, too_low if one < best else too_high) for one in thresholds]
    return Case((values, thresholds), best, DATA, mistakes, also_right=equal)


EXERCISES = {
    "01e.1": Exercise(lost_fusions, by(_lost_fusions)),
    "01e.2": Exercise(first_overflow, _first_overflow),
    "01e.3": Exercise(real_differences, _real_differences),
    "01e.4": Exercise(best_threshold, _best_threshold),
}


def _report(*kernels: str, control: int = 0) -> BuildReport:
    """Return a report with these kernels, each the names of its ONNX nodes, and layers that only order streams."""
    layers = [EngineLayer(f"kernel {i}", "kgen", (), (), tuple(nodes.split())) for i, nodes in enumerate(kernels)]
    layers += [EngineLayer(f"signal {i}", "signal", (), (), ()) for i in range(control)]
    return BuildReport("TensorRT-RTX", "1.7.1.116", layers=tuple(layers))


def _tensors(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(numbers, np.float32) for name, numbers in values.items()}


def _even(count: int) -> np.ndarray:
    return np.linspace(-1, 1, count, dtype=np.float32)


def _timed(rounds: list[float], first_call: float = 2.0, hiccup: float | None = None) -> Measurement:
    """Return a measurement with ten calls in each round; ``hiccup`` is what one of the ten takes instead."""
    calls = [(ms,) * (9 if hiccup else 10) + ((hiccup,) if hiccup else ()) for ms in rounds]
    return Measurement(tuple(calls), first_call, 11, True, 64)
