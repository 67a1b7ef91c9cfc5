"""Bad input that only a GPU can try: calibration, timing caches, plans of another TensorRT, a GPU that isn't there.

Each is one sentence with its cause, and no process dies. Needs neither Paddle nor the notebooks' libraries::

    pytest --confcutdir=tests tests/bad_input/test_on_gpu.py

With ``PLANS=FOLDER`` it also tries every ``*.plan`` in that folder: plans that another TensorRT built, such as 8.6.
"""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import blake3
import numpy as np
import onnx
import onnxruntime
import pytest
from small_models import images, options, residual_model

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import CalibrationError, PlanError
from tutorial_utils.engine import build

pytestmark = pytest.mark.gpu

RTX = flavour.installed_flavour() == "tensorrt_rtx"
OTHER = "tensorrt" if RTX else "tensorrt_rtx"
of_data_centre = pytest.mark.skipif(RTX, reason="of data-centre TensorRT")
TESTS = Path(__file__).parents[1]

# For `child`, with a model and a file of a plan.
BEGIN = (
    "import sys; from pathlib import Path; from small_models import options; from tutorial_utils.engine import build\n"
)
BUILD = BEGIN + "built = build(sys.argv[1], options(), use_cache=False, progress=False)\n"
WRITE = "Path(sys.argv[2]).write_bytes(built.plan)"
RUN = BEGIN + (
    "from tutorial_utils.runners.tensorrt import TensorRTRunner; TensorRTRunner(Path(sys.argv[2]).read_bytes())"
)
INSPECT = BEGIN + (
    "from tutorial_utils.engine.builder import inspect_plan; inspect_plan(Path(sys.argv[2]).read_bytes())"
)


def one_line(caught):
    """Return what was raised, which has to be one line."""
    text = str(caught.value)
    assert "\n" not in text
    return text


def made(model, folder, **named):
    """Build the small model's engine; a timing cache in the folder makes that a matter of seconds."""
    changes = named.pop("changes", {})
    return build(model, options(**changes), use_cache=False, cache_folder=folder, progress=False, **named)


def child(code, *arguments, **environment):
    """Run Python in a process of its own; return it, ended."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    same = {"TUTORIAL_UTILS_TENSORRT": flavour.installed_flavour()}  # without a GPU, it could be another
    environment = {**os.environ, "PYTHONPATH": paths, **same, **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def plan(fp32_model, folder):
    return made(fp32_model, folder).plan


def is_right(engine, model):
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    batch = images(16)
    expected = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": batch})[0]
    with TensorRTRunner(engine) as runner:
        return np.abs(runner.infer({"x": batch})["y"] - expected).max() < 2e-3 * np.abs(expected).max()


# --- a build beside an engine in use ---------------------------------------------------------------------------------


@of_data_centre
def test_a_build_says_why_it_fails_also_beside_a_loaded_engine(plan, fp32_model, folder):
    """TensorRT says that it ignores a second logger as long as an object with another one lives."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    with TensorRTRunner(plan):
        int8 = {"strongly_typed": False, "flags": ("int8",)}
        with pytest.raises(CalibrationError, match=r"nothing gives the scales.*no scaling factors detected") as caught:
            made(fp32_model, folder, changes=int8)
        one_line(caught)
        assert any("conv0" in text for text in made(fp32_model, folder).messages)


# --- calibration ------------------------------------------------------------------------------------------------------


def calibrator(model, table):
    from tutorial_utils.engine.calibrators import EntropyCalibrator

    return EntropyCalibrator(model, {"x": images(32)}, 4, cache_file=table)


def calibrated(model, folder, table):
    """Build in INT8: with the table where it is there, else by calibrating, which writes it."""

    def configure(network, config):
        config.int8_calibrator = calibrator(model, table)

    int8 = {"strongly_typed": False, "flags": ("int8", "fp16")}
    return made(model, folder, changes=int8, configure=configure)


@pytest.fixture(scope="module")
def calibration(fp32_model, folder):
    """What TensorRT wrote after a calibration: its table, and the record that is kept beside it."""
    table = folder / "table"
    calibrated(fp32_model, folder, table)
    return table.read_bytes(), Path(f"{table}.json").read_text()


def of_another_version(table, record):
    """As TensorRT 8.6 would have left them: its version stands in the table's first line, too."""
    table = b"TRT-8601-" + table.split(b"-", 2)[2]
    changes = {"tensorrt": "8.6.1", "table": blake3.blake3(table).hexdigest()}
    return table, json.dumps(json.loads(record) | changes)


