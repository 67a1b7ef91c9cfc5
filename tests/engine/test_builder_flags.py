"""What the installed TensorRT-RTX refuses; and what data-centre TensorRT is given, of which a stub has the names."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from small_models import options

from tutorial_utils.base.errors import (
    BackendUnavailableError,
    BuildError,
    CalibrationError,
    PrecisionError,
    TargetError,
)
from tutorial_utils.base.gpu import Capability
from tutorial_utils.engine import BuildOptions, build
from tutorial_utils.engine.cache import model_hash

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.engine import builder, builder_flags, tensorrt  # they import TensorRT


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"strongly_typed": False},
            PrecisionError,
            "has no weakly typed networks: it knows strongly typed",
        ),
        ({"flags": ("fp16",)}, PrecisionError, "has no builder flag fp16: it knows strongly typed networks only"),
        ({"flags": ("obey_precision_constraints",)}, PrecisionError, "strongly typed networks only"),
        ({"without_flags": ("tf32",)}, PrecisionError, r"TF32 with or without its flag.*ONNX Runtime with use_tf32=0"),
        (
            {"flags": ("exclude_lean_runtime",)},
            BuildError,
            "refuses to set the flag exclude_lean_runtime: .*kVERS",
        ),
        ({"flags": ("no_such_flag",)}, BuildError, r"has no builder flag no_such_flag.*Choose from debug, .*tf32"),
        ({"without_flags": ("no_such_flag",)}, BuildError, "has no builder flag no_such_flag"),
        ({"optimization_level": 2}, BuildError, "the same engine at every optimization level"),
        ({"hardware_compatible": True}, TargetError, "no hardware compatibility.*compute_capabilities"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_rtx_refuses(changes, error, says, fp32_model):
    with pytest.raises(error, match=says):
        build(fp32_model, options(**changes), use_cache=False, progress=False)


def test_flags_are_set_and_cleared(fp32_model):
    import tensorrt_rtx as trt

    found = []

    def configure(network, config):
        flags = trt.BuilderFlag.STRICT_NANS, trt.BuilderFlag.MONITOR_MEMORY, trt.BuilderFlag.TF32
        found.extend(config.get_flag(flag) for flag in flags)

    wanted = options(flags=["Strict_NaNs", "MONITOR_MEMORY"], compute_capabilities="8.6")
    build(fp32_model, wanted, configure=configure, use_cache=False, progress=False)
    assert found == [True, True, True]


def test_flags_have_one_form():
    assert BuildOptions(flags=["INT8", "fp16", "int8"]) == BuildOptions(flags=("fp16", "int8"))
    assert BuildOptions(flags="fp16").flags == ("fp16",)


# --- data-centre TensorRT ---------------------------------------------------------------------------------------------


class Config:
    """Remembers what is set. A build needs a GPU: see test_data_centre."""

    def __init__(self):
        self.set, self.cleared = [], []
        self.set_flag, self.clear_flag = self.set.append, self.cleared.append
        self.get_flag = self.set.__contains__


@pytest.fixture
def tensorrt_10(monkeypatch):
    names = ["FP16", "BF16", "INT8", "TF32", "REFIT"]
    stub = SimpleNamespace(
        BuilderFlag=SimpleNamespace(__members__={name: name for name in names}),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="Ampere and later"),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
    )
    monkeypatch.setattr(builder_flags, "trt", stub)
    monkeypatch.setattr(builder_flags, "IS_RTX", False)


@pytest.mark.usefixtures("tensorrt_10")
def test_tensorrt_10_is_given_all_of_it():
    wanted = BuildOptions(
        strongly_typed=False, flags=("fp16", "refit"), without_flags=("tf32",), optimization_level=0,
        hardware_compatible=True,
    )  # fmt: skip
    config = Config()
    builder_flags.configure(config, wanted, tensorrt.MessageLog())
    assert (config.set, config.cleared) == (["REFIT", "FP16"], ["TF32"])
    assert (config.builder_optimization_level, config.hardware_compatibility_level) == (0, "Ampere and later")
    assert builder_flags.network_flags(wanted) == 0
    assert builder_flags.network_flags(BuildOptions()) == 2


@pytest.mark.usefixtures("tensorrt_10")
@pytest.mark.parametrize("strongly_typed", [True, False])
def test_defaults_change_nothing(strongly_typed):
    config = Config()
    builder_flags.configure(config, BuildOptions(strongly_typed=strongly_typed), tensorrt.MessageLog())
    assert vars(config).keys() == vars(Config()).keys()
    assert not config.set + config.cleared


@pytest.mark.usefixtures("tensorrt_10")
def test_a_strongly_typed_network_refuses_flags_of_types():
    with pytest.raises(PrecisionError, match=r"can't have bf16, int8.*strongly_typed=False"):
        builder_flags.configure(Config(), BuildOptions(flags=("int8", "bf16", "refit")), tensorrt.MessageLog())


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tensorrt, "IS_RTX", False)
    found = None, Capability("NVIDIA GPU", False, "No NVIDIA driver found (libcuda.so.1).", "")
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: found)

    def end_the_process(*_):
        raise SystemExit

    for name in ("Builder", "Runtime"):  # what TensorRT 10.6 does
        monkeypatch.setattr(tensorrt.trt, name, end_the_process)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_nothing_of_data_centre_tensorrt_is_called(fp32_model):
    says = r"needs a GPU to build and to load engines\. No NVIDIA driver found.*TensorRT-RTX builds without"
    with pytest.raises(BackendUnavailableError, match=says):
        build(fp32_model, options(), use_cache=False, progress=False)
    with pytest.raises(BackendUnavailableError, match=says):
        builder.inspect_plan(b"ftrt" + bytes(100))


def test_int8_without_scales_is_said_with_its_cause():
    """TensorRT's words are those of 8.6.1 and 10.6.0."""
    log = tensorrt.MessageLog()
    log.log(tensorrt.trt.ILogger.ERROR, "Calibration failure occurred with no scaling factors detected. This could be")
    error = builder._build_error(Path("model.onnx"), log)
    assert isinstance(error, CalibrationError)
    assert "neither Q/DQ nodes in the file nor a calibrator" in error.cause
    assert type(builder._build_error(Path("model.onnx"), tensorrt.MessageLog())) is BuildError


