import ml_dtypes
import numpy as np
import pytest

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
