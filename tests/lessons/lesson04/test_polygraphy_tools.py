"""Lesson 04, Polygraphy's tools: the chains hold together, and what the commands printed is read."""

import re

import pictures

from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import gpu_commands, polygraphy_tools
from tutorial_utils.lessons.lesson04.polygraphy_tools import Step, Use
from tutorial_utils.measure import recordings
from tutorial_utils.measure.experiment import Measured

PRECISION = """
[I] Using DataType.FLOAT as higher precision
[I]     RUNNING | Iteration 1 | Approximately 3 iteration(s) remaining
[I]     Selecting first 8 layer(s) to run in higher precision
[I]     PASSED | Iteration 1
[I]     RUNNING | Iteration 2 | Approximately 2 iteration(s) remaining
[I]     Selecting first 4 layer(s) to run in higher precision
[E]     FAILED | Iteration 2
[I]     To achieve acceptable accuracy, try running the first 8 layer(s) in higher precision
[I] PASSED
"""


def test_commands_name_files_that_are_there():
    for steps in polygraphy_tools.CHAINS.values():
        there = {*polygraphy_tools.EXPERIMENT.models, "loader.py", "polygraphy_debug.engine", "polygraphy_debug.onnx"}
        for step in steps:
            written = re.findall(r"(?:-o|--save-\w+|--calibration-cache|--artifacts) (\S+)", step.command)
            named = re.findall(r"\S+\.(?:onnx|json|engine|cache|py)\b", step.command)
            assert set(named) <= there | set(written), step.command
            there |= set(written)
    assert set(polygraphy_tools.EXPERIMENT.models) <= {*gpu_commands.FILES, *gpu_commands.OTHER_FILES}


def test_search_for_layers_is_read_and_drawn():
    (step,) = polygraphy_tools.CHAINS["debug precision"]
    found = polygraphy_tools.outcome(step, polygraphy_cli.Result(step.command, PRECISION.strip(), 0))
    assert found["found"] == {"layers in FP32": "8", "engines built": "2"}
    assert found["search"] == [[8, True], [4, False]]
    assert "[I] To achieve acceptable accuracy, try running the first 8 layer(s) in higher precision" in found["lines"]
    use = Use(chain="debug precision", what=step.what, seconds=1.0, **found)
    other = Use("tactics", "save", "polygraphy convert", 0, 1.0, [], {}, [])
    picture = polygraphy_tools.draw(Measured([use, other], recordings.live("test"), "", {}))
    assert picture.text == "debug precision: 8 first layers in FP32 after 2 engines"
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes) == [(1, 8), (2, 4)]
    table = polygraphy_tools.table([use, other])
    assert list(table["found"]) == ["layers in FP32 8, engines built 2", ""]


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
