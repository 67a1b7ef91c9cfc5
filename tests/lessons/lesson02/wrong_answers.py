"""Wrong answers to the exercises of lesson 02, each with words from the message that its check must give."""

import math
from collections import Counter
from pathlib import Path
from statistics import median, median_high, mode

from tutorial_utils.engine.tensorrt import MessageLog, trt
from tutorial_utils.model import paddle_program
from tutorial_utils.model.quiet_paddle import paddle


def optimizes(onednn=False, save=True, optimize=True, make=True):
    def fold_batch_norms(program, params, folder):
        config = paddle.inference.Config(program, params)
        config.disable_glog_info()
        config.switch_ir_optim(optimize)
        if onednn:
            config.enable_onednn()
        else:
            config.disable_onednn()
        config.set_optim_cache_dir(folder)
        config.enable_save_optim_model(save)
        if make:
            paddle.inference.create_predictor(config)
        return f"{folder}/_optimized.pdmodel"

    return fold_batch_norms


def gives_the_program(program, params, folder):
    return program


def profile(shapes):
    made = trt.Builder(MessageLog()).create_optimization_profile()
    for name, three in shapes.items():
        made.set_shape(name, *three)
    return made


def ranges(requests, name, best=None):
    shapes = [tuple(request[name]) for request in requests]
    sizes = list(zip(*shapes, strict=True))
    optimum = best(sizes) if best else Counter(shapes).most_common(1)[0][0]
    return tuple(map(min, sizes)), optimum, tuple(map(max, sizes))


def optimizes_for(best):
    return lambda requests: profile({name: ranges(requests, name, best) for name in requests[0]})


def of_each_dimension(choose):
    return optimizes_for(lambda sizes: tuple(int(choose(size)) for size in sizes))


def compares_whole_requests(requests):
    name = next(iter(requests[0]))
    shapes = sorted(tuple(request[name]) for request in requests)
    return profile({name: (shapes[0], Counter(shapes).most_common(1)[0][0], shapes[-1])})


def takes_the_order_of_paddle(requests):
    swapped = {name: ranges(requests, name) for name in requests[0]}
    return profile({name: (low, high, best) for name, (low, best, high) in swapped.items()})


def first_input_only(requests):
    name = next(iter(requests[0]))
    return profile({name: ranges(requests, name)})


ENGINE = "tensorrt_engine"
FRAME = ("feed", "fetch")


def reads(count, outside):
    def ran_in_tensorrt(path):
        operators = paddle_program.operators(Path(path))
        return count(operators), outside(operators)

    return ran_in_tensorrt


def engines(operators):
    return operators.count(ENGINE)


def outside(operators, known=(ENGINE, *FRAME)):
    return [name for name in operators if name not in known]


def exact(rate, confidence):
    return math.log(1 - confidence) / math.log(1 - rate)


WRONG_ANSWERS = {
    "02d.1": [
        (optimizes(save=False), "no file of this name"),
        (optimizes(make=False), "no file of this name"),
        (lambda program, params, folder: 3, "no file of this name"),
        (gives_the_program, "batch norms are all there"),
        (optimizes(optimize=False), "no file of this name"),
        (optimizes(onednn=True), "oneDNN has its own"),
    ],
    "02d.2": [
        (optimizes_for(lambda sizes: tuple(map(min, sizes))), "smallest shape, as the article does"),
        (optimizes_for(lambda sizes: tuple(map(max, sizes))), "optimize for the largest"),
        (compares_whole_requests, "each dimension has a range of its own"),
        (of_each_dimension(mode), "nobody asks for the shape"),
        (of_each_dimension(median), "nobody asks for the shape"),
        (of_each_dimension(median_high), "nobody asks for the shape"),
        (takes_the_order_of_paddle, "It stands in the middle"),
        (first_input_only, "One input has no shapes"),
    ],
    "02d.3": [
        (reads(lambda names: int(ENGINE in names), lambda names: sorted({*outside(names)})), "whether there is an"),
        (reads(engines, lambda names: sorted({*outside(names, (ENGINE,))})), "compute nothing"),
        (reads(engines, lambda names: sorted(outside(names))), "an operator twice"),
        (reads(engines, lambda names: sorted({*outside(names, FRAME)})), "the engines themselves"),
        (reads(engines, lambda names: [*dict.fromkeys(outside(names))]), "not sorted"),
    ],
    "02d.4": [
        (lambda rate, confidence: round(1 / rate), "on average"),
        (lambda rate, confidence: math.floor(exact(rate, confidence)), "round up"),
        (lambda rate, confidence: math.ceil(math.log(confidence) / math.log(1 - rate)), "1 minus it"),
        (lambda rate, confidence: round(3 / rate), "rule of three"),
        (lambda rate, confidence: math.floor(exact(rate, confidence)) + 1, "exactly 25 %"),
    ],
}
