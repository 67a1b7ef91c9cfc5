"""The fault laboratory: every case really shows its fault, the right answer is accepted, wrong ones are told apart."""

import numpy as np
import pytest
from onnx import numpy_helper

from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import tensor_errors
from tutorial_utils.lessons.lesson04 import exercises, fault_lab
from tutorial_utils.lessons.lesson04.fault_lab import CAUSES, FAULTS
from tutorial_utils.lessons.lesson04.fault_lab_model import INPUTS
from tutorial_utils.measure import quality
from tutorial_utils.model import networks, onnx_file

SEEDS = range(6)
FEED_FAULTS = ("layout", "normalization", "memory")
each_seed = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture(autouse=True)
def quick_without_paddle(monkeypatch, models):
    """The course's classifier needs Paddle and training; a network of the same inputs takes its place."""
    monkeypatch.setattr(networks, "quick", lambda: models)


def tensors(case: fault_lab.Case, *, of: str) -> dict[str, np.ndarray]:
    if of == "reference":
        return tensor_errors.all_outputs(case.reference_model, case.reference_feeds)
    return tensor_errors.all_outputs(case.candidate_model, case.candidate_feeds)


def table(case: fault_lab.Case):
    return tensor_errors.compare(tensors(case, of="reference"), tensors(case, of="candidate"))


# --- the evidence shows the fault ------------------------------------------------------------------------------------


@each_seed
def test_overflow_is_found_by_the_method_of_the_lesson(seed):
    case = fault_lab.serve("overflow", seed)
    found = table(case)
    tensor = tensor_errors.first_bad(found)
    assert ("overflow", tensor) == case.answer
    assert found["inf"][tensor]
    assert not found["nan"][tensor]
    assert found["peak_ref"][tensor] > np.finfo(np.float16).max
    assert not np.isfinite(case.candidate_output).all()


@each_seed
def test_division_gives_nan_for_the_grey_image_without_any_infinity(seed):
    case = fault_lab.serve("division", seed)
    found = table(case)
    assert ("division", tensor_errors.first_bad(found)) == case.answer
    assert not found["inf"].any()
    assert np.isnan(case.candidate_output).any(axis=1).tolist() == [False, False, True, False]
    assert np.isfinite(case.reference_output).all()


@each_seed
def test_blank_image_stays_below_the_threshold_whatever_fp16_rounds(seed):
    """Just below would do in FP32; in FP16 a rounding could lift it above zero, and there would be no division."""
    case = fault_lab.serve("division", seed)
    block = case.answer[1].removesuffix(".attention")
    (bias,) = [
        numpy_helper.to_array(weight)
        for weight in onnx_file.load(case.reference_model).graph.initializer
        if weight.name == f"{block}.interest.bias"
    ]
    blank = tensors(case, of="reference")[f"{block}.interest"][fault_lab._BLANK].max()
    assert blank / bias.item() > 8 * np.finfo(np.float16).eps
    assert bias < 0


@each_seed
def test_tolerance_case_is_sound(seed):
    case = fault_lab.serve("tolerance", seed)
    found = table(case)
    depths = tensor_errors.depths(onnx_file.load(case.reference_model))
    allowed = found.index.map(lambda name: tensor_errors.tolerance("fp16", depths[name]))
    assert (found["rel_l2"] <= allowed).all()
    assert not np.allclose(case.candidate_output, case.reference_output, rtol=1e-5, atol=1e-5)


@each_seed
@pytest.mark.parametrize("fault", FEED_FAULTS)
def test_feed_fault_is_in_one_input_and_changes_the_output(fault, seed):
    case = fault_lab.serve(fault, seed)
    cause, faulty = case.answer
    (sound,) = {*INPUTS} - {faulty}
    assert cause == fault
    assert case.reference_model == case.candidate_model
    assert np.array_equal(case.candidate_feeds[sound], case.reference_feeds[sound])
    assert case.candidate_feeds[sound].flags.c_contiguous
    assert quality.relative_error(case.candidate_output, case.reference_output) > 0.05
    old, new = case.reference_feeds[faulty], case.candidate_feeds[faulty]
    assert np.array_equal(old, new) == (fault == "memory")
    assert new.flags.c_contiguous == (fault != "memory")
    assert np.array_equal(np.sort(old, axis=None), np.sort(new, axis=None)) == (fault != "normalization")
    if fault != "normalization":
        assert (new.mean(), new.std()) == pytest.approx((old.mean(), old.std()), abs=1e-5)


@each_seed
@pytest.mark.parametrize("fault", FEED_FAULTS)
def test_onnx_runtime_returns_the_candidate_output_for_the_bytes_of_the_feed(fault, seed):
    case = fault_lab.serve(fault, seed)
    feeds = {
        name: array.ravel("K").reshape(array.shape) for name, array in case.candidate_feeds.items()
    }  # as in memory
    *_, output = tensor_errors.all_outputs(case.candidate_model, feeds).values()
    assert np.array_equal(output, case.candidate_output)


