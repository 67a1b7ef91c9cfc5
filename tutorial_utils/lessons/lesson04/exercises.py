"""What the exercises of lesson 04 are checked with: the served case, and the same fault in other networks.

`exercises_repair` judges the FP16 files of 04c.1 and 04d.3, `exercises_faults` the others of 04d.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from tutorial_utils.base import paths
from tutorial_utils.lessons.checking import DATA, Case, Exercise, Mistake
from tutorial_utils.lessons.lesson04 import exercises_faults, exercises_repair, fault_lab, fault_lab_model
from tutorial_utils.measure import experiment
from tutorial_utils.model import onnx_file, quantization

_OTHER_SEEDS = (7, 8)  # between them they serve each fault in another place than the default seed, in several forms


@functools.cache
def examined(number: int) -> list[Case]:
    """Return the cases of 04.1 to 04.6, ``examine(case)``: name the cause and the first wrong tensor."""
    fault = fault_lab.order()[number - 1]
    others = [
        Case(
            (served,), served.answer, "the same fault in another network", _copied(served), objection=_speaking(served)
        )
        for served in (fault_lab.serve(fault, seed) for seed in _OTHER_SEEDS)
    ]
    served = fault_lab.case(number)
    return [Case((served,), served.answer, f"case {number}", _objections(served), objection=_speaking(served)), *others]


@functools.cache
def engine_or_file() -> list[Case]:
    """Return the cases of 04.7, ``examine(case)``: an engine that is wrong although its file is right, and the reverse.

    Both are stand-ins: a small network instead of the course's classifier, with the numbers of its engines.
    """
    folder = paths.cache_dir("fault_lab", "stand-in")
    random = np.random.default_rng(fault_lab.SEED)
    name = "image"
    fp32 = onnx_file.save(fault_lab_model.network(random, [name]), folder / "fp32.onnx")
    size = fault_lab_model.IMAGE_SIZE
    images = random.uniform(-1, 1, (64, 3, size, size)).astype(np.float32)
    int8 = quantization.to_int8(fp32, folder / "int8.onnx", images)
    measured = experiment.find("lesson01_precision").recorded("it needs a GPU with FP8")
    right_file = fault_lab.fp8_case(fp32, int8, {name: images[:8]}, measured, folder)
    wrong_file = dataclasses.replace(
        right_file,
        candidate_model=_with_small_scales(right_file.candidate_model, folder / "fp8-cut.onnx"),
        answer=("scale", None),
    )
    message = "You blame the engine of every FP8 file. Of two files with equally bad engines, one is bad itself."
    return [
        Case((right_file,), right_file.answer, "another FP8 file", _objections(right_file)),
        Case((wrong_file,), wrong_file.answer, "a second FP8 file", [Mistake(("engine", None), message)]),
    ]


def _with_small_scales(fp8_path: Path, target: Path) -> Path:
    """Write an FP8 model whose activations keep only the smallest sixty-fourth of their range."""
    model = onnx_file.load(fp8_path)
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for weight in model.graph.initializer:
        if weight.name in scales:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / np.float32(64), weight.name))
    return onnx_file.save(model, target)


def _objections(served: fault_lab.Case) -> list[Mistake]:
    """Return every wrong answer with what speaks against it."""
    answers = itertools.product(fault_lab.CAUSES, (None, *served.tensors))
    return [Mistake(answer, message) for answer in answers if (message := fault_lab.objection(served, *answer))]


def _copied(served: fault_lab.Case) -> list[Mistake]:
    """Return the answers that name a tensor of another network."""
    cause, right = served.answer
    message = (
        "Your answer fits the case above only. With the same fault in another network, it shows in another tensor."
    )
    return [Mistake((cause, tensor), message) for tensor in served.tensors if right and tensor != right]


def _speaking(served: fault_lab.Case) -> Callable[[Any], str | None]:
    """Return what says why an answer can't be right, such as a cause or a tensor that doesn't exist."""

    def objection(returned: Any) -> str | None:
        if isinstance(returned, (tuple, list)) and len(returned) == 2 and isinstance(returned[0], str):
            return fault_lab.objection(served, *returned)
        return None

    return objection


def _handed_over(served: fault_lab.Case) -> Case:
    """Judge by what the laboratory knows of the case."""
    return Case((served,), served.answer, DATA, objection=_speaking(served))


EXERCISES = {
    **{f"04.{number}": Exercise(functools.partial(examined, number), _handed_over) for number in range(1, 7)},
    "04.7": Exercise(engine_or_file, _handed_over),
    "04c.1": Exercise(exercises_repair.repair, exercises_repair.repair_on_data),
    "04d.1": Exercise(exercises_faults.first_wrong, exercises_faults.first_wrong_on_data),
    "04d.2": Exercise(exercises_faults.part, exercises_faults.part_on_data),
    "04d.3": Exercise(exercises_repair.rescale, exercises_repair.rescale_on_data),
    "04d.4": Exercise(exercises_faults.recalibrate, exercises_faults.recalibrate_on_data),
}
