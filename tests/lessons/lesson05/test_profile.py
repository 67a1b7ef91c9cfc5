"""Lesson 05, profile: the layers of an engine timed on a GPU."""

import pytest

from tutorial_utils.lessons.lesson05 import profile


@pytest.mark.gpu
def test_layers_are_timed_once_a_call(fp32_model):
    measured = profile.profile(fp32_model, (3, 32, 32), batch=8, calls=10)
    assert measured.engine_ms > 0
    assert measured.profiled_ms > 0
    assert set(measured.calls.values()) == {10}
    assert measured.layers.keys() == measured.calls.keys()
    assert measured.inspector["Layers"]
