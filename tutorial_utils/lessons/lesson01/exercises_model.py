"""The small model that exercises of lesson 01 are tried with before they are judged on the classifier."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def small_classifier() -> onnx.ModelProto:
    """Return a model of three convolutions with batch norms, and a matrix product: x is ``[batch, 3, 32, 32]``."""
    rng = np.random.default_rng(0)
    nodes, arrays, source = [], {"w": rng.standard_normal((16, 10)) / 4}, "x"
    for block, channels in enumerate((3, 16, 16)):
        names = [f"{name}{block}" for name in ("scale", "shift", "mean", "variance")]
        # Channels of different range, as training makes them; what goes in decides what comes out, not the shifts.
        sizes = (np.geomspace(0.1, 4, 16), 0.125, 0.125, 1)
        arrays |= {name: size * rng.uniform(0.5, 1.5, 16) for name, size in zip(names, sizes, strict=True)}
        arrays[f"w{block}"] = rng.standard_normal((16, channels, 3, 3)) / np.sqrt(9 * channels)
        nodes += [
            helper.make_node("Conv", [source, f"w{block}"], [f"conv{block}"], f"Conv.{block}", pads=[1] * 4),
            helper.make_node("BatchNormalization", [f"conv{block}", *names], [f"norm{block}"], f"Norm.{block}"),
            helper.make_node("Relu", [f"norm{block}"], [f"relu{block}"], f"Relu.{block}"),
        ]
        source = f"relu{block}"
    nodes += [
        helper.make_node("GlobalMaxPool", [source], ["pool"], "Pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "Flatten"),
        helper.make_node("MatMul", ["flat", "w"], ["y"], "MatMul"),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])]
    wanted = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])]
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "small", given, wanted, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
