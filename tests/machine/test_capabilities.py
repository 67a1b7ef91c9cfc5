import ctypes
import dataclasses
import json
import os
import re
import shutil
import sys
import types

import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.flavour import Choice
from tutorial_utils.base.gpu import Capability, Gpu, find_gpu
from tutorial_utils.machine import capabilities, child, facts
from tutorial_utils.machine.capabilities import Capabilities, assess
from tutorial_utils.machine.facts import Library, find_libraries

NO_DRIVER = Capability("NVIDIA GPU", False, "No NVIDIA driver found (libcuda.so.1).", "Look elsewhere.", harmless=True)
DRIVER = Capability("NVIDIA GPU", True, "A GPU.", "")
PADDLE = Library("3.3.1", details={"cuda": False, "tensorrt": [0, 0, 0]}, distributions=("paddlepaddle",))
PADDLE_GPU = Library("3.3.1", details={"cuda": True, "tensorrt": [10, 5, 0]}, distributions=("paddlepaddle-gpu",))
ORT = Library("1.32.0", details={"providers": ["CPUExecutionProvider"]}, distributions=("onnxruntime",))
ORT_GPU = Library(
    "1.31.1",
    details={"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
    distributions=("onnxruntime-gpu",),
)
DEFAULT = {
    "paddle": PADDLE,
    "paddle2onnx": Library("2.1.0"),
    "onnxruntime": ORT,
    "polygraphy": Library("0.53.6"),
    "tensorrt_rtx": Library("1.7.1.116"),
}


def gpu(compute_capability: str) -> Gpu:
    return Gpu("Test GPU", compute_capability, "13.0", 80 * 2**30)


def on_cpu(flavour: str | None = "tensorrt_rtx", **libraries: Library) -> Capabilities:
    return assess(None, NO_DRIVER, DEFAULT | libraries, flavour)


def on_gpu(compute_capability: str, flavour: str | None = "tensorrt_rtx", **libraries: Library) -> Capabilities:
    found = DEFAULT | {"pycuda": Library("2026.1")} | libraries
    return assess(gpu(compute_capability), DRIVER, found, flavour)


class FakeCuda:
    """The functions of libcuda that the probe calls, for one H100."""

    def __init__(self, init: int = 0, devices: int = 1):
        self.init = init
        self.devices = devices

    def cuInit(self, flags):  # noqa: N802
        return self.init

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGet(self, device, ordinal):  # noqa: N802
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, text, length, device):  # noqa: N802
        text.value = b"NVIDIA H100 80GB HBM3"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, size, device):  # noqa: N802
        size._obj.value = 80 * 2**30
        return 0


