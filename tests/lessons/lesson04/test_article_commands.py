"""Lesson 04, the article's commands: the same as it printed, and what they saved."""

import sys
import types

import pytest

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import article_commands, gpu_commands, polygraphy_tools


@pytest.fixture
def printed():
    """What the article printed."""
    return article_commands.printed().result["the article"]


def test_commands_are_the_articles_but_for_the_model(printed):
    ours = article_commands.commands("[1,3,1472,1224]")
    renamed = {what: command.replace(article_commands.MODEL, "inference_new") for what, command in ours.items()}
    assert renamed == {what: said.command for what, said in printed.items()}
    faster = article_commands.commands("[1,3,1472,1224]", article_commands.LEVEL)
    assert {what: command.replace(f" {article_commands.LEVEL}", "") for what, command in faster.items()} == ours


def test_every_tensor_that_was_saved_is_counted(growing):
    polygraphy_cli.run(
        "polygraphy run fp16.onnx --onnxrt --onnx-outputs mark all --val-range [1,1] --save-results=out.pkl", growing
    )
    found = article_commands.saved(growing / "out.pkl", ["t1", "fused", "t2", "t4"])
    assert found == [["t1", 1.0, 0, 0, 4], ["t2", 0.0, 0, 4, 4], ["t4", 0.0, 0, 4, 4]]


def test_table_puts_the_stacks_side_by_side(printed):
    table = article_commands.table({"article": printed, "here": printed})
    assert list(table["said"]) == ["PASSED"] * 2 + ["FAILED"] * 2 + ["PASSED"] * 2 + ["FAILED"] * 2
    row = table.loc[("compare/fp32", "here")]
    assert (row["build s"], row["command s"]) == (111.443, 117.081)


@pytest.mark.parametrize(
    ("found", "version", "gpu", "cause"),
    [
        ("tensorrt", "10.6.0", None, "no driver"),
        ("tensorrt_rtx", "1.7.1", "H100", "TensorRT 8 or 10 is asked for FP16 .* here is TensorRT-RTX 1.7.1"),
        ("tensorrt", "11.4.0", "H100", "here is TensorRT 11.4.0"),
        ("tensorrt", "8.6.1", "H100", None),
        ("tensorrt", "10.6.0", "H100", None),
    ],
)
def test_weak_typing_is_asked_for(found, version, gpu, cause, monkeypatch):
    driver = types.SimpleNamespace(reason="no driver", remedy="none")
    monkeypatch.setattr(gpu_commands.capabilities, "probe", lambda: types.SimpleNamespace(gpu=gpu, driver=driver))
    monkeypatch.setitem(sys.modules, found, types.SimpleNamespace(__version__=version))
    monkeypatch.setenv(flavour.FLAVOUR_VARIABLE, found)
    if cause is None:
        gpu_commands.require_weak_typing(8, 10)
        return
    with pytest.raises(BackendUnavailableError, match=cause):
        gpu_commands.require_weak_typing(8, 10)


def test_only_8_6_without_marks_gives_nan_as_lesson_04a_says():
    found = article_commands.EXPERIMENT.recorded("").result
    all_said = {(stack, what): said for stack, one in found.items() for what, said in one.items()}
    assert {f"{stack}/{what}" for stack, what in all_said} == article_commands.EXPERIMENT.rows.keys()
    (((stack, what), failed),) = [(key, said) for key, said in all_said.items() if not said.passed]
    assert "8.6" in stack
    assert what == "compare/fp16"
    assert failed.first_not_finite == "sigmoid_0.tmp_0"


@pytest.mark.parametrize("experiment", [article_commands.EXPERIMENT, polygraphy_tools.EXPERIMENT])
def test_without_a_gpu_every_row_says_so(experiment, monkeypatch):
    machine = types.SimpleNamespace(gpu=None, driver=types.SimpleNamespace(reason="no driver", remedy="none"))
    monkeypatch.setattr(gpu_commands.capabilities, "probe", lambda: machine)
    for measure in experiment.rows.values():
        with pytest.raises(BackendUnavailableError, match="no driver"):
            measure({})


def test_a_command_that_ran_out_of_time_is_not_recorded(growing):
    late = polygraphy_cli.run("polygraphy run fp32.onnx --onnxrt", growing, timeout=0.01)
    with pytest.raises(BackendUnavailableError, match=r"`polygraphy run .*`: Ended after 0.01 seconds"):
        gpu_commands.require_done(late)
    gpu_commands.require_done(polygraphy_cli.run("polygraphy --version", growing))
