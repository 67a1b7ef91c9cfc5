"""Builds with data-centre TensorRT on a GPU: weak typing, calibration, timing cache, plans that are refused.

Needs neither Paddle nor the notebooks' libraries: ``pytest --confcutdir=tests``.
"""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from small_models import images, options, residual_model

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import CalibrationError, PlanError, PrecisionError
from tutorial_utils.engine import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(flavour.installed_flavour() != "tensorrt", reason="of data-centre TensorRT"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the timing cache: with it these builds take seconds."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def error(fp32_model):
    """The largest error of an engine, relative to the largest output of ONNX Runtime on the CPU."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    batch = images(16)
    expected = onnxruntime.InferenceSession(fp32_model, providers=["CPUExecutionProvider"]).run(None, {"x": batch})[0]

    def measure(engine):
        with TensorRTRunner(engine) as runner:
            return np.abs(runner.infer({"x": batch})["y"] - expected).max() / np.abs(expected).max()

    return measure


@pytest.fixture(scope="module")
def make(fp32_model, folder):
    def make(*, configure=None, timing_cache=True, **changes):
        named = {"use_cache": False, "cache_folder": folder, "timing_cache": timing_cache, "progress": False}
        return build(fp32_model, options(**changes), configure=configure, **named)

    return make


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"without_flags": ("tf32",)}, 1e-5),
        ({"strongly_typed": False}, 2e-3),
        ({"strongly_typed": False, "flags": ("fp16",)}, 2e-2),
        ({"optimization_level": 0}, 2e-3),
        ({"hardware_compatible": True}, 2e-3),
        ({"flags": ("refit",)}, 2e-3),
    ],
    ids=str,
)
def test_an_option_builds_an_engine_that_is_right(changes, most, make, error):
    assert error(make(**changes)) < most


def test_int8_without_scales(make):
    with pytest.raises(CalibrationError, match=r"nothing gives the scales.*no scaling factors detected"):
        make(strongly_typed=False, flags=("int8",))


def test_flags_of_types_and_a_strongly_typed_network(make):
    with pytest.raises(PrecisionError, match="takes its types from the ONNX file"):
        make(flags=("fp16",))


@pytest.mark.parametrize("kind", ["EntropyCalibrator", "MinMaxCalibrator"])
def test_calibration_and_its_table(kind, make, error, fp32_model, tmp_path):
    """The batch of the calibrator is neither the profile's best nor its largest."""
    from tutorial_utils.engine import calibrators

    def calibrated():
        made = getattr(calibrators, kind)(fp32_model, {"x": images(64)}, 4, cache_file=tmp_path / "table")

        def configure(network, config):
            config.int8_calibrator = made

        return make(configure=configure, strongly_typed=False, flags=("int8", "fp16"))

    fresh = calibrated()  # of so small a network, the builder may find no kernel in INT8 that is faster
    assert error(fresh) < 0.2
    table = (tmp_path / "table").read_bytes()
    assert table.startswith(b"TRT-")
    assert error(calibrated()) == pytest.approx(error(fresh), abs=0.02)
    assert (tmp_path / "table").read_bytes() == table
    (tmp_path / "table").write_bytes(table[:-5])
    with pytest.raises(CalibrationError, match="was cut short"):
        calibrated()


def test_a_calibrator_that_no_flag_asks_for(make, fp32_model):
    from tutorial_utils.engine.calibrators import EntropyCalibrator

    def configure(network, config):
        config.int8_calibrator = EntropyCalibrator(fp32_model, {"x": images(8)}, 4)

    with pytest.raises(CalibrationError, match="INT8 isn't among its flags"):
        make(configure=configure, strongly_typed=False, flags=("fp16",))


def test_a_calibrator_of_another_model(make, tmp_path):
    from tutorial_utils.engine.calibrators import EntropyCalibrator

    onnx.save(residual_model(seed=1), tmp_path / "retrained.onnx")

    def configure(network, config):
        config.int8_calibrator = EntropyCalibrator(tmp_path / "retrained.onnx", {"x": images(8)}, 4)

    with pytest.raises(CalibrationError, match="made for another model"):
        make(configure=configure, strongly_typed=False, flags=("int8",))


def test_timing_cache(make, folder):
    weak = {"strongly_typed": False, "flags": ("fp16",)}
    make(**weak)
    (file,) = folder.glob("*.cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make(**weak)
        make(**weak, timing_cache=False)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="cut short or altered"):
        make(**weak)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda plan: plan[: len(plan) // 2], "was cut short"),
        (lambda plan: b"vtrt" + plan[4:], "TensorRT-RTX .* built the plan, and this is TensorRT 1"),
        (lambda plan: b"", "There are 0 bytes"),
    ],
    ids=["cut short", "of RTX", "empty"],
)
def test_plans_that_are_refused(damage, says, make):
    from tutorial_utils.engine.builder import inspect_plan
    from tutorial_utils.runners.tensorrt import primary_context

    plan = make().plan
    with primary_context():
        assert inspect_plan(plan)
        with pytest.raises(PlanError, match=says):
            inspect_plan(damage(plan))
