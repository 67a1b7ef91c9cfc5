"""What must hold for any input: of profiles, keys of the cache, times, logs, recordings and answers to exercises."""

import dataclasses
import json
import math
import pkgutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_input.table import no_longer_than, one_node
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from properties import JSON, mutations
from small_models import options

from tutorial_utils import lessons
from tutorial_utils.base import shapes
from tutorial_utils.base.errors import CourseError, InputError, ProfileError, RecordingError
from tutorial_utils.base.lesson_names import import_room
from tutorial_utils.engine import BuildOptions, Profile, ShapeRange, build, report
from tutorial_utils.engine.cache import CacheEntry, cache_key, model_hash
from tutorial_utils.lessons import checking
from tutorial_utils.measure import quality, recordings, rows, timing
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model.exporting import paddle2onnx_errors
from tutorial_utils.runners import paddle_tensorrt_log
from tutorial_utils.runners.base import TensorSpec

SECONDS = 10  # that nothing here takes


def assert_tells(error: CourseError) -> None:
    assert error.cause
    assert error.remedy
    assert "\n" not in str(error)


# --- shapes and profiles ---------------------------------------------------------------------------------------------

SIZES = st.integers(0, 2**40)
SHAPES = st.lists(SIZES, max_size=5).map(tuple)
THREE_SHAPES = st.integers(0, 5).flatmap(
    lambda rank: st.lists(st.lists(SIZES, min_size=3, max_size=3).map(sorted), min_size=rank, max_size=rank)
).map(lambda dims: tuple(zip(*dims, strict=True)) if dims else ((), (), ()))  # fmt: skip


@given(THREE_SHAPES)
def test_a_profile_keeps_its_shapes(three):
    profile = Profile.of(x=three)
    assert (profile["x"].min, profile["x"].opt, profile["x"].max) == three
    assert Profile.of(x=[list(shape) for shape in three]) == profile == Profile.from_mapping({"x": ShapeRange(*three)})
    assert hash(profile) == hash(Profile.of(x=three))


NEARLY_IN_ORDER = st.integers(0, 2).flatmap(
    lambda rank: st.lists(st.lists(st.integers(0, 2), min_size=rank, max_size=rank).map(tuple), min_size=3, max_size=3)
)


@given(NEARLY_IN_ORDER | st.lists(SHAPES, min_size=3, max_size=3))
def test_a_profile_is_refused_exactly_where_its_shapes_are_in_no_order(three):
    same_rank = len({len(shape) for shape in three}) == 1
    in_order = same_rank and all(a <= b <= c for a, b, c in zip(*three, strict=True))
    try:
        Profile.of(x=tuple(three))
    except ProfileError as error:
        assert_tells(error)
        assert not in_order
    else:
        assert in_order


@given(JSON)
def test_a_profile_of_anything_is_a_profile_or_refused(given):
    for make in (lambda: Profile.of(x=given), lambda: Profile.from_mapping(given), lambda: Profile(given)):
        try:
            assert isinstance(make(), Profile)
        except ProfileError as error:
            assert_tells(error)


@given(THREE_SHAPES, SHAPES)
def test_a_runner_takes_exactly_the_shapes_of_its_profile(three, shape):
    smallest, _, largest = three
    declared = tuple(-1 if low != high else low for low, high in zip(smallest, largest, strict=True))
    fits = len(shape) == len(declared) and shapes.in_order(smallest, shape, largest)
    assume(math.prod(shape) < 1000)
    spec = TensorSpec("x", np.dtype(np.float32), declared, smallest, largest)
    if fits:
        spec.check(np.zeros(shape, np.float32))
    else:
        with pytest.raises(InputError, match="x has the shape"):
            spec.check(np.zeros(shape, np.float32))


# --- keys of the cache -----------------------------------------------------------------------------------------------