@pytest.fixture
def broken_library(tmp_path, monkeypatch):
    """Put packages with the given source before the installed ones."""

    def make(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(source)

    monkeypatch.syspath_prepend(tmp_path)
    return make


# The GPU


def load_as(monkeypatch, cuda):
    def load(name):
        assert name == "libcuda.so.1"
        if isinstance(cuda, Exception):
            raise cuda
        return cuda

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_gpu_is_read_from_the_driver(monkeypatch):
    load_as(monkeypatch, FakeCuda())
    found, driver = find_gpu()
    assert found == Gpu("NVIDIA H100 80GB HBM3", "9.0", "13.2", 80 * 2**30)
    assert driver.available
    assert "compute capability 9.0, 80 GiB; the driver supports CUDA 13.2" in driver.reason


@pytest.mark.parametrize(
    ("cuda", "reason", "remedy"),
    [
        (OSError("libcuda.so.1: cannot open"), "No NVIDIA driver found", "Nothing is broken"),
        (FakeCuda(init=100), "shows no GPU", "Nothing is broken"),
        (FakeCuda(devices=0), "shows no GPU", "Nothing is broken"),
        (FakeCuda(init=803), "CUDA error 803", "nvidia-smi"),
        (types.SimpleNamespace(), "not a whole NVIDIA driver", "Reinstall the NVIDIA driver"),
    ],
)
def test_missing_or_broken_driver_is_explained(monkeypatch, cuda, reason, remedy):
    load_as(monkeypatch, cuda)
    found, driver = find_gpu()
    assert found is None
    assert not driver.available
    assert reason in driver.reason
    assert remedy in driver.remedy
    assert driver.harmless is (remedy == "Nothing is broken")


def test_hidden_gpu_names_the_variable(monkeypatch):
    load_as(monkeypatch, FakeCuda(devices=0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES is '-1'" in find_gpu()[1].reason


def test_broken_driver_is_not_called_harmless_by_what_needs_a_gpu():
    broken = Capability("NVIDIA GPU", False, "CUDA error 803.", "Run `nvidia-smi`.")
    assert assess(None, broken, DEFAULT, "tensorrt_rtx").tensorrt_run.remedy == "Run `nvidia-smi`."


# The libraries


def only(monkeypatch, *groups):
    monkeypatch.setattr(facts, "_IMPORTS", groups)


def test_working_library_gives_its_version(monkeypatch, broken_library):
    only(monkeypatch, ("polygraphy",))
    broken_library(polygraphy="print('half a line', end='')\n__version__ = '7.8.9'")
    assert find_libraries()["polygraphy"].version == "7.8.9"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise SystemError('bad\\nlibrary.')", "SystemError: bad library"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os.abort()", "importing it ends Python (SIGABRT)"),
        ("import os; os._exit(3)", "importing it ends Python (exit status 3)"),
        ("import os, sys; sys.stdout = open(os.devnull, 'w')", "importing it gives no answer"),
    ],
)
def test_library_that_breaks_at_import_is_reported(monkeypatch, broken_library, source, error):
    only(monkeypatch, ("tensorrt_rtx",))
    broken_library(tensorrt_rtx=source)
    library = find_libraries()["tensorrt_rtx"]
    assert library.error == error
    build = assess(None, NO_DRIVER, {"tensorrt_rtx": library}, "tensorrt_rtx").tensorrt_build
    assert not build.available
    assert error in build.reason
    assert "pip install --force-reinstall tensorrt-rtx" in build.remedy


TENSORRT = """
import os
import tutorial_utils.base.gpu as gpu
gpu.find_gpu = lambda: ("a GPU" if {gpu} else None, None)
__version__ = "10.15.1"
class ILogger:
    class Severity: ERROR = 1
def Builder(log):
    log.log(0, "Unable to load library: libnvinfer_builder_resource_sm90.so")
    log.log(3, "and then some")
    {end}
    return "a builder"
"""


@pytest.mark.parametrize(
    ("with_gpu", "end", "error"),
    [
        (True, "", ""),
        (True, "raise TypeError('factory function returned nullptr')", "builder_resource_sm90.so"),
        (True, "return None", "TensorRT gave no message"),
        (True, "os.abort()", "making one ends the process (SIGABRT)"),
        (True, "__import__('time').sleep(60)", "making one gives no answer within 3 s"),
        (False, "os.abort()", ""),  # as TensorRT 10.6 does without a driver: it isn't tried there
    ],
)
def test_builder_of_tensorrt_is_tried_elsewhere_and_only_with_a_gpu(with_gpu, end, error, monkeypatch, broken_library):
    only(monkeypatch, ("tensorrt",))
    monkeypatch.setattr(child, "SECONDS", 3)
    broken_library(tensorrt=TENSORRT.format(gpu=with_gpu, end=end))
    library = find_libraries()["tensorrt"]
    assert (library.version, library.error) == ("10.15.1", "")
    build = on_gpu("9.0", "tensorrt", tensorrt=library).tensorrt_build
    assert build.available is (error == "")
    assert error in build.reason
    assert on_cpu("tensorrt", tensorrt=library).tensorrt_build.reason.startswith("TensorRT 10.15.1 needs an NVIDIA GPU")


