"""The transformer in every precision: its longer sentences, what became of attention, and its recording."""

import numpy as np
import onnx
import pictures
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.engine import EngineLayer, computed_types
from tutorial_utils.lessons.lesson05 import transformer_precisions
from tutorial_utils.model import half_precision
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

WIDTH = 16


@pytest.fixture(scope="module")
def attention_model(tmp_path_factory):
    """Embeddings of 17 positions, and one attention on them: all of the transformer that the lesson looks at."""
    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
               for name, shape in {"positions": (17, WIDTH), "w": (WIDTH, WIDTH)}.items()]  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["positions", "ids"], ["x"], "embed"),
        helper.make_node("MatMul", ["x", "w"], ["query"], "project"),
        helper.make_node("Transpose", ["x"], ["key"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query", "key"], ["scores"], "before"),
        helper.make_node("Softmax", ["scores"], ["shares"], "softmax", axis=-1),
        helper.make_node("MatMul", ["shares", "x"], ["y"], "after"),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", WIDTH])]
    model = helper.make_model(helper.make_graph(nodes, "attention", inputs, outputs, weights),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=8)  # fmt: skip
    path = tmp_path_factory.mktemp("attention") / "fp32.onnx"
    onnx.save(model, path)
    return path


def test_longer_sentences_keep_the_answers_of_short_ones(attention_model, tmp_path):
    longer = transformer_precisions.with_longer_sentences(attention_model, tmp_path / "long.onnx")
    short, long = (np.arange(size).reshape(1, -1) for size in (17, 128))
    with OnnxRuntimeRunner(attention_model) as before, OnnxRuntimeRunner(longer) as after:
        np.testing.assert_array_equal(before.infer({"ids": short})["y"], after.infer({"ids": short})["y"])
        assert after.infer({"ids": long})["y"].shape == (1, 128, WIDTH)


def test_attention_nodes(attention_model):
    assert transformer_precisions.attention_nodes(attention_model) == [("before", "softmax", "after")]


@pytest.mark.parametrize(("precision", "fused"), [("fp16", True), ("fp32", False)])
def test_attention_of_an_engine(attention_model, tmp_path, precision, fused):
    """TensorRT-RTX makes attention one kernel in FP16, and several in FP32."""
    pytest.importorskip("tensorrt_rtx")
    path = attention_model
    if precision == "fp16":
        path = half_precision.to_fp16(attention_model, tmp_path / "fp16.onnx")
    options = engine.BuildOptions((engine.Profile.of(ids=((1, 1), (8, 17), (8, 17))),), compute_capabilities=("8.9",))
    report = engine.build(path, options, use_cache=False).report
    found = transformer_precisions.attention_of(report.layers, [("before", "softmax", "after")])
    assert found.fused == fused
    assert (len(found.kernels) == 1) == fused
    assert (computed_types.ATTENTION in computed_types.counted(report.layers)) == fused


def test_attention_in_parts_is_not_fused():
    kernels = [EngineLayer(name, "kgen", (), (), nodes)
               for name, nodes in {"a": ("before",), "b": ("softmax", "after"), "c": ("other",)}.items()]  # fmt: skip
    found = transformer_precisions.attention_of(kernels, [("before", "softmax", "after")])
    assert (found.fused, found.kernels) == (False, (("a", ""), ("b", "")))


def test_rows_of_two_stacks():
    names = list(transformer_precisions.EXPERIMENT.rows)
    assert len(names) == 12
    assert {name.split("/")[0] for name in names} == {"tensorrt", "tensorrt_rtx"}


def times(ms):
    one = {"rounds_ms": [[ms, ms]] * 10, "first_call_ms": 1.0, "warmup_calls": 11, "stable": True, "batch": 1}
    return {f"{batch}x{length}": one for batch in (1, 8, 64) for length in (32, 128)}


VALUES = {"accuracy": 0.95, "agreement": 1.0, "error": 1e-3, "line": "2 of 2 fused attentions compute in FP16",
          "attention": {"fused": True, "kernels": [["_gemm_mha_v2_myl0_5", "_gemm_mha_v2_0x1"]]},
          "times": times(0.25), "graph_times": times(0.125), "no_graph": ""}  # fmt: skip
RECORDED = {
    "stacks": [{"gpu": "G", "libraries": {}}],
    "rows": {
        "tensorrt_rtx/fp32": {"stack": 0, "date": "2026-11-26", "reason": "TensorRT-RTX computes FP32 in TF32."},
        "tensorrt/fp16": {"stack": 0, "date": "2026-11-26", "values": VALUES},
    },
}


def test_read_and_drawing():
    results = transformer_precisions.read(RECORDED)
    assert results["TensorRT-RTX, fp32"] == "TensorRT-RTX computes FP32 in TF32."
    assert results["TensorRT, fp16"].attention.kernels == (("_gemm_mha_v2_myl0_5", "_gemm_mha_v2_0x1"),)
    picture = transformer_precisions.draw(results)
    for axes in pictures.drawn(picture):
        assert pictures.widths(axes) == [0.25]
    first, second = picture.text.splitlines()
    assert "1x32 0.250 ms" in first
    assert "attention is one kernel" in first
    assert second == "TensorRT-RTX, fp32: TensorRT-RTX computes FP32 in TF32."


def test_what_lesson_05b_says_of_the_recording():
    results = transformer_precisions.EXPERIMENT.recorded("").result
    measured = {name: one for name, one in results.items() if not isinstance(one, str)}
    fp16, fp32 = measured["TensorRT, fp16"], measured["TensorRT, fp32"]
    assert fp16.graph_times["1x32"].median_ms == pytest.approx(0.05, abs=5e-3)
    assert fp16.times["1x32"].median_ms == pytest.approx(0.12, abs=5e-3)
    assert fp16.graph_times["64x128"].median_ms < fp32.graph_times["64x128"].median_ms / 2
    assert {name for name, one in measured.items() if one.attention.fused} == {
        *(f"TensorRT, {precision}" for precision in ("fp16", "bf16", "int8", "fp8")),
        *(f"TensorRT-RTX, {precision}" for precision in ("fp16", "bf16", "int8")),
    }
    assert fp16.accuracy != measured["TensorRT-RTX, fp16"].accuracy  # of earlier weights
