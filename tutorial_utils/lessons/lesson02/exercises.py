"""What the exercises of lesson 02 are checked with: what answers leave behind, right answers, typical wrong answers."""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutorial_utils.base import paths
from tutorial_utils.base.errors import CourseError
from tutorial_utils.engine.tensorrt import trt
from tutorial_utils.lessons.checking import DATA, Case, Exercise, Mistake, by
from tutorial_utils.model import paddle_program
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import legacy_program

Request = dict[str, list[int]]  # the shape of each input


def fold_batch_norms() -> list[Case]:
    """Return the case of 02d.1, ``fold_batch_norms(program, params, folder)``: Paddle writes a program."""
    saved = legacy_program.untrained("quick")
    folder = paths.cache_dir("exercises", "lesson02")
    for left in folder.glob("_optimized*"):
        left.unlink()
    return [
        Case(
            (str(saved.model_path), str(saved.params_path), str(folder)),
            "a program with 9 conv2d and 0 batch_norm",
            "a network with 9 convolutions and 9 batch norms",
            [
                Mistake("no file", "There is no file of this name. Paddle writes one when the predictor is made, if "
                                   "the configuration asks for it and names a folder."),
                Mistake("a program with 9 conv2d and 9 batch_norm",
                        "Its batch norms are all there. Is that the program that Paddle optimized?"),
                Mistake("a program with 0 conv2d and 0 batch_norm",
                        "Its convolutions are gone, too: oneDNN has its own. Switch it off, since Paddle-TRT takes "
                        "Paddle's operators."),
            ],
            judged=_convolutions_and_batch_norms,
        )
    ]  # fmt: skip


def _folded(program: str, params: str, folder: str) -> Case:
    """Judge another program by its convolutions, all of which must be left."""
    convolutions = paddle_program.operators(Path(program)).count("conv2d")
    answer = f"a program with {convolutions} conv2d and 0 batch_norm"
    return Case((program, params, folder), answer, DATA, judged=_convolutions_and_batch_norms)


def _convolutions_and_batch_norms(answer: Any) -> str:
    if not isinstance(answer, (str, Path)) or not Path(answer).is_file():
        return "no file"
    try:
        found = Counter(paddle_program.operators(Path(answer)))
    except CourseError as error:
        return f"a file of which Paddle says: {error.cause}"
    return f"a program with {found['conv2d']} conv2d and {found['batch_norm']} batch_norm"


def profile_for() -> list[Case]:
    """Return the cases of 02d.2, ``profile_for(requests)``: a TensorRT profile from the shapes of a log."""
    by_dimension = (
        "You choose each size of the optimum by itself, and nobody asks for the shape that comes out. Count "
        "whole shapes."
    )
    varied = ([1, 3, 224, 320], [4, 3, 224, 224], [4, 3, 224, 224], [2, 3, 640, 224])
    smallest, best, largest = [1, 3, 224, 224], [4, 3, 224, 224], [4, 3, 640, 320]
    mixed = ([1, 3, 320, 320], [1, 3, 320, 320], [4, 3, 320, 640], [4, 3, 640, 640], [4, 3, 640, 320])
    return [
        _profiled(
            [{"image": shape} for shape in varied],
            {"image": (smallest, best, largest)},
            "a model with a varying batch, height and width",
            {
                "You optimize for the smallest shape, as the article does. Which shape does the service meet most "
                "often?": {"image": (smallest, smallest, largest)},
                "You optimize for the largest shape. Which shape does the service meet most often?": {
                    "image": (smallest, largest, largest)
                },
                by_dimension: {"image": (smallest, [3, 3, 224, 224], largest)},
                "TensorRT calls it invalid: in each dimension the optimum must lie between the two others. It stands "
                "in the middle, in Paddle at the end. And each dimension has a range of its own: a request may be "
                "small in one and large in another.": None,
            },
        ),
        _profiled(
            [{"image": shape} for shape in mixed],
            {"image": ([1, 3, 320, 320], [1, 3, 320, 320], [4, 3, 640, 640])},
            "a model that is mostly asked for batches of 4, each of another size",
            {by_dimension: {"image": ([1, 3, 320, 320], [4, 3, 320, 320], [4, 3, 640, 640])}},
        ),
        _profiled(
            [{"ids": shape, "mask": shape} for shape in ([8, 16], [2, 64], [8, 16])],
            {"ids": ([2, 16], [8, 16], [8, 64]), "mask": ([2, 16], [8, 16], [8, 64])},
            "a model with two inputs",
            {
                "One input has no shapes. Each input of the model needs them.": {
                    "ids": ([2, 16], [8, 16], [8, 64]), "mask": ()
                }
            },
        ),
    ]  # fmt: skip