FLAGS = st.sets(st.sampled_from(("refit", "tf32", "debug", "direct_io", "strip_plan")), max_size=4)
OPTIONS = st.builds(
    lambda profiles, flags, **rest: {"profiles": profiles, "flags": flags, **rest},
    profiles=st.lists(THREE_SHAPES.map(lambda three: Profile.of(x=three)), max_size=2),
    flags=FLAGS,
    workspace_bytes=st.none() | st.integers(1, 2**40),
    compute_capabilities=st.lists(st.sampled_from(("8.6", "8.9", "12.0")), max_size=2),
    strongly_typed=st.booleans(),
    optimization_level=st.none() | st.integers(0, 5),
    hardware_compatible=st.booleans(),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "model.onnx"
    onnx.save(one_node(), path)
    return path


@given(OPTIONS, OPTIONS)
def test_equal_options_and_no_others_have_equal_keys(model, one, other):
    first, second = BuildOptions(**one), BuildOptions(**other)
    assert (cache_key(model, first, "rtx") == cache_key(model, second, "rtx")) == (first == second)
    assert cache_key(model, first, "rtx") == cache_key(model, BuildOptions(**one), "rtx") != cache_key(model, first, "")


@given(OPTIONS, st.randoms(use_true_random=False))
def test_neither_the_order_of_options_nor_that_of_flags_and_inputs_is_in_a_key(model, given, rng):
    shuffled = list(given.items())
    rng.shuffle(shuffled)
    other = dict(shuffled)
    other["flags"] = rng.sample([flag.upper() for flag in given["flags"]] * 2, 2 * len(given["flags"]))
    two = [("x", ShapeRange((1,), (2,), (3,))), ("y", ShapeRange((1,), (1,), (1,)))]
    given["profiles"] = [Profile.from_mapping(dict(two))]
    other["profiles"] = [Profile.from_mapping(dict(reversed(two)))]
    assert cache_key(model, BuildOptions(**given), "rtx") == cache_key(model, BuildOptions(**other), "rtx")


@given(st.binary(min_size=1, max_size=200), st.binary(min_size=1, max_size=200))
def test_equal_files_and_no_others_have_equal_hashes(one, other):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in "ab"]
        for path, content in zip(paths, (one, other), strict=True):
            path.write_bytes(content)
        assert (model_hash(paths[0]) == model_hash(paths[1])) == (one == other)


@given(st.data())
def test_a_side_car_of_anything_is_no_engine(data):
    with tempfile.TemporaryDirectory() as folder:
        entry = CacheEntry(Path(folder), "model", "key")
        entry.write(b"plan", report.BuildReport("TensorRT-RTX", "1.7.1"))
        good = entry.read_unlocked()
        text = entry.sidecar_path.read_text()
        damaged = data.draw(mutations(text) | JSON.map(json.dumps) | st.just("[" * 100_000))
        entry.sidecar_path.write_text(damaged)
        with no_longer_than(SECONDS):
            assert entry.read_unlocked() in (None, good)


# --- times -----------------------------------------------------------------------------------------------------------

