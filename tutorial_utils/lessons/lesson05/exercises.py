"""What the exercises of lesson 05 are checked with: small models that are really built, and typical wrong answers."""

import dataclasses
import functools
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.base import onnx_session
from tutorial_utils.inspection.dataflow import Dataflow, Step
from tutorial_utils.lessons.checking import DATA, Case, Exercise, Mistake, by
from tutorial_utils.lessons.lesson05 import exercises_formats

_SIZE = 32  # channels, height and width alike, so that a transposed tensor keeps its shape
_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def served_model() -> onnx.ModelProto:
    """Return the model of exercise 05c.2: four convolutions with a ReLU each, two of which run apart.

    Someone made the output of the second convolution an output of the model, to look at it, and left it so. The third
    ReLU comes from a framework with channels last: its export transposes before and after it.
    """
    return _model(
        _conv("x", "a0", 0), _relu("a0", "b0", 0),
        _conv("b0", "a1", 1), _relu("a1", "b1", 1),
        _conv("b1", "a2", 2), _transpose("a2", "t2", "to_nhwc", _TO_NHWC), _relu("t2", "r2", 2),
        _transpose("r2", "b2", "to_nchw", _TO_NCHW),
        _conv("b2", "a3", 3), _relu("a3", "y", 3),
        outputs=("y", "a1"),
    )  # fmt: skip


def kept_apart() -> list[Case]:
    """Return the cases of 05c.2, ``kept_apart(model, report)``: which ReLU runs without its convolution, and why."""
    plain = [_conv("x", "a", 0), _relu("a", "b", 0), _conv("b", "y", 1)]
    casts = [
        _conv("x", "a", 0),
        helper.make_node("Cast", ["a"], ["half"], "to_fp16", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["full"], "to_fp32", to=TensorProto.FLOAT),
        _relu("full", "b", 0), _conv("b", "y", 1),
    ]  # fmt: skip

    def case(model: onnx.ModelProto, answer: dict[str, str], what: str, *mistakes: Mistake) -> Case:
        return Case((model, _report(model.SerializeToString())), answer, what, mistakes)

    return [
        case(
            _model(*plain), {}, "a model in which everything is fused",
            Mistake({"relu0": "Conv"}, "You name a ReLU that runs in the kernel of its convolution. Look into the "
                                       "report for the kernel that holds both."),
        ),
        case(
            _model(*plain, outputs=("y", "a")), {"relu0": "output"},
            "a model with an output in the middle",
            Mistake({}, "You find nothing, and one ReLU has a kernel of its own. In the ONNX graph it stands right "
                        "behind its convolution: only the engine's report tells."),
            Mistake({"relu0": "Conv"}, "The node in front of this ReLU is a convolution, with which it could run. Who "
                                       "else wants the tensor between the two?"),
        ),
        case(
            _model(*_transposed(_TO_NCHW)), {"relu0": "Transpose"},
            "a model that transposes around a ReLU",
            Mistake({}, "You look for kernels of a single node. This ReLU shares its kernel with others, and none of "
                        "them is a convolution."),
        ),
        case(
            _model(*casts), {}, "a model with casts between convolution and ReLU",
            Mistake({"relu0": "Cast"}, "You judge by the ONNX graph. Here the engine took the casts and the ReLU into "
                                       "the kernel of the convolution."),
        ),
        case(
            served_model(), {"relu1": "output", "relu2": "Transpose"}, "a model with one of each",
            Mistake({"relu1": "output"}, "You stop at the first one."),
        ),
        case(
            _renamed(_model(*plain, outputs=("y", "a"))), {"node1": "output"}, "a model whose names say nothing",
            Mistake({}, "You tell operators by the names of nodes. A name can be anything: look at op_type."),
        ),
    ]  # fmt: skip


