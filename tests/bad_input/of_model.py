"""Bad input to what reads, converts and quantizes ONNX files, and to what loads data and Paddle's models."""

import numpy as np
import onnx
from bad_input.table import (
    IMAGES,
    At,
    changed,
    external,
    full_disk,
    nan_weight,
    nested,
    one_node,
    rows,
    with_node,
    with_weight,
)
from onnx import TensorProto, helper

from tutorial_utils.base.errors import (
    CalibrationError,
    DataError,
    ExportError,
    InputError,
    ModelFileError,
    PrecisionError,
)
from tutorial_utils.model import data, export, half_precision, onnx_file, paddle_program, quantization
from tutorial_utils.runners.paddle import PaddleRunner

AGAIN = "Export (it|the model) again"
BESIDE = "with its weights in the same folder"


def load(name: str, content):
    return lambda at: onnx_file.load(at.write(name, content))


def to_fp16(at: At, model=None, target: str = "half.onnx", **options):
    return half_precision.to_fp16(at.model if model is None else model, at.out / target, **options)


def to_int8(at: At, images=IMAGES, model=None, **options):
    return quantization.to_int8(at.model if model is None else model, at.out / "int8.onnx", images, **options)


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def twice(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "conv0"


def full(at: At):
    model = at.model
    with full_disk():
        return to_fp16(at, model)


READ = rows(
    lambda at: onnx_file.load(at.model),
    ("missing", lambda at: onnx_file.load(at.given / "no.onnx"),
     ModelFileError, r"There is no model .*no\.onnx", "Check the path"),
    ("below a file", lambda at: onnx_file.load(at.model / "x.onnx"),
     ModelFileError, "There is no model", "Check the path"),
    ("dangling link", lambda at: onnx_file.load(at.link("a.onnx", "nowhere")),
     ModelFileError, "There is no model", "Check the path"),
    ("link to itself", lambda at: onnx_file.load(at.link("a.onnx", "a.onnx")),
     ModelFileError, "can't be read: Too many levels", "Check the path"),
    ("name too long", lambda at: onnx_file.load(at.given / ("a" * 300)),
     ModelFileError, "can't be read: File name too long", "Check the path"),
    ("null byte", lambda at: onnx_file.load("a\0b.onnx"),
     ModelFileError, "can't be read: embedded null", "Check the path"),
    ("name that is no UTF-8", lambda at: onnx_file.load(at.tiny.rename(at.given / "\udcff.onnx")),
     ModelFileError, "is no UTF-8", "Rename it"),
    ("folder", lambda at: onnx_file.load(at.given), ModelFileError, "is a folder", r"Name the \.onnx file"),
    ("pipe", lambda at: onnx_file.load(at.pipe("a.onnx")),
     ModelFileError, "is a pipe or a device", r"Name the \.onnx file"),
    ("endless device", lambda at: onnx_file.load(at.link("a.onnx", "/dev/zero")),
     ModelFileError, "is a pipe or a device", r"Name the \.onnx file"),
    ("empty", load("a.onnx", b""), ModelFileError, r"a\.onnx is empty", AGAIN),
    ("5 GB of zeros", lambda at: onnx_file.load(at.sparse("a.onnx", 5 << 30)),
     ModelFileError, "5,368,709,120 bytes, and such a file ends at", "save_as_external_data=True"),
    ("zeros", load("a.onnx", bytes(1000)), ModelFileError, "is not an ONNX model, or was cut short", AGAIN),
    ("garbage", load("a.onnx", b"not a model " * 50), ModelFileError, "is not an ONNX model", AGAIN),
    ("pointer of Git LFS", load("a.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
     ModelFileError, "pointer of Git LFS", "git lfs pull"),
    ("cut short", lambda at: onnx_file.load(at.write("a.onnx", at.model.read_bytes()[:5000])),
     ModelFileError, "was cut short", AGAIN),
    ("nested 5,000 times", load("a.onnx", nested(5000)), ModelFileError, "is not an ONNX model", AGAIN),
    ("JSON nested 100,000 times", load("a.json", b"[" * 100_000), ModelFileError, "is not an ONNX model", AGAIN),
    ("no operators", load("a.onnx", helper.make_model(helper.make_graph([], "g", [], []))),
     ModelFileError, "holds no operators", AGAIN),
    ("no outputs", load("a.onnx", changed(lambda model: model.graph.ClearField("output"))),
     ModelFileError, "has no outputs", AGAIN),
    ("no opset", load("a.onnx", changed(lambda model: model.ClearField("opset_import"))),
     ModelFileError, "of which opset", AGAIN),
    ("input without a type", load("a.onnx", changed(lambda model: model.graph.input[0].ClearField("type"))),
     ModelFileError, "data type its input x is", AGAIN),
    ("circle", load("a.onnx", changed(cycle)), ModelFileError, "in a circle", AGAIN),
    ("two writers", load("a.onnx", changed(twice)), ModelFileError, "several nodes write the tensor conv0", AGAIN),
    ("weight too short", load("a.onnx", with_weight(raw_data=b"123")),
     ModelFileError, r"weight w0 of a\.onnx is damaged: it has 3 bytes, .*wants 1,728", AGAIN),
    ("weight without values", load("a.onnx", with_weight(raw_data=b"")),
     ModelFileError, "weight w0 .* has no values", AGAIN),
    ("weight of negative size", load("a.onnx", with_weight(dims=[-3, 3, 3, 3])),
     ModelFileError, r"weight w0 .* shape \[-3, 3, 3, 3\]", AGAIN),
    ("weight of 2^62 rows", load("a.onnx", with_weight(dims=[2**62, 3, 3, 3])),
     ModelFileError, "weight w0 .* has 1,728 bytes", AGAIN),
    ("weight of no data type", load("a.onnx", with_weight(data_type=999)),
     ModelFileError, "there is no data type 999", AGAIN),
)  # fmt: skip

EXTERNAL = rows(
    lambda at: onnx_file.load(at.model),
    ("weights above", load("a.onnx", external("../secret.bin")),
     ModelFileError, "weights in '../secret.bin', outside of its own folder", BESIDE),
    ("weights in /etc", load("a.onnx", external("/etc/passwd")),
     ModelFileError, "'/etc/passwd', outside of its own folder", BESIDE),
    ("weights on a device", load("a.onnx", external("/dev/zero")),
     ModelFileError, "'/dev/zero', outside of its own folder", BESIDE),
    ("weights in a pipe", lambda at: (at.pipe("w.bin"), load("a.onnx", external("w.bin"))(at)),
     ModelFileError, "no ordinary file", BESIDE),
    ("weights behind a link to a device",
     lambda at: (at.link("w.bin", "/dev/zero"), load("a.onnx", external("w.bin"))(at)),
     ModelFileError, "outside of its own folder", BESIDE),
    ("weights missing", load("a.onnx", external("w.bin")),
     ModelFileError, "weights in 'w.bin', and there is no such file", BESIDE),
    ("weights nowhere", load("a.onnx", external("")), ModelFileError, "no ordinary file", BESIDE),
    ("weights behind a null byte", load("a.onnx", external("a\0b")), ModelFileError, "no such file beside it", BESIDE),
    ("weights cut short", lambda at: (at.write("w.bin", b"12"), load("a.onnx", external("w.bin"))(at)),
     ModelFileError, r"wants 1,728 bytes at 0 of w\.bin for w0.* it has 2", BESIDE),
    ("negative offset", lambda at: (at.write("w.bin", bytes(9999)), load("a.onnx", external("w.bin", offset=-5))(at)),
     ModelFileError, "at -5 of w.bin", BESIDE),
    ("offset of 2^70", lambda at: (at.write("w.bin", bytes(9999)), load("a.onnx", external("w.bin", offset=2**70))(at)),
     ModelFileError, "at 1,180,591,620,717,411,303,424", BESIDE),
    ("offset in words", load("a.onnx", external("w.bin", offset="many")),
     ModelFileError, "weight w0 .* is damaged: .*many", BESIDE),
    ("length of other weights",
     lambda at: (at.write("w.bin", bytes(9999)), load("a.onnx", external("w.bin", length=7))(at)),
     ModelFileError, "wants 1,728 bytes", BESIDE),
)  # fmt: skip

NAMES = r"node\.name for node"
CONVERT = rows(
    to_fp16,
    ("FP16: no such node", lambda at: to_fp16(at, keep_fp32=["nobody"]), PrecisionError, "has no node nobody", NAMES),
    ("FP16: one name as a string", lambda at: to_fp16(at, keep_fp32="nobody"),
     PrecisionError, "has no node nobody", NAMES),
    ("FP16: number for a name", lambda at: to_fp16(at, keep_fp32=[5]), PrecisionError, "has no node 5", NAMES),
    ("FP16: unknown operator",
     lambda at: to_fp16(at, at.write("a.onnx", with_node(op_type="Nonsense"))),
     PrecisionError, "Nonsense", "operators that ONNX Runtime knows"),
    ("FP16: unknown domain",
     lambda at: to_fp16(at, at.write("a.onnx", with_node(domain="my.own"))),
     PrecisionError, "domain my.own", "Export it again"),
    ("FP16: NaN in a weight", lambda at: to_fp16(at, at.write("a.onnx", nan_weight())),
     PrecisionError, "weight w0 holds NaN", "from intact weights"),
    ("FP16: already", lambda at: to_fp16(at, half_precision.to_fp16(at.model, at.given / "half.onnx")),
     PrecisionError, "converted to FP16 already", "original FP32 model"),
    ("FP16: into a folder", lambda at: half_precision.to_fp16(at.model, at.given),
     ExportError, "can't be written: Is a directory", "choose a folder of your own"),
    ("FP16: below a file", lambda at: half_precision.to_fp16(at.model, at.model / "half.onnx"),
     ExportError, "can't be written", "choose a folder of your own"),
    ("FP16: into a pipe", lambda at: half_precision.to_fp16(at.model, at.pipe("half.onnx")),
     ExportError, "can't be written: It is a pipe or a device", "choose a folder of your own"),
    ("FP16: name too long", lambda at: to_fp16(at, target="a" * 300),
     ExportError, "can't be written: File name too long", "choose a folder of your own"),
    ("FP16: null byte", lambda at: to_fp16(at, target="a\0b.onnx"),
     ExportError, "can't be written: embedded null", "choose a folder of your own"),
    ("FP16: full disk", full, ExportError, "can't be written: File too large", "Free some space"),
    ("invalid model", lambda at: onnx_file.save(onnx.ModelProto(), at.out / "a.onnx"),
     ExportError, "would not be valid ONNX", "Try another opset"),
    ("coverage of an FP32 file", lambda at: quantization.coverage(at.model),
     PrecisionError, "doesn't say what is quantized", "to_int8 or to_fp8"),
    ("FP8 without INT8", lambda at: quantization.to_fp8(at.model, at.model, at.out / "fp8.onnx"),
     PrecisionError, "doesn't say what is quantized", "to_int8 or to_fp8"),
)  # fmt: skip

FIT = "Preprocess them exactly"
QUANTIZE = rows(
    to_int8,
    ("INT8: no images", lambda at: to_int8(at, None), CalibrationError, "got none", "training images"),
    ("INT8: empty array", lambda at: to_int8(at, IMAGES[:0]), CalibrationError, "got none", "training images"),
    ("INT8: NaN", lambda at: to_int8(at, IMAGES * np.nan),
     CalibrationError, "don't fit the input x .finite float32", FIT),
    ("INT8: float64", lambda at: to_int8(at, IMAGES.astype(float)),
     CalibrationError, "float64.* don't fit the input x", FIT),
    ("INT8: one long row", lambda at: to_int8(at, IMAGES.ravel()),
     CalibrationError, r"shape \(6144,\)\) don't fit", FIT),
    ("INT8: one channel", lambda at: to_int8(at, IMAGES[:, :1]),
     CalibrationError, r"shape \(2, 1, 32, 32\)\) don't fit", FIT),
    ("INT8: image without a batch", lambda at: to_int8(at, IMAGES[0]),
     CalibrationError, r"shape \(3, 32, 32\)\) don't fit", FIT),
    ("INT8: text", lambda at: to_int8(at, "images"), CalibrationError, "don't fit the input x", FIT),
    ("INT8: lists by name", lambda at: to_int8(at, {"x": IMAGES.tolist()}),
     CalibrationError, "float64.* don't fit the input x", FIT),
    ("INT8: another name", lambda at: to_int8(at, {"z": IMAGES}),
     CalibrationError, "are named z, and the model's inputs x", "by its name"),
    ("INT8: number for a name", lambda at: to_int8(at, {1: IMAGES}),
     CalibrationError, "are named 1, and", "by its name"),
    ("INT8: unknown method", lambda at: to_int8(at, method="magic"),
     CalibrationError, "no calibration method 'magic'", "minmax, entropy, percentile"),
    ("INT8: batches of 0", lambda at: to_int8(at, batch_size=0),
     CalibrationError, "batch_size is 0", "an int from 1 on"),
    ("INT8: batches in words", lambda at: to_int8(at, batch_size="two"),
     CalibrationError, "batch_size is 'two'", "an int from 1 on"),
    ("INT8: no such node", lambda at: to_int8(at, exclude="nobody"), PrecisionError, "has no node nobody", NAMES),
    ("INT8: nothing to quantize", lambda at: to_int8(at, np.ones((2, 8), np.float32), at.tiny),
     PrecisionError, "Nothing in tiny.onnx .* no Conv", "FP16 or BF16"),
    ("INT8: input of strings",
     lambda at: to_int8(at, IMAGES, at.write("a.onnx", one_node(output_type=TensorProto.STRING))),
     CalibrationError, r"don't fit the input x", FIT),
)  # fmt: skip


def paddle_files(at: At, program: bytes = b"{}", weights: bytes = b"x"):
    return at.write("a.json", program), at.write("a.pdiparams", weights)


SAVE = "Save the model again"
PADDLE = rows(
    lambda at: data.load("digits", "test"),
    ("Paddle: no files", lambda at: export.to_onnx(at.given / "a.json", at.given / "a.pdiparams", at.out / "a.onnx"),
     ModelFileError, "is missing or empty", SAVE),
    ("Paddle: empty program", lambda at: export.to_onnx(*paddle_files(at, b""), at.out / "a.onnx"),
     ModelFileError, "is missing or empty", SAVE),
    ("Paddle: cut weights", lambda at: export.to_onnx(*paddle_files(at, weights=b"cut"), at.out / "a.onnx"),
     ModelFileError, "damaged: it holds 3 bytes, which aren't whole tensors", SAVE),
    ("Paddle: pipe", lambda at: export.to_onnx(at.pipe("a.json"), at.given / "a.pdiparams", at.out / "a.onnx"),
     ModelFileError, "is missing or empty", SAVE),
    ("Paddle: target is its own program", lambda at: export.to_onnx(*(files := whole_paddle_files(at)), files[0]),
     ExportError, "is a file of the Paddle model itself", "another path"),
    ("Paddle: program of wrong inner types",
     lambda at: paddle_program.operators(at.write("a.json", b'{"program": {"regions": 5}}')),
     ModelFileError, "damaged or not a Paddle program", SAVE),
    ("Paddle: deep JSON", lambda at: paddle_program.operators(at.write("a.json", b"[" * 100_000)),
     ModelFileError, "damaged or not a Paddle program", SAVE),
    ("Paddle: runner without a program", lambda at: PaddleRunner(at.given / "a.json", at.given / "a.pdiparams"),
     ModelFileError, "is missing or empty", SAVE),
    ("Paddle: unknown device", lambda at: PaddleRunner("a.json", "a.pdiparams", device="tpu"),
     InputError, "no device 'tpu'", "cpu, gpu"),
    ("Paddle: threads in words", lambda at: PaddleRunner("a.json", "a.pdiparams", threads="two"),
     InputError, "'two' threads", "from 1 to"),
    ("data: unknown name", lambda at: data.load("nope"), DataError, "no dataset 'nope'", "'digits'"),
    ("data: unknown split", lambda at: data.load("digits", "all"), DataError, "no split 'all'", "'train' or 'test'"),
    ("data: no images", lambda at: data.calibration_images(data.load("digits"), 0),
     CalibrationError, "0 calibration images", "at least 1"),
    ("data: too many images", lambda at: data.calibration_images(data.load("digits"), 10**6),
     CalibrationError, "need 100000 of class", "at most"),
)  # fmt: skip


def whole_paddle_files(at: At):
    """Return files that look whole to what doesn't load them."""
    program = b'{"program": {"regions": [{"blocks": [{"ops": [{"#": "1.fetch"}]}]}]}}'
    return at.write("a.json", program), at.given / "a.pdiparams"


ROWS = [*READ, *EXTERNAL, *CONVERT, *QUANTIZE, *PADDLE]
