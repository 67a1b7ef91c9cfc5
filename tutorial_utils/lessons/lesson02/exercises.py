"""What the exercises of lesson 02 are checked with: small inputs, right answers, typical wrong answers."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from tutorial_utils.lessons.checking import Case, Exercise, Mistake, by


def inflation() -> list[Case]:
    """Return the cases of 02.1, ``inflation(baseline, candidate)``: how much of a speed-up is the first call."""
    between = (
        "The median of an even number of calls lies midway between the two in the middle: see `statistics.median`."
    )
    return [
        Case(
            ([400.0, 8.0, 10.0, 9.0, 50.0], [20.0, 5.0, 4.0, 3.0]),
            (400 / 20) / (9.5 / 4),
            "a baseline that pays for starting up within its first call",
            [
                Mistake((400 / 20) / (10 / 4.5), "Your warm medians include the first calls. Leave those out."),
                Mistake((400 / 20) / (10 / 4), between),
                Mistake((400 / 20) / (9 / 4), between),
                Mistake((400 / 20) / (19.25 / 4), "You take the mean of the calls after the first. A single slow call "
                                                  "moves it: take the median."),
                Mistake((9.5 / 4) / (400 / 20), "Upside down: the question is how much too large the cold speed-up "
                                                   "is."),
                Mistake(400 / 20, "That is the cold speed-up itself. Relate it to the warm one."),
                Mistake(9.5 / 4, "That is the warm speed-up itself. Relate the cold one to it."),
            ],
        ),
        Case(
            ([30.0, 10.0, 10.0], [90.0, 5.0, 5.0]),
            1 / 6,
            "a candidate that looks slower by its first call, and is faster",
            [Mistake(6.0, "You divide the larger number by the smaller. Below 1, the article's way hides a gain.")],
        ),
        Case(([9.0, 9.0], [9.0, 9.0]), 1.0, "two equal candidates"),
    ]  # fmt: skip


def _inflation(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    return baseline[0] / candidate[0] / (median(baseline[1:]) / median(candidate[1:]))


def shape_ranges() -> list[Case]:
    """Return the cases of 02.2, ``shape_ranges(spec, requests)``: minimum, maximum and optimum for Paddle-TRT."""
    spec = {"image": [-1, 3, -1, -1]}
    requests = [{"image": shape} for shape in ([1, 3, 224, 320], [4, 3, 224, 224], [4, 3, 224, 224], [2, 3, 640, 224])]
    smallest, largest = {"image": [1, 3, 224, 224]}, {"image": [4, 3, 640, 320]}
    best = {"image": [4, 3, 224, 224]}
    mixed = [
        {"image": shape}
        for shape in ([1, 3, 320, 320], [1, 3, 320, 320], [4, 3, 320, 640], [4, 3, 640, 640], [4, 3, 640, 320])
    ]
    by_dimension = (
        "You choose each size of the optimum by itself, and nobody asks for the shape that comes out. Count "
        "whole shapes."
    )
    return [
        Case(
            (spec, requests),
            (smallest, largest, best),
            "a model with a varying batch, height and width",
            [
                Mistake((smallest, best, largest),
                        "Look at the order in which set_trt_dynamic_shape_info takes the three."),
                Mistake((smallest, largest, smallest),
                        "You optimize for the smallest shape, as the article does. Which shape does the service "
                        "meet most often?"),
                Mistake((smallest, largest, largest),
                        "You optimize for the largest shape. Which shape does the service meet most often?"),
                Mistake(({"image": [1, 3, 224, 320]}, {"image": [4, 3, 224, 224]}, best),
                        "You take the smallest and the largest request as a whole. Each dimension has a range of its "
                        "own: a request may be small in one and large in another."),
                Mistake((smallest, largest, {"image": [3, 3, 224, 224]}), by_dimension),
            ],
        ),
        Case(
            (spec, mixed),
            ({"image": [1, 3, 320, 320]}, {"image": [4, 3, 640, 640]}, {"image": [1, 3, 320, 320]}),
            "a model that is mostly asked for batches of 4, each of another size",
            [Mistake(({"image": [1, 3, 320, 320]}, {"image": [4, 3, 640, 640]}, {"image": [4, 3, 320, 320]}),
                     by_dimension)],
        ),
        Case(
            (
                {"ids": [-1, -1], "mask": [-1, -1]},
                [{"ids": shape, "mask": shape} for shape in ([8, 16], [2, 64], [8, 16])],
            ),
            (
                {"ids": [2, 16], "mask": [2, 16]},
                {"ids": [8, 64], "mask": [8, 64]},
                {"ids": [8, 16], "mask": [8, 16]},
            ),
            "a model with two inputs",
            [Mistake(({"ids": [2, 16]}, {"ids": [8, 64]}, {"ids": [8, 16]}),
                     "One input has no range. Each input of the model needs one.")],
        ),
    ]  # fmt: skip


def _shape_ranges(spec: dict[str, list[int]], requests: list[dict[str, list[int]]]) -> tuple[dict, dict, dict]:
    shapes = {name: [tuple(request[name]) for request in requests] for name in spec}
    smallest, largest = (
        {name: [extreme(sizes) for sizes in zip(*shapes[name], strict=True)] for name in spec} for extreme in (min, max)
    )
    return smallest, largest, {name: list(Counter(shapes[name]).most_common(1)[0][0]) for name in spec}


def ran_in_tensorrt() -> list[Case]:
    """Return the cases of 02.3, ``ran_in_tensorrt(operators)``: read a program listing."""
    engine, legacy = "pd_op.tensorrt_engine", "tensorrt_engine"
    frame = ["builtin.parameter", "pd_op.data"]
    mixed = [*frame, engine, "pd_op.flip", "pd_op.softmax", engine, "pd_op.flip", "pd_op.fetch"]
    return [
        Case(
            (mixed,),
            (2, ["pd_op.flip", "pd_op.softmax"]),
            "a PIR program with two engines, between which two kinds of operators fell back",
            [
                Mistake((1, ["pd_op.flip", "pd_op.softmax"]),
                        "You say whether there is an engine. There are more of them: each break costs a way out of "
                        "TensorRT and back."),
                Mistake((2, sorted(set(mixed) - {engine})),
                        "Parameters, data and fetch compute nothing: they could not have run in TensorRT."),
                Mistake((2, ["pd_op.flip", "pd_op.flip", "pd_op.softmax"]),
                        "You list an operator twice. Name each kind once."),
                Mistake((2, ["pd_op.flip", "pd_op.softmax", engine]),
                        "You list the engines themselves among what fell back."),
            ],
        ),
        Case(
            ([*frame, "pd_op.relu", engine, "pd_op.conv2d", "pd_op.fetch"],),
            (1, ["pd_op.conv2d", "pd_op.relu"]),
            "a PIR program whose operators don't come in the order of the alphabet",
            [Mistake((1, ["pd_op.relu", "pd_op.conv2d"]), "The names are right and not sorted.")],
        ),
        Case(
            (["feed", legacy, "fetch"],),
            (1, []),
            "a .pdmodel of which everything runs in TensorRT",
            [
                Mistake((0, [legacy]), "In a .pdmodel, names have no `pd_op.` in front: you miss its engine."),
                Mistake((1, ["feed", "fetch"]), "In a .pdmodel, feed and fetch are what data and fetch are in PIR: "
                                                "they compute nothing."),
            ],
        ),
        Case(
            (["feed", "conv2d", legacy, "relu", "fetch"],),
            (1, ["conv2d", "relu"]),
            "a .pdmodel of which a part fell back",
            [Mistake((1, []), "In a .pdmodel, names have no `pd_op.` in front: you miss what fell back.")],
        ),
        Case(
            ([*frame, "pd_op.conv2d", "pd_op.relu", "pd_op.fetch"],),
            (0, ["pd_op.conv2d", "pd_op.relu"]),
            "a program in which TensorRT was asked for and took nothing",
        ),
    ]  # fmt: skip


def _ran_in_tensorrt(operators: Sequence[str]) -> tuple[int, list[str]]:
    engines = {"pd_op.tensorrt_engine", "tensorrt_engine"}
    frame = {"builtin.parameter", "pd_op.data", "pd_op.fetch", "feed", "fetch"}
    return sum(name in engines for name in operators), sorted({*operators} - engines - frame)


def images_needed() -> list[Case]:
    """Return the cases of 02.4, ``images_needed(rate, confidence)``: how many images a claim of sameness takes."""
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
    "02.1": Exercise(inflation, by(_inflation)),
    "02.2": Exercise(shape_ranges, by(_shape_ranges)),
    "02.3": Exercise(ran_in_tensorrt, by(_ran_in_tensorrt)),
    "02.4": Exercise(images_needed, by(_images_needed)),
}
