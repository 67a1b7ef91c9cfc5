"""Bad input to the runners."""

import numpy as np
from bad_input.table import IMAGES, At, external, one_node, rows, with_node
from onnx import TensorProto

from tutorial_utils.base.errors import (
    BackendUnavailableError,
    InputError,
    ModelFileError,
)
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner


def run(at: At, feeds, **how):
    with OnnxRuntimeRunner(at.model, **how) as runner:
        return runner.infer(feeds)


def good(at: At):
    assert run(at, {"x": IMAGES})["y"].shape == (2, 10)


def opened(content):
    return lambda at: OnnxRuntimeRunner(at.write("a.onnx", content))


AS_FLOAT = r"dtype=np\.float32"
PATH = "Check the path, or export the model again"
ROWS = rows(
    good,
    ("no feeds", lambda at: run(at, {}), InputError, "given are none, but the model takes x", "under its name"),
    ("feeds of None", lambda at: run(at, None), InputError, "are a NoneType", r"Pass a dictionary: \{'x': array\}"),
    ("feeds in a list", lambda at: run(at, [IMAGES]), InputError, "are a list", r"Pass a dictionary: \{'x': array\}"),
    ("an array alone", lambda at: run(at, IMAGES), InputError, "are a ndarray", r"Pass a dictionary: \{'x': array\}"),
    ("another name", lambda at: run(at, {"z": IMAGES}),
     InputError, "given are z, but the model takes x", "under its name"),
    ("a number for a name", lambda at: run(at, {1: IMAGES}),
     InputError, "given are 1, but the model takes x", "under its name"),
    ("one too many", lambda at: run(at, {"x": IMAGES, "z": IMAGES}),
     InputError, "given are x, z, but", "under its name"),
    ("a list for an array", lambda at: run(at, {"x": IMAGES.tolist()}),
     InputError, "x is a list and no array", AS_FLOAT),
    ("None for an array", lambda at: run(at, {"x": None}), InputError, "x is a NoneType and no array", AS_FLOAT),
    ("float64", lambda at: run(at, {"x": IMAGES.astype(float)}), InputError, "x is float64, but", AS_FLOAT),
    ("big-endian", lambda at: run(at, {"x": IMAGES.astype(">f4")}), InputError, "x is >f4, but", AS_FLOAT),
    ("objects", lambda at: run(at, {"x": IMAGES.astype(object)}), InputError, "x is object, but", AS_FLOAT),
    ("another rank", lambda at: run(at, {"x": IMAGES[0]}),
     InputError, r"x has the shape \(3, 32, 32\), but the model takes \(any, 3", "into that shape"),
    ("other channels", lambda at: run(at, {"x": IMAGES[:, :1]}),
     InputError, r"x has the shape \(2, 1, 32, 32\)", "into that shape"),
    ("more dimensions than NumPy prints", lambda at: run(at, {"x": np.ones((1,) * 32, np.float32)}),
     InputError, "x has the shape", "into that shape"),
    ("unknown device", lambda at: run(at, {}, device="tpu"), InputError, "no device 'tpu'", "cpu, cuda"),
    ("device in a list", lambda at: run(at, {}, device=["cpu"]), InputError, r"no device \['cpu'\]", "cpu, cuda"),
    ("device that isn't there", lambda at: run(at, {}, device="cuda"),
     BackendUnavailableError, "can't use CUDA", "Install onnxruntime-gpu"),
    ("no threads", lambda at: run(at, {}, threads=0), InputError, "^0 threads", "from 1 to"),
    ("less than no threads", lambda at: run(at, {}, threads=-1), InputError, "-1 threads", "from 1 to"),
    ("threads in words", lambda at: run(at, {}, threads="two"), InputError, "'two' threads", "from 1 to"),
    ("10^12 threads", lambda at: run(at, {}, threads=10**12), InputError, "10+ threads", "from 1 to"),
    ("ONNX Runtime: missing", lambda at: OnnxRuntimeRunner(at.given / "no.onnx"),
     ModelFileError, "There is no model", "Check the path"),
    ("ONNX Runtime: folder", lambda at: OnnxRuntimeRunner(at.given),
     ModelFileError, "is a folder", "Name the .onnx file"),
    ("ONNX Runtime: pipe", lambda at: OnnxRuntimeRunner(at.pipe("a.onnx")),
     ModelFileError, "is a pipe or a device", "Name the .onnx file"),
    ("ONNX Runtime: 5 GB of zeros", lambda at: OnnxRuntimeRunner(at.sparse("a.onnx", 5 << 30)),
     ModelFileError, "such a file ends at", "save_as_external_data"),
    ("ONNX Runtime: empty", opened(b""), ModelFileError, "a.onnx is empty", "Export it again"),
    ("ONNX Runtime: garbage", opened(b"not a model"),
     ModelFileError, "can't load a.onnx: .*Protobuf parsing failed", PATH),
    ("ONNX Runtime: weights above", opened(external("../secret.bin")),
     ModelFileError, "outside of its own folder", "in the same folder"),
    ("ONNX Runtime: weights on a device", opened(external("/dev/zero")),
     ModelFileError, "outside of its own folder", "in the same folder"),
    ("ONNX Runtime: unknown operator",
     opened(with_node(op_type="Nonsense")),
     ModelFileError, "No Op registered for Nonsense", PATH),
    ("ONNX Runtime: a type that it can't compute", opened(one_node(output_type=TensorProto.BFLOAT16)),
     ModelFileError, "Type Error", PATH),
)  # fmt: skip
