"""What an export is verified with: inputs that the model accepts, and a comparison that knows every type of output."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tutorial_utils.base.errors import ExportError, InputError
from tutorial_utils.model import paddle_program
from tutorial_utils.model.exporting import export_samples

TABLE_ROWS = 50


def model_of(kind, types=(TensorProto.FLOAT,)):
    """A model that hands its inputs on."""
    inputs = [helper.make_tensor_value_info(f"x{i}", one, ["n", "length"]) for i, one in enumerate(types)]
    outputs = [helper.make_tensor_value_info(f"y{i}", one, ["n", "length"]) for i, one in enumerate(types)]
    nodes = [helper.make_node(kind, [f"x{i}"], [f"y{i}"]) for i in range(len(types))]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Predictor:
    """Stands in for Paddle's: one input, which it may refuse, and one output."""

    def __init__(self, function, name="x0"):
        self.function, self.name = function, name

    def get_input_names(self):
        return [self.name]

    get_output_names = get_input_names

    def get_input_handle(self, name):
        return self

    get_output_handle = get_input_handle

    def copy_from_cpu(self, array):
        self.array = array

    def run(self):
        self.output = self.function(self.array)

    def copy_to_cpu(self):
        return self.output


@pytest.fixture(autouse=True)
def program(monkeypatch):
    """A program with one embedding, as `paddle_program` would read it."""
    table = paddle_program.Operation("pd_op.embedding", {}, (("i64", (-1, -1)), ("f32", (TABLE_ROWS, 8))))
    monkeypatch.setattr(paddle_program, "operations", lambda path: [table])


def drawn(function, element_type):
    found = export_samples.of_paddle(Predictor(function), model_of("Identity", [element_type]), None, None)
    return found["in:x0"]


def refusing(accepts):
    def function(array):
        if not accepts(array):
            raise ValueError(
                "In user code:\n\n    InvalidArgumentError: It has wrong values. (at /a/file.cc:3)\n  [hint]"
            )
        return array.astype(np.float32)

    return function


def test_ids_lie_below_the_rows_of_the_embedding():
    ids = drawn(lambda array: array, TensorProto.INT64)
    assert ids.dtype == np.int64
    assert 0 <= ids.min() < 5
    assert TABLE_ROWS - 5 < ids.max() < TABLE_ROWS


def test_ids_of_0_and_1_where_others_are_refused():
    assert drawn(refusing(lambda ids: ids.max() <= 1), TensorProto.INT64).max() == 1


def test_shorter_inputs_where_long_ones_are_refused():
    assert drawn(refusing(lambda ids: ids.shape[1] <= 20), TensorProto.INT64).shape == (2, 16)


def test_a_recording_where_all_shorter_inputs_are_refused():
    assert drawn(refusing(lambda samples: samples.shape[1] > 500), TensorProto.FLOAT).shape == (2, 1024)


def test_no_recording_where_a_shorter_input_is_accepted():
    assert drawn(lambda array: array * 0, TensorProto.FLOAT).shape == (2, 64)


@pytest.mark.parametrize("function", [np.sqrt, lambda array: array[:0] if (array < 0).any() else array])
def test_positive_values_where_others_make_nan_or_nothing(function):
    with np.errstate(invalid="ignore"):
        assert drawn(function, TensorProto.FLOAT).min() >= 0


def test_nan_is_taken_where_nothing_else_comes():
    assert drawn(lambda array: array * np.nan, TensorProto.FLOAT).size


def test_bool_and_bytes():
    assert set(np.unique(drawn(lambda array: array, TensorProto.BOOL))) == {False, True}
    assert drawn(lambda array: array, TensorProto.UINT8).max() > 200


def test_paddle_refuses_everything():
    with pytest.raises(
        ExportError, match=r"InvalidArgumentError: It has wrong values\. Remedy.*samples=.*verify=False"
    ):
        drawn(refusing(lambda array: False), TensorProto.FLOAT)


@pytest.mark.parametrize("given", [{}, {"x": np.ones((1, 2), np.float32)}, {"x0": np.ones((1, 2))}])
def test_samples_that_are_not_those_of_the_model(given):
    with pytest.raises(InputError, match=r"The samples are .*, but the model takes x0 \(float32\)"):
        export_samples.of_paddle(Predictor(np.abs), model_of("Identity"), None, given)


# --- comparison ------------------------------------------------------------------------------------------------------


def compare(tmp_path, values, expected, element_type, kind="Identity"):
    onnx.save(model_of(kind, [element_type]), tmp_path / "m.onnx")
    np.savez(tmp_path / "samples.npz", **{"in:x0": values, "out:0": expected})
    export_samples.compare(tmp_path / "m.onnx", tmp_path / "samples.npz", "")


FLOATS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
BOOLS = FLOATS > 0
HOLES = np.where(BOOLS, np.nan, FLOATS).astype(np.float32)
MANY = np.arange(4000).reshape(2, 2000)
ALIKE = {
    "rounding": (FLOATS, FLOATS + 1e-6, TensorProto.FLOAT),
    "bools": (BOOLS, BOOLS, TensorProto.BOOL),
    "empty": (FLOATS[:, :0], FLOATS[:, :0], TensorProto.FLOAT),
    "empty integers": (MANY[:, :0], MANY[:, :0], TensorProto.INT64),
    "nan in both": (HOLES, HOLES, TensorProto.FLOAT),
    "one id of 4000 turned by rounding": (MANY, np.where(MANY == 7, 8, MANY), TensorProto.INT64),
}
NOT_ALIKE = {
    "value": (FLOATS, FLOATS + 1e-3, TensorProto.FLOAT, r"by 1\.0e-03 of its largest value"),
    "bool": (BOOLS, ~BOOLS, TensorProto.BOOL, r"in 100\.00% of its elements"),
    "one bool of 12": (BOOLS, BOOLS ^ (FLOATS == 1), TensorProto.BOOL, r"in 8\.33% of its elements"),
    "shape": (FLOATS, FLOATS[:1], TensorProto.FLOAT, r"float32 of shape \(3, 4\) for float32 of shape \(1, 4\)"),
    "type": (MANY, MANY.astype(np.int32), TensorProto.INT64, "int64 of shape .* for int32"),
    "nan in Paddle's": (FLOATS, HOLES, TensorProto.FLOAT, "where that is NaN"),
    "nan in ours": (HOLES, FLOATS, TensorProto.FLOAT, "by nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", ALIKE)
def test_alike(case, tmp_path):
    compare(tmp_path, *ALIKE[case])


@pytest.mark.parametrize("case", NOT_ALIKE)
def test_not_alike(case, tmp_path):
    *given, message = NOT_ALIKE[case]
    with pytest.raises(ExportError, match=rf"y0 of m\.onnx differs from Paddle's output.*{message}"):
        compare(tmp_path, *given)


def test_onnx_runtime_refuses_the_result(tmp_path):
    with pytest.raises(ExportError, match=r"ONNX Runtime can't run what paddle2onnx made of the model: .*Odd"):
        compare(tmp_path, FLOATS, FLOATS, TensorProto.FLOAT, kind="Odd")
