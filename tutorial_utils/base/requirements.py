"""What the course needs, read from the project's own list, and what no such list can say.

The list is that of ``pyproject.toml`` where the package lies in a clone, else the metadata of its installation. Nothing
but the standard library is imported, and none of Python 3.11's: the doctor asks also where nothing is installed.
"""

import functools
import importlib.metadata
import re
from collections.abc import Mapping

from tutorial_utils.base.paths import ROOT

# Ships the network of lesson 04, and the course takes that file alone. It is installed without its dependencies, which
# no list can say of one package: they would bring OpenCV, and a second ONNX Runtime that overwrites a GPU build.
TEXT_DETECTION = "rapidocr-onnxruntime==1.4.4"
# NVIDIA's full TensorRT comes with environment.yml, in the build for its CUDA. This is the range that the course takes.
TENSORRT = "tensorrt>=10,<12"
TENSORRT_FOR_BLACKWELL = "tensorrt>=10.8,<11"

# The packages that can hold a large library. Both of a pair can be installed at once; the first is the one for the GPU.
DISTRIBUTIONS = {
    "paddle": ("paddlepaddle-gpu", "paddlepaddle"),
    "paddle2onnx": ("paddle2onnx",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "polygraphy": ("polygraphy",),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "pycuda": ("pycuda",),
}
# Modules of the other packages whose names differ from the package's in more than a hyphen.
_MODULES = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"} | {
    package: module for module, packages in DISTRIBUTIONS.items() for package in packages
}

_PROJECT = "tensorrt-course"
_LIST = re.compile(r"^([\w-]+) = \[[^\n\]]*\n(.*?)^\]", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r'^ *"([^"]+)"', re.MULTILINE)
_INSTALLED = re.compile(r"""([^;]+?) *(?:; *extra == ["']([\w-]+)["'])?""")


@functools.cache
def declared() -> Mapping[str, Mapping[str, str]]:
    """Return what the project asks for: ``declared()["default"]["paddle"]`` is "paddlepaddle==3.3.1".

    The outer keys are "dependencies" and the extras; there are none where there is neither clone nor installation.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        text = ""
    if f'\nname = "{_PROJECT}"\n' in text:  # some wheels leave their own pyproject.toml beside the packages
        project, _, _ = text.partition("\n[tool.")  # whose lists are no requirements
        pairs = [(name, entry) for name, lines in _LIST.findall(project) for entry in _ENTRY.findall(lines)]
    else:
        try:
            lines = importlib.metadata.requires(_PROJECT) or []
        except Exception:  # not installed, or metadata damaged in any of many ways
            lines = []
        pairs = [(match[2] or "dependencies", match[1]) for line in lines if (match := _INSTALLED.fullmatch(line))]
    for name, requirement in pairs:
        found.setdefault(name, {})[_module(requirement)] = requirement
    return found


def light() -> dict[str, str]:
    """Return the requirements beside the large libraries, JupyterLab among them, by module."""
    needed = declared().get("dependencies", {})
    return {module: requirement for module, requirement in needed.items() if module not in DISTRIBUTIONS}


def requirement(module: str, extra: str = "default") -> str:
    """Return what to install for a module, as pip takes it, with the tested versions; from another extra if need be."""
    if module == "tensorrt":
        return TENSORRT
    everything = declared()
    for name in (extra, "dependencies", *everything):
        if module in everything.get(name, {}):
            return everything[name][module]
    name = module.replace("_", "-")
    packages = DISTRIBUTIONS.get(module, (name,))
    return name if name in packages else packages[-1]


def pip_install(*requirements: str, options: str = "") -> str:
    """Return the command that installs requirements; a shell would take ``<`` and ``>`` for redirections."""
    quoted = [f'"{one}"' if re.search(r"[<>!\[]", one) else one for one in requirements]
    return " ".join(["python -m pip install", *filter(None, [options]), *quoted])


def _module(requirement: str) -> str:
    package = re.match(r"[\w.-]+", requirement)[0]
    return _MODULES.get(package, package.replace("-", "_"))


if __name__ == "__main__":  # for the Makefile, and for who installs by hand
    print(TEXT_DETECTION)