def test_both_forms_of_a_fault_are_served():
    layouts = [fault_lab.serve("layout", seed) for seed in range(12)]
    swapped = [np.array_equal(c.candidate_feeds[c.answer[1]][:, ::-1], c.reference_feeds[c.answer[1]]) for c in layouts]
    assert {*swapped} == {True, False}
    memories = [fault_lab.serve("memory", seed) for seed in range(12)]
    assert {c.candidate_feeds[c.answer[1]].flags.f_contiguous for c in memories} == {True, False}
    smallest = {round(fault_lab.serve("normalization", seed).candidate_feeds["before"].min()) for seed in range(24)}
    assert smallest >= {-2, -1, 0}


def test_fp8_case_has_a_file_that_is_right_and_an_engine_that_is_wrong():
    case = fault_lab.serve("engine", 0)
    assert case.candidate_output is None
    assert "NVIDIA" in case.origin.machine
    assert case.measured["fp16"].sqnr_db > 40
    assert case.measured["fp8"].sqnr_db < 0
    *_, on_cpu = tensors(case, of="candidate").values()
    assert quality.sqnr_db(on_cpu, case.reference_output) > 15


def test_check_of_the_fp8_case_has_a_file_that_is_wrong_too():
    outputs = []
    for case in (tried.arguments[0] for tried in exercises.engine_or_file()):
        *_, output = tensors(case, of="candidate").values()
        outputs.append(quality.sqnr_db(output, case.reference_output))
    assert outputs[0] > 20
    assert outputs[1] < 5


# --- what depends on the seed ----------------------------------------------------------------------------------------


def test_seed_decides_number_place_and_factor():
    assert {fault_lab.order(seed).index("memory") for seed in range(40)} == {*range(7)}
    overflows = [fault_lab.serve("overflow", seed) for seed in range(12)]
    assert len({case.answer[1] for case in overflows}) >= 4
    epsilons = [
        numpy_helper.to_array(weight).item()
        for case in overflows
        for weight in onnx_file.load(case.candidate_model).graph.initializer
        if weight.name == "joint.epsilon"
    ]
    assert epsilons == [0] * len(overflows)
    peaks = {float(table(case)["peak_ref"][case.answer[1]]) for case in overflows[:4]}
    assert len(peaks) == 4


def test_same_seed_serves_the_same():
    one, again = (fault_lab.case(1, seed=5) for _ in range(2))
    assert str(one) == str(again)
    assert one.answer == again.answer
    assert np.array_equal(one.reference_output, again.reference_output)


def test_default_seed_goes_from_easy_to_hard():
    assert fault_lab.order() == (
        "overflow", "normalization", "tolerance", "layout", "division", "memory", "engine",
    )  # fmt: skip


def test_case_does_not_tell_its_answer():
    complaints = {fault: fault_lab.serve(fault, 3).complaint for fault in FAULTS}
    assert len({*complaints.values()}) == 3  # about a feed, about an FP16 file, about an engine
    assert len({complaints[fault] for fault in FEED_FAULTS}) == 1
    assert "answer" not in repr(fault_lab.serve("overflow", 3))


@pytest.mark.parametrize("number", [0, 8, -1, "1"])
def test_unknown_number(number):
    with pytest.raises(InputError, match="Choose a number from 1 to 7"):
        fault_lab.case(number)


# --- the judge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_right_answer_is_accepted_and_every_other_cause_has_an_objection_of_its_own(fault):
    case = fault_lab.serve(fault, 2)
    assert fault_lab.judge(case, *case.answer).passed
    objections = {cause: fault_lab.objection(case, cause, case.answer[1]) for cause in CAUSES if cause != fault}
    assert all(objections.values())
    assert len({*objections.values()}) == len(CAUSES) - 1
    assert not fault_lab.judge(case, next(iter(objections)), None).passed


def test_right_cause_with_a_wrong_tensor():
    case = fault_lab.serve("division", 1)
    assert case.answer == ("division", "before.attention")
    expected = {
        None: "In which tensor",
        "before.attended": "because one before it is",
        "scores": "because one before it is",
        "before.mean": "is as it should be",
        "before.mean_eps": "finite still",
        "after.attention": "is as it should be",
        "attention": "no tensor of that name",
    }
    for tensor, words in expected.items():
        assert words in fault_lab.objection(case, "division", tensor)
    assert "name None" in fault_lab.objection(fault_lab.serve("tolerance", 1), "tolerance", "scores")
    assert "one of these names" in fault_lab.objection(case, "gremlins")
