"""What ncu is asked and how its table is read, with a stand-in for it."""

import contextlib
import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from tutorial_utils.base.errors import BackendUnavailableError, PlanError
from tutorial_utils.measure import ncu

COUNTED = """==PROF== Connected to process 17
==PROF== Profiling "a_kernel": 0%....100% - 3 passes
what the program itself prints
"ID","Process ID","Process Name","Host Name","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","17","python","127.0.0.1","reformat(int, float)","sm__inst_executed_pipe_tensor_op_gmma.sum","inst","0"
"0","17","python","127.0.0.1","reformat(int, float)","gpu__time_duration.sum","ns","2,500.00"
"1","17","python","127.0.0.1","a_kernel","sm__inst_executed_pipe_tensor_op_gmma.sum","inst","1,234,567"
"1","17","python","127.0.0.1","a_kernel","sm__pipe_tensor_op_gmma_cycles_active.avg.pct_of_peak_sustained_active","%","61.5"
"1","17","python","127.0.0.1","a_kernel","sm__no_such_counter.sum","","n/a"
==PROF== Disconnected from process 17
"""


def test_the_very_plan_is_watched(fake_program, tmp_path):
    asked = tmp_path / "asked"
    body = f"import json\nasked = [sys.argv[1:], Path(sys.argv[-1]).read_text()]\nPath({str(asked)!r})"
    fake_program("ncu", f"{body}.write_text(json.dumps(asked))\nprint({COUNTED!r})\n")
    reformat, kernel = ncu.counted(b"a plan", ["one.sum", "two.sum"])
    arguments, plan = json.loads(asked.read_text())
    assert plan == "a plan"
    assert arguments[arguments.index("-m") + 1] == ncu.__name__
    assert arguments[arguments.index("--metrics") + 1] == "one.sum,two.sum"
    assert (reformat["kernel"], reformat["counts"]["gpu__time_duration.sum"]) == ("reformat(int, float)", 2500)
    assert kernel["counts"] == {
        "sm__inst_executed_pipe_tensor_op_gmma.sum": 1234567,
        "sm__pipe_tensor_op_gmma_cycles_active.avg.pct_of_peak_sustained_active": 61.5,
    }
    assert reformat["units"]["gpu__time_duration.sum"] == "ns"


def test_why_ncu_counts_nothing(fake_program, monkeypatch):
    fake_program("ncu", "print('==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'); sys.exit(1)")
    with pytest.raises(PlanError, match="ncu counted nothing: ==ERROR== ERR_NVGPUCTRPERM"):
        ncu.counted(b"a plan", ["one.sum"])
    monkeypatch.setattr(ncu.shutil, "which", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="no ncu on the PATH"):
        ncu.counted(b"a plan", ["one.sum"])


def test_the_watched_program_runs_a_plan_once(monkeypatch, tmp_path):
    runner = MagicMock()
    opened = runner.return_value.__enter__.return_value
    opened.inputs = {"x": SimpleNamespace(shape=(2, 3), dtype=np.dtype(np.float16))}
    module = SimpleNamespace(TensorRTRunner=runner, primary_context=contextlib.nullcontext)
    monkeypatch.setitem(sys.modules, "tutorial_utils.runners.tensorrt", module)
    (tmp_path / "plan").write_bytes(b"a plan")
    ncu.run_once(tmp_path / "plan")
    runner.assert_called_once_with(b"a plan")
    ((feeds,), _) = opened.infer.call_args
    assert (feeds["x"].shape, feeds["x"].dtype) == ((2, 3), np.float16)


def test_metrics_are_the_first_words_of_a_listing(fake_program):
    fake_program("ncu", "print('sm__inst_executed  Counter  inst\\n\\ngpu__time_duration  Counter  ns')")
    assert ncu.metrics() == ["sm__inst_executed", "gpu__time_duration"]
