"""What the exercises of lesson 01 are checked with: small inputs, right answers, typical wrong answers."""

import numpy as np

from tutorial_utils.engine import BuildReport, EngineLayer
from tutorial_utils.lessons.checking import Case, Mistake
from tutorial_utils.measure.timing import Measurement


def lost_fusions() -> list[Case]:
    """Return the cases of 01.1, ``lost_fusions(plain, marked)``: count the fusions that marked outputs destroy."""
    return [
        Case(
            (
                _report("Conv.1 Norm.1 Relu.1", "Conv.2 Norm.2", "Pool.1", "Gemm.1 Add.1"),
                _report("Conv.1", "", "Norm.1 Relu.1", "Conv.2", "", "Norm.2", "", "Pool.1", "Gemm.1 Add.1", control=3),
            ),
            2,
            "an engine with two of three fusions lost",
            [
                Mistake(5, "That is how many kernels were added. A lost fusion can add several: count fusions."),
                Mistake(8, "That is how many layers were added, those that only order streams included."),
                Mistake(1, "You compare how many fusions there are. The marked engine also has a fusion that the "
                        "first doesn't have: look at which nodes are together."),
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
    ]  # fmt: skip


def first_overflow() -> list[Case]:
    """Return the cases of 01.2, ``first_overflow(activations)``: name the first tensor that overflows in FP16."""
    return [
        Case(
            (_tensors(conv=[1, 2], add=[10, 70_000], relu=[0, 100_000]),),
            "add",
            "activations that overflow in two tensors",
            [
                Mistake("relu", "That is the tensor with the largest value. Look for the first that overflows: what "
                                "comes after it is only a consequence."),
                Mistake(None, "The activations are FP32 and hold no infinity. Convert them to FP16 before you look."),
            ],
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
    ]  # fmt: skip


def real_differences() -> list[Case]:
    """Return the cases of 01.3, ``real_differences(measurements, baseline)``: tell differences from noise."""
    drifting = [1.0, 1.3, 0.9, 1.2, 1.1, 0.8, 1.25, 1.05, 1.15, 0.95]  # ms: the level of each round
    lucky = [0.97 * ms for ms in drifting[1:] + drifting[:1]]
    return [
        Case(
            ({"a": _timed(drifting), "b": _timed([0.5 * ms for ms in drifting]), "c": _timed(lucky)}, "a"),
            ["b"],
            "a table with one difference that is larger than the drift of the machine",
            [
                Mistake(["b", "c"], "You list c. Its median is lower, but its rounds differ more among themselves."),
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
            ({"a": _timed([1.0] * 10), "b": _timed([0.99] * 10)}, "a"),
            [],
            "a table with a certain difference of 1 %",
            [Mistake(["b"], "The difference is certain, but 1 % is too small to matter: see SMALLEST_DIFFERENCE in "
                            "tutorial_utils.measure.timing.")],
        ),
    ]  # fmt: skip


def best_threshold() -> list[Case]:
    """Return the cases of 01.4, ``best_threshold(values, thresholds)``: choose where INT8 clips."""
    even = np.linspace(-1, 1, 200_000, dtype=np.float32)
    return [
        Case(
            (even, [1.0, 2.0, 0.5]),
            1.0,
            "values from -1 to 1",
            [
                Mistake(2.0, "With 2.0 these values use only half of the 255 integers, and 1.0 clips none of them "
                             "either. If you compare errors: did you multiply the integers by the scale again before?"),
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
            (np.append(even, np.float32(6)), [0.5, 1.0, 6.0]),
            1.0,
            "200,000 values from -1 to 1 and a single 6",
            [Mistake(6.0, "You choose the largest value, as MinMax does. A single outlier then makes the steps coarse "
                          "for all others.")],
        ),
        Case(
            (np.append(even[::10], np.float32(6)), [0.5, 1.0, 6.0]),
            6.0,
            "20,000 values from -1 to 1 and a single 6",
            [Mistake(1.0, "The outlier is one of far fewer values here, and the squared error of clipping it outweighs "
                          "the rest. Did you take the absolute error, or clip a fixed share?")],
        ),
    ]  # fmt: skip


EXERCISES = {"01.1": lost_fusions, "01.2": first_overflow, "01.3": real_differences, "01.4": best_threshold}


def _report(*kernels: str, control: int = 0) -> BuildReport:
    """Return a report with these kernels, each the names of its ONNX nodes, and layers that only order streams."""
    layers = [EngineLayer(f"kernel {i}", "kgen", (), (), tuple(nodes.split())) for i, nodes in enumerate(kernels)]
    layers += [EngineLayer(f"signal {i}", "signal", (), (), ()) for i in range(control)]
    return BuildReport("TensorRT-RTX", "1.7.1.116", layers=tuple(layers))


def _tensors(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(numbers, np.float32) for name, numbers in values.items()}


def _timed(rounds: list[float], first_call: float = 2.0, hiccup: float | None = None) -> Measurement:
    """Return a measurement with ten calls in each round; ``hiccup`` is what one of the ten takes instead."""
    calls = [(ms,) * (9 if hiccup else 10) + ((hiccup,) if hiccup else ()) for ms in rounds]
    return Measurement(tuple(calls), first_call, 11, True, 64)
