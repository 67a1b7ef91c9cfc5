import ml_dtypes
import numpy as np
import pictures
import pytest

from tutorial_utils.lessons.lesson01 import precision as figures
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import number_formats as formats

KNOWN = {
    formats.FP32: np.float32,
    formats.BF16: ml_dtypes.bfloat16,
    formats.FP16: np.float16,
    formats.FP8: ml_dtypes.float8_e4m3fn,
}


@pytest.mark.parametrize("number_format", KNOWN, ids=lambda one: one.name)
def test_limits_are_those_of_the_type(number_format):
    known = ml_dtypes.finfo(KNOWN[number_format])
    assert number_format.largest == float(known.max)
    assert number_format.smallest_normal == float(known.smallest_normal)
    assert number_format.smallest == float(known.smallest_subnormal)
    assert number_format.bits == known.bits


@pytest.mark.parametrize("name", ["int8", "int32", "int64", "uint8", "bool"])
def test_integers_have_the_limits_of_the_type(name):
    one, dtype = formats.BY_NAME[name], np.dtype(name)
    assert one.bits == 8 * dtype.itemsize
    assert one.largest == (1 if name == "bool" else float(np.iinfo(dtype).max))
    assert one.step(np.array([0.0, 1.0, one.largest / 2])).tolist() == [1.0] * 3


@pytest.mark.parametrize("name", ["int4", "float4_e2m1fn"])
def test_four_bits_have_the_limits_of_the_type(name):
    one = formats.BY_NAME["int4" if name == "int4" else "fp4"]
    known = ml_dtypes.iinfo(name) if name == "int4" else ml_dtypes.finfo(name)
    assert (one.bits, one.largest) == (4, float(known.max))
    assert name == "int4" or one.smallest_normal == float(known.smallest_normal)


@pytest.mark.parametrize(
    ("written", "dtype"),
    [("Half", "fp16"), ("FP16", "fp16"), ("Float", "fp32"), ("BFloat16", "bf16"), ("Int8", "int8"), ("FP4", "fp4"),
     ("Bool", "bool"), ("UInt8", "uint8"), ("Complex", "complex")],
)  # fmt: skip
def test_names_of_tensorrt_are_known(written, dtype):
    assert formats.dtype_of(written) == dtype


@pytest.mark.parametrize("number_format", KNOWN, ids=lambda one: one.name)
def test_rounding_is_that_of_the_type(number_format):
    random = np.random.default_rng(0)
    exponents = random.uniform(np.log2(number_format.smallest) - 2, np.log2(number_format.largest) - 0.1, 20000)
    values = (np.exp2(exponents) * random.choice([-1, 1], exponents.size)).astype(np.float32)
    values[:2] = 0, number_format.largest
    expected = values.astype(KNOWN[number_format]).astype(np.float64)
    np.testing.assert_array_equal(number_format.round(values), expected)


def test_tf32_keeps_ten_fraction_bits_and_the_range_of_fp32():
    values = np.array([1 + 2.0**-10, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1e38, 1e-38])
    rounded = formats.TF32.round(values)
    np.testing.assert_array_equal(rounded[:3], [1 + 2.0**-10, 1.0, 1 + 2.0**-9])  # ties go to even
    np.testing.assert_allclose(rounded[3:], values[3:], rtol=2.0**-11)


def test_int8_rounds_to_multiples_of_its_scale():
    np.testing.assert_array_equal(formats.INT8.round(np.array([0.6, -1.2, 63.4]), scale=0.5), [0.5, -1.0, 63.5])
    assert np.isinf(formats.INT8.round(np.array([64.0]), scale=0.5)).all()


def test_loss_counts_overflow_and_underflow():
    loss = formats.loss(np.array([0.0, 1e-9, 1.0, 1e5, -1e6]), formats.FP16)
    assert (loss.overflow, loss.underflow) == (2, 1)
    assert np.isnan(loss.sqnr_db)
    exact = formats.loss(np.array([0.5, -2.0]), formats.FP8)
    assert (exact.overflow, exact.underflow, exact.sqnr_db) == (0, 0, np.inf)


def test_a_scale_brings_the_largest_value_into_range():
    values = np.array([0.001, -3000.0])
    assert formats.loss(values, formats.FP8).overflow == 1
    assert formats.loss(values, formats.FP8, formats.scale_for(values, formats.FP8)).overflow == 0


def test_range_figure_lists_every_format():
    picture = figures.draw_range_and_resolution({"weights": np.array([0.1, 0.0, -2.0])})
    assert [line.split("  ")[0].strip() for line in picture.text.splitlines()] == [one.name for one in formats.FORMATS]
    assert "histograms of the magnitudes of weights" in picture.alt
    top, bottom = pictures.drawn(picture)
    assert len(pictures.lines(top)) == len(formats.FORMATS)
    assert sum(pictures.heights(bottom)) == pytest.approx(100)


def test_figures_of_gpu_measurements_say_their_numbers():
    rows = [figures.Tf32Row("MatMul", flag, 3e-4, None) for flag in (True, False)]
    errors = figures.draw_tf32_errors(rows)
    assert errors.text.splitlines()[1] == "MatMul, TF32 flag cleared  error 3.0e-04"
    (axes,) = pictures.drawn(errors)
    assert pictures.marks(axes) == [(3e-4, 0), (3e-4, 1)]
    times = {"FP16": {8: Measurement(((2.0,),) * 10, 2.0, 1, True, 8)}}
    by_batch = figures.draw_batch_times(times)
    assert "2.000 ms,    4,000 images/s" in by_batch.text
    (axes,) = pictures.drawn(by_batch)
    assert pictures.heights(axes) == [0.25]  # milliseconds for an image
