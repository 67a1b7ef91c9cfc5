"""The shapes that a model is inspected at."""

import pytest
from onnx import TensorProto, helper

from tutorial_utils.base.errors import InputError
from tutorial_utils.inspection import input_shapes


def complete(given=None, **inputs):
    """Return shapes and guesses for float inputs by their declared dimensions."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    graph = helper.make_graph([], "g", values, [])
    return input_shapes.complete(graph, given or {}, "m.onnx")


@pytest.mark.parametrize(
    ("dims", "shape", "guessed"),
    [
        ([2, 3], (2, 3), None),
        ([], (), None),
        ([0, 8], (0, 8), None),
        (["n", 3, "h", "w"], (1, 3, 224, 224), "?x3x?x?"),
        ([-1, -1, -1, -1], (1, 3, 224, 224), "?x?x?x?"),
        (["n", "h", "w", 3], (1, 224, 224, 3), "?x?x?x3"),
        (["n", "c", 32, 32], (1, 224, 32, 32), "?x?x32x32"),
        (["?", 80, "?"], (1, 80, 16), "?x80x?"),
        (["t", 1, 8], (1, 1, 8), "?x1x8"),
        ([None, None], (1, 16), "?x?"),
    ],
)
def test_a_guess_depends_on_rank_and_place(dims, shape, guessed):
    assert complete(x=dims) == ({"x": shape}, {"x": guessed} if guessed else {})


def test_one_name_is_one_size():
    shapes, guessed = complete(ids=["b", "s"], mask=["b", 1, "s", "s"], other=["?", "?", "?", "?"])
    assert shapes == {"ids": (1, 16), "mask": (1, 1, 16, 16), "other": (1, 3, 224, 224)}
    assert guessed.keys() == {"ids", "mask", "other"}
    assert complete(x=["b", "s"], state=[2, "b", 128])[0]["state"] == (2, 1, 128), "the batch, which is first elsewhere"
    shapes, guessed = complete({"mask": (2, 1, 7, 7)}, ids=["b", "s"], mask=["b", 1, "s", "s"], out=["s", 4])
    assert shapes == {"ids": (2, 7), "mask": (2, 1, 7, 7), "out": (7, 4)}
    assert guessed.keys() == {"ids", "out"}


def test_an_input_without_a_shape_needs_one():
    with pytest.raises(InputError, match=r"doesn't say how many dimensions its input x has\. Remedy: .*--shape x:"):
        complete(x=None)
    assert complete({"x": (2, 3)}, x=None) == ({"x": (2, 3)}, {})


@pytest.mark.parametrize(("given", "says"), [((1, 8), "x, which is 0x8"), ((0, 9), "x, which is 0x8")])
def test_a_size_of_zero_is_not_open(given, says):
    with pytest.raises(InputError, match=says):
        complete({"x": given}, x=[0, 8])


def test_options():
    assert input_shapes.parse("a:0:0x16") == ("a:0", (0, 16))
    assert input_shapes.parse("sizes:1,-1", ",") == ("sizes", (1, -1))
    for text in ("x", "x:", ":1x2", "x:1x-2", "x:1,2", "x:²"):
        with pytest.raises(InputError, match=r"is not the shape of an input.*NAME:1x3x224x224"):
            input_shapes.parse(text)
    with pytest.raises(InputError, match=r"is not the values of an input.*NAME:1,3,64,64"):
        input_shapes.parse("x:1x2", ",")
