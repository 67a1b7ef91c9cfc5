"""Lesson 01, asynchrony: the figures and bounds, and what the experiment says where it can't run."""

import dataclasses
import itertools

import numpy as np
import onnxruntime
import pictures
import pytest
from small_models import images, options

from tutorial_utils.base import flavour
from tutorial_utils.engine import build
from tutorial_utils.lessons.lesson01 import asynchrony
from tutorial_utils.lessons.lesson01.asynchrony import Overlap, Span, draw_streams, draw_timeline, estimate, watch
from tutorial_utils.measure import quality
from tutorial_utils.measure.timing import Measurement


def run(ms):
    return Measurement(((ms,) * 3,) * 10, ms, 11, True, 64)


@pytest.fixture
def entry():
    """Two batches of 8 in a run, with times in milliseconds that are easy to add."""
    stages = {"copy in": 1.0, "engine": 4.0, "copy out": 0.5, "enqueue": 3.0}
    runs = {"one by one": 12.0, "2 streams": 9.0, "2 streams, CUDA graph": 6.0, "2 streams, pageable": 10.0}
    return Overlap(
        batch=8,
        batches_per_run=2,
        stages_ms=stages,
        stages_graph_ms={**stages, "engine": 2.0, "enqueue": 2.5},
        runs={name: run(ms) for name, ms in runs.items()},
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one by one", 5.5),
        ("1 stream", 5.5),
        ("2 streams", 4.0),
        ("2 streams, CUDA graph", 2.5),
        ("one by one, CUDA graph", 3.5),
        ("2 streams, pageable", None),
    ],
)
def test_estimate(entry, name, expected):
    assert estimate(entry, name) == expected


def test_streams_figure_tells_time_of_a_batch_and_estimate(entry):
    picture = draw_streams([entry, dataclasses.replace(entry, batch=32)])
    lines = [line.split() for line in picture.text.splitlines()]
    assert len(lines) == 8
    assert lines[0] == ["batch", "8", "one", "by", "one", "6.000", "ms", "estimate", "5.500", "ms"]
    assert lines[3] == ["batch", "8", "2", "streams,", "pageable", "5.000", "ms"]
    assert "Fastest at batch 8: 2 streams, CUDA graph, 3.00 ms, one by one 6.00 ms; batch 32" in picture.alt
    for axes, part in zip(pictures.drawn(picture), (slice(4), slice(4, 8)), strict=True):
        lines = picture.text.splitlines()[part]
        assert pictures.widths(axes) == pictures.near(pictures.numbers("\n".join(lines), r"([\d.]+) ms"))
        estimates = [float(line.split()[-2]) for line in lines if "estimate" in line]
        assert [x for x, _ in pictures.lines(axes)] == [[ms, ms] for ms in estimates]
        assert [sum(y) / 2 for _, y in pictures.lines(axes)] == pytest.approx([0, 1, 2])


def test_timeline_counts_from_the_start_of_each_order():
    first = [Span("decode", 1, 5.0, 5.01), Span("infer", 1, 5.01, 5.03)]
    second = [Span("decode", 1, 9.0, 9.02), Span("infer", 1, 9.01, 9.025)]
    picture = draw_timeline({"serial": first, "overlapped": second})
    assert picture.text == (
        "serial: 30.0 ms for 1 batches (decode 10.0 ms, infer 20.0 ms)\n"
        "overlapped: 25.0 ms for 1 batches (decode 20.0 ms, infer 15.0 ms)"
    )
    assert "serial 30 ms, overlapped 25 ms" in picture.alt
    (axes,) = pictures.drawn(picture)
    spans = [(left, bottom + 0.375, width) for left, bottom, width, _ in pictures.bars(axes)]
    rows = [(0, 0, 10), (10, 1, 20), (0, 2, 20), (10, 3, 15)]  # milliseconds at which it begins, row, length
    assert spans == [pytest.approx(row, abs=1e-6) for row in rows]


class StandIn:
    """Lanes that compute nothing: a lane has the logits that it was given, and one by one gives all ones."""

    def __init__(self, *logits):
        self._logits = [np.full((8, 10), one) for one in logits]

    def one_by_one(self, batches):
        self._logits[0] = np.ones((8, 10))

    def on_streams(self, streams, batches, pinned=True):
        pass

    def stage_times(self, batches):
        return {}

    def use(self, batch):
        pass

    def logits(self):
        return self._logits


def test_a_lane_with_other_results_is_no_measurement(monkeypatch):
    monkeypatch.setattr(asynchrony.timing, "measure_in_turn", lambda runs, **_: dict.fromkeys(runs, run(1.0)))
    assert asynchrony._overlap(StandIn(1.001, 1), StandIn(1, 1), 8, 0.1)["batch"] == 8
    with pytest.raises(RuntimeError, match=r"one by one: relative error 0\.5"):
        asynchrony._overlap(StandIn(1, 1), StandIn(1, 0.5), 8, 0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_lanes_compute_what_onnx_runtime_computes(fp32_model, cuda_graph):
    from tutorial_utils.lessons.lesson01.lanes import Lanes  # imports PyCUDA

    if cuda_graph and flavour.installed_flavour() == "tensorrt":
        pytest.importorskip("cuda.bindings")
    batch = images(16)
    session = onnxruntime.InferenceSession(fp32_model, providers=["CPUExecutionProvider"])
    built = build(fp32_model, options(), use_cache=False)
    with Lanes(built, batch, 3, cuda_graph=cuda_graph) as lanes:
        for size in (16, 8):
            lanes.use(size)
            lanes.one_by_one(2)
            lanes.on_streams(3, 7)
            lanes.on_streams(2, 4, pinned=False)
            expected = session.run(None, {"x": batch[:size]})[0]
            for logits in lanes.logits():
                assert quality.relative_error(logits, expected) < 2e-3
        assert all(np.isfinite(ms) and ms >= 0 for ms in lanes.stage_times(3).values())


def test_watch_times_the_stages_of_each_order():
    def in_pairs(double, write):
        return [write(double(number)) for number in (1, 2)]

    def all_first(double, write):
        return [write(number) for number in [double(1), double(2)]]

    written = []
    seen = watch({"in pairs": in_pairs, "all first": all_first}, double=lambda one: 2 * one, write=written.append)
    assert written == [2, 4, 2, 4]
    assert [(span.stage, span.batch) for span in seen["in pairs"]] == [
        ("double", 1), ("write", 1), ("double", 2), ("write", 2),
    ]  # fmt: skip
    assert [(span.stage, span.batch) for span in seen["all first"]] == [
        ("double", 1), ("double", 2), ("write", 1), ("write", 2),
    ]  # fmt: skip
    spans = [span for order in seen.values() for span in order]
    assert all(one.begin <= one.end <= other.begin for one, other in itertools.pairwise(spans))
