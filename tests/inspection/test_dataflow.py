import numpy as np
import pytest
from node_models import save_nodes
from onnx import TensorProto, helper

from tutorial_utils.base.errors import InputError, ModelFileError
from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.inspection import dataflow
from tutorial_utils.inspection.dataflow import Dataflow, Lifetime, Step
from tutorial_utils.model import onnx_file

# x -> a -> b -> y, with a shortcut from a to y.
FLOW = Dataflow(
    steps=(
        Step("first", "Conv", ("x",), ("a",)),
        Step("second", "Relu", ("a",), ("b",)),
        Step("sum", "Add", ("b", "a"), ("c",)),
        Step("last", "Relu", ("c",), ("y",)),
    ),
    sizes={"x": 1, "a": 10, "b": 100, "c": 1000, "y": 10_000},
    inputs=("x",),
    outputs=("y",),
)


def test_lifetimes_leave_out_what_the_caller_holds():
    assert FLOW.lifetimes() == (Lifetime("a", 10, 0, 2), Lifetime("b", 100, 1, 2), Lifetime("c", 1000, 2, 3))


def test_live_bytes_and_what_follows():
    assert FLOW.live_bytes().tolist() == [10, 110, 1110, 1000]
    assert FLOW.largest_live_set == 1110
    assert FLOW.sum_of_tensors == 1110


def test_tensor_that_nobody_reads_lives_for_one_step():
    flow = Dataflow((Step("one", "Split", ("x",), ("a", "y")), Step("two", "Relu", ("x",), ("z",))),
                    {"x": 1, "a": 7, "y": 1, "z": 1}, ("x",), ("y", "z"))  # fmt: skip
    assert flow.lifetimes() == (Lifetime("a", 7, 0, 0),)


def test_onnx_shapes_with_the_batch(fp32_model):
    flow = dataflow.from_onnx(fp32_model, batch=4)
    assert flow.sizes["conv0"] == 4 * 16 * 32 * 32 * 4
    assert flow.inputs == ("x",)
    assert flow.outputs == ("y",)
    assert dataflow.from_onnx(fp32_model, batch=8).largest_live_set == 2 * flow.largest_live_set


def test_views_take_no_step_and_no_memory(fp32_model):
    flow = dataflow.from_onnx(fp32_model, batch=4)
    assert "Flatten" not in {step.operation for step in flow.steps}
    assert flow.steps[-1].reads == ("pool",)  # the matrix product reads what the view shows
    assert "flat" not in flow.sizes


def test_half_precision_takes_half(models):
    full, half = (dataflow.from_onnx(models[precision], batch=4) for precision in ("fp32", "fp16"))
    assert half.sizes["conv0"] == full.sizes["conv0"] / 2


def test_weights_do_not_count(tmp_path):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], np.ones(4, np.float32))
    nodes = [helper.make_node("Relu", ["w"], ["positive"], "r"), helper.make_node("Mul", ["x", "positive"], ["y"], "m")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    made = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weight]), ir_version=8)
    flow = dataflow.from_onnx(onnx_file.save(made, tmp_path / "m.onnx"), batch=2)
    assert [step.name for step in flow.steps] == ["m"]
    assert flow.sizes == dict.fromkeys(("x", "y"), 2 * 4 * 4)


def test_unknown_shape_is_named(tmp_path):
    nodes = [helper.make_node("NonZero", ["x"], ["where"], "n"), helper.make_node("Cast", ["where"], ["y"], "c", to=1)]
    values = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "found"])]
    values.insert(0, helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]))
    path = onnx_file.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]), ir_version=8),
                            tmp_path / "m.onnx")  # fmt: skip
    with pytest.raises(ModelFileError, match="where"):
        dataflow.from_onnx(path, batch=2)


def test_batch_of_nothing(fp32_model):
    with pytest.raises(InputError, match="batch of 0"):
        dataflow.from_onnx(fp32_model, batch=0)


def layer(name, reads, writes, kind="kgen", dtype="fp16"):
    tensors = [tuple(EngineTensor(one, (-1, 3), dtype, "Linear") for one in side) for side in (reads, writes)]
    return EngineLayer(name, kind, *tensors, ())


def test_engine_report():
    layers = (layer("a", "x", "h"), layer("w", "", "", "wait"), layer("b", ("h", "x"), "y"))
    flow = dataflow.from_report(BuildReport("TensorRT-RTX", "1", layers=layers), batch=5)
    assert [step.name for step in flow.steps] == ["a", "b"]  # waiting moves nothing
    assert (flow.inputs, flow.outputs) == (("x",), ("y",))
    assert flow.sizes["h"] == 5 * 3 * 2


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("int64", 96), ("int32", 48), ("fp32", 48), ("fp16", 24), ("bf16", 24), ("fp8", 12), ("int8", 12), ("uint8", 12),
     ("bool", 12), ("fp4", 6), ("int4", 6)],
)  # fmt: skip
def test_bytes_of_twelve_numbers_of_each_type(dtype, size):
    report = BuildReport("TensorRT-RTX", "1", layers=(layer("a", "x", "y", dtype=dtype),))
    assert dataflow.from_report(report, batch=4).sizes == {"x": size, "y": size}


@pytest.mark.parametrize("layers", [(), (layer("a", "x", "y", dtype="fp9000"),)], ids=["no layers", "unknown type"])
def test_engine_report_that_cannot_be_read(layers):
    with pytest.raises(InputError):
        dataflow.from_report(BuildReport("TensorRT-RTX", "1", layers=layers), batch=1)


def test_open_and_empty_dimensions(tmp_path):
    """A size of -1, as older exporters write an open one, and one of 0, which is a size."""
    nodes = [helper.make_node("Concat", ["past", "x"], ["y"], "join", axis=0)]
    inputs = {"past": (TensorProto.FLOAT, [0, 8]), "x": (TensorProto.FLOAT, [-1, 8])}
    flow = dataflow.from_onnx(save_nodes(tmp_path / "m.onnx", nodes, inputs), batch=2)
    assert flow.sizes == {"past": 0, "x": 64, "y": 64}
