"""Wrong answers to the exercises of lesson 02, each with words from the message that its check must give."""

import math
from collections import Counter
from statistics import mean, median, median_high, median_low, mode


def cold(baseline, candidate):
    return baseline[0] / candidate[0]


def warm(baseline, candidate):
    return median(baseline[1:]) / median(candidate[1:])


def medians_of_all(baseline, candidate):
    return cold(baseline, candidate) / (median(baseline) / median(candidate))


def means(baseline, candidate):
    return cold(baseline, candidate) / (mean(baseline[1:]) / mean(candidate[1:]))


def takes_one_in_the_middle(median_of):
    return lambda baseline, candidate: cold(baseline, candidate) / (median_of(baseline[1:]) / median_of(candidate[1:]))


def upside_down(baseline, candidate):
    return warm(baseline, candidate) / cold(baseline, candidate)


def larger_by_smaller(baseline, candidate):
    ratio = cold(baseline, candidate) / warm(baseline, candidate)
    return max(ratio, 1 / ratio)


def ranges(spec, requests, inputs=None):
    names = inputs or list(spec)
    smallest = {name: [min(sizes) for sizes in zip(*(r[name] for r in requests), strict=True)] for name in names}
    largest = {name: [max(sizes) for sizes in zip(*(r[name] for r in requests), strict=True)] for name in names}
    best = {name: list(Counter(tuple(r[name]) for r in requests).most_common(1)[0][0]) for name in names}
    return smallest, largest, best


def orders_min_opt_max(spec, requests):
    smallest, largest, best = ranges(spec, requests)
    return smallest, best, largest


def optimizes_for_the_smallest(spec, requests):
    smallest, largest, _ = ranges(spec, requests)
    return smallest, largest, smallest


def optimizes_for_the_largest(spec, requests):
    smallest, largest, _ = ranges(spec, requests)
    return smallest, largest, largest


def compares_whole_requests(spec, requests):
    *_, best = ranges(spec, requests)
    return (
        {name: min(r[name] for r in requests) for name in spec},
        {name: sorted(r[name] for r in requests)[-1] for name in spec},
        best,
    )


def optimizes_each_dimension(choose):
    def shape_ranges(spec, requests):
        best = {name: [choose(sizes) for sizes in zip(*(r[name] for r in requests), strict=True)] for name in spec}
        return *ranges(spec, requests)[:2], best

    return shape_ranges


def one_input_only(spec, requests):
    return ranges(spec, requests, inputs=list(spec)[:1])


ENGINES = ("pd_op.tensorrt_engine", "tensorrt_engine")
FRAME = ("builtin.parameter", "pd_op.data", "pd_op.fetch", "feed", "fetch")


def outside(operators, known=(*ENGINES, *FRAME)):
    return [name for name in operators if name not in known]


def says_whether(operators):
    return int(any(name in ENGINES for name in operators)), sorted(set(outside(operators)))


def counts_everything(operators):
    return sum(name in ENGINES for name in operators), sorted(set(outside(operators, ENGINES)))


def lists_twice(operators):
    return sum(name in ENGINES for name in operators), sorted(outside(operators))


def lists_engines(operators):
    return sum(name in ENGINES for name in operators), sorted(set(outside(operators, FRAME)))


def knows_pir_only(operators):
    return operators.count(ENGINES[0]), sorted(set(outside(operators, (ENGINES[0], *FRAME))))


def forgets_feed_and_fetch(operators):
    return sum(name in ENGINES for name in operators), sorted(set(outside(operators, (*ENGINES, *FRAME[:3]))))


def keeps_their_order(operators):
    engines, found = knows_pir_only(operators)
    return engines, [name for name in dict.fromkeys(operators) if name in found]


def looks_for_the_prefix(operators):
    engines, found = forgets_feed_and_fetch(operators)
    return engines, [name for name in found if name.startswith("pd_op.")]


def exact(rate, confidence):
    return math.log(1 - confidence) / math.log(1 - rate)


WRONG_ANSWERS = {
    "02.1": [
        (medians_of_all, "include the first calls"),
        (means, "mean of the calls"),
        (takes_one_in_the_middle(median_high), "midway between the two"),
        (takes_one_in_the_middle(median_low), "midway between the two"),
        (upside_down, "Upside down"),
        (cold, "cold speed-up itself"),
        (warm, "warm speed-up itself"),
        (larger_by_smaller, "hides a gain"),
    ],
    "02.2": [
        (orders_min_opt_max, "order in which"),
        (optimizes_for_the_smallest, "smallest shape, as the article does"),
        (optimizes_for_the_largest, "optimize for the largest"),
        (compares_whole_requests, "Each dimension has a range of its own"),
        (optimizes_each_dimension(mode), "nobody asks for the shape"),
        (optimizes_each_dimension(median), "nobody asks for the shape"),
        (optimizes_each_dimension(median_high), "nobody asks for the shape"),
        (one_input_only, "One input has no range"),
    ],
    "02.3": [
        (says_whether, "whether there is an engine"),
        (counts_everything, "compute nothing: they could not"),
        (lists_twice, "an operator twice"),
        (lists_engines, "the engines themselves"),
        (keeps_their_order, "not sorted"),
        (looks_for_the_prefix, "you miss what fell back"),
        (knows_pir_only, "you miss its engine"),
        (forgets_feed_and_fetch, "feed and fetch are what"),
    ],
    "02.4": [
        (lambda rate, confidence: round(1 / rate), "on average"),
        (lambda rate, confidence: math.floor(exact(rate, confidence)), "round up"),
        (lambda rate, confidence: math.ceil(math.log(confidence) / math.log(1 - rate)), "1 minus it"),
        (lambda rate, confidence: round(3 / rate), "rule of three"),
        (lambda rate, confidence: math.floor(exact(rate, confidence)) + 1, "exactly 25 %"),
    ],
}
