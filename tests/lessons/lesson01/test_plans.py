"""Lesson 01, plans: how they are damaged, what is loaded and refused on a GPU, and the picture of times."""

import pictures
import pytest
from small_models import options

from tutorial_utils.engine import build
from tutorial_utils.lessons.lesson01 import plans


def test_damaged_plans_differ_from_the_plan():
    plan = b"vtrt" + bytes(range(100))
    copies = plans.damaged(plan)
    assert copies.pop("untouched") == plan
    assert all(copy != plan for copy in copies.values())


def test_times_to_a_context():
    load = {"read_ms": 2.0, "deserialize_ms": 3.0, "context_ms": 400.0}
    picture = plans.draw(plans.read({"loads": {"small": {"parse_ms": 1.0, "build_ms": 100.0, **load}}, "refusals": {}}))
    assert picture.text.splitlines()[0].startswith("small, from ONNX: 504 ms (parse 1.0, build 100.0, deserialize 3.0")
    assert picture.text.splitlines()[1].startswith("small, from the plan: 405 ms (read the plan 2.0, deserialize 3.0")
    (axes,) = pictures.drawn(picture)
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] == 0
    ends = {}  # of each row, where its last step ends
    for left, bottom, width, height in pictures.bars(axes):
        row = round(bottom + height / 2)
        assert left == pytest.approx(ends.get(row, 0))  # a step begins where the one before it ends
        ends[row] = left + width
    assert ends == {0: pytest.approx(504), 1: pytest.approx(405)}


@pytest.mark.gpu
def test_a_load_is_timed_in_its_parts(fp32_model):
    build(fp32_model, options())
    loaded = plans.load(fp32_model, options())
    assert min(loaded.read_ms, loaded.deserialize_ms, loaded.context_ms) > 0


@pytest.mark.gpu
def test_refusals_are_in_the_runtimes_words(fp32_model):
    plan = build(fp32_model, options()).plan
    assert plans.refusal(plan) == "loads"
    assert plans.refusal(plan[: len(plan) // 2]) not in ("loads", "TensorRT gave no message")