def _profiled(
    requests: list[Request], answer: dict[str, Sequence], what: str, mistakes: dict[str, dict[str, Sequence] | None]
) -> Case:
    return Case(
        (requests,),
        _shown(answer),
        what,
        [Mistake(_shown(wrong), message) for message, wrong in mistakes.items()],
        judged=functools.partial(_shapes_of, list(answer)),
    )


def _profile_for(requests: list[Request]) -> Case:
    """Judge by a reference solution."""
    answer = {}
    for name in requests[0]:
        shapes = [tuple(request[name]) for request in requests]
        sizes = list(zip(*shapes, strict=True))
        answer[name] = [*map(min, sizes)], Counter(shapes).most_common(1)[0][0], [*map(max, sizes)]
    return _profiled(requests, answer, DATA, {})


def _shapes_of(names: list[str], answer: Any) -> str:
    if not isinstance(answer, trt.IOptimizationProfile):
        return "no profile of TensorRT"
    return _shown({name: [list(shape) for shape in answer.get_shape(name)] for name in names} if answer else None)


def _shown(shapes: dict[str, Sequence] | None) -> str:
    if shapes is None:
        return "an invalid profile"
    parts = (
        f"{name} {', '.join('x'.join(map(str, shape)) for shape in three) or 'without shapes'}"
        for name, three in shapes.items()
    )
    return f"a profile of {'; '.join(parts)}"


def ran_in_tensorrt() -> list[Case]:
    """Return the cases of 02d.3, ``ran_in_tensorrt(path)``: read the program that Paddle wrote."""
    return [
        Case(
            (_program("feed", "tensorrt_engine", "softmax", "flip", "tensorrt_engine", "flip", "fetch"),),
            (2, ["flip", "softmax"]),
            "a program with two engines, between which two kinds of operators stayed outside",
            [
                Mistake((1, ["flip", "softmax"]),
                        "You say whether there is an engine. There are more of them: each break costs a way out of "
                        "TensorRT and back."),
                Mistake((2, ["feed", "fetch", "flip", "softmax"]),
                        "Feed and fetch compute nothing: they could not have run in TensorRT."),
                Mistake((2, ["flip", "flip", "softmax"]), "You list an operator twice. Name each kind once."),
                Mistake((2, ["flip", "softmax", "tensorrt_engine"]),
                        "You list the engines themselves among what stayed outside."),
                Mistake((2, ["softmax", "flip"]), "The names are right and not sorted."),
            ],
        ),
        Case((_program("feed", "tensorrt_engine", "fetch"),), (1, []), "a program that ran in TensorRT as a whole"),
        Case((_program("feed", "relu", "conv2d", "fetch"),), (0, ["conv2d", "relu"]),
             "a program of which TensorRT took nothing"),
    ]  # fmt: skip


def _program(*operators: str) -> str:
    """Write a program of these operators, without inputs and outputs: Paddle reads it, and can't run it."""
    description = paddle.base.core.ProgramDesc()
    for name in operators:
        description.block(0).append_op().set_type(name)
    path = paths.cache_dir("exercises", "lesson02") / f"{'-'.join(operators)}.pdmodel"
    path.write_bytes(description.serialize_to_string())
    return str(path)


def _ran_in_tensorrt(path: str) -> tuple[int, list[str]]:
    operators = paddle_program.operators(Path(path))
    return operators.count("tensorrt_engine"), sorted({*operators} - {"tensorrt_engine", "feed", "fetch"})


def images_needed() -> list[Case]:
    """Return the cases of 02d.4, ``images_needed(rate, confidence)``: how many images a claim of sameness takes."""
    return [
        Case(
            (0.01, 0.95),
            299,
            "answers that differ on 1 % of the images",
            [
                Mistake(100, "Of 100 images, one differs on average. In more than a third of all such samples, none "
                             "does."),
                Mistake(298, "One image short: round up, since the chance to miss it must be 5 % or less."),
                Mistake(6, "You used the confidence as the chance to miss the difference. That chance is 1 minus it."),
                Mistake(300, "That is the rule of three, an approximation. The exact number is close to it."),
            ],
        ),
        Case((0.5, 0.75), 2, "answers that differ on half of the images",
             [Mistake(3, "One too many: with 2 images, the chance to miss is exactly 25 %, which is enough.")]),
        Case((0.001, 0.99), 4603, "answers that differ on one image in a thousand"),
    ]  # fmt: skip


def _images_needed(rate: float, confidence: float) -> int:
    return math.ceil(math.log(1 - confidence) / math.log(1 - rate))


EXERCISES = {
    "02d.1": Exercise(fold_batch_norms, _folded),
    "02d.2": Exercise(profile_for, _profile_for),
    "02d.3": Exercise(ran_in_tensorrt, by(_ran_in_tensorrt)),
    "02d.4": Exercise(images_needed, by(_images_needed)),
}
