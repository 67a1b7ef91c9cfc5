"""Lesson 01, plans: what is loaded and refused on a GPU."""

import pytest
from small_models import options

from tutorial_utils.engine import build
from tutorial_utils.lessons.lesson01 import plans

pytestmark = pytest.mark.gpu


def test_a_load_is_timed_in_its_parts(fp32_model):
    built = build(fp32_model, options())
    loaded = plans.load(fp32_model, options())
    assert min(loaded.read_ms, loaded.deserialize_ms, loaded.context_ms) > 0
    assert loaded.reported_bytes == built.report.activation_bytes
    assert loaded.asked_bytes >= 0


def test_refusals_are_in_the_runtimes_words(fp32_model):
    plan = build(fp32_model, options()).plan
    assert plans.refusal(plan) == "loads"
    assert plans.refusal(plan[: len(plan) // 2]) not in ("loads", "TensorRT gave no message")
