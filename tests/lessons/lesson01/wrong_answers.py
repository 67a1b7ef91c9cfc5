"""Wrong answers to the exercises of lesson 01, each with words from the message that its check must give."""

import numpy as np

from tutorial_utils.measure import timing


def fusions(report):
    return [set(kernel.onnx_nodes) for kernel in report.kernels if len(kernel.onnx_nodes) > 1]


def counts_added_kernels(plain, marked):
    return len(marked.kernels) - len(plain.kernels)


def counts_added_layers(plain, marked):
    return len(marked.layers) - len(plain.layers)


def compares_numbers_of_fusions(plain, marked):
    return len(fusions(plain)) - len(fusions(marked))


def counts_all_fusions(plain, marked):
    return len(fusions(plain))


def counts_single_nodes(plain, marked):
    left = [set(kernel.onnx_nodes) for kernel in marked.kernels]
    return sum(not any(set(kernel.onnx_nodes) <= nodes for nodes in left) for kernel in plain.kernels)


def compares_ordered_nodes(plain, marked):
    left = [kernel.onnx_nodes for kernel in marked.kernels]
    return sum(kernel.onnx_nodes not in left for kernel in plain.kernels if len(kernel.onnx_nodes) > 1)


def wants_the_same_kernel(plain, marked):
    return sum(fusion not in fusions(marked) for fusion in fusions(plain))


def ignores_which_kernel(plain, marked):
    still_fused = set().union(*fusions(marked))
    return sum(not fusion <= still_fused for fusion in fusions(plain))


def compares_only(*places):
    """Return a wrong answer to 01e.1: of each fusion, only the nodes at these places count."""

    def lost_fusions(plain, marked):
        left = [set(kernel.onnx_nodes) for kernel in marked.kernels]
        kept = [kernel.onnx_nodes for kernel in plain.kernels if len(kernel.onnx_nodes) > 1]
        return sum(not any({nodes[place] for place in places} <= one for one in left) for nodes in kept)

    return lost_fusions


def wants_any_two(plain, marked):
    return sum(not any(len(fusion & other) > 1 for other in fusions(marked)) for fusion in fusions(plain))


def in_fp16(array):
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def first(activations, fault):
    return next((name for name, array in activations.items() if fault(array)), None)


def finds_largest(activations):
    return max(activations, key=lambda name: np.abs(activations[name]).max())


def looks_in_fp32(activations):
    return first(activations, lambda array: np.isinf(array).any())


def misses_negative(activations):
    return first(activations, lambda array: in_fp16(array).max() == np.inf)


def takes_underflow_for_overflow(activations):
    def fault(array):
        return (np.isinf(in_fp16(array)) | (in_fp16(array) == 0) & (array != 0)).any()

    return first(activations, fault)


def limit_too_low(activations):
    return first(activations, lambda array: np.abs(array).max() > 50_000)


def compares_with_largest_number(activations):
    return first(activations, lambda array: np.abs(array).max() > np.finfo(np.float16).max)


def sorts_names(activations):
    return first(dict(sorted(activations.items())), lambda array: np.isinf(in_fp16(array)).any())


def names_the_last(activations):
    return first(dict(reversed(activations.items())), lambda array: np.isinf(in_fp16(array)).any())


def wants_all_values(activations):
    return first(activations, lambda array: np.isinf(in_fp16(array)).all())


def by_value(value):
    """Return a wrong answer: names whose value is another than the baseline's."""
    return lambda measurements, baseline: [
        name for name in measurements if value(measurements[name]) != value(measurements[baseline])
    ]


def beyond(share):
    """Return a wrong answer: names whose median is another than the baseline's by more than a fixed share."""

    def real_differences(measurements, baseline):
        level = measurements[baseline].median_ms
        return [name for name in measurements if abs(measurements[name].median_ms / level - 1) > share]

    return real_differences


def leaves_small_ones_out(measurements, baseline):
    compared = {name: timing.compare(measurements[baseline], measurements[name]) for name in measurements}
    return [name for name in measurements if not compared[name].is_noise]


def looks_whether_intervals_overlap(measurements, baseline):
    intervals = {name: timing.median_interval(measured) for name, measured in measurements.items()}
    low, high = intervals[baseline]
    return [name for name, (other_low, other_high) in intervals.items() if other_high < low or high < other_low]


def takes_calls_for_independent(measurements, baseline):
    """Let the error shrink with the number of calls, although those of a round share its level."""
    calls = {name: measured.samples_ms for name, measured in measurements.items()}
    spread = {name: one.std() / np.sqrt(len(one)) for name, one in calls.items()}
    center = {name: np.median(one) for name, one in calls.items()}
    limit = {name: 2 * np.hypot(spread[name], spread[baseline]) for name in calls}
    return [name for name in calls if abs(center[name] - center[baseline]) > limit[name]]


def wants_more_than_the_spread(measurements, baseline):
    spread = 2 * measurements[baseline].samples_ms.std()
    level = measurements[baseline].median_ms
    return [name for name, measured in measurements.items() if abs(measured.median_ms - level) > spread]


def lists_all(measurements, baseline):
    return list(measurements)


def lists_noise(measurements, baseline):
    compared = {name: timing.compare(measurements[baseline], measurements[name]) for name in measurements}
    return [name for name in measurements if name != baseline and compared[name].is_noise]


def lists_baseline(measurements, baseline):
    return [baseline, *only_interval(measurements, baseline)]


def lists_noise_and_baseline(measurements, baseline):
    return [baseline, *lists_noise(measurements, baseline)]


def only_faster(measurements, baseline):
    compared = {name: timing.compare(measurements[baseline], measurements[name]) for name in measurements}
    return [name for name in measurements if not compared[name].is_noise and compared[name].speedup > 1]