MS = st.floats(1e-3, 1e6)
ROUNDS = st.lists(st.lists(MS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=25).map(tuple)


def measurement(rounds) -> Measurement:
    return Measurement(rounds, 1.0, 11, True, 1)


@settings(max_examples=20)  # an interval takes 2,000 resamples
@given(ROUNDS)
def test_percentiles_are_in_order_and_among_the_times(rounds):
    one, times = measurement(rounds), [ms for calls in rounds for ms in calls]
    assert min(times) <= one.median_ms <= one.p90_ms * (1 + 1e-12) <= one.p99_ms * (1 + 1e-9) <= max(times) * (1 + 1e-6)
    assert sum(ms <= one.median_ms * (1 + 1e-12) for ms in times) * 2 >= len(times) == one.calls
    low, high = timing.median_interval(one)
    assert min(times) * (1 - 1e-12) <= low <= high <= max(times) * (1 + 1e-12)
    assert str(one)


@given(ROUNDS)
def test_a_measurement_comes_back_from_json_to_the_microsecond(rounds):
    one = measurement(rounds)
    back = Measurement.from_dict(json.loads(json.dumps(one.to_dict())))
    assert dataclasses.replace(back, rounds_ms=rounds) == one
    assert np.allclose(back.samples_ms, one.samples_ms, rtol=0, atol=5.1e-4)
    assert str(back)


@given(ROUNDS, ROUNDS)
def test_a_comparison_turned_round_is_the_reciprocal(one, other):
    there, back = (
        timing.compare(measurement(one), measurement(other)),
        timing.compare(measurement(other), measurement(one)),
    )
    assert there.low <= there.speedup <= there.high
    count = min(len(one), len(other))
    if count % 2:  # the median of an even number is a mean, of which there is no reciprocal
        assert math.isclose(there.speedup * back.speedup, 1, rel_tol=1e-9)
    assert math.isclose(there.low * back.high, 1, rel_tol=1e-9)


@given(ROUNDS, st.sampled_from((0.25, 2.0, 1024.0)))
def test_a_candidate_that_takes_a_multiple_is_that_much_slower(rounds, factor):
    slower = tuple(tuple(ms * factor for ms in calls) for calls in rounds)
    found = timing.compare(measurement(slower), measurement(rounds))
    assert (found.speedup, found.low, found.high) == (factor, factor, factor)


@given(st.integers(1, 5000), st.data())
def test_the_interval_of_an_accuracy_holds_it_and_is_wider_for_fewer_images(total, data):
    correct = data.draw(st.integers(0, total))
    low, high = quality.accuracy_interval(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    ten_low, ten_high = quality.accuracy_interval(10 * correct, 10 * total)
    assert ten_high - ten_low <= high - low + 1e-12


@given(arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_an_array_compared_with_itself_has_no_error(values):
    assume(values.any())
    assert quality.relative_error(values, values) == 0
    assert quality.sqnr_db(values, values) == math.inf
    doubled = quality.sqnr_db(values / 2, values)
    assert doubled == pytest.approx(20 * math.log10(2), abs=0.01) or np.abs(values).max() < 1e-300


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build_log(tmp_path_factory):
    from small_models import residual_model

    path = tmp_path_factory.mktemp("log") / "model.onnx"
    onnx.save(residual_model(), path)
    messages = build(path, options(), use_cache=False).messages
    (dump,) = [text for text in messages if text.startswith("Layers:\n")][-1:]
    return dump


def test_the_log_of_a_build_gives_its_layers(build_log):
    assert any(layer.onnx_nodes for layer in report.layers_from_log([build_log]))


@settings(max_examples=300)
@given(data=st.data())
def test_any_mutation_of_a_build_log_gives_a_report_or_none(build_log, data):
    text = data.draw(mutations(build_log))
    with no_longer_than(SECONDS):
        for layer in report.layers_from_log([text]):
            assert all(isinstance(size, int) for tensor in layer.outputs for size in tensor.shape)
        report.memory_from_log([text])


@given(st.data())
def test_any_mutation_of_paddles_log_is_read(data):
    logs = sorted((Path(__file__).parent / "runners" / "paddle_logs").glob("*.log"))
    text = data.draw(st.sampled_from(logs)).read_text(errors="replace")[:20_000]
    text = data.draw(mutations(text))
    with no_longer_than(SECONDS):
        assert str(paddle_tensorrt_log.parse(text))
        assert paddle_tensorrt_log.last_line(text)
        error = paddle2onnx_errors.of_log(text, data.draw(st.integers(-300, 300)), Path("model.json"))
    assert isinstance(error, CourseError)
    assert_tells(error)


# --- recordings ------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(min_size=1, max_size=20)


@given(TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2), st.dictionaries(TEXT, VALUES, max_size=4))
def test_a_recording_comes_back_as_it_was_written(title, method, gpu, libraries, data):
    recording = recordings.new(title, method, {"gpu": gpu, "libraries": libraries}, data)
    with tempfile.TemporaryDirectory() as folder:
        assert recordings.load(recordings.save(recording, Path(folder) / "a.json")) == recording
    assert gpu in recordings.recorded("what", recording, "why")._repr_mimebundle_()["text/plain"]


OF_ANOTHER_TYPE = st.sampled_from(
    (5, True, "text", "2026-13-45", [1], {"a": [1]}, {"cpu": "c", "libraries": [1]}, None)
)


@given(st.data())
def test_any_mutation_of_a_recording_is_shown_or_refused(data):
    shipped = data.draw(st.sampled_from(sorted(recordings.FOLDER.glob("*.json"))))
    text = shipped.read_text(encoding="utf-8")[:20_000]
    fields = json.loads(shipped.read_text(encoding="utf-8"))
    field = data.draw(st.sampled_from(sorted(fields)))
    replaced = (OF_ANOTHER_TYPE | JSON).map(lambda value: json.dumps({**fields, "data": {}, field: value}))
    damaged = data.draw(mutations(text) | replaced)
    with tempfile.TemporaryDirectory() as folder, no_longer_than(SECONDS):
        path = Path(folder) / "a.json"
        path.write_text(damaged, encoding="utf-8")
        for read in (recordings.load, lambda path: rows.load(path, fields["title"])):
            try:
                recording = read(path)
            except RecordingError as error:
                assert_tells(error)
            else:
                recordings.recorded("what", recording, "why")._repr_mimebundle_()


# --- the exercise checker --------------------------------------------------------------------------------------------


class Hostile:
    """What a learner's class may do to whoever looks at it."""

    def __eq__(self, other):
        raise RuntimeError("no equality")

    def __hash__(self):
        raise RuntimeError("no hash")

    def __repr__(self):
        raise RuntimeError("no text")

    def __float__(self):
        raise RuntimeError("no number")

    def __len__(self):
        raise RuntimeError("no length")

    def tolist(self):
        raise RuntimeError("no list")


def in_itself() -> list:
    inside: list = [1]
    inside.append(inside)
    return inside


def exercises() -> list[str]:
    rooms = (room.name.removeprefix("lesson") for room in pkgutil.iter_modules(lessons.__path__))
    modules = filter(None, (import_room(name, "exercises") for name in rooms))
    return [exercise for module in modules for exercise in module.EXERCISES]


THINGS = (
    Hostile(), [Hostile()], {"a": Hostile()}, in_itself(), Hostile, math, ..., NotImplemented, 10**400, 1j, {1}, b"a",
    range(3), np.array([]), np.array([None, 1], object), np.float16("nan"), np.zeros((3, 3)), "\udcff", "x" * 5000,
    onnx.ModelProto(), Path("nowhere"), ValueError("raised by nobody"), lambda: None,
)  # fmt: skip
ODD = st.integers(0, len(THINGS) - 1).map(THINGS.__getitem__)  # by number: Hypothesis hashes what it chooses from
ANSWERS = ODD | JSON | st.lists(ODD, max_size=2) | st.dictionaries(st.sampled_from("ab"), ODD, max_size=2)


class SilentError(Exception):
    """An exception that can't be told."""

    def __str__(self):
        raise RuntimeError("no message")


def raising(error):
    def function(*_):
        raise error

    return function


@settings(max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("exercise", exercises())
def test_any_answer_gets_a_verdict(exercise, data):
    returned = data.draw(ANSWERS)
    with no_longer_than(SECONDS):
        result = checking.check(exercise, lambda *_: returned)
        assert result.state == "wrong"
        assert str(result)
        assert result._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("error", [SilentError(), SystemExit(1), RecursionError(), MemoryError(), ValueError("a\nb")])
@pytest.mark.parametrize("exercise", exercises())
def test_any_exception_gets_a_verdict(exercise, error):
    result = checking.check(exercise, raising(error))
    assert result.state == "wrong"
    assert f"raised {type(error).__name__}" in str(result)


@pytest.mark.parametrize("answer", [Hostile, Hostile(), print, int, np.float32, "01.1", None, ...], ids=range(8))
def test_any_object_in_place_of_a_function_gets_a_verdict(answer):
    assert checking.check(exercises()[0], answer).state in ("wrong", "open")
