"""Bad input to what looks inside models and engines, and to what finds and mends faults."""

import io
import zipfile

import numpy as np
from bad_input.table import IMAGES, At, changed, full_disk, nan_weight, rows, with_node
from small_models import residual_model

from tutorial_utils.base.errors import InputError, ModelFileError, PrecisionError, ProfileError, TargetError
from tutorial_utils.debug import diagnosis, remedies, residual_stream, scaling, tensor_errors
from tutorial_utils.inspection import dataflow, input_shapes, page

MODEL = residual_model()
NAN, INFINITY = float("nan"), float("inf")


def diagnosed(at: At, inputs=None, model=None, precision="fp16", seed=0, target=None):
    model = at.model if model is None else model
    return diagnosis.diagnose(model, precision, inputs, seed, target or at.out / "mended.onnx", write_healthy=False)


def with_arrays(**arrays):
    """Diagnose with inputs that NumPy writes."""

    def call(at: At):
        np.savez(at.given / "inputs.npz", **arrays)
        return diagnosed(at, at.given / "inputs.npz")

    return call


def with_cut_arrays(at: At):
    """Diagnose with the beginning of a file that NumPy writes."""
    path = at.given / "inputs.npz"
    np.savez(path, x=IMAGES)
    path.write_bytes(path.read_bytes()[:300])
    return diagnosed(at, path)


def with_one_array(at: At):
    """Diagnose with a file of numpy.save."""
    with (at.given / "inputs.npz").open("wb") as file:
        np.save(file, IMAGES)
    return diagnosed(at, at.given / "inputs.npz")


def with_header(dtype: str, shape: str):
    """Diagnose with a file whose header says what numpy.savez would never write."""

    def call(at: At):
        header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\0v\0" + header.encode()[:118] + IMAGES.tobytes())
        return diagnosed(at, at.write("inputs.npz", content.getvalue()))

    return call


SAVEZ = r"numpy\.savez\(FILE, NAME=array\)"
INPUTS = rows(
    lambda at: diagnosed(at, model=at.tiny),
    ("inputs: missing", lambda at: diagnosed(at, at.given / "no.npz"), InputError, "no file .*no.npz", SAVEZ),
    ("inputs: folder", lambda at: diagnosed(at, at.given), InputError, "no file", SAVEZ),
    ("inputs: pipe", lambda at: diagnosed(at, at.pipe("a.npz")), InputError, "no file", SAVEZ),
    ("inputs: empty", lambda at: diagnosed(at, at.write("a.npz", b"")), InputError, "damaged", SAVEZ),
    ("inputs: garbage", lambda at: diagnosed(at, at.write("a.npz", b"xy" * 99)), InputError, "damaged", SAVEZ),
    ("inputs: cut short", with_cut_arrays, InputError, "damaged", SAVEZ),
    ("inputs: one array", with_one_array, InputError, "one array without a name", SAVEZ),
    ("inputs: Python objects", with_arrays(x=np.array([{}])), InputError, "Python objects, .* could run code", SAVEZ),
    ("inputs: NaN", with_arrays(x=IMAGES * NAN), InputError, "6144 values that are NaN", "Look at how it is made"),
    ("inputs: float64", with_arrays(x=IMAGES.astype(float)), InputError, "x is float64", r"dtype=np\.float32"),
    ("inputs: another shape", with_arrays(x=IMAGES[:, :1]), InputError, "x has the shape", "into that shape"),
    ("inputs: no images", with_arrays(x=IMAGES[:0]), InputError, "x has the shape", "into that shape"),
    ("inputs: another name", with_arrays(z=IMAGES), InputError, "holds z, but the model takes x", SAVEZ),
    ("inputs: names in Chinese", with_arrays(**{"图像": IMAGES}), InputError, "holds 图像, but", SAVEZ),
    ("inputs: 12 PiB", with_header("'<f4'", f"({2**40}, 3, 32, 32)"),
     InputError, "more than fits into the memory", SAVEZ),
    ("inputs: 2^70 images", with_header("'<f4'", f"({2**70},)"), InputError, "damaged", SAVEZ),
    ("inputs: fewer than none", with_header("'<f4'", "(-2, 3, 32, 32)"), InputError, "damaged", SAVEZ),
    ("inputs: no data type", with_header("'nope'", "(1,)"), InputError, "damaged", SAVEZ),
    ("inputs: nested brackets", with_header("'<f4'", "(" * 90), InputError, "damaged", SAVEZ),
)  # fmt: skip