@pytest.fixture
def calibrating(monkeypatch, fp32_model):
    """What the build makes of a calibrator that a hook has set: the profile at which TensorRT is to calibrate."""
    monkeypatch.setattr(builder, "IS_RTX", False)
    monkeypatch.setattr(builder_flags, "has_weak_typing", lambda: True)
    monkeypatch.setattr(builder.trt.BuilderFlag, "INT8", "INT8", raising=False)
    profiles = []

    def prepare(calibrator, int8=True, given=None):
        config = SimpleNamespace(
            int8_calibrator=calibrator,
            get_flag=lambda flag: int8,
            get_calibration_profile=lambda: given,
            set_calibration_profile=profiles.append,
        )
        profile = SimpleNamespace(set_shape=lambda name, *shapes: shapes)
        maker = SimpleNamespace(create_optimization_profile=lambda: profile)
        return builder._prepare_calibration(maker, config, fp32_model), len(profiles)

    return prepare


def test_calibration_happens_at_the_calibrators_batch(calibrating, fp32_model):
    ours = SimpleNamespace(batch_shapes={"x": (4, 3, 32, 32)}, model=model_hash(fp32_model))
    assert calibrating(ours, given="a profile of the hook's") == (ours, 0)
    assert calibrating(ours) == (ours, 1)
    assert calibrating(None) == (None, 1)
    assert calibrating("somebody's own") == ("somebody's own", 1)


def test_a_calibrator_that_can_not_be_meant(calibrating):
    with pytest.raises(CalibrationError, match="INT8 isn't among its flags"):
        calibrating("somebody's own", int8=False)
    with pytest.raises(CalibrationError, match="made for another model than"):
        calibrating(SimpleNamespace(model="of another model"))


@pytest.mark.parametrize(
    "given",
    [
        {"flags": (1,)},
        {"flags": 5},
        {"without_flags": None},
        {"optimization_level": True},
        {"optimization_level": 3.0},
        {"workspace_bytes": 1.5},
        {"workspace_bytes": True},
        {"workspace_bytes": "1G"},
        {"strongly_typed": "no"},
        {"hardware_compatible": 1},
        {"compute_capabilities": 8.6},
        {"compute_capabilities": (8.6,)},
        {"profiles": ["x"]},
        {"profiles": None},
    ],
    ids=str,
)
def test_an_option_of_another_type_is_refused_by_its_name(given):
    with pytest.raises(BuildError, match=f"^{next(iter(given))} is "):
        BuildOptions(**given)
