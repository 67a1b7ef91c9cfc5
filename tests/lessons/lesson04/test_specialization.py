"""Lesson 04, specialization: an engine is called with each strategy on a GPU."""

import pytest

from tutorial_utils.base import flavour
from tutorial_utils.lessons.lesson04 import specialization

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(flavour.installed_flavour() != "tensorrt_rtx", reason="only TensorRT-RTX has strategies"),
]


def test_every_strategy_answers_rightly(fp32_model, monkeypatch):
    monkeypatch.setattr(specialization, "SECONDS", (0.0, 0.05))
    rows = specialization.measure(fp32_model)
    assert [row["strategy"] for row in rows] == list(specialization.STRATEGIES)
    for row in rows:
        assert max(row["errors"]) < 2e-3
        assert 1 <= row["calls"][0] <= row["calls"][1]
