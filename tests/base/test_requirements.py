"""What the course needs is read from one list, with what is at hand where nothing is installed."""

import importlib.metadata

import pytest
from packaging.requirements import Requirement
from test_environments import EXTRAS, PROJECT

from tutorial_utils.base import requirements


@pytest.fixture(autouse=True)
def _read_anew():
    requirements.declared.cache_clear()
    yield
    requirements.declared.cache_clear()


@pytest.fixture
def no_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements, "ROOT", tmp_path)


def everything():
    return {name: list(by_module.values()) for name, by_module in requirements.declared().items()}


def test_list_is_that_of_the_project():
    assert everything() == {"dependencies": PROJECT["dependencies"], **EXTRAS}


def test_installation_says_the_same_without_a_clone(no_clone):
    pytest.importorskip("tutorial_utils")
    try:
        importlib.metadata.distribution("tensorrt-course")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the course is not installed here")
    installed = {name: {Requirement(line).name for line in lines} for name, lines in everything().items()}
    wanted = {"dependencies": PROJECT["dependencies"], **EXTRAS}
    assert installed == {name: {Requirement(line).name for line in lines} for name, lines in wanted.items()}


def test_remedies_hold_the_versions_that_the_project_declares():
    assert requirements.requirement("paddle") == "paddlepaddle==3.3.1"
    assert requirements.requirement("polygraphy") == "polygraphy>=0.53.6,<0.60"
    assert requirements.requirement("pycuda") in EXTRAS["gpu"]
    assert requirements.requirement("tensorrt_rtx", "hopper") in EXTRAS["hopper"]
    assert requirements.light()["PIL"] == "pillow>=10"
    assert not requirements.light().keys() & requirements.DISTRIBUTIONS.keys()


def test_without_any_list_a_package_still_has_its_name(no_clone, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert requirements.light() == {}
    assert requirements.requirement("paddle") == "paddlepaddle"
    assert requirements.requirement("tensorrt_rtx") == "tensorrt-rtx"
    assert requirements.requirement("ml_dtypes") == "ml-dtypes"


def test_command_survives_a_shell():
    command = requirements.pip_install("a==1", "b>=2,<3", "c[x]", options="--no-deps")
    assert command == 'python -m pip install --no-deps a==1 "b>=2,<3" "c[x]"'
