"""The experiment that holds our clocks against trtexec's: what needs no GPU, with a stand-in for trtexec."""

import json
import os
import sys

import pytest

from tutorial_utils.base.errors import PlanError
from tutorial_utils.base.flavour import FLAVOUR_VARIABLE, installed_flavour

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.lessons.lesson03 import clock, figures

# Two calls in the form of trtexec 10.6.
CALLS = [
    {"startEnqMs": at, "endEnqMs": at + enqueue, "startH2dMs": at, "endH2dMs": at + 1, "startComputeMs": at + 1,
     "endComputeMs": at + 4, "startD2hMs": at + 4, "endD2hMs": at + 6, "h2dMs": 1, "computeMs": 3, "d2hMs": 2,
     "latencyMs": 6}
    for at, enqueue in ((0, 0.5), (10, 0.7))
]  # fmt: skip
TIMES = {"compute": 3, "enqueue": 0.6, "copy in": 1, "copy out": 2, "latency": 6}


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """Put a program of that name on the PATH, which runs the given Python with its options as `options`."""

    def make(body):
        program = tmp_path / "trtexec"
        start = (
            "import sys\nfrom pathlib import Path\noptions = dict(one.partition('=')[::2] for one in sys.argv[1:])\n"
        )
        program.write_text(f"#!{sys.executable}\n{start}{body}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_trtexec_times_the_very_plan(cuda_graph, trtexec):
    trtexec(
        "assert Path(options['--loadEngine']).read_bytes() == b'a plan'\n"
        f"assert ('--useCudaGraph' in options) is {cuda_graph}\n"
        "assert options['--shapes'] == 'x:64x3x32x32'\n"
        f"Path(options['--exportTimes']).write_text({json.dumps(CALLS)!r})\n"
    )
    assert clock.run_trtexec(b"a plan", cuda_graph) == pytest.approx(TIMES)


def test_plan_that_trtexec_refuses(trtexec):
    trtexec("print('[I] Loading'); print('[E] Error Code 1: version tag does not match'); sys.exit(1)")
    with pytest.raises(PlanError, match=r"trtexec refuses the plan: \[E\] Error Code 1: version tag does not match\."):
        clock.run_trtexec(b"a plan", False)


def test_why_trtexec_is_missing(trtexec, monkeypatch):
    monkeypatch.setenv(FLAVOUR_VARIABLE, "tensorrt")
    monkeypatch.setattr(clock.shutil, "which", lambda name: None)
    assert clock.trtexec_missing() == "there is no trtexec on the PATH"
    monkeypatch.setattr(clock.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert clock.trtexec_missing() == ""
    monkeypatch.setenv(FLAVOUR_VARIABLE, "tensorrt_rtx")
    assert clock.trtexec_missing() == "trtexec loads no plans of TensorRT-RTX"


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
