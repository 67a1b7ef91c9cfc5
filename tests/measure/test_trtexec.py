"""What trtexec is asked and what its answer means, with a stand-in for it."""

import json

import pytest

from tutorial_utils.base.errors import BackendUnavailableError, PlanError
from tutorial_utils.base.flavour import FLAVOUR_VARIABLE
from tutorial_utils.measure import trtexec

# Two calls in the form of trtexec 10.6.
CALLS = [
    {"startEnqMs": at, "endEnqMs": at + enqueue, "startH2dMs": at, "endH2dMs": at + 1, "startComputeMs": at + 1,
     "endComputeMs": at + 4, "startD2hMs": at + 4, "endD2hMs": at + 6, "h2dMs": 1, "computeMs": 3, "d2hMs": 2,
     "latencyMs": 6}
    for at, enqueue in ((0, 0.5), (10, 0.7))
]  # fmt: skip
OPTIONS = "options = dict(one.partition('=')[::2] for one in sys.argv[1:])\n"


def test_the_very_plan_is_run_and_files_come_back(fake_program):
    body = "assert Path(options['--loadEngine']).read_bytes() == b'a plan'\nprint('=== Performance summary ===')\n"
    body += f"Path(options['--exportTimes']).write_text({json.dumps(CALLS)!r})\n"
    fake_program("trtexec", OPTIONS + body)
    ran = trtexec.run(b"a plan", ["--useCudaGraph"], ["exportTimes"])
    assert ran.command == "trtexec --loadEngine=plan --useCudaGraph --exportTimes=exportTimes.json"
    assert ran.output == "=== Performance summary ===\n"
    assert ran.exported == {"exportTimes": CALLS}


def test_medians():
    expected = {"compute": 3, "enqueue": 0.6, "copy in": 1, "copy out": 2, "latency": 6}
    assert trtexec.medians(CALLS) == pytest.approx(expected)


def test_plan_that_trtexec_refuses(fake_program):
    fake_program("trtexec", "print('[I] Loading'); print('[E] Error Code 1: version tag does not match'); sys.exit(1)")
    with pytest.raises(PlanError, match=r"trtexec refuses the plan: \[E\] Error Code 1: version tag does not match\."):
        trtexec.run(b"a plan")


def test_why_trtexec_is_missing(monkeypatch):
    monkeypatch.setenv(FLAVOUR_VARIABLE, "tensorrt")
    monkeypatch.setattr(trtexec.shutil, "which", lambda name: None)
    assert trtexec.missing() == "there is no trtexec on the PATH"
    with pytest.raises(BackendUnavailableError, match="There is no trtexec on the PATH"):
        trtexec.require()
    monkeypatch.setattr(trtexec.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert trtexec.missing() == ""
    monkeypatch.setenv(FLAVOUR_VARIABLE, "tensorrt_rtx")
    assert trtexec.missing() == "trtexec loads no plans of TensorRT-RTX"
