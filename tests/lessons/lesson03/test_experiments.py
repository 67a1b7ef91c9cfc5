"""Lesson 03's experiments: what needs no GPU and, on one, that inference by hand agrees with the runner."""

import numpy as np
import pytest
from small_models import images, options

from tutorial_utils.machine import capabilities

pytest.importorskip("tensorrt_rtx")
from tutorial_utils import engine
from tutorial_utils.engine.tensorrt import MessageLog
from tutorial_utils.lessons.lesson03 import by_hand, inference


def test_profile_of_values_builds(tmp_path):
    """The output shape of this engine follows the value of an input, so its profile ranges over values."""
    assert inference.build_top_k(inference.save_top_k(tmp_path / "top_k.onnx")).plan


@pytest.fixture
def on_gpu():
    machine = capabilities.probe()
    if not machine.tensorrt_run.available:
        pytest.skip(machine.tensorrt_run.reason)
    with by_hand.primary_context():
        yield


@pytest.mark.gpu
def test_every_way_by_hand_agrees_with_the_runner(fp32_model, on_gpu):
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    built, feeds, log = engine.build(fp32_model, options(), use_cache=False), {"x": images(4)}, MessageLog()
    with TensorRTRunner(built) as runner:
        expected = runner.infer(feeds)["y"]
    loaded = by_hand.load(built.plan, log)
    lanes = [by_hand.make_lane(loaded, {"x": feeds["x"].shape}, log, cuda_graph=graph) for graph in (False, True)]
    outputs = [*by_hand.infer_on_lanes(lanes, feeds), by_hand.infer_with_allocator(loaded, feeds, log)]
    for lane in lanes:
        by_hand.close(lane)
    for output in outputs:
        np.testing.assert_allclose(output["y"], expected, rtol=1e-3, atol=1e-4)
