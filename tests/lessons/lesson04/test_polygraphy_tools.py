"""Lesson 04, Polygraphy's tools: the chains hold together, and what the commands printed is read."""

import re
from pathlib import Path

import pytest

from tutorial_utils.base import flavour
from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import gpu_commands, polygraphy_tools
from tutorial_utils.lessons.lesson04.polygraphy_tools import Step

# From a log of Polygraphy 0.53.6 with TensorRT 10.6. The third iteration's end is that of another log, and the verdict
# is written as Polygraphy's source has it.
PRECISION = """
[I] Using DataType.FLOAT as higher precision
[I]     RUNNING | Iteration 1 | Approximately 10 iteration(s) remaining
[I]     Selecting first 631 layer(s) to run in higher precision
[I]     Building engine with configuration:
        Flags                  | [FP16, OBEY_PRECISION_CONSTRAINTS]
[I]     Finished engine building in 13.427 seconds
[I]     Running check command: polygraphy run polygraphy_debug.engine --trt --validate --load-inputs page.json
[I]     Saving debug replay to polygraphy_debug_replay.json
[I]     PASSED | Iteration 1 | Duration 23.764184951782227s
[I]     RUNNING | Iteration 2 | Approximately 10 iteration(s) remaining
[I]     Selecting first 315 layer(s) to run in higher precision
[I]     Finished engine building in 29.141 seconds
[I]     PASSED | Iteration 2 | Duration 34.022472620010376s
[I]     RUNNING | Iteration 3 | Approximately 9 iteration(s) remaining
[I]     Selecting first 157 layer(s) to run in higher precision
[E]     FAILED | Iteration 3 | Duration 0.27942371368408203s
[I]     To achieve acceptable accuracy, try running the first 315 layer(s) in higher precision
[I] PASSED | Runtime: 58.321s | Command: polygraphy debug precision
"""


def test_commands_name_files_that_are_there():
    for chain, steps in polygraphy_tools.CHAINS.items():
        assert "," not in chain  # separates rows on the command line
        assert len({step.what for step in steps}) == len(steps)
        there = {*polygraphy_tools.EXPERIMENT.models, "loader.py", "polygraphy_debug.engine", "polygraphy_debug.onnx"}
        # Polygraphy begins without a timing cache where there is none.
        for step in steps:
            written = re.findall(r"(?:-o|--save-[\w-]+|--calibration-cache|--artifacts) (\S+)", step.command)
            named = re.findall(r"\S+\.(?:onnx|json|engine|cache|py)\b", step.command)
            assert set(named) <= there | set(written), step.command
            there |= set(written)
    assert set(polygraphy_tools.EXPERIMENT.models) <= {*gpu_commands.FILES, *gpu_commands.OTHER_FILES}


def test_search_for_layers_is_read():
    text = polygraphy_cli._clean(PRECISION, Path("/nowhere"))
    (step,) = polygraphy_tools.CHAINS["debug precision"]
    found = polygraphy_tools.outcome(step, polygraphy_cli.Result(step.command, text, 0))
    assert found["found"] == {"layers in FP32": "315", "engines built": "3"}
    assert found["search"] == [[631, True], [315, True], [157, False]]
    assert (
        "[I] To achieve acceptable accuracy, try running the first 315 layer(s) in higher precision" in found["lines"]
    )
    assert found["lines"][-1] == "[I] PASSED"


def test_the_error_of_a_comparison_is_what_it_would_need_and_not_what_it_allows():
    step = polygraphy_tools.CHAINS["tactics"][-1]
    text = (
        "[I]         Tolerance: [abs=0, rel=0] | Checking elemwise error\n"
        "[I]         Minimum Required Tolerance: elemwise error | [abs=0.011719] OR [rel=1.9049]"
    )
    found = polygraphy_tools.outcome(step, polygraphy_cli.Result(step.command, text, 1))
    assert found["found"] == {"largest error": "0.011719"}


def test_steps_of_a_chain_share_a_folder(growing):
    run = "polygraphy run fp32.onnx --onnxrt"
    steps = (
        Step("save", f"{run} --save-inputs saved.json"),
        Step(
            "load", f"{run} --load-inputs saved.json --validate", (r"is valid",), {"output": r"Output: (\w+) is valid"}
        ),
    )
    saved, loaded = polygraphy_tools.run("pair", steps, {}, growing)
    assert (saved["returncode"], loaded["returncode"], loaded["found"]) == (0, 0, {"output": "t4"})
    assert loaded["lines"] == ["[I] PASSED | Output: t4 is valid", "[I] PASSED"]


@pytest.mark.gpu
@pytest.mark.skipif(flavour.installed_flavour() != "tensorrt", reason="only data-centre TensorRT has builder flags")
def test_an_engine_is_built_and_checked(growing):
    command = "polygraphy run fp32.onnx --trt --fp16 --builder-optimization-level 1 --validate --trt-outputs mark all"
    found = gpu_commands.outcome(polygraphy_cli.run(command, growing, timeout=100), ["t1", "t2", "t3", "t4"])
    assert found["checked"] == 4
    assert "Flags | [FP16]" in found["text"]
    assert 0 < found["build_seconds"] < found["seconds"]
