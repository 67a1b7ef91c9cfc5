"""ONNX Runtime's sessions: exact in INT8, quiet, and all made in one place."""

import ast
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import residual_model
from test_cli import ROOT

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import ModelFileError
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

PACKAGE = ROOT / "tutorial_utils"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "onnx_session")
EXACT = "session.x64quantprecision"
STEP = 5.0  # between neighbouring outputs of the quantized convolution


def takes_onnx_runtime(path: Path) -> bool:
    """Return whether a module imports ONNX Runtime or a part of it, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return any(name.partition(".")[0] == "onnxruntime" for name in names)


def quantized_convolution() -> bytes:
    """Return a convolution of positive INT8 numbers so large that a pair of their products doesn't fit into 16 bits.

    Its input is x, float32 of shape [1, 64, 8, 8]. Around every operator are Q/DQ pairs, which ONNX Runtime fuses.
    """
    weights = 127 - np.random.default_rng(0).integers(0, 20, (8, 64, 3, 3))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["sum"], kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["sum", "step", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "step", "zero"], ["y"]),
    ]
    constants = {
        "scale": np.float32(1 / 127),
        "zero": np.int8(0),
        "weights": weights.astype(np.int8),
        "step": np.float32(STEP),
    }
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


# --- INT8 ------------------------------------------------------------------------------------------------------------


def test_int8_does_not_saturate():
    """Compares fused INT8 operators with the same ones unfused, which compute in FP32.

    It can only fail on a CPU with AVX2 or AVX-512 and no VNNI: without the option, the mean there is 49 instead of 480.
    Elsewhere, `test_every_session_is_exact` guards the option.
    """
    x = np.random.default_rng(1).uniform(0.8, 1.0, (1, 64, 8, 8)).astype(np.float32)
    model = quantized_convolution()
    (fused,) = onnx_session.new_session(model).run(None, {"x": x})
    (unfused,) = onnx_session.new_session(model, optimize=False).run(None, {"x": x})
    assert 400 < unfused.mean() < 600
    assert np.abs(fused - unfused).max() <= STEP  # FP32 may round to the neighbour


@pytest.mark.parametrize("choice", [{}, {"optimize": False}, {"optimize": "basic"}, {"threads": 1}])
def test_every_session_is_exact(choice):
    options = onnx_session.new_session(residual_model().SerializeToString(), **choice).get_session_options()
    assert options.get_session_config_entry(EXACT) == "1"


def test_runner_is_exact(tmp_path):
    onnx.save(residual_model(), tmp_path / "model.onnx")
    with OnnxRuntimeRunner(tmp_path / "model.onnx") as runner:
        assert runner.session.get_session_options().get_session_config_entry(EXACT) == "1"


def test_no_other_module_makes_sessions():
    """A session made elsewhere would saturate on some CPUs, which no test on the others shows."""
    makers = [path for path in MODULES if "InferenceSession" in path.read_text(encoding="utf-8")]
    assert not makers, "take onnx_session.new_session"


# --- what a session is made with -------------------------------------------------------------------------------------


def test_options_reach_onnx_runtime(tmp_path):
    import onnxruntime

    written = tmp_path / "optimized.onnx"
    prefix = tmp_path / "profile"
    session = onnx_session.new_session(
        residual_model().SerializeToString(),
        optimize="basic",
        threads=1,
        profile_prefix=prefix,
        optimized_path=written,
        entries={"session.disable_cpu_ep_fallback": "0"},
    )
    options = session.get_session_options()
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert (options.intra_op_num_threads, options.log_severity_level) == (1, 4)
    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "0"
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(written).graph.node}
    assert session.end_profiling().startswith(str(prefix))


def test_damaged_file_is_named_and_damaged_bytes_raise_what_onnx_runtime_raises(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"ONNX Runtime can't load damaged\.onnx: .*Check the path"):
        onnx_session.open_model(tmp_path / "damaged.onnx")
    with pytest.raises(Exception, match="INVALID_PROTOBUF"):
        onnx_session.new_session(b"no model")


def test_missing_onnx_runtime_is_no_fault_of_the_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError):
        onnx_session.open_model("model.onnx")