DIAGNOSES = rows(
    lambda at: diagnosed(at, model=at.tiny),
    ("debug: the model itself", lambda at: diagnosed(at, target=at.model),
     InputError, "is the model itself", "Name another file"),
    ("debug: seed below 0", lambda at: diagnosed(at, seed=-1), InputError, "seed is -1", "0 or a positive"),
    ("debug: unknown precision", lambda at: diagnosed(at, precision="fp4"), PrecisionError, "no format 'fp4'", "fp16"),
    ("debug: NaN weights", lambda at: diagnosed(at, model=at.write("a.onnx", nan_weight())),
     InputError, "NaN in FP32 already", "--inputs"),
    ("debug: unknown domain",
     lambda at: diagnosed(at, model=at.write("a.onnx", with_node(domain="my.own"))),
     ModelFileError, "domain my.own", "."),
    ("debug: input without a type",
     lambda at: diagnosed(at, model=at.write("a.onnx", changed(lambda model: model.graph.input[0].ClearField("type")))),
     ModelFileError, "data type its input x is", "Export it again"),
    ("unknown format", lambda at: tensor_errors.machine_epsilon("fp3"), PrecisionError, "no format 'fp3'", "fp32"),
    ("tolerance of FP8", lambda at: tensor_errors.tolerance("fp8", 3), PrecisionError, "no format 'fp8'", "fp32"),
    ("stored as nothing known", lambda at: tensor_errors.all_outputs(at.model, {"x": IMAGES}, "fp4"),
     PrecisionError, "rounded to 'fp4'", "fp16, bf16"),
    ("no feeds", lambda at: tensor_errors.all_outputs(at.model, {}), InputError, "given are none", "under its name"),
    ("two runs of other tensors", lambda at: tensor_errors.compare({"a": IMAGES}, {}),
     InputError, "1 of 1 tensors are missing", "both have"),
    ("two runs of other shapes", lambda at: tensor_errors.compare({"a": IMAGES}, {"a": IMAGES[0]}),
     InputError, "tensor a has the shape", "same input"),
    ("clip: no such tensor", lambda at: remedies.clip(MODEL, "nobody"),
     InputError, "^nobody can't be clipped", "names of tensors"),
    ("clip: an output", lambda at: remedies.clip(MODEL, ["y"]), InputError, "^y can't be clipped", "names of tensors"),
    ("headroom of NaN", lambda at: remedies.scale_for_headroom(1.0, NAN), InputError, "headroom of nan", "1 or more"),
    ("headroom without end", lambda at: remedies.scale_for_headroom(1.0, INFINITY),
     InputError, "headroom of inf", "1 or more"),
    ("peak of 0", lambda at: remedies.scale_for_headroom(0.0), InputError, "peak of 0", "positive peak"),
    ("factor of 3", lambda at: scaling.move_scale(MODEL, "conv0", 3), InputError, "factor of 3", "power of two"),
    ("factor of NaN", lambda at: residual_stream.scale(MODEL, NAN), InputError, "factor of nan", "power of two"),
    ("scale: no such tensor", lambda at: scaling.move_scale(MODEL, "nobody", 2.0),
     InputError, "tensor nobody can't be moved", "scaling.movable"),
    ("scale: no such stream", lambda at: residual_stream.scale(MODEL, 2.0),
     InputError, "no LayerNormalization", "pre-norm transformer"),
)  # fmt: skip


def inspected(model=None, **how):
    return lambda at: page.inspect(at.model if model is None else at.write("a.onnx", model), **how)


def page_on_a_full_disk(at: At):
    found = page.inspect(at.tiny)
    with full_disk():
        return page.write_page(found, at.out / "a.html")


FORM = "NAME:1x3x224x224"
SIZES = "a size for each question mark"
ELSEWHERE = "a folder that you can write to"
INSPECTION = rows(
    lambda at: page.as_text(page.inspect(at.tiny)),
    ("shape of nothing", lambda at: input_shapes.parse(""), InputError, "'' is not the shape", FORM),
    ("shape without a name", lambda at: input_shapes.parse("1x3"), InputError, "'1x3' is not the shape", FORM),
    ("shape below 0", lambda at: input_shapes.parse("x:-1"), InputError, "'x:-1' is not the shape", FORM),
    ("shape in other digits", lambda at: input_shapes.parse("x:٣"), InputError, "is not the shape", FORM),
    ("values in words", lambda at: input_shapes.parse("x:one", ","), InputError, "is not the values", "NAME:1,3,64,64"),
    ("no such input", inspected(shapes={"z": (1,)}), InputError, "has no input z", "Its inputs are x"),
    ("another rank", inspected(shapes={"x": (1, 3, 32)}), InputError, "1x3x32 was given for the input x", SIZES),
    ("another size", inspected(shapes={"x": (1, 4, 32, 32)}), InputError, "for the input x, which is .x3x32x32", SIZES),
    ("sizes beyond 64 bits", inspected(shapes={"x": (10**30, 3, 32, 32)}), ProfileError, "holds .10+", "Give tuples"),
    ("more elements than there are", inspected(shapes={"x": (2**31, 3, 32, 32)}),
     ProfileError, "refuses the profile of x", "that a tensor can have"),
    ("values of an image", inspected(values={"x": (1,)}), ProfileError, "gives 1 of x", "--values NAME"),
    ("target 9.9", inspected(targets=["9.9"]), TargetError, "capability 9.9", "8.6"),
    ("batch of 0", lambda at: dataflow.from_onnx(at.model, 0), InputError, "batch of 0", "1 or more"),
    ("page into a folder", lambda at: page.check_writable(at.given), InputError, "can't be written", ELSEWHERE),
    ("page into nowhere", lambda at: page.check_writable(at.out / "no" / "a.html"),
     InputError, "can't be written", ELSEWHERE),
    ("page below a file", lambda at: page.check_writable(at.model / "a.html"),
     InputError, "can't be written", ELSEWHERE),
    ("page into a pipe", lambda at: page.check_writable(at.pipe("a.html")), InputError, "can't be written", ELSEWHERE),
    ("page with a long name", lambda at: page.check_writable(at.out / ("a" * 300)),
     InputError, "File name too long", ELSEWHERE),
    ("page over the model", lambda at: page.check_writable(at.model, at.model),
     InputError, "is .*good.onnx itself", "Name another file"),
    ("page on a full disk", page_on_a_full_disk, InputError, "can't be written: File too large", ELSEWHERE),
)  # fmt: skip

ROWS = [*INPUTS, *DIAGNOSES, *INSPECTION]