def _kept_apart(model: onnx.ModelProto, report: engine.BuildReport) -> dict[str, str]:
    operators = {node.name: node.op_type for node in model.graph.node}
    writers = {name: node.op_type for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    with_convolution = [
        kernel.onnx_nodes for kernel in report.kernels if "Conv" in [operators.get(name) for name in kernel.onnx_nodes]
    ]
    return {
        node.name: "output" if node.input[0] in outputs else writers[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Relu" and not any(node.name in names for names in with_convolution)
    }


def without_transposes() -> list[Case]:
    """Return the cases of 05c.3, ``without_transposes(model)``: remove the pairs that only cost a kernel."""

    def case(model: onnx.ModelProto, best: onnx.ModelProto, what: str, *mistakes: Mistake) -> Case:
        return Case((model,), _GOOD, what, mistakes, judged=_judge(model, best), objection=_objection)

    plain = [_conv("x", "a", 0), _relu("a", "b", 0), _conv("b", "c", 1)]
    different, inner = _model(*_transposed(_TO_NHWC)), _model(*_transposed(_TO_NCHW), outputs=("y", "r"))
    read, before = (
        _model(*_transposed(_TO_NCHW), helper.make_node("Neg", [name], ["z"], "other"), outputs=("y", "z"))
        for name in ("r", "t")
    )
    softmax = _model(*_transposed(_TO_NCHW))
    softmax.graph.node[2].CopyFrom(helper.make_node("Softmax", ["t"], ["r"], "softmax", axis=3))
    return [
        case(
            _model(*_transposed(_TO_NCHW)),
            _model(*plain, outputs=("c",)),
            "a pair that undoes itself around a ReLU",
            Mistake(_SLOW, "The engine has as many kernels as before: the pair is still there."),
            Mistake(_OTHER, "One of the two is gone and the other is still there, so the outputs are wrong now."),
            Mistake(_INVALID, "What remains isn't a valid model: a node reads a tensor that nobody writes any more. "
                              "Connect what stays past the nodes that go."),
        ),
        case(
            different, different, "two transposes that don't undo each other",
            Mistake(_OTHER, "Here the second transpose doesn't undo the first, although the shapes fit: compare perm."),
        ),
        case(
            inner, inner, "a pair whose inner tensor is an output of the model",
            Mistake(_INVALID, "Somebody else reads the tensor between the two: it is an output of the model. Then both "
                              "have to stay."),
            Mistake(_OTHER, "The tensor between the two is an output of the model, and yours has another layout."),
        ),
        case(
            read, read, "a pair whose inner tensor another node reads",
            Mistake(_INVALID, "Another node reads what the operator between the two writes. Then both have to stay."),
            Mistake(_OTHER, "Another node reads what the operator between the two writes. It gets another layout now."),
        ),
        case(
            before, before, "a pair of which another node reads the first transpose",
            Mistake(_INVALID, "Another node reads what the first of the two writes. Then both have to stay."),
            Mistake(_OTHER, "Another node reads what the first of the two writes. It gets another layout now."),
        ),
        case(
            softmax, softmax, "a pair around a Softmax",
            Mistake(_OTHER, "Which axis a Softmax normalizes depends on the layout, as with most operators. A pair may "
                            "go if it is around a Relu."),
        ),
        case(
            _model(*_transposed(_TO_NCHW), _relu("y", "z", 1), *_transposed(_TO_NCHW, "z", "end", 2), outputs=("end",)),
            _model(*plain, _relu("c", "z", 1), _conv("z", "d", 2), _relu("d", "e", 2), _conv("e", "f", 3),
                   outputs=("f",)),
            "two pairs, one after the other",
            Mistake(_SLOW, "One pair is gone, and another is still there."),
        ),
    ]  # fmt: skip


def _without_transposes(model: onnx.ModelProto) -> Case:
    best = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = best.graph.node
    writers = {name: node for node in nodes for name in node.output}
    readers = Counter([name for node in nodes for name in node.input] + [value.name for value in best.graph.output])
    for second in [node for node in nodes if node.op_type == "Transpose"]:
        relu = writers.get(second.input[0])
        first = writers.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if (
            first is None
            or first.op_type != "Transpose"
            or {readers[name] for name in (*first.output, *relu.output)} != {1}
        ):
            continue
        there, back = (helper.get_node_attr_value(node, "perm") for node in (first, second))
        if [there[axis] for axis in back] == list(range(len(back))):
            relu.input[0], relu.output[0] = first.input[0], second.output[0]
            nodes.remove(first)
            nodes.remove(second)
    mistakes = [Mistake(_SLOW, "The engine of what you return has more kernels than it takes: a pair is still there.")]
    return Case((model,), _GOOD, DATA, mistakes, judged=_judge(model, best), objection=_objection)


def saved_without_skip() -> list[Case]:
    """Return the cases of 05c.4, ``saved_without_skip(flow, tensor)``: what a skip connection costs in memory."""
    one = _flow({"x": 1, "a": 60, "b": 20, "c": 10, "d": 15, "y": 1}, "x>a a>b b>c ca>d d>y")
    twice = _flow(
        {"x": 1, "a": 60, "b": 20, "c": 10, "d": 15, "e": 20, "f": 5, "y": 1}, "x>a a>b b>c ca>d d>e ae>f f>y"
    )
    two = _flow(
        {"x": 1, "a": 20, "b": 40, "c": 10, "d": 20, "e": 40, "f": 10, "g": 15, "y": 1},
        "x>a a>b b>c ca>d d>e e>f fd>g g>y",
    )
    return [
        Case(
            (one, "a"),
            10,
            "a network with one skip connection",
            [
                Mistake(60, "You return the size of the tensor, or what one step holds less. Without its wait, another "
                            "step is the fullest."),
                Mistake(30, "You drop all readers. The first step that reads the tensor still does."),
                Mistake(80, "That is what the fullest step holds afterwards. How much less is that than before?"),
                Mistake(90, "That is what the fullest step holds before. How much less is it afterwards?"),
                Mistake(5, "You look at the step of the addition. Take the fullest step of each network."),
                Mistake(0, "You compare what doesn't depend on lifetimes, or drop another reader than the last ones."),
            ],
        ),
        Case(
            (two, "a"), 0, "a network of two equal blocks, and the skip connection of the first",
            [Mistake(10, "The second block has a fullest step of its own, as full as that of the first.")],
        ),
        Case(
            (twice, "a"), 15, "a tensor that three steps read",
            [Mistake(5, "You drop the last reader only. All but the first do without the tensor.")],
        ),
        Case((one, "b"), 0, "a tensor with a single reader, which is no skip connection"),
    ]  # fmt: skip


def _saved_without_skip(flow: Dataflow, tensor: str) -> int:
    first = next((index for index, step in enumerate(flow.steps) if tensor in step.reads), None)
    steps = [
        dataclasses.replace(step, reads=tuple(name for name in step.reads if name != tensor or index == first))
        for index, step in enumerate(flow.steps)
    ]
    return flow.largest_live_set - dataclasses.replace(flow, steps=tuple(steps)).largest_live_set


EXERCISES = {
    "05c.1": Exercise(exercises_formats.engine_for_nhwc, exercises_formats.on_data),
    "05c.2": Exercise(kept_apart, by(_kept_apart)),
    "05c.3": Exercise(without_transposes, _without_transposes),
    "05c.4": Exercise(saved_without_skip, by(_saved_without_skip)),
}


# --- small models ----------------------------------------------------------------------------------------------------


def _conv(source: str, target: str, number: int) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"w{number}"], [target], f"conv{number}", pads=[1] * 4)


