"""The report read from the build log is that of the engine inspector on a GPU: ResNet-50 FP16, TensorRT-RTX 1.6.1.

The inspector's text is in a recording of an H200. Against it stands a build with the same TensorRT-RTX without a GPU:
of just now where that version is installed, as in ``make test-hopper``, and else of `data`. To make that file anew:
``PYTHONPATH=build/rtx-1.6.1 python tests/engine/test_inspector_equality.py``
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tutorial_utils.base import flavour
from tutorial_utils.engine import BuildOptions, BuildReport, Profile, build
from tutorial_utils.engine.report import layers_from_inspector
from tutorial_utils.lessons.lesson05 import diff
from tutorial_utils.measure import recordings
from tutorial_utils.model import networks

INSPECTED = "ResNet-50 FP16, batch 1"
RTX = "1.6.1.120"
DATA = Path(__file__).parent / "data" / "resnet50_fp16_report_rtx_1.6.1.json"


def report_from_log() -> BuildReport:
    """Build ResNet-50 FP16 for one image with the installed TensorRT."""
    options = BuildOptions(profiles=(Profile.batch("x", (3, 224, 224), opt=1, max=1),))
    return build(networks.resnet50()["fp16"], options, use_cache=False, progress=False).report


def layers_of_the_gpu():
    inspector = recordings.load("lesson05_layers").data["engines"][INSPECTED]["inspector"]
    return layers_from_inspector(json.dumps(inspector))


def test_kept_report_is_that_of_the_inspector():
    kept = BuildReport.from_dict(json.loads(DATA.read_text(encoding="utf-8")))
    assert kept.version == RTX
    assert len(kept.layers) > 60
    assert diff.differences(kept.layers, layers_of_the_gpu()) == []


@pytest.mark.skipif(
    flavour.installed_flavour() != "tensorrt_rtx" or flavour.load().__version__ != RTX,
    reason=f"compares a build of just now with TensorRT-RTX {RTX}: make test-hopper",
)
def test_report_of_just_now_is_that_of_the_inspector():
    assert diff.differences(report_from_log().layers, layers_of_the_gpu()) == []


def test_one_wrong_layer_is_found():
    layers = layers_of_the_gpu()
    wrong = (*layers[:5], replace(layers[5], onnx_nodes=()), *layers[6:])
    assert len(diff.differences(wrong, layers)) == 1


if __name__ == "__main__":
    DATA.write_text(json.dumps(report_from_log().to_dict(), indent=None) + "\n", encoding="utf-8")
