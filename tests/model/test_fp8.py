"""The scales of INT8 files, and FP8 files made with them."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import images, options

from tutorial_utils import engine
from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.measure import quality
from tutorial_utils.model import onnx_file
from tutorial_utils.model.quantization import to_fp8
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner


def scales_by_input(path, operator):
    graph = onnx_file.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {node.input[0]: constants[node.input[1]] for node in graph.node if node.op_type == operator}


def activation_scales(path):
    return {name: float(scale) for name, scale in scales_by_input(path, "QuantizeLinear").items()}


def weight_scales(path):
    found = scales_by_input(path, "DequantizeLinear").items()
    return {name.removesuffix("_quantized"): scale for name, scale in found if name.endswith("_quantized")}


def test_scales_of_activations_cover_the_calibration_images(models):
    scales = activation_scales(models["int8"])
    assert scales["x"] * 127 == pytest.approx(np.abs(images(32)).max(), rel=1e-5)


@pytest.fixture(scope="module")
def fp8_model(models, tmp_path_factory):
    return to_fp8(models["fp32"], models["int8"], tmp_path_factory.mktemp("fp8") / "fp8.onnx")


def test_fp8_is_close_to_fp32(models, fp8_model):
    batch = images(16)
    with OnnxRuntimeRunner(models["fp32"]) as runner:
        expected = runner.infer({"x": batch})["y"]
    with OnnxRuntimeRunner(fp8_model, optimize=False) as runner:
        assert quality.sqnr_db(runner.infer({"x": batch})["y"], expected) > 15


def test_fp8_has_the_int8_files_ranges(models, fp8_model):
    int8, fp8 = activation_scales(models["int8"]), activation_scales(fp8_model)
    assert fp8 == pytest.approx({name: scale * 127 / 448 for name, scale in int8.items()})
    assert all(scale.size == 1 for scale in weight_scales(fp8_model).values())


def test_fp8_builds_for_a_gpu_that_has_it(fp8_model):
    report = engine.build(fp8_model, options(compute_capabilities=["8.9"]), use_cache=False).report
    assert "fp8" in report.kernel_dtypes


def test_fp8_needs_the_int8_variant_of_the_same_model(models, tmp_path):
    model = onnx.load(models["fp32"])
    for tensor in model.graph.initializer:
        tensor.name += "_other"
    for node in model.graph.node:
        weights = {tensor.name.removesuffix("_other") for tensor in model.graph.initializer}
        node.input[:] = [f"{name}_other" if name in weights else name for name in node.input]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PrecisionError, match="not the INT8 variant"):
        to_fp8(tmp_path / "other.onnx", models["int8"], tmp_path / "fp8.onnx")
    assert not (tmp_path / "fp8.onnx").exists()
