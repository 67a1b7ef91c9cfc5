"""The three lists of packages agree: environment.yml (GPU), pyproject.toml (ranges), requirements.txt (tested pins)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tutorial_utils.base.requirements import TEXT_DETECTION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT = (ROOT / "environment.yml").read_text()
PYTHONS = ("3.10", "3.11", "3.12")

# Builds of one library, of which an environment holds one: they overwrite each other's files.
ALTERNATIVES = [{"paddlepaddle", "paddlepaddle-gpu"}, {"onnxruntime", "onnxruntime-gpu"}]


def parsed(lines):
    """Requirements by name."""
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def pins(python):
    """The version of each package that requirements.txt gives for a Python version on Linux."""
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] not in "# "]
    target = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
    }
    found = [req for req in map(Requirement, lines) if req.marker is None or req.marker.evaluate(target)]
    assert len(found) == len({req.name for req in found}), "a package has two versions"
    return {canonicalize_name(req.name): str(req.specifier).removeprefix("==") for req in found}


def environment(text=ENVIRONMENT):
    """Conda packages, pip packages and pip options of an environment file."""
    *conda, pip = yaml.safe_load(text)["dependencies"]
    options = [line for line in pip["pip"] if line.startswith("-")]
    conda = dict(line.split("=") for line in conda if "=" in line)
    return conda, parsed(line for line in pip["pip"] if not line.startswith("-")), options


def for_rtx_50():
    """The environment file with the lines replaced for which it gives one for RTX 50, and how many they were."""
    lines = ENVIRONMENT.splitlines()
    new = {n - 1: line.split("RTX 50: ")[1] for n, line in enumerate(lines) if line.startswith("    # RTX 50: ")}
    return "\n".join(f"    - {new[n]}" if n in new else line for n, line in enumerate(lines)), len(new)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_of_the_default_has_a_pin_in_its_range(python):
    pinned = pins(python)
    for name, requirement in parsed([*PROJECT["dependencies"], *EXTRAS["default"], *EXTRAS["test"]]).items():
        assert name in pinned, f"run `make lock`: {name} is missing"
        assert requirement.specifier.contains(pinned[name]), f"run `make lock`: {name} {pinned[name]}"


@pytest.mark.parametrize("extra", ["default", "gpu", "hopper"])
def test_extras_are_complete_and_agree(extra):
    given = parsed([*PROJECT["dependencies"], *EXTRAS[extra]])
    assert {"paddlepaddle", "tensorrt-rtx"} <= given.keys()
    assert ("onnxruntime" in given) != ("onnxruntime-gpu" in given)
    assert ("pycuda" in given) == (extra != "default")
    assert given["paddlepaddle"] == parsed(EXTRAS["default"])["paddlepaddle"]


def test_hopper_has_the_version_that_runs_there():
    assert str(parsed(EXTRAS["hopper"])["tensorrt-rtx"].specifier) == "==1.6.1.120"
    assert "tensorrt-rtx==1.6.1.120" in (ROOT / "Makefile").read_text(), "make test-hopper tests another version"


def test_environment_is_complete():
    conda, pip, options = environment()
    assert {"python", "pycuda", "cuda-version"} <= conda.keys()
    assert {"paddlepaddle-gpu", "tensorrt-cu12", "onnxruntime-gpu", "paddle2onnx", "polygraphy"} <= pip.keys()
    assert {"-e .[test]", "-c requirements.txt"} <= set(options)
    assert {"jupyterlab", "matplotlib", "nbval"} <= parsed([*PROJECT["dependencies"], *EXTRAS["test"]]).keys()


def test_environment_agrees_with_the_default():
    """What both have is the same version, or is within the range that the code is written for."""
    conda, pip, _ = environment()
    ranges = parsed([*PROJECT["dependencies"], *EXTRAS["default"], *EXTRAS["test"]])
    pinned = pins(conda["python"])
    for name, requirement in pip.items():
        version = str(requirement.specifier).removeprefix("==")
        assert re.fullmatch(r"[\d.]+", version), f"{requirement} is no pin"
        same = name.removesuffix("-gpu")
        if same in ranges:
            assert ranges[same].specifier.contains(version), f"{requirement} is outside pyproject.toml's range"
        if name in pinned:
            assert pinned[name] == version, f"-c requirements.txt asks for {name} {pinned[name]}"
    assert pinned["numpy"].startswith(conda["numpy"] + ".")
    assert ranges["paddlepaddle"].specifier == pip["paddlepaddle-gpu"].specifier


@pytest.mark.parametrize("names", ALTERNATIVES, ids=min)
def test_environment_has_one_build_of_each_library(names):
    _, pip, _ = environment()
    installed = pip.keys() | parsed([*PROJECT["dependencies"], *EXTRAS["test"]]).keys()
    assert len(installed & names) == 1


def test_environment_never_has_tensorrt_11_or_two_flavours():
    for text in (ENVIRONMENT, for_rtx_50()[0]):
        _, pip, _ = environment(text)
        assert pip["tensorrt-cu12"].specifier.contains("10.5.0") or pip["tensorrt-cu12"].specifier.contains("10.13.3.9")
        assert not {"tensorrt", "tensorrt-rtx"} & pip.keys()


def test_rtx_50_is_a_change_of_two_lines():
    text, count = for_rtx_50()
    assert count == 2
    (conda, pip, options), (old_conda, old_pip, old_options) = environment(text), environment()
    assert conda == old_conda
    changed = [name for name in pip if pip[name] != old_pip[name]]
    assert changed == ["tensorrt-cu12"]
    assert str(pip["tensorrt-cu12"]) == "tensorrt-cu12==10.13.3.9"
    (index,) = set(options) - set(old_options)
    assert index.endswith("/cu129/")
    assert len(options) == len(old_options)


def test_pins_of_the_environment_have_a_reason():
    lines = ENVIRONMENT[ENVIRONMENT.index("dependencies:") :].splitlines()
    bare = [line for line in lines if "==" in line.partition("#")[0] and "#" not in line]
    assert bare == []


@pytest.mark.parametrize("name", ["environment.yml", "pyproject.toml", "requirements.txt"])
def test_packages_come_from_public_indexes_alone(name):
    hosts = set(re.findall(r"\w+://([^/\s\"']+)", (ROOT / name).read_text()))
    assert hosts <= {"pypi.nvidia.com", "www.paddlepaddle.org.cn"}
    assert (name == "environment.yml") == bool(hosts)


def test_every_installation_brings_the_network_of_lesson_04_and_none_its_dependencies():
    """Its version stands in one file, which prints it for all."""
    module = "tutorial_utils.base.requirements"
    shown = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == f"{TEXT_DETECTION}\n"
    for name in ("README.md", "environment.yml", ".binder/postBuild", "Makefile"):
        text = (ROOT / name).read_text()
        assert len(re.findall(rf'install --no-deps "?\$+\(\S+( -m)? {module}\)', text)) == 1, name
        assert TEXT_DETECTION not in text, name
    name = TEXT_DETECTION.partition("==")[0]
    everything = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    assert name not in parsed(everything)
    assert all(name not in pins(python) for python in PYTHONS)


def test_environment_takes_channels_from_conda_forge_alone():
    assert yaml.safe_load(ENVIRONMENT)["channels"] == ["conda-forge", "nodefaults"]


def test_scripts_for_conda_are_part_of_the_package():
    """An editable installation, too, must put them where `conda activate` looks."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for folder, target in wheel["shared-data"].items():
        assert (ROOT / folder / "tensorrt_libraries.sh").is_file()
        assert target == f"etc/{folder}"
    assert len(wheel["shared-data"]) == 2