@of_data_centre
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda table, record: (table[:-5], record), "was cut short or altered: its checksum is wrong"),
        (lambda table, record: (b"", record), "was cut short or altered: its checksum is wrong"),
        (of_another_version, "was made by TensorRT 8.6.1, not 10"),
        (lambda table, record: (table, "{}"), "has no record of its own beside it"),
    ],
    ids=["cut short", "empty", "of another TensorRT", "of nobody"],
)
def test_a_calibration_table_that_is_refused(damage, says, calibration, fp32_model, folder, tmp_path):
    table, record = damage(*calibration)
    (tmp_path / "table").write_bytes(table)
    (tmp_path / "table.json").write_text(record)
    with pytest.raises(CalibrationError, match=says) as caught:
        calibrated(fp32_model, folder, tmp_path / "table")
    assert "Delete it to calibrate again" in one_line(caught)
    (tmp_path / "table").unlink()
    calibrated(fp32_model, folder, tmp_path / "table")
    assert (tmp_path / "table").read_bytes().startswith(b"TRT-10")


@of_data_centre
def test_a_calibration_table_of_another_model(calibration, folder, tmp_path):
    """Its tensors have the same names, so TensorRT itself would take it."""
    onnx.save(residual_model(seed=1), tmp_path / "retrained.onnx")
    for name, content in zip(("table", "table.json"), calibration, strict=True):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CalibrationError, match="was made for another model") as caught:
        calibrated(tmp_path / "retrained.onnx", folder, tmp_path / "table")
    one_line(caught)


def with_nan(count):
    array = images(count)
    array[1, 0, 3, 3], array[2, 1, 0, 0] = np.nan, np.inf
    return array


@of_data_centre
@pytest.mark.parametrize(
    ("array", "says"),
    [
        (images(8)[:, :2], r"shape \(8, 2, 32, 32\)\) don't fit the input x"),
        (images(8).astype(np.float64), r"\(float64, .*don't fit the input x \(float32"),
        (with_nan(8), "2 of 8 calibration images for x hold NaN or infinity"),
        (images(3), "3 calibration images don't fill one batch of 4"),
    ],
    ids=["shape", "type", "NaN", "too few"],
)
def test_calibration_images_that_are_refused(array, says, fp32_model, folder):
    from tutorial_utils.engine.calibrators import MinMaxCalibrator

    def configure(network, config):
        config.int8_calibrator = MinMaxCalibrator(fp32_model, {"x": array}, 4)

    with pytest.raises(CalibrationError, match=says) as caught:
        made(fp32_model, folder, changes={"strongly_typed": False, "flags": ("int8",)}, configure=configure)
    one_line(caught)


# --- the timing cache -------------------------------------------------------------------------------------------------


def of_another_gpu(head, times):
    name, version, *_ = head["tensorrt"].split()
    return head | {"tensorrt": f"{name} {version} NVIDIA A10 8.6"}, times


def damaged_timing_cache(damage, model, folder):
    """Build, which makes the file, and damage it."""
    made(model, folder)
    (file,) = folder.glob("*.cache")
    head, _, times = file.read_bytes().partition(b"\n")
    head, times = damage(json.loads(head), times)
    file.write_bytes((json.dumps(head).encode() + b"\n" if head else b"") + times)


@of_data_centre
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (of_another_gpu, r"made for tensorrt 10\S* NVIDIA A10 8\.6, and this is tensorrt 10"),
        (lambda head, times: (head, times[:-1]), "cut short or altered: its checksum is wrong"),
        (lambda head, times: (None, b""), "doesn't begin as one"),
    ],
    ids=["of another GPU", "cut short", "empty"],
)
def test_a_timing_cache_that_is_not_used(damage, says, fp32_model, tmp_path):
    damaged_timing_cache(damage, fp32_model, tmp_path)
    with pytest.warns(UserWarning, match=f"{says}.*measures all kernels again") as caught:
        engine = made(fp32_model, tmp_path)
    (warning,) = [str(one.message) for one in caught if "measures all kernels again" in str(one.message)]
    assert "\n" not in warning
    assert is_right(engine, fp32_model)


