import sys
from types import ModuleType, SimpleNamespace

import pytest

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import Gpu


@pytest.fixture(autouse=True)
def _fresh_choice(monkeypatch):
    """Forget the flavour of this process for one test."""
    monkeypatch.delenv(flavour.FLAVOUR_VARIABLE, raising=False)
    monkeypatch.setattr(flavour, "load", flavour.load.__wrapped__)


def install(monkeypatch, *names):
    monkeypatch.setattr(flavour, "find_spec", lambda name: SimpleNamespace(origin=name) if name in names else None)


@pytest.mark.parametrize(
    ("installed", "variable", "expected"),
    [
        (("tensorrt",), None, "tensorrt"),
        ((), None, None),
        (("tensorrt_rtx", "tensorrt"), "tensorrt", "tensorrt"),
        (("tensorrt",), "tensorrt_rtx", "tensorrt_rtx"),
        (("tensorrt",), "cuda", "cuda"),  # not the one that is installed: nobody would notice
        (("tensorrt",), "", "tensorrt"),
    ],
)
def test_choice_of_flavour(installed, variable, expected, monkeypatch):
    install(monkeypatch, *installed)
    if variable is not None:
        monkeypatch.setenv(flavour.FLAVOUR_VARIABLE, variable)
    assert flavour.installed_flavour() == expected


@pytest.mark.parametrize(
    ("compute_capability", "expected", "reason"),
    [
        (None, "tensorrt_rtx", "Without a GPU, only this one builds engines."),
        ("7.5", "tensorrt_rtx", "NVIDIA lists it for compute capability 7.5."),
        ("8.9", "tensorrt_rtx", "NVIDIA lists it for compute capability 8.9."),
        ("12.0", "tensorrt_rtx", "NVIDIA lists it for compute capability 12.0."),
        ("8.0", "tensorrt", "NVIDIA doesn't list TensorRT-RTX for compute capability 8.0 (Test GPU)."),
        ("9.0", "tensorrt", "NVIDIA doesn't list TensorRT-RTX for compute capability 9.0 (Test GPU)."),
        ("10.0", "tensorrt", "NVIDIA doesn't list TensorRT-RTX for compute capability 10.0 (Test GPU)."),
    ],
)
def test_choice_of_two_by_the_gpu(compute_capability, expected, reason, monkeypatch):
    gpu = compute_capability and Gpu("Test GPU", compute_capability, "13.0", 80 * 2**30)
    install(monkeypatch, *flavour.FLAVOURS)
    monkeypatch.setattr(flavour, "find_gpu", lambda: (gpu, None))
    assert flavour.choice() == flavour.Choice(expected, reason)
    assert flavour.installed_flavour() == expected


@pytest.mark.parametrize("installed", [(), ("tensorrt",), ("tensorrt_rtx",), ("tensorrt_rtx", "tensorrt")])
def test_driver_is_asked_only_where_its_gpu_decides(installed, monkeypatch):
    asked = []
    install(monkeypatch, *installed)
    monkeypatch.setattr(flavour, "find_gpu", lambda: asked.append(True) or (None, None))
    flavour.choice()
    assert bool(asked) == (len(installed) == 2)
    monkeypatch.setenv(flavour.FLAVOUR_VARIABLE, "tensorrt")
    assert flavour.choice() == flavour.Choice("tensorrt", "TUTORIAL_UTILS_TENSORRT asks for it.")
    assert len(asked) == (len(installed) == 2)


def test_module_without_a_spec_is_not_installed(monkeypatch):
    for name in flavour.FLAVOURS:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert flavour.installed_flavour() is None


def test_none_installed(monkeypatch):
    install(monkeypatch)
    with pytest.raises(BackendUnavailableError, match=r"No TensorRT is installed.*pip install tensorrt-rtx"):
        flavour.load()


@pytest.mark.parametrize("name", ["tensorrt-rtx", "TensorRT", "tensorrt_rtx ", "pytest"])
def test_mistyped_name_is_refused_though_a_flavour_is_installed(name, monkeypatch):
    install(monkeypatch, *flavour.FLAVOURS)
    for known in flavour.FLAVOURS:
        monkeypatch.setitem(sys.modules, known, SimpleNamespace(__version__="10.5.0"))
    monkeypatch.setenv(flavour.FLAVOUR_VARIABLE, name)
    with pytest.raises(BackendUnavailableError) as caught:
        flavour.load()
    assert repr(name) in caught.value.cause
    assert "Set TUTORIAL_UTILS_TENSORRT to tensorrt_rtx or tensorrt, or unset it" in caught.value.remedy


def test_right_names_are_not_mistyped():
    assert [flavour.mistyped(name) for name in (*flavour.FLAVOURS, None)] == [None] * 3


def test_import_fails(monkeypatch):
    install(monkeypatch, "tensorrt_rtx")

    def broken(name):
        raise OSError("libtensorrt_rtx.so.1: file too short")

    monkeypatch.setattr(flavour.importlib, "import_module", broken)
    with pytest.raises(BackendUnavailableError, match=r"TensorRT-RTX is installed but can't be imported.*too short"):
        flavour.load()


@pytest.mark.parametrize("version", ["8.6.1", "10.5.0", "11.4.0"])
def test_tensorrt_before_10_is_refused(version, monkeypatch):
    install(monkeypatch, "tensorrt")
    module = ModuleType("tensorrt")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    if version.startswith("8"):
        with pytest.raises(BackendUnavailableError, match=r"8\.6\.1 is too old"):
            flavour.load()
    else:
        assert flavour.load() is module
