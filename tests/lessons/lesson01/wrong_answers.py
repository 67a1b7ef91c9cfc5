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


def by_value(value):
    """Return a wrong answer: names whose value is another than the baseline's."""
    return lambda measurements, baseline: [
        name for name in measurements if value(measurements[name]) != value(measurements[baseline])
    ]


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
    """Return an answer to 01.4 that uses this error of values and scale."""

    def best_threshold(values, thresholds):
        return key(min(thresholds, key=lambda threshold: error(values, threshold / 127)))

    return best_threshold


def quantized(values, scale, low=-127):
    return np.clip(np.round(values / scale), low, 127)


def squared(values, scale):
    return np.mean((quantized(values, scale) * scale - values) ** 2)


def returns_position(values, thresholds):
    return thresholds.index(choose(squared)(values, thresholds))


WRONG_ANSWERS = {
    "01.1": [
        (counts_added_kernels, "how many kernels were added"),
        (counts_added_layers, "how many layers were added"),
        (compares_numbers_of_fusions, "which nodes are together"),
        (counts_all_fusions, "all fusions of the first engine"),
        (counts_single_nodes, "Nothing was fused in it"),
        (compares_ordered_nodes, "only the order differs"),
        (wants_the_same_kernel, "in a kernel that does more"),
    ],
    "01.2": [
        (finds_largest, "the tensor with the largest value"),
        (looks_in_fp32, "are FP32 and hold no infinity"),
        (misses_negative, "miss a negative value"),
        (takes_underflow_for_overflow, "That is underflow"),
        (limit_too_low, "FP16 can hold it"),
        (compares_with_largest_number, "is rounded down to it"),
    ],
    "01.3": [
        (by_value(lambda measured: measured.median_ms), "its rounds differ more among themselves"),
        (lists_baseline, "list the baseline itself"),
        (lists_all, "list everything"),
        (lists_noise, "list what is noise"),
        (lists_noise_and_baseline, "list what is noise"),
        (only_faster, "slower than the baseline"),
        (first_calls_too, "compare first calls"),
        (means_or_noise, "moves the mean"),
        (only_interval, "too small to matter"),
    ],
    "01.4": [
        (choose(lambda values, scale: np.mean((quantized(values, scale) - values) ** 2)), "multiply the integers by"),
        (lambda values, thresholds: max(thresholds), "half of the 255 integers"),
        (returns_position, "position of the threshold"),
        (choose(squared, key=lambda threshold: threshold / 127), "That is the scale"),
        (lambda values, thresholds: min(thresholds, key=lambda t: abs(t - np.abs(values).max())), "as MinMax does"),
        (
            choose(lambda values, scale: np.mean((np.round(values / scale) * scale - values) ** 2)),
            "nothing were clipped",
        ),
        (choose(lambda values, scale: np.mean((quantized(values, scale, 0) * scale - values) ** 2)), "negative values"),
        (choose(lambda values, scale: np.mean(np.abs(quantized(values, scale) * scale - values))), "absolute error"),
    ],
}
