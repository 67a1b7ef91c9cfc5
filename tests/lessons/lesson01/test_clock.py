"""The experiment that holds our clocks against trtexec's: what needs no GPU, with a stand-in for trtexec."""

import dataclasses
import json

import pictures
import pytest

from tutorial_utils.base.flavour import installed_flavour

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.lessons.lesson01 import clock

CALL = {"startEnqMs": 0, "endEnqMs": 0.5, "h2dMs": 1, "computeMs": 3, "d2hMs": 2, "latencyMs": 6}


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_trtexec_is_asked_for_the_shape_and_the_way(cuda_graph, fake_program):
    fake_program(
        "trtexec",
        "options = dict(one.partition('=')[::2] for one in sys.argv[1:])\n"
        f"assert ('--useCudaGraph' in options) is {cuda_graph}\n"
        "assert options['--shapes'] == 'x:64x3x32x32'\n"
        f"Path(options['--exportTimes']).write_text({json.dumps([CALL])!r})\n",
    )
    assert clock._trtexec(b"a plan", cuda_graph)["compute"] == 3


def clocks(cuda_graph):
    ours = {clock.EVENTS: 0.401, clock.NOTHING: 0.001, "enqueue": 0.3}
    return clock.Clocks("a", cuda_graph, ours, {}, "there is no trtexec on the PATH")


def test_rows_are_read_and_one_that_failed_is_left_out():
    values = {way: vars(clocks(way == "graph")) for way in ("calls", "graph")}
    row = {"stack": 0, "date": "2026-11-26"}
    data = {"stacks": [{}], "rows": {"a": {**row, "values": values}, "b": {**row, "reason": "It failed."}}}
    found = clock.EXPERIMENT.read(data)
    assert [one.label for one in found] == ["a, calls", "a, CUDA graph"]
    assert found[0].device_ms == pytest.approx(0.4)


def test_figure_has_both_clocks_and_when_the_host_is_done():
    both = dataclasses.replace(clocks(True), trtexec={"compute": 0.39, "enqueue": 0.41}, missing="")
    picture = clock.draw([clocks(False), both])
    assert picture.text.splitlines() == [
        "a, calls: GPU, by our clock 0.400 ms, host 0.300 ms",
        "a, CUDA graph: GPU, by our clock 0.400 ms, host 0.300 ms; GPU, by trtexec's 0.390 ms, host 0.410 ms",
    ]
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes) == pictures.near([0.4, 0.4, 0.39])
    assert [x for x, _ in pictures.lines(axes)] == [[0.3, 0.3], [0.3, 0.3], [0.41, 0.41]]


@pytest.mark.gpu
def test_clocks_agree_on_a_gpu(fp32_model, monkeypatch):
    monkeypatch.setattr(clock, "ENGINES", {"small": "a small network"})
    if installed_flavour() == "tensorrt":
        pytest.importorskip("cuda.bindings")
    for values in clock.measure("small", {"small": fp32_model}, rounds=1, calls=50).values():
        row = clock.Clocks(**values)
        assert all(ms > 0 for ms in row.ours.values())
        assert row.device_ms > 0
        assert row.ours["enqueue"] <= row.ours["host to host"]
        assert bool(row.trtexec) != bool(row.missing)


def test_the_recording_holds_our_clock_within_two_percent_of_trtexecs():
    """For a CUDA graph; plain calls depend on how fast each process enqueues them."""
    graphs = [row for row in clock.EXPERIMENT.recorded("a test").result if row.cuda_graph]
    assert graphs
    assert all(abs(row.device_ms / row.trtexec["compute"] - 1) < 0.02 for row in graphs)
