"""ONNX files are read with what lies beside them, and written whole or not at all."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_models import images, residual_model

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import ExportError
from tutorial_utils.model import half_precision, onnx_file


@pytest.fixture
def external(tmp_path):
    """A model whose weights lie in a file beside it."""
    path = tmp_path / "model.onnx"
    onnx.save(residual_model(), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path


@pytest.fixture
def limit_of_a_file(monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 2000)


def run(path):
    return onnx_session.new_session(path).run(None, {"x": images(2)})[0]


def test_external_data_are_read(external, tmp_path):
    assert len(onnx_file.load(external).graph.initializer[0].raw_data) == 16 * 3 * 3 * 3 * 4
    half = half_precision.to_fp16(external, tmp_path / "half.onnx")
    np.testing.assert_allclose(run(half), run(external), atol=0.01)


def test_images_of_any_size(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual_model(), path)
    opened = onnx_file.save(onnx_file.open_image_size(onnx_file.load(path)), tmp_path / "opened.onnx")
    np.testing.assert_array_equal(run(opened), run(path))
    large = np.ones((2, 3, 64, 48), np.float32)
    assert onnx_session.new_session(opened).run(None, {"x": large})[0].shape == (2, 10)


def test_a_large_model_is_written_with_its_weights_beside_it(limit_of_a_file, tmp_path):
    path = onnx_file.save(residual_model(), tmp_path / "large.onnx")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert path.stat().st_size < 4000
    written = {one.name: numpy_helper.to_array(one) for one in onnx_file.load(path).graph.initializer}
    for tensor in residual_model().graph.initializer:
        np.testing.assert_array_equal(written[tensor.name], numpy_helper.to_array(tensor))
    onnx.save(residual_model(), tmp_path / "one.onnx")
    np.testing.assert_array_equal(run(path), run(tmp_path / "one.onnx"))


@pytest.mark.parametrize("convert", [half_precision.to_fp16, half_precision.to_bf16])
def test_a_large_model_is_converted(convert, limit_of_a_file, tmp_path):
    path = onnx_file.save(residual_model(), tmp_path / "large.onnx")
    half = convert(path, tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx.data").stat().st_size < 0.6 * (tmp_path / "large.onnx.data").stat().st_size
    if convert is half_precision.to_fp16:
        np.testing.assert_allclose(run(half), run(path), atol=0.01)
    onnx.checker.check_model(half, full_check=True)
    assert len(onnx_file.load(half).graph.initializer) == len(residual_model().graph.initializer)


def test_a_large_model_replaces_the_older_one_or_leaves_it(limit_of_a_file, tmp_path):
    path = onnx_file.save(residual_model(), tmp_path / "model.onnx")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    invalid = residual_model(seed=1)
    invalid.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ExportError, match="would not be valid ONNX"):
        onnx_file.save(invalid, path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    onnx_file.save(residual_model(seed=1), path)
    assert {one.name for one in tmp_path.iterdir()} == set(before)
    written, wanted = (model.graph.initializer[0] for model in (onnx_file.load(path), residual_model(seed=1)))
    assert written.raw_data == wanted.raw_data


def test_a_folder_in_the_way_leaves_the_older_data(limit_of_a_file, tmp_path):
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "model.onnx.data").write_bytes(b"older")
    with pytest.raises(ExportError, match="can't be written: Is a directory"):
        onnx_file.save(residual_model(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_large_model_keeps_what_it_says_about_itself(limit_of_a_file, tmp_path):
    model = residual_model()
    helper.set_model_props(model, {"characters": "abc"})
    model.doc_string, model.graph.doc_string = "a", "b"
    written = onnx_file.load(onnx_file.save(model, tmp_path / "large.onnx"))
    assert (written.doc_string, written.graph.doc_string) == ("a", "b")
    assert written.metadata_props == model.metadata_props


def test_a_newer_ir_version_is_lowered_for_the_checker(tmp_path):
    model = residual_model()
    model.ir_version = 12
    onnx.save(model, tmp_path / "new.onnx")
    half = half_precision.to_fp16(tmp_path / "new.onnx", tmp_path / "half.onnx")
    assert onnx.load(half).ir_version == onnx.IR_VERSION
    assert onnx.load(tmp_path / "new.onnx").ir_version == 12


def test_nodes_get_names_of_their_own(tmp_path):
    model = residual_model()
    for node, name in zip(model.graph.node, ["", "a", "a", "a_2", "", "a"], strict=False):
        node.name = name
    onnx.save(model, tmp_path / "model.onnx")
    names = [node.name for node in onnx_file.load(tmp_path / "model.onnx").graph.node]
    assert names == ["node_of_conv0", "a", "a_3", "a_2", "node_of_sum", "a_4", "pool", "flat", "fc"]
    assert names == [node.name for node in onnx_file.load(tmp_path / "model.onnx").graph.node]


def test_nodes_are_put_in_order(tmp_path):
    """ONNX Runtime takes any order; what reads them one after the other doesn't."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] t) { t = Neg (b) },
                    else_branch = e () => (float[2] e) { e = Abs (a) }>
        b = Exp (a) a = Relu (x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    assert [node.op_type for node in onnx_file.load(tmp_path / "model.onnx").graph.node] == ["Relu", "Exp", "If"]
    half_precision.to_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx")


def test_invalid_model_leaves_the_older_file(tmp_path):
    path = onnx_file.save(residual_model(), tmp_path / "model.onnx")
    before = path.read_bytes()
    invalid = residual_model()
    invalid.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ExportError, match="would not be valid ONNX"):
        onnx_file.save(invalid, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