def _relu(source: str, target: str, number: int) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], f"relu{number}")


def _transpose(source: str, target: str, name: str, perm: list[int]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], [target], name, perm=perm)


def _transposed(second: list[int], source: str = "x", target: str = "y", number: int = 0) -> list[onnx.NodeProto]:
    """Return a convolution, a ReLU between two transposes, of which the second is given, and a convolution."""
    prefix = source if number else ""
    a, t, r, b = (f"{prefix}{name}" for name in "atrb")
    return [
        _conv(source, a, number), _transpose(a, t, f"to_nhwc{number}", _TO_NHWC), _relu(t, r, number),
        _transpose(r, b, f"back{number}", second), _conv(b, target, number + 1),
    ]  # fmt: skip


def _model(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = sorted({name for node in nodes for name in node.input if name.startswith("w")})
    shape = (1, _SIZE, _SIZE, _SIZE)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", *outputs)]
    drawn = rng.standard_normal((len(weights), _SIZE, _SIZE, 3, 3)) / np.sqrt(9 * _SIZE)
    arrays = [numpy_helper.from_array(one, name) for one, name in zip(drawn.astype(np.float32), weights, strict=True)]
    graph = helper.make_graph(list(nodes), "small", values[:1], values[1:], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    return model


def _flow(sizes: dict[str, int], steps: str) -> Dataflow:
    """Return a dataflow whose steps are written as "ab>c": reads a and b, writes c."""
    sides = [step.split(">") for step in steps.split()]
    found = tuple(Step(f"step{i}", "", tuple(reads), tuple(writes)) for i, (reads, writes) in enumerate(sides))
    return Dataflow(found, sizes, ("x",), ("y",))


# --- what becomes of a model -----------------------------------------------------------------------------------------

_GOOD = "a model with the same outputs and as few kernels as it takes"
_SLOW = "a model with the same outputs and more kernels than it takes"
_OTHER = "a model with other outputs"
_INVALID = "a model that isn't valid"
_IDLE = "a model with the same outputs and kernels, and with nodes that do nothing"


def _judge(model: onnx.ModelProto, best: onnx.ModelProto) -> Callable[[object], str]:
    return functools.partial(_compared, model.SerializeToString(), best.SerializeToString())


def _compared(original: bytes, best: bytes, returned: object) -> str:
    """Say what a model is like beside the one it was made from, and beside one that has no kernel too many."""
    if not isinstance(returned, onnx.ModelProto):
        return f"{type(returned).__name__} instead of an onnx.ModelProto"
    try:
        onnx.checker.check_model(returned, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return _INVALID
    model = returned.SerializeToString()
    wanted, found = _outputs(original), _outputs(model)
    same = wanted.keys() == found.keys() and all(
        wanted[name].shape == found[name].shape and np.allclose(wanted[name], found[name], rtol=1e-3, atol=1e-4)
        for name in wanted
    )
    if not same:
        return _OTHER
    if len(_report(model).kernels) > len(_report(best).kernels):
        return _SLOW
    kept = len(returned.graph.node) <= len(onnx.ModelProto.FromString(best).graph.node)
    return _GOOD if kept else _IDLE


def _objection(judged: str) -> str | None:
    if judged == _IDLE:
        return "Something stands in the pair's place that does nothing. Remove both nodes, and connect what stays."
    return None


@functools.lru_cache
def _report(model: bytes) -> engine.BuildReport:
    """Build an engine: twice the same model is common here, since every check makes its cases anew."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        return engine.build(path, use_cache=False, progress=False).report


@functools.lru_cache
def _outputs(model: bytes) -> dict[str, np.ndarray]:
    """Run a model with ONNX Runtime on the CPU, on random numbers."""
    session = onnx_session.new_session(model)
    image = np.random.default_rng(1).standard_normal((1, _SIZE, _SIZE, _SIZE), dtype=np.float32)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, {"x": image}), strict=True))
