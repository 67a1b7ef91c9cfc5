"""TensorRT's calibrators in lesson 01: what is judged without a GPU, and how its recording is read and drawn."""

import struct

import numpy as np
import pictures
import pytest

from tutorial_utils.lessons.lesson01 import calibrated_int8
from tutorial_utils.lessons.lesson01.calibrated_int8 import Range
from tutorial_utils.model import data

IMAGES = data.load("digits", "test").images[:16]


def table(**largest):
    lines = (f"{name}: {struct.pack('>f', one / 127).hex()}\n" for name, one in largest.items())
    return f"TRT-100600-EntropyCalibration2\n{''.join(lines)}".encode()


def test_thresholds_of_a_table():
    assert calibrated_int8.thresholds(table(x=1.0, relu0=25.4)) == pytest.approx({"x": 1.0, "relu0": 25.4})


def test_ranges_hold_a_table_against_activations():
    values = {"x": np.array([-1.0, 0.5, 1.0, 3.0]), "seen only here": np.ones(3)}
    found = calibrated_int8.ranges(table(x=2.0, other=1.0), values)
    assert list(found) == ["x"]
    assert (found["x"].largest, found["x"].clipped, found["x"].steps) == (3.0, 0.25, 127)
    assert Range(threshold=254.0, largest=2.0, clipped=0.0).steps == 1


def test_what_rounds_to_the_last_step_is_not_cut_off():
    assert Range(threshold=1.27, largest=1.274, clipped=0.3).cut_off == 0
    assert Range(threshold=1.27, largest=1.276, clipped=0.3).cut_off == 0.3


def test_activations_are_what_convolutions_and_products_read(fp32_model):
    found = calibrated_int8.activations(fp32_model, IMAGES)
    assert found.keys() == {"x", "relu0", "flat"}
    assert found["relu0"].shape == (16, 16, 32, 32)
    assert found["relu0"].min() == 0


def test_calibration_images():
    made = {name: make(IMAGES) for name, make in calibrated_int8.IMAGES.items()}
    limits = {name: (float(one.min()), float(one.max())) for name, one in made.items()}
    assert limits["digits"] == limits["darkest_first"] == (-1, 1)
    assert limits["black"] == (-1, -1)
    assert limits["zero_to_one"] == (0, 1)
    assert limits["zero_to_255"] == (0, 255)
    assert all(one.dtype == np.float32 and one.shape == IMAGES.shape for one in made.values())
    means = made["darkest_first"].mean(axis=(1, 2, 3))
    assert (np.diff(means) >= 0).all()


def test_cases_have_their_files():
    stems = {name.removesuffix(".onnx") for name in calibrated_int8.EXPERIMENT.models}
    cases = calibrated_int8.CASES.values()
    assert {case.model for case in cases} == stems
    assert all((case.calibrator != "") == ("int8" in case.flags) for case in cases)
    assert calibrated_int8.EXPERIMENT.rows.keys() > calibrated_int8.CASES.keys()


TIME = {"rounds_ms": [[0.1, 0.1]] * 10, "first_call_ms": 1.0, "warmup_calls": 11, "stable": True, "batch": 64}
ENGINE = {"accuracy": 0.98, "agreement": 1.0, "sqnr_db": 60.0, "time": TIME, "ranges": {},
          "line": "9 of 9 convolutions compute in FP32"}  # fmt: skip
RANGES = {"x": {"threshold": 255.0, "largest": 1.0, "clipped": 0.0},
          "relu": {"threshold": 1.0, "largest": 4.0, "clipped": 0.12}}  # fmt: skip
WRONG = ENGINE | {"accuracy": 0.5, "agreement": 0.5, "sqnr_db": 3.0, "time": None, "ranges": RANGES}
RECORDED = {
    "stacks": [{"gpu": "G", "libraries": {}}],
    "rows": {
        name: {"stack": 0, "date": "2026-11-26", **row}
        for name, row in {
            "precision/fp32": {"values": ENGINE},
            "precision/int8_calibrated": {"values": ENGINE},
            "precision/fp8": {"reason": "The process ended with SIGABRT."},
            "entropy/digits": {"values": ENGINE | {"time": None}},
            "entropy/zero_to_255": {"values": WRONG},
            "minmax/black": {"reason": "no scale"},
        }.items()
    },
}


def test_read():
    results = calibrated_int8.read(RECORDED)
    assert results["precision/fp8"] == "The process ended with SIGABRT."
    assert results["precision/fp32"].time.median_ms == 0.1
    wrong = results["entropy/zero_to_255"]
    assert wrong.ranges["x"] == Range(255.0, 1.0, 0.0)
    assert (wrong.median_steps, wrong.most_cut_off) == (pytest.approx(63.75, abs=0.01), 0.12)


def test_picture_of_thresholds():
    picture = calibrated_int8.draw_thresholds(np.array([0.0, 0.5, -1.0, 3.0, 4.0]), {"low": 2.0, "high": 8.0})
    assert picture.text.splitlines() == [
        "high: last step at 8, 0.00 % of all values beyond it",
        "low: last step at 2, 40.00 % of all values beyond it",
    ]
    (axes,) = pictures.drawn(picture)
    assert [line.get_xdata()[0] for line in axes.lines] == [8.0, 2.0]
    assert [line.get_ydata() for line in axes.lines] == [[0, 1], [0, 1]]  # none is taken for a bar: all are full height
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["values", "range: INT8's last step"]


def test_shipped_recording_shows_what_a_flag_gave():
    by_flag = calibrated_int8.EXPERIMENT.recorded("there is no GPU").result["precision/bf16_flag"]
    assert by_flag.line.startswith("9 of 9 convolutions compute in TF32; 1 of 1 matrix products compute in TF32")


def test_shipped_recording_has_the_answers_of_fp32_after_a_right_calibration():
    results = calibrated_int8.EXPERIMENT.recorded("there is no GPU").result
    right = [results[name].agreement for name in ("precision/int8_calibrated", "entropy/digits", "minmax/digits")]
    assert min(right) >= 0.99
    assert results["entropy/zero_to_255"].agreement < 0.5
