"""What the exercises of lesson 01 are checked with; two of them have a module of their own.

`exercises_engine` judges the engine of 01e.1, `exercises_int8` the file of 01e.4.
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base import onnx_session
from tutorial_utils.lessons.checking import DATA, Case, Exercise, Mistake
from tutorial_utils.lessons.lesson01 import exercises_engine, exercises_int8
from tutorial_utils.measure import timing
from tutorial_utils.measure.timing import Measurement


def first_overflow() -> list[Case]:
    """Return the cases of 01e.2, ``first_overflow(model, images)``: name the first tensor that overflows in FP16."""
    zeros = np.zeros((1, 2), np.float32)

    def case(model: onnx.ModelProto, answer: str | None, what: str, *mistakes: Mistake) -> Case:
        return Case((model, zeros), answer, what, mistakes)

    return [
        case(
            _model(conv=[1, 2], relu=[70_000, 80_000], gemm=[90_000, 100_000], add=[66_000, 67_000],
                   norm=[66_000, 67_000]),
            "relu",
            "a model with four tensors that overflow",
            Mistake("gemm", "That is the tensor with the largest value. Look for the first that overflows: what comes "
                            "after it is only a consequence."),
            Mistake("add", "You sort the names. Look for the first in the order of the file's nodes."),
            Mistake("norm", "You name the model's own output, what its last node writes. It is declared as the first "
                            "output, and computed last: go by the order of the nodes."),
            Mistake(None, "FP32 holds these values, and no infinity comes out. Convert to FP16 before you look, and "
                          "look at what is between the nodes, too."),
        ),
        case(
            _model(conv=[1, 2], add=[10, 70_000], relu=[0, 60_000]),
            "add",
            "a model in which a single value overflows",
            Mistake(None, "You find a tensor only if all of its values overflow. One is enough."),
        ),
        case(
            _model(conv=[1, -80_000], relu=[0, 90_000]),
            "conv",
            "a model with a large negative value",
            Mistake("relu", "You miss a negative value: in FP16, -80,000 is minus infinity."),
        ),
        case(
            _model(conv=[60_000, 1], norm=[1e-8, 1]),
            None,
            "a model whose tensors all fit",
            Mistake("norm", "1e-8 becomes 0 in FP16. That is underflow, another fault: nothing is infinite."),
            Mistake("conv", "60,000 is a large value, but FP16 can hold it."),
        ),
        case(
            _model(conv=[65_510, 1], add=[65_530, 1]),
            "add",
            "values just above 65,504, the largest number of FP16",
            Mistake("conv", "65,510 is more than FP16's largest number, but is rounded down to it. Don't compare with "
                            "a limit: convert, and look at what comes out."),
        ),
        case(
            _model(count=[100_000, 1], conv=[70_000, 1]),
            "conv",
            "a model that also computes with integers",
            Mistake("count", "That tensor holds integers, which stay integers in an FP16 model."),
        ),
        case(_model(conv=[1, 2], divide=[1, np.inf]), "divide", "a model with an infinite value in FP32 already"),
    ]  # fmt: skip


def _first_overflow(model: onnx.ModelProto, images: np.ndarray) -> Case:
    """Judge by what each node writes, node after node."""
    names = [name for node in model.graph.node for name in node.output]
    marked = onnx.ModelProto.FromString(model.SerializeToString())
    del marked.graph.output[:]
    marked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnx_session.new_session(marked.SerializeToString(), optimize=False)
    arrays = dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))
    with np.errstate(over="ignore"):
        halves = {name: array.astype(np.float16) for name, array in arrays.items() if array.dtype == np.float32}
    found = [name for name, array in halves.items() if np.isinf(array).any()]
    consequence = "That tensor overflows, too, but another one does so before it, in the order of the nodes."
    later = [Mistake(name, consequence) for name in found[1:]]
    return Case((model, images), found[0] if found else None, DATA, later)


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


EXERCISES = {
    "01e.1": Exercise(exercises_engine.engine_with_output, exercises_engine.on_data),
    "01e.2": Exercise(first_overflow, _first_overflow),
    "01e.3": Exercise(real_differences, _real_differences),
    "01e.4": Exercise(exercises_int8.to_int8, exercises_int8.on_data),
}


def _model(**values: list[float]) -> onnx.ModelProto:
    """Return a model of these tensors, one node each, that adds their values to its input of zeros.

    The last is its output. The tensor ``count`` is one of integers.
    """
    nodes, weights = [], []
    for name, numbers in values.items():
        integers = name == "count"
        array = np.array([numbers], np.int64 if integers else np.float32)
        weights.append(numpy_helper.from_array(array, f"{name}.w"))
        nodes.append(helper.make_node("Add", [f"{name}.w"] * 2 if integers else ["x", f"{name}.w"], [name], name))
    given, *_, wanted = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", *values))
    graph = helper.make_graph(nodes, "small", [given], [wanted], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _timed(rounds: list[float], first_call: float = 2.0, hiccup: float | None = None) -> Measurement:
    """Return a measurement with ten calls in each round; ``hiccup`` is what one of the ten takes instead."""
    calls = [(ms,) * (9 if hiccup else 10) + ((hiccup,) if hiccup else ()) for ms in rounds]
    return Measurement(tuple(calls), first_call, 11, True, 64)
