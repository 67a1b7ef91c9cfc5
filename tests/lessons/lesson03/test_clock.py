"""The experiment that holds our clocks against trtexec's: what needs no GPU, with a stand-in for trtexec."""

import json

import pytest

from tutorial_utils.base.flavour import installed_flavour

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.lessons.lesson03 import clock, figures

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


def clocks(engine, cuda_graph, device, **trtexec):
    ours = {clock.EVENTS: device + 0.001, clock.NOTHING: 0.001, "launches between two events": 0.41, "enqueue": 0.3}
    return clock.Clocks(engine, cuda_graph, ours, trtexec, "" if trtexec else "there is no trtexec on the PATH")


def test_picture_says_how_far_the_clocks_are_apart_and_what_is_missing():
    rows = [clocks("a", False, 0.4, compute=0.4, enqueue=0.3), clocks("a", True, 0.303, compute=0.3, enqueue=0.01)]
    rows += [clocks("b", False, 0.1), clocks("b", True, 0.1)]
    assert [row.deviation for row in rows] == [pytest.approx(0), pytest.approx(0.01), None, None]
    picture = figures.clocks(rows)
    assert "a: a call takes 0.400 ms of the GPU, a graph 0.303; for the rest the GPU waits for the host" in picture.alt
    assert picture.alt.endswith("against trtexec's: a, calls +0.0 %, a, CUDA graph +1.0 %.")
    assert picture.text.count("n/a: there is no trtexec on the PATH") == 4
    assert "trtexec" not in figures.clocks(rows[2:]).alt


def test_rows_are_read_and_one_that_failed_is_left_out():
    values = {way: vars(clocks("a", way == "graph", 0.4)) for way in ("calls", "graph")}
    row = {"stack": 0, "date": "2026-11-26"}
    data = {"stacks": [{}], "rows": {"a": {**row, "values": values}, "b": {**row, "reason": "It failed."}}}
    assert [one.label for one in clock.EXPERIMENT.read(data)] == ["a, calls", "a, CUDA graph"]


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
    assert all(abs(row.deviation) < 0.02 for row in graphs)
