"""Lesson 02: its code of Paddle-TRT against the recorded signatures, its recording, tables, timings and figures."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pictures
import pytest
import runners.paddle_signatures as recorded
from small_models import images

from tutorial_utils.authoring import notebook_form
from tutorial_utils.lessons.lesson02 import cold_calls, configurations, figures
from tutorial_utils.measure import recordings, timing
from tutorial_utils.model.data import Dataset

LESSON = notebook_form.read(Path(__file__).parents[3] / "notebooks" / "02_paddle_tensorrt.ipynb")
BLOCKS = [
    block
    for cell in LESSON.cells
    if cell.cell_type == "markdown"
    for block in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
]


# --- code that the lesson shows and can't run ------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().partition("\n")[0][:40])
def test_code_that_is_only_shown_fits_the_recorded_signatures(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trt").mkdir()
    precision = SimpleNamespace(Float32=0, Int8=1, Half=2)
    names = {name: getattr(recorded, name) for name in ("Input", "PrecisionMode", "TensorRTConfig", "convert")}
    names["paddle"] = SimpleNamespace(inference=SimpleNamespace(Config=recorded.Config, PrecisionType=precision))
    names["os"] = os
    code = "\n".join(line for line in block.splitlines() if not line.startswith("from paddle.tensorrt"))
    exec(code, names)
    assert isinstance(names["config"], (recorded.Config, recorded.TensorRTConfig))


def test_both_ways_are_shown():
    assert len(BLOCKS) == 2
    imported = re.search(r"from paddle\.tensorrt\.export import (.*)", "\n".join(BLOCKS))[1].split(", ")
    assert imported == ["Input", "PrecisionMode", "TensorRTConfig", "convert"]
    legacy = next(block for block in BLOCKS if "enable_tensorrt_engine" in block)
    assert "use_calib_mode=False" in legacy


# --- the article -----------------------------------------------------------------------------------------------------


def test_recording_of_the_article_is_marked_as_published_and_gives_its_table():
    article = recordings.load("article_paddle_trt")
    assert article.source == "published"
    assert article.stamp.startswith("published on RTX Ada (compute capability 8.9) on 2025-01-10 with Paddle 2.6.1")
    assert "single cold call" in article.method
    seconds = [row["call_s"] for row in article.data["rows"]]
    assert [round(seconds[0] / one, 1) for one in seconds] == [1.0, 23.6, 93.7]
    assert {row["accuracy"] * article.data["images"] for row in article.data["rows"]} == {46}


# --- measuring -------------------------------------------------------------------------------------------------------


def test_configurations_are_compared_with_the_first():
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=20)
    right = np.eye(10, dtype=np.float32)[labels]
    wrong = right.copy()
    wrong[:2] = np.roll(right[:2], 1, axis=1)
    dataset = Dataset("digits", np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1), labels, tuple("0123456789"))
    given = {
        "first": ("fp32", lambda batch: right[batch[:, 0, 0, 0].astype(int)]),
        "second": ("fp16", lambda batch: wrong[batch[:, 0, 0, 0].astype(int)]),
    }
    rows = configurations.measure(given, dataset, model_bytes=1000, batch=8, seconds=0.01)
    assert [(row.label, row.agreement, row.quality.accuracy) for row in rows] == [
        ("first FP32", 1.0, 1.0),
        ("second FP16", 0.9, 0.9),
    ]
    assert rows[1].relative_error == 1.0
    assert rows[1].latency.batch == 8
    times, quality = configurations.times_table(rows), configurations.quality_table(rows)
    assert times["speed-up (95 % interval)"].iloc[0] == ""
    assert re.fullmatch(r"\d+\.\d\dx \(\d+\.\d\d to \d+\.\d\d\)", times["speed-up (95 % interval)"].iloc[1])
    assert list(quality["same answer %"]) == ["100.00", "90.00"]


@pytest.fixture(scope="module")
def calls(paddle_model):
    choices = [("plain", {"onednn": False, "optimize": False, "threads": 1}), ("oneDNN", {"threads": 1})]
    return cold_calls.in_fresh_process(*paddle_model, images(4), choices)


def test_cold_calls_come_from_a_fresh_process_with_warm_ones(calls):
    assert [call.name for call in calls] == ["plain", "oneDNN"]
    assert all(call.create_ms > 0 and call.first_ms > 0 for call in calls)
    assert all(call.warm.calls >= 10 and call.warm.warmup_calls > 10 for call in calls)


def test_speed_ups_and_their_figure(calls):
    (one,) = cold_calls.speed_ups(calls)
    assert one.cold == calls[0].first_ms / calls[1].first_ms
    assert one.warm == timing.compare(calls[0].warm, calls[1].warm)
    picture = figures.apparent_speed_ups([one], "plain")
    assert picture.text == (
        f"oneDNN: {one.cold:.2f}x by one cold call, {one.warm.speedup:.2f}x by warm calls "
        f"({one.warm.low:.2f} to {one.warm.high:.2f})"
    )
    assert "over plain" in picture.alt
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes) == [(one.cold, 0), (one.warm.speedup, 0)]
    assert pictures.lines(axes)[1] == ([one.warm.low, one.warm.high], [0, 0])


def test_figure_of_intervals():
    picture = figures.accuracy_intervals({"few": (46, 64), "many": (594, 600)})
    few, many = picture.text.splitlines()
    assert few == "few: 46 of 64, 71.9 %, interval 59.9 % to 81.4 %, 21.5 points wide"
    assert many.endswith("1.7 points wide")
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes) == [pytest.approx((100 * 46 / 64, 0)), pytest.approx((99, 1))]
    assert pictures.lines(axes)[0][0] == pictures.near([59.9, 81.4], 0.05)
