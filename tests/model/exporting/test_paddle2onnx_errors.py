"""What is said of a failed conversion names what is at fault, and nothing else."""

import signal
from pathlib import Path

import pytest

from tutorial_utils.model import paddle_program
from tutorial_utils.model.exporting import paddle2onnx_errors


@pytest.fixture
def program(monkeypatch):
    """Let a program consist of these operators, given as names and attributes."""

    def consist_of(**operators):
        found = [paddle_program.Operation(f"pd_op.{name}", given, ()) for name, given in operators.items()]
        monkeypatch.setattr(paddle_program, "operations", lambda path: found)

    return consist_of


def test_operators_that_are_listed_under_another_name_are_not_blamed(program):
    program(**{"floor_divide": {}, "nonzero": {}, "while": {}, "if": {}, "lerp": {}})
    assert paddle2onnx_errors.not_listed(None, ["elementwise_floordiv", "where_index"]) == ["pd_op.lerp"]


@pytest.mark.parametrize(
    ("operator", "attributes", "said"),
    [
        ("pool2d", {"adaptive": False}, ""),
        ("pool2d", {"adaptive": True}, "Adaptive pooling"),
        ("rnn", {"num_layers": 1, "mode": "LSTM"}, ""),
        ("rnn", {"num_layers": 1, "mode": "RNN_TANH"}, "SimpleRNN gets lost"),
        ("rnn", {}, "num_layers > 1"),  # of a legacy program, which attributes it has isn't known
        ("p_norm", {"asvector": False}, ""),
        ("p_norm", {"asvector": True}, "over all axes"),
    ],
)
def test_hints_are_of_the_form_that_fails(operator, attributes, said, program):
    program(**{operator: attributes})
    hint = paddle2onnx_errors.hint(None)
    assert said in hint
    assert bool(said) == bool(hint)


def test_a_process_that_was_killed_says_memory_and_not_what_it_printed_before():
    error = paddle2onnx_errors.of_log("\x1b[1m\x1b[35m--- Running PIR pass", -signal.SIGKILL, Path("net.json"))
    assert "killed (SIGKILL) while it converted net.json: as a rule, memory ran out" in error.cause
    assert "PIR pass" not in str(error)
