import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def growing(tmp_path):
    """Four factors, the second of which leaves FP16's range."""
    nodes = [helper.make_node("Mul", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(4)]
    factors = [1, 2e5, 1, 1]
    weights = [numpy_helper.from_array(np.float32([factor]), f"w{i}") for i, factor in enumerate(factors)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("t0", "t4")]
    graph = helper.make_graph(nodes, "growing", info[:1], info[1:], weights)
    for precision, kind in (("fp32", TensorProto.FLOAT), ("fp16", TensorProto.FLOAT16)):
        for weight, factor in zip(graph.initializer, factors, strict=True):
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            with np.errstate(over="ignore"):
                weight.CopyFrom(numpy_helper.from_array(np.array([factor]).astype(dtype), weight.name))
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.elem_type = kind
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / f"{precision}.onnx")
    return tmp_path
