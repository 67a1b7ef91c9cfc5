"""The table of precisions: each file is made from others that are there, and holds the type that it is called."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from small_models import images

from tutorial_utils.model import precisions
from tutorial_utils.model.precisions import PRECISIONS

TYPES = {
    "fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16, "int8": TensorProto.INT8,
    "fp8": TensorProto.FLOAT8E4M3FN,
}  # fmt: skip


def test_a_precision_stands_after_those_that_it_is_made_from():
    names = list(PRECISIONS)
    for position, one in enumerate(PRECISIONS.values()):
        assert set(one.made_from) <= set(names[:position])
        assert (one.make is None) == (one.name == "fp32")


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_file_holds_the_type_that_it_is_called(name, models):
    types = {weight.data_type for weight in onnx.load(models[name]).graph.initializer}
    others = {one for precision, one in TYPES.items() if precision not in (name, "fp32")}
    assert TYPES[name] in types
    assert not types & others


def test_bf16_rounds_the_weights_of_the_fp32_file(models):
    exact = {one.name: numpy_helper.to_array(one) for one in onnx.load(models["fp32"]).graph.initializer}
    narrow = [one for one in onnx.load(models["bf16"]).graph.initializer if one.data_type == TensorProto.BFLOAT16]
    assert len(narrow) > 3
    for one in narrow:
        assert one.raw_data == exact[one.name].astype(ml_dtypes.bfloat16).tobytes(), one.name


def test_bf16_holds_what_fp16_cannot(models, tmp_path):
    model = onnx.load(models["fp32"])
    weight = next(one for one in model.graph.initializer if one.name == "scale")
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, 1e6, np.float32), weight.name))
    onnx.save(model, tmp_path / "fp32.onnx")
    files = {name: tmp_path / f"{name}.onnx" for name in ("fp32", "bf16")}
    precisions.write(files)
    (found,) = [one for one in onnx.load(files["bf16"]).graph.initializer if one.name == "scale"]
    assert np.frombuffer(found.raw_data, ml_dtypes.bfloat16)[0] == ml_dtypes.bfloat16(1e6)


def test_what_is_there_is_not_made_again(models, tmp_path):
    files = {name: tmp_path / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
    files["fp32"].write_bytes(models["fp32"].read_bytes())
    files["fp16"].write_bytes(b"made before")
    precisions.write(files, images(32))
    assert files["fp16"].read_bytes() == b"made before"
    assert onnx.load(files["int8"]).graph == onnx.load(models["int8"]).graph
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["fp16", "fp32", "int8"]