def test_crash_of_paddle_leaves_the_others_alone(monkeypatch, broken_library):
    only(monkeypatch, ("paddle", "paddle2onnx"), ("polygraphy",))
    broken_library(
        paddle="import os; os.abort()", paddle2onnx="import paddle", polygraphy="__version__ = '1'", tensorrt_rtx=""
    )
    found = assess(None, NO_DRIVER, find_libraries(), None)
    assert "SIGABRT" in found.paddle.reason
    assert "needs Paddle" in found.onnx_export.reason
    assert found.polygraphy.available


def test_import_that_takes_too_long_may_be_a_slow_disk(monkeypatch, broken_library):
    """To install a sound library again would take longer, and help nothing."""
    only(monkeypatch, ("polygraphy",))
    monkeypatch.setattr(child, "SECONDS", 1)
    broken_library(polygraphy="import time; time.sleep(60)")
    found = assess(None, NO_DRIVER, DEFAULT | find_libraries(), "tensorrt_rtx")
    assert re.search(r"polygraphy \S+ gave no answer within 1 s\. The disk is slow", found.polygraphy.reason)
    assert found.polygraphy.remedy.startswith("Run this again: ")
    assert "`python -c 'import polygraphy'` never ends, it is broken: Run `python" in found.polygraphy.remedy