@of_data_centre
@pytest.mark.parametrize(
    "change", [lambda times: b"no times" * 9, lambda times: times[: len(times) // 2]], ids=["junk", "cut short"]
)
def test_times_that_tensorrt_itself_has_to_judge(change, fp32_model, tmp_path):
    """Their checksum is right. TensorRT 10.6 takes them without a word, and measures again; another may refuse them."""

    def damage(head, times):
        times = change(times)
        return head | {"blake3": blake3.blake3(times).hexdigest()}, times

    damaged_timing_cache(damage, fp32_model, tmp_path)
    code = BUILD.replace("use_cache=False", "use_cache=False, cache_folder=Path(sys.argv[2]).parent") + WRITE
    done = child(code, fp32_model, tmp_path / "built.plan")
    assert done.returncode == 0, done.stderr
    for warning in [line for line in done.stderr.splitlines() if "UserWarning: " in line]:
        assert re.search("TensorRT refuses it: .*measures all kernels again", warning)
    assert is_right((tmp_path / "built.plan").read_bytes(), fp32_model)


# --- plans ------------------------------------------------------------------------------------------------------------


def by(magic, *version):
    """Change who built a plan, as its header says."""
    return lambda plan: magic + plan[4:24] + struct.pack("4B", *version) + plan[28:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (by(b"ftrt", 8, 6, 1, 6), r"TensorRT 8\.6\.1\.6 built the plan, and this is TensorRT"),
        (by(b"ftrt", 99, 6, 0, 26), r"TensorRT 99\.6\.0\.26 built the plan, and this is TensorRT"),
        (by(b"vtrt", 9, 6, 1, 120), r"TensorRT-RTX 9\.6\.1\.120 built the plan, and this is TensorRT"),
    ],
    ids=["8.6", "a later TensorRT", "a later TensorRT-RTX"],
)
def test_a_header_that_claims_another_tensorrt(change, says, plan, fp32_model):
    """TensorRT 10.6 and TensorRT-RTX 1.6.1 don't compare the version there: what is theirs loads, and is right."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    changed = change(plan)
    if changed[:4] == plan[:4]:
        assert is_right(changed, fp32_model)
        return
    with pytest.raises(PlanError, match=says) as caught:
        TensorRTRunner(changed)
    one_line(caught)


@pytest.mark.skipif(not flavour.is_installed(OTHER), reason=f"{OTHER} is not installed")
def test_a_plan_that_the_other_tensorrt_built(fp32_model, tmp_path):
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    done = child(BUILD + WRITE, fp32_model, tmp_path / "plan", TUTORIAL_UTILS_TENSORRT=OTHER)
    assert done.returncode == 0, done.stderr
    names = flavour.FLAVOURS[OTHER], flavour.FLAVOURS[flavour.installed_flavour()]
    with pytest.raises(PlanError, match="{} .* built the plan, and this is {} ".format(*names)) as caught:
        TensorRTRunner((tmp_path / "plan").read_bytes())
    one_line(caught)


@pytest.mark.skipif("PLANS" not in os.environ, reason="no folder of plans is given")
def test_plans_that_others_built():
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    paths = sorted(Path(os.environ["PLANS"]).glob("*.plan"))
    assert paths
    for path in paths:
        with pytest.raises(PlanError, match="built the plan, and this is") as caught:
            TensorRTRunner(path.read_bytes())
        print(f"{path.name}: {one_line(caught)}")


# --- a GPU that isn't there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visible", ["", "-1", "99"])
@pytest.mark.parametrize(
    "code",
    [RUN, pytest.param(INSPECT, marks=of_data_centre), pytest.param(BUILD, marks=of_data_centre)],
    ids=["run", "inspect", "build"],
)
def test_no_gpu_is_shown(code, visible, plan, fp32_model, tmp_path):
    """TensorRT-RTX builds without a GPU; data-centre TensorRT would end the process, at its builder and its runtime."""
    (tmp_path / "plan").write_bytes(plan)
    done = child(code, fp32_model, tmp_path / "plan", CUDA_VISIBLE_DEVICES=visible)
    assert done.returncode == 1, done.stderr
    assert "BackendUnavailableError: " in done.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(not RTX, reason="Only TensorRT-RTX builds for other GPUs than the one at hand.")
@pytest.mark.parametrize("target", ["8.6", "12.0"])
def test_a_plan_for_another_gpu(target, fp32_model, folder, tmp_path):
    """It runs (as TensorRT-RTX 1.6.1 on an H100, measured) or is refused in one sentence; the process doesn't die."""
    built = made(fp32_model, folder, changes={"compute_capabilities": target})
    (tmp_path / "plan").write_bytes(built.plan)
    done = child(RUN, fp32_model, tmp_path / "plan")
    assert done.returncode in (0, 1), done.stderr
    assert done.returncode == 0 or "PlanError: " in done.stderr.strip().splitlines()[-1]
