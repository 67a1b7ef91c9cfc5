"""Which counters ncu is asked for, and what becomes of its counts, with a stand-in for it."""

from types import SimpleNamespace

import pytest

from tutorial_utils.base.errors import PlanError
from tutorial_utils.lessons.lesson01 import kernels, tensor_cores
from tutorial_utils.measure import ncu

LISTED = """
Device NVIDIA H100 (GH100)
-------------------------------------------------------
Metric Name                                 Metric Type  Metric Unit  Metric Description
-------------------------------------------------------
sm__inst_executed                           Counter      inst         # of warp instructions executed
sm__inst_executed_pipe_fma                  Counter      inst         # of instructions of the FMA pipe
sm__inst_executed_pipe_tensor               Counter      inst         # of instructions
sm__inst_executed_pipe_tensor_op_gmma       Counter      inst         # of instructions
sm__inst_executed_pipe_tensor_op_hmma_type_hfma2  Counter  inst       # of instructions
"""
TENSOR, GMMA = "sm__inst_executed_pipe_tensor.sum", "sm__inst_executed_pipe_tensor_op_gmma.sum"
HFMA2 = "sm__inst_executed_pipe_tensor_op_hmma_type_hfma2.sum"
COUNTS = (
    ("0", "reformat", {TENSOR: 7, GMMA: 0, HFMA2: 7, "sm__inst_executed.sum": 900, "gpu__time_duration.sum": 10}),
    (
        "1",
        "a_gmma_kernel",
        {TENSOR: 50, GMMA: 40, HFMA2: 10, "sm__inst_executed.sum": 100, "gpu__time_duration.sum": 80},
    ),
)


def test_instructions_of_all_kernels_are_counted_once(fake_program, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "build", lambda *_: SimpleNamespace(plan=b"a plan"))
    lines = ['"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"']
    lines += [f'"{i}","{kernel}","{name}","","{n}"' for i, kernel, counts in COUNTS for name, n in counts.items()]
    asked = tmp_path / "asked"
    fake_program(
        "ncu",
        f"if '--query-metrics' in sys.argv:\n    print({LISTED!r})\n    sys.exit()\n"
        f"Path({str(asked)!r}).write_text(sys.argv[sys.argv.index('--metrics') + 1])\n"
        f"print({chr(10).join(lines)!r})\n",
    )
    values = tensor_cores.measure("fp16", {})
    assert asked.read_text().split(",") == [TENSOR, GMMA, HFMA2, "sm__inst_executed.sum", "gpu__time_duration.sum"]
    row = {"stack": 0, "date": "2026-01-01", "values": values}
    found = tensor_cores.EXPERIMENT.read({"stacks": [{}], "rows": {"fp16": row}})
    assert found == {"fp16": tensor_cores.Counted("a_gmma_kernel", tensor_instructions=40, instructions=1000)}


def test_a_gpu_without_counters_of_tensor_cores():
    with pytest.raises(PlanError, match="no counter of Tensor Cores"):
        tensor_cores.chosen(["sm__inst_executed"])


def test_a_precision_that_could_not_be_counted_is_left_out():
    row = {"stack": 0, "date": "2026-01-01", "reason": "ncu counted nothing."}
    assert tensor_cores.EXPERIMENT.read({"stacks": [{}], "rows": {"fp32": row}}) == {}


def test_ncu_is_asked_for_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(ncu.shutil, "which", lambda name: None)
    with pytest.raises(ncu.BackendUnavailableError, match="no ncu"):
        tensor_cores.measure("fp16", {})


def test_the_recording_tells_matrices_from_single_multiplications():
    found = tensor_cores.EXPERIMENT.recorded("no GPU here").result
    assert found["fp32"].tensor_instructions == 0
    assert found["tf32"].tensor_instructions == 2 * found["fp16"].tensor_instructions > 0
    assert found["fp32"].instructions > 5 * found["tf32"].instructions > 5 * found["fp16"].instructions