def test_folder_left_by_an_uninstall_is_no_library(monkeypatch, tmp_path):
    only(monkeypatch, ("tensorrt",))
    (tmp_path / "tensorrt" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert find_libraries() == {}


def test_real_libraries_answer_what_they_are_asked(monkeypatch):
    pytest.importorskip("onnxruntime")
    only(monkeypatch, ("paddle",), ("onnxruntime",))
    libraries = find_libraries()
    assert [library.error for library in libraries.values()] == ["", ""]
    assert set(libraries["paddle"].details) == {"cuda", "tensorrt", "kernels"}
    assert "CPUExecutionProvider" in libraries["onnxruntime"].details["providers"]


def test_probe_survives_everything_broken_at_once(monkeypatch, broken_library):
    names = [name for group in facts._IMPORTS for name in group]
    broken_library(**dict.fromkeys(names, "import os; os.abort()"))
    load_as(monkeypatch, types.SimpleNamespace())
    found = capabilities.probe.__wrapped__()
    assert not any(capability.available for capability in found.capabilities())
    assert all(capability.reason and capability.remedy for capability in found.capabilities())


def test_probe_survives_a_module_without_a_spec(monkeypatch):
    only(monkeypatch, ("tensorrt",), ("tensorrt_rtx",))
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert "No TensorRT is installed" in capabilities.probe.__wrapped__().tensorrt_build.reason


# The rules: default environment


def test_default_environment_without_a_gpu():
    found = on_cpu()
    available = {what for what, here, _, _ in found.rows() if here == "yes"}
    assert available == {
        "Paddle on the CPU",
        "Paddle to ONNX",
        "ONNX Runtime on the CPU",
        "TensorRT builds engines",
        "TensorRT builds INT8",
        "Polygraphy",
    }
    assert found.missing_for_default() == []
    assert found.tensorrt_build.reason == "TensorRT-RTX 1.7.1.116."
    assert found.tensorrt_run.reason.startswith("No NVIDIA driver found")
    for what, here, _, remedy in found.rows():
        assert (remedy == "") is (here == "yes")
        if here == "no" and what != NO_DRIVER.name:
            assert remedy.startswith("Nothing is broken: ")


def test_bare_interpreter_is_told_what_to_install():
    found = assess(None, NO_DRIVER, {}, None)
    assert [missing.remedy for missing in found.missing_for_default()] == [
        "Run `python -m pip install paddlepaddle==3.3.1`.",
        "Run `python -m pip install paddlepaddle==3.3.1`.",
        'Run `python -m pip install "onnxruntime>=1.20,!=1.30.0"`.',
        "Run `python -m pip install tensorrt-rtx==1.7.1.116`.",
    ]


# The rules: TensorRT


@pytest.mark.parametrize(
    ("compute_capability", "version", "runs"),
    [
        ("7.0", "1.7.1.116", False),
        ("7.5", "1.7.1.116", True),
        ("8.9", "1.7.1.116", True),
        ("9.0", "1.6.1.120", True),
        ("9.0", "1.7.1.116", False),
        ("12.0", "1.7.1.116", True),
    ],
)
def test_rtx_against_compute_capability(compute_capability, version, runs):
    found = on_gpu(compute_capability, tensorrt_rtx=Library(version))
    assert found.tensorrt_run.available is runs
    assert found.tensorrt_build.available  # building needs no fitting GPU


def test_hopper_is_told_the_version_that_works():
    run = on_gpu("9.0").tensorrt_run
    assert "Hopper" in run.reason
    assert run.remedy == "Run `python -m pip install tensorrt-rtx==1.6.1.120`."
    without = {name: library for name, library in DEFAULT.items() if name != "tensorrt_rtx"}
    assert assess(gpu("9.0"), DRIVER, without, None).tensorrt_build.remedy == run.remedy


def test_hopper_is_not_sent_back_to_the_version_that_does_not_run():
    found = on_gpu("9.0", tensorrt_rtx=Library("1.6.1.120"))
    assert found.tensorrt_run.available
    assert "keep 1.6.1.120" in found.tensorrt_int8.remedy


def test_int8_needs_rtx_1_7_1():
    int8 = on_gpu("8.6", tensorrt_rtx=Library("1.6.1.120")).tensorrt_int8
    assert not int8.available
    assert "1.6.1.120 can't build INT8" in int8.reason
    assert int8.remedy == "Run `python -m pip install tensorrt-rtx==1.7.1.116`."
    assert on_cpu().tensorrt_int8.available
    assert on_gpu("8.6", "tensorrt", tensorrt=Library("10.5.0")).tensorrt_int8.available


def test_data_centre_tensorrt_needs_a_gpu_to_build():
    tensorrt = Library("10.5.0")
    found = on_cpu("tensorrt", tensorrt=tensorrt)
    assert not found.tensorrt_build.available
    assert "needs an NVIDIA GPU also to build" in found.tensorrt_build.reason
    assert "set TUTORIAL_UTILS_TENSORRT=tensorrt_rtx" in found.tensorrt_build.remedy
    alone = assess(None, NO_DRIVER, {"tensorrt": tensorrt}, "tensorrt").tensorrt_build
    assert alone.remedy == "Run `python -m pip install tensorrt-rtx==1.7.1.116`."
    assert on_gpu("9.0", "tensorrt", tensorrt=tensorrt).tensorrt_run.available


@pytest.mark.parametrize(
    ("compute_capability", "version", "builds", "reason"),
    [
        ("8.6", "8.6.1.post1", False, "too old"),
        ("8.6", "10.0.1", True, "TensorRT 10.0.1"),
        ("8.6", "11.4.0.106", True, "TensorRT 11.4.0.106"),
        ("7.0", "10.5.0", False, "needs 7.5"),
        ("12.0", "10.5.0", False, "Blackwell"),
        ("10.0", "10.7.0", False, "Blackwell"),
        ("10.0", "10.8.0.43", True, "TensorRT 10.8.0.43"),
        ("12.0", "10.13.3.9", True, "TensorRT 10.13.3.9"),
    ],
)
def test_data_centre_tensorrt_against_compute_capability(compute_capability, version, builds, reason):
    found = on_gpu(compute_capability, "tensorrt", tensorrt=Library(version))
    assert found.tensorrt_build.available is builds
    assert found.tensorrt_run.available is builds
    assert reason in found.tensorrt_build.reason


def test_flavour_asked_for_but_not_installed(monkeypatch):
    monkeypatch.setenv("TUTORIAL_UTILS_TENSORRT", "tensorrt")
    assert on_gpu("8.6", "tensorrt").tensorrt_build.reason == (
        "TUTORIAL_UTILS_TENSORRT asks for tensorrt, which is not installed."
    )


@pytest.mark.parametrize("name", ["tensorrt-rtx", "onnxruntime"])
def test_flavour_that_does_not_exist_is_named_wherever_it_matters(name):
    """Also one that is the name of another library, which must not pass for a TensorRT."""
    found = on_gpu("8.6", name)
    for capability in (found.tensorrt_build, found.tensorrt_int8, found.tensorrt_run):
        assert not capability.available
        assert capability.reason == f"TUTORIAL_UTILS_TENSORRT is {name!r}, which is no TensorRT."
        assert "tensorrt_rtx or tensorrt" in capability.remedy
    assert found.tensorrt_build in found.missing_for_default()
    assert found.onnxruntime_cpu.available


def test_running_engines_needs_pycuda():
    found = assess(gpu("8.6"), DRIVER, DEFAULT, "tensorrt_rtx")
    assert "needs PyCUDA. pycuda is not installed" in found.tensorrt_run.reason
    assert 'pip install "pycuda>=' in found.tensorrt_run.remedy
    broken = on_gpu("8.6", pycuda=Library("2026.1", error="ImportError: libcurand.so.10"))
    assert "libcurand" in broken.tensorrt_run.reason
    assert not broken.pycuda.available


# The rules: ONNX Runtime and Paddle on the GPU


def test_onnxruntime_cpu_build_has_no_cuda():
    cuda = on_gpu("8.6").onnxruntime_cuda
    assert "no CUDA provider" in cuda.reason
    assert "pip uninstall -y onnxruntime" in cuda.remedy
    assert "pip install onnxruntime-gpu" in cuda.remedy
    assert on_gpu("8.6", onnxruntime=ORT_GPU).onnxruntime_cuda.available


def test_onnxruntime_builds_that_overwrite_each_other():
    both = Library("1.32.0", details=ORT.details, distributions=("onnxruntime-gpu", "onnxruntime"))
    assert "both installed" in on_gpu("8.6", onnxruntime=both).onnxruntime_cuda.reason


def test_cpu_paddle_has_no_gpu_and_no_tensorrt():
    found = on_gpu("8.6")
    assert found.paddle_gpu.reason == "Paddle 3.3.1 is the CPU build."
    assert "Only Paddle's GPU builds hold paddle.tensorrt" in found.paddle_tensorrt.reason
    assert "environment.yml" in found.paddle_tensorrt.remedy


@pytest.mark.parametrize(
    ("tensorrt", "available", "reason"),
    [
        (Library("10.5.0"), True, "compiled for TensorRT 10.5.0, with 10.5.0"),
        (Library("10.13.3.9"), True, "with 10.13.3.9"),
        (Library("11.4.0.106"), False, "compiled for TensorRT 10.5.0, and 11.4.0.106 is installed"),
        (Library("10.5.0", error="OSError: libnvinfer.so.10"), False, "libnvinfer.so.10"),
    ],
)
def test_paddle_tensorrt_against_installed_tensorrt(tensorrt, available, reason):
    found = on_gpu("8.6", paddle=PADDLE_GPU, tensorrt=tensorrt)
    assert found.paddle_gpu.available
    assert found.paddle_tensorrt.available is available
    assert reason in found.paddle_tensorrt.reason


@pytest.mark.parametrize(("capability", "kernels"), [("8.9", True), ("9.0", False)])
def test_paddle_without_kernels_for_the_gpu_only_runs_engines(capability, kernels):
    paddle = Library("2.6.2", details={"cuda": True, "tensorrt": [8, 5, 3], "kernels": [75, 80, 86]})
    found = on_gpu(capability, paddle=paddle, tensorrt=Library("8.6.1"))
    assert found.paddle_gpu.available is kernels
    assert ("none for 9.0" in found.paddle_gpu.reason) is not kernels
    assert found.paddle_tensorrt.available
    assert ("only programs that become engines as a whole" in found.paddle_tensorrt.reason) is not kernels


def test_paddle_tensorrt_needs_tensorrt_and_a_build_with_it():
    assert "tensorrt is not installed" in on_gpu("8.6", paddle=PADDLE_GPU).paddle_tensorrt.reason
    without = Library("3.3.1", details={"cuda": True, "tensorrt": [0, 0, 0]})
    assert "compiled without TensorRT" in on_gpu("8.6", paddle=without).paddle_tensorrt.reason


# What a reader sees


def test_text_fits_the_terminal_and_keeps_every_word(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((72, 24)))
    found = on_gpu("9.0")
    text = str(found)
    assert max(len(line) for line in text.splitlines()) <= 72
    for what, _, why, remedy in found.rows():
        for words in (what, why, remedy):
            assert set(words.split()) <= set(text.split())
    assert "tensorrt-rtx==1.6.1.120" in text  # a command is not broken at its hyphens


def test_html_escapes_what_libraries_say():
    found = on_gpu("8.6", polygraphy=Library("1", error="ValueError: <b>|"))
    assert "&lt;b&gt;|" in found._repr_html_()
    assert "<b>" not in found._repr_html_()
    assert "onnxruntime-gpu &amp;&amp; python -m pip install onnxruntime-gpu</code>" in found._repr_html_()


def test_machine_is_the_stamp_of_a_recording():
    machine = on_gpu("8.6").machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["gpu"] == "Test GPU"
    assert machine["driver_cuda_version"] == "13.0"
    assert machine["cpu"]
    assert machine["libraries"] == {
        "paddle": "3.3.1",
        "paddle2onnx": "2.1.0",
        "onnxruntime": "1.32.0",
        "polygraphy": "0.53.6",
        "tensorrt_rtx": "1.7.1.116",
        "pycuda": "2026.1",
    }
    assert on_cpu().machine()["gpu"] is None


def test_a_gpu_measurement_starts_with_the_reason_why_it_cannot_run(monkeypatch):
    no = Capability("TensorRT runs engines", False, "No GPU here.", "Nothing is broken.")
    machine = dataclasses.replace(capabilities.probe(), tensorrt_run=no)
    monkeypatch.setattr(capabilities, "probe", lambda: machine)
    with pytest.raises(BackendUnavailableError, match=r"No GPU here\. Remedy: Nothing is broken"):
        capabilities.require_tensorrt_run()
    able = dataclasses.replace(machine, tensorrt_run=dataclasses.replace(no, available=True))
    monkeypatch.setattr(capabilities, "probe", lambda: able)
    assert capabilities.require_tensorrt_run() is able


def test_of_two_flavours_the_one_that_fits_the_gpu_runs(monkeypatch):
    both = {"tensorrt_rtx": Library("1.7.1.116"), "tensorrt": Library("10.6.0")}
    monkeypatch.setattr(capabilities, "choice", lambda: Choice("tensorrt", "NVIDIA doesn't list the other one."))
    machine = on_gpu("9.0", "tensorrt", **both)
    assert machine.runs("tensorrt") == machine.tensorrt_run
    assert machine.runs("tensorrt").available
    other = machine.runs("tensorrt_rtx")
    assert not other.available
    assert (
        other.reason == "This is TensorRT-RTX, and TensorRT is the one to run here. NVIDIA doesn't list the other one."
    )
    assert other.remedy == "Import tensorrt."
    without = on_cpu("tensorrt_rtx", **both)
    assert without.runs("tensorrt").reason == without.tensorrt_run.reason, "there is no GPU: that comes first"
