"""Wrong answers to the exercises of lesson 01, each with words from the message that its check must give."""

import numpy as np
import onnx
from lessons.lesson01 import library_answers

from tutorial_utils.base import onnx_session
from tutorial_utils.measure import timing


def in_fp16(array):
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def tensors(model, images):
    """Return what each node writes, node after node."""
    names = [name for node in model.graph.node for name in node.output]
    own = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    session = onnx_session.new_session(model.SerializeToString())
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


def floats(arrays):
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def overflows(array):
    return np.isinf(in_fp16(array)).any()


def first_with(fault, *, order=dict, kinds=floats):
    """Return an answer to 01e.2: the first of these tensors, in this order, with this fault."""

    def first_overflow(model, images):
        arrays = kinds(order(tensors(model, images)))
        return next((name for name, array in arrays.items() if fault(array)), None)

    return first_overflow


def by_casts_in_the_model(model, images):
    """Return a right answer to 01e.2: what ONNX Runtime gives with a cast to FP16 and back behind every tensor."""
    names = [name for node in model.graph.node for name in node.output]
    types = onnx.shape_inference.infer_shapes(model).graph
    whole = {value.name for value in (*types.value_info, *types.output) if value.type.tensor_type.elem_type == 7}
    wanted = {name: f"{name}.half" for name in names if name not in whole}
    model.graph.node.extend(onnx.helper.make_node("Cast", [name], [half], to=10) for name, half in wanted.items())
    model.graph.output.extend(onnx.ValueInfoProto(name=half) for half in wanted.values())
    session = onnx_session.new_session(model.SerializeToString(), optimize=False)
    halves = session.run(list(wanted.values()), {session.get_inputs()[0].name: images})
    return next((name for name, array in zip(wanted, halves, strict=True) if np.isinf(array).any()), None)


def sorted_by_name(arrays):
    return dict(sorted(arrays.items()))


def output_first(arrays):
    """Return the tensors as ``session.run(None, feeds)`` does: the model's own output, then those that were added."""
    last = list(arrays)[-1]
    return {last: arrays[last], **arrays}


def finds_largest(model, images):
    arrays = floats(tensors(model, images))
    return max(arrays, key=lambda name: np.abs(arrays[name]).max())


def looks_at_outputs_only(model, images):
    arrays = tensors(onnx.ModelProto.FromString(model.SerializeToString()), images)
    return next((value.name for value in model.graph.output if np.isinf(arrays[value.name]).any()), None)


def underflows_or_overflows(array):
    return (np.isinf(in_fp16(array)) | (in_fp16(array) == 0) & (array != 0)).any()


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


WRONG_ANSWERS = {
    "01e.1": library_answers.ENGINES,
    "01e.2": [
        (finds_largest, "the tensor with the largest value"),
        (first_with(overflows, order=sorted_by_name), "You sort the names"),
        (first_with(overflows, order=output_first), "go by the order of the nodes"),
        (first_with(lambda array: np.isinf(in_fp16(array)).all()), "only if all of its values overflow"),
        (first_with(lambda array: np.isinf(array).any()), "Convert to FP16 before you look"),
        (looks_at_outputs_only, "look at what is between the nodes"),
        (first_with(lambda array: in_fp16(array).max() == np.inf), "miss a negative value"),
        (first_with(underflows_or_overflows), "That is underflow"),
        (first_with(lambda array: np.abs(array).max() > 50_000), "FP16 can hold it"),
        (first_with(lambda array: np.abs(array).max() > np.finfo(np.float16).max), "is rounded down to it"),
        (first_with(overflows, kinds=dict), "stay integers in an FP16 model"),
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
    "01e.4": library_answers.FILES,
}
RIGHT_ANSWERS = {
    "01e.1": library_answers.RIGHT_ENGINES,
    "01e.2": [first_with(overflows), by_casts_in_the_model],
    "01e.3": [only_interval],
    "01e.4": library_answers.RIGHT_FILES,
}