def only_interval(measurements, baseline):
    compared = {name: timing.compare(measurements[baseline], measurements[name]) for name in measurements}
    return [name for name in measurements if not compared[name].low <= 1 <= compared[name].high]


def means_or_noise(measurements, baseline):
    """Return a wrong answer: the comparison is right, but a mean that is far off counts as well."""
    mean = measurements[baseline].samples_ms.mean()
    far = [name for name in measurements if measurements[name].samples_ms.mean() > 3 * mean]
    return sorted({*far, *(name for name in only_interval(measurements, baseline))})


def first_calls_too(measurements, baseline):
    limit = 0.1 * measurements[baseline].first_call_ms
    far = [name for name in measurements if measurements[name].first_call_ms < limit]
    return sorted({*far, *only_interval(measurements, baseline)})


def choose(error, key=lambda threshold: threshold):
    """Return an answer to 01e.4 that uses this error of values and scale."""

    def best_threshold(values, thresholds):
        return key(min(thresholds, key=lambda threshold: error(values, threshold / 127)))

    return best_threshold


def quantized(values, scale, low=-127):
    return np.clip(np.round(values / scale), low, 127)


def squared(values, scale):
    return np.mean((quantized(values, scale) * scale - values) ** 2)


def wraps(values, scale):
    """An error: nothing is clipped before the conversion."""
    return np.mean((np.round(values / scale).astype(np.int64).astype(np.int8) * scale - values) ** 2)


def with_scale(factor):
    """Return an error: the scale is larger by a factor than it should be."""
    return lambda values, scale: squared(values, factor * scale)


def at_percentile(percent):
    def best_threshold(values, thresholds):
        return min(thresholds, key=lambda threshold: abs(threshold - np.percentile(np.abs(values), percent)))

    return best_threshold


def returns_position(values, thresholds):
    return thresholds.index(choose(squared)(values, thresholds))


WRONG_ANSWERS = {
    "01e.1": [
        (counts_added_kernels, "how many kernels were added"),
        (counts_added_layers, "how many layers were added"),
        (compares_numbers_of_fusions, "which nodes are together"),
        (counts_all_fusions, "all fusions of the first engine"),
        (counts_single_nodes, "Nothing was fused in it"),
        (compares_ordered_nodes, "only the order differs"),
        (wants_the_same_kernel, "in a kernel that does more"),
        (ignores_which_kernel, "whether one kernel does the work of all nodes"),
        (compares_only(0, 1), "only some nodes of a fusion"),
        (compares_only(-2, -1), "only some nodes of a fusion"),
        (compares_only(0, -1), "only some nodes of a fusion"),
        (compares_only(0), "only some nodes of a fusion"),
        (wants_any_two, "only some nodes of a fusion"),
    ],
    "01e.2": [
        (finds_largest, "the tensor with the largest value"),
        (sorts_names, "You sort the names"),
        (names_the_last, "the last tensor that overflows"),
        (wants_all_values, "only if all of its values overflow"),
        (looks_in_fp32, "are FP32 and hold no infinity"),
        (misses_negative, "miss a negative value"),
        (takes_underflow_for_overflow, "That is underflow"),
        (limit_too_low, "FP16 can hold it"),
        (compares_with_largest_number, "is rounded down to it"),
    ],
    "01e.3": [
        (by_value(lambda measured: measured.median_ms), "by more than that among themselves"),
        (beyond(0.05), "No limit for medians"),
        (beyond(0.1), "No limit for medians"),
        (beyond(0.15), "how large it is was not asked"),
        (lists_baseline, "list the baseline itself"),
        (lists_all, "list everything"),
        (lists_noise, "list what is noise"),
        (lists_noise_and_baseline, "list what is noise"),
        (only_faster, "slower than the baseline"),
        (first_calls_too, "compare first calls"),
        (means_or_noise, "moves the mean"),
        (takes_calls_for_independent, "for independent of each other"),
        (wants_more_than_the_spread, "compare each with the same round"),
        (leaves_small_ones_out, "SMALLEST_DIFFERENCE"),
        (looks_whether_intervals_overlap, "compare round by round"),
    ],
    "01e.4": [
        (choose(lambda values, scale: np.mean((quantized(values, scale) - values) ** 2)), "multiply the integers by"),
        (lambda values, thresholds: max(thresholds), "a quarter of the 255 integers"),
        (choose(with_scale(127 / 255)), "end at half of the threshold"),
        (returns_position, "position of the threshold"),
        (choose(squared, key=lambda threshold: threshold / 127), "That is the scale"),
        (lambda values, thresholds: min(thresholds, key=lambda t: abs(t - np.abs(values).max())), "as MinMax does"),
        (
            choose(lambda values, scale: np.mean((np.round(values / scale) * scale - values) ** 2)),
            "nothing were clipped",
        ),
        (choose(lambda values, scale: np.mean((quantized(values, scale, 0) * scale - values) ** 2)), "negative values"),
        (choose(lambda values, scale: np.mean(np.abs(quantized(values, scale) * scale - values))), "absolute error"),
        (
            choose(lambda values, scale: np.mean((np.clip(np.trunc(values / scale), -127, 127) * scale - values) ** 2)),
            "Round to the nearest integer",
        ),
        (choose(with_scale(127 / 128)), "127 times the scale isn't the threshold"),
        (choose(with_scale(254 / 255)), "255 integers and 254 steps"),
        (choose(wraps), "Clip before you convert"),
        (at_percentile(99.99), "clip a fixed share"),
        (at_percentile(99.999), "You leave out a fixed share"),
    ],
}
